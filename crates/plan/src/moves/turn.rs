//! Order of the moves.

use super::{
    sender,
    target::{self, Unfit},
};
use crate::place::Rejection;
use drover_model::{Arrival, ClusterView, NodeName, VmName, VmState};
use std::{cmp::Reverse, collections::BTreeMap};
use uuid::Uuid;

/// Whether a VM that should be moved may go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Go,
    /// Not yet; the reason, for users.
    Wait(String),
    /// Its target cannot take it (any more).
    Unfit(String),
}

/// Sort key of a move: moves under way first, then by priority and name.
type Place<'a> = (Reverse<bool>, Reverse<i32>, &'a VmName);

/// Whether it is a VM's turn. Its target must have accepted it: only the target knows what it has promised
/// ([`crate::arrivals`]). Among the accepted moves the limits are applied in one order, which every node computes
/// identically from its view. (Views may differ for a moment, so that a limit may be exceeded for a moment; only the
/// load depends on it.) Moves without acceptance take no turn; otherwise moves could deadlock, waiting for the target's
/// acceptance and for the turn of one that has none. Neither do those whose holder is away: they do not go; nor those
/// without a holder, which go at once.
pub fn turn(view: &ClusterView, uuid: &Uuid) -> Turn {
    let Some(vm) = view.vms.get(uuid) else { return Turn::Wait("the VM is not in the view yet".to_owned()) };
    let VmState::Migrate { to, kind, how } = &vm.record.value.state else { return Turn::Go };
    match target::unfit(view, vm, to, (*kind, *how)) {
        // The target decides whether there is room.
        None | Some(Unfit::Rejected(Rejection::Memory { .. })) => {}
        Some(Unfit::NoNode) => return Turn::Unfit(format!("there is no node {to}")),
        Some(Unfit::Rejected(why)) => return Turn::Unfit(format!("{to} cannot take it: {why}")),
    }
    match target::answer(vm) {
        None => return Turn::Wait(format!("waiting for {to} to accept it")),
        Some(Arrival { refused: Some(why), .. }) => return Turn::Unfit(format!("{to} cannot take it: {why}")),
        Some(Arrival { refused: None, .. }) => {}
    }
    // Nothing is brought anywhere: its target only starts it. The limits are not for that, and the VMs of a node that
    // is off do not wait for each other.
    if vm.is_free() {
        return Turn::Go;
    }
    let limits = view.config.limits;
    let mut moves: Vec<(Place<'_>, &NodeName, Uuid)> = Vec::new();
    for other in view.moving() {
        let record = &other.record.value;
        let under_way = other.sent_to().is_some();
        if other.is_free() || sender::holder_away(view, other).is_some() {
            continue;
        }
        let may_come = under_way || target::answer(other).is_some_and(|a| a.refused.is_none());
        if let (Some(from), Some(_), true) = (&record.node, record.state.destination(), may_come) {
            moves.push(((Reverse(under_way), Reverse(record.meta.priority), &record.name), from, record.uuid));
        }
    }
    moves.sort();
    let (mut sources, mut all) = (BTreeMap::new(), 0);
    for (_, from, which) in moves {
        let source = sources.entry(from).or_insert(0u32);
        let free = *source < limits.per_source && all < limits.cluster;
        if which == *uuid && !free {
            let limits = format!("{} from a node, {} in all", limits.per_source, limits.cluster);
            return Turn::Wait(format!("waiting for its turn to move to {to} (at most {limits})"));
        }
        if free {
            (*source, all) = (*source + 1, all + 1);
        }
    }
    Turn::Go
}
