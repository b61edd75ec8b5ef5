//! Requests about the cluster, its faults and its tokens.

use crate::{AfterProof, NodeName, OnReturn, OperationId, Selector, Stall, TokenName, wire::FaultKey};
use serde::{Deserialize, Serialize};

/// Switches maintenance on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetMaintenance {
    /// Whether the cluster should be in maintenance.
    pub state: bool,
    /// When it ends by itself: milliseconds since 1970, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub until: Option<u64>,
    /// Instead of `until`: its duration, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::cluster::MAINTENANCE_MAX_S)))]
    pub duration: Option<u64>,
}

/// Lists faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListFaults {
    /// Sort key, in ascending order; if not given, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_key: Option<FaultKey>,
}

/// Lists events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListEvents {
    /// Only what came after this position, the oldest first; if not given, the newest events.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "the cursor of an earlier answer"))]
    pub after: Option<String>,
    /// Number of events at most (100).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4096)))]
    pub limit: Option<usize>,
    /// Only those about this VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "a VM's name or UUID"))]
    pub vm: Option<String>,
    /// Only those about this node, or recorded by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "a node's name"))]
    pub node: Option<NodeName>,
    /// Only those of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "a kind of events, such as fence-proved"))]
    pub kind: Option<String>,
    /// Only those of this operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
}

/// Changes the cluster's configuration; fields that are not given are unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeConfig {
    /// Selector for VMs without one of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Maximum number of concurrent moves from one node. VMs of a node that is off, which only start on others, do not
    /// count, here and in the other limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::cluster::LIMIT_MAX)))]
    pub moves_per_source: Option<u32>,
    /// Maximum number of concurrent moves to one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::cluster::LIMIT_MAX)))]
    pub moves_per_target: Option<u32>,
    /// Maximum number of concurrent moves in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::cluster::LIMIT_MAX)))]
    pub moves: Option<u32>,
    /// What to do with a live migration that has not completed by its deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Deadline of a live migration, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::cluster::DEADLINE_MAX_S)))]
    pub migration_deadline: Option<u32>,
    /// How many nodes the cluster must be able to lose at once without a lack of memory for their VMs; otherwise it is
    /// a fault. 0: no loss is one. From 2 on, the loss of each single node is planned, and the worst one of so many at
    /// once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = crate::cluster::TOLERATE_MAX)))]
    pub tolerate: Option<u32>,
    /// What follows when it is proved that a node is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_proof: Option<AfterProof>,
    /// Whether a node whose power was cut is switched on again when its VMs are recovered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_on: Option<bool>,
    /// What a node is when it is back after its VMs were given to others. flushed: it takes no VMs until it is made
    /// ready. ready: it becomes ready by itself, if it was ready before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_return: Option<OnReturn>,
}

/// Asks what the loss of each node would mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlanLosses {
    /// Also count how many further VMs with this much memory, in MiB, the nodes could take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub memory: Option<u64>,
    /// With this many vCPUs each (1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub vcpus: Option<u32>,
}

/// Creates a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CreateToken {
    /// Its name.
    pub name: TokenName,
}
