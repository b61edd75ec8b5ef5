//! The death of a node: from the cut of its power until its VMs run on other nodes, by themselves.

use super::{Benchmark, Measure, Row, THREE_EMPTY};
use crate::{
    definitions,
    figures::{Figure, Samples},
    log,
    pings::now,
    probe::{Boot, Remove},
    world::World,
};
use drover_lab::{Domain, Lab, LabError, Result};
use drover_model::wire;
use std::time::Duration;

/// Number of times that a node with one VM dies.
const ROUNDS: usize = 10;
/// Number of VMs of a node that dies with many, and how many times it does.
const MANY: usize = 10;
const MANY_ROUNDS: usize = 3;
/// Number of times that it is confirmed that a node is off.
const CONFIRMED_ROUNDS: usize = 3;
/// Timeout for a recovery, and for a node's return.
const TIMEOUT: Duration = Duration::from_secs(120);
const NODES: [&str; 3] = ["hv1", "hv2", "hv3"];

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "recovery",
    title: "The death of a node",
    measure: Measure::InLabs { settings: &[THREE_EMPTY], run },
};

/// What else dies with the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    /// Neither ZooKeeper's leader nor the primary.
    Nothing,
    /// Both.
    LeaderAndPrimary,
    /// Its BMC, so that nothing proves that it is off until an administrator confirms it.
    Bmc,
}

/// When something was done after a cut of power, or after it was confirmed that a node is off, on another node.
struct TimeLine {
    /// The node's session has ended; `None`: that was before.
    silent: Option<Duration>,
    /// It is proved that the node is off; `None`: it is not proved.
    proved: Option<Duration>,
    /// The last of its VMs was started.
    started: Duration,
}

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.report("giving each node a BMC");
    world.lab().give_bmcs(|_| drover_lab::BmcKind::Ipmi)?;
    let checked = |node: &wire::Node| node.bmc.as_ref().is_some_and(|bmc| bmc.checked > 0 && bmc.problem.is_empty());
    let all_checked = || nodes(world, NODES[0]).ok()?.iter().all(checked).then_some(());
    Lab::until("a BMC does not answer", TIMEOUT, all_checked)?;
    let mut rows = Vec::new();
    for (vms, rounds, with, target) in [
        (1, ROUNDS, With::Nothing, Some((8_000, 12_000))),
        (1, ROUNDS, With::LeaderAndPrimary, Some((15_000, 15_000))),
        (MANY, MANY_ROUNDS, With::Nothing, None),
    ] {
        rows.extend(deaths(world, vms, rounds, with, target)?);
    }
    rows.push(confirmed(world)?);
    Ok(rows)
}

/// Lets nodes die with their BMCs, and measures how long it takes from an administrator's word.
fn confirmed(world: &World<'_>) -> Result<Row> {
    let vm = "bench-1".to_owned();
    let xml = Domain::new(&vm).xml(&definitions::guest());
    let boot = Boot { vms: vec![(vm.clone(), xml)], node: NODES[2].to_owned(), fits: Vec::new() };
    world.probe(&world.first()?, boot)?;
    world.report(&format!("{CONFIRMED_ROUNDS} times, a node dies with its BMC, and it is confirmed that it is off"));
    let vms = [vm];
    let lines = (0..CONFIRMED_ROUNDS).map(|_| death(world, &vms, With::Bmc)).collect::<Result<Vec<TimeLine>>>()?;
    world.probe(&world.node(other(&[])?)?, Remove { vms: vms.to_vec() })?;
    let times = Samples::new(lines.iter().map(|line| line.started).collect())?;
    let what =
        "from `drover node fence NODE --confirm-off`, of a node that died with its BMC, until its VM runs elsewhere";
    Ok(Row { what: what.to_owned(), figure: times.median(), detail: times.range(), target: None })
}

/// Lets nodes die, and measures. `target`: for the median and the worst, in ms.
fn deaths(world: &World<'_>, vms: usize, rounds: usize, with: With, target: Option<(u64, u64)>) -> Result<Vec<Row>> {
    let names: Vec<String> = (1..=vms).map(|n| format!("bench-{n}")).collect();
    let xml = |name: &String| (name.clone(), Domain::new(name).xml(&definitions::guest()));
    let boot = Boot { vms: names.iter().map(xml).collect(), node: NODES[2].to_owned(), fits: Vec::new() };
    world.probe(&world.first()?, boot)?;
    let which = match with {
        With::Nothing | With::Bmc => "",
        With::LeaderAndPrimary => ", which has ZooKeeper's leader and is the primary",
    };
    world.report(&format!("{rounds} times, the power of a node with {vms} VMs is cut{which}"));
    let lines = (0..rounds).map(|_| death(world, &names, with)).collect::<Result<Vec<TimeLine>>>()?;
    let at = other(&[])?;
    world.probe(&world.node(at)?, Remove { vms: names })?;
    let of = |pick: fn(&TimeLine) -> Option<Duration>| Samples::new(lines.iter().filter_map(pick).collect());
    let until = match vms {
        1 => "its VM runs elsewhere".to_owned(),
        _ => format!("the last of its {vms} VMs runs elsewhere"),
    };
    let started = of(|line| Some(line.started))?;
    let row = |what: String, times: &Samples| Row { what, figure: times.median(), detail: times.range(), target: None };
    let mut rows = vec![
        Row {
            target: target.map(|(median, _)| Figure::ms(median)),
            ..row(format!("**from the power cut of a node{which} until {until}**"), &started)
        },
        row("of it, until its session has ended".to_owned(), &of(|line| line.silent)?),
        row("until it is proved that it is off".to_owned(), &of(|line| line.proved)?),
    ];
    if let Some((_, worst)) = target {
        rows.push(Row {
            what: format!("the longest of {rounds}"),
            figure: started.percentile(100),
            detail: String::new(),
            target: Some(Figure::ms(worst)),
        });
    }
    Ok(rows)
}

