//! How long a VM's start takes, and whose time it is.
//!
//! ```text
//!  request sent      libvirt is asked      libvirt has answered      `running` is on record
//!      │◄── our part ──────►│◄──── libvirt ────────►│◄──── our part ────────►│
//! ```

use super::{Benchmark, EVERYWHERE, Measure, Row};
use crate::{
    figures::{Figure, Samples},
    log::{self, Handed},
    probe::{Start, Starts},
    world::{Cluster, World},
};
use drover_lab::{LabError, Result};
use std::time::Duration;

/// How often the VM is started.
const COUNT: usize = 20;
/// Our own part of a start is to be shorter.
const TARGET: Figure = Figure::ms(50);
/// The VM's name.
const VM: &str = "bench";

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "start", title: "A VM's start", measure: Measure::InLabs { settings: EVERYWHERE, run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    // In a cluster, whoever asks need not know where the VM is.
    let (asked, home) = match world.cluster() {
        Cluster::One => ("hv1", "hv1"),
        Cluster::Three => ("hv1", "hv2"),
    };
    world.say(&format!("starting a VM of {home} {COUNT} times, by asking {asked}"));
    let starts = Starts { vm: VM.to_owned(), node: home.to_owned(), count: COUNT };
    let starts = world.probe(&world.node(asked)?, starts)?;
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

/// Whose time a start took.
struct Parts {
    before: Duration,
    libvirt: Duration,
    after: Duration,
}

/// Puts together what the probe saw and what the node's daemon logged: the clock is the same.
fn split(log: &str, starts: &[Start]) -> Result<Vec<Parts>> {
    let parts = |start: &Start| {
        let Some(Handed { over, back }) = log::start_of(log, VM, start.epoch) else {
            let what = format!("a start of VM {VM} under epoch {}", start.epoch);
            return Err(LabError::new(what, "its node's log does not tell of it"));
        };
        let between = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
        Ok(Parts {
            before: between(start.asked, over),
            libvirt: between(over, back),
            after: between(back, start.running),
        })
    };
    starts.iter().map(parts).collect()
}
