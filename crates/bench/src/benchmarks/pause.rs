//! What a guest's users see of its live migration: the longest time without an answer to a ping.

use super::{Benchmark, Measure, Row, THREE_EMPTY};
use crate::{
    definitions,
    figures::{Figure, Samples},
    probe::{Bring, Move, Moves, Remove},
    world::World,
};
use drover_lab::{Domain, Lab, LabError, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::Read,
    process::{Child, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often the VM goes there and back.
const ROUNDS: usize = 10;
/// How long it is left alone after each move, and still watched.
const REST: Duration = Duration::from_secs(1);
/// How long it is watched before the first.
const UNDISTURBED: Duration = Duration::from_secs(10);
/// How often it is pinged, in seconds.
const INTERVAL: &str = "0.025";
/// The VM's name, its address, and the nodes that it is sent between; a third one is asked.
const VM: &str = "bench";
const ADDRESS: &str = "203.0.113.50";
const HOME: &str = "hv2";
const AWAY: &str = "hv3";
/// The bridge that is made in the nodes out of their interface to the network where users are.
const BRIDGE: &str = "br0";
const MAKE: &str = "ip link add br0 type bridge && ip link set br0 up && ip link set eth1 master br0";

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "pause",
    title: "What a guest's users see of its migration",
    measure: Measure::InLabs { settings: &[THREE_EMPTY], run },
};

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.say(&format!("pinging a VM that is sent from {HOME} to {AWAY} and back {ROUNDS} times"));
    let asked = world.first()?;
    for node in [HOME, AWAY] {
        world.node(node)?.exec(&["sh", "-c", MAKE])?;
    }
    world.probe(
        &asked,
        Bring { vms: vec![(VM.to_owned(), xml())], node: HOME.to_owned(), fits: vec![AWAY.to_owned()] },
    )?;
    let answers = || world.client(&["ping", "-n", "-c1", "-W1", ADDRESS]).output().ok().filter(|o| o.status.success());
    Lab::until(&format!("{ADDRESS} does not answer"), Duration::from_secs(30), answers)?;

    let pings = Pings::start(world)?;
    thread::sleep(UNDISTURBED);
    let (vm, home, away) = (VM.to_owned(), HOME.to_owned(), AWAY.to_owned());
    let moves = world.probe(&asked, Moves { vm, home, away, rounds: ROUNDS, rest: REST })?;
    // So that an answer comes after all that is looked at.
    thread::sleep(REST);
    let answered = pings.end()?;
    world.probe(&asked, Remove { vms: vec![VM.to_owned()] })?;
    for node in [HOME, AWAY] {
        world.node(node)?.exec(&["ip", "link", "delete", BRIDGE])?;
    }

    let undisturbed = longest_gap(&answered, 0, moves.first().map_or(0, |first| first.asked));
    let rest = u64::try_from(REST.as_micros()).unwrap_or(0);
    let gap = |moved: &Move| longest_gap(&answered, moved.asked, moved.running + rest);
    let gaps = Samples::new(moves.iter().map(gap).collect::<Result<_>>()?)?;
    let row = |what: &str, figure, detail| Row { what: what.to_owned(), figure, detail, target: None };
    Ok(vec![
        row("longest time without an answer during a migration", gaps.median(), gaps.range()),
        row("the same while nothing moves", Figure::Time(undisturbed?), format!("over {} s", UNDISTURBED.as_secs())),
    ])
}

/// A guest with an interface, and an address for it.
fn xml() -> String {
    let interface = format!(
        "    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='{BRIDGE}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
  </devices>"
    );
    let domain = Domain::new(VM).with(&format!("ip4={ADDRESS}/24"));
    domain.xml(&definitions::guest()).replacen("  </devices>", &interface, 1)
}

/// Pings of the guest, which go on until they are ended.
struct Pings {
    child: Child,
    said: JoinHandle<std::io::Result<String>>,
}

impl Pings {
    fn start(world: &World<'_>) -> Result<Pings> {
        let failed = |e: std::io::Error| LabError::new("cannot run ping", e);
        let mut command = world.client(&["ping", "-n", "-D", "-i", INTERVAL, ADDRESS]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let pipe = child.stdout.take();
        let said = thread::spawn(move || {
            let mut said = String::new();
            pipe.map_or(Ok(0), |mut pipe| pipe.read_to_string(&mut said)).map(|_| said)
        });
        Ok(Pings { child, said })
    }

    /// Ends them, and gives when each answer came, in microseconds since 1970.
    fn end(mut self) -> Result<Vec<u64>> {
        let failed = |e: std::io::Error| LabError::new("cannot end ping", e);
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::INT).map_err(|e| failed(e.into()))?;
        }
        self.child.wait().map_err(failed)?;
        let said = self.said.join().map_err(|_| LabError::new("cannot read what ping says", "its reader ended"))?;
        Ok(said.map_err(failed)?.lines().filter_map(answer).collect())
    }
}

/// When an answer came, by ping's line: `[1700000000.123456] 64 bytes from ADDRESS: icmp_seq=1 ttl=64 time=0.5 ms`.
fn answer(line: &str) -> Option<u64> {
    let (seconds, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = seconds.split_once('.')?;
    let fraction = format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?;
    rest.contains(" bytes from ").then_some(seconds.parse::<u64>().ok()? * 1_000_000 + fraction)
}

/// The longest time between two answers, some of which is in this span.
fn longest_gap(answered: &[u64], from: u64, to: u64) -> Result<Duration> {
    let gaps = answered.windows(2).filter_map(|pair| match pair {
        [before, after] if *after > from && *before < to => Some(after.saturating_sub(*before)),
        _ => None,
    });
    // An answer beyond it must have come, or the longest is not over.
    let last = answered.last().copied().unwrap_or(0);
    let missing = || {
        let why =
            format!("{} answers, the last of them {} ms too early", answered.len(), to.saturating_sub(last) / 1000);
        LabError::new(format!("{ADDRESS} does not answer any more"), why)
    };
    gaps.max().filter(|_| last >= to).map(Duration::from_micros).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::domain::devices::Devices;

    #[test]
    fn the_longest_gap_of_a_span_is_found() {
        let answered = [100, 125, 150, 900, 925, 2000, 2025];
        let gap = |from, to| longest_gap(&answered, from, to).map(|gap| gap.as_micros());
        assert_eq!(gap(0, 140).unwrap(), 25);
        assert_eq!(gap(140, 800).unwrap(), 750);
        assert_eq!(gap(160, 170).unwrap(), 750, "it is all inside");
        assert_eq!(gap(0, 2025).unwrap(), 1075);
        assert!(gap(0, 2026).is_err() && longest_gap(&[], 0, 0).is_err());
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            answer("[1700000000.012345] 64 bytes from 203.0.113.50: icmp_seq=1 ttl=64 time=0.5 ms"),
            Some(1_700_000_000_012_345)
        );
        assert_eq!(answer("[1700000000.012345] From 203.0.113.100 icmp_seq=1 Destination Host Unreachable"), None);
        assert_eq!(answer("PING 203.0.113.50 (203.0.113.50) 56(84) bytes of data."), None);
    }

    #[test]
    fn the_guest_has_an_interface() {
        let networks = Devices::read(&xml()).networks;
        assert_eq!((networks.len(), networks[0].source.as_str()), (1, BRIDGE));
        assert!(MAKE.contains(BRIDGE) && xml().contains("ip4=203.0.113.50/24"));
    }
}
