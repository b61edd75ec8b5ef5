//! Acceptance of incoming moves, decided by the target alone and one after the other, so that it never promises more
//! than it has, however many sources ask at the same time.

use crate::{
    capacity::{HOST_RESERVE, OVERHEAD},
    moves::{
        sender,
        target::{self, Unfit},
    },
    place::Rejection,
};
use drover_model::{Bytes, ClusterView, NodeName, Version, VmState, VmView};
use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};
use uuid::Uuid;

/// The target's answer to one incoming move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The VM.
    pub uuid: Uuid,
    /// The version of its record that is answered.
    pub of: Version,
    /// Why it is refused; `None`: it is accepted.
    pub refused: Option<String>,
}

/// Whether a VM is on its way to a node, accepted by it: it is, or will be, in its memory.
fn is_coming(vm: &VmView, me: &NodeName, granted: &BTreeSet<Uuid>) -> bool {
    let said = vm.arrival.as_ref().map(|a| &a.value).is_some_and(|a| a.node == *me && a.refused.is_none());
    let wanted = vm.record.value.state.destination() == Some(me);
    is_sent(vm, me) || (wanted && (said || granted.contains(&vm.record.value.uuid)))
}

/// Whether it is being sent to the node, or was: it may be there.
fn is_sent(vm: &VmView, me: &NodeName) -> bool {
    vm.sent_to() == Some(me)
}

/// Whether a VM is already on a node: in its memory, or about to be started there.
fn is_here(vm: &VmView, me: &NodeName) -> bool {
    let record = &vm.record.value;
    vm.is_held_by(me) || (record.node.as_ref() == Some(me) && record.state.occupies_node())
}

/// Whether a node holds it that has to let go of it first: until then the move counts against the limit. A VM that
/// nobody holds is only started here, which is no more than the start of any other.
fn is_brought(vm: &VmView, me: &NodeName) -> bool {
    !vm.is_free() && !vm.is_held_by(me)
}

/// The node's answers to moves that it has not answered yet. `granted`: VMs that it accepted and whose records may not
/// be in the view yet.
pub fn answers(view: &ClusterView, me: &NodeName, granted: &BTreeSet<Uuid>) -> Vec<Answer> {
    let (mut used, mut coming) = (Bytes(0), 0);
    let mut asked: Vec<&Arc<VmView>> = Vec::new();
    for vm in view.vms_of(me) {
        let (here, comes) = (is_here(vm, me), is_coming(vm, me, granted));
        if here || comes {
            used = used.saturating_add(vm.demand.memory).saturating_add(OVERHEAD);
        }
        // One whose holder is away keeps its memory, for it may be here, but holds up no other.
        let away = sender::holder_away(view, vm).is_some();
        coming += u32::from(comes && !here && !away && is_brought(vm, me));
        if away {
            continue;
        }
        if vm.record.value.state.destination() == Some(me) && target::answer(vm).is_none() {
            asked.push(vm);
        }
    }
    asked.sort_by_key(|vm| (Reverse(vm.record.value.meta.priority), vm.record.value.name.clone()));
    let mut out = Vec::new();
    for vm in asked {
        let again = is_coming(vm, me, granted);
        let refused = unfit(view, me, vm).or_else(|| {
            let offered = view.nodes.get(me).and_then(|n| n.status.as_ref()).map_or(Bytes(0), |s| s.memory_total);
            let needed = vm.demand.memory.saturating_add(OVERHEAD);
            // A VM that was accepted before is counted already. Its memory is reserved, unless its move was cancelled
            // and another VM was accepted meanwhile, which is impossible while it is sent.
            let others = if again { used.saturating_sub(needed) } else { used };
            let free = offered.saturating_sub(HOST_RESERVE).saturating_sub(others);
            (needed > free && !is_sent(vm, me)).then(|| Rejection::Memory { needed, free }.to_string())
        });
        let brought = is_brought(vm, me);
        if refused.is_some() && again && !is_sent(vm, me) && !is_here(vm, me) {
            used = used.saturating_sub(vm.demand.memory.saturating_add(OVERHEAD));
            coming = coming.saturating_sub(u32::from(brought));
        }
        if refused.is_none() && !again {
            used = used.saturating_add(vm.demand.memory).saturating_add(OVERHEAD);
            // It is answered when others have arrived. Those after it, which need not wait, do not get its room.
            if brought && coming >= view.config.limits.per_target {
                continue;
            }
            coming += u32::from(brought);
        }
        out.push(Answer { uuid: vm.record.value.uuid, of: vm.record.version, refused });
    }
    out
}

/// Why the node cannot take a VM, regardless of other VMs.
fn unfit(view: &ClusterView, me: &NodeName, vm: &VmView) -> Option<String> {
    let VmState::Migrate { kind, how, .. } = &vm.record.value.state else { return None };
    match target::unfit(view, vm, me, (*kind, *how))? {
        Unfit::NoNode => None,
        Unfit::Rejected(why) => Some(why.to_string()),
    }
}

/// VMs for which a node's answer is no longer needed.
pub fn outdated(view: &ClusterView, me: &NodeName) -> Vec<Uuid> {
    let stale = |vm: &&Arc<VmView>| {
        // A VM whose order cannot be read may be on its way.
        vm.unreadable().is_none()
            && vm.arrival.as_ref().is_some_and(|a| a.value.node == *me)
            && vm.record.value.state.destination() != Some(me)
    };
    view.vms_of(me).filter(stale).map(|vm| vm.record.value.uuid).collect()
}

#[cfg(test)]
mod tests;
