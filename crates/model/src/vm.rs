//! The records of a virtual machine: its wanted state, its node's report, and the node that may run it.
//!
//! There are three records, so that reports and requests do not conflict:
//!
//! * [`VmRecord`] at `/vms/<uuid>`: the definition and the wanted [`VmState`]. Written by requests; by a node only to
//!   complete the command in it, by compare-and-set.
//! * [`VmStatus`] at `/vms/<uuid>/status`: the report of the node that holds the claim.
//! * [`Claim`] at `/vms/<uuid>/claim`: the node that may run it, and the epoch of that grant.

mod state;
mod status;

pub use state::{AtRest, How, MoveKind, SHUTDOWN_TIMEOUT_MAX_S, SHUTDOWN_TIMEOUT_S, VmState};
pub use status::{MoveFailure, OffReason, Progress, RunState, Transit, VmStatus};

use crate::{
    domain::Mark,
    meta::VmMeta,
    name::{NodeName, VmName},
    operation::{self, Operation},
    placed::{self, Placed},
    record::{RecordKind, Version, Writer},
    units::Bytes,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// Incremented with every grant of a VM to a node (fencing token). Whoever obeys an order remembers the highest epoch
/// that it has obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Whether it is below all epochs.
    pub(crate) fn is_none(&self) -> bool {
        *self == Epoch(0)
    }

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

/// Number of a VM's definition (XML), starting at 1. A running domain has the number of the definition that it was
/// started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// The layout version of [`VmRecord`], [`VmStatus`] and [`Claim`].
pub const VM_SCHEMA: u32 = 1;

/// `/vms/<uuid>`: a VM's definition and wanted state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The VM's identity; never changes.
    pub uuid: Uuid,
    /// Unique in the cluster.
    pub name: VmName,
    /// Its wanted state.
    pub state: VmState,
    /// The node that should run it.
    pub node: Option<NodeName>,
    /// Its home, if it was migrated away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_node: Option<NodeName>,
    /// The libvirt domain XML, as written by its author except for name and UUID.
    pub xml: String,
    /// Counts definitions.
    pub generation: Generation,
    /// For users.
    #[serde(default)]
    pub description: String,
    /// Profile that it was built from, if any.
    #[serde(default)]
    pub profile: String,
    /// Metadata set by an administrator.
    #[serde(default)]
    pub meta: VmMeta,
    /// The placement that brought it to its node; `None` if not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "placed::if_known")]
    pub placed: Option<Box<Placed>>,
    /// The placement of its last ordered move. On arrival it becomes [`VmRecord::placed`]; if the VM does not arrive it
    /// has no meaning any more.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "placed::if_known")]
    pub going: Option<Box<Placed>>,
    /// An administrator wants the disks of the definition, although guests up to this epoch have written to others
    /// ([`crate::Replaced`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_disks: Option<Epoch>,
    /// Nodes that it was moved to while off, and at which this definition could not be started. Nothing brings it there
    /// again but an order that names the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<StartRefused>,
    /// The operation that changed it last. For people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "operation::if_known")]
    pub operation: Option<Operation>,
}

/// A node at which a VM could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRefused {
    /// The node.
    pub node: NodeName,
    /// The hypervisor's words, at most [`REFUSED_WHY_MAX`] characters.
    pub why: String,
}

/// Maximum length of [`StartRefused::why`], in characters; the rest is cut off. A record has one for each node at most.
pub const REFUSED_WHY_MAX: usize = 300;

impl VmRecord {
    /// The record after it could not be started at that node, which it was moved to.
    #[must_use]
    pub fn refused_at(&self, node: &NodeName, why: &str) -> VmRecord {
        let mut record = self.accepted_at(node);
        let why = why.chars().take(REFUSED_WHY_MAX).collect();
        record.refused.push(StartRefused { node: node.clone(), why });
        record
    }

    /// The record when it is to be tried at that node, whatever happened there before.
    #[must_use]
    pub fn accepted_at(&self, node: &NodeName) -> VmRecord {
        let mut record = self.clone();
        record.refused.retain(|refused| refused.node != *node);
        record
    }

