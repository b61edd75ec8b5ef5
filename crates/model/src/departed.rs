//! What the cluster remembers of VMs that are gone, or about to go: one small record, `/departed`.
//!
//! Two facts about deleted VMs decide about new ones, and both must hold at the moment in which a definition is
//! written, through whatever node. So every definition checks this record's version in its transaction, and every order
//! that changes one of the facts changes the record in *its* transaction. Of a definition and an order that run at the
//! same time, the store lets one pass; the other reads again, and sees the first.
//!
//! * [`Departed::floor`]: epochs of a deleted VM never come again, so a guest that an earlier VM left on a node that
//!   was away is not taken for the guest of a new VM with the same UUID.
//! * [`Departed::disks_of`]: no new definition names a file that is being deleted with its VM.
//!
//! The record does not grow with the VMs that were deleted: the floor is one number for all UUIDs, and who changes or
//! checks the record drops the VMs whose deletion has ended.

use crate::{
    record::{Only, RecordKind, Writer},
    units::WallTime,
    vm::{Claim, Epoch, VM_SCHEMA},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// How far the floor is raised above the epoch that needs it, so that the next deletions, and those at the same time,
/// need not change the record.
const STRIDE: u64 = 1000;

/// `/departed`: see the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// No VM that was deleted has an epoch above it.
    pub floor: Epoch,
    /// The floor that the store began with. Only guests with a later mark are of VMs that this store knew.
    #[serde(default, skip_serializing_if = "Epoch::is_none")]
    pub began: Epoch,
    /// VMs that are, or were a moment ago, being deleted with their disks.
    #[serde(default)]
    pub disks_of: BTreeSet<Uuid>,
}

impl Departed {
    /// The record of a new cluster. Its epochs begin with the time in milliseconds: that is above all epochs of VMs
    /// that a version without this record deleted, and above those of a store that was lost, unless VMs were deleted
    /// there faster than one in a second (the floor is raised in steps of 1,000) all the time.
    pub fn new(now: WallTime) -> Departed {
        Departed { schema: VM_SCHEMA, floor: Epoch(now.0), began: Epoch(now.0), disks_of: BTreeSet::new() }
    }

    /// The claim of a new VM.
    pub fn claim(&self) -> Claim {
        Claim { began: self.began, ..Claim::new(self.floor) }
    }

    /// After the deletion of a VM with this claim. A migration may have left a domain with the next epoch.
    #[must_use]
    pub fn after(&self, claim: &Claim) -> Departed {
        let highest = if claim.never_granted() { claim.epoch } else { claim.epoch.next() };
        let floor = if highest <= self.floor { self.floor } else { Epoch(highest.0.saturating_add(STRIDE)) };
        Departed { floor, ..self.clone() }
    }
}

impl RecordKind for Departed {
    type Key = Only;
    const AT: &'static str = "/departed";
    const SCHEMA: u32 = VM_SCHEMA;
    const WRITER: Writer = Writer::Requests;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeName;

    #[test]
    fn a_new_vm_has_epochs_that_no_deleted_one_had() {
        let node = NodeName::new("a").unwrap();
        let begin = Departed::new(WallTime(7_000));
        let first = Claim::new(begin.floor).granted_to(&node).released().granted_to(&node);
        // The VM was sent to a node that went away with the guest: it has the epoch after the claim's.
        let (here, sent) = (first.epoch, first.epoch.next());
        let again = Claim::new(begin.after(&first).floor);
        assert_eq!(begin.after(&first).after(&first), begin.after(&first), "one change is enough for many");
        assert!(again.never_granted() && again.is_after(here) && again.is_after(sent));
        let granted = again.granted_to(&node);
        assert!(granted.epoch > sent && !granted.is_after(granted.epoch) && !granted.released().never_granted());
    }

    #[test]
    fn a_mark_is_of_a_deleted_vm_only_if_this_store_gave_its_epoch() {
        let node = NodeName::new("a").unwrap();
        let begin = Departed::new(WallTime(7_000));
        let deleted = begin.claim().granted_to(&node);
        let again = begin.after(&deleted).claim();
        for claim in [again.clone(), again.granted_to(&node).released(), again.granted_above(Epoch(3), &node)] {
            assert!(claim.is_after(deleted.epoch) && !claim.is_of_another_store(deleted.epoch));
            assert!(claim.is_after(Epoch(7_000)) && claim.is_of_another_store(Epoch(7_000)));
        }
        assert!(!again.is_of_another_store(again.granted_to(&node).epoch));
    }

    #[test]
    fn a_vm_that_never_ran_leaves_nothing() {
        let begin = Departed::new(WallTime(7_000));
        assert_eq!(begin.after(&Claim::new(begin.floor)), begin);
    }
}
