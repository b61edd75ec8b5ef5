//! The cluster as a whole, as the API shows it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Something that costs health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HealthMessage {
    /// Names the cause.
    pub id: String,
    /// How much it costs, in percent.
    pub health_delta: u8,
    /// For people.
    pub text: String,
}

/// How well something is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// In percent.
    pub health: u8,
    /// What it lacks.
    pub messages: Vec<HealthMessage>,
}

/// One kind of resource, summed over the nodes. Memory in MiB.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Resource {
    /// All there is.
    pub total: f64,
    /// Free.
    pub free: f64,
    /// Not free.
    pub used: f64,
    /// What VMs in memory may use.
    pub allocated: f64,
    /// What all VMs would need.
    pub provisioned: f64,
    /// Load of the processors.
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
    /// Processor threads.
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
    /// How well it is.
    pub cluster_health: Health,
    /// How well each node is.
    pub node_health: BTreeMap<String, Health>,
    /// Whether it is in maintenance now: `true` or `false`, as text.
    pub maintenance: String,
    /// When maintenance ends by itself: milliseconds since 1970, UTC. Not there: it is off, or has no end of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
    /// The primary coordinator; empty: none.
    pub primary_node: String,
    /// Drover's version on the answering node, under the name that clients know.
    pub pvc_version: String,
    /// The floating address; empty: none.
    pub upstream_ip: String,
    /// `total`, and how many nodes are in each pair of states: `run,ready`.
    pub nodes: BTreeMap<String, usize>,
    /// `total`, and how many VMs are in each state.
    pub vms: BTreeMap<String, usize>,
    /// Managed networks.
    pub networks: usize,
    /// `total`, and how many Ceph OSDs are in each pair of states.
    pub osds: BTreeMap<String, usize>,
    /// Ceph pools.
    pub pools: usize,
    /// Ceph volumes.
    pub volumes: usize,
    /// Ceph snapshots.
    pub snapshots: usize,
    /// What there is and what is used.
    pub resources: Resources,
    /// Whether the answering node sees the present state; otherwise why not.
    pub stale: String,
}
