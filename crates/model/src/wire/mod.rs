//! What the HTTP API takes and answers: version 1, with the field names that its clients know.
//!
//! Everything here is made from the view by pure functions. Sizes are MiB here and nowhere deeper. Fields of things that
//! this cluster does not have are present and empty, as clients expect them.

mod meta;
mod moves;
mod node;
mod status;
mod vm;

pub use meta::{Meta, Tag, Tags};
pub use moves::{Explained, Fate, Judged, Migration, MoveOutcome};
pub use node::{Blocked, Drain, Memory, Node, NodeChanged, NodeNumbers, Vcpu};
pub use status::{Health, HealthMessage, Resource, Resources, Status};
pub use vm::{Vm, VmClaim, VmNode};

use crate::{ClusterConfig, Fault, Token, TokenRole, name::TokenName};
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

/// What holds for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Config {
    /// The cluster's name.
    pub cluster_name: String,
    /// Whether it is in maintenance.
    pub maintenance: bool,
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

impl From<&ClusterConfig> for Config {
    fn from(config: &ClusterConfig) -> Config {
        Config {
            cluster_name: config.cluster_name.clone(),
            maintenance: config.maintenance,
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

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FaultInfo {
    /// Names the cause.
    pub id: String,
    /// When it was first seen: milliseconds since 1970, UTC.
    pub first_reported: u64,
    /// When it was last seen.
    pub last_reported: u64,
    /// When somebody acknowledged it; 0: nobody did.
    pub acknowledged_at: u64,
    /// `new` or `ack`.
    pub status: String,
    /// How much of the cluster's health it costs, in percent.
    pub health_delta: u8,
    /// What is wrong and what to do.
    pub message: String,
}

impl From<&Fault> for FaultInfo {
    fn from(fault: &Fault) -> FaultInfo {
        FaultInfo {
            id: fault.id.clone(),
            first_reported: fault.first_reported.0,
            last_reported: fault.last_reported.0,
            acknowledged_at: fault.acknowledged_at.map_or(0, |t| t.0),
            status: if fault.acknowledged_at.is_some() { "ack" } else { "new" }.to_owned(),
            health_delta: fault.health_delta,
            message: fault.message.clone(),
        }
    }
}
