//! Time of a flush and a ready of a node: with concurrent moves, and with one move at a time.

use super::{Benchmark, Measure, Row, THREE_EMPTY};
use crate::{
    definitions,
    figures::Samples,
    probe::{Boot, FlushResult, Flushes, Limits, Remove},
    world::World,
};
use drover_lab::{Domain, Result};
use std::time::Duration;

/// Number of VMs on the node.
const VMS: usize = 9;
/// Number of rounds (flush and ready) under each set of limits.
const ROUNDS: usize = 3;
/// The node that is flushed. Requests are sent to another one.
const NODE: &str = "hv2";

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "flush", title: "Emptying a node", measure: Measure::InLabs { settings: &[THREE_EMPTY], run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.report(&format!(
        "flushing {NODE} with {VMS} VMs and making it ready, {ROUNDS} times under each set of limits"
    ));
    let node = world.first()?;
    let names: Vec<String> = (1..=VMS).map(|n| format!("bench-{n}")).collect();
    let xml = |name: &String| (name.clone(), Domain::new(name).xml(&definitions::guest()));
    world.probe(&node, Boot { vms: names.iter().map(xml).collect(), node: NODE.to_owned(), fits: Vec::new() })?;
    let flushes = Flushes { node: NODE.to_owned(), vms: names.clone(), rounds: ROUNDS };
    let FlushResult { limits, parallel, serial } = world.probe(&node, flushes)?;
    world.probe(&node, Remove { vms: names })?;
    Ok([
        rows("flush", "flushed", limits, parallel.flush, serial.flush)?,
        rows("ready", "ready", limits, parallel.ready, serial.ready)?,
    ]
    .concat())
}

fn rows(order: &str, state: &str, limits: Limits, parallel: Vec<Duration>, serial: Vec<Duration>) -> Result<Vec<Row>> {
    let (parallel, serial) = (Samples::new(parallel)?, Samples::new(serial)?);
    let Limits { per_source, per_target, all } = limits;
    let what = format!("{VMS} VMs, from `node {order}` until the node is {state}");
    let row = |what: String, times: &Samples| Row { what, figure: times.median(), detail: times.range(), target: None };
    Ok(vec![
        row(format!("{what}, by the default limits"), &parallel),
        row(format!("{what}, one VM at a time"), &serial),
        Row {
            what: format!("**one at a time against the default limits**, `node {order}`"),
            figure: serial.against(&parallel),
            detail: format!(
                "of the medians; by default {per_source} leave a node at once, {per_target} come to one, {all} in all"
            ),
            target: None,
        },
    ])
}
