//! Records of the whole cluster: its configuration, the API's tokens, and the faults for administrators.

use crate::{
    meta::Selector,
    name::TokenName,
    operation::{self, Operation},
    record::{Only, RecordKind, Writer},
    units::WallTime,
    words::words,
};
use serde::{Deserialize, Serialize};

/// The layout version of the whole tree (`/schema`) and of this module's records.
pub const CLUSTER_SCHEMA: u32 = 1;

/// `/config`: the cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Name of the cluster, for users.
    pub cluster_name: String,
    /// Maintenance mode: no fencing, no new faults. It may have ended by itself: see
    /// [`ClusterConfig::is_in_maintenance`].
    #[serde(default)]
    pub maintenance: bool,
    /// When maintenance ends by itself; `None`: it is ended by a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<WallTime>,
    /// Selector for VMs without one of their own.
    #[serde(default)]
    pub selector: Selector,
    /// Limits of concurrent moves.
    #[serde(default)]
    pub limits: MoveLimits,
    /// What to do with a live migration that exceeds the deadline.
    #[serde(default)]
    pub stall: Stall,
    /// Deadline of a live migration, in seconds.
    #[serde(default = "default_deadline")]
    pub migration_deadline_s: u32,
    /// How many nodes the cluster must be able to lose at once without a lack of memory for their VMs; otherwise it is
    /// a fault. 0: none is a fault. From 2 on, each single one and so many at once.
    #[serde(default = "default_tolerate", skip_serializing_if = "is_default_tolerate")]
    pub tolerate: u32,
    /// What follows when it is proved that a node is off.
    #[serde(default, skip_serializing_if = "is_default_after_proof")]
    pub after_proof: AfterProof,
    /// Whether a node whose power was cut is switched on again when its VMs are recovered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub power_on: bool,
    /// What a node is when it is back after its VMs were given to others.
    #[serde(default, skip_serializing_if = "is_default_on_return")]
    pub on_return: OnReturn,
    /// The operation that changed it last. For people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "operation::if_known")]
    pub operation: Option<Operation>,
}

/// Default of [`ClusterConfig::tolerate`].
pub const TOLERATE: u32 = 1;
/// Maximum of [`ClusterConfig::tolerate`]. More at once are no coincidence but a common cause, for which memory is not
/// kept in reserve.
pub const TOLERATE_MAX: u32 = 3;

fn default_tolerate() -> u32 {
    TOLERATE
}

fn is_default_tolerate(tolerate: &u32) -> bool {
    *tolerate == TOLERATE
}

fn is_default_after_proof(policy: &AfterProof) -> bool {
    *policy == AfterProof::default()
}

fn is_default_on_return(policy: &OnReturn) -> bool {
    *policy == OnReturn::default()
}

/// Default deadline of a live migration, in seconds.
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
            limits: MoveLimits::default(),
            stall: Stall::default(),
            migration_deadline_s: MIGRATION_DEADLINE_S,
            tolerate: TOLERATE,
            after_proof: AfterProof::default(),
            power_on: false,
            on_return: OnReturn::default(),
            operation: None,
        }
    }
}

impl ClusterConfig {
    /// Whether maintenance is on at this time. Its end is a time given by users, so it is compared with the wall clock.
    pub fn is_in_maintenance(&self, now: WallTime) -> bool {
        self.maintenance && self.maintenance_until.is_none_or(|until| now < until)
    }
}

/// Maximum of each limit of concurrent moves.
pub const LIMIT_MAX: u32 = 100;
/// Maximum deadline of a live migration, in seconds: one day.
pub const DEADLINE_MAX_S: u32 = 86_400;
/// Maximum duration of maintenance, in seconds: one year.
pub const MAINTENANCE_MAX_S: u64 = 366 * 86_400;

/// Limits of concurrent moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveLimits {
    /// Away from one node.
    pub per_source: u32,
    /// To one node. VMs that are only started there, because the node that had them is off, do not count.
    pub per_target: u32,
    /// In the whole cluster.
    pub cluster: u32,
}

impl Default for MoveLimits {
    /// Two per node keep a link busy without many guests waiting for each other; eight keep a rack's switch from being
    /// the bottleneck.
    fn default() -> MoveLimits {
        MoveLimits { per_source: 2, per_target: 2, cluster: 8 }
    }
}

