//! Nodes in the API.

use super::VERSION;
use crate::{
    cluster::ClusterConfig,
    name::VmName,
    node::{DrainReport, DutyReport, NodeRecord, NodeState},
    units::WallTime,
    view::{ClusterView, NodeView},
    vm::Demand,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};
use uuid::Uuid;

/// CPU threads of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vcpu {
    /// Total number.
    pub total: u32,
    /// Virtual CPUs of the VMs that it holds.
    pub allocated: u32,
}

/// Memory of a node, in MiB.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Memory {
    /// Total that it offers.
    pub total: u64,
    /// Allocated to the VMs that it holds.
    pub allocated: u64,
    /// Needed if all VMs assigned to it ran.
    pub provisioned: u64,
    /// Used.
    pub used: u64,
    /// Available now.
    pub free: u64,
}

/// A VM that blocks a flush or a ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Blocked {
    /// Its name.
    pub vm: String,
    /// Why.
    pub reason: String,
}

/// Progress of a flush (VMs leave the node) or a ready (VMs come home).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Drain {
    /// VMs that still have to move, be shut down or be started.
    pub left: u32,
    /// Those of them that are on their way.
    pub moving: u32,
    /// VMs for which nothing can be done.
    pub blocked: Vec<Blocked>,
}

impl Blocked {
    /// The blocked VMs of a report.
    pub fn of(report: &DrainReport) -> Vec<Blocked> {
        let shown = |(vm, reason): &(VmName, String)| Blocked { vm: vm.to_string(), reason: reason.clone() };
        report.blocked.iter().map(shown).chain(report.strays.iter().map(Blocked::stray)).collect()
    }

    /// A guest of whose VM there is no record: it keeps its node from being flushed.
    pub fn stray(uuid: &Uuid) -> Blocked {
        let reason = format!(
            "a guest of Drover's runs here, and there is no record of its VM; define the VM again, or end the guest on \
             the node ('virsh destroy {uuid}')"
        );
        Blocked { vm: uuid.to_string(), reason }
    }
}

impl From<super::Fate> for Blocked {
    fn from(fate: super::Fate) -> Blocked {
        Blocked { vm: fate.vm, reason: fate.reason }
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.vm, self.reason)
    }
}

impl From<&DrainReport> for Drain {
    fn from(report: &DrainReport) -> Drain {
        Drain { left: report.left, moving: report.moving, blocked: Blocked::of(report) }
    }
}

/// What controls a node's power from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Bmc {
    /// What it is and where.
    pub what: String,
    /// Why it would not cut the node's power; empty: at the last check it would.
    pub problem: String,
    /// When the node last checked it, by its own clock: milliseconds since 1970, UTC; 0: not yet.
    pub checked: u64,
}

/// What resets a node's machine when the node is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Watchdog {
    /// What it is: the device, and what it says of itself.
    pub what: String,
    /// Whether it is armed, so that its deadline proves that the machine is off.
    pub armed: bool,
    /// Its timeout, in seconds; 0: not known.
    pub timeout: u64,
    /// Why it is not armed; empty: it is.
    pub why_not: String,
    /// Whether something is wrong with it, so that it is not armed although it should be.
    pub failed: bool,
}

/// A duty (control loop) of a node's daemon that has failed lately, which is a defect of Drover. It was started again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailedDuty {
    /// The duty; `vm` and a UUID for the task of a VM.
    pub name: String,
    /// How often it has failed lately.
    pub failures: u32,
    /// The last failure.
    pub reason: String,
}

impl From<&DutyReport> for FailedDuty {
    fn from(duty: &DutyReport) -> FailedDuty {
        FailedDuty { name: duty.name.clone(), failures: duty.failures, reason: duty.why.clone() }
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
    /// Its present domain state or coordinator state, as requested.
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
    /// Since when the daemon has been in that state, in milliseconds since 1970, as observed by the answering node; 0:
    /// not known.
    #[serde(default)]
    pub daemon_state_since: u64,
    /// `primary`, `takeover`, `relinquish`, `secondary`, `client`.
    pub coordinator_state: String,
    /// Why the last requested handoff to it failed; empty: it did not fail, or there was none.
    #[serde(default)]
    pub takeover_problem: String,
    /// Problems of the networks with floating addresses.
    #[serde(default)]
    pub network_problems: Vec<String>,
    /// Duties of its daemon that have failed in the last hour; empty: none.
    #[serde(default)]
    pub failed_duties: Vec<FailedDuty>,
    /// `ready`, `flush`, `flushed`, `unflush`.
    pub domain_state: String,
    /// Drover's version on it, under the name that clients know.
    pub pvc_version: String,
    /// CPU threads.
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
    /// Their results.
    pub health_details: Vec<serde_json::Value>,
    /// Load average over one minute.
    pub load: f32,
    /// Number of VMs in its memory.
    pub domains_count: usize,
    /// Their UUIDs.
    pub running_domains: Vec<String>,
    /// CPU threads.
    pub vcpu: Vcpu,
    /// Memory.
    pub memory: Memory,
    /// Throughput of its network interfaces.
    pub interfaces: BTreeMap<String, serde_json::Value>,
    /// Bridges that guests can be connected to.
    #[serde(default)]
    pub bridges: Vec<String>,

    /// Versions of QEMU and libvirt; empty: not known.
    pub hypervisor: String,
    /// Why its hypervisor cannot be used; empty: it can.
    pub hypervisor_problem: String,
    /// What controls its power from outside; null: nothing that is known.
    #[serde(default)]
    pub bmc: Option<Bmc>,
    /// What resets its machine when it is cut off; null: no watchdog is configured.
    #[serde(default)]
    pub watchdog: Option<Watchdog>,
    /// What happens when it is off; null: the daemon that answers does not tell.
    #[serde(default)]
    pub policies: Option<NodePolicies>,
    /// How guests are executed: `kvm` or `qemu`; empty: not known yet.
    pub domain_type: String,
    /// Progress of a flush or a ready; null: there is none.
    #[serde(default)]
    pub drain: Option<Drain>,
    /// The version of its record.
    #[serde(default)]
    pub version: i64,
    /// When it last reported, by its own clock: milliseconds since 1970, UTC.
    pub updated: u64,
}

/// The policies that are in force for a node, and which of them are its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodePolicies {
    /// What follows when it is proved that it is off: `recover` or `none`.
    pub after_proof: String,
    /// Whether it is switched on again after its power was cut.
    pub power_on: bool,
    /// What it is when it is back after its VMs were given to others: `flushed` or `ready`.
    #[serde(default)]
    pub on_return: String,
    /// Whether `after_proof` is its own; otherwise it is the cluster's.
    pub own_after_proof: bool,
    /// Whether `power_on` is its own; otherwise it is the cluster's.
    pub own_power_on: bool,
    /// Whether `on_return` is its own; otherwise it is the cluster's.
    #[serde(default)]
    pub own_on_return: bool,
}

