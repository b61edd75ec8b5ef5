//! Which faults there are, and how often each happens in each shape of cluster.

use crate::{Shape, table::Table};

/// A random event on one machine, or on all.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// The daemon crashes, and is started again.
    Crash,
    /// The daemon is stopped cleanly, and started again.
    Stop,
    /// The machine loses power for a while.
    PowerCut,
    /// The machine loses power, for so long that an administrator notices.
    Outage,
    /// The machine is shut down, with all that happens then, and is back after a while.
    Shutdown,
    /// The daemon loses the store for a time around the session timeout, so that some sessions expire.
    CutOff,
    /// The store's server that the daemon uses falls behind the others for a while (ZooKeeper drops one that is
    /// `syncLimit` behind, 10 s with our configuration).
    Behind,
    /// The machine is cut off from all others for long; its BMC is not.
    Isolation,
    /// The store's servers have no majority for a while: no daemon has an answer from it.
    NoQuorum,
    /// A one-way cut: the others cannot reach the machine for a while, although it reaches the store.
    Unheard,
    /// Something else is wrong with a BMC, or nothing.
    BmcMood,
    /// The daemon loses its connection to the hypervisor for a while.
    NoHypervisor,
    /// A guest crashes, powers off, or is ended by the host.
    GuestDown,
    /// A hypervisor and its guests behave differently: slow, hanging, refusing, deaf, stubborn.
    Mood,
    /// The store behaves differently: slow, losing calls.
    StoreMood,
    /// The daemon's process is stopped for a time around the lease's term.
    Stall,
    /// The kernel handles addresses differently: slowly, failing.
    KernelMood,
    /// All processes of the machine stop for long.
    Freeze,
    /// A cable is pulled for a while.
    NoCable,
    /// Like [`Event::Stop`] or [`Event::Crash`], and the daemon is restarted in the other version.
    OtherVersion,
    /// A clone of the machine is switched on for a while.
    Clone,
    /// The clone's daemon loses the store for a time around the session timeout.
    CloneCutOff,
    /// A newer daemon puts a foreign value into a VM's record for a while.
    ForeignVm,
    /// The same, in the claim on a VM.
    ForeignClaim,
    /// The same, in the record of a node.
    ForeignNode,
    /// The same, in the configuration.
    ForeignConfig,
    /// The same, in the record of the primary.
    ForeignPrimary,
    /// A newer daemon creates records of an unknown kind below a VM and a node.
    Child,
    /// Somebody migrates a guest by hand.
    ByHand,
    /// The same, and it fails in the last step.
    CopyLeft,
    /// Somebody makes a snapshot that replaces a guest's disks, or merges it.
    Snapshot,
    /// The store loses everything.
    Loss,
    /// Somebody makes a domain that is not Drover's.
    Foreign,
    /// Nothing.
    Calm,
}

/// The events of that shape.
pub(super) fn events(shape: Shape) -> &'static Table<Event> {
    match shape {
        Shape::Small | Shape::Drills => ANY,
        Shape::Handoffs => HANDOFFS,
        Shape::Versions => VERSIONS,
        Shape::Fences => FENCES,
        Shape::Watchdogs => WATCHDOGS,
        Shape::Clones => CLONES,
        Shape::Strangers => STRANGERS,
    }
}

/// Events in clusters with VMs, every 0.75 s on average.
const ANY: &Table<Event> = &[
    ("a daemon crashes", 6, Event::Crash),
    ("a daemon is stopped", 2, Event::Stop),
    ("a machine loses its power", 2, Event::PowerCut),
    ("a machine is shut down", 1, Event::Shutdown),
    ("a daemon is cut off from the store", 8, Event::CutOff),
    ("a daemon is cut off from its hypervisor", 4, Event::NoHypervisor),
    ("a guest ends", 12, Event::GuestDown),
    ("a hypervisor has another mood", 6, Event::Mood),
    ("the store has another mood", 4, Event::StoreMood),
    ("a server of the store falls behind", 8, Event::Behind),
    ("nothing", 47, Event::Calm),
];

/// Events that concern the primary role.
const HANDOFFS: &Table<Event> = &[
    ("a daemon crashes", 1, Event::Crash),
    ("a daemon is stopped", 1, Event::Stop),
    ("a machine loses its power", 1, Event::PowerCut),
    ("a daemon is cut off from the store", 2, Event::CutOff),
    ("the store has another mood", 1, Event::StoreMood),
    ("a process is stopped for a while", 1, Event::Stall),
    ("a kernel has another mood", 1, Event::KernelMood),
    ("a cable is pulled", 1, Event::NoCable),
    ("a server of the store falls behind", 1, Event::Behind),
    ("nothing", 2, Event::Calm),
];

