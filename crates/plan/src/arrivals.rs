//! Which VMs a node lets come to it: decided by that node alone, one after the other, so that it never promises more
//! than it can carry, however many others want to send it something at the same time.

use crate::{
    capacity::{HOST_RESERVE, Ledger, OVERHEAD},
    place::{self, Verdict},
};
use drover_model::{Bytes, ClusterView, NodeName, Version, VmState, VmView};
use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};
use uuid::Uuid;

/// What the node says of one VM that is to come to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The VM.
    pub uuid: Uuid,
    /// The version of its record that this is said of.
    pub of: Version,
    /// Why it cannot come; `None`: it can.
    pub refused: Option<String>,
}

/// Whether a VM is on its way to a node, with that node's consent: it may be, or come to be, in its memory.
fn is_coming(vm: &VmView, me: &NodeName, granted: &BTreeSet<Uuid>) -> bool {
    let said = vm.arrival.as_ref().map(|a| &a.value).is_some_and(|a| a.node == *me && a.refused.is_none());
    let wanted = vm.record.value.state.destination() == Some(me);
    is_sent(vm, me) || (wanted && (said || granted.contains(&vm.record.value.uuid)))
}

/// Whether it is being sent to the node, or was: it may be there.
fn is_sent(vm: &VmView, me: &NodeName) -> bool {
    vm.sent_to() == Some(me)
}

/// Whether a VM is a node's already: in its memory, or about to be started there.
fn is_here(vm: &VmView, me: &NodeName) -> bool {
    let record = &vm.record.value;
    vm.is_held_by(me) || (record.node.as_ref() == Some(me) && record.state.occupies_node())
}

/// The node's answers to the VMs that it has not answered yet. `granted`: those that it let come and whose records it
/// may not see yet.
pub fn answers(view: &ClusterView, me: &NodeName, granted: &BTreeSet<Uuid>) -> Vec<Answer> {
    let (mut used, mut coming) = (Bytes(0), 0);
    let mut asked: Vec<&Arc<VmView>> = Vec::new();
    for vm in view.vms_of(me) {
        let (here, comes) = (is_here(vm, me), is_coming(vm, me, granted));
        if here || comes {
            used = used.saturating_add(vm.demand.memory).saturating_add(OVERHEAD);
        }
        coming += u32::from(comes && !here);
        let answered = vm.arrival.as_ref().is_some_and(|a| a.value.node == *me && a.value.of == vm.record.version);
        if vm.record.value.state.destination() == Some(me) && !answered {
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
            // What was let come before is counted already. It has its room, unless it was taken back and another one
            // was let come meanwhile, which cannot be while it is sent.
            let others = if again { used.saturating_sub(needed) } else { used };
            let free = offered.saturating_sub(HOST_RESERVE).saturating_sub(others);
            (needed > free && !is_sent(vm, me)).then(|| place::Rejection::Memory { needed, free }.to_string())
        });
        if refused.is_some() && again && !is_sent(vm, me) && !is_here(vm, me) {
            used = used.saturating_sub(vm.demand.memory.saturating_add(OVERHEAD));
            coming = coming.saturating_sub(1);
        }
        if refused.is_none() && !again {
            // Its turn comes when others have arrived.
            if coming >= view.config.limits.per_target {
                continue;
            }
            (used, coming) = (used.saturating_add(vm.demand.memory).saturating_add(OVERHEAD), coming + 1);
        }
        out.push(Answer { uuid: vm.record.value.uuid, of: vm.record.version, refused });
    }
    out
}

/// Why the node cannot take a VM, room apart.
fn unfit(view: &ClusterView, me: &NodeName, vm: &VmView) -> Option<String> {
    let VmState::Migrate { kind, how, .. } = &vm.record.value.state else { return None };
    let wanted = place::Wanted::moved(vm).by(*how).coming_to(view, me, *kind);
    match place::judge(view, &Ledger::default(), me, view.nodes.get(me)?, &wanted) {
        Verdict::Fits { .. } => None,
        Verdict::Rejected(why) => Some(why.to_string()),
    }
}

/// VMs of which a node has said something that does not matter any more.
pub fn outdated(view: &ClusterView, me: &NodeName) -> Vec<Uuid> {
    let stale = |vm: &&Arc<VmView>| {
        // One whose order cannot be read may be on its way.
        vm.unreadable().is_none()
            && vm.arrival.as_ref().is_some_and(|a| a.value.node == *me)
            && vm.record.value.state.destination() != Some(me)
    };
    view.vms_of(me).filter(stale).map(|vm| vm.record.value.uuid).collect()
}

#[cfg(test)]
mod tests;
