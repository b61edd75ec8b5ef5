//! VMs in the API.

use super::{Meta, Migration, Placed};
use crate::{
    domain::devices::Devices,
    name::NodeName,
    node::DaemonState,
    replaced::ReplacedDisk,
    view::{ClusterView, VmView},
    vm::{RunState, VmState},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// The claim on a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmClaim {
    /// The holder; empty: none.
    pub node: String,
    /// The epoch of the last grant.
    pub epoch: u64,
    /// The epoch with which the VM was made: the difference is how often it was granted.
    #[serde(default)]
    pub born: u64,
}

/// A VM's node and home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VmNode {
    /// Its name.
    pub name: String,
    /// The node that it is assigned to; empty: none.
    pub node: String,
    /// Its home, if it was migrated away; empty: it was not.
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
    /// Its wanted state: `start`, `stop`, `shutdown`, ...
    pub state: String,
    /// The node that it is assigned to; empty: none.
    pub node: String,
    /// Its home, if it was migrated away; empty: it was not.
    pub last_node: String,
    /// `no`, or `from NODE`.
    pub migrated: String,
    /// Why it failed; empty: it did not.
    pub failed_reason: String,
    /// Nodes that it may run on; empty: all.
    pub node_limit: Vec<String>,
    /// Selector of its node; `none`: the cluster's default.
    pub node_selector: String,
    /// Whether it is started when its node becomes ready; applies once.
    pub node_autostart: bool,
    /// How it is moved; `none`: live, else cold.
    pub migration_method: String,
    /// Maximum downtime in a live migration, in milliseconds.
    pub migration_max_downtime: u32,
    /// Whether it is tried now and then to let its guest run on while that is paused by an I/O error.
    #[serde(default)]
    pub resume_after_io_error: bool,
    /// Its tags.
    pub tags: Vec<super::Tag>,
    /// Its snapshots.
    pub snapshots: Vec<serde_json::Value>,
    /// For users.
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
    /// Details of its definition.
    #[serde(flatten)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, serde_json::Value>"))]
    pub devices: Cow<'a, Devices>,
    /// Its VNC display.
    pub vnc: BTreeMap<String, String>,
    /// The domain XML; absent in a list that was requested without it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub xml: Cow<'a, str>,

    /// VMs with a higher priority are moved and started first.
    #[serde(default)]
    pub priority: i32,
    /// Its move, while one is under way.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// Target of its last move, and why that failed; empty: it did not fail.
    #[serde(default)]
    pub move_failed: String,
    /// Number of failed moves in a row.
    #[serde(default)]
    pub move_failures: u32,
    /// Run state reported by its node: `running`, `paused`, `shutting-down`, `off`, `unknown`; `absent`: there is no
    /// domain.
    pub run_state: String,
    /// Why its guest is paused: `administrator`, `io-error`, `asleep`, `crashed`, `watchdog`, `busy`, `migrating`,
    /// `post-copy-failed`, `unknown`; empty: it is not.
    #[serde(default)]
    pub paused_by: String,
    /// The same as the end of a sentence, with the disks that have an error; empty: it is not paused.
    #[serde(default)]
    pub paused_reason: String,
    /// Disks that its guest writes to, or has written to, instead of those that it was started with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced_disks: Vec<ReplacedDisk>,
    /// Why it would not be started, because of these disks; empty: it would.
    #[serde(default)]
    pub older_disks: String,
    /// What its node is doing for it, for users; empty: nothing.
    pub doing: String,
    /// Crashes in a row.
    pub crashes: u32,
    /// Whether its console is logged.
    pub console_available: bool,
    /// Number of its definition.
    pub generation: u64,
    /// Whether the running domain was started from an older definition than the present one.
    pub pending_changes: bool,
    /// The version of its record, for changes that must not overwrite other changes.
    pub version: i64,
    /// Its claim.
    pub claim: VmClaim,
    /// The placement that brought it to its node; absent if not recorded, and in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// The placement of its move, while one is under way; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub going: Option<Placed>,
}

/// A VM in a list: some fields of [`Vm`], so that the others of thousands of VMs are not parsed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedVm {
    /// See [`Vm::name`].
    pub name: String,
    /// See [`Vm::uuid`].
    pub uuid: String,
    /// See [`Vm::state`].
    pub state: String,
    /// See [`Vm::run_state`].
    pub run_state: String,
    /// See [`Vm::paused_reason`].
    #[serde(default)]
    pub paused_reason: String,
    /// See [`Vm::node`].
    pub node: String,
    /// See [`Vm::last_node`].
    pub last_node: String,
    /// See [`Vm::vcpu`].
    pub vcpu: u32,
    /// See [`Vm::memory`].
    pub memory: u64,
    /// See [`Vm::tags`].
    pub tags: Vec<super::Tag>,
    /// See [`Vm::failed_reason`].
    pub failed_reason: String,
    /// See [`Vm::doing`].
    pub doing: String,
    /// See [`Vm::migration`].
    #[serde(default)]
    pub migration: Option<Migration>,
    /// See [`Vm::move_failed`].
    #[serde(default)]
    pub move_failed: String,
    /// See [`Vm::pending_changes`].
    pub pending_changes: bool,
}

