//! How users see a floating address during handoffs of the primary's role, and during takeovers after a fault.

use super::{Benchmark, Measure, Row, THREE_EMPTY};
use crate::{
    figures::{Figure, Samples},
    pings::{self, Pings, longest_gap, lost, now},
    probe::Handoffs,
    world::World,
};
use drover_lab::{Cut, Lab, LabError, Net, Result, Service, Signal};
use drover_model::wire;
use std::{thread, time::Duration};

/// Number of handoffs.
const HANDOFFS: usize = 20;
/// Number of times that each fault is injected.
const ROUNDS: usize = 3;
/// Time without events before and after each measurement, in which the pings go on.
const REST: Duration = Duration::from_secs(1);
/// Timeout for a takeover and for a recovery.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A primary hands its role over by itself only if the last handoff is at least this long ago.
const HANDOFF_INTERVAL: Duration = Duration::from_secs(9);
const ADDRESS: &str = "203.0.113.200";
const NODES: [&str; 3] = ["hv1", "hv2", "hv3"];

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "handoff",
    title: "The floating addresses pass on",
    measure: Measure::InLabs { settings: &[THREE_EMPTY], run },
};

/// A fault of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PowerOff,
    Killed,
    Stopped,
    ClusterCut,
    UpstreamCut,
    UpstreamDown,
    /// Power-off of a primary whose node also has the ZooKeeper leader.
    WithLeader,
}

impl Fault {
    const ALL: [Fault; 7] = [
        Fault::PowerOff,
        Fault::Killed,
        Fault::Stopped,
        Fault::ClusterCut,
        Fault::UpstreamCut,
        Fault::UpstreamDown,
        Fault::WithLeader,
    ];

    fn what(self) -> &'static str {
        match self {
            Fault::PowerOff => "the primary's power is cut, and its ZooKeeper does not lead",
            Fault::Killed => "its `droverd` is killed with SIGKILL",
            Fault::Stopped => "its `droverd` is stopped with SIGSTOP",
            Fault::ClusterCut => "its link to the other daemons and to ZooKeeper is cut silently",
            Fault::UpstreamCut => "its link to the users is cut silently",
            Fault::UpstreamDown => "its link to the users goes down",
            Fault::WithLeader => "the power is cut of a primary whose ZooKeeper leads",
        }
    }

    fn target(self) -> Figure {
        Figure::ms(if self == Fault::WithLeader { 10_000 } else { 5_000 })
    }

    fn inject(self, world: &World<'_>, name: &str) -> Result<()> {
        let node = world.node(name)?;
        match self {
            Fault::PowerOff | Fault::WithLeader => node.power_off(),
            Fault::Killed => node.kill(Service::Drover),
            Fault::Stopped => node.signal(Service::Drover, Signal::STOP),
            Fault::ClusterCut => world.lab().cut(name, Net::Cluster, Cut::Silent),
            Fault::UpstreamCut => world.lab().cut(name, Net::Upstream, Cut::Silent),
            Fault::UpstreamDown => world.lab().cut(name, Net::Upstream, Cut::Carrier),
        }
    }

    fn repair(self, world: &World<'_>, name: &str) -> Result<()> {
        let node = world.node(name)?;
        match self {
            Fault::PowerOff | Fault::WithLeader => node.power_on(),
            Fault::Killed => node.start_drover().map(|_| ()),
            Fault::Stopped => node.signal(Service::Drover, Signal::CONT),
            Fault::ClusterCut => world.lab().heal(name, Net::Cluster),
            Fault::UpstreamCut | Fault::UpstreamDown => world.lab().heal(name, Net::Upstream),
        }
    }
}

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    let mut rows = handoffs(world)?;
    for fault in Fault::ALL {
        world.report(&format!("{ROUNDS} times, {}", fault.what()));
        let gaps = (0..ROUNDS).map(|_| takeover(world, fault)).collect::<Result<_>>()?;
        let gaps = Samples::new(gaps)?;
        rows.push(Row {
            what: format!("longest time without an answer when {}", fault.what()),
            figure: gaps.median(),
            detail: gaps.range(),
            target: Some(fault.target()),
        });
    }
    Ok(rows)
}

/// The nodes as shown by one of them.
fn nodes(world: &World<'_>, at: &str) -> Result<Vec<wire::Node>> {
    let text = world.node(at)?.exec(&["drover", "-f", "json", "node", "list"])?;
    serde_json::from_str(&text).map_err(|e| LabError::new("drover node list", e))
}

