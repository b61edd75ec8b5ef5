//! A VM, as the API shows it.

use super::{Meta, Migration};
use crate::{
    domain::devices::Devices,
    name::NodeName,
    node::DaemonState,
    view::{ClusterView, VmView},
    vm::{RunState, VmState},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// Who may run a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmClaim {
    /// The node; empty: nobody.
    pub node: String,
    /// The epoch of the last grant.
    pub epoch: u64,
}

/// Where a VM is, and where it goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmNode {
    /// Its name.
    pub name: String,
    /// The node that it is assigned to; empty: none.
    pub node: String,
    /// The node that it was migrated away from; empty: none.
    pub last_node: String,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vm<'a> {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// What is wanted of it: `start`, `stop`, `shutdown`, ...
    pub state: String,
    /// The node that it is assigned to; empty: none.
    pub node: String,
    /// The node that it was migrated away from; empty: none.
    pub last_node: String,
    /// `no`, or `from NODE`.
    pub migrated: String,
    /// Why it failed; empty: it did not.
    pub failed_reason: String,
    /// Nodes that it may run on; empty: all.
    pub node_limit: Vec<String>,
    /// How its node is chosen; `none`: the cluster's default.
    pub node_selector: String,
    /// Whether it starts when its node becomes ready; holds once.
    pub node_autostart: bool,
    /// How it is moved; `none`: live, else cold.
    pub migration_method: String,
    /// The longest pause of a live migration, in milliseconds.
    pub migration_max_downtime: u32,
    /// Its tags.
    pub tags: Vec<super::Tag>,
    /// Its snapshots.
    pub snapshots: Vec<serde_json::Value>,
    /// For people.
    pub description: String,
    /// The profile that it was built from; empty: none.
    pub profile: String,
    /// Memory, in MiB.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpu: u32,
    /// Live figures of its memory.
    pub memory_stats: BTreeMap<String, u64>,
    /// Live figures of its CPUs.
    pub vcpu_stats: BTreeMap<String, u64>,
    /// What its definition has.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, serde_json::Value>"))]
    pub devices: Cow<'a, Devices>,
    /// Its VNC display.
    pub vnc: BTreeMap<String, String>,
    /// The domain XML; not there in a list that was asked for without.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub xml: Cow<'a, str>,

    /// The higher, the sooner it is moved or started.
    #[serde(default)]
    pub priority: i32,
    /// Its move, while one is under way.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// Where its last move should have brought it, and why it did not; empty: it did.
    #[serde(default)]
    pub move_failed: String,
    /// How often in a row its moves have failed.
    #[serde(default)]
    pub move_failures: u32,
    /// What its node sees: `running`, `paused`, `shutting-down`, `off`, `unknown`; `absent`: there is no domain.
    pub run_state: String,
    /// What its node is doing for it, for people; empty: nothing.
    pub doing: String,
    /// Crashes in a row.
    pub crashes: u32,
    /// Whether its console is logged.
    pub console_available: bool,
    /// Counts its definitions.
    pub generation: u64,
    /// Whether the running domain was started from an older definition than the present one.
    pub pending_changes: bool,
    /// The version of its record, for changes that must not overwrite anything.
    pub version: i64,
    /// Who may run it.
    pub claim: VmClaim,
}

impl<'a> Vm<'a> {
    /// A VM out of the view. What the node that holds it reported counts while that node's daemon is there to know
    /// better.
    pub fn of(view: &ClusterView, vm: &'a VmView) -> Vm<'a> {
        let record = &vm.record.value;
        let status = vm.status.as_ref();
        let (run_state, doing) = seen(view, vm);
        let text = |node: &Option<NodeName>| node.as_ref().map(ToString::to_string).unwrap_or_default();
        let failure = status.and_then(|s| s.move_failure.as_ref());
        let meta = Meta::of(vm);
        let running = status.and_then(|s| s.generation);
        let vnc = status.and_then(|s| s.vnc.as_ref());
        Vm {
            name: record.name.to_string(),
            uuid: record.uuid.to_string(),
            state: record.state.word().to_owned(),
            node: text(&record.node),
            last_node: text(&record.last_node),
            migrated: record.last_node.as_ref().map_or_else(|| "no".to_owned(), |from| format!("from {from}")),
            failed_reason: match &record.state {
                VmState::Fail { reason } => reason.clone(),
                _ => String::new(),
            },
            node_limit: meta.node_limit,
            node_selector: meta.node_selector,
            node_autostart: meta.node_autostart,
            migration_method: meta.migration_method,
            migration_max_downtime: meta.migration_max_downtime,
            tags: meta.tags,
            snapshots: Vec::new(),
            description: record.description.clone(),
            profile: meta.profile,
            memory: vm.demand.memory.as_mib(),
            vcpu: vm.demand.vcpus,
            memory_stats: BTreeMap::new(),
            vcpu_stats: BTreeMap::new(),
            devices: Cow::Borrowed(&vm.devices),
            vnc: vnc
                .map(|(listen, port)| {
                    BTreeMap::from([("listen".to_owned(), listen.clone()), ("port".to_owned(), port.to_string())])
                })
                .unwrap_or_default(),
            xml: Cow::Borrowed(&record.xml),
            priority: meta.priority,
            migration: Migration::of(vm),
            move_failed: failure.map(|f| format!("to {}: {}", f.to, f.reason)).unwrap_or_default(),
            move_failures: failure.map_or(0, |f| f.told),
            run_state: run_state.to_owned(),
            doing,
            crashes: status.map_or(0, |s| s.crashes),
            console_available: status.is_some_and(|s| s.console) && !vm.devices.console.is_empty(),
            generation: record.generation.0,
            pending_changes: running.is_some_and(|running| running != record.generation),
            version: vm.record.version.0,
            claim: vm
                .claim
                .as_ref()
                .map(|c| VmClaim { node: text(&c.value.node), epoch: c.value.epoch.0 })
                .unwrap_or_default(),
        }
    }

    /// Whether what is wanted is at rest and the world agrees with it, so that there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        match self.state.as_str() {
            // While it is being sent it may be at either end, whatever is wanted of it by now.
            "start" => self.run_state == "running" && !self.claim.node.is_empty() && self.migration.is_none(),
            "stop" | "disable" | "fail" => self.claim.node.is_empty(),
            _ => false,
        }
    }
}

/// What is known of the guest, and what its node is doing for it.
fn seen(view: &ClusterView, vm: &VmView) -> (&'static str, String) {
    let status = vm.status.as_ref();
    let last = run_word(status.and_then(|s| s.run));
    let holder = vm.claim.as_ref().and_then(|c| c.value.node.as_ref());
    let daemon = |name| view.nodes.get(name).map_or(DaemonState::Dead, |node| node.daemon_state());
    if let Some((name, state)) = holder.map(|name| (name, daemon(name)))
        && matches!(state, DaemonState::Dead | DaemonState::Stop)
    {
        return ("unknown", format!("held by {name}, whose daemon is in state {state}; the last it said was '{last}'"));
    }
    let run_state = if status.is_some_and(|s| s.unknown) { "unknown" } else { last };
    (run_state, status.map(|s| s.doing.clone()).unwrap_or_default())
}

fn run_word(run: Option<RunState>) -> &'static str {
    match run {
        Some(RunState::Running) => "running",
        Some(RunState::Paused) => "paused",
        Some(RunState::ShuttingDown) => "shutting-down",
        Some(RunState::Off) => "off",
        None => "absent",
    }
}
