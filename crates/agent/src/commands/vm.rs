//! Requests about VMs: their definitions, their wanted states, their names, their end.

use super::{
    Change, CommandError, Commands, Define, Modified, Modify, Result, Vm, known_node, moves,
    update::{Outcome, Shows, Write},
};
use crate::{belongings, records};
use drover_model::{
    Claim, ClusterView, Definition, NameEntry, NodeName, Stored, Version, VmMeta, VmName, VmRecord, VmStatus,
    domain::devices::Devices,
    vm::{Epoch, VM_SCHEMA},
};
use drover_plan::{
    admit::{self, Command, Deletion},
    capacity::Ledger,
    place::{self, Wanted},
};
use drover_store::{Op, StoreError};
use uuid::Uuid;

/// A node's name, for the log.
pub(super) fn or_none(node: &Option<NodeName>) -> &str {
    node.as_ref().map_or("none", NodeName::as_str)
}

/// When the view shows a VM's record of that version or a later one, or that it is gone since.
fn shows(uuid: Uuid, version: Version) -> Shows {
    Box::new(move |view: &ClusterView| view.vms.get(&uuid).is_some_and(|vm| vm.record.version >= version))
}

/// A VM's record is replaced, if that changes anything.
pub(super) fn replaced(old: &Stored<VmRecord>, new: VmRecord, said: String) -> Result<Outcome<Change>> {
    if new == old.value {
        return Ok(Outcome::Unchanged(Change { record: new, version: old.version }));
    }
    let (uuid, version) = (new.uuid, old.version.next());
    let ops = vec![records::set_op(&uuid, old, &new)?];
    let answer = Change { record: new, version };
    Ok(Outcome::Write(Write { ops, answer, said, shows: shows(uuid, version), taken: None }))
}

/// Refuses a request that was made for another version of the record.
fn expect(expected: Option<Version>, old: &Stored<VmRecord>) -> Result<()> {
    match expected {
        Some(expected) if expected != old.version => Err(CommandError::Conflict(format!(
            "VM {} was changed by somebody else since you read it (version {expected}, now {}); read it again and repeat your change",
            old.value.name, old.version
        ))),
        _ => Ok(()),
    }
}

fn name_taken(name: &VmName) -> CommandError {
    CommandError::Conflict(format!("a VM named {name} exists already; choose another name"))
}

impl Commands {
    /// What a VM is called in messages, as far as this node knows.
    pub(super) fn vm_name(&self, uuid: &Uuid) -> String {
        let view = self.ctx.views.latest();
        view.vms.get(uuid).map_or_else(|| format!("VM {uuid}"), |vm| format!("VM {}", vm.record.value.name))
    }