/// Cuts the power of a node that has the VMs, measures, and brings all back.
fn death(world: &World<'_>, vms: &[String], with: With) -> Result<TimeLine> {
    let leader = Lab::until("ZooKeeper has no leader", TIMEOUT, || world.lab().zookeeper_leader())?;
    let victim = match with {
        With::Nothing | With::Bmc => other(&[&leader])?.to_owned(),
        With::LeaderAndPrimary => leader,
    };
    let at = other(&[&victim])?;
    let drover = |arguments: &[&str]| world.node(at)?.exec(&[&["drover"], arguments].concat());
    drover(&["node", "primary", if with == With::LeaderAndPrimary { &victim } else { at }, "--wait"])?;
    for vm in vms {
        if shown(world, at, vm)?.node != victim {
            drover(&["vm", "move", vm, "--to", &victim, "--wait"])?;
        }
    }
    let mut begin = now();
    if with == With::Bmc {
        world.node(&victim)?.stop_bmc()?;
        world.node(&victim)?.power_off()?;
        let unproved = || drover(&["-f", "json", "node", "fence", &victim]).ok().filter(|fence| is_unproved(fence));
        Lab::until(&format!("{victim} is not found to be silent without proof"), TIMEOUT, || unproved().map(|_| ()))?;
        begin = now();
        drover(&["node", "fence", &victim, "--confirm-off", "--yes"])?;
    } else {
        world.node(&victim)?.power_off()?;
    }
    let all_run = || vms.iter().all(|vm| shown(world, at, vm).is_ok_and(|vm| runs(&vm, &victim))).then_some(());
    Lab::until(&format!("the VMs of {victim} do not run elsewhere"), TIMEOUT, all_run)?;
    let logs = NODES.iter().filter(|node| **node != victim).map(|node| world.log(node)).collect::<Result<Vec<_>>>()?;
    let first = |text: String| {
        let times = logs.iter().filter_map(|log| log::first_from(log, begin, &text));
        let time = times.min().ok_or_else(|| LabError::new("the logs have no such line", &text))?;
        Ok(Duration::from_micros(time - begin))
    };
    let started = vms.iter().map(|vm| first(format!(": started a VM vm={vm}"))).collect::<Result<Vec<_>>>()?;
    let alone = with != With::Bmc;
    let line = TimeLine {
        silent: alone.then(|| first(format!(": a node is dead node={victim}"))).transpose()?,
        proved: alone.then(|| first(format!(": it is proved that a silent node is off node={victim}"))).transpose()?,
        started: started.into_iter().max().unwrap_or_default(),
    };
    if with == With::Bmc {
        world.node(&victim)?.start_bmc()?;
    }
    world.node(&victim)?.power_on()?;
    let back = || {
        let nodes = nodes(world, at).ok()?;
        let well = |node: &wire::Node| node.daemon_state == "run" && node.hypervisor_problem.is_empty();
        nodes.iter().all(well).then_some(())
    };
    Lab::until(&format!("{victim} is not back"), TIMEOUT, back)?;
    drover(&["node", "ready", &victim, "--wait"])?;
    Ok(line)
}

/// What is read of a VM.
#[derive(serde::Deserialize)]
struct Shown {
    node: String,
    run_state: String,
}

/// Whether a fence, in JSON, waits for an administrator.
fn is_unproved(fence: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(fence).is_ok_and(|fence| fence["phase"] == "unproved")
}

fn runs(vm: &Shown, victim: &str) -> bool {
    vm.run_state == "running" && vm.node != victim
}

/// A VM as shown by a node.
fn shown(world: &World<'_>, at: &str, vm: &str) -> Result<Shown> {
    let text = world.node(at)?.exec(&["drover", "-f", "json", "vm", "info", vm])?;
    serde_json::from_str(&text).map_err(|e| LabError::new("drover vm info", e))
}

/// The nodes as shown by one of them.
fn nodes(world: &World<'_>, at: &str) -> Result<Vec<wire::Node>> {
    let text = world.node(at)?.exec(&["drover", "-f", "json", "node", "list"])?;
    serde_json::from_str(&text).map_err(|e| LabError::new("drover node list", e))
}

fn other(than: &[&str]) -> Result<&'static str> {
    let other = NODES.into_iter().find(|name| !than.contains(name));
    other.ok_or_else(|| LabError::new(than.join(", "), "there is no other node"))
}
