//! A node, as the API shows it.

use super::VERSION;
use crate::{
    node::{DomainState, DrainReport},
    units::WallTime,
    view::{ClusterView, NodeView},
    vm::Demand,
};
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

/// A VM that a node can do nothing about while it is emptied or filled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Blocked {
    /// Its name.
    pub vm: String,
    /// Why.
    pub reason: String,
}

/// How far a node is with being emptied (flush) or having its VMs brought home (ready).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drain {
    /// VMs that still have to move, be shut down or be started.
    pub left: u32,
    /// Those of them that are on their way.
    pub moving: u32,
    /// VMs that it can do nothing about.
    pub blocked: Vec<Blocked>,
}

impl From<&DrainReport> for Drain {
    fn from(report: &DrainReport) -> Drain {
        let blocked = report.blocked.iter().map(|(vm, reason)| Blocked { vm: vm.to_string(), reason: reason.clone() });
        Drain { left: report.left, moving: report.moving, blocked: blocked.collect() }
    }
}

/// The answer to a change of a node's domain state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeChanged {
    /// For people.
    pub message: String,
    /// The node's name.
    pub name: String,
    /// Its state now, of the kind that was asked for.
    pub state: String,
    /// The version of its record now.
    pub version: i64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `init`, `run`, `shutdown`, `stop`, `dead`.
    pub daemon_state: String,
    /// Since when the daemon has been in that state, in milliseconds since 1970, as far as the answering node has seen
    /// it; 0: not known.
    #[serde(default)]
    pub daemon_state_since: u64,
    /// `primary`, `takeover`, `relinquish`, `secondary`, `client`.
    pub coordinator_state: String,
    /// Why it did not become the primary when that was asked for last; empty: it did, or nobody asked.
    #[serde(default)]
    pub takeover_problem: String,
    /// What ails the networks on which it would have floating addresses.
    #[serde(default)]
    pub network_problems: Vec<String>,
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
    /// How far it is with being emptied or filled; null: neither.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// The version of its record.
    #[serde(default)]
    pub version: i64,
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
    /// Since when its daemon has been in its state; 0: not known.
    pub daemon_state_since: WallTime,
}

impl Node {
    /// A node out of the view.
    pub fn of(view: &ClusterView, node: &NodeView, numbers: NodeNumbers) -> Node {
        let (record, status) = (&node.record.value, node.status.as_ref().map(|status| &status.value));
        let text = |read: fn(&crate::NodeStatus) -> &String| status.map(read).cloned().unwrap_or_default();
        let draining = matches!(record.domain_state, DomainState::Flush | DomainState::Unflush);
        let (total, free) = status.map(|s| (s.memory_total, s.memory_free)).unwrap_or_default();
        Node {
            name: record.name.to_string(),
            daemon_state: node.daemon_state().word().to_owned(),
            daemon_state_since: numbers.daemon_state_since.0,
            coordinator_state: view.coordinator_state(node).word().to_owned(),
            takeover_problem: view.takeover_problem(&record.name).unwrap_or_default().to_owned(),
            network_problems: status.map(|s| s.network_problems.clone()).unwrap_or_default(),
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
            drain: status.and_then(|s| s.drain.as_ref()).filter(|_| draining).map(Drain::from),
            version: node.record.version.0,
            updated: status.map_or(0, |s| s.updated.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Version;
    use crate::name::NodeName;
    use serde_json::json;

    /// A report of an earlier flush that has not been replaced yet says nothing of a node that is ready.
    #[test]
    fn how_far_a_node_is_shows_while_it_is_emptied_or_filled() {
        let shown = |state: &str| {
            let mut view = ClusterView::default();
            let record = json!({"schema": 1, "name": "a", "role": "coordinator", "api": "", "domain_state": state});
            let status = json!({
                "schema": 1, "daemon": "run", "version": "", "kernel": "", "os": "", "arch": "", "cpus": 1, "memory_total": 1, "memory_free": 1,
                "load": 0.0, "domains": [], "updated": 0, "drain": {"left": 2, "moving": 1, "blocked": [["db", "no room"]]},
            });
            for (path, value) in [("/nodes/a", record), ("/nodes/a/status", status)] {
                view.apply(&path.parse().unwrap(), Some((value.to_string().as_bytes(), Version(7))));
            }
            assert!(view.broken.is_empty(), "{:?}", view.broken);
            Node::of(&view, &view.nodes[&NodeName::new("a").unwrap()], NodeNumbers::default())
        };
        let blocked = vec![Blocked { vm: "db".to_owned(), reason: "no room".to_owned() }];
        let drain = Some(Drain { left: 2, moving: 1, blocked });
        for (state, drain) in [("flush", drain.clone()), ("unflush", drain), ("ready", None), ("flushed", None)] {
            assert_eq!((shown(state).drain, shown(state).version), (drain, 7), "{state}");
        }
    }
}
