//! A VM's records, joined.

use crate::{
    domain::{self, devices::Devices},
    name::NodeName,
    record::{Kept, Stored},
    shelf::Shelves,
    vm::{Arrival, Claim, Demand, RunState, VmRecord, VmState, VmStatus},
};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

/// A VM's records.
#[derive(Debug, Clone, PartialEq)]
pub struct VmView {
    /// Wanted state. Its state is [`VmState::Unreadable`] if the record cannot be read.
    pub record: Kept<VmRecord>,
    /// Which node may run it. `None`: not received yet (records are received one by one), or unreadable.
    pub claim: Option<Kept<Claim>>,
    /// Whether there is an unreadable claim: then it is unknown which node may run the VM.
    pub claim_unreadable: bool,
    /// The report of its node.
    pub status: Option<Kept<VmStatus>>,
    /// The answer of the target of its move.
    pub arrival: Option<Kept<Arrival>>,
    /// Cached from the definition.
    pub demand: Demand,
    /// Cached from the definition, for users.
    pub devices: Arc<Devices>,
}

// All members have a total equality, so a shared value equals itself without a comparison.
impl Eq for VmView {}

impl VmView {
    /// Joins the VM's records from the shelves; `None`: there is no such VM. `old`: its previous state.
    pub(super) fn join(shelves: &Shelves, uuid: &Uuid, old: Option<&VmView>) -> Option<VmView> {
        let record = shelves.of::<VmRecord>().get(uuid)?.clone();
        let same = old.filter(|old| old.record.is_same(&record) || old.record.value.xml == record.value.xml);
        let (demand, devices) = match same {
            Some(old) => (old.demand, old.devices.clone()),
            None => (domain::demand(&record.value.xml), Arc::new(Devices::read(&record.value.xml))),
        };
        Some(VmView {
            claim: shelves.of::<Claim>().get(uuid).cloned(),
            claim_unreadable: shelves.of::<Claim>().problem(uuid).is_some(),
            status: shelves.of::<VmStatus>().get(uuid).cloned(),
            arrival: shelves.of::<Arrival>().get(uuid).cloned(),
            record,
            demand,
            devices,
        })
    }

    /// A VM with nothing but its record, for tests and plans.
    pub fn of(record: Stored<VmRecord>) -> VmView {
        let (demand, devices) = (domain::demand(&record.value.xml), Arc::new(Devices::read(&record.value.xml)));
        let (claim, status, arrival) = (None, None, None);
        VmView { record: record.into(), claim, claim_unreadable: false, status, arrival, demand, devices }
    }

    /// Why no operation on it is possible: one of its records cannot be read.
    pub fn unreadable(&self) -> Option<&'static str> {
        if self.record.value.state == VmState::Unreadable {
            Some("its record is unreadable (see 'drover status')")
        } else if self.claim_unreadable {
            Some("its claim is unreadable (see 'drover status')")
        } else {
            None
        }
    }

    /// The node that may run it: the holder of its claim. If the claim is unreadable: the last known holder, or the
    /// node that it is assigned to.
    pub fn holder(&self) -> Option<&NodeName> {
        match &self.claim {
            Some(claim) => claim.value.node.as_ref(),
            None if self.claim_unreadable => {
                self.status.as_ref().map(|status| &status.value.node).or(self.record.value.node.as_ref())
            }
            None => None,
        }
    }

    /// Whether a node may run it.
    pub fn is_held_by(&self, node: &NodeName) -> bool {
        self.holder() == Some(node)
    }

    /// Whether no node may run it, so that it can be taken.
    pub fn is_free(&self) -> bool {
        !self.claim_unreadable && self.claim.as_ref().is_some_and(|claim| claim.value.node.is_none())
    }

    /// Where its guest may be other than on its holder: a move is under way, or was cancelled and may have completed
    /// anyway.
    pub fn sent_to(&self) -> Option<&NodeName> {
        self.claim.as_ref().and_then(|claim| claim.value.to.as_ref())
    }

    /// Whether its holder reports, under the present claim, that it does not run.
    pub fn is_reported_off(&self) -> bool {
        let (Some(claim), Some(status)) = (&self.claim, &self.status) else { return false };
        let current = claim.value.is_held_by(&status.node) && claim.value.epoch == status.epoch;
        current && !status.unknown && matches!(status.run, None | Some(RunState::Off))
    }

    /// Whether it should move to that node, or its guest may be on its way there.
    pub fn is_coming_to(&self, node: &NodeName) -> bool {
        self.record.value.state.destination() == Some(node) || self.sent_to() == Some(node)
    }

    /// Whether it should move, or its guest may be on its way.
    pub(super) fn is_moving(&self) -> bool {
        self.record.value.state.destination().is_some() || self.sent_to().is_some()
    }

    /// Whether a node must act for it: it is assigned to the node, held by it, or coming to it.
    pub fn concerns(&self, node: &NodeName) -> bool {
        let record = &self.record.value;
        record.node.as_ref() == Some(node)
            || self.is_held_by(node)
            || record.state.destination() == Some(node)
            || self.sent_to() == Some(node)
    }

    /// Whether it is relevant to a node: it concerns the node, has its home there, or that node was the last to report
    /// on it.
    pub fn matters_to(&self, node: &NodeName) -> bool {
        self.nodes().contains(node)
    }

    /// The node that handed it over to its holder, where it has not been in memory yet, and is to run.
    pub fn left(&self) -> Option<&NodeName> {
        let from = self.claim.as_ref().and_then(|claim| claim.value.from.as_ref());
        from.filter(|_| self.record.value.state.occupies_node())
    }

    /// The nodes that it is relevant to: those that it concerns, its home, where it came from, and the last one that
    /// reported on it.
    pub(super) fn nodes(&self) -> BTreeSet<&NodeName> {
        let record = &self.record.value;
        let named = [&record.node, &record.last_node].into_iter().filter_map(Option::as_ref);
        let said = self.arrival.as_ref().map(|arrival| &arrival.value.node);
        named
            .chain(record.state.destination())
            .chain(self.holder())
            .chain(self.sent_to())
            .chain(self.left())
            .chain(said)
            .collect()
    }
}
