//! How long a live migration takes, and whose time it is.
//!
//! ```text
//!  request sent      libvirt is asked      libvirt has answered      its new node is on record
//!      │◄── our part ──────►│◄──── libvirt ────────►│◄──── our part ────────►│
//! ```

use super::{Benchmark, Measure, Row, THREE_EMPTY, THREE_FULL};
use crate::{
    definitions,
    figures::{Figure, Samples},
    log::{self, Sent},
    probe::{Bring, Move, Moves, Remove},
    world::World,
};
use drover_lab::{Domain, LabError, Result};
use std::time::Duration;

/// How often the VM goes there and back.
const ROUNDS: usize = 10;
/// How long the VM is left alone after each: libvirt ends its own work at the target a moment after the guest runs
/// there.
const REST: Duration = Duration::from_secs(1);
/// Our own part of a migration is to be shorter.
const TARGET: Figure = Figure::ms(100);
/// The VM's name, and the nodes that it is sent between; a third one is asked.
const VM: &str = "bench";
const HOME: &str = "hv2";
const AWAY: &str = "hv3";

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "migration",
    title: "A live migration",
    measure: Measure::InLabs { settings: &[THREE_EMPTY, THREE_FULL], run },
};

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.say(&format!("sending a VM from {HOME} to {AWAY} and back {ROUNDS} times"));
    let asked = world.first()?;
    let vms = vec![(VM.to_owned(), Domain::new(VM).xml(&definitions::guest()))];
    world.probe(&asked, Bring { vms, node: HOME.to_owned(), fits: vec![AWAY.to_owned()] })?;
    let (vm, home, away) = (VM.to_owned(), HOME.to_owned(), AWAY.to_owned());
    let moves = world.probe(&asked, Moves { vm, home, away, rounds: ROUNDS, rest: REST })?;
    let parts = moves.iter().map(|moved| split(&world.log(&moved.from)?, moved)).collect::<Result<Vec<Parts>>>()?;
    world.probe(&asked, Remove { vms: vec![VM.to_owned()] })?;
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

/// Whose time a migration took.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    all: Duration,
    before: Duration,
    /// Not known, where the target took the VM over before the source had libvirt's answer.
    libvirt: Option<Duration>,
    /// None, where that is so.
    after: Duration,
}

impl Parts {
    fn own(&self) -> Duration {
        self.before + self.after
    }
}

/// Puts together what the probe saw and what the daemon of the node logged that sent the VM: the clock is the same.
fn split(log: &str, moved: &Move) -> Result<Parts> {
    let Move { from, to, epoch, asked, running } = moved;
    let sent = log::sending_of(log, VM, to, *epoch).filter(|sent| (*asked..=*running).contains(&sent.over));
    let Some(Sent { over, back }) = sent else {
        let what = format!("VM {VM} was sent from {from} to {to}, where it has epoch {epoch}");
        return Err(LabError::new(what, "the log does not tell of it"));
    };
    let between = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from));
    Ok(Parts {
        all: between(*asked, *running),
        before: between(*asked, over),
        libvirt: back.map(|back| between(over, back)),
        after: back.map_or(Duration::ZERO, |back| between(back, *running)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_libvirts_is_ours() {
        let log = "1970-01-01T00:00:01.000000Z  INFO x: sending a VM vm=bench to=hv3 epoch=2
1970-01-01T00:00:03.000000Z  INFO x: a VM was sent vm=bench to=hv3
1970-01-01T00:00:04.000000Z  INFO x: sending a VM vm=bench to=hv3 epoch=4
1970-01-01T00:00:05.000000Z  INFO x: the VM's record changed: the step is dropped vm=u step=Migrate(hv3)
";
        let moved = |epoch, asked_ms: u64, running_ms: u64| Move {
            from: "hv2".to_owned(),
            to: "hv3".to_owned(),
            epoch,
            asked: asked_ms * 1000,
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
