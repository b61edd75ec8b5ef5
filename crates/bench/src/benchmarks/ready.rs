//! Time from the start of a daemon until it is ready.

use super::{Benchmark, EVERYWHERE, Measure, Row};
use crate::{figures::Samples, world::World};
use drover_lab::{Result, Service};

/// Number of starts.
const COUNT: usize = 10;

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "ready", title: "A daemon's start", measure: Measure::InLabs { settings: EVERYWHERE, run } };

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    world.report(&format!("restarting droverd {COUNT} times"));
    let node = world.first()?;
    let once = |_| {
        node.stop(Service::Drover)?;
        node.start_drover()
    };
    let times = Samples::new((0..COUNT).map(once).collect::<Result<_>>()?)?;
    let what = "from the start of `droverd` to `READY=1`".to_owned();
    Ok(vec![Row { what, figure: times.median(), detail: times.range(), target: None }])
}
