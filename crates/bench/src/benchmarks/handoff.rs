//! What users of the floating addresses see when the role of the primary passes on: in good order, and when its holder
//! is gone.

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

/// How often the role is handed over.
const HANDOFFS: usize = 20;
/// How often each thing happens to the primary.
const ROUNDS: usize = 3;
/// How long all is left alone and still watched, before and after.
const REST: Duration = Duration::from_secs(1);
/// What is waited for comes sooner.
const PATIENCE: Duration = Duration::from_secs(60);
/// By itself a primary hands its role over only if that has not just passed on: it must have been left alone for so
/// long.
const CALM: Duration = Duration::from_secs(9);
const ADDRESS: &str = "203.0.113.200";
const NODES: [&str; 3] = ["hv1", "hv2", "hv3"];

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "handoff",
    title: "The floating addresses pass on",
    measure: Measure::InLabs { settings: &[THREE_EMPTY], run },
};

/// What happens to a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    PowerOff,
    Killed,
    Stopped,
    ClusterCut,
    UpstreamCut,
    UpstreamDown,
    /// Power-off of the primary on the node whose ZooKeeper leads.
    WithLeader,
}

impl Blow {
    const ALL: [Blow; 7] = [
        Blow::PowerOff,
        Blow::Killed,
        Blow::Stopped,
        Blow::ClusterCut,
        Blow::UpstreamCut,
        Blow::UpstreamDown,
        Blow::WithLeader,
    ];

    fn what(self) -> &'static str {
        match self {
            Blow::PowerOff => "the primary's power is cut, and its ZooKeeper does not lead",
            Blow::Killed => "its `droverd` is killed with SIGKILL",
            Blow::Stopped => "its `droverd` is stopped with SIGSTOP",
            Blow::ClusterCut => "its link to the other daemons and to ZooKeeper is cut silently",
            Blow::UpstreamCut => "its link to the users is cut silently",
            Blow::UpstreamDown => "its link to the users goes down",
            Blow::WithLeader => "the power is cut of a primary whose ZooKeeper leads",
        }
    }

    fn target(self) -> Figure {
        Figure::ms(if self == Blow::WithLeader { 10_000 } else { 5_000 })
    }

    fn strike(self, world: &World<'_>, name: &str) -> Result<()> {
        let node = world.node(name)?;
        match self {
            Blow::PowerOff | Blow::WithLeader => node.power_off(),
            Blow::Killed => node.kill(Service::Drover),
            Blow::Stopped => node.signal(Service::Drover, Signal::STOP),
            Blow::ClusterCut => world.lab().cut(name, Net::Cluster, Cut::Silent),
            Blow::UpstreamCut => world.lab().cut(name, Net::Upstream, Cut::Silent),
            Blow::UpstreamDown => world.lab().cut(name, Net::Upstream, Cut::Carrier),
        }
    }

    fn mend(self, world: &World<'_>, name: &str) -> Result<()> {
        let node = world.node(name)?;
        match self {
            Blow::PowerOff | Blow::WithLeader => node.power_on(),
            Blow::Killed => node.start_drover().map(|_| ()),
            Blow::Stopped => node.signal(Service::Drover, Signal::CONT),
            Blow::ClusterCut => world.lab().heal(name, Net::Cluster),
            Blow::UpstreamCut | Blow::UpstreamDown => world.lab().heal(name, Net::Upstream),
        }
    }
}

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    let mut rows = orderly(world)?;
    for blow in Blow::ALL {
        world.say(&format!("{ROUNDS} times, {}", blow.what()));
        let gaps = (0..ROUNDS).map(|_| gone(world, blow)).collect::<Result<_>>()?;
        let gaps = Samples::new(gaps)?;
        rows.push(Row {
            what: format!("longest time without an answer when {}", blow.what()),
            figure: gaps.median(),
            detail: gaps.range(),
            target: Some(blow.target()),
        });
    }
    Ok(rows)
}

/// The nodes, as one of them sees them.
fn nodes(world: &World<'_>, at: &str) -> Result<Vec<wire::Node>> {
    let text = world.node(at)?.exec(&["drover", "-f", "json", "node", "list"])?;
    serde_json::from_str(&text).map_err(|e| LabError::new("drover node list", e))
}

/// Waits until a node sees a primary, and not this one.
fn primary(world: &World<'_>, at: &str, but: Option<&str>) -> Result<String> {
    let primary = || nodes(world, at).ok()?.into_iter().find(|node| node.coordinator_state == "primary");
    let other = || primary().map(|node| node.name).filter(|name| Some(&**name) != but);
    Lab::until("there is no other primary", PATIENCE, other)
}

fn other(than: &str) -> Result<&'static str> {
    NODES.into_iter().find(|name| *name != than).ok_or_else(|| LabError::new(than, "there is no other node"))
}

/// The role is handed over.
fn orderly(world: &World<'_>) -> Result<Vec<Row>> {
    world.say(&format!("handing the role of the primary over {HANDOFFS} times"));
    let first = primary(world, "hv1", None)?;
    let start = NODES.iter().position(|name| *name == first).unwrap_or_default();
    let to = NODES.iter().cycle().skip(start + 1).take(HANDOFFS).map(|&name| name.to_owned()).collect();
    pings::answers(world, ADDRESS)?;
    let pings = Pings::start(world, ADDRESS)?;
    thread::sleep(REST);
    let handoffs = world.probe(&world.first()?, Handoffs { to, rest: REST })?;
    thread::sleep(REST);
    let answered = pings.end()?;
    let begin = handoffs.first().map_or(0, |first| first.asked);
    let end = handoffs.last().map_or(0, |last| last.primary);
    let micros =
        |handoff: &crate::probe::HandedOver| Duration::from_micros(handoff.primary.saturating_sub(handoff.asked));
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

/// Something happens to the primary; returns for how long its address did not answer. Afterwards all is well again.
fn gone(world: &World<'_>, blow: Blow) -> Result<Duration> {
    let mut victim = primary(world, "hv1", None)?;
    let leader = Lab::until("no ZooKeeper leads", PATIENCE, || world.lab().zookeeper_leader())?;
    // What becomes of the store is the matter of one of them only.
    if (victim == leader) != (blow == Blow::WithLeader) {
        victim = if blow == Blow::WithLeader { leader } else { other(&leader)?.to_owned() };
        world.node("hv1")?.exec(&["drover", "node", "primary", &victim, "--wait"])?;
    }
    let at = other(&victim)?;
    if matches!(blow, Blow::UpstreamCut | Blow::UpstreamDown) {
        thread::sleep(CALM);
    }
    pings::answers(world, ADDRESS)?;
    let pings = Pings::start(world, ADDRESS)?;
    thread::sleep(REST);
    let struck = now();
    blow.strike(world, &victim)?;
    primary(world, at, Some(&victim))?;
    let again = pings::answers(world, ADDRESS)?;
    thread::sleep(REST);
    let gap = longest_gap(&pings.end()?, struck, again)?;
    blow.mend(world, &victim)?;
    let well = |node: &wire::Node| {
        node.daemon_state == "run" && node.hypervisor_problem.is_empty() && node.network_problems.is_empty()
    };
    let settled = || {
        let nodes = nodes(world, at).ok()?;
        let back = nodes.iter().find(|node| node.name == victim)?.coordinator_state == "secondary";
        (back && nodes.iter().all(well)).then_some(())
    };
    Lab::until(&format!("{victim} is not well again"), PATIENCE, settled)?;
    Ok(gap)
}