    /// The record after the VM's arrival on `node` by a move of that kind. Its state is not changed.
    #[must_use]
    pub fn arrived(&self, node: &NodeName, kind: MoveKind) -> VmRecord {
        let home = match kind {
            MoveKind::Move | MoveKind::Unmigrate => None,
            MoveKind::Migrate => self.last_node.clone().or_else(|| self.node.clone()).filter(|home| home != node),
        };
        let choices = self.going.iter().chain(&self.placed);
        let placed = choices.into_iter().find(|choice| choice.to == *node).cloned();
        VmRecord { node: Some(node.clone()), last_node: home, placed, going: None, ..self.clone() }
    }

    /// The record after the end of a move to `node`, which has the guest now, or is to start it. If something else is
    /// wanted by now than the move, that node acts on it.
    #[must_use]
    pub fn settled_at(&self, node: &NodeName) -> VmRecord {
        match &self.state {
            VmState::Migrate { to, kind, .. } if to == node => {
                VmRecord { state: VmState::Start, ..self.arrived(node, *kind) }
            }
            _ => self.arrived(node, MoveKind::Migrate),
        }
    }
}

/// `/vms/<uuid>/claim`: the only node that may run the VM, if any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The holder. `None`: no node runs it, and the node that it is assigned to may take it.
    pub node: Option<NodeName>,
    /// The epoch of the last grant. Unchanged by a release.
    pub epoch: Epoch,
    /// The epoch that the VM was defined with. Its own grants are above; what carries this one or a lower one is of an
    /// earlier VM with the same UUID ([`crate::Departed::floor`]).
    #[serde(default, skip_serializing_if = "Epoch::is_none")]
    pub born: Epoch,
    /// The epoch with which the store's own begin ([`crate::Departed::began`]): no VM of this store had it or a lower
    /// one.
    #[serde(default, skip_serializing_if = "Epoch::is_none")]
    pub began: Epoch,
    /// The holder is migrating the guest to that node, or was: until the holder has observed that it is not, the guest
    /// may be there, under the next epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeName>,
    /// The VM was handed over by that node, and has not been in memory at the holder yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeName>,
    /// Id of the holder's machine. Empty: not known, as in claims of older daemons.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// Id of that machine's boot at the grant. Empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// The grant was made for a guest that runs at the holder already, under this mark, which the holder replaces by
    /// the grant's; empty again when it has done so. Without a holder: an imported domain with this mark, which is off,
    /// is on the VM's node. 0 ([`Mark::IMPORTED`]): it may have no mark yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopts: Option<Epoch>,
    /// The guest came by migration, paused, and has not been resumed under this grant yet: the holder does it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resume: bool,
}

impl Claim {
    /// The claim of a new VM, whose grants have epochs above `born`.
    pub fn new(born: Epoch) -> Claim {
        let (machine, boot) = Default::default();
        let (schema, began, node, to, from) = (VM_SCHEMA, Epoch(0), None, None, None);
        Claim { schema, node, epoch: born, born, began, to, from, machine, boot, adopts: None, resume: false }
    }
    /// Whether it was never granted to a node: the VM has never run.
    pub fn never_granted(&self) -> bool {
        self.node.is_none() && self.to.is_none() && self.epoch <= self.born
    }
    /// Whether a domain with this epoch belongs to an earlier VM with the same UUID, and is not adopted. That VM was
    /// deleted, unless [`Claim::is_of_another_store`].
    pub fn is_after(&self, epoch: Epoch) -> bool {
        epoch <= self.born && self.adopts != Some(epoch)
    }