impl NodePolicies {
    /// Those of a node in a cluster.
    pub fn of(node: &NodeRecord, cluster: &ClusterConfig) -> NodePolicies {
        NodePolicies {
            after_proof: node.effective_after_proof(cluster).word().to_owned(),
            power_on: node.effective_power_on(cluster),
            on_return: node.effective_on_return(cluster).word().to_owned(),
            own_after_proof: node.after_proof.is_some(),
            own_power_on: node.power_on.is_some(),
            own_on_return: node.on_return.is_some(),
        }
    }
}

/// Figures of a node that are computed elsewhere (`plan::capacity`, `plan::health`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeNumbers {
    /// Allocated.
    pub allocated: Demand,
    /// Provisioned.
    pub provisioned: Demand,
    /// In percent.
    pub health: u8,
    /// Since when its daemon has been in its state; 0: not known.
    pub daemon_state_since: WallTime,
}

impl Node {
    /// A node from the view.
    pub fn of(view: &ClusterView, node: &NodeView, numbers: NodeNumbers) -> Node {
        let (record, status) = (&node.record.value, node.status.as_ref().map(|status| &status.value));
        let text = |read: fn(&crate::NodeStatus) -> &String| status.map(read).cloned().unwrap_or_default();
        let draining = matches!(record.domain_state, NodeState::Flush | NodeState::Unflush);
        let (total, free) = status.map(|s| (s.memory_total, s.memory_free)).unwrap_or_default();
        Node {
            name: record.name.to_string(),
            daemon_state: node.daemon_state().word().to_owned(),
            daemon_state_since: numbers.daemon_state_since.0,
            coordinator_state: view.coordinator_state(node).word().to_owned(),
            takeover_problem: view.takeover_problem(&record.name).unwrap_or_default().to_owned(),
            network_problems: status.map(|s| s.network_problems.clone()).unwrap_or_default(),
            failed_duties: status.map(|s| s.duties.iter().map(FailedDuty::from).collect()).unwrap_or_default(),
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
            bridges: status.map(|s| s.bridges.clone()).unwrap_or_default(),
            hypervisor: text(|s| &s.hypervisor),
            hypervisor_problem: text(|s| &s.hypervisor_problem),
            bmc: status.and_then(|s| s.bmc.as_ref()).map(|bmc| Bmc {
                what: bmc.shown.clone(),
                problem: bmc.problem.clone(),
                checked: bmc.checked.0,
            }),
            watchdog: status.and_then(|s| s.watchdog.as_ref()).map(|watchdog| Watchdog {
                what: watchdog.what.clone(),
                armed: watchdog.armed,
                timeout: watchdog.timeout_s,
                why_not: watchdog.why_not.clone(),
                failed: watchdog.failed,
            }),
            policies: Some(NodePolicies::of(record, &view.config)),
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

    /// An outdated report of a flush is not shown for a node that is ready.
    #[test]
    fn progress_is_shown_during_a_flush_and_a_ready() {
        let shown = |state: &str| {
            let mut view = ClusterView::default();
            let record = json!({"schema": 1, "name": "a", "role": "coordinator", "api": "", "domain_state": state});
            let status = json!({
                "schema": 1, "daemon": "run", "version": "", "kernel": "", "os": "", "arch": "",
                "cpus": 1, "memory_total": 1, "memory_free": 1,
                "load": 0.0, "domains": [], "updated": 0,
                "drain": {"left": 2, "moving": 1, "blocked": [["db", "no room"]]},
                "bridges": ["br0"], "duties": [{"name": "drain", "failures": 2, "why": "no index"}],
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
        let failed = FailedDuty { name: "drain".to_owned(), failures: 2, reason: "no index".to_owned() };
        assert_eq!((shown("ready").failed_duties, shown("ready").bridges), (vec![failed], vec!["br0".to_owned()]));
    }
}
