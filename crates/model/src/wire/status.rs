//! The state of the cluster in the API.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A problem that reduces health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthMessage {
    /// Identifies the cause.
    pub id: String,
    /// Deduction, in percent.
    pub health_delta: u8,
    /// For users.
    pub text: String,
}

/// Health.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// In percent.
    pub health: u8,
    /// Its problems.
    pub messages: Vec<HealthMessage>,
}

/// One kind of resource, summed over the nodes. Memory in MiB.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resource {
    /// Total.
    pub total: f64,
    /// Free.
    pub free: f64,
    /// Used.
    pub used: f64,
    /// Allocated to VMs in memory.
    pub allocated: f64,
    /// Needed if all VMs ran.
    pub provisioned: f64,
    /// CPU load.
    pub load: f64,
    /// Used, in percent.
    pub utilization: f64,
}

/// Resources, summed over the nodes that run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resources {
    /// Memory, in MiB.
    pub memory: Resource,
    /// CPU threads.
    pub cpu: Resource,
    /// Storage.
    pub disk: Resource,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// Its name.
    pub cluster_name: String,
    /// Its health.
    pub cluster_health: Health,
    /// Health of each node.
    pub node_health: BTreeMap<String, Health>,
    /// Whether it is in maintenance now: `true` or `false`, as text.
    pub maintenance: String,
    /// When maintenance ends by itself: milliseconds since 1970, UTC. Absent: it is off, or has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
    /// The primary coordinator; empty: none.
    pub primary_node: String,
    /// Drover's version on the answering node, under the name that clients know.
    pub pvc_version: String,
    /// The floating address; empty: none.
    pub upstream_ip: String,
    /// `total`, and the number of nodes in each pair of states: `run,ready`.
    pub nodes: BTreeMap<String, usize>,
    /// `total`, and the number of VMs in each state.
    pub vms: BTreeMap<String, usize>,
    /// Managed networks.
    pub networks: usize,
    /// `total`, and the number of Ceph OSDs in each pair of states.
    pub osds: BTreeMap<String, usize>,
    /// Ceph pools.
    pub pools: usize,
    /// Ceph volumes.
    pub volumes: usize,
    /// Ceph snapshots.
    pub snapshots: usize,
    /// Total and used resources.
    pub resources: Resources,
    /// Whether the answering node has the present state; if not, why.
    pub stale: String,
}
