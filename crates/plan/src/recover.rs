//! What becomes of the VMs of nodes that are proved to be off: one plan for the VMs of all of them, with room counted.
//!
//! A node that is off executes nothing and sends nothing. So what only its own hand could do while it lived (release a
//! claim, hand a guest over, complete an order) is done for it, in transactions that check the proof:
//!
//! ```text
//!  wanted                 the claim has `to`          held by the node           held by nobody
//!  start, restart,        that node has it, without   freed; starts on another   starts on another
//!    pause, resume        the copy of the guest that
//!  migrate                may wait there paused, and  the same, at its target    its target takes it; the
//!                         starts it, or does what     if that can take it        same, if that cannot
//!  shutdown               else is wanted              freed; stop or disable     stop or disable
//!  delete                                             freed; another deletes it  another deletes it
//!  stop, disable, fail                                freed                      -
//! ```
//!
//! * A guest that another node reports, outside Drover, is that node's, as when its holder lives (`vm::strays`).
//! * *Starts on another node* is a cold move of a VM without a holder: its target is asked, counts its room itself, and
//!   takes it over (`moves`, `arrivals`). So two plans never promise the same room. Its node is its home.
//! * A VM that no other node can take keeps its claim: its node may start it when it is back.
//! * What a node has on disks of its own is only on that node. Such a VM waits, with the reason.
//! * Level-triggered: the plan is made anew from the view, until nothing of the nodes is left. A hand-over by a living
//!   node may still give a VM to a node that is off.

use crate::{
    capacity::Ledger,
    drain::in_order,
    moves::target,
    place::{self, Verdict, Wanted},
    vm::Elsewhere,
};
use drover_model::{
    Claim, ClusterView, DaemonState, How, MoveKind, NodeName, Placed, PlacedBy, Version, VmName, VmRecord, VmState,
    VmView, WallTime, placed::Reasons, wire,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What becomes of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It starts on another node.
    Starts {
        /// That node.
        to: NodeName,
        /// What that does to its home.
        kind: MoveKind,
        /// Reasons of the choice.
        why: Box<Reasons>,
    },
    /// It was on its way to that node, which has its guest or is to start it.
    HandedOver(NodeName),
    /// It does not run; its state then.
    Rests(VmState),
    /// It is assigned to another node, which goes on with it.
    Freed,
    /// It does not run, and is assigned to another node: its node is gone for good.
    Assigned(NodeName),
    /// Its deletion is completed by another node.
    DeletedBy(NodeName),
    /// Another node is taking it.
    UnderWay(NodeName),
    /// Nothing can be done, for this reason.
    Waits(String),
    /// The same, because the nodes that could take it lack memory.
    NoRoom(String),
}

impl Fate {
    /// Why nothing can be done, if so.
    pub fn why_waiting(&self) -> Option<&str> {
        match self {
            Fate::Waits(why) | Fate::NoRoom(why) => Some(why),
            _ => None,
        }
    }

    /// It as a word, with the node that the VM goes to and the reason, for users.
    pub fn in_words(&self) -> (&'static str, Option<&NodeName>, String) {
        match self {
            Fate::Starts { to, .. } => ("starts", Some(to), String::new()),
            Fate::HandedOver(to) => ("handed-over", Some(to), "it was on its way there".to_owned()),
            Fate::Rests(state) => ("rests", None, format!("its state is {state} then")),
            Fate::Freed => ("freed", None, "it is assigned to another node".to_owned()),
            Fate::Assigned(to) => ("assigned", Some(to), "it does not run".to_owned()),
            Fate::DeletedBy(to) => ("deleted", Some(to), "it is being deleted".to_owned()),
            Fate::UnderWay(to) => ("under-way", Some(to), String::new()),
            Fate::Waits(why) | Fate::NoRoom(why) => ("waits", None, why.clone()),
        }
    }
}

/// One VM in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The VM.
    pub uuid: Uuid,
    /// Its name.
    pub vm: VmName,
    /// The node that is off.
    pub node: NodeName,
    /// What becomes of it.
    pub fate: Fate,
}

/// A change of a VM's record and claim, based on these versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The VM.
    pub uuid: Uuid,
    /// The node that is off.
    pub node: NodeName,
    /// The version of the record.
    pub version: Version,
    /// The new record. It is written in any case, so that no earlier decision on the old one is carried out.
    pub record: VmRecord,
    /// The version of the claim.
    pub claim: Version,
    /// The new claim; `None`: it is free and stays as it is.
    pub granted: Option<Claim>,
    /// Why, for users: the reason for the target, or else why there was nothing to choose.
    pub why: String,
}

/// The VMs of the nodes, in the order in which they are handled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The VMs.
    pub items: Vec<Item>,
}

