//! The benchmarks. A new one is a module here with a [`Benchmark`], a row in [`BENCHMARKS`], and a section of
//! `docs/benchmarks.md`.

mod api;
mod cli;
mod flush;
mod handoff;
mod idle;
mod migration;
mod pause;
mod planning;
mod ready;
mod scale;
mod start;

use crate::{
    figures::Figure,
    runner::Rows,
    scale::Place,
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
    /// How it is measured.
    pub(crate) measure: Measure,
}

/// A way to measure something.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    /// In labs.
    InLabs {
        /// In these.
        settings: &'static [Setting],
        /// In one of them.
        run: fn(&World<'_>) -> Result<Vec<Row>>,
    },
    /// In this process alone, with a cluster that is only imagined.
    Alone {
        /// How many nodes it has.
        nodes: usize,
        /// How many VMs it has.
        vms: usize,
        /// Measures.
        run: fn() -> Result<Vec<Row>>,
    },
    /// In a cluster that is larger than a lab can be.
    Large {
        /// Brings it up, measures, and says in what each row was measured.
        run: fn(&Place<'_>) -> Result<Rows>,
    },
}

impl Measure {
    /// Whether it is measured in such a lab.
    pub(crate) fn is_in(&self, setting: Setting) -> bool {
        matches!(self, Measure::InLabs { settings, .. } if settings.contains(&setting))
    }
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
pub(crate) const BENCHMARKS: &[Benchmark] = &[
    api::BENCHMARK,
    cli::BENCHMARK,
    start::BENCHMARK,
    migration::BENCHMARK,
    pause::BENCHMARK,
    flush::BENCHMARK,
    handoff::BENCHMARK,
    planning::BENCHMARK,
    idle::BENCHMARK,
    ready::BENCHMARK,
    scale::BENCHMARK,
];
