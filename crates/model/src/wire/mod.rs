//! What the HTTP API takes and answers: version 1, with the field names that its clients know.
//!
//! Everything here is made from the view by pure functions. Sizes are MiB here and nowhere deeper. Fields of things
//! that this cluster does not have are present and empty, as clients expect them.

mod fault;
mod meta;
mod moves;
mod node;
mod status;
mod vm;

pub use fault::{FaultInfo, FaultKey};
pub use meta::{Meta, Tag, Tags};
pub use moves::{Explained, Fate, Judged, Migration, MoveOrder, MoveOutcome};
pub use node::{Blocked, Drain, Memory, Node, NodeChanged, NodeNumbers, Vcpu};
pub use status::{Health, HealthMessage, Resource, Resources, Status};
pub use vm::{Vm, VmClaim, VmNode};

use crate::{ClusterConfig, Token, TokenRole, WallTime, name::TokenName};
use serde::{Deserialize, Serialize};

/// The version of Drover, as answers give it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An answer that is only a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Message {
    /// For people.
    pub message: String,
}

/// What answers: the API's version, and the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Root {
    /// For people.
    pub message: String,
    /// The name of the node that answers. Older daemons do not say it.
    #[serde(default)]
    pub node: String,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The whole story in one sentence.
    pub message: String,
    /// The parameter that was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What it was.
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
    /// For people.
    pub message: String,
    /// The VM's name.
    pub name: String,
    /// The VM's UUID.
    pub uuid: String,
    /// The version of the VM's record now; to be named by a later change that must not overwrite anything.
    pub version: i64,
    /// For a move: the node that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// For a new definition: what changed, as a unified diff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

/// The answer to an order that switches maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Maintenance {
    /// For people.
    pub message: String,
    /// Whether the cluster is in maintenance now.
    pub maintenance: bool,
    /// When maintenance ends by itself: milliseconds since 1970, UTC. Not there: it is off, or has no end of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
}

/// Lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Log {
    /// Whose.
    pub name: String,
    /// The lines.
    pub data: String,
}

/// A VM's state, or a node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StateOf {
    /// Whose.
    pub name: String,
    /// The state's word.
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

/// What holds for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// The cluster's name.
    pub cluster_name: String,
    /// Whether it is in maintenance now.
    pub maintenance: bool,
    /// When maintenance ends by itself: milliseconds since 1970, UTC. Not there: it is off, or has no end of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<u64>,
    /// How the node of a VM is chosen that has no selector of its own.
    pub selector: String,
    /// How many VMs move away from one node at once, at most.
    pub moves_per_source: u32,
    /// How many VMs move to one node at once, at most.
    pub moves_per_target: u32,
    /// How many VMs move at once in all, at most.
    pub moves: u32,
    /// What becomes of a live migration that does not come to its end by its deadline: `abort`, `post-copy`.
    pub stall: String,
    /// When that is, in seconds.
    pub migration_deadline: u32,
}

impl Config {
    /// The configuration, as it is now.
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
        }
    }
}

/// A token, without itself.
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
    /// What may be shown of it.
    pub fn of(token: &Token) -> TokenInfo {
        let role = match token.role {
            TokenRole::Admin => "admin",
            TokenRole::Node => "node",
        };
        TokenInfo { name: token.name.clone(), role: role.to_owned(), created: token.created.0 }
    }
}

/// A new token, the only time that it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewToken {
    /// Its name.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: TokenName,
    /// The token itself.
    pub token: String,
}
