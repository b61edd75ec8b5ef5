//! How users see a guest during its live migration: the longest time without an answer to a ping.

use super::{Benchmark, Measure, Row, THREE_EMPTY};
use crate::{
    definitions,
    figures::{Figure, Samples},
    pings::{self, Pings, longest_gap},
    probe::{Boot, Move, Moves, Remove},
    world::World,
};
use drover_lab::{Domain, Result};
use std::{thread, time::Duration};

/// Number of migrations to the other node and back.
const ROUNDS: usize = 10;
/// Time after each migration in which the pings go on.
const REST: Duration = Duration::from_secs(1);
/// Length of the measurement without migrations.
const UNDISTURBED: Duration = Duration::from_secs(10);
/// The VM's name and address, and the nodes that it migrates between. Requests are sent to the third node.
const VM: &str = "bench";
const ADDRESS: &str = "203.0.113.50";
const HOME: &str = "hv2";
const AWAY: &str = "hv3";
/// A bridge in the nodes that contains their interface in the upstream network.
const BRIDGE: &str = "br0";
const CREATE_BRIDGE: &str = "ip link add br0 type bridge && ip link set br0 up && ip link set eth1 master br0";

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "pause",
    title: "What a guest's users see of its migration",
    measure: Measure::InLabs { settings: &[THREE_EMPTY], run },
};

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.report(&format!("pinging a VM that migrates from {HOME} to {AWAY} and back {ROUNDS} times"));
    let node = world.first()?;
    world.bridge(BRIDGE, CREATE_BRIDGE, &[HOME, AWAY])?;
    world
        .probe(&node, Boot { vms: vec![(VM.to_owned(), xml())], node: HOME.to_owned(), fits: vec![AWAY.to_owned()] })?;
    pings::answers(world, ADDRESS)?;

    let pings = Pings::start(world, ADDRESS)?;
    thread::sleep(UNDISTURBED);
    let (vm, home, away) = (VM.to_owned(), HOME.to_owned(), AWAY.to_owned());
    let moves = world.probe(&node, Moves { vm, home, away, rounds: ROUNDS, rest: REST })?;
    // So that there is an answer after the last measured time.
    thread::sleep(REST);
    let answered = pings.end()?;
    world.probe(&node, Remove { vms: vec![VM.to_owned()] })?;
    for name in [HOME, AWAY] {
        world.node(name)?.exec(&["ip", "link", "delete", BRIDGE])?;
    }

    let undisturbed = longest_gap(&answered, 0, moves.first().map_or(0, |first| first.requested));
    let rest = u64::try_from(REST.as_micros()).unwrap_or(0);
    let gap = |moved: &Move| longest_gap(&answered, moved.requested, moved.running + rest);
    let gaps = Samples::new(moves.iter().map(gap).collect::<Result<_>>()?)?;
    let row = |what: &str, figure, detail| Row { what: what.to_owned(), figure, detail, target: None };
    Ok(vec![
        row("longest time without an answer during a migration", gaps.median(), gaps.range()),
        row("the same while nothing moves", Figure::Time(undisturbed?), format!("over {} s", UNDISTURBED.as_secs())),
    ])
}

/// Domain XML of a guest with an interface and an address.
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
    fn guest_has_an_interface_on_the_bridge() {
        let networks = Devices::read(&xml()).networks;
        assert_eq!((networks.len(), networks[0].source.as_str()), (1, BRIDGE));
        assert!(CREATE_BRIDGE.contains(BRIDGE) && xml().contains("ip4=203.0.113.50/24"));
    }
}