    /// Whether a guest with this mark is not this grant's: others have had the VM in between. (With the mark just
    /// before the grant's nobody has.)
    pub fn is_past(&self, mark: Epoch) -> bool {
        mark.next() < self.epoch && self.adopts != Some(mark)
    }
    /// Whether a domain with this epoch belongs to an earlier VM with the same UUID which this store never had: nobody
    /// has ordered that it be deleted.
    pub fn is_of_another_store(&self, epoch: Epoch) -> bool {
        self.is_after(epoch) && epoch <= self.began
    }
    /// The next grant, to `node`.
    #[must_use]
    pub fn granted_to(&self, node: &NodeName) -> Claim {
        let from = self.from.clone().filter(|_| self.is_held_by(node));
        Claim { node: Some(node.clone()), epoch: self.epoch.next(), from, ..self.released() }
    }
    /// The next grant, to the `node` that is to have the guest. One that was sent there waits there, paused.
    #[must_use]
    pub fn handed_to(&self, node: &NodeName) -> Claim {
        Claim { resume: self.to.as_ref() == Some(node), from: self.node.clone(), ..self.granted_to(node) }
    }
    /// A grant to the `node` that the guest was being sent to, above the mark of what may have come there: that is
    /// destroyed, for the guest may have gone on at its holder after it was made, and the VM is started anew. (The mark
    /// just before a grant's is adopted, so two epochs are left out.)
    #[must_use]
    pub fn granted_above_sent(&self, node: &NodeName) -> Claim {
        let granted = Claim { epoch: self.sent().next(), ..self.released() }.granted_to(node);
        Claim { from: self.node.clone(), ..granted }
    }
    /// A grant to the `node` that the guest with that mark was taken to outside Drover. The grant says which guest it
    /// is for, so that it is not taken for an older one when it is taken on before it has the grant's mark. An epoch is
    /// left out: the mark just before a grant's would be that of a guest of an earlier record
    /// ([`Claim::adopts_of_earlier`]).
    #[must_use]
    pub fn followed_to(&self, node: &NodeName, mark: Epoch) -> Claim {
        Claim { adopts: Some(mark), ..Claim { epoch: self.epoch.next(), ..self.clone() }.granted_to(node) }
    }
    /// A grant to `node` for the guest that runs there, above its mark. As in [`Claim::followed_to`], the grant says
    /// which guest it is for, and an epoch is left out.
    #[must_use]
    pub fn granted_above(&self, mark: Epoch, node: &NodeName) -> Claim {
        let above = Claim { epoch: self.epoch.max(mark).next(), ..self.clone() };
        Claim { adopts: Some(mark), ..above.granted_to(node) }
    }
    /// The same for a guest of an earlier record, whose mark says nothing about this one's grants.
    #[must_use]
    pub fn adopting(&self, mark: Epoch, node: &NodeName) -> Claim {
        let above = Claim { epoch: self.epoch.max(mark), ..self.clone() };
        Claim { adopts: Some(mark), ..above.granted_to(node) }
    }
    /// The same grant, to that machine, in that boot.
    #[must_use]
    pub fn on(&self, machine: &str, boot: &str) -> Claim {
        Claim { machine: machine.to_owned(), boot: boot.to_owned(), ..self.clone() }
    }
    /// Released by its holder.
    #[must_use]
    pub fn released(&self) -> Claim {
        let Claim { schema, epoch, began, .. } = *self;
        Claim { schema, epoch, began, ..Claim::new(self.born) }
    }
    /// Free, for a domain with that mark, which is off: it is to be taken over, or adopted if it runs by then.
    #[must_use]
    pub fn for_domain(&self, mark: Epoch) -> Claim {
        Claim { adopts: Some(mark), ..self.clone() }
    }
    /// Whether it is for a domain that has no mark of Drover's yet.
    pub fn is_for_unmarked(&self) -> bool {
        self.adopts == Some(Mark::IMPORTED.epoch)
    }
    /// Whether nothing of the VM exists but its definition and its files: it has never run, and was not imported.
    pub fn is_fresh(&self) -> bool {
        self.never_granted() && self.adopts.is_none()
    }
    /// Same grant, whose guest is in memory with its mark, and is not paused because of its arrival.
    #[must_use]
    pub fn settled(&self) -> Claim {
        Claim { resume: false, adopts: None, from: None, ..self.clone() }
    }
    /// Taken from a holder that is proved to be off. An epoch is left out: what the holder was sending, or had sent, to
    /// another node carries the next one.
    #[must_use]
    pub fn freed(&self) -> Claim {
        Claim { epoch: self.epoch.next(), ..self.released() }
    }
    /// Same grant, whose holder is migrating the guest to a node.
    #[must_use]
    pub fn sending_to(&self, to: &NodeName) -> Claim {
        Claim { to: Some(to.clone()), ..self.clone() }
    }
    /// The mark of the guest at the node that it is being sent to. It is no earlier send's, and never a grant's unless
    /// the guest is handed over there: every end of a send is a grant with that epoch, or above it.
    pub fn sent(&self) -> Epoch {
        self.epoch.next()
    }
    /// The guest stayed here: a new grant, to the same holder, above the epoch of the send. So what that has left
    /// elsewhere is older than every grant from now on. `guest`: the mark of the guest, if it is in memory.
    #[must_use]
    pub fn called_back(&self, guest: Option<Epoch>) -> Claim {
        Claim { to: None, epoch: self.sent().next(), adopts: guest, ..self.clone() }
    }
    /// Whether a guest with this mark, which the grant adopts, was started by an earlier record of the VM.
    pub fn adopts_of_earlier(&self, mark: Epoch) -> bool {
        // The holder's own has the grant before the send's, which is before this one.
        self.adopts == Some(mark) && (mark <= self.born || mark.next() == self.epoch)
    }
    /// Whether `node` holds it.
    pub fn is_held_by(&self, node: &NodeName) -> bool {
        self.node.as_ref() == Some(node)
    }
}

