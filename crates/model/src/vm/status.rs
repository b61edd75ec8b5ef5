//! What a VM's node reports of it: the state of its domain, what is being done with it, how its last move ended.

use super::{Epoch, Generation, VM_SCHEMA};
use crate::{
    name::NodeName,
    paused::{self, Paused},
    record::{RecordKind, Writer},
    replaced::Replaced,
    units::{Bytes, WallTime},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// `/vms/<uuid>/status`: the report of the node that holds the claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The reporting node.
    pub node: NodeName,
    /// The epoch of its claim.
    pub epoch: Epoch,
    /// The last known run state; `None`: there is no domain.
    pub run: Option<RunState>,
    /// Why it does not execute, if `run` is [`RunState::Paused`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "paused::if_known")]
    pub paused: Option<Paused>,
    /// The domain cannot be observed now, so `run` may be outdated.
    #[serde(default)]
    pub unknown: bool,
    /// What the node is doing or waiting for, for users. Empty: nothing.
    #[serde(default)]
    pub doing: String,
    /// The definition that the domain was started from.
    #[serde(default)]
    pub generation: Option<Generation>,
    /// Crashes in a row since the last quiet period.
    #[serde(default)]
    pub crashes: u32,
    /// Epoch of the last guest of which the hypervisor said, when it happened, that the host ended it. It says so only
    /// once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Epoch>,
    /// Time of the last change of `run`.
    pub since: WallTime,
    /// Whether the domain's console is logged.
    #[serde(default)]
    pub console: bool,
    /// The VNC display's address and port, if it has one.
    #[serde(default)]
    pub vnc: Option<(String, u16)>,
    /// Progress of its migration; `None` if there is none.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Its last move, if that failed.
    #[serde(default)]
    pub move_failure: Option<MoveFailure>,
    /// Disks that the guest has written to, when it was last seen, elsewhere than its definition had them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
}

impl VmStatus {
    /// A report of a VM that has not been observed.
    pub fn new(node: NodeName, epoch: Epoch, since: WallTime) -> VmStatus {
        VmStatus {
            schema: VM_SCHEMA,
            node,
            epoch,
            run: None,
            paused: None,
            unknown: false,
            doing: String::new(),
            generation: None,
            crashes: 0,
            ended: None,
            since,
            console: false,
            vnc: None,
            progress: None,
            move_failure: None,
            replaced: None,
        }
    }

    /// Why the guest does not execute; `None`: it does, as far as is known, or it is not in memory.
    pub fn why_paused(&self) -> Option<Paused> {
        let paused = !self.unknown && self.run == Some(RunState::Paused);
        paused.then(|| self.paused.clone().unwrap_or_default())
    }
}

impl RecordKind for VmStatus {
    type Key = Uuid;
    const AT: &'static str = "/vms/*/status";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Node;

    /// The reporting node. The rest is unknown until there is a report in this version's layout.
    fn salvage(_: &Uuid, document: &serde_json::Value) -> Option<VmStatus> {
        let node = document.get("node").and_then(serde_json::Value::as_str)?;
        let epoch = Epoch(document.get("epoch").and_then(serde_json::Value::as_u64).unwrap_or(0));
        Some(VmStatus { unknown: true, ..VmStatus::new(NodeName::new(node).ok()?, epoch, WallTime(0)) })
    }
}

/// State of a domain as reported by the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Executes.
    Running,
    /// In memory, but does not execute; see [`VmStatus::paused`].
    Paused,
    /// Executes, and was asked to power off.
    ShuttingDown,
    /// Defined, but not in memory.
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

/// How far the migration of a guest has come, as far as its domain shows it, at either end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transit {
    /// It is paused by the migration: it is arriving, or all but gone.
    Switching,
    /// Post-copy: it executes at the target, and part of its memory is still at the source.
    Split,
    /// Post-copy that has failed: each end has memory that the other lacks.
    Broken,
}

/// Why a domain is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OffReason {
    /// The guest powered itself off: by its own wish, or because somebody pressed its power button or asked its agent.
    Shutdown,
    /// The host ended it: QEMU got a signal (from systemd, when the machine goes down), was told to quit, or gave up.
    Ended,
    /// One of these two; the hypervisor told which when it happened, and nobody listened, or it has not come yet.
    ShutdownOrEnded,
    /// It was destroyed through the hypervisor.
    Destroyed,
    /// The guest or its QEMU crashed.
    Crashed,
    /// It could not be started.
    Failed,
    /// It moved to another node.
    Migrated,
    /// Its memory was saved to a file (`virsh managedsave`); the next start goes on from there.
    Saved,
    /// The hypervisor does not know.
    Unknown,
}

/// Progress of a live migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Total amount of data, as far as known.
    pub total: Bytes,
    /// Amount sent.
    pub sent: Bytes,
    /// Amount left. It can grow, because the guest writes on.
    pub left: Bytes,
    /// Transfer rate per second.
    pub rate: Bytes,
    /// Time since its start, in milliseconds.
    pub elapsed_ms: u64,
}

impl Progress {
    /// Estimated remaining time, in seconds, if the guest wrote nothing more; `None`: nothing is being sent at present.
    pub fn estimate_s(&self) -> Option<u64> {
        self.left.0.checked_div(self.rate.0)
    }
}

/// A failed move. The VM stays where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveFailure {
    /// The target.
    pub to: NodeName,
    /// Why it failed.
    pub reason: String,
    /// Number of failed moves of this VM in a row.
    pub count: u32,
    /// Number of reports in a row that a move failed or could not even be tried; incremented with each.
    #[serde(default)]
    pub told: u32,
}
