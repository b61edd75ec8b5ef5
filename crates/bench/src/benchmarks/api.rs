//! Response times of the API.

use super::{Benchmark, Measure, ONE_FULL, Row, THREE_FULL};
use crate::{
    figures::{Figure, Samples},
    probe::Requests,
    world::World,
};
use drover_lab::Result;

/// Number of requests that are not counted, and then of those that are.
const WARM_UP: usize = 50;
const COUNT: usize = 500;
/// Target for the time until the first byte of the list.
const TARGET: Figure = Figure::ms(10);

pub(super) const BENCHMARK: Benchmark = Benchmark {
    name: "api",
    title: "Answers of the API",
    measure: Measure::InLabs { settings: &[ONE_FULL, THREE_FULL], run },
};

fn run(world: &World<'_>) -> Result<Vec<Row>> {
    let requests = [
        ("GET /api/v1/vm", "/api/v1/vm", Some(TARGET)),
        ("GET /api/v1/vm?limit=^name-0500$", "/api/v1/vm?limit=%5Ename-0500%24", None),
        ("GET /api/v1/status", "/api/v1/status", None),
    ];
    let mut rows = Vec::new();
    for (shown, path, target) in requests {
        world.report(shown);
        let requests = Requests { path: path.to_owned(), warm_up: WARM_UP, count: COUNT };
        let answers = world.probe(&world.first()?, requests)?;
        let (first_byte, whole) = (Samples::new(answers.first_byte)?, Samples::new(answers.whole)?);
        let size = Figure::Memory(answers.size);
        // A short answer arrives as a whole.
        if target.is_some() {
            rows.push(row(format!("`{shown}` until its first byte"), &first_byte, target));
        }
        rows.push(row(format!("`{shown}`, all {size}"), &whole, None));
    }
    Ok(rows)
}

fn row(what: String, times: &Samples, target: Option<Figure>) -> Row {
    let detail = format!("p99 {}, at most {}", times.percentile(99), times.percentile(100));
    Row { what, figure: times.median(), detail, target }
}
