//! Requests about VMs: define, change, start and stop, rename, delete.

use super::{
    Change, CommandError, Commands, Define, Defined, Modified, Modify, Result, Vm, known_node, moves,
    update::{Outcome, Shows, Write},
};
use crate::{belongings, departed, events::About, records};
use drover_model::{
    Claim, ClusterView, Definition, Epoch, NameEntry, NodeName, NodeRecord, Placed, PlacedBy, Stored, Version, VmMeta,
    VmName, VmRecord, VmState, VmStatus, domain::devices::Devices, placed::Reasons,
};
use drover_plan::{
    admit::{self, Command, Deletion},
    capacity::Ledger,
    clash::{self, Clash},
    existing,
    place::{self, Rejection, Wanted},
};
use drover_store::{Op, StoreError};
use uuid::Uuid;

/// A node's name, for the log.
pub(super) fn or_none(node: &Option<NodeName>) -> &str {
    node.as_ref().map_or("none", NodeName::as_str)
}

/// Whether the view shows this version of a VM's record or a later one.
fn shows(uuid: Uuid, version: Version) -> Shows {
    Box::new(move |view: &ClusterView| view.vms.get(&uuid).is_some_and(|vm| vm.record.version >= version))
}

/// Replaces a VM's record, if that changes anything.
pub(super) fn replaced(old: &Stored<VmRecord>, new: VmRecord, log: String) -> Result<Outcome<Change>> {
    if new == old.value {
        return Ok(Outcome::Unchanged(Change { record: new, version: old.version }));
    }
    let (uuid, version) = (new.uuid, old.version.next());
    let ops = vec![records::set_op(&uuid, old, &new)?];
    let answer = Change { record: new, version };
    Ok(Outcome::Write(Write { ops, answer, log, shows: shows(uuid, version), taken: Vec::new() }))
}

/// Refuses a request that was made for another version of the record.
fn expect(expected: Option<Version>, old: &Stored<VmRecord>) -> Result<()> {
    match expected {
        Some(expected) if expected != old.version => Err(CommandError::Conflict(format!(
            "VM {} was changed by somebody else since you read it (version {expected}, now {}); read it again and \
             repeat your change",
            old.value.name, old.version
        ))),
        _ => Ok(()),
    }
}

/// The error for a requested node that lacks what a new VM's definition names.
fn lacking(view: &ClusterView, definition: &Definition, node: &NodeName, lack: &Rejection) -> CommandError {
    let devices = Devices::read(&definition.xml);
    let fit = view.nodes.keys().filter(|other| place::has_for_new(view, other, &devices).is_ok());
    let fit: Vec<&str> = fit.map(NodeName::as_str).collect();
    let others = match fit[..] {
        [] => "no node has all that its definition names".to_owned(),
        _ => format!("these have all that its definition names: {}", fit.join(", ")),
    };
    let name = &definition.name;
    CommandError::Refused(format!("VM {name} cannot be defined on node {node}: {lack}. Add it there first; {others}"))
}

pub(super) fn clashes(name: &VmName, done: &str, clash: &Clash) -> CommandError {
    CommandError::Refused(format!(
        "VM {name} cannot be {done}: {clash}. Change one of them, or use force (--force); only one of them can run at \
         a time then"
    ))
}

fn name_taken(name: &VmName) -> CommandError {
    CommandError::Conflict(format!("a VM named {name} exists already; choose another name"))
}

impl Commands {
    /// A VM's name for messages, as far as this node knows it.
    pub(super) fn about(&self, uuid: &Uuid) -> About {
        let view = self.ctx.views.latest();
        view.vms.get(uuid).map_or_else(|| About::Vm(uuid.to_string(), *uuid), |vm| About::from(&vm.record.value))
    }

