//! A large cluster: a real ZooKeeper ensemble, and the agents of many nodes in two processes.
//!
//! One process runs one agent with its API, as `droverd` does: its resource usage is that of one daemon. The other one
//! runs the agents of all other nodes. The hypervisors are fakes, so that only Drover and ZooKeeper are measured.

mod alone;
mod course;
mod crew;
mod deaths;
mod fill;
mod helper;
mod meter;
mod words;

pub(crate) use crew::run as run_crew;

use crate::runner::Rows;
use clap::Args;
use drover_lab::{Progress, Result};
use std::path::Path;

/// Size of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct Size {
    /// Number of nodes in the large cluster of 'scale'
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=500))]
    pub(crate) nodes: u32,
    /// Number of VMs in it
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    pub(crate) vms: u32,
    /// Only fill that cluster, and let ten more nodes die
    #[arg(long)]
    pub(crate) only_deaths: bool,
}

/// Where the benchmark runs.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The size.
    pub(crate) size: Size,
    /// A folder that does not exist yet; it is removed afterwards.
    pub(crate) folder: &'a Path,
    /// The path of this program.
    pub(crate) program: &'a Path,
    /// Called with progress messages.
    pub(crate) progress: Progress<'a>,
}

/// Runs the benchmark.
pub(crate) fn run(place: &Place<'_>) -> Result<Rows> {
    let mut rows = if place.size.only_deaths { Rows::new() } else { alone::run(place)? };
    rows.extend(course::run(place)?);
    Ok(rows)
}
