//! Deterministic simulation of whole clusters, in one thread and in virtual time, with seeded faults: the same seed
//! always gives the same run.
//!
//! The agents are the real ones. The store ([`drover_store::memory`]) and the hypervisors
//! ([`drover_drivers::hypervisor::fake`]) are fakes. A run has two parts:
//!
//! 1. **Weather**: administrators give orders at every node while daemons crash at any await point,
//!    machines lose power, the store loses sessions and answers, the hypervisors are slow, hang, lose events, refuse.
//! 2. **Calm**: all faults are repaired. In bounded time every VM must be where it is wanted, and the store must agree
//!    with what runs.
//!
//! The [`invariants`] hold at every moment of both: above all, no VM runs on two nodes.
//!
//! A [`scenario`] is written by people, and runs on the same machines without faults at random.
//!
//! `drover-sim --seeds 1..1000` runs seeds; `drover-sim --seed 7` runs one and logs its events.

mod clone;
pub mod invariants;
mod layout;
mod lies;
mod orders;
mod power;
pub mod scenario;
mod stall;
mod strangers;
mod table;
mod versions;
mod weather;
mod world;

pub use lies::Lie;

use invariants::Violation;
use std::time::Duration;
use tokio::runtime::{Builder, RngSeed};

/// Options of one run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The seed of all random numbers.
    pub seed: u64,
    /// Duration of the weather, in virtual time.
    pub weather: Duration,
    /// A planted defect, to check that the simulation finds it.
    pub lie: Lie,
    /// The kind of cluster, and the orders given to it.
    pub shape: Shape,
}

/// A kind of cluster, and of its administrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Shape {
    /// Three nodes and a few VMs, with all kinds of orders.
    #[default]
    Small,
    /// Three coordinators without VMs: the primary role is handed over, and claimed.
    Handoffs,
    /// Five well-filled nodes with 60 VMs: nodes are flushed and made ready, VMs are moved, and moves cancelled.
    Drills,
    /// Like small, plus the primary role and daemons of two versions: nodes are upgraded and downgraded, and the newer
    /// version writes what today's does not know.
    Versions,
    /// Machines lose their power, for long, or are cut off: their BMCs prove that they are off, or cut their power, or
    /// administrators confirm it, and their VMs go to other nodes.
    Fences,
    /// Machines have watchdogs and no BMCs, and are cut off or frozen for long: they are reset, which proves that they
    /// were, and their VMs go to other nodes.
    Watchdogs,
    /// Like small, and now and then a clone of a machine is switched on for a while: it has the same name and the same
    /// machine id.
    Clones,
    /// Like small, and people migrate guests by hand, replace their disks, and lose the store.
    Strangers,
}

impl Shape {
    pub(crate) fn nodes(self) -> u64 {
        match self {
            Shape::Small | Shape::Handoffs | Shape::Versions | Shape::Clones | Shape::Strangers => 3,
            Shape::Fences | Shape::Watchdogs => 4,
            Shape::Drills => 5,
        }
    }
    pub(crate) fn vms(self) -> u64 {
        match self {
            Shape::Small | Shape::Versions | Shape::Clones | Shape::Strangers => 4,
            Shape::Fences | Shape::Watchdogs => 8,
            Shape::Handoffs => 0,
            Shape::Drills => 60,
        }
    }
    /// Whether machines have BMCs.
    pub(crate) fn has_bmcs(self) -> bool {
        self == Shape::Fences
    }
    /// Whether machines have watchdogs.
    pub(crate) fn has_watchdogs(self) -> bool {
        self == Shape::Watchdogs
    }
    /// Whether the daemons take part in the primary role.
    pub(crate) fn has_primary(self) -> bool {
        matches!(self, Shape::Handoffs | Shape::Versions | Shape::Fences | Shape::Watchdogs)
    }
}

impl Options {
    /// The default options with this seed.
    pub fn of(seed: u64) -> Options {
        Options { seed, weather: Duration::from_secs(240), lie: Lie::None, shape: Shape::Small }
    }
}

/// Counts of events in a run, to check that enough happened.
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
    /// How often a daemon's server of the store fell behind the others.
    pub behind: u64,
    /// How often a floating address came up on a node.
    pub takeovers: u64,
    /// Calls of the store in an idle minute.
    pub calls_at_rest: u64,
    /// Orders to cut the power of a machine.
    pub cuts: u64,
    /// Nodes whose BMC proved that they were off.
    pub proved: u64,
    /// Machines that their watchdogs have reset.
    pub resets: u64,
    /// Nodes of which that was the proof that they were off.
    pub ran_out: u64,
    /// Nodes that were off and of which nothing was left.
    pub recovered: u64,
    /// Clones of machines that were switched on.
    pub clones: u64,
    /// Guests that somebody migrated by hand.
    pub hands: u64,
    /// Domains that somebody made with the hypervisor's own tools.
    pub foreign_domains: u64,
    /// Guests whose disks were replaced.
    pub replaced: u64,
    /// How often the store was lost.
    pub losses: u64,
    /// Records that were written so that a daemon of today's version could not read them.
    pub foreign: u64,
    /// A hash over all observations, in order: equal for equal runs.
    pub trace: u64,
}

/// Runs one simulation.
///
/// # Errors
/// The first invariant that was violated, and when.
pub fn run(options: Options) -> Result<Tally, Violation> {
    // tokio uses random numbers too, for the order in which it polls.
    let chance = RngSeed::from_bytes(&options.seed.to_le_bytes());
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).rng_seed(chance).build();
    match runtime {
        Ok(runtime) => runtime.block_on(world::play(options)),
        Err(error) => Err(Violation { at: Duration::ZERO, what: format!("no runtime: {error}") }),
    }
}
