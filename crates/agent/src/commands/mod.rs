//! The requests of administrators: read, ask plan whether it is allowed, compare-and-set.
//!
//! Each request reads the records afresh, so that it never decides on a stale view; where somebody else was quicker it decides again on what
//! that one wrote, except where the request names the version that it is meant for: then the answer is a conflict.

mod config;
mod node;
mod token;
mod vm;

pub use config::{ConfigChange, DEADLINE_MAX_S, LIMIT_MAX};

use crate::{arrivals, context::Context, faults, records};
use drover_model::{
    BadName, Claim, ClusterView, Definition, MetaChange, NodeName, Stored, VmMeta, VmName, VmRecord, VmStatus,
    domain::{BadXml, devices::Devices},
    layout,
    vm::{Epoch, VM_SCHEMA},
};
use drover_plan::{
    admit::{self, Command, Deletion, Refusal},
    capacity::Ledger,
    place::{self, Wanted},
};
use drover_store::{Op, StoreError, Version};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// How often a request is decided anew because somebody else was quicker. More means that something is badly wrong.
const TRIES: usize = 10;

/// How long an answer waits for the view to show what it tells.
const SHOW: Duration = Duration::from_secs(2);

/// Why a request was not done. Nothing was changed, except where [`CommandError::Unavailable`] says that this is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// What was given cannot be accepted.
    #[error("{message}")]
    Invalid {
        /// The parameter.
        field: &'static str,
        /// What it was, cut to a printable length.
        given: String,
        /// The whole story: what was given, why not, what is accepted.
        message: String,
    },
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Not now, or not in this state.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed it meanwhile, or has the name.
    #[error("{0}")]
    Conflict(String),
    /// The store gave no definite answer.
    #[error("{0}")]
    Unavailable(String),
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        match error {
            StoreError::Unknown { .. } => CommandError::Unavailable(format!(
                "the cluster's store gave no definite answer ({error}); look whether it was done before trying again"
            )),
            StoreError::Closed => CommandError::Unavailable("this node's daemon is stopping".to_owned()),
            StoreError::TooLarge { .. } => CommandError::Refused(error.to_string()),
            error => CommandError::Unavailable(format!("the cluster's store: {error}")),
        }
    }
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> CommandError {
        let message = refusal.to_string();
        match refusal {
            Refusal::Timeout(given) => CommandError::Invalid { field: "timeout", given: given.to_string(), message },
            Refusal::Identity { given, .. } => CommandError::Invalid { field: "xml", given, message },
            _ => CommandError::Refused(message),
        }
    }
}

impl From<BadXml> for CommandError {
    fn from(error: BadXml) -> CommandError {
        let given = match &error {
            BadXml::Value { value, .. } => value.clone(),
            BadXml::Name(BadName { given, .. }) => given.clone(),
            _ => String::new(),
        };
        CommandError::Invalid { field: "xml", given, message: error.to_string() }
    }
}

type Result<T> = std::result::Result<T, CommandError>;

/// A new VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Define {
    /// The libvirt domain XML.
    pub xml: String,
    /// Its node; `None`: one is chosen.
    pub node: Option<NodeName>,
    /// What is said of it beside its definition.
    pub meta: MetaChange,
}

/// A new definition of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modify {
    /// The libvirt domain XML.
    pub xml: String,
    /// The version of the VM's record that was read before; `None`: whatever it is now.
    pub expected: Option<i64>,
    /// Restart a running VM, so that it takes the definition up at once.
    pub restart: bool,
    /// Only say what would change.
    pub dry_run: bool,
}

/// A VM as a request left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its record.
    pub record: VmRecord,
    /// The record's version.
    pub version: i64,
}

/// What a new definition changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modified {
    /// The definition before.
    pub before: String,
    /// The VM now.
    pub now: Change,
}

/// The requests. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    ctx: Arc<Context>,
}

/// The records that decisions about a VM are made on.
struct Vm {
    record: Stored<VmRecord>,
    claim: Stored<Claim>,
}

impl Commands {
    pub(crate) fn new(ctx: Arc<Context>) -> Commands {
        Commands { ctx }
    }

    /// Waits until this node's view shows what was just written, so that whoever asks this node next sees it. Not for long: it is written
    /// in any case.
    async fn shown(&self, shows: impl FnMut(&Arc<ClusterView>) -> bool) {
        let mut views = self.ctx.views.subscribe();
        if timeout(SHOW, views.wait_for(shows)).await.is_err() {
            tracing::debug!("the view does not show a change yet");
        }
    }

    /// The same for a VM's record.
    async fn shown_vm(&self, change: &Change) {
        let (uuid, version) = (change.record.uuid, change.version);
        self.shown(|view| view.vms.get(&uuid).is_some_and(|vm| vm.record.version >= version)).await;
    }

