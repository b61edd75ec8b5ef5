//! Faults of VMs and of guests without a claim: their ids, and which of them are of a VM or a node that is not there
//! any more. And how the messages of all faults name many things.

use drover_model::{ClusterView, NodeName, NodeRecord, RecordKind, RecordPath, Version, VmRecord};
use uuid::Uuid;

/// What the ids of a VM's faults begin with; its UUID follows.
const PREFIXES: [&str; 7] =
    ["vm-disks-", "vm-failed-", "vm-paused-", "vm-refused-", "vm-torn-", "vm-unkillable-", "vm-unresumed-"];

/// A list in a message, of which no more than `most` are named.
pub fn named(list: &[String], most: usize) -> String {
    let named = list[..list.len().min(most)].join(", ");
    match list.len().saturating_sub(most) {
        0 => named,
        more => format!("{named}, and {more} more"),
    }
}

/// The ids of all faults that a VM may have.
pub fn of_vm(uuid: &Uuid) -> [String; 7] {
    PREFIXES.map(|prefix| format!("{prefix}{uuid}"))
}

/// The id of the fault of a failed VM.
pub fn vm_failed(uuid: &Uuid) -> String {
    let [_, failed, ..] = of_vm(uuid);
    failed
}

/// The id of the fault of a guest that is paused, and that somebody must see to.
pub fn vm_paused(uuid: &Uuid) -> String {
    let [_, _, paused, ..] = of_vm(uuid);
    paused
}

/// The id of the fault of a guest whose power cannot be cut.
pub fn vm_unkillable(uuid: &Uuid) -> String {
    let [.., unkillable, _] = of_vm(uuid);
    unkillable
}

/// The id of the fault of a VM that could not be started where it was moved to.
pub fn vm_refused(uuid: &Uuid) -> String {
    let [_, _, _, refused, ..] = of_vm(uuid);
    refused
}

/// The id of the fault of a guest that was migrated and cannot execute where it is now.
pub fn vm_unresumed(uuid: &Uuid) -> String {
    let [.., unresumed] = of_vm(uuid);
    unresumed
}

/// The id of the fault of a guest whose memory is on two nodes that do not reach each other.
pub fn vm_torn(uuid: &Uuid) -> String {
    let [.., torn, _, _] = of_vm(uuid);
    torn
}

/// The id of the fault of a VM whose next start would use older data than its guest has, or had.
pub fn vm_disks(uuid: &Uuid) -> String {
    let [disks, ..] = of_vm(uuid);
    disks
}

/// What the id of the fault of a guest without a claim begins with; its UUID and its node follow. It is its node's,
/// since there may be no record of its VM.
const STRAY: &str = "vm-stray-";

/// The id of the fault of a guest that runs on a node without a claim.
pub fn stray(uuid: &Uuid, node: &NodeName) -> String {
    format!("{STRAY}{uuid}-{node}")
}

/// Of which guest and on which node the fault of a guest without a claim is.
fn stray_of(id: &str) -> Option<(Uuid, NodeName)> {
    let (uuid, node) = id.strip_prefix(STRAY)?.split_at_checked(uuid::fmt::Hyphenated::LENGTH)?;
    Some((uuid.parse().ok()?, NodeName::new(node.strip_prefix('-')?).ok()?))
}

/// The guests without a claim of which there are faults of a node.
pub fn strays_of(view: &ClusterView, node: &NodeName) -> Vec<Uuid> {
    let strays = view.faults().keys().filter_map(|id| stray_of(id));
    strays.filter(|(_, on)| on == node).map(|(uuid, _)| uuid).collect()
}

/// Faults of VMs and nodes that are not there any more, with the path of the record that is missing, and the fault's
/// version. A node was removed while it had such a fault; or an older daemon wrote one after the VM was deleted.
pub fn leftovers(view: &ClusterView) -> Vec<(String, RecordPath, Version)> {
    let vm = |id: &str| PREFIXES.iter().find_map(|prefix| id.strip_prefix(prefix)?.parse::<Uuid>().ok());
    let gone = |id: &str| match (vm(id), stray_of(id)) {
        (Some(uuid), _) => (!view.vms.contains_key(&uuid)).then(|| VmRecord::path(&uuid)),
        (None, Some((_, node))) => (!view.nodes.contains_key(&node)).then(|| NodeRecord::path(&node)),
        (None, None) => None,
    };
    view.faults().iter().filter_map(|(id, fault)| Some((id.clone(), gone(id)?, fault.version))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Fault, RecordKind, WallTime, testing::*};

    #[test]
    fn only_a_fault_of_a_vm_or_a_node_that_is_not_there_is_left_over() {
        let mut view = cluster(vec![node("a", 8)], vec![vm(1, 64).on("a")]);
        let of_both = of_vm(&Uuid::from_u128(1)).into_iter().chain(of_vm(&Uuid::from_u128(2)));
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (a, away) = (name("a"), name("a-2"));
        let strays = [stray(&one, &a), stray(&two, &a), stray(&two, &away)];
        for id in of_both.chain(strays).chain(["primary-services".to_owned(), "vm-stray-a".to_owned()]) {
            let at = WallTime(1);
            let fault = Fault {
                schema: 1,
                id: id.clone(),
                message: String::new(),
                health_delta: 10,
                first_reported: at,
                last_reported: at,
                acknowledged_at: None,
            };
            view.apply(&Fault::path(&id), Some((&serde_json::to_vec(&fault).unwrap(), Version(3))));
        }
        let [disks, failed, paused, refused, torn, unkillable, unresumed] =
            of_vm(&two).map(|id| (id, VmRecord::path(&two), Version(3)));
        let removed = (stray(&two, &away), NodeRecord::path(&away), Version(3));
        assert_eq!(leftovers(&view), [disks, failed, paused, refused, removed, torn, unkillable, unresumed]);
        assert_eq!((strays_of(&view, &a), strays_of(&view, &away)), (vec![one, two], vec![two]));
    }
}
