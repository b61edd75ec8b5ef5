//! Evacuation of a node, and the return of its VMs: whole plans. The node's agent carries out as much of a plan as the
//! limits allow, and then asks again.
//!
//! *Flush*: every VM on the node moves to a node that can take it, with resources reserved for all of them as they are
//! planned, the most important and largest first. A VM that no node can take is shut down and marked to be started when
//! the node is ready. *Ready*: marked VMs are started, VMs that were moved away come home, as far as there are
//! resources for them.
//!
//! Stateless: a plan is computed anew from the view each time, so concurrent changes do not matter.

use crate::{
    capacity::Ledger,
    moves::sender,
    place::{self, Verdict, Wanted},
};
use drover_model::{
    AtRest, ClusterView, DaemonState, DrainReport, How, MigrationMethod, MoveKind, NodeName, NodeState, Placed,
    PlacedBy, Version, VmName, VmRecord, VmState, VmView, WallTime, placed::Reasons, vm::SHUTDOWN_TIMEOUT_S, wire,
};
use std::{cmp::Reverse, sync::Arc};
use uuid::Uuid;

/// Number of failed live moves in a row after which a VM is left to an administrator.
pub const FAILURES_MAX: u32 = 3;

/// Planned action for one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It moves to another node (for *ready*: it comes home).
    Moves {
        /// The target.
        to: NodeName,
        /// How it is moved.
        how: How,
        /// Reasons of the choice.
        why: Box<Reasons>,
    },
    /// It is shut down, and started when the node is ready; the reason why it cannot move.
    ShutDown(String),
    /// It is started.
    Starts,
    /// Another operation on it is under way: wait for that.
    UnderWay,
    /// Nothing can be done, for this reason.
    Blocked(String),
    /// It was to come to a node that is flushed, and its holder is away: no reason to wait; why.
    Away(String),
}

/// A plan: each VM concerned, in the order in which they are handled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Planned action for each VM.
    pub fates: Vec<(Uuid, VmName, Fate)>,
    /// Guests of Drover on a node that is flushed, of whose VMs there is no record.
    pub strays: Vec<Uuid>,
}

/// A change of a VM's record that is due now, based on this version of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The VM.
    pub uuid: Uuid,
    /// The version of the record.
    pub version: Version,
    /// The version that the claim must still have: a VM is assigned to another node only while no node takes it.
    pub claim: Option<Version>,
    /// The new record.
    pub record: VmRecord,
    /// Why, for users: the reason for the target, or why the VM cannot move. Empty: there was nothing to choose.
    pub why: String,
}

/// By priority, then by size (largest first), then by name.
pub(crate) fn in_order<'a>(vms: impl Iterator<Item = &'a Arc<VmView>>) -> Vec<&'a Arc<VmView>> {
    let mut vms: Vec<_> = vms.collect();
    vms.sort_by(|a, b| {
        let key = |vm: &VmView| (Reverse(vm.record.value.meta.priority), Reverse(vm.demand.memory));
        key(a).cmp(&key(b)).then_with(|| a.record.value.name.cmp(&b.record.value.name))
    });
    vms
}

/// Whether a VM must leave before the node is empty.
fn is_on(vm: &VmView, node: &NodeName) -> bool {
    let record = &vm.record.value;
    vm.is_held_by(node)
        || record.state.destination() == Some(node)
        || vm.sent_to() == Some(node)
        // It comes back if it cannot be started.
        || vm.left() == Some(node)
        || (record.state.occupies_node() && record.node.as_ref() == Some(node))
}

/// Plans the evacuation of a node.
pub fn evacuate(view: &ClusterView, node: &NodeName) -> Plan {
    let mut ledger = Ledger::of(view);
    let mut plan = Plan::default();
    for vm in in_order(view.vms_of(node).filter(|vm| is_on(vm, node))) {
        let fate = leave(view, &mut ledger, vm, node);
        plan.fates.push((vm.record.value.uuid, vm.record.value.name.clone(), fate));
    }
    plan.strays.extend(in_memory(view, node).filter(|uuid| !view.vms.contains_key(*uuid)));
    plan
}

/// The domains in memory that a node reports.
fn in_memory<'a>(view: &'a ClusterView, node: &NodeName) -> impl Iterator<Item = &'a Uuid> {
    let status = view.nodes.get(node).and_then(|node| node.status.as_ref());
    status.into_iter().flat_map(|status| &status.value.domains)
}