    /// Defines a VM, and chooses its node if none is named.
    pub async fn define(&self, request: Define) -> Result<Defined> {
        let definition = Definition::parse(&request.xml, Uuid::new_v4())?;
        admit::new_name(&definition.name)?;
        let view = self.view()?;
        let meta = moves::checked(&view, &request.meta, &VmMeta::default())?;
        let devices = Devices::read(&definition.xml);
        let here = existing::check_new(&view, &definition, request.node.as_ref(), request.adopt);
        let adopted = here.map_err(|refusal| CommandError::Refused(refusal.to_string()))?;
        let (node, reasons) = match request.node.or(adopted.as_ref().map(|(node, _)| node.clone())) {
            // A VM may be defined where it cannot be started now, but not where something that it needs is missing.
            Some(node) => {
                let node = moves::allowed(known_node(&view, node)?, &meta)?;
                place::has_for_new(&view, &node, &devices).map_err(|lack| lacking(&view, &definition, &node, &lack))?;
                (node, Reasons::default())
            }
            None => {
                let wanted = Wanted::new(definition.demand, &meta, &devices);
                let placement = place::choose(&view, &Ledger::of(&view), &wanted);
                let Some(node) = placement.node().cloned() else {
                    let why = placement.reasons();
                    return Err(CommandError::Refused(format!(
                        "no node can take VM {}: {why}. Make room, or name a node to define it there without starting \
                         it",
                        definition.name
                    )));
                };
                (node, placement.kept())
            }
        };
        let clash = clash::of_definition(&view, (&definition.uuid, Some(&node)), &devices, &Devices::default());
        if let Some(clash) = clash.filter(|_| !request.force) {
            return Err(clashes(&definition.name, "defined", &clash));
        }
        let unchecked = if request.no_check { None } else { self.checked(&view, &definition, Some(&node)).await? };
        let (by, at, to, how) = (PlacedBy::Define, self.ctx.wall(), node.clone(), None);
        let placed = Some(Box::new(Placed { by, at, to, how, reasons }));
        let profile = request.meta.profile.unwrap_or_default();
        if adopted.is_none() {
            existing::check_name(&view, &definition, &node)
                .map_err(|refusal| CommandError::Refused(refusal.to_string()))?;
        }
        let mut record = VmRecord { meta, profile, placed, ..admit::define(&definition, Some(node)) };
        if adopted.is_some() {
            record.state = VmState::Start;
        }
        let ctx = &self.ctx;
        let claim = |fresh: Claim| match &adopted {
            Some((node, mark)) => ctx.identified(fresh.adopting(*mark, node), node),
            None => fresh,
        };
        let now = self.add(record, claim, "defined").await?;
        Ok(Defined { now, unchecked })
    }

    /// Adds the records of a new VM. `claim`: makes its claim of that of a VM which nobody holds. `how`: for the log.
    pub(super) async fn add(&self, record: VmRecord, claim: impl Fn(Claim) -> Claim, how: &str) -> Result<Change> {
        let uuid = record.uuid;
        let (record, claim) = (&record, &claim);
        let record = self
            .update(About::from(record), || async move {
                let departed = departed::Now::read(&*self.ctx.store).await?;
                let fresh = departed.value().claim();
                let claim = claim(fresh.clone());
                let mut ops = self.new_vm(record, fresh.epoch, &claim)?;
                let exists = CommandError::Conflict(format!(
                    "a VM with UUID {uuid} exists already; give this one a UUID of its own, or leave <uuid> out"
                ));
                let taken = vec![(0..1, name_taken(&record.name)), (1..ops.len(), exists)];
                // It is refused if VMs were deleted meanwhile, or its node was removed.
                ops.push(departed.admit(record)?);
                if let Some(node) = &record.node {
                    let known = records::read::<NodeRecord>(&*self.ctx.store, node).await?;
                    let gone = || CommandError::NotFound(format!("node {node} was removed meanwhile; choose another"));
                    let known = known.ok_or_else(gone)?;
                    ops.push(if claim.adopts.is_some() {
                        // The guest is there, and nobody can give it away when the node is removed. So a removal that
                        // was decided before is a conflict.
                        records::set_op(node, &known, &known.value)?
                    } else {
                        records::check_op::<NodeRecord>(node, known.version)
                    });
                }
                let log = format!("{how} on {} with UUID {uuid}", or_none(&record.node));
                Ok(Outcome::Write(Write { ops, answer: record.clone(), log, shows: shows(uuid, Version::NEW), taken }))
            })
            .await?;
        Ok(Change { record, version: Version::NEW })
    }

    /// The four records of a new VM; `fresh` is the epoch before its first grant. The name comes first, so that the
    /// index of a refusal tells what is taken.
    fn new_vm(&self, record: &VmRecord, fresh: Epoch, claim: &Claim) -> std::result::Result<Vec<Op>, StoreError> {
        let node = record.node.clone().unwrap_or_else(|| self.ctx.me().clone());
        let status = VmStatus::new(node, fresh, self.ctx.wall());
        Ok(vec![
            records::create_op(&record.name, &NameEntry(record.uuid))?,
            records::create_op(&record.uuid, record)?,
            records::create_op(&record.uuid, claim)?,
            records::create_op(&record.uuid, &status)?,
        ])
    }

