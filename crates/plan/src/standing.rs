//! The standing recovery plan: what would become of each node's VMs if that node were lost now, and of those of several
//! nodes that are lost at once. Nothing is kept: [`crate::recover`] plans it on the present view, as it does when nodes
//! are lost.
//!
//! A loss cannot be absorbed if VMs that run on the node, and could run on another, find no memory there. That is a
//! fault of the cluster. A VM that no other node can take for another reason (a file that is not shared, a host device)
//! is none: no memory would help it. The plan names it all the same.
//!
//! `tolerate` says how many nodes the cluster must be able to lose. From 2 on, losses of exactly so many nodes at once
//! are planned besides those of each single one, and the worst of them counts. In a large cluster not all are planned,
//! but the few that are most likely to be the worst by memory (`worst`). What binds VMs to some nodes is no part of
//! that choice, so that a worse loss may be overlooked there. Nodes that are silent already are not counted among them.

mod worst;

use crate::{
    capacity::{Ledger, OVERHEAD},
    faults,
    place::{self, Verdict, Wanted},
    recover::{self, Fate, Plan},
};
use drover_model::{
    Bytes, ClusterView, Demand, MoveKind, NodeName, NodeView, Stored, VmMeta, VmName, VmRecord, VmState, VmView,
    cluster::TOLERATE_MAX, domain::devices::Devices,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the ids of the faults of single nodes begin with; the node's name follows.
const SHORT: &str = "recovery-short-";
/// The id of the fault of several nodes.
const TOGETHER: &str = "recovery-together-short";
/// Percentage of the cluster's health that a loss which cannot be absorbed costs: nothing is wrong yet.
const SHORT_DELTA: u8 = 5;
/// How many VMs a fault names.
const NAMED: usize = 5;

/// What becomes of the VMs of these nodes if they are lost now, all at once.
pub fn if_lost(view: &ClusterView, nodes: &[NodeName]) -> Plan {
    let for_good = |node: &NodeName| view.fences().get(node).is_some_and(|fence| fence.value.for_good);
    recover::plan(view, &nodes.iter().map(|node| (node.clone(), for_good(node))).collect(), true)
}

/// A loss in figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    /// VMs that start on other nodes, or go on there.
    pub go_on: usize,
    /// VMs that no other node can take, for other reasons than memory.
    pub bound: Vec<VmName>,
    /// VMs for which there is no memory.
    pub short: Vec<VmName>,
    /// The memory that these need, overhead included.
    pub missing: Bytes,
    /// The memory that they and the VMs that start on other nodes need, overhead included.
    pub needed: Bytes,
    /// Number of further VMs of the size that was asked for.
    pub further: Option<u64>,
}

/// What the loss of these nodes at once would mean. `size`: also count further VMs of that size, after their recovery.
pub fn loss(view: &ClusterView, nodes: &[NodeName], size: Option<Demand>) -> Loss {
    let mut loss = Loss::default();
    let mut ledger = Ledger::of(view).without(nodes);
    // That nobody is left is said of several nodes only: a cluster of one node lacks no memory.
    let nobody = nodes.len() > 1 && !view.nodes.iter().any(|(name, node)| room(view, &ledger, name, node).is_some());
    let mut shifted = false;
    for item in if_lost(view, nodes).items {
        let Some(vm) = view.vms.get(&item.uuid) else { continue };
        let needed = vm.demand.memory.saturating_add(OVERHEAD);
        match reserved(view, &mut ledger, vm, item.fate, &mut shifted) {
            Fate::Waits(_) if !(nobody && is_to_run(vm)) => loss.bound.push(item.vm),
            Fate::Waits(_) | Fate::NoRoom(_) => {
                loss.missing = loss.missing.saturating_add(needed);
                loss.needed = loss.needed.saturating_add(needed);
                loss.short.push(item.vm);
            }
            Fate::Starts { .. } => {
                loss.needed = loss.needed.saturating_add(needed);
                loss.go_on += 1;
            }
            Fate::HandedOver(_) | Fate::UnderWay(_) => loss.go_on += 1,
            Fate::Rests(_) | Fate::Freed | Fate::Assigned(_) | Fate::DeletedBy(_) => {}
        }
    }
    loss.further = size.map(|size| fits(view, &ledger, size));
    loss
}

