//! A node, as the API shows it.

use super::VERSION;
use crate::{view::NodeView, vm::Demand};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Processor threads of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vcpu {
    /// All of them.
    pub total: u32,
    /// Virtual CPUs of the VMs that it holds.
    pub allocated: u32,
}

/// Memory of a node, in MiB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Memory {
    /// What it offers.
    pub total: u64,
    /// What the VMs that it holds may use.
    pub allocated: u64,
    /// What all VMs assigned to it would need.
    pub provisioned: u64,
    /// What is not free.
    pub used: u64,
    /// What could be given out now.
    pub free: u64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `init`, `run`, `shutdown`, `stop`, `dead`.
    pub daemon_state: String,
    /// `primary`, `secondary`, `client`.
    pub coordinator_state: String,
    /// `ready`, `flush`, `flushed`, `unflush`.
    pub domain_state: String,
    /// Drover's version on it, under the name that clients know.
    pub pvc_version: String,
    /// Processor threads.
    pub cpu_count: u32,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// `x86_64`.
    pub arch: String,
    /// In percent.
    pub health: u8,
    /// Health checks that ran.
    pub health_plugins: Vec<String>,
    /// What they found.
    pub health_details: Vec<serde_json::Value>,
    /// Load average over one minute.
    pub load: f32,
    /// How many VMs are in its memory.
    pub domains_count: usize,
    /// Their UUIDs.
    pub running_domains: Vec<String>,
    /// Processor threads.
    pub vcpu: Vcpu,
    /// Memory.
    pub memory: Memory,
    /// Throughput of its network interfaces.
    pub interfaces: BTreeMap<String, serde_json::Value>,

    /// QEMU's and libvirt's versions; empty: not known.
    pub hypervisor: String,
    /// Why its hypervisor cannot be used; empty: it can.
    pub hypervisor_problem: String,
    /// How guests are executed: `kvm` or `qemu`; empty: being found out.
    pub domain_type: String,
    /// When it last reported, by its own clock: milliseconds since 1970, UTC.
    pub updated: u64,
}

/// What is computed about a node elsewhere (`plan::capacity`, `plan::health`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeNumbers {
    /// In use.
    pub allocated: Demand,
    /// Assigned.
    pub provisioned: Demand,
    /// In percent.
    pub health: u8,
    /// Whether it is the only node.
    pub alone: bool,
}

impl Node {
    /// A node out of the view.
    pub fn of(node: &NodeView, numbers: NodeNumbers) -> Node {
        let (record, status) = (&node.record.value, node.status.as_ref());
        let text = |read: fn(&crate::NodeStatus) -> &String| status.map(read).cloned().unwrap_or_default();
        let (total, free) = status.map(|s| (s.memory_total, s.memory_free)).unwrap_or_default();
        Node {
            name: record.name.to_string(),
            daemon_state: node.daemon_state().word().to_owned(),
            coordinator_state: node.coordinator_state(numbers.alone).word().to_owned(),
            domain_state: record.domain_state.word().to_owned(),
            pvc_version: status.map_or_else(|| VERSION.to_owned(), |s| s.version.clone()),
            cpu_count: status.map_or(0, |s| s.cpus),
            kernel: text(|s| &s.kernel),
            os: text(|s| &s.os),
            arch: text(|s| &s.arch),
            health: numbers.health,
            health_plugins: Vec::new(),
            health_details: Vec::new(),
            load: status.map_or(0.0, |s| s.load),
            domains_count: status.map_or(0, |s| s.domains.len()),
            running_domains: status.map(|s| s.domains.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            vcpu: Vcpu { total: status.map_or(0, |s| s.cpus), allocated: numbers.allocated.vcpus },
            memory: Memory {
                total: total.as_mib(),
                allocated: numbers.allocated.memory.as_mib(),
                provisioned: numbers.provisioned.memory.as_mib(),
                used: total.saturating_sub(free).as_mib(),
                free: free.as_mib(),
            },
            interfaces: BTreeMap::new(),
            hypervisor: text(|s| &s.hypervisor),
            hypervisor_problem: text(|s| &s.hypervisor_problem),
            domain_type: status.and_then(|s| s.domain_type).map_or("", crate::DomainType::word).to_owned(),
            updated: status.map_or(0, |s| s.updated.0),
        }
    }
}