    /// Changes a VM's wanted state.
    pub async fn set_state(&self, uuid: Uuid, command: Command) -> Result<Change> {
        self.update(self.about(&uuid), || async move {
            let vm = self.read(&uuid).await?;
            let new = admit::command(&vm.record.value, &vm.guest(), command)?;
            let old = vm.record;
            if let Some(Clash { what, with }) = clash::of_order(&*self.view()?, &old.value, &new.state) {
                let name = &old.value.name;
                return Err(CommandError::Refused(format!(
                    "VM {name} cannot be started: VM {with}, which runs or is to run, has {what} too. Stop that one \
                     first, or change one of them"
                )));
            }
            let log = format!("its wanted state is {} (was {})", new.state, old.value.state);
            replaced(&old, new, log)
        })
        .await
    }

    /// Changes a VM's definition.
    pub async fn modify(&self, uuid: Uuid, request: Modify) -> Result<Modified> {
        let definition = &Definition::parse(&request.xml, uuid)?;
        let request = &request;
        self.update(self.about(&uuid), || async move {
            let vm = self.read(&uuid).await?;
            expect(request.expected, &vm.record)?;
            let new = admit::modify(&vm.record.value, &vm.guest(), definition, request.restart)?;
            let old = vm.record;
            let before = old.value.xml.clone();
            let on = (&old.value.uuid, old.value.node.as_ref());
            let (was, is) = (Devices::read(&old.value.xml), Devices::read(&new.xml));
            let clash = clash::of_definition(&*self.view()?, on, &is, &was);
            if let Some(clash) = clash.filter(|_| !request.force) {
                return Err(clashes(&old.value.name, "changed so", &clash));
            }
            let unchecked = if request.no_check || new.xml == before {
                None
            } else {
                self.checked(&*self.view()?, definition, new.node.as_ref()).await?
            };
            if request.dry_run {
                let now = Change { record: new, version: old.version };
                return Ok(Outcome::Unchanged(Modified { before, now, unchecked }));
            }
            let log = format!("has definition {} (restart: {})", new.generation.0, request.restart);
            let names = (new.xml != before).then(|| new.clone());
            Ok(match replaced(&old, new, log)? {
                Outcome::Unchanged(now) => Outcome::Unchanged(Modified { before, now, unchecked }),
                Outcome::Write(Write { mut ops, answer: now, log, shows, taken }) => {
                    if let Some(new) = names {
                        ops.push(departed::Now::read(&*self.ctx.store).await?.admit(&new)?);
                    }
                    let answer = Modified { before, now, unchecked };
                    Outcome::Write(Write { ops, answer, log, shows, taken })
                }
            })
        })
        .await
    }

    /// Renames a VM that is off.
    pub async fn rename(&self, uuid: Uuid, name: VmName, expected: Option<Version>) -> Result<Change> {
        let name = &name;
        self.update(self.about(&uuid), || async move {
            let Vm { record: old, claim, .. } = self.read(&uuid).await?;
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
            let log = format!("is named {name} (was {})", old.value.name);
            let answer = Change { record, version };
            let taken = vec![(0..1, name_taken(name))];
            Ok(Outcome::Write(Write { ops, answer, log, shows: shows(uuid, version), taken }))
        })
        .await
    }

    /// Deletes a VM, with or without the disks that Drover manages. `None`: it is gone. Otherwise its node is deleting
    /// it.
    pub async fn delete(&self, uuid: Uuid, disks: bool) -> Result<Option<Change>> {
        self.update(self.about(&uuid), || async move {
            let Vm { record, claim, .. } = self.read(&uuid).await?;
            match admit::delete(&record.value, &claim.value, disks)? {
                Deletion::ByNode(new) => {
                    Ok(match replaced(&record, new, format!("is being deleted (disks: {disks})"))? {
                        Outcome::Unchanged(change) => Outcome::Unchanged(Some(change)),
                        Outcome::Write(Write { mut ops, answer, log, shows, taken }) => {
                            if disks {
                                ops.push(departed::Now::read(&*self.ctx.store).await?.order(uuid)?);
                            }
                            Outcome::Write(Write { ops, answer: Some(answer), log, shows, taken })
                        }
                    })
                }
                Deletion::Now => {
                    let ops = belongings::of_vm(&*self.ctx.store, &record, &claim).await?;
                    let shows: Shows = Box::new(move |view: &ClusterView| !view.vms.contains_key(&uuid));
                    Ok(Outcome::Write(Write { ops, answer: None, log: "deleted".to_owned(), shows, taken: Vec::new() }))
                }
            }
        })
        .await
    }
}
