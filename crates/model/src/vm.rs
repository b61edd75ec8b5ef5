//! A virtual machine as it is stored: what is wanted of it, what its node reports, and who may run it.
//!
//! Three records, so that a report never races a request:
//!
//! * [`VmRecord`] at `/vms/<uuid>`: the definition and the wanted [`VmState`]. Written by requests; by a node only to
//!   complete the command in it, by compare-and-set.
//! * [`VmStatus`] at `/vms/<uuid>/status`: what the node that holds the claim sees.
//! * [`Claim`] at `/vms/<uuid>/claim`: which node may run it, and the epoch of that grant.

use crate::{
    meta::VmMeta,
    name::{NodeName, VmName},
    record::{RecordKind, Version, Writer},
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

/// Counts the definitions (XML) that a VM has had; 1 is the first. A running domain carries the one that it was started
/// from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// How long a guest gets to obey the power button when nobody says otherwise, in seconds: what administrators are used
/// to.
pub const SHUTDOWN_TIMEOUT_S: u32 = 180;

/// What is wanted of a VM.
///
/// The first group is at rest. The second is being worked on by the VM's node, which completes it by setting the next
/// state on the version of the record that it started from; whoever changes the record meanwhile has cancelled it.
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
    /// The record cannot be read, so that nobody here knows what is wanted. Never stored.
    #[serde(skip)]
    Unreadable,
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
    /// It goes to another node; its node sends it there. When it is there, it runs on.
    Migrate {
        /// Where to.
        to: NodeName,
        /// What becomes of its home.
        kind: MoveKind,
        /// In which way.
        how: How,
    },
    /// The VM's power is cut, and every record of it is deleted.
    Delete {
        /// Whether the disk files that Drover holds for it are deleted too.
        disks: bool,
    },
}

/// What a move makes of a VM's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MoveKind {
    /// For good: the target is its home.
    Move,
    /// For a while: it remembers its home (the first one, if it was away already).
    Migrate,
    /// Home again.
    Unmigrate,
}

/// How a running VM gets to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// Live or not at all.
    Live,
    /// Live; if that fails, cold.
    LiveElseCold,
    /// Shut down here, started there.
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
    /// Every word of [`VmState::word`], for filters and their error messages. `provision` is a word of the API's
    /// clients for a VM that is being built: a filter that they may ask for, which no VM matches.
    pub const WORDS: [&'static str; 12] = [
        "start",
        "stop",
        "disable",
        "fail",
        "provision",
        "shutdown",
        "restart",
        "migrate",
        "migrate-live",
        "unmigrate",
        "delete",
        "unreadable",
    ];

    /// The one word by which users and existing clients know the state.
    pub fn word(&self) -> &'static str {
        match self {
            VmState::Start => "start",
            VmState::Stop => "stop",
            VmState::Disable => "disable",
            VmState::Fail { .. } => "fail",
            VmState::Unreadable => "unreadable",
            VmState::Shutdown { .. } => "shutdown",
            VmState::Restart { .. } => "restart",
            VmState::Migrate { kind: MoveKind::Unmigrate, .. } => "unmigrate",
            VmState::Migrate { how: How::Live, .. } => "migrate-live",
            VmState::Migrate { .. } => "migrate",
            VmState::Delete { .. } => "delete",
        }
    }

    /// Whether nothing remains to be done once the world agrees with it.
    pub fn at_rest(&self) -> bool {
        match self {
            VmState::Start | VmState::Stop | VmState::Disable | VmState::Fail { .. } => true,
            VmState::Unreadable => true,
            VmState::Shutdown { .. } | VmState::Restart { .. } | VmState::Migrate { .. } | VmState::Delete { .. } => {
                false
            }
        }
    }

    /// The node that it is on its way to.
    pub fn destination(&self) -> Option<&NodeName> {
        match self {
            VmState::Migrate { to, .. } => Some(to),
            _ => None,
        }
    }

    /// Whether the VM takes up memory and vCPUs on its node, now or in a moment, or may.
    pub fn occupies_node(&self) -> bool {
        match self {
            VmState::Start | VmState::Shutdown { .. } | VmState::Restart { .. } | VmState::Migrate { .. } => true,
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
    /// What an administrator says about it.
    #[serde(default)]
    pub meta: VmMeta,
}

impl VmRecord {
    /// The record when the VM has come to `node` by a move of that kind. Its state is left as it is.
    #[must_use]
    pub fn arrived(&self, node: &NodeName, kind: MoveKind) -> VmRecord {
        let home = match kind {
            MoveKind::Move | MoveKind::Unmigrate => None,
            MoveKind::Migrate => self.last_node.clone().or_else(|| self.node.clone()).filter(|home| home != node),
        };
        VmRecord { node: Some(node.clone()), last_node: home, ..self.clone() }
    }
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
    /// The holder is sending the guest to that node, or was: until the holder has seen that it is not, the guest may be
    /// there, under the next epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeName>,
}

impl Claim {
    /// The claim of a VM that was never run.
    pub fn never() -> Claim {
        Claim { schema: VM_SCHEMA, node: None, epoch: Epoch(0), to: None }
    }
    /// The next grant, to `node`.
    #[must_use]
    pub fn granted_to(&self, node: &NodeName) -> Claim {
        Claim { schema: self.schema, node: Some(node.clone()), epoch: self.epoch.next(), to: None }
    }
    /// Given back by its holder.
    #[must_use]
    pub fn released(&self) -> Claim {
        Claim { schema: self.schema, node: None, epoch: self.epoch, to: None }
    }
    /// Held as before, while the guest is sent to a node; `None`: it is not, any more.
    #[must_use]
    pub fn sending_to(&self, to: Option<&NodeName>) -> Claim {
        Claim { to: to.cloned(), ..self.clone() }
    }
    /// Whether `node` holds it.
    pub fn is_held_by(&self, node: &NodeName) -> bool {
        self.node.as_ref() == Some(node)
    }
}

/// `/vms/<uuid>/arrival`: what the node says to which the VM is to go. It alone gives its own room away, so that no two
/// nodes send it more than it can carry. Nothing is sent to it before it has said yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The target, who says this.
    pub node: NodeName,
    /// The version of the VM's record that it is said of.
    pub of: Version,
    /// Why the VM cannot come; `None`: there is room for it, and everything that it needs.
    pub refused: Option<String>,
}

