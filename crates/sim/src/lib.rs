//! Whole clusters of agents in one thread on virtual time, with seeded faults: one seed is one run, and always the same
//! one.
//!
//! The agents are the real ones. What they stand on is pretended: the store ([`drover_store::memory`]) and the
//! hypervisors ([`drover_drivers::hypervisor::fake`]). A run has two parts:
//!
//! 1. **Weather**: administrators give orders at every node while daemons crash at whatever they are waiting for,
//!    machines lose power, the store loses sessions and answers, the hypervisors are slow, hang, lose events, refuse.
//! 2. **Calm**: everything is mended. In bounded time every VM must be where it is wanted, and what the store says must
//!    be what runs.
//!
//! At every moment of both the [`invariants`] hold: above all, no VM runs on two nodes.
//!
//! `drover-sim --seeds 1..1000` runs seeds; `drover-sim --seed 7` runs one and tells what happens in it.

pub mod invariants;
mod lies;
mod orders;
mod stall;
mod weather;
mod world;

pub use lies::Lie;

use invariants::Violation;
use std::time::Duration;
use tokio::runtime::{Builder, RngSeed};

/// What one run is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Everything by chance comes from it.
    pub seed: u64,
    /// How long the weather lasts, in virtual time.
    pub weather: Duration,
    /// A defect that is planted, to see that the simulation finds it.
    pub lie: Lie,
    /// What the cluster is, and what is done with it.
    pub shape: Shape,
}

/// A kind of cluster, and of its administrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Shape {
    /// Three nodes and a handful of VMs, with every order that there is.
    #[default]
    Small,
    /// Three coordinators without any VM: the role of the primary is passed around, and claimed.
    Handoffs,
    /// Five nodes that are well filled by 60 VMs: nodes are flushed and made ready, VMs are sent around and called
    /// back.
    Drills,
}

impl Shape {
    pub(crate) fn nodes(self) -> u64 {
        match self {
            Shape::Small | Shape::Handoffs => 3,
            Shape::Drills => 5,
        }
    }
    pub(crate) fn vms(self) -> u64 {
        match self {
            Shape::Small => 4,
            Shape::Handoffs => 0,
            Shape::Drills => 60,
        }
    }
}

impl Options {
    /// An ordinary run of a seed.
    pub fn of(seed: u64) -> Options {
        Options { seed, weather: Duration::from_secs(240), lie: Lie::None, shape: Shape::Small }
    }
}

/// What happened in a run, to see that it was worth it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Domains that came into memory, by a start or by a migration.
    pub starts: u64,
    /// Orders that were accepted.
    pub orders: u64,
    /// Orders that were refused or whose outcome is not known.
    pub refused: u64,
    /// Daemons that crashed.
    pub crashes: u64,
    /// Machines that lost power.
    pub power_cuts: u64,
    /// Sessions with the store that were cut.
    pub partitions: u64,
    /// Processes that were stopped for a while.
    pub stalls: u64,
    /// Times that a floating address came up somewhere.
    pub takeovers: u64,
    /// A hash over everything that was observed, in order: equal for equal runs.
    pub trace: u64,
}

/// Runs one simulation.
///
/// # Errors
/// The first invariant that was violated, and when.
pub fn run(options: Options) -> Result<Tally, Violation> {
    // tokio throws dice too, for the order in which it wakes those who wait for one thing.
    let chance = RngSeed::from_bytes(&options.seed.to_le_bytes());
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).rng_seed(chance).build();
    match runtime {
        Ok(runtime) => runtime.block_on(world::play(options)),
        Err(error) => Err(Violation { at: Duration::ZERO, what: format!("no runtime: {error}") }),
    }
}
