//! A large cluster: a real ensemble of ZooKeeper, and the agents of many nodes in two processes of their own.
//!
//! One process has one agent with its API, as `droverd` has it: what that process uses is what one daemon uses of its
//! node. The other has the agents of all other nodes. The machines below them only pretend, so that nothing is measured
//! but Drover and ZooKeeper.

mod alone;
mod course;
mod crew;
mod fill;
mod helper;
mod meter;
mod words;

pub(crate) use crew::run as run_crew;

use crate::runner::Rows;
use clap::Args;
use drover_lab::{Progress, Result};
use std::path::Path;

/// How large the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct Size {
    /// How many nodes the large cluster of 'scale' has
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=500))]
    pub(crate) nodes: u32,
    /// How many VMs it has
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    pub(crate) vms: u32,
}

/// Where it is measured.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// How large.
    pub(crate) size: Size,
    /// A folder that is not there before; it is gone afterwards.
    pub(crate) folder: &'a Path,
    /// This program.
    pub(crate) program: &'a Path,
    /// Hears what is going on.
    pub(crate) progress: Progress<'a>,
}

/// Measures.
pub(crate) fn run(place: &Place<'_>) -> Result<Rows> {
    let mut rows = alone::run(place)?;
    rows.extend(course::run(place)?);
    Ok(rows)
}
