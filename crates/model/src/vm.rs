//! A virtual machine as it is stored: what is wanted of it, what its node reports, and who may run it.
//!
//! Three records, so that a report never races a request:
//!
//! * [`VmRecord`] at `/vms/<uuid>`: the definition and the wanted [`VmState`]. Written by requests; by a node only to complete
//!   the command in it, by compare-and-set.
//! * [`VmStatus`] at `/vms/<uuid>/status`: what the node that holds the claim sees.
//! * [`Claim`] at `/vms/<uuid>/claim`: which node may run it, and the epoch of that grant.

use crate::{
    name::{NodeName, VmName},
    units::{Bytes, WallTime},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Raised with every grant of a VM to a node. Whoever obeys an order remembers the highest epoch that it obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next grant.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the definitions (XML) that a VM has had; 1 is the first. A running domain carries the one that it was started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// How long a guest gets to obey the power button when nobody says otherwise, in seconds: what administrators are used to.
pub const SHUTDOWN_TIMEOUT_S: u32 = 180;

/// What is wanted of a VM.
///
/// The first group is at rest. The second is being worked on by the VM's node, which completes it by setting the next state on the
/// version of the record that it started from; whoever changes the record meanwhile has cancelled it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum VmState {
    /// Runs on its node.
    Start,
    /// Does not run.
    Stop,
    /// Does not run, and is not counted as missing.
    Disable,
    /// Could not run, for this reason. Does not run.
    Fail {
        /// What went wrong, for people.
        reason: String,
    },
    /// Is being built; not to be run yet.
    Provision,
    /// The guest is asked to power off; when the deadline passes its power is cut.
    Shutdown {
        /// How long the guest has, in seconds.
        timeout_s: u32,
        /// What it becomes when it is off.
        then: AtRest,
    },
    /// The guest is asked to power off (its power is cut at the deadline), and is started again.
    Restart {
        /// How long the guest has, in seconds.
        timeout_s: u32,
    },
    /// The VM's power is cut, and every record of it is deleted.
    Delete {
        /// Whether the disk files that Drover holds for it are deleted too.
        disks: bool,
    },
}

/// A state of rest in which a VM does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtRest {
    /// [`VmState::Stop`].
    Stop,
    /// [`VmState::Disable`].
    Disable,
}

impl From<AtRest> for VmState {
    fn from(rest: AtRest) -> VmState {
        match rest {
            AtRest::Stop => VmState::Stop,
            AtRest::Disable => VmState::Disable,
        }
    }
}

impl VmState {
    /// Every word of [`VmState::word`], for filters and their error messages.
    pub const WORDS: [&'static str; 8] =
        ["start", "stop", "disable", "fail", "provision", "shutdown", "restart", "delete"];

    /// The one word by which users and existing clients know the state.
    pub fn word(&self) -> &'static str {
        match self {
            VmState::Start => "start",
            VmState::Stop => "stop",
            VmState::Disable => "disable",
            VmState::Fail { .. } => "fail",
            VmState::Provision => "provision",
            VmState::Shutdown { .. } => "shutdown",
            VmState::Restart { .. } => "restart",
            VmState::Delete { .. } => "delete",
        }
    }

    /// Whether nothing remains to be done once the world agrees with it.
    pub fn at_rest(&self) -> bool {
        match self {
            VmState::Start | VmState::Stop | VmState::Disable | VmState::Fail { .. } | VmState::Provision => true,
            VmState::Shutdown { .. } | VmState::Restart { .. } | VmState::Delete { .. } => false,
        }
    }

    /// Whether the VM takes up memory and vCPUs on its node, now or in a moment.
    pub fn occupies_node(&self) -> bool {
        matches!(self, VmState::Start | VmState::Shutdown { .. } | VmState::Restart { .. })
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The layout version of [`VmRecord`], [`VmStatus`] and [`Claim`].
pub const VM_SCHEMA: u32 = 1;

/// `/vms/<uuid>`: what is wanted of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The VM's identity; never changes.
    pub uuid: Uuid,
    /// Unique in the cluster.
    pub name: VmName,
    /// What is wanted of it.
    pub state: VmState,
    /// The node that should run it.
    pub node: Option<NodeName>,
    /// The node that it goes back to, when it was migrated away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_node: Option<NodeName>,
    /// The libvirt domain XML, as its author wrote it but for name and UUID.
    pub xml: String,
    /// Counts definitions.
    pub generation: Generation,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Profile that it was built from, if any.
    #[serde(default)]
    pub profile: String,
}

/// `/vms/<uuid>/claim`: the only node that may run the VM, if any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The holder. `None`: nobody runs it, and whoever is assigned may take it.
    pub node: Option<NodeName>,
    /// The epoch of the last grant. Stays when the claim is released.
    pub epoch: Epoch,
}

impl Claim {
    /// The claim of a VM that was never run.
    pub fn never() -> Claim {
        Claim { schema: VM_SCHEMA, node: None, epoch: Epoch(0) }
    }
    /// The next grant, to `node`.
    #[must_use]
    pub fn granted_to(&self, node: &NodeName) -> Claim {
        Claim { schema: VM_SCHEMA, node: Some(node.clone()), epoch: self.epoch.next() }
    }
    /// Given back by its holder.
    #[must_use]
    pub fn released(&self) -> Claim {
        Claim { schema: VM_SCHEMA, node: None, epoch: self.epoch }
    }
    /// Whether `node` holds it.
    pub fn is_held_by(&self, node: &NodeName) -> bool {
        self.node.as_ref() == Some(node)
    }
}

/// What a hypervisor says of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Executes.
    Running,
    /// In memory, does not execute.
    Paused,
    /// Executes, and was asked to power off.
    ShuttingDown,
    /// Defined, does not execute.
    Off,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RunState::Running => "running",
            RunState::Paused => "paused",
            RunState::ShuttingDown => "shutting-down",
            RunState::Off => "off",
        })
    }
}

/// Why a domain does not execute any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffReason {
    /// The guest powered itself off.
    Shutdown,
    /// Somebody cut its power through the hypervisor.
    Destroyed,
    /// The guest or its QEMU crashed.
    Crashed,
    /// It could not be started.
    Failed,
    /// It moved to another node.
    Migrated,
    /// The hypervisor does not remember.
    Unknown,
}

/// `/vms/<uuid>/status`: what the node that holds the claim reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Who reports.
    pub node: NodeName,
    /// The epoch of its claim.
    pub epoch: Epoch,
    /// What its hypervisor said last; `None`: there is no domain.
    pub run: Option<RunState>,
    /// The domain cannot be looked at now, so that `run` may be old.
    #[serde(default)]
    pub unknown: bool,
    /// What the node is doing or waiting for, for people. Empty: nothing.
    #[serde(default)]
    pub doing: String,
    /// The definition that the domain was started from.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Crashes in a row since the last quiet period.
    #[serde(default)]
    pub crashes: u32,
    /// When `run` became what it is.
    pub since: WallTime,
    /// Where the domain's console goes, if it has one.
    #[serde(default)]
    pub console: bool,
    /// The VNC display's address and port, if it has one.
    #[serde(default)]
    pub vnc: Option<(String, u16)>,
}

/// What a definition asks of its node, read from the XML once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// The guest's memory.
    pub memory: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
}
