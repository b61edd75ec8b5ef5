//! What people do behind Drover's back: they migrate guests with the hypervisor's own tools, make snapshots that
//! replace disks, and lose the store. Some invariants know of it; and an administrator who has done such a thing waits
//! with further orders for that VM until Drover has followed.

use crate::{invariants::Judge, world::Machine};
use drover_model::{
    Claim, ClusterView, DaemonState, Epoch, NodeName, RecordKind, VmRecord, VmState,
    domain::{Candidate, Mark, Written},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// What is known of it.
#[derive(Default)]
pub(crate) struct Strangers {
    /// Guests that execute where no claim says: they were taken there by hand, or their store was lost.
    outside: BTreeSet<(Uuid, NodeName, Epoch)>,
    /// When the store was lost, and the VMs that ran then and are not defined again yet.
    lost: Option<(Instant, BTreeSet<Uuid>)>,
    /// Number of orders that are under way for each VM.
    orders: BTreeMap<Uuid, usize>,
    /// The disks that a VM's guest has written to last, where others than its definition's.
    newest: BTreeMap<Uuid, Written>,
}

impl Strangers {
    /// A guest has ended.
    pub(crate) fn ended(&mut self, uuid: Uuid, node: &NodeName) {
        self.outside.retain(|(of, at, _)| *of != uuid || at != node);
        // Whoever defines it again cannot know of its disks.
        if self.lost.as_mut().is_some_and(|(_, vms)| vms.remove(&uuid)) {
            self.newest.remove(&uuid);
        }
    }

    /// A guest has started. A daemon that ended with the store may have asked for that.
    pub(crate) fn started(&mut self, uuid: Uuid, node: &NodeName, mark: Mark) {
        if let Some((at, vms)) = &mut self.lost
            && at.elapsed() < LATE_CALL
        {
            vms.insert(uuid);
            self.outside.insert((uuid, node.clone(), mark.epoch));
        }
    }

    /// A VM's records are deleted.
    pub(crate) fn deleted(&mut self, uuid: &Uuid) {
        self.newest.remove(uuid);
    }

    /// Whether a guest executes there although no claim says so.
    pub(crate) fn knows(&self, uuid: Uuid, node: &NodeName, mark: Mark) -> bool {
        self.outside.contains(&(uuid, node.clone(), mark.epoch))
    }
}

impl Judge {
    /// An order for a VM begins, or has ended.
    pub(crate) fn ordering(&self, uuid: Uuid, begins: bool) {
        let orders = &mut self.lock().strangers.orders;
        let under_way = orders.entry(uuid).or_default();
        *under_way = if begins { *under_way + 1 } else { under_way.saturating_sub(1) };
    }

    /// Forgets guests whose nodes have the claims by now.
    pub(crate) fn followed(&self) {
        let outside: Vec<_> = self.lock().strangers.outside.iter().cloned().collect();
        for (uuid, node, epoch) in outside {
            let held = |claim: &Claim| claim.is_held_by(&node) && claim.to.is_none() && claim.epoch >= epoch;
            if self.read(&Claim::path(&uuid)).is_some_and(|claim: Claim| held(&claim)) {
                let strangers = &mut self.lock().strangers;
                strangers.outside.remove(&(uuid, node, epoch));
                if let Some((_, vms)) = &mut strangers.lost {
                    vms.remove(&uuid);
                }
            }
        }
    }

    /// Whether a careful administrator gives orders for a VM now.
    pub(crate) fn is_followed(&self, uuid: Uuid) -> bool {
        self.followed();
        !self.lock().strangers.outside.iter().any(|(of, ..)| *of == uuid)
    }

    /// The guests without records that run although their store was lost, and where; not those that are nobody's yet.
    pub(crate) fn orphans(&self, machines: &[Machine]) -> Vec<(Uuid, NodeName)> {
        self.followed();
        let outside: Vec<_> = self.lock().strangers.outside.iter().cloned().collect();
        let orphans = outside.into_iter().filter(|(uuid, ..)| self.peek(&VmRecord::path(uuid)).is_none());
        let orphans = orphans.map(|(uuid, node, _)| (uuid, node));
        orphans.filter(|(uuid, _)| where_foreign(machines, *uuid).is_none()).collect()
    }

    /// Somebody makes a domain with the hypervisor's own tools, off or running, of a VM that is nowhere.
    pub(crate) fn make_domain(&self, machines: &[Machine], at: &Machine, xml: String, uuid: Uuid, runs: bool) {
        let somewhere = |machine: &Machine| machine.hardware.defined().contains(&uuid);
        let known = self.peek(&VmRecord::path(&uuid)).is_some() || where_foreign(machines, uuid).is_some();
        let pending = self.lock().strangers.orders.get(&uuid).is_some_and(|n| *n > 0);
        if known || pending || !at.mains.is_on(&at.name) || machines.iter().any(somewhere) {
            return;
        }
        self.note(&format!("{}: somebody makes a domain {uuid}, which runs: {runs}", at.name), |t| {
            t.foreign_domains += 1
        });
        if runs {
            self.lock().strangers.outside.insert((uuid, at.name.clone(), Mark::IMPORTED.epoch));
        }
        let domain = Candidate::off(uuid, format!("vm{}", uuid.as_u128()), xml);
        at.hardware.set_foreign(if runs { domain.running() } else { domain });
    }

    /// Somebody may take a guest elsewhere by hand: it is to run, nothing else is ordered or under way.
    fn rests(&self, uuid: Uuid) -> bool {
        let claim: Option<Claim> = self.read(&Claim::path(&uuid));
        let record: Option<VmRecord> = self.read(&VmRecord::path(&uuid));
        let runs = record.is_some_and(|record| record.state == VmState::Start);
        let settled = claim.is_some_and(|claim| claim.node.is_some() && claim.to.is_none() && !claim.resume);
        runs && settled && self.is_followed(uuid) && self.lock().strangers.orders.get(&uuid).is_none_or(|n| *n == 0)
    }

    /// Somebody migrates a guest by hand. `fails`: in the last step, so that a copy is left and the guest goes on.
    pub(crate) fn take_by_hand(&self, (from, to): (&Machine, &Machine), (uuid, mark): (Uuid, Mark), fails: bool) {
        let held = self.read(&Claim::path(&uuid)).is_some_and(|claim: Claim| claim.is_held_by(&from.name));
        let seen = |machine: &Machine| machine.daemon.is_some();
        if !self.executes_on(&from.name, uuid) || !held || !self.rests(uuid) || !seen(from) || !seen(to) {
            return;
        }
        // A start that a daemon left behind would start the definition that stays.
        if from.hardware.is_called(uuid) {
            return;
        }
        if fails {
            if from.hardware.copy_is_left(&to.hardware, uuid) {
                self.note(&format!("{}: a copy of {uuid} is left by somebody's own migration", to.name), |t| {
                    t.hands += 1
                });
            }
            return;
        }
        if to.hardware.running().iter().any(|(of, _)| *of == uuid) {
            return;
        }
        self.note(&format!("{uuid} is taken from {} to {} by hand", from.name, to.name), |t| t.hands += 1);
        self.lock().strangers.outside.insert((uuid, to.name.clone(), mark.epoch));
        from.hardware.guest_is_taken(&to.hardware, uuid);
    }

    /// Somebody makes an external snapshot of a guest's disks, or merges it again.
    pub(crate) fn replace_disks(&self, machine: &Machine, uuid: Uuid, suffix: Option<&str>) {
        // Of a guest without a definition nothing is left that could tell, if its daemon is away when it ends.
        if !self.executes_on(&machine.name, uuid) || !self.rests(uuid) || !machine.hardware.has_definition(uuid) {
            return;
        }
        machine.hardware.disks_are_replaced(uuid, suffix);
        let disks = machine.hardware.disks(uuid);
        self.note(&format!("{uuid} has the disks {disks:?}"), |t| t.replaced += 1);
        self.lock().strangers.newest.insert(uuid, disks);
    }

    /// No guest executes with older disks than the last that it has written to.
    pub(crate) fn disks_hold(&self, machines: &[Machine]) {
        for machine in machines {
            for (uuid, _) in machine.hardware.running() {
                let newest = self.lock().strangers.newest.get(&uuid).cloned();
                let has = machine.hardware.disks(uuid);
                if let Some(newest) = newest.filter(|newest| *newest != has && self.executes_on(&machine.name, uuid)) {
                    self.violated(format!("VM {uuid} runs on {} with {has:?}, and had {newest:?}", machine.name));
                }
            }
        }
    }

    /// The store is lost. What runs goes on.
    pub(crate) fn store_is_lost(&self) {
        self.note("the store is lost", |t| t.losses += 1);
        let state = &mut *self.lock();
        let guests = state.running.iter().flat_map(|(uuid, nodes)| nodes.iter().map(move |on| (uuid, on)));
        let outside: BTreeSet<_> = guests.map(|(uuid, (node, mark))| (*uuid, node.clone(), mark.epoch)).collect();
        let runs: BTreeSet<Uuid> = outside.iter().map(|(uuid, ..)| *uuid).collect();
        state.strangers.newest.retain(|uuid, _| runs.contains(uuid));
        state.strangers.outside = outside;
        state.strangers.lost = Some((Instant::now(), runs));
    }

    /// Whether a guest is outside: while its nodes do not know where it is, they may not lose their power, or a second
    /// one would be started. (Nobody can know better.)
    pub(crate) fn any_is_outside(&self) -> bool {
        self.followed();
        !self.lock().strangers.outside.is_empty()
    }
}

/// The machine that has a domain of that UUID which is not Drover's.
pub(crate) fn where_foreign(machines: &[Machine], uuid: Uuid) -> Option<&Machine> {
    machines.iter().find(|machine| machine.hardware.foreign().iter().any(|domain| domain.uuid == uuid))
}

/// Time after which no call of a daemon that is gone takes effect any more.
const LATE_CALL: Duration = Duration::from_secs(60);

/// Whether an administrator who looks at all nodes sees which guests run, so that VMs can be defined again.
pub(crate) fn sees_all(view: &ClusterView, machines: &[Machine], orphans: &[(Uuid, NodeName)]) -> bool {
    let reported = |uuid: &Uuid, node: &NodeName| {
        let report = view.nodes.get(node).and_then(|node| node.status.as_ref());
        report.is_some_and(|report| report.strays.iter().any(|stray| stray.uuid == *uuid))
    };
    let there = |machine: &Machine| view.nodes.get(&machine.name).is_some_and(|n| n.daemon_state() == DaemonState::Run);
    machines.iter().all(there) && orphans.iter().all(|(uuid, node)| reported(uuid, node))
}
