//! Costs of a large cluster; see [`crate::scale`].

use super::{Benchmark, Measure};
use crate::scale;

pub(super) const BENCHMARK: Benchmark =
    Benchmark { name: "scale", title: "A large cluster", measure: Measure::Large { run: scale::run } };