/// Plans the recovery of the VMs of these nodes, which are off, or count as off; the value: whether a node is gone for
/// good. `again`: ask targets again that have refused a VM.
pub fn plan(view: &ClusterView, nodes: &BTreeMap<NodeName, bool>, again: bool) -> Plan {
    let mut ledger = Ledger::of(view).without(nodes.keys());
    // Room is not looked at.
    let roomy = Ledger::default().without(nodes.keys());
    let of =
        |vm: &VmView| vm.holder().or(vm.record.value.node.as_ref()).filter(|node| nodes.contains_key(*node)).cloned();
    let concerned = nodes.keys().flat_map(|node| view.vms_of(node).filter(|vm| of(vm).as_ref() == Some(node)));
    let items = in_order(concerned).into_iter().filter_map(|vm| {
        let node = of(vm)?;
        let for_good = nodes.get(&node).copied().unwrap_or_default();
        let fate = fate(view, (&mut ledger, &roomy), vm, &node, for_good, again)?;
        Some(Item { uuid: vm.record.value.uuid, vm: vm.record.value.name.clone(), node, fate })
    });
    Plan { items: items.collect() }
}

/// What becomes of a VM that the node holds, or that it is assigned to while nobody holds it. `None`: it stays as it
/// is.
fn fate(
    view: &ClusterView,
    (ledger, roomy): (&mut Ledger, &Ledger),
    vm: &VmView,
    node: &NodeName,
    for_good: bool,
    again: bool,
) -> Option<Fate> {
    if let Some(why) = vm.unreadable() {
        return Some(Fate::Waits(why.to_owned()));
    }
    let record = &vm.record.value;
    let Some(claim) = &vm.claim else { return Some(Fate::Waits("its claim has not been read yet".to_owned())) };
    let held = claim.value.is_held_by(node);
    let machine = view.nodes.get(node).map(|node| &node.record.value.machine);
    if held && !claim.value.machine.is_empty() && machine != Some(&claim.value.machine) {
        return Some(Fate::Waits(format!("another machine holds it that had the name {node}")));
    }
    // Its node has not taken the domain over that it was imported from: that could be started there, without its VM.
    if claim.value.is_for_unmarked() && !for_good {
        let why = format!("the domain that it was imported from has not been taken over by {node} yet");
        return Some(Fate::Waits(format!("{why}; it can be given away when that machine is gone for good")));
    }
    // Taken there by somebody, outside Drover: it executes, and its node takes it over. It may have gone before the
    // node that is off had marked it as the one that its grant adopts.
    let other = Elsewhere::find(view, node, &record.uuid, |other| present(roomy, claim, other));
    if let Some(other) = other {
        return Some(if held { Fate::HandedOver(other.node) } else { Fate::UnderWay(other.node) });
    }
    if let Some(to) = claim.value.to.as_ref().filter(|_| held) {
        return Some(Fate::HandedOver(to.clone()));
    }
    if held && record.node.as_ref().is_some_and(|assigned| assigned != node) {
        return Some(Fate::Freed);
    }
    let kind = if for_good { MoveKind::Move } else { MoveKind::Migrate };
    Some(match &record.state {
        VmState::Stop | VmState::Disable | VmState::Fail { .. } if held => Fate::Rests(record.state.clone()),
        VmState::Stop | VmState::Disable | VmState::Fail { .. } if for_good => assigned(view, roomy, vm),
        VmState::Stop | VmState::Disable | VmState::Fail { .. } => return None,
        VmState::Shutdown { then, .. } => Fate::Rests((*then).into()),
        VmState::Delete { disks } => deleted(view, roomy, vm, *disks),
        VmState::Migrate { to, kind: ordered, .. } => {
            let refused = target::answer(vm).and_then(|answer| answer.refused.as_ref());
            let takes = || target::unfit(view, vm, to, (*ordered, How::Cold)).is_none();
            let can = refused.is_none() && !roomy.is_lost(to) && takes();
            match (can, held) {
                (true, false) => Fate::UnderWay(to.clone()),
                // The target counts its room itself.
                (true, true) => Fate::Starts { to: to.clone(), kind: *ordered, why: Box::default() },
                (false, _) => starts(view, ledger, vm, kind, refused.filter(|_| !again).map(|why| (to, why))),
            }
        }
        VmState::Start | VmState::Restart { .. } | VmState::Pause | VmState::Resume | VmState::Unreadable => {
            starts(view, ledger, vm, kind, None)
        }
    })
}

/// Whether another node has the guest of the VM of a lost node. One that is off, too, has none; what it has said last
/// was before that.
fn present(roomy: &Ledger, claim: &Claim, other: &Elsewhere) -> bool {
    !roomy.is_lost(&other.node) && other.counts(claim) && !claim.is_of_another_store(other.epoch)
}

/// Where it starts, with its room reserved there. `refused`: a node that has just refused it, and why.
pub(crate) fn starts(
    view: &ClusterView,
    ledger: &mut Ledger,
    vm: &VmView,
    kind: MoveKind,
    refused: Option<(&NodeName, &String)>,
) -> Fate {
    let wanted = Wanted::moved(vm).by(How::Cold);
    let mut placement = place::choose(view, ledger, &wanted);
    if placement.chosen.is_none() && !wanted.refused.is_empty() {
        // It could not be started there once. What the reason was may be over, and there is no other node.
        placement = place::choose(view, ledger, &Wanted { refused: &[], ..wanted });
    }
    match (placement.node(), refused) {
        (Some(to), Some((by, why))) if to == by => Fate::Waits(format!("{by} has no room for it: {why}")),
        (Some(to), _) => {
            ledger.expect(to, vm.demand);
            Fate::Starts { to: to.clone(), kind, why: Box::new(placement.kept()) }
        }
        (None, _) if placement.lacks_memory() => Fate::NoRoom(placement.reasons()),
        (None, _) => Fate::Waits(placement.reasons()),
    }
}

