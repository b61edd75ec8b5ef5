//! Time of a live migration: Drover's part and libvirt's.
//!
//! ```text
//!  request sent      libvirt is asked      libvirt has answered      its new node is on record
//!      │◄── our part ──────►│◄──── libvirt ────────►│◄──── our part ────────►│
//! ```

use super::{Benchmark, Measure, Row, THREE_EMPTY, THREE_FULL};
use crate::{
    definitions,
    figures::{Figure, Samples},
    log::{self, MigrateCall},
    probe::{Boot, Move, Moves, Remove},
    world::World,
};
use drover_lab::{Domain, LabError, Result};
use std::time::Duration;

/// Number of migrations to the other node and back.
const ROUNDS: usize = 10;
/// Delay after each migration, because libvirt finishes its work on the target a moment after the guest runs there.
const REST: Duration = Duration::from_secs(1);
/// Target for Drover's part of a migration.
const TARGET: Figure = Figure::ms(100);
/// The VM's name, and the nodes that it migrates between. Requests are sent to the third node.
const VM: &str = "bench";
const HOME: &str = "hv2";
const AWAY: &str = "hv3";

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "migration",
    title: "A live migration",
    measure: Measure::InLabs { settings: &[THREE_EMPTY, THREE_FULL], run },
};

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.report(&format!("migrating a VM from {HOME} to {AWAY} and back {ROUNDS} times"));
    let node = world.first()?;
    let vms = vec![(VM.to_owned(), Domain::new(VM).xml(&definitions::guest()))];
    world.probe(&node, Boot { vms, node: HOME.to_owned(), fits: vec![AWAY.to_owned()] })?;
    let (vm, home, away) = (VM.to_owned(), HOME.to_owned(), AWAY.to_owned());
    let moves = world.probe(&node, Moves { vm, home, away, rounds: ROUNDS, rest: REST })?;
    let parts = moves.iter().map(|moved| split(&world.log(&moved.from)?, moved)).collect::<Result<Vec<Parts>>>()?;
    world.probe(&node, Remove { vms: vec![VM.to_owned()] })?;
    let row = |what: &str, of: fn(&Parts) -> Duration, target| row(what, parts.iter().map(of).collect(), target);
    let mut rows = vec![
        row("**our own part**", Parts::own, Some(TARGET))?,
        row("of it, until libvirt is asked", |p| p.before, None)?,
        row("of it, from libvirt's answer until the new node is on record", |p| p.after, None)?,
        row("all, from the request until the new node is on record", |p| p.all, None)?,
    ];
    let libvirt: Vec<Duration> = parts.iter().filter_map(|p| p.libvirt).collect();
    let (known, all) = (libvirt.len(), parts.len());
    if known > 0 {
        rows.push(self::row(&format!("libvirt's own time, of {known} of {all}"), libvirt, None)?);
    }
    Ok(rows)
}

fn row(what: &str, times: Vec<Duration>, target: Option<Figure>) -> Result<Row> {
    let times = Samples::new(times)?;
    Ok(Row { what: what.to_owned(), figure: times.median(), detail: times.range(), target })
}

/// The parts of a migration's time.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    all: Duration,
    before: Duration,
    /// `None` if the target took the VM over before the source had libvirt's answer.
    libvirt: Option<Duration>,
    /// Zero in that case.
    after: Duration,
}

impl Parts {
    fn own(&self) -> Duration {
        self.before + self.after
    }
}

/// Combines the probe's times with those in the log of the source's daemon, which come from the same clock.
fn split(log: &str, moved: &Move) -> Result<Parts> {
    let Move { from, to, epoch, requested, running } = moved;
    let call = log::migration_of(log, VM, to, *epoch).filter(|call| (*requested..=*running).contains(&call.begin));
    let Some(MigrateCall { begin, end }) = call else {
        let what = format!("no migration of VM {VM} to {to} under epoch {epoch}");
        return Err(LabError::new(what, format!("not found in the log of {from}")));
    };
    let between = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
    Ok(Parts {
        all: between(*requested, *running),
        before: between(*requested, begin),
        libvirt: end.map(|end| between(begin, end)),
        after: end.map_or(Duration::ZERO, |end| between(end, *running)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drovers_part_is_the_time_outside_libvirts_call() {
        let log = "1970-01-01T00:00:01.000000Z  INFO x: sending a VM vm=bench to=hv3 epoch=2
1970-01-01T00:00:03.000000Z  INFO x: a VM was sent vm=bench to=hv3
1970-01-01T00:00:04.000000Z  INFO x: sending a VM vm=bench to=hv3 epoch=4
1970-01-01T00:00:05.000000Z  INFO x: the VM's record changed: the step is dropped vm=u step=Migrate(hv3)
";
        let moved = |epoch, requested_ms: u64, running_ms: u64| Move {
            from: "hv2".to_owned(),
            to: "hv3".to_owned(),
            epoch,
            requested: requested_ms * 1000,
            running: running_ms * 1000,
        };
        let ms = Duration::from_millis;
        let parts = split(log, &moved(2, 900, 3050)).unwrap();
        assert_eq!(parts, Parts { all: ms(2150), before: ms(100), libvirt: Some(ms(2000)), after: ms(50) });
        assert_eq!(parts.own(), ms(150));
        let taken = split(log, &moved(4, 3900, 5000)).unwrap();
        assert_eq!(taken, Parts { all: ms(1100), before: ms(100), libvirt: None, after: ms(0) });
        assert!(split(log, &moved(3, 900, 3050)).is_err());
        assert!(split(log, &moved(2, 1900, 4050)).is_err(), "that was another one");
    }
}
