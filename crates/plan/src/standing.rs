//! The standing recovery plan: what would become of each node's VMs if that node were lost now. Nothing is kept:
//! [`crate::recover`] plans it on the present view, as it does when a node is lost.
//!
//! A loss cannot be absorbed if VMs that run on the node, and could run on another, find no memory there. That is a
//! fault of the cluster. A VM that no other node can take for another reason (a file that is not shared, a host device)
//! is none: no memory would help it. The plan names it all the same.

use crate::{
    capacity::{Ledger, OVERHEAD},
    faults,
    place::{self, Verdict, Wanted},
    recover::{self, Fate, Plan},
};
use drover_model::{
    Bytes, ClusterView, Demand, NodeName, Stored, VmMeta, VmName, VmRecord, VmState, domain::devices::Devices,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the ids of the faults begin with; a node's name follows.
const SHORT: &str = "recovery-short-";
/// Percentage of the cluster's health that a loss which cannot be absorbed costs: nothing is wrong yet.
const SHORT_DELTA: u8 = 5;
/// How many VMs a fault names.
const NAMED: usize = 5;

/// What becomes of a node's VMs if it is lost now.
pub fn if_lost(view: &ClusterView, node: &NodeName) -> Plan {
    let for_good = view.fences().get(node).is_some_and(|fence| fence.value.for_good);
    recover::plan(view, &BTreeMap::from([(node.clone(), for_good)]), true)
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
    /// Number of further VMs of the size that was asked for.
    pub further: Option<u64>,
}

/// What the loss of a node would mean. `size`: also count further VMs of that size, after its recovery.
pub fn loss(view: &ClusterView, node: &NodeName, size: Option<Demand>) -> Loss {
    let mut loss = Loss::default();
    let mut ledger = Ledger::of(view).without([node]);
    for item in if_lost(view, node).items {
        let demand = view.vms.get(&item.uuid).map(|vm| vm.demand).unwrap_or_default();
        match item.fate {
            Fate::Waits(_) => loss.bound.push(item.vm),
            Fate::NoRoom(_) => {
                loss.missing = loss.missing.saturating_add(demand.memory).saturating_add(OVERHEAD);
                loss.short.push(item.vm);
            }
            Fate::Starts { to, .. } => {
                ledger.expect(&to, demand);
                loss.go_on += 1;
            }
            Fate::HandedOver(_) | Fate::UnderWay(_) => loss.go_on += 1,
            Fate::Rests(_) | Fate::Freed | Fate::Assigned(_) | Fate::DeletedBy(_) => {}
        }
    }
    loss.further = size.map(|size| fits(view, &ledger, size));
    loss
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

/// Whether losses that cannot be absorbed are faults.
pub fn is_tolerant(view: &ClusterView) -> bool {
    view.config.tolerate > 0
}

/// The faults of losses that cannot be absorbed, by id, each with its message and its deduction from the health. A node
/// that is silent already has faults of its own.
pub fn faults(view: &ClusterView, losses: &[(NodeName, Loss)]) -> BTreeMap<String, (String, u8)> {
    let concerned = losses.iter().filter(|(node, loss)| {
        let silent = view.nodes.get(node).is_none_or(|node| node.session.is_none());
        is_tolerant(view) && !silent && !loss.short.is_empty()
    });
    let fault = |(node, loss): &(NodeName, Loss)| {
        let short: Vec<String> = loss.short.iter().map(ToString::to_string).collect();
        let message = format!(
            "If node {node} were lost, the other nodes would have no memory for {} of its VMs ({}): {} are missing. \
             Add memory or a node, stop VMs, or accept it ('drover config set --tolerate 0'). \
             See 'drover cluster plan {node}'.",
            short.len(),
            faults::named(&short, NAMED),
            loss.missing
        );
        (format!("{SHORT}{node}"), (message, SHORT_DELTA))
    };
    concerned.map(fault).collect()
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
pub fn warnings(view: &ClusterView, losses: &[(NodeName, Loss)]) -> Vec<String> {
    let new = faults(view, losses).into_iter().filter(|(id, _)| !view.faults().contains_key(id));
    new.map(|(_, (message, _))| message).collect()
}

/// The ids of the reported faults of this kind.
pub fn reported(view: &ClusterView) -> impl Iterator<Item = &String> {
    view.faults().keys().filter(|id| id.starts_with(SHORT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{ClusterConfig, How, MoveKind, VmView, testing::*};

    fn size(mib: u64) -> Demand {
        Demand { memory: Bytes::mib(mib), vcpus: 1 }
    }

    /// What the loss of a node would mean, and its fault.
    fn told(view: &ClusterView, node: &str) -> (Loss, Option<String>) {
        let losses = [(name(node), loss(view, &name(node), None))];
        let fault = faults(view, &losses).remove(&format!("recovery-short-{node}"));
        let [(_, loss)] = losses;
        (loss, fault.map(|(message, _)| message))
    }

    #[test]
    fn a_loss_that_leaves_no_memory_is_a_fault_and_names_what_is_missing() {
        let vms = || vec![running(1, "a", 1024), running(2, "a", 2048), running(3, "b", 4096)];
        let view = cluster(vec![node("a", 8), node("b", 8), node("c", 4)], vms());
        let (lost, fault) = told(&view, "a");
        assert_eq!((lost.go_on, fault), (2, None));

        let view = cluster(vec![node("a", 8), node("b", 8), node("c", 2)], vms());
        let (lost, _) = told(&view, "b");
        assert_eq!((lost.go_on, lost.short.len(), lost.bound.len()), (1, 0, 0), "a takes it");
        let mut view = cluster(vec![node("a", 6), node("b", 8), node("c", 2)], vms());
        let (lost, fault) = told(&view, "b");
        let needed = Bytes::mib(4096).saturating_add(OVERHEAD);
        assert_eq!((lost.go_on, lost.short, lost.missing), (0, vec![VmName::new("vm3").unwrap()], needed));
        assert!(fault.is_some_and(|message| message.contains("no memory for 1 of its VMs (vm3)")));

        let config = view.config.clone();
        view.config = ClusterConfig { tolerate: 0, ..config.clone() };
        assert_eq!(told(&view, "b").1, None, "it need not be tolerated");
        view.config = config;
        view.change_node(&name("b"), |node| node.session = None);
        assert_eq!(told(&view, "b").1, None, "it is silent, which is a fault itself");
    }

    #[test]
    fn a_vm_that_is_bound_to_its_node_lacks_no_memory() {
        let disk = "<devices><disk type='file'><source file='/own/disk'/><target dev='vda'/></disk></devices>";
        let view = cluster(vec![node("a", 8), node("b", 8)], vec![running(1, "a", 512).defined(disk)]);
        let (lost, fault) = told(&view, "a");
        assert_eq!((lost.bound.len(), lost.short.len(), fault), (1, 0, None));
    }

    #[test]
    fn a_living_node_takes_nothing_in_the_plan_for_its_loss() {
        // Off, and to be deleted: any node could do it.
        let vm = vm(1, 512).on("a").wanted(VmState::Delete { disks: false });
        let view = cluster(vec![node("a", 8), node("b", 8)], vec![vm]);
        let plan = if_lost(&view, &name("a"));
        assert_eq!(plan.items[0].fate, Fate::DeletedBy(name("b")));
    }

    #[test]
    fn an_order_is_warned_of_once_and_only_if_its_vm_would_run() {
        let resting = || vm(1, 4096).on("b").wanted(VmState::Stop);
        let view = cluster(vec![node("a", 2), node("b", 8)], vec![resting(), running(2, "b", 512)]);
        let warned = |view: &ClusterView| {
            let view = if_started(view, &Uuid::from_u128(1));
            warnings(&view, &[(name("b"), loss(&view, &name("b"), None))]).concat()
        };
        assert_eq!(faults(&view, &[(name("b"), loss(&view, &name("b"), None))]).len(), 0, "it is off");
        assert!(warned(&view).contains("no memory for 1 of its VMs (vm1)"), "{}", warned(&view));
        let roomy = cluster(vec![node("a", 8), node("b", 8)], vec![resting()]);
        assert_eq!(warned(&roomy), "");
        let mut lenient = view.clone();
        lenient.config = ClusterConfig { tolerate: 0, ..view.config.clone() };
        assert_eq!(warned(&lenient), "");
        let vm = view.vms.get(&Uuid::from_u128(1)).unwrap();
        let migrating = VmState::Migrate { to: name("a"), how: How::Cold, kind: MoveKind::Move };
        let mut moving = view.clone();
        moving.put_vm(&VmView::clone(vm).wanted(migrating.clone()));
        let moving = if_started(&moving, &Uuid::from_u128(1));
        assert_eq!(moving.vms[&Uuid::from_u128(1)].record.value.state, migrating, "what it does is not changed");
    }

    #[test]
    fn further_vms_are_counted_with_and_without_a_loss() {
        let view = cluster(vec![node("a", 4), node("b", 4)], vec![running(1, "a", 1024)]);
        let after = loss(&view, &name("a"), Some(size(1024))).further;
        assert_eq!((further(&view, size(1024)), after), (5, Some(2)), "memory, less the reserve and QEMU's own");
        assert_eq!(further(&view, Demand { vcpus: 5, ..size(1) }), 0, "no node has so many threads");
    }
}
