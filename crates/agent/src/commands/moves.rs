//! Requests that move VMs, and those about their metadata.

use super::{Change, CommandError, Commands, Result, update::Outcome, vm};
use crate::records;
use drover_model::{BadMeta, Claim, ClusterView, MetaChange, NodeName, VmMeta, VmRecord, VmView};
use drover_plan::{
    capacity::Ledger,
    moves,
    place::{self, Placement, Wanted},
};
use uuid::Uuid;

impl From<BadMeta> for CommandError {
    fn from(bad: BadMeta) -> CommandError {
        CommandError::Invalid { field: bad.field, given: bad.given.clone(), message: bad.to_string() }
    }
}

impl From<moves::Refusal> for CommandError {
    fn from(refusal: moves::Refusal) -> CommandError {
        let message = refusal.to_string();
        match refusal {
            moves::Refusal::NoSuchNode { given, .. } => {
                CommandError::Invalid { field: "node", given: given.to_string(), message: format!("node: {message}") }
            }
            _ => CommandError::Refused(message),
        }
    }
}

/// Metadata after a change, checked against the cluster too.
pub(super) fn checked(view: &ClusterView, change: &MetaChange, meta: &VmMeta) -> Result<VmMeta> {
    let next = change.apply(meta)?;
    let unknown = change.node_limit.iter().flatten().find(|node| !view.nodes.contains_key(*node));
    match unknown {
        Some(node) => {
            let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
            Err(CommandError::Invalid {
                field: "limit",
                given: node.to_string(),
                message: format!("limit: there is no node {node}; accepted are {}", known.join(", ")),
            })
        }
        None => Ok(next),
    }
}

/// A node that a new VM's own limit allows.
pub(super) fn allowed(node: NodeName, meta: &VmMeta) -> Result<NodeName> {
    if meta.allows(&node) {
        return Ok(node);
    }
    let limit: Vec<&str> = meta.node_limit.iter().map(NodeName::as_str).collect();
    Err(CommandError::Invalid {
        field: "node",
        given: node.to_string(),
        message: format!("node: the VM is limited to {}, so it cannot be on {node}", limit.join(", ")),
    })
}

impl Commands {
    /// Brings a VM to another node: for a while, for good, or home.
    pub async fn relocate(&self, uuid: Uuid, request: &moves::Request) -> Result<Change> {
        self.change_vm(uuid, |view, vm| Ok(moves::relocate(view, vm, request)?)).await
    }

    /// Changes what is said of a VM beside its definition.
    pub async fn set_meta(&self, uuid: Uuid, change: &MetaChange) -> Result<Change> {
        self.change_vm(uuid, |view, vm| {
            let record = vm.record.value.clone();
            let meta = checked(view, change, &record.meta)?;
            let profile = change.profile.clone().unwrap_or_else(|| record.profile.clone());
            Ok(VmRecord { meta, profile, ..record })
        })
        .await
    }

    /// Where a VM would go if it were moved now, and why.
    pub fn explain(&self, vm: &VmView) -> Placement {
        let view = self.ctx.views.latest();
        place::choose(&view, &Ledger::of(&view), &Wanted::moved(vm))
    }

    /// Decides on a VM's records as they are now, within the cluster as the view has it, and writes what its record
    /// becomes.
    async fn change_vm(
        &self,
        uuid: Uuid,
        decide: impl Fn(&ClusterView, &VmView) -> Result<VmRecord>,
    ) -> Result<Change> {
        let decide = &decide;
        self.update(&self.vm_name(&uuid), || async move {
            let read = self.read(&uuid).await?;
            let view = self.view()?;
            let Some(shown) = view.vms.get(&uuid) else {
                return Err(CommandError::Unavailable(
                    "this node does not see the VM yet; try again in a moment".to_owned(),
                ));
            };
            let now = VmView {
                claim: Some(read.claim.clone().into()),
                status: shown.status.clone(),
                arrival: shown.arrival.clone(),
                ..VmView::of(read.record.clone())
            };
            let new = decide(&view, &now)?;
            let given_away = new.node != read.record.value.node;
            let said = format!(
                "changed, in state {} on {} (was {} on {})",
                new.state,
                vm::or_none(&new.node),
                read.record.value.state,
                vm::or_none(&read.record.value.node)
            );
            let mut outcome = vm::replaced(&read.record, new, said)?;
            if let Outcome::Write(write) = &mut outcome
                && given_away
            {
                // Nobody may have taken the claim meanwhile.
                write.ops.push(records::check_op::<Claim>(&uuid, read.claim.version));
            }
            Ok(outcome)
        })
        .await
    }
}
