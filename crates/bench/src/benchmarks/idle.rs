//! CPU and memory of an idle daemon.

use super::{Benchmark, EVERYWHERE, Measure, Row};
use crate::{
    daemon::{Memory, Process},
    figures::Figure,
    probe::Requests,
    world::World,
};
use drover_lab::{Lab, Result, Service};
use std::time::Duration;

/// Length of the measurement: the interval of the daemon's full resynchronisation, so that it includes one.
const WINDOW: Duration = Duration::from_secs(30);
/// Number of requests for the list of all VMs, to measure the memory that remains afterwards.
const LISTS: usize = 300;
/// Target for the resident memory of an idle daemon.
const TARGET: Figure = Figure::mib(30);

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "idle", title: "A daemon at rest", measure: Measure::InLabs { settings: EVERYWHERE, run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    let node = world.first()?;
    world.report("restarting droverd, and measuring it while it is idle");
    node.stop(Service::Drover)?;
    node.start_drover()?;
    let daemon = Process::on(&node)?;
    wait_idle(&daemon)?;
    let load = daemon.load(WINDOW)?;
    let fresh = daemon.memory()?;
    let mut rows = vec![
        Row { target: Some(TARGET), ..row("resident memory", fresh) },
        Row {
            what: "processor time, of one core".to_owned(),
            figure: Figure::Share(load),
            detail: format!("over {} s", WINDOW.as_secs()),
            target: None,
        },
    ];
    if world.vms() > 0 {
        world.report(&format!("requesting the list {LISTS} times, and measuring droverd again"));
        world.probe(&node, Requests { path: "/api/v1/vm".to_owned(), warm_up: 0, count: LISTS })?;
        wait_idle(&daemon)?;
        rows.push(row(&format!("resident memory after {LISTS} lists of all VMs"), daemon.memory()?));
    }
    Ok(rows)
}

fn row(what: &str, Memory { resident, anonymous }: Memory) -> Row {
    let [own, files] = [anonymous, resident.saturating_sub(anonymous)].map(Figure::Memory);
    let detail = format!("{own} its own, {files} of files: its program and libraries");
    Row { what: what.to_owned(), figure: Figure::Memory(resident), detail, target: None }
}

/// Waits until the work caused by a start or a request is done: until the CPU usage over one second is below 5 %.
fn wait_idle(daemon: &Process) -> Result<()> {
    let idle = || daemon.load(Duration::from_secs(1)).ok().filter(|percent| *percent < 5.0);
    Lab::until("droverd does not become idle", Duration::from_secs(60), idle).map(|_| ())
}
