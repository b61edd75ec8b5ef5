//! A VM's records, joined.

use crate::{
    domain::{self, devices::Devices},
    name::NodeName,
    record::{Kept, Stored},
    shelf::Shelves,
    vm::{Arrival, Claim, Demand, VmRecord, VmState, VmStatus},
};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

/// A VM's records.
#[derive(Debug, Clone, PartialEq)]
pub struct VmView {
    /// What is wanted. Its state is [`VmState::Unreadable`] if that cannot be read.
    pub record: Kept<VmRecord>,
    /// Who may run it. `None`: it has not come yet (the records come one by one), or cannot be read.
    pub claim: Option<Kept<Claim>>,
    /// Whether there is a claim that cannot be read: then nobody here knows who may run it.
    pub claim_unreadable: bool,
    /// What its node reports.
    pub status: Option<Kept<VmStatus>>,
    /// What the node says to which it is to go.
    pub arrival: Option<Kept<Arrival>>,
    /// Read from the definition once.
    pub demand: Demand,
    /// Read from the definition once, for people.
    pub devices: Arc<Devices>,
}

// Nothing in it is unlike itself, so that a shared one is equal without being looked at.
impl Eq for VmView {}

impl VmView {
    /// Joins what is on the shelves; `None`: there is no such VM. `old`: what it was before.
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

    /// A VM without anything but its record, as a test or a plan needs it.
    pub fn of(record: Stored<VmRecord>) -> VmView {
        let (demand, devices) = (domain::demand(&record.value.xml), Arc::new(Devices::read(&record.value.xml)));
        let (claim, status, arrival) = (None, None, None);
        VmView { record: record.into(), claim, claim_unreadable: false, status, arrival, demand, devices }
    }

    /// Why nothing may be done with it: one of its records cannot be read.
    pub fn unreadable(&self) -> Option<&'static str> {
        if self.record.value.state == VmState::Unreadable {
            Some("its record is unreadable (see 'drover status')")
        } else if self.claim_unreadable {
            Some("its claim is unreadable (see 'drover status')")
        } else {
            None
        }
    }

    /// Who may run it: the holder of its claim. Of one that cannot be read the last that was heard of, or the node that
    /// it is assigned to.
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

    /// Whether nobody may run it, so that whoever is to may take it.
    pub fn is_free(&self) -> bool {
        !self.claim_unreadable && self.claim.as_ref().is_some_and(|claim| claim.value.node.is_none())
    }

    /// Where its guest may be beside its holder: a move is under way, or was taken back and may have come to its end
    /// all the same.
    pub fn sent_to(&self) -> Option<&NodeName> {
        self.claim.as_ref().and_then(|claim| claim.value.to.as_ref())
    }

    /// Whether it is to move, or its guest may be on its way.
    pub(super) fn is_moving(&self) -> bool {
        self.record.value.state.destination().is_some() || self.sent_to().is_some()
    }

    /// Whether a node has something to do for it: it is assigned to it, held by it, or coming to it.
    pub fn concerns(&self, node: &NodeName) -> bool {
        let record = &self.record.value;
        record.node.as_ref() == Some(node)
            || self.is_held_by(node)
            || record.state.destination() == Some(node)
            || self.sent_to() == Some(node)
    }

    /// Whether it counts for a node: it concerns it, has its home there, or that node spoke of it last.
    pub fn matters_to(&self, node: &NodeName) -> bool {
        self.nodes().contains(node)
    }

    /// The nodes to which it matters: those, its home, and the one that spoke of it last.
    pub(super) fn nodes(&self) -> BTreeSet<&NodeName> {
        let record = &self.record.value;
        let named = [&record.node, &record.last_node].into_iter().filter_map(Option::as_ref);
        let said = self.arrival.as_ref().map(|arrival| &arrival.value.node);
        named.chain(record.state.destination()).chain(self.holder()).chain(self.sent_to()).chain(said).collect()
    }
}
