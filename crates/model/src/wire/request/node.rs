//! Requests about nodes.

use super::is_false;
use crate::{
    AfterProof, CoordinatorState, DaemonState, NodeState, OnReturn,
    words::{words, written_as_words},
};
use serde::{Deserialize, Serialize};

/// Lists nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListNodes {
    /// Only nodes whose name matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(title = "a regular expression, found anywhere in the name unless it is anchored with ^ and $")
    )]
    pub limit: Option<String>,
    /// Only nodes whose daemon is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon_state: Option<DaemonState>,
    /// Only nodes in this state as coordinators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator_state: Option<CoordinatorState>,
    /// Only nodes in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_state: Option<NodeState>,
}

/// An order for a node's VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainOrder {
    /// It accepts VMs, and its VMs come home.
    Ready,
    /// Its VMs are moved away.
    Flush,
}
words!(DomainOrder, "order for a node", Ready = "ready", Flush = "flush");

/// Takes a node out of service, or puts it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetDomainState {
    /// flush: its VMs are moved away; ready: it accepts VMs, and its VMs come home.
    pub state: DomainOrder,
    /// Answer when it is done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
    /// For flush: even if no other node accepts VMs, so that all VMs are shut down.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

impl SetDomainState {
    /// An order without waiting.
    pub fn to(state: DomainOrder) -> SetDomainState {
        SetDomainState { state, wait: false, force: false }
    }
}

/// A node's own policy of what follows from a proof that it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnAfterProof {
    /// The cluster's.
    Inherit,
    /// Its VMs start on other nodes.
    Recover,
    /// Nothing, until an administrator confirms it.
    None,
}
words!(OwnAfterProof, "policy of a node", Inherit = "inherit", Recover = "recover", None = "none");

/// Whether a node is switched on again after its power was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnPowerOn {
    /// As the cluster's policy says.
    Inherit,
    /// It is.
    True,
    /// It is not.
    False,
}
words!(OwnPowerOn, "policy of a node", Inherit = "inherit", True = "true", False = "false");

/// A node's own policy of what it is when it is back after its VMs were given to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnOnReturn {
    /// As the cluster's policy says.
    Inherit,
    /// It takes no VMs until it is made ready.
    Flushed,
    /// It becomes ready by itself, if it was ready before.
    Ready,
}
words!(OwnOnReturn, "policy of a node", Inherit = "inherit", Flushed = "flushed", Ready = "ready");

impl OwnAfterProof {
    /// As the node's record has it.
    pub fn own(self) -> Option<AfterProof> {
        match self {
            OwnAfterProof::Inherit => None,
            OwnAfterProof::Recover => Some(AfterProof::Recover),
            OwnAfterProof::None => Some(AfterProof::None),
        }
    }
}

impl OwnPowerOn {
    /// As the node's record has it.
    pub fn own(self) -> Option<bool> {
        match self {
            OwnPowerOn::Inherit => None,
            OwnPowerOn::True => Some(true),
            OwnPowerOn::False => Some(false),
        }
    }
}

impl OwnOnReturn {
    /// As the node's record has it.
    pub fn own(self) -> Option<OnReturn> {
        match self {
            OwnOnReturn::Inherit => None,
            OwnOnReturn::Flushed => Some(OnReturn::Flushed),
            OwnOnReturn::Ready => Some(OnReturn::Ready),
        }
    }
}

/// Changes a node's own policies; those that are not given stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetNodePolicies {
    /// What follows when it is proved that this node is off. recover: its VMs start on other nodes. none: they wait for
    /// an administrator. inherit: as the cluster's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_proof: Option<OwnAfterProof>,
    /// Whether this node is switched on again when its power was cut and its VMs are recovered. inherit: as the
    /// cluster's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_on: Option<OwnPowerOn>,
    /// What this node is when it is back after its VMs were given to others. flushed: it takes no VMs until it is made
    /// ready. ready: it becomes ready by itself, if it was ready before. inherit: as the cluster's configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_return: Option<OwnOnReturn>,
}

/// Confirms that a node's machine is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FenceNode {
    /// The machine is off. If it is not, its VMs run twice.
    pub confirm_off: bool,
    /// The boot of the machine that was seen to be off, as the fence shows it: refused if the machine was booted since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "the id of a boot, as the fence shows it"))]
    pub boot: Option<String>,
    /// Answer when its VMs were given to other nodes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
}

/// Removes a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RemoveNode {
    /// The node's machine is off, and does not come back: its VMs are given to other nodes first. If it is not off, its
    /// VMs run twice.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirm_off: bool,
    /// The boot of the machine that was seen to be off, as the fence shows it: refused if the machine was booted since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "the id of a boot, as the fence shows it"))]
    pub boot: Option<String>,
}

/// An order for a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleOrder {
    /// It becomes the primary.
    Primary,
    /// It hands the role over.
    Secondary,
}
words!(RoleOrder, "order for a coordinator", Primary = "primary", Secondary = "secondary");

/// Passes the primary's role to a node, or away from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetCoordinatorState {
    /// primary: it takes the role over; secondary: another coordinator takes it over.
    pub state: RoleOrder,
}

written_as_words!(DomainOrder, RoleOrder, OwnAfterProof, OwnPowerOn, OwnOnReturn);