    /// Defines a VM, and chooses its node if none is named.
    pub async fn define(&self, request: Define) -> Result<Change> {
        let definition = Definition::parse(&request.xml, Uuid::new_v4())?;
        let view = self.view()?;
        let meta = moves::checked(&view, &request.meta, &VmMeta::default())?;
        let node = match request.node {
            // It may be defined where it cannot be started.
            Some(node) => Some(moves::allowed(known_node(&view, node)?, &meta)?),
            None => {
                let devices = Devices::read(&definition.xml);
                let wanted = Wanted::new(definition.demand, &meta, &devices);
                let placement = place::choose(&view, &Ledger::of(&view), &wanted);
                let Some(node) = placement.node().cloned() else {
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
        match self.ctx.store.multi(self.new_vm(&record)?).await {
            Ok(()) => {
                tracing::info!(%uuid, node = or_none(&record.node), "VM {name}: defined");
                self.shown(shows(uuid, Version::NEW)).await;
                Ok(Change { record, version: Version::NEW })
            }
            Err(StoreError::Refused { index: 0, .. }) => Err(name_taken(&name)),
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
            records::create_op(&record.name, &NameEntry(record.uuid))?,
            records::create_op(&record.uuid, record)?,
            records::create_op(&record.uuid, &Claim::never())?,
            records::create_op(&record.uuid, &status)?,
        ])
    }

    /// Changes what is wanted of a VM.
    pub async fn set_state(&self, uuid: Uuid, command: Command) -> Result<Change> {
        self.update(&self.vm_name(&uuid), || async move {
            let old = self.read(&uuid).await?.record;
            let new = admit::command(&old.value, command)?;
            let said = format!("its wanted state is {} (was {})", new.state, old.value.state);
            replaced(&old, new, said)
        })
        .await
    }

    /// Gives a VM a new definition.
    pub async fn modify(&self, uuid: Uuid, request: Modify) -> Result<Modified> {
        let definition = &Definition::parse(&request.xml, uuid)?;
        let request = &request;
        self.update(&self.vm_name(&uuid), || async move {
            let old = self.read(&uuid).await?.record;
            expect(request.expected, &old)?;
            let new = admit::modify(&old.value, definition, request.restart)?;
            let before = old.value.xml.clone();
            if request.dry_run {
                return Ok(Outcome::Unchanged(Modified { before, now: Change { record: new, version: old.version } }));
            }
            let said = format!("has definition {} (restart: {})", new.generation.0, request.restart);
            Ok(match replaced(&old, new, said)? {
                Outcome::Unchanged(now) => Outcome::Unchanged(Modified { before, now }),
                Outcome::Write(Write { ops, answer: now, said, shows, taken }) => {
                    Outcome::Write(Write { ops, answer: Modified { before, now }, said, shows, taken })
                }
            })
        })
        .await
    }

    /// Gives a VM that is off a new name.
    pub async fn rename(&self, uuid: Uuid, name: VmName, expected: Option<Version>) -> Result<Change> {
        let name = &name;
        self.update(&self.vm_name(&uuid), || async move {
            let Vm { record: old, claim } = self.read(&uuid).await?;
            expect(expected, &old)?;
            if old.value.name == *name {
                return Ok(Outcome::Unchanged(Change { record: old.value, version: old.version }));
            }
            let renamed = Definition::parse(&old.value.xml, uuid)?.renamed(name)?;
            let record = admit::rename(&old.value, &claim.value, &renamed)?;
            let ops = vec![
                records::create_op(name, &NameEntry(uuid))?,
                records::check_op::<Claim>(&uuid, claim.version),
                records::delete_op::<NameEntry>(&old.value.name, None),
                records::set_op(&uuid, &old, &record)?,
            ];
            let version = old.version.next();
            let said = format!("is named {name} (was {})", old.value.name);
            let answer = Change { record, version };
            let taken = Some((0, name_taken(name)));
            Ok(Outcome::Write(Write { ops, answer, said, shows: shows(uuid, version), taken }))
        })
        .await
    }

    /// Deletes a VM, with the disks that are Drover's own or without. `None`: it is gone. Otherwise its node does it
    /// now.
    pub async fn delete(&self, uuid: Uuid, disks: bool) -> Result<Option<Change>> {
        self.update(&self.vm_name(&uuid), || async move {
            let Vm { record, claim } = self.read(&uuid).await?;
            match admit::delete(&record.value, &claim.value, disks)? {
                Deletion::ByNode(new) => {
                    Ok(match replaced(&record, new, format!("is being deleted (disks: {disks})"))? {
                        Outcome::Unchanged(change) => Outcome::Unchanged(Some(change)),
                        Outcome::Write(Write { ops, answer, said, shows, taken }) => {
                            Outcome::Write(Write { ops, answer: Some(answer), said, shows, taken })
                        }
                    })
                }
                Deletion::Now => {
                    let ops = belongings::of_vm(&*self.ctx.store, &record, &claim).await?;
                    let shows: Shows = Box::new(move |view: &ClusterView| !view.vms.contains_key(&uuid));
                    Ok(Outcome::Write(Write { ops, answer: None, said: "deleted".to_owned(), shows, taken: None }))
                }
            }
        })
        .await
    }
}
