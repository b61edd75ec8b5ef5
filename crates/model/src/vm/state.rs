//! What is wanted of a VM: the states of its record, and how a VM is moved.

use crate::name::NodeName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Default timeout for a guest to power off, in seconds: what administrators are used to.
pub const SHUTDOWN_TIMEOUT_S: u32 = 180;
/// Maximum of that timeout, in seconds: one day.
pub const SHUTDOWN_TIMEOUT_MAX_S: u32 = 86_400;

/// Wanted state of a VM.
///
/// The first group are states of rest. In the second one the VM's node has work to do, which it completes by writing
/// the next state by compare-and-set on the version of the record that it started from; a concurrent change of the
/// record cancels the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum VmState {
    /// Runs on its node.
    Start,
    /// Does not run.
    Stop,
    /// Does not run, and is out of service.
    Disable,
    /// Does not run, because it failed for this reason.
    Fail {
        /// The error, for users.
        reason: String,
    },
    /// The record cannot be read, so that its wanted state is unknown. Never stored.
    #[serde(skip)]
    Unreadable,
    /// The guest is asked to power off, and forced off at the deadline.
    Shutdown {
        /// Timeout, in seconds.
        timeout_s: u32,
        /// State afterwards.
        then: AtRest,
    },
    /// The guest is asked to power off (and forced off at the deadline), and is started again.
    Restart {
        /// Timeout, in seconds.
        timeout_s: u32,
    },
    /// The guest is paused. Afterwards its state is [`VmState::Start`] again, and it stays paused.
    Pause,
    /// A guest that is paused executes again, one that is asleep is woken. Afterwards its state is [`VmState::Start`].
    Resume,
    /// It moves to another node; its node sends it there. Afterwards it runs there.
    Migrate {
        /// The target.
        to: NodeName,
        /// What happens to its home.
        kind: MoveKind,
        /// How it is moved.
        how: How,
    },
    /// The VM is forced off, and all its records are deleted.
    Delete {
        /// Whether its disk files are deleted too.
        disks: bool,
    },
}

/// Kind of a move: what happens to the VM's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveKind {
    /// Permanent: the target becomes its home.
    Move,
    /// Temporary: its home is remembered (the first one, if it was away already).
    Migrate,
    /// Back home.
    Unmigrate,
}

/// How a running VM is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Live or not at all.
    Live,
    /// Live; if that fails, cold.
    LiveElseCold,
    /// Shut down on the source, started on the target.
    Cold,
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
    /// All values of [`VmState::word`], for filters and their error messages. `provision` is a state that API clients
    /// know, of a VM that is being built: it is accepted as a filter and matches no VM.
    pub const WORDS: [&'static str; 14] = [
        "start",
        "stop",
        "disable",
        "fail",
        "provision",
        "shutdown",
        "restart",
        "pause",
        "resume",
        "migrate",
        "migrate-live",
        "unmigrate",
        "delete",
        "unreadable",
    ];

    /// The name of the state for users and existing clients.
    pub fn word(&self) -> &'static str {
        match self {
            VmState::Start => "start",
            VmState::Stop => "stop",
            VmState::Disable => "disable",
            VmState::Fail { .. } => "fail",
            VmState::Unreadable => "unreadable",
            VmState::Shutdown { .. } => "shutdown",
            VmState::Restart { .. } => "restart",
            VmState::Pause => "pause",
            VmState::Resume => "resume",
            VmState::Migrate { kind: MoveKind::Unmigrate, .. } => "unmigrate",
            VmState::Migrate { how: How::Live, .. } => "migrate-live",
            VmState::Migrate { .. } => "migrate",
            VmState::Delete { .. } => "delete",
        }
    }

    /// Whether no work is left in this state once it is reached.
    pub fn at_rest(&self) -> bool {
        match self {
            VmState::Start | VmState::Stop | VmState::Disable | VmState::Fail { .. } => true,
            VmState::Unreadable => true,
            VmState::Shutdown { .. }
            | VmState::Restart { .. }
            | VmState::Pause
            | VmState::Resume
            | VmState::Migrate { .. }
            | VmState::Delete { .. } => false,
        }
    }

    /// The target of a move under way.
    pub fn destination(&self) -> Option<&NodeName> {
        match self {
            VmState::Migrate { to, .. } => Some(to),
            _ => None,
        }
    }

    /// Whether the VM uses memory and vCPUs on its node, now or soon, or may do so.
    pub fn occupies_node(&self) -> bool {
        match self {
            VmState::Start | VmState::Shutdown { .. } | VmState::Restart { .. } | VmState::Migrate { .. } => true,
            VmState::Pause | VmState::Resume => true,
            VmState::Unreadable => true,
            VmState::Stop | VmState::Disable | VmState::Fail { .. } | VmState::Delete { .. } => false,
        }
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
