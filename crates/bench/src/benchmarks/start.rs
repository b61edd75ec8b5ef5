//! Time of a VM's start: Drover's part and libvirt's.
//!
//! ```text
//!  request sent      libvirt is asked      libvirt has answered      `running` is on record
//!      │◄── our part ──────►│◄──── libvirt ────────►│◄──── our part ────────►│
//! ```

use super::{Benchmark, EVERYWHERE, Measure, Row};
use crate::{
    figures::{Figure, Samples},
    log::{self, StartCall},
    probe::{Start, Starts},
    world::{Cluster, World},
};
use drover_lab::{LabError, Result};
use std::time::Duration;

/// Number of starts.
const COUNT: usize = 20;
/// Target for Drover's part of a start.
const TARGET: Figure = Figure::ms(50);
/// Name of the VM.
const VM: &str = "bench";

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "start", title: "A VM's start", measure: Measure::InLabs { settings: EVERYWHERE, run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    // In a cluster, requests are sent to another node than the VM's.
    let (at, home) = match world.cluster() {
        Cluster::One => ("hv1", "hv1"),
        Cluster::Three => ("hv1", "hv2"),
    };
    world.report(&format!("starting a VM on {home} {COUNT} times, by requests to {at}"));
    let starts = Starts { vm: VM.to_owned(), node: home.to_owned(), count: COUNT };
    let starts = world.probe(&world.node(at)?, starts)?;
    let parts = split(&world.log(home)?, &starts)?;
    let row = |what: &str, of: fn(&Parts) -> Duration, target| {
        let times = Samples::new(parts.iter().map(of).collect())?;
        Ok(Row { what: what.to_owned(), figure: times.median(), detail: times.range(), target })
    };
    Ok(vec![
        row("**our own part**", |p| p.before + p.after, Some(TARGET))?,
        row("of it, until libvirt is asked", |p| p.before, None)?,
        row("of it, from libvirt's answer until `running` is on record", |p| p.after, None)?,
        row("libvirt's own time", |p| p.libvirt, None)?,
    ])
}

/// The parts of a start's time.
struct Parts {
    before: Duration,
    libvirt: Duration,
    after: Duration,
}

/// Combines the probe's times with those in the log of the node's daemon, which come from the same clock.
fn split(log: &str, starts: &[Start]) -> Result<Vec<Parts>> {
    let parts = |start: &Start| {
        let Some(StartCall { begin, end }) = log::start_of(log, VM, start.epoch) else {
            let what = format!("no start of VM {VM} under epoch {}", start.epoch);
            return Err(LabError::new(what, "not found in the log of its node"));
        };
        let between = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
        Ok(Parts {
            before: between(start.requested, begin),
            libvirt: between(begin, end),
            after: between(end, start.running),
        })
    };
    starts.iter().map(parts).collect()
}
