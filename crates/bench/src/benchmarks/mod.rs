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
mod recovery;
mod scale;
mod start;

use crate::{
    figures::Figure,
    runner::Rows,
    scale::Place,
    world::{Cluster, World},
};
use drover_lab::Result;

/// Number of VMs in a full cluster.
pub(crate) const MANY: usize = 1000;

/// A benchmark.
pub(crate) struct Benchmark {
    /// Name on the command line, and of its section in the document.
    pub(crate) name: &'static str,
    /// Heading of its table.
    pub(crate) title: &'static str,
    /// How it is run.
    pub(crate) measure: Measure,
}

/// How a benchmark is run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Measure {
    /// In labs.
    InLabs {
        /// The labs.
        settings: &'static [Setting],
        /// Measures in one lab.
        run: fn(&World<'_>) -> Result<Vec<Row>>,
    },
    /// In this process, on the view of a cluster that does not exist.
    Alone {
        /// Number of nodes in the view.
        nodes: usize,
        /// Number of VMs in the view.
        vms: usize,
        /// Measures.
        run: fn() -> Result<Vec<Row>>,
    },
    /// In a cluster that is too large for a lab.
    Large {
        /// Brings the cluster up and measures; each row has the cluster that it was measured in.
        run: fn(&Place<'_>) -> Result<Rows>,
    },
}

impl Measure {
    /// Whether it is run in a lab with this setting.
    pub(crate) fn is_in(&self, setting: Setting) -> bool {
        matches!(self, Measure::InLabs { settings, .. } if settings.contains(&setting))
    }
}

/// A kind of cluster with a number of defined VMs, none of which runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The kind of cluster.
    pub(crate) cluster: Cluster,
    /// Number of defined VMs.
    pub(crate) vms: usize,
}

/// A row of a benchmark's table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured, in Markdown.
    pub(crate) what: String,
    /// The figure.
    pub(crate) figure: Figure,
    /// Spread of the samples, or other details.
    pub(crate) detail: String,
    /// The figure should be less than this.
    pub(crate) target: Option<Figure>,
}

const ONE_EMPTY: Setting = Setting { cluster: Cluster::One, vms: 0 };
const ONE_FULL: Setting = Setting { cluster: Cluster::One, vms: MANY };
const THREE_EMPTY: Setting = Setting { cluster: Cluster::Three, vms: 0 };
const THREE_FULL: Setting = Setting { cluster: Cluster::Three, vms: MANY };
const EVERYWHERE: &[Setting] = &[ONE_EMPTY, ONE_FULL, THREE_EMPTY, THREE_FULL];

/// All benchmarks, in the order of the document.
pub(crate) const BENCHMARKS: &[Benchmark] = &[
    api::BENCHMARK,
    cli::BENCHMARK,
    start::BENCHMARK,
    migration::BENCHMARK,
    pause::BENCHMARK,
    flush::BENCHMARK,
    handoff::BENCHMARK,
    recovery::BENCHMARK,
    planning::BENCHMARK,
    idle::BENCHMARK,
    ready::BENCHMARK,
    scale::BENCHMARK,
];
