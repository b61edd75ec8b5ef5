//! What a guest's users see of its live migration: the longest time without an answer to a ping.

use super::{Benchmark, Measure, Row, THREE_EMPTY};
use crate::{
    definitions,
    figures::{Figure, Samples},
    pings::{self, Pings, longest_gap},
    probe::{Bring, Move, Moves, Remove},
    world::World,
};
use drover_lab::{Domain, Result};
use std::{thread, time::Duration};

/// How often the VM goes there and back.
const ROUNDS: usize = 10;
/// How long it is left alone after each move, and still watched.
const REST: Duration = Duration::from_secs(1);
/// How long it is watched before the first.
const UNDISTURBED: Duration = Duration::from_secs(10);
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
    pings::answers(world, ADDRESS)?;

    let pings = Pings::start(world, ADDRESS)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::domain::devices::Devices;

    #[test]
    fn the_guest_has_an_interface() {
        let networks = Devices::read(&xml()).networks;
        assert_eq!((networks.len(), networks[0].source.as_str()), (1, BRIDGE));
        assert!(MAKE.contains(BRIDGE) && xml().contains("ip4=203.0.113.50/24"));
    }
}
