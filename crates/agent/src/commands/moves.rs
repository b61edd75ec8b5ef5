//! Requests that move VMs or change their metadata.

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

/// Applies a change to metadata, and checks the result against the cluster.
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

/// Checks that a new VM's own limit allows the node.
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
    /// Moves a VM to another node: for a while, for good, or home.
    pub async fn relocate(&self, uuid: Uuid, request: &moves::Request) -> Result<Change> {
        self.change_vm(uuid, |view, vm| Ok(moves::relocate(view, vm, request, self.ctx.wall())?)).await
    }

    /// Changes a VM's metadata.
    pub async fn set_meta(&self, uuid: Uuid, change: &MetaChange) -> Result<Change> {
        self.change_vm(uuid, |view, vm| {
            let record = vm.record.value.clone();
            let meta = checked(view, change, &record.meta)?;
            let profile = change.profile.clone().unwrap_or_else(|| record.profile.clone());
            Ok(VmRecord { meta, profile, ..record })
        })
        .await
    }

    /// The node that a VM would be placed on if it were moved now, and why.
    pub fn explain(&self, vm: &VmView) -> Placement {
        let view = self.ctx.views.latest();
        place::choose(&view, &Ledger::of(&view), &Wanted::moved(vm))
    }

    /// Decides on a VM's current records and the view of the cluster, and replaces its record with the result.
    async fn change_vm(
        &self,
        uuid: Uuid,
        decide: impl Fn(&ClusterView, &VmView) -> Result<VmRecord>,
    ) -> Result<Change> {
        let decide = &decide;
        self.update(self.about(&uuid), || async move {
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
            let log = format!(
                "changed, in state {} on {} (was {} on {})",
                new.state,
                vm::or_none(&new.node),
                read.record.value.state,
                vm::or_none(&read.record.value.node)
            );
            let mut outcome = vm::replaced(&read.record, new, log)?;
            if let Outcome::Write(write) = &mut outcome
                && given_away
            {
                // The claim must not have been taken meanwhile.
                write.ops.push(records::check_op::<Claim>(&uuid, read.claim.version));
            }
            Ok(outcome)
        })
        .await
    }
}