/// Waits until the node `at` shows a primary other than `except`.
fn primary(world: &World<'_>, at: &str, except: Option<&str>) -> Result<String> {
    let primary = || nodes(world, at).ok()?.into_iter().find(|node| node.coordinator_state == "primary");
    let other = || primary().map(|node| node.name).filter(|name| Some(&**name) != except);
    Lab::until("there is no new primary", TIMEOUT, other)
}

fn other(than: &str) -> Result<&'static str> {
    NODES.into_iter().find(|name| *name != than).ok_or_else(|| LabError::new(than, "there is no other node"))
}

/// Measures handoffs by command.
fn handoffs(world: &World<'_>) -> Result<Vec<Row>> {
    world.report(&format!("handing the primary's role over {HANDOFFS} times"));
    let first = primary(world, "hv1", None)?;
    let start = NODES.iter().position(|name| *name == first).unwrap_or_default();
    let to = NODES.iter().cycle().skip(start + 1).take(HANDOFFS).map(|&name| name.to_owned()).collect();
    pings::answers(world, ADDRESS)?;
    let pings = Pings::start(world, ADDRESS)?;
    thread::sleep(REST);
    let handoffs = world.probe(&world.first()?, Handoffs { to, rest: REST })?;
    thread::sleep(REST);
    let answered = pings.end()?;
    let begin = handoffs.first().map_or(0, |first| first.requested);
    let end = handoffs.last().map_or(0, |last| last.primary);
    let micros =
        |handoff: &crate::probe::Handoff| Duration::from_micros(handoff.primary.saturating_sub(handoff.requested));
    let times = Samples::new(handoffs.iter().map(micros).collect())?;
    let sent = answered.len() as u64 + lost(&answered);
    Ok(vec![
        Row {
            what: format!("pings lost while the role is handed over {HANDOFFS} times"),
            figure: Figure::Count(lost(&answered)),
            detail: format!("of {sent}"),
            target: Some(Figure::Count(1)),
        },
        Row {
            what: "from the request until the new node is the primary".to_owned(),
            figure: times.median(),
            detail: times.range(),
            target: Some(Figure::ms(300)),
        },
        Row {
            what: "longest time without an answer meanwhile".to_owned(),
            figure: Figure::Time(longest_gap(&answered, begin, end)?),
            detail: format!("in {HANDOFFS} handoffs"),
            target: None,
        },
    ])
}

/// Injects a fault into the primary, and repairs it after the takeover. Returns the longest time in which the address
/// did not answer.
fn takeover(world: &World<'_>, fault: Fault) -> Result<Duration> {
    let mut victim = primary(world, "hv1", None)?;
    let leader = Lab::until("ZooKeeper has no leader", TIMEOUT, || world.lab().zookeeper_leader())?;
    // Only one of the faults is to include an election in ZooKeeper.
    if (victim == leader) != (fault == Fault::WithLeader) {
        victim = if fault == Fault::WithLeader { leader } else { other(&leader)?.to_owned() };
        world.node("hv1")?.exec(&["drover", "node", "primary", &victim, "--wait"])?;
    }
    let at = other(&victim)?;
    if matches!(fault, Fault::UpstreamCut | Fault::UpstreamDown) {
        thread::sleep(HANDOFF_INTERVAL);
    }
    pings::answers(world, ADDRESS)?;
    let pings = Pings::start(world, ADDRESS)?;
    thread::sleep(REST);
    let begin = now();
    fault.inject(world, &victim)?;
    primary(world, at, Some(&victim))?;
    let end = pings::answers(world, ADDRESS)?;
    thread::sleep(REST);
    let gap = longest_gap(&pings.end()?, begin, end)?;
    fault.repair(world, &victim)?;
    let healthy = |node: &wire::Node| {
        node.daemon_state == "run" && node.hypervisor_problem.is_empty() && node.network_problems.is_empty()
    };
    let recovered = || {
        let nodes = nodes(world, at).ok()?;
        let back = nodes.iter().find(|node| node.name == victim)?.coordinator_state == "secondary";
        (back && nodes.iter().all(healthy)).then_some(())
    };
    Lab::until(&format!("{victim} has not recovered"), TIMEOUT, recovered)?;
    Ok(gap)
}
