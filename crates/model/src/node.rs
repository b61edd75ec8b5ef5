//! A node as it is stored: what it is meant to be, what it reports, and the sign that its daemon is alive.

use crate::{
    domain::DomainType,
    name::{NodeName, VmName},
    record::{RecordKind, Writer},
    units::{Bytes, WallTime},
    words::words,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The layout version of this module's records.
pub const NODE_SCHEMA: u32 = 1;

/// What a node may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May become primary. Runs VMs too.
    Coordinator,
    /// Only runs VMs.
    #[default]
    Hypervisor,
}

/// Whether a node takes VMs: what administrators set with *flush* and *ready*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Takes VMs.
    Ready,
    /// Its VMs are being moved away.
    Flush,
    /// Has no VMs and takes none.
    Flushed,
    /// Its VMs are being brought home.
    Unflush,
}

/// What a node's daemon says of itself, and what the others make of its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonState {
    /// Starting: not ready for work.
    Init,
    /// Working.
    Run,
    /// Stopping in an orderly way.
    Shutdown,
    /// Stopped in an orderly way.
    Stop,
    /// Its session is gone and it did not say why.
    Dead,
}

/// The part that a node plays in holding the cluster's floating addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoordinatorState {
    /// Holds them.
    Primary,
    /// Is taking them over.
    Takeover,
    /// Is handing them over.
    Relinquish,
    /// May take them.
    Secondary,
    /// Never holds them.
    #[default]
    Client,
}

words!(DomainState, "domain state", Ready = "ready", Flush = "flush", Flushed = "flushed", Unflush = "unflush");
words!(DaemonState, "daemon state", Init = "init", Run = "run", Shutdown = "shutdown", Stop = "stop", Dead = "dead");
words!(
    CoordinatorState,
    "coordinator state",
    Primary = "primary",
    Takeover = "takeover",
    Relinquish = "relinquish",
    Secondary = "secondary",
    Client = "client"
);

/// `/nodes/<name>`: what a node is meant to be. Made by its daemon at its first start; its domain state is changed by
/// requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Its name.
    pub name: NodeName,
    /// The machine's id. Claims are held by a node's name, so a name belongs to one machine until the node is removed
    /// from the cluster.
    #[serde(default)]
    pub machine: String,
    /// What it may be.
    pub role: Role,
    /// Where the other daemons reach its API on the cluster network: `address:port`.
    pub api: String,
    /// The libvirt URI by which other nodes send it guests.
    #[serde(default)]
    pub migration: String,
    /// Whether it takes VMs.
    pub domain_state: DomainState,
}

/// `/nodes/<name>/status`: what a node reports, every few seconds and when something changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// What its daemon does; `Dead` is never reported.
    pub daemon: DaemonState,
    /// Drover's version.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system, for people.
    pub os: String,
    /// `x86_64`.
    pub arch: String,
    /// QEMU's and libvirt's versions, for people; empty while there is no connection.
    #[serde(default)]
    pub hypervisor: String,
    /// Why the hypervisor cannot be used now; empty when it can.
    #[serde(default)]
    pub hypervisor_problem: String,
    /// How guests are executed here; `None` while that is being found out.
    #[serde(default)]
    pub domain_type: Option<DomainType>,
    /// Processor threads.
    pub cpus: u32,
    /// Memory that the node offers: its configured capacity, or all of it.
    pub memory_total: Bytes,
    /// Memory that could be given out now, by the kernel's estimate, within the capacity.
    pub memory_free: Bytes,
    /// Load average over one minute.
    pub load: f32,
    /// Domains of ours that are in memory, by UUID.
    pub domains: Vec<Uuid>,
    /// The processors' model, for guests that must find the same one everywhere.
    #[serde(default)]
    pub cpu_model: String,
    /// Bridges that guests can be connected to.
    #[serde(default)]
    pub bridges: Vec<String>,
    /// Folders that other nodes have too, with the same content under the same name.
    #[serde(default)]
    pub shared: Vec<String>,
    /// What ails the networks on which this node would have floating addresses; empty: nothing.
    #[serde(default)]
    pub network_problems: Vec<String>,
    /// The floating addresses that its configuration has, each with its network's name.
    #[serde(default)]
    pub floating: Vec<(String, String)>,
    /// How far it is with being emptied or filled; `None`: neither.
    #[serde(default)]
    pub drain: Option<DrainReport>,
    /// Parts of the daemon that failed lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duties: Vec<DutyReport>,
    /// When this was written, by the node's own wall clock; for people.
    pub updated: WallTime,
}

/// How far a node is with being emptied (flush) or having its VMs brought home (ready).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainReport {
    /// VMs that still have to move, be shut down or be started.
    pub left: u32,
    /// Those of them that are on their way.
    pub moving: u32,
    /// VMs that it cannot do anything about, and why.
    pub blocked: Vec<(VmName, String)>,
}

/// A part of a node's daemon that failed, and was begun again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DutyReport {
    /// What it is called.
    pub name: String,
    /// How often it failed lately.
    pub failures: u32,
    /// What it said last.
    pub why: String,
}

/// `/nodes/<name>/session`, ephemeral: the node's daemon is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSession {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// This run of the daemon.
    pub instance: Uuid,
    /// The machine: a second daemon of the same name on another machine is refused, the same machine's replaces its
    /// dead predecessor.
    pub machine: String,
    /// This boot of the machine.
    pub boot: String,
    /// When the daemon started; for people.
    pub started: WallTime,
}