    /// The view, if there is one yet.
    fn view(&self) -> Result<Arc<ClusterView>> {
        if !self.ctx.views.freshness().borrow().is_loaded() {
            let why = "this node has not read the cluster's records yet; try again in a moment";
            return Err(CommandError::Unavailable(why.to_owned()));
        }
        Ok(self.ctx.views.latest())
    }

    async fn read(&self, uuid: &Uuid) -> Result<Vm> {
        let store = &*self.ctx.store;
        let (record, claim) = (layout::vm(uuid), layout::vm_claim(uuid));
        let (record, claim) = tokio::join!(records::read(store, &record), records::read(store, &claim));
        let gone = || CommandError::NotFound(format!("there is no VM with UUID {uuid}"));
        Ok(Vm { record: record?.ok_or_else(gone)?, claim: claim?.ok_or_else(gone)? })
    }

    /// Sets a VM's record, if it is still the one that was read.
    async fn write(&self, old: &Stored<VmRecord>, new: VmRecord) -> std::result::Result<Change, StoreError> {
        if new == old.value {
            return Ok(Change { record: new, version: old.version });
        }
        let path = layout::vm(&new.uuid);
        let version = self.ctx.store.set(&path, records::encode(&new)?, Version(old.version)).await?;
        Ok(Change { record: new, version: version.0 })
    }

