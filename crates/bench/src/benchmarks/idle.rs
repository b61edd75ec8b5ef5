//! What a daemon uses that has nothing to do.

use super::{Benchmark, EVERYWHERE, Measure, Row};
use crate::{
    daemon::{Memory, Process},
    figures::Figure,
    probe::Requests,
    world::World,
};
use drover_lab::{Lab, Result, Service};
use std::time::Duration;

/// How long it is watched: as long as the time after which a daemon looks at everything again, so that one such look is
/// in it.
const WINDOW: Duration = Duration::from_secs(30);
/// How often the list of all VMs is asked for, to see what that leaves behind.
const LISTS: usize = 300;
/// A daemon that has nothing to do is to have less memory.
const TARGET: Figure = Figure::mib(30);

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "idle", title: "A daemon at rest", measure: Measure::InLabs { settings: EVERYWHERE, run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    let node = world.first()?;
    world.say("restarting droverd, and watching it do nothing");
    node.stop(Service::Drover)?;
    node.start_drover()?;
    let daemon = Process::on(&node)?;
    come_to_rest(&daemon)?;
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
        world.say(&format!("asking for the list {LISTS} times, and looking at droverd again"));
        world.probe(&node, Requests { path: "/api/v1/vm".to_owned(), warm_up: 0, count: LISTS })?;
        come_to_rest(&daemon)?;
        rows.push(row(&format!("resident memory after {LISTS} lists of all VMs"), daemon.memory()?));
    }
    Ok(rows)
}

fn row(what: &str, Memory { resident, anonymous }: Memory) -> Row {
    let [own, files] = [anonymous, resident.saturating_sub(anonymous)].map(Figure::Memory);
    let detail = format!("{own} its own, {files} of files: its program and libraries");
    Row { what: what.to_owned(), figure: Figure::Memory(resident), detail, target: None }
}

/// Waits until what a start or a request sets off is done: a second with next to no processor time.
fn come_to_rest(daemon: &Process) -> Result<()> {
    let rests = || daemon.load(Duration::from_secs(1)).ok().filter(|percent| *percent < 5.0);
    Lab::until("droverd does not come to rest", Duration::from_secs(60), rests).map(|_| ())
}
