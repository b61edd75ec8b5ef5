//! Fences and recovery in the API.

use super::Fate;
use crate::{ClusterView, Fence, NodeView};
use serde::{Deserialize, Serialize};

/// What proves that a node's machine is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proof {
    /// `administrator`, or `power`: a device that controls the machine's power was read.
    pub kind: String,
    /// What was read or said.
    pub what: String,
    /// The node that recorded it.
    pub by: String,
    /// When: milliseconds since 1970, UTC.
    pub at: u64,
}

/// A node's fence, and what becomes of its VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FenceInfo {
    /// The node.
    pub node: String,
    /// The state of its daemon.
    pub daemon_state: String,
    /// `suspect`, `proving`, `unproved`: it is silent, and its VMs wait; `proved`, `recovering`, `recovered`: it is
    /// off, and its VMs go to other nodes; `over`: it is back; empty: it was never fenced.
    pub phase: String,
    /// When the fence began: milliseconds since 1970, UTC; 0: there is none.
    pub since: u64,
    /// When the phase began.
    pub phase_since: u64,
    /// The last boot of the machine that is known.
    pub boot: String,
    /// What proves that the machine is off.
    pub proof: Vec<Proof>,
    /// Why there is no proof.
    pub problems: Vec<String>,
    /// Whether it was ordered to cut the machine's power: it may be gone at any moment.
    pub off_ordered: bool,
    /// Whether it was ordered to switch the machine on again, after its VMs were recovered.
    #[serde(default)]
    pub on_ordered: bool,
    /// Whether the node is gone for good, so that it keeps no VM.
    pub for_good: bool,
    /// What becomes of its VMs, or would, if it were off: each VM's fate is `starts` (on another node), `handed-over`,
    /// `rests`, `freed`, `assigned`, `deleted`, `under-way` or `waits`.
    pub vms: Vec<Fate>,
}

impl FenceInfo {
    /// The fence of a node.
    pub fn of(view: &ClusterView, node: &NodeView, vms: Vec<Fate>) -> FenceInfo {
        let name = &node.record.value.name;
        let fence: Option<&Fence> = view.fences().get(name).map(|fence| &fence.value);
        let proof = fence.into_iter().flat_map(|fence| &fence.evidence).map(|evidence| Proof {
            kind: evidence.kind.word().to_owned(),
            what: evidence.what.clone(),
            by: evidence.by.to_string(),
            at: evidence.at.0,
        });
        FenceInfo {
            node: name.to_string(),
            daemon_state: node.daemon_state().word().to_owned(),
            phase: fence.map_or("", |fence| fence.phase.word()).to_owned(),
            since: fence.map_or(0, |fence| fence.since.0),
            phase_since: fence.map_or(0, |fence| fence.phase_since.0),
            boot: node.record.value.boot.clone(),
            proof: proof.collect(),
            problems: fence.map(|fence| fence.problems.clone()).unwrap_or_default(),
            off_ordered: fence.is_some_and(|fence| fence.off_ordered),
            on_ordered: fence.is_some_and(|fence| fence.on_ordered),
            for_good: fence.is_some_and(|fence| fence.for_good),
            vms,
        }
    }
}

/// A loss in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossFigures {
    /// Number of VMs that would start on other nodes.
    pub go_on: usize,
    /// VMs that no other node can take now, for other reasons than memory.
    pub bound: Vec<String>,
    /// VMs for which the other nodes have no memory.
    pub short: Vec<String>,
    /// The memory that is missing for these, in MiB.
    pub missing: u64,
    /// Number of further VMs of the given size that the other nodes could take then. Absent: no size was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub further: Option<u64>,
}

/// What the loss of one node would mean now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeLoss {
    /// The node.
    pub node: String,
    /// What it would mean.
    #[serde(flatten)]
    pub figures: LossFigures,
}

/// The standing recovery plan: what the loss of each node would mean now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossPlan {
    /// How many nodes the cluster must be able to lose at once without a lack of memory; otherwise it is a fault.
    pub tolerate: u32,
    /// Number of further VMs of the given size that the nodes can take now. Absent: no size was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub further: Option<u64>,
    /// The nodes, by name.
    pub nodes: Vec<NodeLoss>,
    /// The worst loss of several nodes at once. Absent: none was planned, for no more than one must be tolerated, or
    /// there are no two nodes whose loss would mean something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together: Option<LossTogether>,
}

/// What the loss of several nodes at once would mean now: the worst of those that were planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LossTogether {
    /// The nodes, by name.
    pub nodes: Vec<String>,
    /// What their loss would mean.
    #[serde(flatten)]
    pub figures: LossFigures,
    /// How many losses of so many nodes were planned: all, or those that are likely to be the worst.
    pub planned: u64,
    /// How many there are.
    pub all: u64,
}