/// Whether the VM is to run, so that it needs a place.
fn is_to_run(vm: &VmView) -> bool {
    let state = &vm.record.value.state;
    state.occupies_node() && !matches!(state, VmState::Shutdown { .. })
}

/// What becomes of a VM, with its room reserved: one that would go on at a node which is lost as well is recovered from
/// there. `shifted`: that has happened, so that those after it may find less room than they were planned with.
fn reserved(view: &ClusterView, ledger: &mut Ledger, vm: &VmView, fate: Fate, shifted: &mut bool) -> Fate {
    let at = match &fate {
        Fate::Starts { kind, .. } if *shifted => return recover::starts(view, ledger, vm, *kind, None),
        Fate::Starts { to, .. } => {
            ledger.expect(to, vm.demand);
            None
        }
        Fate::HandedOver(to) | Fate::UnderWay(to) => Some(to),
        Fate::Freed => vm.record.value.node.as_ref(),
        _ => None,
    };
    let lost = at.is_some_and(|node| ledger.is_lost(node));
    if !(lost && is_to_run(vm)) {
        return fate;
    }
    *shifted = true;
    recover::starts(view, ledger, vm, MoveKind::Migrate, None)
}

/// What losses would mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// Of each single node.
    pub each: Vec<(NodeName, Loss)>,
    /// The worst of several nodes at once; `None`: none was planned.
    pub together: Option<Together>,
}

/// The worst of the losses of several nodes at once that were planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Together {
    /// The nodes, by name.
    pub nodes: Vec<NodeName>,
    /// What their loss would mean.
    pub loss: Loss,
    /// How many losses of so many nodes were planned.
    pub planned: u64,
    /// How many there are.
    pub all: u64,
}

/// Losses of several nodes at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sets {
    /// Those that are planned.
    pub sets: Vec<Vec<NodeName>>,
    /// How many there are of that size.
    pub all: u64,
}

/// The losses of several nodes at once that are to be planned: none unless the cluster must tolerate them. A node that
/// is silent, or has neither VMs that need a place nor memory for others, is in none. If there are no more nodes than
/// the cluster must be able to lose, it is the loss of all of them.
pub fn sets(view: &ClusterView, each: &[(NodeName, Loss)]) -> Sets {
    let ledger = Ledger::of(view);
    let figures = each.iter().filter_map(|(name, loss)| {
        let node = view.nodes.get(name).filter(|node| node.session.is_some())?;
        let free = room(view, &ledger, name, node).unwrap_or_default();
        let concerned = loss.needed > Bytes(0) || free > Bytes(0);
        concerned.then(|| worst::Figures { node: name.clone(), need: loss.needed, free })
    });
    let figures: Vec<worst::Figures> = figures.collect();
    let size = figures.len().min(view.config.tolerate.min(TOLERATE_MAX) as usize);
    if size < 2 {
        return Sets::default();
    }
    let (sets, all) = worst::sets(size, &figures);
    Sets { sets, all }
}

impl Losses {
    /// Takes one of [`sets`] into account.
    pub fn add(&mut self, sets: &Sets, nodes: &[NodeName], loss: Loss) {
        let planned = self.together.as_ref().map_or(0, |worst| worst.planned) + 1;
        let badness = |loss: &Loss| (loss.missing, loss.short.len(), loss.needed);
        match &mut self.together {
            Some(worst) if badness(&worst.loss) >= badness(&loss) => worst.planned = planned,
            worst => *worst = Some(Together { nodes: nodes.to_vec(), loss, planned, all: sets.all }),
        }
    }
}

/// Number of further VMs of a size that the nodes can take now.
pub fn further(view: &ClusterView, size: Demand) -> u64 {
    fits(view, &Ledger::of(view), size)
}

