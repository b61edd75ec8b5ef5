//! Taking a node out of service, and bringing its VMs home: whole plans, of which the node's agent carries out what the
//! limits allow, and then asks again.
//!
//! *Flush*: every VM that is on the node moves to where it fits, with room reserved for all of them as they are
//! planned, the most important and largest first. One with nowhere to go is shut down and marked to start again when
//! the node is ready. *Ready*: VMs that were marked start, VMs that were moved away come home, as long as there is room
//! for them.
//!
//! Nothing here is remembered: a plan is made anew from the view each time, so it does not matter who changed what
//! meanwhile.

use crate::{
    capacity::Ledger,
    place::{self, Verdict, Wanted},
};
use drover_model::{
    AtRest, ClusterView, DaemonState, DomainState, DrainReport, How, MigrationMethod, MoveKind, NodeName, RunState,
    Version, VmName, VmRecord, VmState, VmView, vm::SHUTDOWN_TIMEOUT_S,
};
use std::{cmp::Reverse, sync::Arc};
use uuid::Uuid;

/// After so many failures in a row a VM that may only be moved live is left to an administrator.
pub const FAILURES_MAX: u32 = 3;

/// What becomes of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes to another node (for *ready*: it comes home).
    Moves {
        /// Where to.
        to: NodeName,
        /// In which way.
        how: How,
    },
    /// It is shut down, and starts again when the node is ready; why it cannot move.
    ShutDown(String),
    /// It is started.
    Starts,
    /// Something is being done with it already: it is waited for.
    UnderWay,
    /// Nothing can be done about it, for this reason.
    Blocked(String),
}

/// The whole plan: each VM that is concerned, in the order in which they are taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What becomes of each.
    pub fates: Vec<(Uuid, VmName, Fate)>,
}

/// A change of a VM's record that the plan asks for now, on the version that it was made on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The VM.
    pub uuid: Uuid,
    /// The version of the record.
    pub version: Version,
    /// The version that the claim must still have: a VM is given to another node only while nobody takes it.
    pub claim: Option<Version>,
    /// What it becomes.
    pub record: VmRecord,
}

/// The most important, then the largest, then by name.
fn in_order<'a>(vms: impl Iterator<Item = &'a Arc<VmView>>) -> Vec<&'a Arc<VmView>> {
    let mut vms: Vec<_> = vms.collect();
    vms.sort_by(|a, b| {
        let key = |vm: &VmView| (Reverse(vm.record.value.meta.priority), Reverse(vm.demand.memory));
        key(a).cmp(&key(b)).then_with(|| a.record.value.name.cmp(&b.record.value.name))
    });
    vms
}

/// Whether a VM has to be gone before the node is empty.
fn is_on(vm: &VmView, node: &NodeName) -> bool {
    let record = &vm.record.value;
    vm.is_held_by(node)
        || record.state.destination() == Some(node)
        || vm.sent_to() == Some(node)
        || (record.state.occupies_node() && record.node.as_ref() == Some(node))
}

/// Where every VM of a node would go.
pub fn evacuate(view: &ClusterView, node: &NodeName) -> Plan {
    let mut ledger = Ledger::of(view);
    let mut plan = Plan::default();
    for vm in in_order(view.vms_of(node).filter(|vm| is_on(vm, node))) {
        let fate = leave(view, &mut ledger, vm, node);
        plan.fates.push((vm.record.value.uuid, vm.record.value.name.clone(), fate));
    }
    plan
}

/// A VM that may only be moved live, and could not be, again and again.
fn given_up(vm: &VmView) -> Option<Fate> {
    let failure = vm.status.as_ref()?.move_failure.as_ref()?;
    let only_live = vm.record.value.meta.method == MigrationMethod::Live;
    let why = || format!("its move to {} failed {} times: {}", failure.to, failure.count, failure.reason);
    (only_live && failure.count >= FAILURES_MAX).then(|| Fate::Blocked(why()))
}

fn leave(view: &ClusterView, ledger: &mut Ledger, vm: &VmView, node: &NodeName) -> Fate {
    let record = &vm.record.value;
    if let Some(why) = vm.unreadable() {
        return Fate::Blocked(why.to_owned());
    }
    if record.state != VmState::Start || record.node.as_ref() != Some(node) || vm.sent_to().is_some() {
        return Fate::UnderWay;
    }
    if let Some(blocked) = given_up(vm) {
        return blocked;
    }
    if vm.status.as_ref().is_some_and(|s| s.run == Some(RunState::Paused)) {
        return Fate::Blocked("its guest is paused; let it run on, or stop it".to_owned());
    }
    let placement = place::choose(view, ledger, &Wanted::moved(vm));
    match placement.chosen {
        Some((to, how)) => {
            ledger.expect(&to, vm.demand);
            Fate::Moves { to, how }
        }
        None => Fate::ShutDown(placement.reasons()),
    }
}

