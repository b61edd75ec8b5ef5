//! What is stored once for the whole cluster: its configuration, the API's tokens, and the faults that people should
//! know of.

use crate::{
    meta::Selector,
    name::TokenName,
    record::{Only, RecordKind, Writer},
    units::WallTime,
    words::words,
};
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
    /// Maintenance mode: no fencing, no new faults. Whether it is on still says [`ClusterConfig::is_in_maintenance`].
    #[serde(default)]
    pub maintenance: bool,
    /// When it ends by itself; `None`: when somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<WallTime>,
    /// How the node of a VM is chosen that has no selector of its own.
    #[serde(default)]
    pub selector: Selector,
    /// How many VMs move at once.
    #[serde(default)]
    pub limits: Limits,
    /// What becomes of a live migration that does not come to its end.
    #[serde(default)]
    pub stall: Stall,
    /// When that is, in seconds.
    #[serde(default = "default_deadline")]
    pub migration_deadline_s: u32,
}

/// How long a live migration may take when nobody says otherwise, in seconds.
pub const MIGRATION_DEADLINE_S: u32 = 300;

fn default_deadline() -> u32 {
    MIGRATION_DEADLINE_S
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            schema: CLUSTER_SCHEMA,
            cluster_name: "drover".to_owned(),
            maintenance: false,
            maintenance_until: None,
            selector: Selector::default(),
            limits: Limits::default(),
            stall: Stall::default(),
            migration_deadline_s: MIGRATION_DEADLINE_S,
        }
    }
}

impl ClusterConfig {
    /// Whether maintenance is on at this time. Its end is a time that people gave, so a wall clock tells whether it is
    /// over.
    pub fn is_in_maintenance(&self, now: WallTime) -> bool {
        self.maintenance && self.maintenance_until.is_none_or(|until| now < until)
    }
}

/// How many VMs move at once, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Away from one node.
    pub per_source: u32,
    /// To one node.
    pub per_target: u32,
    /// In the whole cluster.
    pub cluster: u32,
}

impl Default for Limits {
    /// Two for each node keep a link busy without many guests waiting on each other; eight keep a rack's switch from
    /// being the limit.
    fn default() -> Limits {
        Limits { per_source: 2, per_target: 2, cluster: 8 }
    }
}

/// What becomes of a live migration that does not come to its end by its deadline. Before that, the guest is slowed
/// down more and more (QEMU's auto-converge).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stall {
    /// It is given up; the VM runs on where it was. With the method `none` it is then moved cold.
    #[default]
    Abort,
    /// The guest goes on at the target at once and fetches what is missing (post-copy). If a node dies meanwhile the
    /// guest is lost.
    PostCopy,
}
words!(Stall, "policy", Abort = "abort", PostCopy = "post-copy");

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

impl RecordKind for ClusterConfig {
    type Key = Only;
    const AT: &'static str = "/config";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Requests;
    /// Maintenance must not end, nor a limit fall, because somebody wrote something new.
    const KEEPS_LAST: bool = true;
    fn schema(&self) -> u32 {
        self.schema
    }

    /// For a daemon that has no last value: each part that can be read; and maintenance, unless it is said that there
    /// is none.
    fn salvage(_: &Only, document: &serde_json::Value) -> Option<ClusterConfig> {
        fn part<T: serde::de::DeserializeOwned>(document: &serde_json::Value, field: &str, or: T) -> T {
            document.get(field).cloned().and_then(|value| serde_json::from_value(value).ok()).unwrap_or(or)
        }
        let or = ClusterConfig::default();
        Some(ClusterConfig {
            schema: CLUSTER_SCHEMA,
            cluster_name: part(document, "cluster_name", or.cluster_name),
            maintenance: part(document, "maintenance", true),
            maintenance_until: part(document, "maintenance_until", None),
            selector: part(document, "selector", or.selector),
            limits: part(document, "limits", or.limits),
            stall: part(document, "stall", or.stall),
            migration_deadline_s: part(document, "migration_deadline_s", or.migration_deadline_s),
        })
    }
}

impl RecordKind for Token {
    type Key = TokenName;
    const AT: &'static str = "/tokens/*";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Requests;
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl RecordKind for Fault {
    type Key = String;
    const AT: &'static str = "/faults/*";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Node;
    fn schema(&self) -> u32 {
        self.schema
    }
}

/// `/schema`: the layout of the tree. A daemon that knows an earlier one only does not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Layout(pub u32);

impl RecordKind for Layout {
    type Key = Only;
    const AT: &'static str = "/schema";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Node;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_ends_by_itself_at_its_time() {
        let mut config = ClusterConfig { maintenance_until: Some(WallTime(5)), ..ClusterConfig::default() };
        assert!(!config.is_in_maintenance(WallTime(4)), "it is off");
        config.maintenance = true;
        assert_eq!([4, 5, 6].map(|now| config.is_in_maintenance(WallTime(now))), [true, false, false]);
        config.maintenance_until = None;
        assert!(config.is_in_maintenance(WallTime(u64::MAX)));
    }

    #[test]
    fn a_record_from_before_maintenance_had_an_end_can_be_read() {
        let old = r#"{"schema": 1, "cluster_name": "c", "maintenance": true}"#;
        let read: ClusterConfig = serde_json::from_str(old).unwrap();
        assert_eq!((read.maintenance, read.maintenance_until), (true, None));
    }
}