/// What to do with a live migration that has not completed by its deadline. Before that, the guest is throttled more
/// and more (QEMU's auto-converge).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stall {
    /// Abort it; the VM continues on the source. With the method `none` it is then moved cold.
    #[default]
    Abort,
    /// Resume the guest on the target at once and fetch the missing memory afterwards (post-copy). If a node dies
    /// meanwhile the guest is lost.
    PostCopy,
}
words!(Stall, "policy", Abort = "abort", PostCopy = "post-copy");

/// What follows when it is proved, by a BMC or a watchdog, that a node is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AfterProof {
    /// Its VMs start on other nodes.
    #[default]
    Recover,
    /// Nothing, until an administrator confirms it.
    None,
}
words!(AfterProof, "policy", Recover = "recover", None = "none");

/// What a node is when it is back after its VMs were given to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnReturn {
    /// It takes no VMs until an administrator makes it ready.
    #[default]
    Flushed,
    /// It becomes ready by itself, and its VMs come home, if it was ready before.
    Ready,
}
words!(OnReturn, "policy", Flushed = "flushed", Ready = "ready");

/// Role of a token's owner.
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
    /// Role of its owner.
    pub role: TokenRole,
    /// Time of its creation, for users.
    pub created: WallTime,
}

/// `/faults/<id>`: a problem that an administrator should look at. Reporting the same id again only updates
/// `last_reported`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Identifies the cause, so that it is reported once: `vm-failed-<uuid>`.
    pub id: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Deduction from the cluster's health, in percent.
    pub health_delta: u8,
    /// When it was first seen.
    pub first_reported: WallTime,
    /// When it was last seen.
    pub last_reported: WallTime,
    /// When it was acknowledged; `None` if it was not.
    #[serde(default)]
    pub acknowledged_at: Option<WallTime>,
}

impl RecordKind for ClusterConfig {
    type Key = Only;
    const AT: &'static str = "/config";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Requests;

    fn operation(&mut self) -> Option<&mut Option<Operation>> {
        Some(&mut self.operation)
    }

    /// For a daemon without a last value: each readable part; and maintenance is on unless the record says that it is
    /// off.
    fn salvage(_: &Only, document: &serde_json::Value) -> Option<ClusterConfig> {
        ClusterConfig { maintenance: true, ..ClusterConfig::default() }.salvage_after(document)
    }

    /// Each readable part, and the last value of each other one: a new format must not end maintenance or reset a
    /// limit; and changes in a known format apply.
    fn salvage_after(&self, document: &serde_json::Value) -> Option<ClusterConfig> {
        fn part<T: serde::de::DeserializeOwned + Clone>(document: &serde_json::Value, field: &str, last: &T) -> T {
            let said = document.get(field).cloned().and_then(|value| serde_json::from_value(value).ok());
            said.unwrap_or_else(|| last.clone())
        }
        Some(ClusterConfig {
            schema: CLUSTER_SCHEMA,
            cluster_name: part(document, "cluster_name", &self.cluster_name),
            maintenance: part(document, "maintenance", &self.maintenance),
            maintenance_until: match document.get("maintenance_until") {
                None => None,
                Some(_) => part(document, "maintenance_until", &self.maintenance_until),
            },
            selector: part(document, "selector", &self.selector),
            limits: part(document, "limits", &self.limits),
            stall: part(document, "stall", &self.stall),
            migration_deadline_s: part(document, "migration_deadline_s", &self.migration_deadline_s),
            tolerate: match document.get("tolerate") {
                None => TOLERATE,
                Some(_) => part(document, "tolerate", &self.tolerate),
            },
            after_proof: match document.get("after_proof") {
                None => AfterProof::default(),
                Some(_) => part(document, "after_proof", &self.after_proof),
            },
            power_on: document.get("power_on").is_some() && part(document, "power_on", &self.power_on),
            on_return: match document.get("on_return") {
                None => OnReturn::default(),
                Some(_) => part(document, "on_return", &self.on_return),
            },
            operation: None,
        })
    }
}

impl RecordKind for Token {
    type Key = TokenName;
    const AT: &'static str = "/tokens/*";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Requests;
}

impl RecordKind for Fault {
    type Key = String;
    const AT: &'static str = "/faults/*";
    const SCHEMA: u32 = CLUSTER_SCHEMA;
    const WRITER: Writer = Writer::Node;
}

/// `/schema`: the layout of the tree. A daemon that only knows an earlier one does not join.
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