/// `/vms/<uuid>/arrival`: the answer of the target of a move. Only the target allocates its own resources, so that
/// concurrent moves cannot overcommit it. Nothing is sent to it before it has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The target.
    pub node: NodeName,
    /// The version of the VM's record that is answered.
    pub of: Version,
    /// Why the move is refused; `None`: accepted, there are enough resources and everything that the VM needs.
    pub refused: Option<String>,
}

/// `/names/vms/<name>`: the UUID of the VM with that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameEntry(pub Uuid);

impl RecordKind for VmRecord {
    type Key = Uuid;
    const AT: &'static str = "/vms/*";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Requests;
    const WHOLE: &'static [&'static str] = &["state"];

    fn operation(&mut self) -> Option<&mut Option<Operation>> {
        Some(&mut self.operation)
    }

    /// Its name, its nodes and its definition: its name stays taken, and its resources are counted.
    fn salvage(uuid: &Uuid, document: &serde_json::Value) -> Option<VmRecord> {
        let text = |field: &str| document.get(field).and_then(serde_json::Value::as_str);
        let node = |field: &str| text(field).and_then(|name| NodeName::new(name).ok());
        let name = text("name").and_then(|name| VmName::new(name).ok());
        Some(VmRecord {
            schema: VM_SCHEMA,
            uuid: *uuid,
            // A UUID is a valid name.
            name: name.or_else(|| VmName::new(&uuid.to_string()).ok())?,
            state: VmState::Unreadable,
            node: node("node"),
            last_node: node("last_node"),
            xml: text("xml").unwrap_or_default().to_owned(),
            generation: Generation(0),
            description: text("description").unwrap_or_default().to_owned(),
            profile: String::new(),
            meta: VmMeta::default(),
            placed: None,
            going: None,
            older_disks: None,
            refused: Vec::new(),
            operation: None,
        })
    }
}

impl RecordKind for Claim {
    type Key = Uuid;
    const AT: &'static str = "/vms/*/claim";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Node;

    /// Its holder, and where else the guest may be, if they are given in this version's format.
    fn salvage(_: &Uuid, document: &serde_json::Value) -> Option<Claim> {
        let of = |field: &str| NodeName::new(document.get(field)?.as_str()?).ok();
        let epoch = |field: &str| Epoch(document.get(field).and_then(serde_json::Value::as_u64).unwrap_or(0));
        let text = |field: &str| document.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let (node, machine, boot) = (Some(of("node")?), text("machine"), text("boot"));
        let resume = document.get("resume").and_then(serde_json::Value::as_bool).unwrap_or(false);
        let claim = Claim { epoch: epoch("epoch"), began: epoch("began"), ..Claim::new(epoch("born")) };
        Some(Claim { node, to: of("to"), machine, boot, resume, ..claim })
    }
}

impl RecordKind for Arrival {
    type Key = Uuid;
    const AT: &'static str = "/vms/*/arrival";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Node;

    /// The answering node, for a version that does not exist: the target answers again, in this version's layout.
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

/// Resources that a definition requires, cached from its XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// The guest's memory.
    pub memory: Bytes,
    /// Virtual CPUs.
    pub vcpus: u32,
}
