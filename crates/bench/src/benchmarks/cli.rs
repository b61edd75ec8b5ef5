//! Run time of commands, as whole processes.

use super::{Benchmark, Measure, ONE_FULL, Row};
use crate::{figures::Samples, probe::Runs, world::World};
use drover_lab::Result;

/// Number of runs of each command.
const COUNT: usize = 20;

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "cli", title: "The command line", measure: Measure::InLabs { settings: &[ONE_FULL], run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    ["drover vm list", "drover --version"].into_iter().map(|command| row(world, command)).collect()
}

fn row(world: &World<'_>, command: &str) -> Result<Row> {
    world.report(command);
    let argv = command.split(' ').map(str::to_owned).collect();
    let times = Samples::new(world.probe(&world.first()?, Runs { argv, count: COUNT })?)?;
    Ok(Row { what: format!("`{command}`"), figure: times.median(), detail: times.range(), target: None })
}
