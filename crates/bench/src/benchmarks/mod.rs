//! The benchmarks. A new one is a module here with a [`Benchmark`], a row in [`BENCHMARKS`], and a section of `docs/benchmarks.md`.

mod api;
mod cli;
mod idle;
mod ready;
mod start;

use crate::{
    figures::Figure,
    world::{Cluster, World},
};
use drover_lab::Result;

/// How many VMs a full cluster has.
pub(crate) const MANY: usize = 1000;

/// Something that is measured.
pub(crate) struct Benchmark {
    /// By which it is chosen, and its place in the document found.
    pub(crate) name: &'static str,
    /// Its heading.
    pub(crate) title: &'static str,
    /// What it is measured in.
    pub(crate) settings: &'static [Setting],
    /// Measures it in one of them.
    pub(crate) run: fn(&World<'_>) -> Result<Vec<Row>>,
}

/// A cluster with so many VMs on record, none of which runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What it is.
    pub(crate) cluster: Cluster,
    /// How many VMs are defined.
    pub(crate) vms: usize,
}

/// A line of a benchmark's table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured, in Markdown.
    pub(crate) what: String,
    /// What was found.
    pub(crate) figure: Figure,
    /// How it scatters, or what else there is to say about it.
    pub(crate) detail: String,
    /// What it is to stay below.
    pub(crate) target: Option<Figure>,
}

const ONE_EMPTY: Setting = Setting { cluster: Cluster::One, vms: 0 };
const ONE_FULL: Setting = Setting { cluster: Cluster::One, vms: MANY };
const THREE_EMPTY: Setting = Setting { cluster: Cluster::Three, vms: 0 };
const THREE_FULL: Setting = Setting { cluster: Cluster::Three, vms: MANY };
const EVERYWHERE: &[Setting] = &[ONE_EMPTY, ONE_FULL, THREE_EMPTY, THREE_FULL];

/// All of them, in the order of the document.
pub(crate) const BENCHMARKS: &[Benchmark] =
    &[api::BENCHMARK, cli::BENCHMARK, start::BENCHMARK, idle::BENCHMARK, ready::BENCHMARK];
