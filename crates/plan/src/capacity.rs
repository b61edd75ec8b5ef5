//! What of a node is given out. Each figure is defined here, once; everything that shows or decides uses these.
//!
//! | figure | of a node | counted |
//! |---|---|---|
//! | allocated | VMs whose claim it holds | memory and vCPUs that are, or may be, in use |
//! | promised | VMs that are to run on it and that it does not hold yet | on their way |
//! | provisioned | all VMs assigned to it, running or not | what it would need if all ran |

use drover_model::{Bytes, ClusterView, Demand, NodeName, NodeView, VmView};

/// What QEMU itself needs beside a guest's memory: page tables, device buffers, its own code. Measured for a plain guest on QEMU 7.2:
/// 65 to 90 MiB with KVM or a bounded translation cache.
pub const OVERHEAD: Bytes = Bytes::mib(96);

/// Memory that every node keeps for itself: kernel, daemons, page cache.
pub const HOST_RESERVE: Bytes = Bytes::mib(512);

fn sum<'a>(vms: impl Iterator<Item = &'a VmView>) -> Demand {
    vms.fold(Demand::default(), |sum, vm| Demand {
        memory: sum.memory.saturating_add(vm.demand.memory),
        vcpus: sum.vcpus.saturating_add(vm.demand.vcpus),
    })
}

fn vms(view: &ClusterView) -> impl Iterator<Item = &VmView> {
    view.vms.values().map(|vm| &**vm)
}

fn is_held(vm: &VmView, node: &NodeName) -> bool {
    vm.claim.as_ref().is_some_and(|c| c.value.is_held_by(node))
}

/// What is, or may be, in use on a node.
pub fn allocated(view: &ClusterView, node: &NodeName) -> Demand {
    sum(vms(view).filter(|vm| is_held(vm, node)))
}

/// What all VMs assigned to a node would need.
pub fn provisioned(view: &ClusterView, node: &NodeName) -> Demand {
    sum(vms(view).filter(|vm| vm.record.value.node.as_ref() == Some(node)))
}

/// The VMs that count against a node: those it holds, and those that are to run on it.
fn committed<'a>(view: &'a ClusterView, node: &'a NodeName) -> impl Iterator<Item = &'a VmView> {
    vms(view).filter(move |vm| {
        let record = &vm.record.value;
        is_held(vm, node) || (record.state.occupies_node() && record.node.as_ref() == Some(node))
    })
}

/// Memory that a node can still promise, overhead included: what it offers, less its reserve, less every VM that is or will be in memory.
/// `None` while the node has not reported what it offers.
pub fn free_memory(view: &ClusterView, name: &NodeName, node: &NodeView) -> Option<Bytes> {
    let total = node.status.as_ref()?.memory_total;
    let used: Bytes = committed(view, name).map(|vm| vm.demand.memory.saturating_add(OVERHEAD)).sum();
    Some(total.saturating_sub(HOST_RESERVE).saturating_sub(used))
}