impl<'a> Vm<'a> {
    /// A VM from the view. A report counts while the daemon of the reporting holder is alive.
    pub fn of(view: &ClusterView, vm: &'a VmView) -> Vm<'a> {
        let record = &vm.record.value;
        let status = vm.status.as_ref();
        let (run_state, doing) = seen(view, vm);
        let text = |node: &Option<NodeName>| node.as_ref().map(ToString::to_string).unwrap_or_default();
        let failure = status.and_then(|s| s.move_failure.as_ref());
        let refused = u32::try_from(record.refused.len()).unwrap_or(u32::MAX);
        let meta = Meta::of(vm);
        let replaced = status.and_then(|s| s.replaced.as_ref());
        let running = status.and_then(|s| s.generation);
        let vnc = status.and_then(|s| s.vnc.as_ref());
        let paused = status.and_then(|s| s.why_paused()).filter(|_| run_state == "paused");
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
            resume_after_io_error: meta.resume_after_io_error,
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
            move_failed: match (failure, record.refused.last()) {
                (Some(f), _) => format!("to {}: {}", f.to, f.reason),
                (None, Some(refused)) => format!("to {}: {}", refused.node, refused.why),
                (None, None) => String::new(),
            },
            move_failures: failure.map_or(0, |f| f.told).saturating_add(refused),
            run_state: run_state.to_owned(),
            paused_by: paused.as_ref().map_or("", |paused| paused.by.word()).to_owned(),
            paused_reason: paused.as_ref().map(ToString::to_string).unwrap_or_default(),
            replaced_disks: replaced.map(|replaced| replaced.disks.clone()).unwrap_or_default(),
            older_disks: replaced.and_then(|replaced| replaced.why_not_started(record)).unwrap_or_default(),
            doing,
            crashes: status.map_or(0, |s| s.crashes),
            console_available: status.is_some_and(|s| s.console) && !vm.devices.console.is_empty(),
            generation: record.generation.0,
            pending_changes: running.is_some_and(|running| running != record.generation),
            version: vm.record.version.0,
            claim: vm
                .claim
                .as_ref()
                .map(|c| VmClaim { node: text(&c.value.node), epoch: c.value.epoch.0, born: c.value.born.0 })
                .unwrap_or_default(),
            placed: record.placed.as_deref().map(Placed::of),
            going: record.going.as_deref().filter(|going| vm.is_coming_to(&going.to)).map(Placed::of),
        }
    }

    /// The outcome of the wanted state, if that is a state of rest and has been reached, so that there is nothing to
    /// wait for.
    pub fn settled(&self) -> Option<Settled<'_>> {
        let free = self.claim.node.is_empty();
        match self.state.as_str() {
            // While it is being sent it may be at either end, whatever its wanted state is by now.
            "start" if free || self.migration.is_some() => None,
            "start" if self.run_state == "running" => Some(Settled::Running(&self.claim.node)),
            "start" if self.stays_paused() => Some(Settled::Paused(&self.paused_reason)),
            "stop" | "disable" => free.then_some(Settled::Off),
            "fail" => free.then_some(Settled::Failed(&self.failed_reason)),
            _ => None,
        }
    }

    /// Whether its guest is paused until somebody does something.
    fn stays_paused(&self) -> bool {
        !matches!(self.paused_by.as_str(), "" | "busy" | "migrating")
    }

    /// Whether there is nothing to wait for.
    pub fn is_settled(&self) -> bool {
        self.settled().is_some()
    }
}

/// Outcome of a VM's wanted state, for clients that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled<'a> {
    /// It runs on that node.
    Running(&'a str),
    /// It is in memory and does not execute, for this reason ([`Vm::paused_reason`]), until somebody does something.
    Paused(&'a str),
    /// It is off.
    Off,
    /// It could not be started, for this reason.
    Failed(&'a str),
}

/// The guest's run state, and what its node is doing for it.
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
    // The last holder's report says nothing of this one's guest, unless that is the same, and came by migration.
    let handed_over = vm.claim.as_ref().is_some_and(|claim| claim.value.resume);
    if let Some((holder, status)) = holder.zip(status)
        && status.node != *holder
        && !handed_over
    {
        return (
            "absent",
            format!("{holder} has just been given it; {} had it before, and last said '{last}'", status.node),
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, VmStatus, WallTime, testing::*};

    #[test]
    fn the_report_of_a_vms_last_node_is_not_the_run_state_on_the_next_one() {
        let view = cluster(vec![node("a", 8), node("b", 8)], vec![]);
        let mut vm = running(1, "a", 64);
        let report = VmStatus { run: Some(RunState::Running), ..VmStatus::new(name("a"), Epoch(2), WallTime(0)) };
        vm.status = Some(kept(report));
        assert!(Vm::of(&view, &vm).settled() == Some(Settled::Running("a")));

        // Node a died, and b is to start it.
        let claim = vm.claim.as_ref().map(|claim| claim.value.clone()).unwrap();
        vm.claim = Some(kept(claim.freed().granted_to(&name("b"))));
        let shown = Vm::of(&view, &vm);
        assert_eq!((&*shown.run_state, shown.settled()), ("absent", None), "{}", shown.doing);

        // Node a handed it over with its guest.
        vm.claim = Some(kept(claim.sending_to(&name("b")).handed_to(&name("b"))));
        assert_eq!(Vm::of(&view, &vm).run_state, "running");
    }
}
