//! What of each node is given out. Each figure is defined here, once; everything that shows or decides uses these.
//!
//! | figure | of a node | counted |
//! |---|---|---|
//! | allocated | VMs whose claim it holds | memory and vCPUs that are, or may be, in use |
//! | promised | VMs that it holds, that are to run on it, or that are on their way to it | what it must be able to carry |
//! | provisioned | all VMs assigned to it, running or not | what it would need if all ran |
//!
//! A VM that moves counts at both ends until it has arrived.

use drover_model::{Bytes, ClusterView, Demand, NodeName, VmView};
use std::collections::BTreeMap;

/// What QEMU itself needs beside a guest's memory: page tables, device buffers, its own code. Measured for a plain guest on QEMU 7.2:
/// 65 to 90 MiB with KVM or a bounded translation cache.
pub const OVERHEAD: Bytes = Bytes::mib(96);

/// Memory that every node keeps for itself: kernel, daemons, page cache.
pub const HOST_RESERVE: Bytes = Bytes::mib(512);

/// What of one node is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// In use, or may be.
    pub allocated: Demand,
    /// Needed if all that is assigned ran.
    pub provisioned: Demand,
    /// Memory that it must be able to carry, overhead included.
    pub promised_memory: Bytes,
    /// Virtual CPUs that it must be able to carry.
    pub promised_vcpus: u32,
    /// VMs that it must be able to carry.
    pub promised_vms: u32,
    /// Virtual CPUs of those among them that its load does not show yet: on their way.
    pub arriving_vcpus: u32,
}

impl Usage {
    /// One more VM is promised room.
    pub fn promise(&mut self, demand: Demand) {
        self.promised_memory = self.promised_memory.saturating_add(demand.memory).saturating_add(OVERHEAD);
        self.promised_vcpus = self.promised_vcpus.saturating_add(demand.vcpus);
        self.promised_vms = self.promised_vms.saturating_add(1);
    }

    /// The same, and it is on its way; where it is assigned in the end it is counted as provisioned too.
    pub fn expect(&mut self, demand: Demand) {
        self.promise(demand);
        self.arriving_vcpus = self.arriving_vcpus.saturating_add(demand.vcpus);
        add(&mut self.provisioned, demand);
    }
}

fn add(sum: &mut Demand, demand: Demand) {
    sum.memory = sum.memory.saturating_add(demand.memory);
    sum.vcpus = sum.vcpus.saturating_add(demand.vcpus);
}

/// What of every node is given out, counted in one pass over the VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    nodes: BTreeMap<NodeName, Usage>,
}

impl Ledger {
    /// Counts.
    pub fn of(view: &ClusterView) -> Ledger {
        let mut ledger = Ledger { nodes: view.nodes.keys().map(|name| (name.clone(), Usage::default())).collect() };
        for vm in view.vms.values() {
            ledger.count(vm);
        }
        ledger
    }

    fn count(&mut self, vm: &VmView) {
        let record = &vm.record.value;
        let holder = vm.claim.as_ref().and_then(|c| c.value.node.as_ref());
        let assigned = record.node.as_ref();
        if let Some(usage) = holder.and_then(|node| self.nodes.get_mut(node)) {
            add(&mut usage.allocated, vm.demand);
            usage.promise(vm.demand);
        }
        if let Some(usage) = assigned.and_then(|node| self.nodes.get_mut(node)) {
            add(&mut usage.provisioned, vm.demand);
            if record.state.occupies_node() && assigned != holder {
                usage.promise(vm.demand);
                usage.arriving_vcpus = usage.arriving_vcpus.saturating_add(vm.demand.vcpus);
            }
        }
        let destination = record.state.destination();
        // A move that was taken back may have come to its end all the same.
        let sent = vm.claim.as_ref().and_then(|c| c.value.to.as_ref()).filter(|to| Some(*to) != destination);
        for node in destination.into_iter().chain(sent).filter(|to| Some(*to) != holder && Some(*to) != assigned) {
            if let Some(usage) = self.nodes.get_mut(node) {
                usage.expect(vm.demand);
            }
        }
    }

    /// What of one node is given out.
    pub fn usage(&self, node: &NodeName) -> Usage {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    /// Reserves room for a VM that is going to be sent to a node.
    pub fn expect(&mut self, node: &NodeName, demand: Demand) {
        if let Some(usage) = self.nodes.get_mut(node) {
            usage.expect(demand);
        }
    }

    /// Memory that a node can still promise, overhead included: what it offers, less its reserve, less what it has promised.
    /// `None` while the node has not reported what it offers.
    pub fn free_memory(&self, view: &ClusterView, node: &NodeName) -> Option<Bytes> {
        let offered = view.nodes.get(node)?.status.as_ref()?.memory_total;
        Some(offered.saturating_sub(HOST_RESERVE).saturating_sub(self.usage(node).promised_memory))
    }
}