/// Free memory that differs by less, in bytes, is no news: a kernel's page cache breathes by that much.
const MEMORY_NEWS: u64 = 64 << 20;
/// A load that differs by less is no news: a selector's tie is broken by whole vCPUs.
const LOAD_NEWS: f32 = 0.5;

impl NodeStatus {
    /// Whether this report says something that `told` does not: every report is read by all nodes.
    pub fn is_news_after(&self, told: &NodeStatus) -> bool {
        let memory = self.memory_free.0.abs_diff(told.memory_free.0) >= MEMORY_NEWS;
        let load = (self.load - told.load).abs() >= LOAD_NEWS;
        let same = NodeStatus { memory_free: told.memory_free, load: told.load, updated: told.updated, ..self.clone() };
        memory || load || same != *told
    }
}

impl RecordKind for NodeRecord {
    type Key = NodeName;
    const AT: &'static str = "/nodes/*";
    const SCHEMA: u32 = NODE_SCHEMA;
    const WRITER: Writer = Writer::Requests;

    fn schema(&self) -> u32 {
        self.schema
    }

    /// That there is such a node, and how it is reached. It takes no VMs.
    fn salvage(name: &NodeName, document: &serde_json::Value) -> Option<NodeRecord> {
        let text = |field: &str| document.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let role = document.get("role").cloned().and_then(|role| serde_json::from_value(role).ok());
        Some(NodeRecord {
            schema: NODE_SCHEMA,
            name: name.clone(),
            machine: text("machine"),
            role: role.unwrap_or_default(),
            api: text("api"),
            migration: text("migration"),
            domain_state: DomainState::Flushed,
        })
    }
}

impl RecordKind for NodeStatus {
    type Key = NodeName;
    const AT: &'static str = "/nodes/*/status";
    const SCHEMA: u32 = NODE_SCHEMA;
    const WRITER: Writer = Writer::Node;
    fn schema(&self) -> u32 {
        self.schema
    }

    /// What its daemon does, and what it has, as far as that can be read: a node of a later version lives, though it
    /// takes no VMs from here.
    fn salvage(_: &NodeName, document: &serde_json::Value) -> Option<NodeStatus> {
        fn part<T: serde::de::DeserializeOwned>(document: &serde_json::Value, field: &str) -> Option<T> {
            document.get(field).cloned().and_then(|value| serde_json::from_value(value).ok())
        }
        let text = |field: &str| part::<String>(document, field).unwrap_or_default();
        Some(NodeStatus {
            schema: NODE_SCHEMA,
            daemon: part(document, "daemon")?,
            version: text("version"),
            kernel: text("kernel"),
            os: text("os"),
            arch: text("arch"),
            hypervisor: text("hypervisor"),
            hypervisor_problem: text("hypervisor_problem"),
            domain_type: part(document, "domain_type"),
            cpus: part(document, "cpus").unwrap_or_default(),
            memory_total: part(document, "memory_total").unwrap_or_default(),
            memory_free: part(document, "memory_free").unwrap_or_default(),
            load: part(document, "load").unwrap_or_default(),
            domains: part(document, "domains").unwrap_or_default(),
            cpu_model: text("cpu_model"),
            bridges: part(document, "bridges").unwrap_or_default(),
            shared: part(document, "shared").unwrap_or_default(),
            network_problems: part(document, "network_problems").unwrap_or_default(),
            floating: part(document, "floating").unwrap_or_default(),
            drain: part(document, "drain"),
            duties: part(document, "duties").unwrap_or_default(),
            updated: part(document, "updated").unwrap_or_default(),
        })
    }
}

impl RecordKind for NodeSession {
    type Key = NodeName;
    const AT: &'static str = "/nodes/*/session";
    const SCHEMA: u32 = NODE_SCHEMA;
    const WRITER: Writer = Writer::Node;

    fn schema(&self) -> u32 {
        self.schema
    }

    /// That the daemon lives is what counts.
    fn salvage(_: &NodeName, document: &serde_json::Value) -> Option<NodeSession> {
        let text = |field: &str| document.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        Some(NodeSession {
            schema: NODE_SCHEMA,
            instance: text("instance").parse().unwrap_or(Uuid::nil()),
            machine: text("machine").to_owned(),
            boot: text("boot").to_owned(),
            started: WallTime(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_news_when_somebody_could_decide_otherwise() {
        let text = r#"{"schema":1,"daemon":"run","version":"","kernel":"","os":"","arch":"","cpus":1,"memory_total":9,
            "memory_free":100000000,"load":1.0,"domains":[],"updated":0}"#;
        let told: NodeStatus = serde_json::from_str(text).unwrap();
        let is_news = |change: fn(&mut NodeStatus)| {
            let mut report = told.clone();
            change(&mut report);
            report.is_news_after(&told)
        };
        assert!(!is_news(|r| (r.updated, r.load, r.memory_free) = (WallTime(9), 1.4, Bytes(100_000_009))));
        assert!(is_news(|r| r.load = 1.5));
        assert!(is_news(|r| r.memory_free = Bytes(100_000_000 + (64 << 20))));
        assert!(is_news(|r| r.daemon = DaemonState::Stop));
        assert!(is_news(|r| r.hypervisor_problem = "gone".to_owned()));
        assert!(is_news(|r| r.domains = vec![Uuid::nil()]));
    }

    #[test]
    fn words_are_read_and_refused() {
        assert_eq!("flush".parse(), Ok(DomainState::Flush));
        let error = "flushing".parse::<DomainState>().unwrap_err().to_string();
        assert_eq!(error, "\"flushing\" is no domain state: accepted are ready, flush, flushed, unflush");
    }
}