/// Blocked, if a live move has failed too often, and the VM may not be moved cold or could not be. (What libvirt keeps
/// of it may have to stay behind then. Each such move is reported twice: it failed, and then it was given up.)
fn given_up(vm: &VmView) -> Option<Fate> {
    let failure = vm.status.as_ref()?.move_failure.as_ref()?;
    let only_live = vm.record.value.meta.method == MigrationMethod::Live || failure.told >= 2 * FAILURES_MAX;
    let why = || format!("its move to {} failed {} times: {}", failure.to, failure.count, failure.reason);
    (only_live && failure.count >= FAILURES_MAX).then(|| Fate::Blocked(why()))
}

fn leave(view: &ClusterView, ledger: &mut Ledger, vm: &VmView, node: &NodeName) -> Fate {
    let record = &vm.record.value;
    if let Some(why) = vm.unreadable() {
        return Fate::Blocked(why.to_owned());
    }
    if let Some((holder, daemon)) = sender::holder_away(view, vm).filter(|(holder, _)| *holder != node) {
        if vm.sent_to() == Some(node) && in_memory(view, node).any(|uuid| *uuid == record.uuid) {
            return Fate::Blocked(format!(
                "it is held by {holder}, whose daemon is in state {daemon}, and its guest is here, paused, until that \
                 node hands it over, or libvirt ends an arrival that was broken off"
            ));
        }
        return Fate::Away(format!("it is held by {holder}, whose daemon is in state {daemon}, so it does not come"));
    }
    if record.state != VmState::Start || record.node.as_ref() != Some(node) || vm.sent_to().is_some() {
        return Fate::UnderWay;
    }
    if let Some(blocked) = given_up(vm) {
        return blocked;
    }
    // A guest that does not execute does not arrive, and cannot be shut down.
    match vm.status.as_ref().and_then(|report| report.why_paused()) {
        Some(paused) if paused.by.lasts() => {
            return Fate::Blocked(format!("its guest {paused}; {}", paused.by.way_on(&record.name)));
        }
        Some(_) => return Fate::UnderWay,
        None => {}
    }
    let placement = place::choose(view, ledger, &Wanted::moved(vm));
    match &placement.chosen {
        Some((to, how)) => {
            ledger.expect(to, vm.demand);
            Fate::Moves { to: to.clone(), how: *how, why: Box::new(placement.kept()) }
        }
        None if !record.refused.is_empty() => {
            // It would not be started again by another plan either.
            let refused = record.refused.iter().map(|r| format!("its move to {} failed: {}", r.node, r.why));
            Fate::Blocked(refused.collect::<Vec<_>>().join("; "))
        }
        None => {
            let replaced = vm.status.as_ref().and_then(|report| report.replaced.as_ref());
            match replaced.and_then(|replaced| replaced.would_boot_older(record)) {
                // It would not be started again.
                Some(why) => Fate::Blocked(format!("it can only be shut down, and {why}; {}", placement.reasons())),
                None => Fate::ShutDown(placement.reasons()),
            }
        }
    }
}

/// Plans which VMs come home to a node, and which are started there.
pub fn bring_home(view: &ClusterView, node: &NodeName) -> Plan {
    let mut ledger = Ledger::of(view);
    let mut plan = Plan::default();
    let concerned = view.vms_of(node).filter(|vm| {
        let record = &vm.record.value;
        let waits =
            record.meta.autostart && (record.node.as_ref() == Some(node) || record.last_node.as_ref() == Some(node));
        // An earlier flush is still moving it away: it comes home after its arrival.
        let leaves = matches!(record.state, VmState::Migrate { kind: MoveKind::Migrate, .. })
            && record.last_node.is_none()
            && record.node.as_ref() == Some(node);
        waits || leaves || record.last_node.as_ref() == Some(node) || record.state.destination() == Some(node)
    });
    for vm in in_order(concerned) {
        if let Some(fate) = come(view, &mut ledger, vm, node) {
            plan.fates.push((vm.record.value.uuid, vm.record.value.name.clone(), fate));
        }
    }
    plan
}

/// Why nothing becomes of a VM that should come home: the node that would have to act is away.
fn cannot_act(view: &ClusterView, vm: &VmView) -> Option<String> {
    let record = &vm.record.value;
    let completes = matches!(record.state, VmState::Restart { .. } | VmState::Shutdown { .. });
    let actor = vm.holder().or(record.node.as_ref().filter(|_| completes))?;
    let (actor, daemon) = sender::away(view, actor)?;
    let then = match &record.state {
        VmState::Migrate { .. } => "it comes when that node is back".to_owned(),
        _ => format!("bring it home when that node is back ('drover vm unmigrate {}')", record.name),
    };
    Some(format!("it is held by {actor}, whose daemon is in state {daemon}; {then}"))
}

