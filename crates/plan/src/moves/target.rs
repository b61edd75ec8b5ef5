//! The target of a move: whether it can take the VM, and its answer to this very order.

use crate::{
    capacity::Ledger,
    place::{self, Rejection, Verdict, Wanted},
};
use drover_model::{Arrival, ClusterView, How, MoveKind, NodeName, VmView};

/// Why a VM cannot go to its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Unknown node.
    NoNode,
    /// It cannot take it. Not enough memory means here that the VM is too large even for an empty node: the memory in
    /// use is counted by the target itself.
    Rejected(Rejection),
}

/// Why a VM cannot go to that node in that way, regardless of other VMs; `None`: it can.
pub(crate) fn unfit(view: &ClusterView, vm: &VmView, to: &NodeName, (kind, how): (MoveKind, How)) -> Option<Unfit> {
    let Some(node) = view.nodes.get(to) else { return Some(Unfit::NoNode) };
    let wanted = Wanted::moved(vm).by(how).coming_to(view, to, kind);
    match place::judge(view, &Ledger::default(), to, node, &wanted) {
        Verdict::Fits { .. } => None,
        Verdict::Rejected(why) => Some(Unfit::Rejected(why)),
    }
}

/// The target's answer to the move; `None`: no answer for this version of the order.
pub(crate) fn answer(vm: &VmView) -> Option<&Arrival> {
    let said = vm.arrival.as_ref().map(|a| &a.value)?;
    let of_this_move = Some(&said.node) == vm.record.value.state.destination() && said.of == vm.record.version;
    of_this_move.then_some(said)
}