/// Machines lose their power for long. (A machine that is shut down ends its guests first.)
const FENCES: &Table<Event> = &[
    ("a daemon crashes", 5, Event::Crash),
    ("a daemon is stopped", 2, Event::Stop),
    ("a machine loses its power", 3, Event::PowerCut),
    ("a machine loses its power for long", 5, Event::Outage),
    ("a machine is cut off", 3, Event::Isolation),
    ("a machine cannot be reached", 3, Event::Unheard),
    ("the store has no majority", 1, Event::NoQuorum),
    ("a BMC has another mood", 4, Event::BmcMood),
    ("a daemon is cut off from the store", 8, Event::CutOff),
    ("a daemon is cut off from its hypervisor", 2, Event::NoHypervisor),
    ("a guest ends", 6, Event::GuestDown),
    ("a hypervisor has another mood", 4, Event::Mood),
    ("the store has another mood", 4, Event::StoreMood),
    ("a process is stopped for a while", 1, Event::Stall),
    ("a server of the store falls behind", 8, Event::Behind),
    ("nothing", 52, Event::Calm),
];

/// Machines are cut off, or frozen, for long.
const WATCHDOGS: &Table<Event> = &[
    ("a daemon crashes", 6, Event::Crash),
    ("a daemon is stopped", 3, Event::Stop),
    ("a machine loses its power", 2, Event::PowerCut),
    ("a machine loses its power for long", 2, Event::Outage),
    ("a machine is cut off", 6, Event::Isolation),
    ("a machine cannot be reached", 3, Event::Unheard),
    ("the store has no majority", 1, Event::NoQuorum),
    ("a machine is frozen", 3, Event::Freeze),
    ("a process is stopped for a while", 2, Event::Stall),
    ("a daemon is cut off from the store", 8, Event::CutOff),
    ("a daemon is cut off from its hypervisor", 2, Event::NoHypervisor),
    ("a guest ends", 6, Event::GuestDown),
    ("a hypervisor has another mood", 4, Event::Mood),
    ("the store has another mood", 4, Event::StoreMood),
    ("a server of the store falls behind", 8, Event::Behind),
    ("nothing", 150, Event::Calm),
];

/// Clones of machines are switched on, also while the machine itself is cut off, off, or without its daemon.
const CLONES: &Table<Event> = &[
    ("a clone of a machine is switched on", 6, Event::Clone),
    ("a clone is cut off from the store", 6, Event::CloneCutOff),
    ("a daemon crashes", 5, Event::Crash),
    ("a daemon is stopped", 2, Event::Stop),
    ("a machine loses its power", 3, Event::PowerCut),
    ("a daemon is cut off from the store", 8, Event::CutOff),
    ("a daemon is cut off from its hypervisor", 2, Event::NoHypervisor),
    ("a guest ends", 6, Event::GuestDown),
    ("a hypervisor has another mood", 4, Event::Mood),
    ("the store has another mood", 4, Event::StoreMood),
    ("nothing", 54, Event::Calm),
];

/// People do things behind Drover's back.
const STRANGERS: &Table<Event> = &[
    ("a guest is migrated by hand", 16, Event::ByHand),
    ("a migration by hand fails in its last step", 12, Event::CopyLeft),
    ("a guest's disks are replaced", 6, Event::Snapshot),
    ("the store is lost", 1, Event::Loss),
    ("somebody makes a domain", 6, Event::Foreign),
    ("a daemon crashes", 4, Event::Crash),
    ("a daemon is stopped", 1, Event::Stop),
    ("a machine loses its power", 1, Event::PowerCut),
    ("a daemon is cut off from the store", 4, Event::CutOff),
    ("a daemon is cut off from its hypervisor", 2, Event::NoHypervisor),
    ("a guest ends", 8, Event::GuestDown),
    ("a hypervisor has another mood", 2, Event::Mood),
    ("the store has another mood", 2, Event::StoreMood),
    ("a server of the store falls behind", 4, Event::Behind),
    ("nothing", 31, Event::Calm),
];

/// Nodes are upgraded and downgraded, with fewer other events.
const VERSIONS: &Table<Event> = &[
    ("a daemon crashes", 3, Event::Crash),
    ("a daemon is stopped", 1, Event::Stop),
    ("a machine loses its power", 2, Event::PowerCut),
    ("a daemon is cut off from the store", 5, Event::CutOff),
    ("a daemon is cut off from its hypervisor", 2, Event::NoHypervisor),
    ("a guest ends", 8, Event::GuestDown),
    ("a hypervisor has another mood", 3, Event::Mood),
    ("the store has another mood", 2, Event::StoreMood),
    ("a process is stopped for a while", 1, Event::Stall),
    ("a node gets the other version", 7, Event::OtherVersion),
    ("a VM's record is foreign", 10, Event::ForeignVm),
    ("a claim is foreign", 6, Event::ForeignClaim),
    ("a node's record is foreign", 4, Event::ForeignNode),
    ("the configuration is foreign", 4, Event::ForeignConfig),
    ("the primary's record is foreign", 2, Event::ForeignPrimary),
    ("records of an unknown kind", 4, Event::Child),
    ("a server of the store falls behind", 6, Event::Behind),
    ("nothing", 30, Event::Calm),
];