/// Which VMs come home to a node, and which are started there.
pub fn bring_home(view: &ClusterView, node: &NodeName) -> Plan {
    let mut ledger = Ledger::of(view);
    let mut plan = Plan::default();
    let concerned = view.vms_of(node).filter(|vm| {
        let record = &vm.record.value;
        let waits =
            record.meta.autostart && (record.node.as_ref() == Some(node) || record.last_node.as_ref() == Some(node));
        // An earlier flush sends it away still: it comes home when it has arrived.
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

fn come(view: &ClusterView, ledger: &mut Ledger, vm: &VmView, node: &NodeName) -> Option<Fate> {
    let record = &vm.record.value;
    if !view.nodes.contains_key(node) {
        return None;
    }
    let mut fit = |wanted: Wanted<'_>| {
        let placement = place::choose(view, ledger, &wanted.to(Some(node)).as_ready(Some(node)));
        match (placement.chosen, placement.verdicts.into_iter().next()) {
            (Some((_, how)), _) => {
                ledger.expect(node, vm.demand);
                Ok(how)
            }
            (None, Some((_, Verdict::Rejected(why)))) => Err(Fate::Blocked(why.to_string())),
            (None, _) => Err(Fate::Blocked(format!("there is no node {node}"))),
        }
    };
    if let Some(why) = vm.unreadable() {
        return Some(Fate::Blocked(why.to_owned()));
    }
    match &record.state {
        VmState::Migrate { .. } => Some(Fate::UnderWay),
        // It has been shut down here, and holds its room until it is released.
        VmState::Stop if record.meta.autostart && vm.is_held_by(node) => Some(Fate::UnderWay),
        // Its home or the node where it was shut down, whichever is ready first.
        VmState::Stop if record.meta.autostart && vm.is_free() => {
            let wanted = Wanted { may_stay: true, ..Wanted::moved(vm).by(How::Cold) };
            Some(fit(wanted).map_or_else(|blocked| blocked, |_| Fate::Starts))
        }
        VmState::Shutdown { .. } if record.meta.autostart && record.node.as_ref() == Some(node) => Some(Fate::UnderWay),
        VmState::Restart { .. } if record.last_node.as_ref() == Some(node) => Some(Fate::UnderWay),
        VmState::Start if record.last_node.as_ref() == Some(node) && vm.sent_to().is_some() => Some(Fate::UnderWay),
        // Only what runs comes home; what was stopped meanwhile stays where it is.
        VmState::Start if record.last_node.as_ref() == Some(node) => {
            if let Some(blocked) = given_up(vm) {
                return Some(blocked);
            }
            Some(match fit(Wanted::moved(vm)) {
                Ok(how) => Fate::Moves { to: node.clone(), how },
                Err(blocked) => blocked,
            })
        }
        _ => None,
    }
}

impl Plan {
    /// For people and for scripts that wait.
    pub fn report(&self) -> DrainReport {
        let mut report = DrainReport::default();
        for (_, name, fate) in &self.fates {
            match fate {
                Fate::Blocked(why) => report.blocked.push((name.clone(), why.clone())),
                Fate::UnderWay => (report.left, report.moving) = (report.left + 1, report.moving + 1),
                Fate::Moves { .. } | Fate::ShutDown(_) | Fate::Starts => report.left += 1,
            }
        }
        report
    }

    /// Whether nothing is left to do, and nothing under way.
    pub fn is_done(&self) -> bool {
        self.fates.iter().all(|(_, _, fate)| matches!(fate, Fate::Blocked(_)))
    }

    /// What is to be written now: no more moves than the limits let begin, so that the rest is planned on what is so
    /// then.
    pub fn orders(&self, view: &ClusterView, node: &NodeName, kind: MoveKind) -> Vec<Order> {
        let limits = view.config.limits;
        let under_way = |of: &dyn Fn(&VmRecord) -> bool| {
            let moving = view.moving().filter(|vm| vm.record.value.state.destination().is_some());
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
                // It waits to be started, and may as well be started here.
                Fate::Moves { to, .. } if to == node && vm.is_free() => {
                    claim = vm.claim.as_ref().map(|c| c.version);
                    old.arrived(to, kind)
                }
                Fate::Moves { to, how } => {
                    let to_it = targets.entry(to).or_insert_with(|| under_way(&|r| r.state.destination() == Some(to)));
                    if room == 0 || *to_it >= limits.per_target {
                        continue;
                    }
                    (room, *to_it) = (room - 1, *to_it + 1);
                    VmRecord { state: VmState::Migrate { to: to.clone(), kind, how: *how }, ..old.clone() }
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
                    }
                    record.state = VmState::Start;
                    record.meta.autostart = false;
                    record
                }
                Fate::UnderWay | Fate::Blocked(_) => continue,
            };
            orders.push(Order { uuid: *uuid, version: vm.record.version, claim, record });
        }
        orders
    }
}

/// Why a node may not be flushed. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody would be left to take VMs.
    #[error(
        "{node} is the last node that takes VMs: every VM on it would be shut down. Make another node ready first, or use force"
    )]
    LastNode {
        /// The node.
        node: NodeName,
    },
    /// Its daemon would have to do it.
    #[error("the daemon of node {node} is in state {daemon}, so it cannot do this; start it first")]
    NotRunning {
        /// The node.
        node: NodeName,
        /// What its daemon does.
        daemon: DaemonState,
    },
}

/// The state that a request makes of a node's, which is `now` by its record: whether it is to be emptied, or to take
/// VMs.
pub fn request(
    view: &ClusterView,
    name: &NodeName,
    now: DomainState,
    ready: bool,
    force: bool,
) -> Result<DomainState, Refusal> {
    use DomainState::*;
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