/// `/names/vms/<name>`: the UUID of the VM that has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameEntry(pub Uuid);

impl RecordKind for VmRecord {
    type Key = Uuid;
    const AT: &'static str = "/vms/*";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Requests;
    const WHOLE: &'static [&'static str] = &["state"];

    fn schema(&self) -> u32 {
        self.schema
    }

    /// Its name, its nodes and its definition: its name stays taken, and its room counts.
    fn salvage(uuid: &Uuid, document: &serde_json::Value) -> Option<VmRecord> {
        let text = |field: &str| document.get(field).and_then(serde_json::Value::as_str);
        let node = |field: &str| text(field).and_then(|name| NodeName::new(name).ok());
        let name = text("name").and_then(|name| VmName::new(name).ok());
        Some(VmRecord {
            schema: VM_SCHEMA,
            uuid: *uuid,
            // A UUID is a good name.
            name: name.or_else(|| VmName::new(&uuid.to_string()).ok())?,
            state: VmState::Unreadable,
            node: node("node"),
            last_node: node("last_node"),
            xml: text("xml").unwrap_or_default().to_owned(),
            generation: Generation(0),
            description: text("description").unwrap_or_default().to_owned(),
            profile: String::new(),
            meta: VmMeta::default(),
        })
    }
}

impl RecordKind for VmStatus {
    type Key = Uuid;
    const AT: &'static str = "/vms/*/status";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Node;
    fn schema(&self) -> u32 {
        self.schema
    }

    /// Who said it. The rest is unknown until somebody reports in words of this version.
    fn salvage(_: &Uuid, document: &serde_json::Value) -> Option<VmStatus> {
        let node = document.get("node").and_then(serde_json::Value::as_str)?;
        Some(VmStatus {
            schema: VM_SCHEMA,
            node: NodeName::new(node).ok()?,
            epoch: Epoch(document.get("epoch").and_then(serde_json::Value::as_u64).unwrap_or(0)),
            run: None,
            unknown: true,
            doing: String::new(),
            generation: None,
            crashes: 0,
            since: WallTime(0),
            console: false,
            vnc: None,
            progress: None,
            move_failure: None,
        })
    }
}

impl RecordKind for Claim {
    type Key = Uuid;
    const AT: &'static str = "/vms/*/claim";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Node;
    fn schema(&self) -> u32 {
        self.schema
    }

    /// Its holder, and where the guest may be beside it, if they are named as this version names them.
    fn salvage(_: &Uuid, document: &serde_json::Value) -> Option<Claim> {
        let node = |field: &str| NodeName::new(document.get(field)?.as_str()?).ok();
        let epoch = Epoch(document.get("epoch").and_then(serde_json::Value::as_u64).unwrap_or(0));
        Some(Claim { schema: VM_SCHEMA, node: Some(node("node")?), epoch, to: node("to") })
    }
}

impl RecordKind for Arrival {
    type Key = Uuid;
    const AT: &'static str = "/vms/*/arrival";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Node;
    fn schema(&self) -> u32 {
        self.schema
    }

    /// Who said it, of no version that there is: its target answers anew, in words of this version.
    fn salvage(_: &Uuid, document: &serde_json::Value) -> Option<Arrival> {
        let node = NodeName::new(document.get("node")?.as_str()?).ok()?;
        Some(Arrival { schema: VM_SCHEMA, node, of: Version(-1), refused: None })
    }
}

impl RecordKind for NameEntry {
    type Key = VmName;
    const AT: &'static str = "/names/vms/*";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Requests;
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
    /// How far its migration is; `None`: none is under way.
    #[serde(default)]
    pub progress: Option<Progress>,
    /// Its last move, if that failed.
    #[serde(default)]
    pub move_failure: Option<MoveFailure>,
}

/// How far a live migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// What there is to send, as far as that is known.
    pub total: Bytes,
    /// What is sent.
    pub sent: Bytes,
    /// What is left to send. The guest writes on, so it can grow.
    pub left: Bytes,
    /// What is sent in a second.
    pub rate: Bytes,
    /// For how long it has been under way, in milliseconds.
    pub elapsed_ms: u64,
}

impl Progress {
    /// How long it may take still, in seconds, if the guest wrote nothing more; `None`: nothing is sent just now.
    pub fn estimate_s(&self) -> Option<u64> {
        self.left.0.checked_div(self.rate.0)
    }
}

/// A move that failed. The VM runs on where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveFailure {
    /// Where it should have gone.
    pub to: NodeName,
    /// Why it is not there.
    pub reason: String,
    /// How often in a row moves of this VM have failed.
    pub count: u32,
    /// How often in a row it was told that a move failed or could not even be tried: rises with each.
    #[serde(default)]
    pub told: u32,
}

/// What a definition asks of its node, read from the XML once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// The guest's memory.
    pub memory: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
}