/// How often a size fits: on each node that takes one, as often as its memory allows.
fn fits(view: &ClusterView, ledger: &Ledger, size: Demand) -> u64 {
    let (meta, devices) = (VmMeta::default(), Devices::default());
    let each = size.memory.saturating_add(OVERHEAD).0.max(1);
    let verdicts = place::choose(view, ledger, &Wanted::new(size, &meta, &devices)).verdicts;
    let on = |(_, verdict): (NodeName, Verdict)| match verdict {
        Verdict::Fits { left, .. } => 1 + left.0 / each,
        Verdict::Rejected(_) => 0,
    };
    verdicts.into_iter().map(on).sum()
}

/// Memory that a node can promise to VMs that come; `None`: it takes none now.
fn room(view: &ClusterView, ledger: &Ledger, name: &NodeName, node: &NodeView) -> Option<Bytes> {
    let (meta, devices) = (VmMeta::default(), Devices::default());
    match place::judge(view, ledger, name, node, &Wanted::new(Demand::default(), &meta, &devices)) {
        Verdict::Fits { left, .. } => Some(left),
        Verdict::Rejected(_) => None,
    }
}

/// Whether losses that cannot be absorbed are faults.
pub fn is_tolerant(view: &ClusterView) -> bool {
    view.config.tolerate > 0
}

/// The faults of losses that cannot be absorbed, by id, each with its message and its deduction from the health. A node
/// that is silent already has faults of its own.
pub fn faults(view: &ClusterView, losses: &Losses) -> BTreeMap<String, (String, u8)> {
    if !is_tolerant(view) {
        return BTreeMap::new();
    }
    let silent = |node: &NodeName| view.nodes.get(node).is_none_or(|node| node.session.is_none());
    let concerned = losses.each.iter().filter(|(node, loss)| !silent(node) && !loss.short.is_empty());
    let of_one = concerned.map(|(node, loss)| {
        let message = format!(
            "If node {node} were lost, the other nodes would have no memory for {} of its VMs ({}): {} are missing. \
             Add memory or a node, stop VMs, or accept it ('drover config set --tolerate 0'). \
             See 'drover cluster plan {node}'.",
            loss.short.len(),
            short(loss),
            loss.missing
        );
        (format!("{SHORT}{node}"), (message, SHORT_DELTA))
    });
    let concerned = losses.together.iter().filter(|together| !together.loss.short.is_empty());
    let of_several = concerned.map(|Together { nodes, loss, .. }| {
        let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
        let message = format!(
            "If {} nodes were lost at once ({}), the others would have no memory for {} of their VMs ({}): {} are \
             missing. Add memory or a node, stop VMs, or accept it ('drover config set --tolerate {}'). \
             See 'drover cluster plan'.",
            names.len(),
            names.join(", "),
            loss.short.len(),
            short(loss),
            loss.missing,
            names.len() - 1
        );
        (TOGETHER.to_owned(), (message, SHORT_DELTA))
    });
    of_one.chain(of_several).collect()
}

/// The VMs for which there is no memory, as a fault names them.
fn short(loss: &Loss) -> String {
    let short: Vec<String> = loss.short.iter().map(ToString::to_string).collect();
    faults::named(&short, NAMED)
}

/// The view in which a VM is to run, for the losses that its start would mean.
#[must_use]
pub fn if_started(view: &ClusterView, uuid: &Uuid) -> ClusterView {
    let mut view = view.clone();
    view.change_vm(uuid, |vm| {
        if matches!(vm.record.value.state, VmState::Stop | VmState::Disable | VmState::Fail { .. }) {
            let record = VmRecord { state: VmState::Start, ..vm.record.value.clone() };
            vm.record = Stored { value: record, ..(*vm.record).clone() }.into();
        }
    });
    view
}

/// What whoever has given an order should know: losses that cannot be absorbed, and are not reported as faults yet.
pub fn warnings(view: &ClusterView, losses: &Losses) -> Vec<String> {
    let new = faults(view, losses).into_iter().filter(|(id, _)| !view.faults().contains_key(id));
    new.map(|(_, (message, _))| message).collect()
}

/// The ids of the reported faults of this kind.
pub fn reported(view: &ClusterView) -> impl Iterator<Item = &String> {
    view.faults().keys().filter(|id| id.starts_with(SHORT) || *id == TOGETHER)
}

#[cfg(test)]
mod tests;
