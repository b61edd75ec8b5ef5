//! The records of a node: its configuration and wanted state, its report, and the session of its daemon.

use crate::{
    bmc::BmcReport,
    cluster::{AfterProof, ClusterConfig, OnReturn},
    domain::DomainType,
    guests::Guests,
    name::{NodeName, VmName},
    operation::{self, Operation},
    record::{RecordKind, Writer},
    units::{Bytes, WallTime},
    vm::Epoch,
    watchdog::WatchdogReport,
    words::words,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The layout version of this module's records.
pub const NODE_SCHEMA: u32 = 1;

/// Role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Can become the primary. Runs VMs too.
    Coordinator,
    /// Only runs VMs.
    #[default]
    Hypervisor,
}

/// Whether a node accepts VMs: set by administrators with *flush* and *ready*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Accepts VMs.
    Ready,
    /// Its VMs are being moved away.
    Flush,
    /// Has no VMs and accepts none.
    Flushed,
    /// Its VMs are being brought home.
    Unflush,
}

/// State of a node's daemon: its own report, or what others conclude from its silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaemonState {
    /// Starting: not ready for work.
    Init,
    /// Working.
    Run,
    /// Shutting down.
    Shutdown,
    /// Stopped after a shutdown.
    Stop,
    /// Its session is gone without a shutdown.
    Dead,
}

/// State of a node with respect to the cluster's floating addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoordinatorState {
    /// Has them.
    Primary,
    /// Is taking them over.
    Takeover,
    /// Is handing them over.
    Relinquish,
    /// Can take them over.
    Secondary,
    /// Never has them.
    #[default]
    Client,
}

words!(NodeState, "domain state", Ready = "ready", Flush = "flush", Flushed = "flushed", Unflush = "unflush");
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

/// `/nodes/<name>`: a node's configuration and wanted state. Created by its daemon at its first start; requests change
/// its domain state.
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
    /// Its role.
    pub role: Role,
    /// Address of its API on the cluster network, for the other daemons: `address:port`.
    pub api: String,
    /// The libvirt URI for migrations to it.
    #[serde(default)]
    pub migration: String,
    /// Whether it accepts VMs.
    pub domain_state: NodeState,
    /// Boot id of the machine at its daemon's last registration. Empty in records of older daemons.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// This node's own [`ClusterConfig::after_proof`]; `None`: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_proof: Option<AfterProof>,
    /// This node's own [`ClusterConfig::power_on`]; `None`: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_on: Option<bool>,
    /// This node's own [`ClusterConfig::on_return`]; `None`: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_return: Option<OnReturn>,
    /// It is flushed only because its VMs were given to others, and was ready before: it is to become ready again when
    /// it is back. That was the policy then ([`ClusterConfig::on_return`]), and no administrator has given an order
    /// about the node since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub then_ready: bool,
    /// The operation that changed it last. For people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "operation::if_known")]
    pub operation: Option<Operation>,
}

impl NodeRecord {
    /// What follows when it is proved that this node is off.
    pub fn effective_after_proof(&self, cluster: &ClusterConfig) -> AfterProof {
        self.after_proof.unwrap_or(cluster.after_proof)
    }

    /// Whether this node is switched on again after its power was cut.
    pub fn effective_power_on(&self, cluster: &ClusterConfig) -> bool {
        self.power_on.unwrap_or(cluster.power_on)
    }

    /// What this node is when it is back after its VMs were given to others.
    pub fn effective_on_return(&self, cluster: &ClusterConfig) -> OnReturn {
        self.on_return.unwrap_or(cluster.on_return)
    }
}

/// `/nodes/<name>/status`: a node's report, every few seconds and after changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// State of its daemon; never `Dead`.
    pub daemon: DaemonState,
    /// Drover's version.
    pub version: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system, for users.
    pub os: String,
    /// `x86_64`.
    pub arch: String,
    /// Versions of QEMU and libvirt, for users; empty while there is no connection.
    #[serde(default)]
    pub hypervisor: String,
    /// Why the hypervisor cannot be used now; empty if it can.
    #[serde(default)]
    pub hypervisor_problem: String,
    /// How guests are executed here; `None` while that is not known yet.
    #[serde(default)]
    pub domain_type: Option<DomainType>,
    /// CPU threads.
    pub cpus: u32,
    /// Memory that the node offers: its configured capacity, or all of it.
    pub memory_total: Bytes,
    /// Memory available now, by the kernel's estimate, within the capacity.
    pub memory_free: Bytes,
    /// Load average over one minute.
    pub load: f32,
    /// Drover's domains in memory, by UUID.
    pub domains: Vec<Uuid>,
    /// Those of them that run here without a claim of this node, and that it leaves alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Stray>,
    /// Domains of its hypervisor that are not Drover's, as far as there is room for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<Foreign>,
    /// CPU model, for guests that depend on it.
    #[serde(default)]
    pub cpu_model: String,
    /// The guests that its hypervisor can run; `None` in reports of older daemons, and while the hypervisor cannot be
    /// used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guests: Option<Guests>,
    /// Bridges that guests can be connected to.
    #[serde(default)]
    pub bridges: Vec<String>,
    /// Folders shared with other nodes: the same content under the same path.
    #[serde(default)]
    pub shared: Vec<String>,
    /// Problems of the networks with floating addresses; empty if none.
    #[serde(default)]
    pub network_problems: Vec<String>,
    /// The floating addresses in its configuration, each with its network's name.
    #[serde(default)]
    pub floating: Vec<(String, String)>,
    /// Progress of a flush or a ready; `None` if there is none.
    #[serde(default)]
    pub drain: Option<DrainReport>,
    /// Parts of the daemon that failed lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub duties: Vec<DutyReport>,
    /// Its BMC; `None`: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcReport>,
    /// Its watchdog; `None`: none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogReport>,
    /// Which cluster key it has; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_key: String,
    /// Time of the report, by the node's own wall clock; for users.
    pub updated: WallTime,
}

