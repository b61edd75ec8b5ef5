//! Allocated resources of each node. Each figure is defined here, once; all outputs and decisions use these.
//!
//! | figure | of a node | counted |
//! |---|---|---|
//! | allocated | VMs whose claim it holds | memory and vCPUs that are, or may be, in use |
//! | promised | VMs that it holds, that are to run on it, or that are on their way to it | what it must be able to carry |
//! | provisioned | all VMs assigned to it, running or not | what it would need if all ran |
//!
//! A VM that moves is counted on both nodes until it has arrived. [`Tallies`] are updated with the view: when a VM
//! changes, its old values are subtracted and the new ones added, so that the cost of a change does not depend on the
//! number of VMs.

use crate::{name::NodeName, units::Bytes, view::VmView, vm::Demand};
use imbl::OrdMap;
use std::collections::BTreeMap;

/// Memory of QEMU itself, in addition to the guest's: page tables, device buffers, its own code. Measured for a plain
/// guest on QEMU 7.2: 65 to 90 MiB with KVM or a bounded translation cache.
pub const OVERHEAD: Bytes = Bytes::mib(96);

/// Allocated resources of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// In use, or possibly in use.
    pub allocated: Demand,
    /// Needed if all assigned VMs ran.
    pub provisioned: Demand,
    /// Promised memory, overhead included.
    pub promised_memory: Bytes,
    /// Promised virtual CPUs.
    pub promised_vcpus: u32,
    /// Number of promised VMs.
    pub promised_vms: u32,
    /// Virtual CPUs of the promised VMs that are on their way, and not in its load yet.
    pub arriving_vcpus: u32,
}

impl Usage {
    /// Adds a VM that is promised resources and on its way; it is counted as provisioned where it is finally assigned.
    pub fn expect(&mut self, demand: Demand) {
        self.promised_memory = self.promised_memory.saturating_add(demand.memory).saturating_add(OVERHEAD);
        self.promised_vcpus = self.promised_vcpus.saturating_add(demand.vcpus);
        self.promised_vms = self.promised_vms.saturating_add(1);
        self.arriving_vcpus = self.arriving_vcpus.saturating_add(demand.vcpus);
        self.provisioned.memory = self.provisioned.memory.saturating_add(demand.memory);
        self.provisioned.vcpus = self.provisioned.vcpus.saturating_add(demand.vcpus);
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Usage) -> Usage {
        let sum = |a: Demand, b: Demand| Demand {
            memory: a.memory.saturating_add(b.memory),
            vcpus: a.vcpus.saturating_add(b.vcpus),
        };
        Usage {
            allocated: sum(self.allocated, other.allocated),
            provisioned: sum(self.provisioned, other.provisioned),
            promised_memory: self.promised_memory.saturating_add(other.promised_memory),
            promised_vcpus: self.promised_vcpus.saturating_add(other.promised_vcpus),
            promised_vms: self.promised_vms.saturating_add(other.promised_vms),
            arriving_vcpus: self.arriving_vcpus.saturating_add(other.arriving_vcpus),
        }
    }
}

/// In which figures a VM is counted on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Part {
    allocated: bool,
    provisioned: bool,
    promised: bool,
    arriving: bool,
}

/// The nodes on which a VM is counted, and in which figures.
fn parts(vm: &VmView) -> BTreeMap<&NodeName, Part> {
    let mut parts: BTreeMap<&NodeName, Part> = BTreeMap::new();
    let record = &vm.record.value;
    let (holder, assigned) = (vm.holder(), record.node.as_ref());
    if let Some(node) = holder {
        let part = parts.entry(node).or_default();
        (part.allocated, part.promised) = (true, true);
    }
    if let Some(node) = assigned {
        let part = parts.entry(node).or_default();
        part.provisioned = true;
        if record.state.occupies_node() && assigned != holder {
            (part.promised, part.arriving) = (true, true);
        }
    }
    // A cancelled move may have completed anyway.
    for node in record.state.destination().into_iter().chain(vm.sent_to()) {
        if Some(node) != holder && Some(node) != assigned {
            *parts.entry(node).or_default() =
                Part { provisioned: true, promised: true, arriving: true, allocated: false };
        }
    }
    parts
}

/// Sums that support subtraction, and are wide enough that no storable values overflow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sum {
    memory: i128,
    vcpus: i64,
    vms: i64,
}

impl Sum {
    fn add(&mut self, demand: Demand, sign: i8) {
        self.memory += i128::from(demand.memory.0) * i128::from(sign);
        self.vcpus += i64::from(demand.vcpus) * i64::from(sign);
        self.vms += i64::from(sign);
    }

    fn memory(&self) -> Bytes {
        Bytes(u64::try_from(self.memory).unwrap_or(u64::MAX))
    }

    fn vcpus(&self) -> u32 {
        u32::try_from(self.vcpus).unwrap_or(u32::MAX)
    }

    fn vms(&self) -> u32 {
        u32::try_from(self.vms).unwrap_or(u32::MAX)
    }

    fn demand(&self) -> Demand {
        Demand { memory: self.memory(), vcpus: self.vcpus() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    allocated: Sum,
    provisioned: Sum,
    promised: Sum,
    arriving: Sum,
}

/// Allocated resources of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tallies {
    nodes: OrdMap<NodeName, Tally>,
}

impl Tallies {
    /// Adds a VM.
    pub(crate) fn add(&mut self, vm: &VmView) {
        self.count(vm, 1);
    }

    /// Subtracts a VM that was added in the same state.
    pub(crate) fn remove(&mut self, vm: &VmView) {
        self.count(vm, -1);
    }

    fn count(&mut self, vm: &VmView, sign: i8) {
        for (node, part) in parts(vm) {
            let mut tally = self.nodes.get(node).copied().unwrap_or_default();
            let sums = [
                (part.allocated, &mut tally.allocated),
                (part.provisioned, &mut tally.provisioned),
                (part.promised, &mut tally.promised),
                (part.arriving, &mut tally.arriving),
            ];
            for (_, sum) in sums.into_iter().filter(|(counts, _)| *counts) {
                sum.add(vm.demand, sign);
            }
            if tally == Tally::default() {
                self.nodes.remove(node);
            } else {
                self.nodes.insert(node.clone(), tally);
            }
        }
    }

    /// Allocated resources of one node.
    pub fn usage(&self, node: &NodeName) -> Usage {
        let tally = self.nodes.get(node).copied().unwrap_or_default();
        let overheads = Bytes(OVERHEAD.0.saturating_mul(tally.promised.vms().into()));
        Usage {
            allocated: tally.allocated.demand(),
            provisioned: tally.provisioned.demand(),
            promised_memory: tally.promised.memory().saturating_add(overheads),
            promised_vcpus: tally.promised.vcpus(),
            promised_vms: tally.promised.vms(),
            arriving_vcpus: tally.arriving.vcpus(),
        }
    }
}