/// Where a VM that does not run is assigned to. Room is not looked at, as when a VM is defined.
fn assigned(view: &ClusterView, roomy: &Ledger, vm: &VmView) -> Fate {
    let placement = place::choose(view, roomy, &Wanted::moved(vm).by(How::Cold));
    match placement.node() {
        Some(to) => Fate::Assigned(to.clone()),
        None => Fate::Waits(placement.reasons()),
    }
}

/// Which node deletes it: with its disks, one that has them.
fn deleted(view: &ClusterView, roomy: &Ledger, vm: &VmView, disks: bool) -> Fate {
    let wanted = Wanted::moved(vm).by(How::Cold);
    let can = |name: &NodeName, node: &drover_model::NodeView| {
        let has = || matches!(place::judge(view, roomy, name, node, &wanted), Verdict::Fits { .. });
        !roomy.is_lost(name)
            && node.daemon_state() == DaemonState::Run
            && (!disks || vm.devices.files.is_empty() || has())
    };
    match view.nodes.iter().find(|(name, node)| can(name, node)) {
        Some((name, _)) => Fate::DeletedBy(name.clone()),
        None => Fate::Waits(format!(
            "no other node has its disks; 'drover vm undefine {}' deletes it without them",
            vm.record.value.name
        )),
    }
}

impl Plan {
    /// Whether nothing of the nodes is left, and nothing is on its way from them.
    pub fn is_done(&self) -> bool {
        self.items.is_empty()
    }

    /// The VMs of a node for which nothing can be done, with the reasons.
    pub fn waiting(&self, node: &NodeName) -> impl Iterator<Item = (&VmName, &str)> {
        let of_node = self.items.iter().filter(move |item| item.node == *node);
        of_node.filter_map(|item| Some((&item.vm, item.fate.why_waiting()?)))
    }

    /// The changes to write. `now` is the placements' time, for users.
    pub fn orders(&self, view: &ClusterView, now: WallTime) -> Vec<Order> {
        self.items.iter().filter_map(|item| order(view, item, now)).collect()
    }
}

fn order(view: &ClusterView, item: &Item, now: WallTime) -> Option<Order> {
    let vm = view.vms.get(&item.uuid)?;
    let claim = vm.claim.as_ref()?;
    let old = VmRecord { node: vm.record.value.node.clone().or(Some(item.node.clone())), ..vm.record.value.clone() };
    let held = claim.value.is_held_by(&item.node);
    let mut granted = held.then(|| claim.value.freed());
    let placed = |to: &NodeName, how, why: &Reasons| {
        Some(Box::new(Placed { by: PlacedBy::Recovery, at: now, to: to.clone(), how, reasons: why.clone() }))
    };
    let record = match &item.fate {
        Fate::Starts { to, kind, why } => {
            let state = VmState::Migrate { to: to.clone(), kind: *kind, how: How::Cold };
            VmRecord { state, going: placed(to, Some(How::Cold), why), ..old.accepted_at(to) }
        }
        Fate::HandedOver(to) => {
            // What waits there, paused, may be older than what the guest has done since (libvirt resumes it at its
            // sender when an answer is lost).
            let sent = claim.value.to.as_ref() == Some(to);
            let stray = Elsewhere::find(view, &item.node, &item.uuid, |other| other.node == *to);
            let granted_to = match stray.filter(|_| !sent) {
                Some(other) => claim.value.followed_to(to, other.epoch),
                None => claim.value.granted_above_sent(to),
            };
            let identified = view.nodes.get(to).map(|node| &node.record.value);
            granted = Some(identified.map_or(granted_to.clone(), |of| granted_to.on(&of.machine, &of.boot)));
            old.settled_at(to)
        }
        Fate::Rests(state) => VmRecord { state: state.clone(), ..old },
        Fate::Freed => old,
        Fate::Assigned(to) => {
            let placed = placed(to, None, &Reasons::default());
            VmRecord { placed, ..old.arrived(to, MoveKind::Move) }
        }
        Fate::DeletedBy(to) => VmRecord { node: Some(to.clone()), ..old },
        Fate::UnderWay(_) | Fate::Waits(_) | Fate::NoRoom(_) => return None,
    };
    let (uuid, node) = (item.uuid, item.node.clone());
    let why = match (&item.fate, &record.going) {
        (Fate::Starts { .. }, Some(going)) => wire::Placed::of(going).in_short(),
        (fate, _) => fate.in_words().2,
    };
    Some(Order { uuid, node, version: vm.record.version, record, claim: claim.version, granted, why })
}

#[cfg(test)]
mod tests;