/// `/removed/<node>`: a node that was removed. The machine that it was does not join again unasked: an administrator
/// may have removed it while it was away, with everything that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The machine's id.
    pub machine: String,
    /// When it was removed; for users.
    pub at: WallTime,
}

impl RecordKind for RemovedNode {
    type Key = NodeName;
    const AT: &'static str = "/removed/*";
    const SCHEMA: u32 = NODE_SCHEMA;
    const WRITER: Writer = Writer::Requests;
}

/// A guest with Drover's mark that runs on a node without a claim of that node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// Its UUID.
    pub uuid: Uuid,
    /// The grant in its mark.
    pub epoch: Epoch,
    /// Somebody had it paused. So it may be a copy of the guest that somebody's own migration has left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// A domain that is not Drover's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Foreign {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name, which libvirt allows once on a machine.
    pub name: String,
    /// Whether it is in memory.
    pub running: bool,
}

/// Maximum number of foreign domains in a report.
pub const FOREIGN_MAX: usize = 200;

/// Progress of a flush (VMs leave the node) or a ready (VMs come home).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DrainReport {
    /// VMs that still have to move, be shut down or be started.
    pub left: u32,
    /// Those of them that are on their way.
    pub moving: u32,
    /// VMs for which nothing can be done, with the reasons.
    pub blocked: Vec<(VmName, String)>,
    /// Guests of Drover on a node that is flushed, of whose VMs there is no record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Uuid>,
}

/// A part of a node's daemon that failed and was restarted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DutyReport {
    /// Its name.
    pub name: String,
    /// Number of recent failures.
    pub failures: u32,
    /// Its last error.
    pub why: String,
}

/// `/nodes/<name>/session`, ephemeral: exists while the node's daemon is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSession {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Identifies this run of the daemon.
    pub instance: Uuid,
    /// The machine id: a second daemon of the same name on another machine is refused, one on the same machine replaces
    /// its dead predecessor.
    pub machine: String,
    /// Boot id of the machine.
    pub boot: String,
    /// Address of the daemon's API, `address:port`. Distinguishes a clone with the same machine id from the original.
    /// Empty in records of older daemons.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api: String,
    /// When the daemon started; for users.
    pub started: WallTime,
}

/// Minimum change of the free memory that is reported, in bytes: a kernel's page cache varies by less all the time.
const MEMORY_NEWS: u64 = 64 << 20;
/// Minimum change of the load that is reported: whole vCPUs break a selector's tie.
const LOAD_NEWS: f32 = 0.5;

impl NodeStatus {
    /// Whether this report differs enough from the last one, `told`, to be written: all nodes read every report.
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

    fn operation(&mut self) -> Option<&mut Option<Operation>> {
        Some(&mut self.operation)
    }

    /// The node's existence and its addresses. It accepts no VMs. If it has a policy of its own that cannot be read, an
    /// administrator decides.
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
            domain_state: NodeState::Flushed,
            boot: text("boot"),
            after_proof: document
                .get("after_proof")
                .map(|own| serde_json::from_value(own.clone()).unwrap_or(AfterProof::None)),
            power_on: document.get("power_on").map(|own| own.as_bool().unwrap_or(false)),
            on_return: document
                .get("on_return")
                .map(|own| serde_json::from_value(own.clone()).unwrap_or(OnReturn::Flushed)),
            then_ready: false,
            operation: None,
        })
    }
}

impl RecordKind for NodeStatus {
    type Key = NodeName;
    const AT: &'static str = "/nodes/*/status";
    const SCHEMA: u32 = NODE_SCHEMA;
    const WRITER: Writer = Writer::Node;

    /// The daemon's state and the resources, as far as they can be read: a node of a later version is alive, although
    /// VMs cannot be moved to it from here.
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
            strays: part(document, "strays").unwrap_or_default(),
            foreign: part(document, "foreign").unwrap_or_default(),
            cpu_model: text("cpu_model"),
            guests: part(document, "guests"),
            bridges: part(document, "bridges").unwrap_or_default(),
            shared: part(document, "shared").unwrap_or_default(),
            network_problems: part(document, "network_problems").unwrap_or_default(),
            floating: part(document, "floating").unwrap_or_default(),
            drain: part(document, "drain"),
            duties: part(document, "duties").unwrap_or_default(),
            bmc: part(document, "bmc"),
            watchdog: part(document, "watchdog"),
            cluster_key: text("cluster_key"),
            updated: part(document, "updated").unwrap_or_default(),
        })
    }
}

impl RecordKind for NodeSession {
    type Key = NodeName;
    const AT: &'static str = "/nodes/*/session";
    const SCHEMA: u32 = NODE_SCHEMA;
    const WRITER: Writer = Writer::Node;

    /// The existence of the session is what matters.
    fn salvage(_: &NodeName, document: &serde_json::Value) -> Option<NodeSession> {
        let text = |field: &str| document.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        Some(NodeSession {
            schema: NODE_SCHEMA,
            instance: text("instance").parse().unwrap_or(Uuid::nil()),
            machine: text("machine").to_owned(),
            boot: text("boot").to_owned(),
            api: text("api").to_owned(),
            started: WallTime(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_written_when_it_could_change_a_decision() {
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
        assert_eq!("flush".parse(), Ok(NodeState::Flush));
        let error = "flushing".parse::<NodeState>().unwrap_err().to_string();
        assert_eq!(error, "\"flushing\" is not a valid domain state; accepted are ready, flush, flushed, unflush");
    }
}