fn come(view: &ClusterView, ledger: &mut Ledger, vm: &VmView, node: &NodeName) -> Option<Fate> {
    let record = &vm.record.value;
    if !view.nodes.contains_key(node) {
        return None;
    }
    let mut fit = |wanted: Wanted<'_>| {
        let placement = place::choose(view, ledger, &wanted.to(Some(node)).as_ready(Some(node)));
        let why = Box::new(placement.kept());
        match (placement.chosen, placement.verdicts.into_iter().next()) {
            (Some((_, how)), _) => {
                ledger.expect(node, vm.demand);
                Ok((how, why))
            }
            (None, Some((_, Verdict::Rejected(why)))) => Err(Fate::Blocked(why.to_string())),
            (None, _) => Err(Fate::Blocked(format!("there is no node {node}"))),
        }
    };
    if let Some(why) = vm.unreadable() {
        return Some(Fate::Blocked(why.to_owned()));
    }
    if let Some(why) = cannot_act(view, vm) {
        let concerned = record.last_node.as_ref() == Some(node) || vm.is_coming_to(node);
        let waits = !matches!(record.state, VmState::Stop | VmState::Disable | VmState::Fail { .. });
        return (concerned && waits).then_some(Fate::Blocked(why));
    }
    match &record.state {
        VmState::Migrate { .. } => Some(Fate::UnderWay),
        // It has been shut down here, and uses its resources until it is released.
        VmState::Stop if record.meta.autostart && vm.is_held_by(node) => Some(Fate::UnderWay),
        // Its home or the node where it was shut down, whichever is ready first.
        VmState::Stop if record.meta.autostart && vm.is_free() => {
            let wanted = Wanted { may_stay: true, ..Wanted::moved(vm).by(How::Cold) };
            Some(fit(wanted).map_or_else(|blocked| blocked, |_| Fate::Starts))
        }
        VmState::Shutdown { .. } if record.meta.autostart && record.node.as_ref() == Some(node) => Some(Fate::UnderWay),
        VmState::Restart { .. } if record.last_node.as_ref() == Some(node) => Some(Fate::UnderWay),
        VmState::Start if record.last_node.as_ref() == Some(node) && vm.sent_to().is_some() => Some(Fate::UnderWay),
        // Only running VMs come home; those that were stopped meanwhile stay.
        VmState::Start if record.last_node.as_ref() == Some(node) => {
            if let Some(blocked) = given_up(vm) {
                return Some(blocked);
            }
            Some(match fit(Wanted::moved(vm)) {
                Ok((how, why)) => Fate::Moves { to: node.clone(), how, why },
                Err(blocked) => blocked,
            })
        }
        _ => None,
    }
}

impl Plan {
    /// Summary for users and for scripts that wait.
    pub fn report(&self) -> DrainReport {
        let mut report = DrainReport::default();
        for (_, name, fate) in &self.fates {
            match fate {
                Fate::Blocked(why) => report.blocked.push((name.clone(), why.clone())),
                Fate::Away(_) => {}
                Fate::UnderWay => (report.left, report.moving) = (report.left + 1, report.moving + 1),
                Fate::Moves { .. } | Fate::ShutDown(_) | Fate::Starts => report.left += 1,
            }
        }
        report.strays.clone_from(&self.strays);
        report
    }

    /// Whether nothing is left to do or under way.
    pub fn is_done(&self) -> bool {
        self.fates.iter().all(|(_, _, fate)| matches!(fate, Fate::Blocked(_) | Fate::Away(_)))
    }

    /// Whether nothing has to leave the node any more.
    pub fn has_left(&self) -> bool {
        self.fates.iter().all(|(_, _, fate)| matches!(fate, Fate::Away(_)))
    }