    /// Defines a VM, and chooses its node if none is named.
    pub async fn define(&self, request: Define) -> Result<Change> {
        let definition = Definition::parse(&request.xml, Uuid::new_v4())?;
        let view = self.view()?;
        let meta = vm::checked(&view, &request.meta, &VmMeta::default())?;
        let node = match request.node {
            Some(node) => Some(vm::allowed(known_node(&view, node)?, &meta)?),
            None => {
                let devices = Devices::read(&definition.xml);
                let wanted =
                    Wanted { demand: definition.demand, meta: &meta, devices: &devices, from: None, live: false };
                let placement = place::choose(&view, &Ledger::of(&view), &wanted);
                let Some(node) = placement.node.clone() else {
                    let why = placement.reasons();
                    return Err(CommandError::Refused(format!(
                        "no node can take VM {}: {why}. Make room, or name a node to define it there without starting it",
                        definition.name
                    )));
                };
                Some(node)
            }
        };
        let profile = request.meta.profile.unwrap_or_default();
        let record = VmRecord { meta, profile, ..admit::define(&definition, node) };
        let (uuid, name) = (record.uuid, record.name.clone());
        let ops = self.new_vm(&record)?;
        match self.ctx.store.multi(ops).await {
            Ok(()) => {
                tracing::info!(vm = %name, uuid = %uuid, node = ?record.node, "defined a VM");
                let change = Change { record, version: 0 };
                self.shown_vm(&change).await;
                Ok(change)
            }
            Err(StoreError::Refused { index: 0, .. }) => {
                Err(CommandError::Conflict(format!("a VM named {name} exists already; choose another name")))
            }
            Err(StoreError::Refused { .. }) => Err(CommandError::Conflict(format!(
                "a VM with UUID {uuid} exists already; give this one a UUID of its own, or leave <uuid> out"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// The four records of a new VM; the name comes first, so that a refusal tells what is taken.
    fn new_vm(&self, record: &VmRecord) -> std::result::Result<Vec<Op>, StoreError> {
        let status = VmStatus {
            schema: VM_SCHEMA,
            node: record.node.clone().unwrap_or_else(|| self.ctx.me().clone()),
            epoch: Epoch(0),
            run: None,
            unknown: false,
            doing: String::new(),
            generation: None,
            crashes: 0,
            since: self.ctx.wall(),
            console: false,
            vnc: None,
            progress: None,
            move_failure: None,
        };
        Ok(vec![
            records::create_op(layout::vm_name(&record.name), &record.uuid)?,
            records::create_op(layout::vm(&record.uuid), record)?,
            records::create_op(layout::vm_claim(&record.uuid), &Claim::never())?,
            records::create_op(layout::vm_status(&record.uuid), &status)?,
        ])
    }

    /// Changes what is wanted of a VM.
    pub async fn set_state(&self, uuid: Uuid, command: Command) -> Result<Change> {
        for _ in 0..TRIES {
            let vm = self.read(&uuid).await?;
            let new = admit::command(&vm.record.value, command)?;
            match self.write(&vm.record, new).await {
                Err(error) if error.is_conflict() => continue,
                Ok(change) => {
                    tracing::info!(vm = %change.record.name, from = %vm.record.value.state, to = %change.record.state, "a VM's wanted state");
                    self.shown_vm(&change).await;
                    return Ok(change);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy(&uuid))
    }

    /// Gives a VM a new definition.
    pub async fn modify(&self, uuid: Uuid, request: Modify) -> Result<Modified> {
        let definition = Definition::parse(&request.xml, uuid)?;
        for _ in 0..TRIES {
            let vm = self.read(&uuid).await?;
            let old = &vm.record;
            if let Some(expected) = request.expected
                && expected != old.version
            {
                return Err(CommandError::Conflict(format!(
                    "VM {} was changed by somebody else since you read it (version {expected}, now {}); read it again and repeat your change",
                    old.value.name, old.version
                )));
            }
            let new = admit::modify(&old.value, &definition, request.restart)?;
            let before = old.value.xml.clone();
            if request.dry_run {
                return Ok(Modified { before, now: Change { record: new, version: old.version } });
            }
            match self.write(old, new).await {
                Err(error) if error.is_conflict() => continue,
                Ok(now) => {
                    tracing::info!(vm = %now.record.name, generation = now.record.generation.0, restart = request.restart, "a VM has a new definition");
                    self.shown_vm(&now).await;
                    return Ok(Modified { before, now });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy(&uuid))
    }

    /// Gives a VM that is off a new name.
    pub async fn rename(&self, uuid: Uuid, name: VmName, expected: Option<i64>) -> Result<Change> {
        for _ in 0..TRIES {
            let Vm { record: old, claim } = self.read(&uuid).await?;
            if expected.is_some_and(|expected| expected != old.version) {
                return Err(CommandError::Conflict(format!(
                    "VM {} was changed by somebody else since you read it; read it again and repeat your change",
                    old.value.name
                )));
            }
            if old.value.name == name {
                return Ok(Change { record: old.value, version: old.version });
            }
            let renamed = Definition::parse(&old.value.xml, uuid)?.renamed(&name)?;
            let record = admit::rename(&old.value, &claim.value, &renamed)?;
            let ops = vec![
                records::create_op(layout::vm_name(&name), &uuid)?,
                Op::Check(layout::vm_claim(&uuid), Version(claim.version)),
                Op::Delete(layout::vm_name(&old.value.name), None),
                records::set_op(layout::vm(&uuid), &record, old.version)?,
            ];
            match self.ctx.store.multi(ops).await {
                Ok(()) => {
                    tracing::info!(vm = %name, was = %old.value.name, "renamed a VM");
                    let change = Change { record, version: old.version + 1 };
                    self.shown_vm(&change).await;
                    return Ok(change);
                }
                Err(StoreError::Refused { index: 0, .. }) => {
                    return Err(CommandError::Conflict(format!(
                        "a VM named {name} exists already; choose another name"
                    )));
                }
                Err(error) if error.is_conflict() => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy(&uuid))
    }

    /// Deletes a VM, with the disks that are Drover's own or without. `None`: it is gone. Otherwise its node does it now.
    pub async fn delete(&self, uuid: Uuid, disks: bool) -> Result<Option<Change>> {
        for _ in 0..TRIES {
            let Vm { record, claim } = self.read(&uuid).await?;
            let outcome = match admit::delete(&record.value, &claim.value, disks)? {
                Deletion::ByNode(new) => self.write(&record, new).await.map(Some),
                Deletion::Now => {
                    let mut ops = vec![
                        Op::Delete(layout::vm_claim(&uuid), Some(Version(claim.version))),
                        Op::Delete(layout::vm_status(&uuid), None),
                        Op::Delete(layout::vm_name(&record.value.name), None),
                        Op::Delete(layout::vm(&uuid), Some(Version(record.version))),
                    ];
                    ops.extend(faults::removal(&*self.ctx.store, &uuid).await?);
                    if let Some(answer) = arrivals::removal(&*self.ctx.store, &uuid).await? {
                        ops.insert(0, answer);
                    }
                    self.ctx.store.multi(ops).await.map(|()| None)
                }
            };
            match outcome {
                Ok(change) => {
                    tracing::info!(vm = %record.value.name, disks, now = change.is_none(), "deleting a VM");
                    match &change {
                        Some(change) => self.shown_vm(change).await,
                        None => self.shown(|view| !view.vms.contains_key(&uuid)).await,
                    }
                    return Ok(change);
                }
                Err(error) if error.is_conflict() => continue,
                Err(error) => return Err(error.into()),
            }
        }
        Err(too_busy(&uuid))
    }
}

fn too_busy(uuid: &Uuid) -> CommandError {
    CommandError::Conflict(format!("VM {uuid} is being changed by others all the time; try again"))
}

fn known_node(view: &ClusterView, node: NodeName) -> Result<NodeName> {
    if view.nodes.contains_key(&node) {
        return Ok(node);
    }
    let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
    Err(CommandError::Invalid {
        field: "node",
        given: node.to_string(),
        message: format!("node: there is no node {node}; accepted are {}", known.join(", ")),
    })
}
