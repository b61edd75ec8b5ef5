//! Requests and answers of the HTTP API, version 1, with the field names that its clients know.
//!
//! Pure functions build all answers from the view. Sizes are in MiB here and nowhere deeper. Fields of features that
//! this cluster does not have are present and empty, as clients expect them.

mod drain;
mod event;
mod fault;
mod fence;
mod import;
mod meta;
mod moves;
mod node;
mod placed;
mod request;
mod status;
mod vm;

pub use drain::{DrainOutcome, DrainWait};
pub use event::{BadCursor, Cursor, Event, EventKind, Events};
pub use fault::{FaultInfo, FaultKey};
pub use fence::{FenceInfo, LossFigures, LossPlan, LossTogether, NodeLoss, Proof};
pub use import::ImportedVm;
pub use meta::{Meta, Tag, Tags};
pub use moves::{Explained, Fate, Judged, Migration, MoveOrder, MoveOutcome};
pub use node::{Blocked, Drain, FailedDuty, Memory, Node, NodeChanged, NodeNumbers, NodePolicies, Vcpu, Watchdog};
pub use placed::{Placed, Rejected, Scored};
pub use request::*;
pub use status::{Health, HealthMessage, Resource, Resources, Status};
pub use vm::{ListedVm, Settled, Vm, VmClaim, VmNode};

use crate::{ClusterConfig, Token, TokenRole, WallTime, name::TokenName};
use serde::{Deserialize, Serialize};

/// The version of Drover in answers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An answer that is just a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// For users.
    pub message: String,
}

/// The API's version, and the node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Root {
    /// For users.
    pub message: String,
    /// The name of the node that answers. Older daemons omit it.
    #[serde(default)]
    pub node: String,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The complete message in one sentence.
    pub message: String,
    /// The parameter that was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The given value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    /// What is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
}

/// The answer to a change of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Changed {
    /// For users.
    pub message: String,
    /// The VM's name.
    pub name: String,
    /// The VM's UUID.
    pub uuid: String,
    /// The version of the VM's record now; give it in a later change that must not overwrite other changes.
    pub version: i64,
    /// For a move: the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// For a new definition: what changed, as a unified diff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// What an administrator should know of it, in sentences: nodes whose loss the others could not absorb then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The answer to a change of the maintenance mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Maintenance {
    /// For users.
    pub message: String,
    /// Whether the cluster is in maintenance now.
    pub maintenance: bool,
    /// When maintenance ends by itself: milliseconds since 1970, UTC. Absent: it is off, or has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
}

/// Lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Log {
    /// The name of the VM or node.
    pub name: String,
    /// The lines.
    pub data: String,
}

/// A VM's state, or a node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StateOf {
    /// The name of the VM or node.
    pub name: String,
    /// The state.
    pub state: String,
}

/// The primary coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PrimaryNode {
    /// Its name, under the name that scripts and load balancers know.
    #[serde(default)]
    pub primary_node: String,
    /// Its name.
    pub name: String,
    /// `primary`.
    pub state: String,
}

/// The cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// The cluster's name.
    pub cluster_name: String,
    /// Whether it is in maintenance now.
    pub maintenance: bool,
    /// When maintenance ends by itself: milliseconds since 1970, UTC. Absent: it is off, or has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
    /// Selector for VMs without one of their own.
    pub selector: String,
    /// Maximum number of concurrent moves from one node.
    pub moves_per_source: u32,
    /// Maximum number of concurrent moves to one node.
    pub moves_per_target: u32,
    /// Maximum number of concurrent moves in the cluster.
    pub moves: u32,
    /// What to do with a live migration that has not completed by its deadline: `abort`, `post-copy`.
    pub stall: String,
    /// Deadline of a live migration, in seconds.
    pub migration_deadline: u32,
    /// How many nodes the cluster must be able to lose without a lack of memory for their VMs.
    pub tolerate: u32,
    /// What follows when it is proved that a node is off: `recover`, or `none` until an administrator confirms it.
    #[serde(default)]
    pub after_proof: String,
    /// Whether a node whose power was cut is switched on again when its VMs are recovered.
    #[serde(default)]
    pub power_on: bool,
    /// What a node is when it is back after its VMs were given to others: `flushed` or `ready`.
    #[serde(default)]
    pub on_return: String,
}

impl Config {
    /// The present configuration.
    pub fn of(config: &ClusterConfig, now: WallTime) -> Config {
        let maintenance = config.is_in_maintenance(now);
        Config {
            cluster_name: config.cluster_name.clone(),
            maintenance,
            maintenance_until: config.maintenance_until.filter(|_| maintenance).map(|until| until.0),
            selector: config.selector.word().to_owned(),
            moves_per_source: config.limits.per_source,
            moves_per_target: config.limits.per_target,
            moves: config.limits.cluster,
            stall: config.stall.word().to_owned(),
            migration_deadline: config.migration_deadline_s,
            tolerate: config.tolerate,
            after_proof: config.after_proof.word().to_owned(),
            power_on: config.power_on,
            on_return: config.on_return.word().to_owned(),
        }
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TokenInfo {
    /// Its name.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: TokenName,
    /// `admin` or `node`.
    pub role: String,
    /// Milliseconds since 1970, UTC.
    pub created: u64,
}

impl TokenInfo {
    /// The token without its secret.
    pub fn of(token: &Token) -> TokenInfo {
        let role = match token.role {
            TokenRole::Admin => "admin",
            TokenRole::Node => "node",
        };
        TokenInfo { name: token.name.clone(), role: role.to_owned(), created: token.created.0 }
    }
}

/// A new token; the secret is shown only here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewToken {
    /// Its name.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: TokenName,
    /// The secret.
    pub token: String,
}