    /// The changes to write now: no more moves than the limits allow to begin, so that the rest is planned on the state
    /// at that time. The placements are stored with the VMs; `now` is their time for users.
    pub fn orders(&self, view: &ClusterView, node: &NodeName, kind: MoveKind, now: WallTime) -> Vec<Order> {
        let by = if kind == MoveKind::Unmigrate { PlacedBy::Ready } else { PlacedBy::Flush };
        let placed = |to: &NodeName, how, why: &Reasons| {
            Some(Box::new(Placed { by, at: now, to: to.clone(), how, reasons: why.clone() }))
        };
        let limits = view.config.limits;
        let under_way = |of: &dyn Fn(&VmRecord) -> bool| {
            let moving = view.moving().filter(|vm| vm.record.value.state.destination().is_some());
            // What nobody holds is only started, and has no place in the limits (`turn`).
            let moving = moving.filter(|vm| !vm.is_free() && sender::holder_away(view, vm).is_none());
            u32::try_from(moving.filter(|vm| of(&vm.record.value)).count()).unwrap_or(u32::MAX)
        };
        let away = under_way(&|record| record.node.as_ref() == Some(node));
        let mut room = limits.cluster.saturating_sub(under_way(&|_| true));
        if kind != MoveKind::Unmigrate {
            room = room.min(limits.per_source.saturating_sub(away));
        }
        let mut targets = std::collections::BTreeMap::new();
        let mut orders = Vec::new();
        for (uuid, _, fate) in &self.fates {
            let Some(vm) = view.vms.get(uuid) else { continue };
            let old = &vm.record.value;
            let mut claim = None;
            let record = match fate {
                // It waits to be started, and can be started here as well.
                Fate::Moves { to, why, .. } if to == node && vm.is_free() => {
                    claim = vm.claim.as_ref().map(|c| c.version);
                    VmRecord { placed: placed(to, None, why), ..old.arrived(to, kind) }
                }
                Fate::Moves { to, how, why } => {
                    let to_it = targets.entry(to).or_insert_with(|| under_way(&|r| r.state.destination() == Some(to)));
                    if room == 0 || *to_it >= limits.per_target {
                        continue;
                    }
                    (room, *to_it) = (room - 1, *to_it + 1);
                    let state = VmState::Migrate { to: to.clone(), kind, how: *how };
                    VmRecord { state, going: placed(to, Some(*how), why), ..old.clone() }
                }
                Fate::ShutDown(_) => {
                    let mut record = old.clone();
                    record.state = VmState::Shutdown { timeout_s: SHUTDOWN_TIMEOUT_S, then: AtRest::Stop };
                    record.meta.autostart = true;
                    record
                }
                Fate::Starts => {
                    let mut record = old.clone();
                    if old.node.as_ref() != Some(node) {
                        claim = vm.claim.as_ref().map(|c| c.version);
                        record = old.arrived(node, MoveKind::Unmigrate);
                        record.placed = placed(node, None, &Reasons::default());
                    }
                    record.state = VmState::Start;
                    record.meta.autostart = false;
                    record
                }
                Fate::UnderWay | Fate::Blocked(_) | Fate::Away(_) => continue,
            };
            let why = match (fate, &record.going) {
                (Fate::Moves { .. }, Some(going)) => wire::Placed::of(going).in_short(),
                (Fate::ShutDown(why), _) => why.clone(),
                _ => String::new(),
            };
            orders.push(Order { uuid: *uuid, version: vm.record.version, claim, record, why });
        }
        orders
    }
}

/// Why a node may not be flushed. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No other node accepts VMs.
    #[error(
        "{node} is the last node that takes VMs: every VM on it would be shut down. Make another node ready first, or \
         use force"
    )]
    LastNode {
        /// The node.
        node: NodeName,
    },
    /// Its daemon, which would have to do it, does not run.
    #[error("the daemon of node {node} is in state {daemon}, so it cannot do this; start it first")]
    NotRunning {
        /// The node.
        node: NodeName,
        /// State of its daemon.
        daemon: DaemonState,
    },
}

/// The node's new state after a request to flush it or to make it ready. `now` is its state by its record.
pub fn request(
    view: &ClusterView,
    name: &NodeName,
    now: NodeState,
    ready: bool,
    force: bool,
) -> Result<NodeState, Refusal> {
    use NodeState::*;
    let daemon = view.nodes.get(name).map_or(DaemonState::Dead, |node| node.daemon_state());
    let next = match (ready, now) {
        (true, Flush | Flushed) => Unflush,
        (true, Ready | Unflush) => now,
        (false, Ready | Unflush) => Flush,
        (false, Flush | Flushed) => now,
    };
    if next == now {
        return Ok(now);
    }
    if daemon != DaemonState::Run {
        return Err(Refusal::NotRunning { node: name.clone(), daemon });
    }
    let takes = |other: &NodeName| {
        let node = view.nodes.get(other);
        node.is_some_and(|n| n.record.value.domain_state == Ready && n.daemon_state() == DaemonState::Run)
    };
    if next == Flush && !force && !view.nodes.keys().any(|other| other != name && takes(other)) {
        return Err(Refusal::LastNode { node: name.clone() });
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
