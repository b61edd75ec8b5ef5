//! What is stored once for the whole cluster: its configuration, the API's tokens, and the faults that people should know of.

use crate::{name::TokenName, units::WallTime};
use serde::{Deserialize, Serialize};

/// The layout version of the whole tree (`/schema`) and of this module's records.
pub const CLUSTER_SCHEMA: u32 = 1;

/// `/config`: what holds for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// For people.
    pub cluster_name: String,
    /// Maintenance mode: no fencing, no new faults.
    #[serde(default)]
    pub maintenance: bool,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig { schema: CLUSTER_SCHEMA, cluster_name: "drover".to_owned(), maintenance: false }
    }
}

/// Who a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRole {
    /// An administrator.
    Admin,
    /// A node's daemon, and the administrator on that node.
    Node,
}

/// `/tokens/<name>`: the hash of a token. The token itself is 256 random bits and is shown once; it needs no slow hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Its name, by which it is listed and revoked.
    pub name: TokenName,
    /// SHA-256 of the token, in lower-case hexadecimal.
    pub sha256: String,
    /// Who it stands for.
    pub role: TokenRole,
    /// When it was made; for people.
    pub created: WallTime,
}

/// `/faults/<id>`: something that a person should look at. Reporting the same id again only moves `last_reported`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Names the cause, so that it is reported once: `vm-failed-<uuid>`.
    pub id: String,
    /// What is wrong and what to do.
    pub message: String,
    /// How much of the cluster's health it costs, in percent.
    pub health_delta: u8,
    /// When it was first seen.
    pub first_reported: WallTime,
    /// When it was last seen.
    pub last_reported: WallTime,
    /// When somebody acknowledged it.
    #[serde(default)]
    pub acknowledged_at: Option<WallTime>,
}
