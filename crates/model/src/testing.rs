//! Nodes, VMs and clusters for tests, in short form:
//!
//! ```
//! use drover_model::{NodeState, MigrationMethod, testing::*};
//!
//! let leaving = node("hv1", 8).in_state(NodeState::Flush);
//! let nodes = vec![leaving, node("hv2", 16).sharing(&["/srv"]), node("hv3", 8).dead()];
//! let db = running(1, "hv1", 1024).method(MigrationMethod::Live).priority(3);
//! let vms = vec![db, vm(2, 512).on("hv2").autostart()];
//! let view = cluster(nodes, vms);
//! assert_eq!(view.vms_of(&name("hv1")).count(), 1);
//! ```
//!
//! Everything begins as the usual case (a node that accepts VMs, a VM that is off), and each method changes one thing.
//! Everything else is changed with [`But::but`].

#![allow(clippy::unwrap_used, reason = "tests end by panicking")]

use crate::{
    domain::{DomainType, devices::Devices},
    meta::{MigrationMethod, Selector, VmMeta},
    name::{NodeName, VmName},
    node::{DaemonState, NODE_SCHEMA, NodeRecord, NodeSession, NodeState, NodeStatus, Role},
    paused::PausedBy,
    record::{Kept, Stored, Version},
    units::{Bytes, WallTime},
    view::{ClusterView, NodeView, VmView},
    vm::{
        Arrival, AtRest, Claim, Demand, Epoch, Generation, How, MoveFailure, MoveKind, RunState, VM_SCHEMA, VmRecord,
        VmState, VmStatus,
    },
};
use std::sync::Arc;
use uuid::Uuid;

/// A node's name.
pub fn name(n: &str) -> NodeName {
    NodeName::new(n).unwrap()
}

/// A newly created record.
pub fn kept<T>(value: T) -> Kept<T> {
    Stored::new(value, Version::NEW).into()
}

/// A cluster of these.
pub fn cluster(nodes: Vec<NodeView>, vms: Vec<VmView>) -> ClusterView {
    let mut view = ClusterView::default();
    nodes.iter().for_each(|node| view.put_node(node));
    vms.iter().for_each(|vm| view.put_vm(vm));
    view
}

/// A node that accepts VMs, with that much memory and four CPU threads.
pub fn node(n: &str, gib: u64) -> NodeView {
    NodeView {
        record: kept(NodeRecord {
            schema: NODE_SCHEMA,
            name: name(n),
            machine: String::new(),
            role: Role::Coordinator,
            api: String::new(),
            migration: String::new(),
            domain_state: NodeState::Ready,
            boot: String::new(),
            after_proof: None,
            power_on: None,
            on_return: None,
            then_ready: false,
            operation: None,
        }),
        status: Some(kept(NodeStatus {
            schema: NODE_SCHEMA,
            daemon: DaemonState::Run,
            version: String::new(),
            kernel: String::new(),
            os: String::new(),
            arch: String::new(),
            hypervisor: String::new(),
            hypervisor_problem: String::new(),
            domain_type: None,
            cpus: 4,
            memory_total: Bytes::mib(gib * 1024),
            memory_free: Bytes::mib(gib * 1024),
            load: 0.0,
            domains: vec![],
            strays: vec![],
            foreign: vec![],
            cpu_model: String::new(),
            guests: None,
            bridges: vec![],
            network_problems: vec![],
            floating: vec![],
            shared: vec![],
            drain: None,
            duties: vec![],
            bmc: None,
            watchdog: None,
            cluster_key: String::new(),
            updated: WallTime(0),
        })),
        session: Some(kept(NodeSession {
            schema: NODE_SCHEMA,
            instance: Uuid::nil(),
            machine: String::new(),
            boot: String::new(),
            api: String::new(),
            started: WallTime(0),
        })),
        unreadable: None,
    }
}

/// `vm<n>` with that many MiB of memory and one vCPU: off, and not assigned to a node.
pub fn vm(n: u128, mib: u64) -> VmView {
    VmView {
        record: kept(VmRecord {
            schema: VM_SCHEMA,
            uuid: Uuid::from_u128(n),
            name: VmName::new(&format!("vm{n}")).unwrap(),
            state: VmState::Stop,
            node: None,
            last_node: None,
            xml: String::new(),
            generation: Generation(1),
            description: String::new(),
            profile: String::new(),
            meta: VmMeta::default(),
            placed: None,
            going: None,
            older_disks: None,
            refused: Vec::new(),
            operation: None,
        }),
        claim: Some(kept(Claim { epoch: Epoch(1), ..Claim::new(Epoch(0)) })),
        claim_unreadable: false,
        status: None,
        arrival: None,
        demand: Demand { memory: Bytes::mib(mib), vcpus: 1 },
        devices: Arc::default(),
    }
}

/// `vm<n>`, which should start on a node and has no holder yet.
pub fn waiting(n: u128, on: &str, mib: u64) -> VmView {
    vm(n, mib).on(on).wanted(VmState::Start)
}

/// `vm<n>`, which runs on a node.
pub fn running(n: u128, on: &str, mib: u64) -> VmView {
    waiting(n, on, mib).held_by(on)
}

/// `vm<n>`, which runs on a node and should migrate to another one temporarily, live or else cold.
pub fn moving(n: u128, on: &str, to: &str, mib: u64) -> VmView {
    running(n, on, mib).going_to(to, MoveKind::Migrate, How::LiveElseCold)
}

/// Wanted state of a guest that is being shut down and should stay off.
pub fn shutdown() -> VmState {
    VmState::Shutdown { timeout_s: 9, then: AtRest::Stop }
}

/// Wanted state of a guest that is being restarted.
pub fn restart() -> VmState {
    VmState::Restart { timeout_s: 9 }
}

/// Wanted state of a VM that has failed.
pub fn fail() -> VmState {
    VmState::Fail { reason: "x".to_owned() }
}

/// Changes one thing.
pub trait But: Sized {
    /// The same with that change.
    #[must_use]
    fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
impl But for NodeView {}
impl But for VmView {}

/// Changes of a node.
pub trait NodeWords: But {
    /// Its report, which must exist.
    fn report(&mut self) -> &mut NodeStatus;
    /// Changes its report.
    #[must_use]
    fn reporting(self, change: impl FnOnce(&mut NodeStatus)) -> Self {
        self.but(|node| change(node.report()))
    }
    /// Its domain state.
    #[must_use]
    fn in_state(self, state: NodeState) -> Self;
    /// Its daemon is dead.
    #[must_use]
    fn dead(self) -> Self;
    /// Its machine is `m`, and this is the boot in its record.
    #[must_use]
    fn booted(self, boot: &str) -> Self;
    /// It has not reported yet.
    #[must_use]
    fn unreported(self) -> Self;
    /// It has these bridges.
    #[must_use]
    fn bridged(self, bridges: &[&str]) -> Self {
        self.reporting(|report| report.bridges = bridges.iter().map(ToString::to_string).collect())
    }
    /// It shares these folders with other nodes.
    #[must_use]
    fn sharing(self, folders: &[&str]) -> Self {
        self.reporting(|report| report.shared = folders.iter().map(ToString::to_string).collect())
    }
    /// It runs guests with KVM, on that CPU model.
    #[must_use]
    fn kvm(self, cpu_model: &str) -> Self {
        self.reporting(|r| (r.domain_type, r.cpu_model) = (Some(DomainType::Kvm), cpu_model.to_owned()))
    }
    /// Its hypervisor cannot be used, for this reason.
    #[must_use]
    fn without_hypervisor(self, why: &str) -> Self {
        self.reporting(|report| report.hypervisor_problem = why.to_owned())
    }
}

impl NodeWords for NodeView {
    fn report(&mut self) -> &mut NodeStatus {
        self.status.as_mut().unwrap()
    }
    fn in_state(self, state: NodeState) -> Self {
        self.but(|node| node.record.domain_state = state)
    }
    fn dead(self) -> Self {
        self.but(|node| node.session = None)
    }
    fn booted(self, boot: &str) -> Self {
        self.but(|node| {
            (node.record.machine, node.record.boot) = ("m".to_owned(), boot.to_owned());
            if let Some(session) = &mut node.session {
                session.boot = boot.to_owned();
            }
        })
    }
    fn unreported(self) -> Self {
        self.but(|node| node.status = None)
    }
}

/// Changes of a VM.
pub trait VmWords: But {
    /// Its name.
    #[must_use]
    fn named(self, name: &str) -> Self;
    /// The node that it is assigned to.
    #[must_use]
    fn on(self, node: &str) -> Self;
    /// Its wanted state.
    #[must_use]
    fn wanted(self, state: VmState) -> Self;
    /// The node that holds its claim.
    #[must_use]
    fn held_by(self, node: &str) -> Self;
    /// The target of its move.
    #[must_use]
    fn going_to(self, node: &str, kind: MoveKind, how: How) -> Self {
        self.wanted(VmState::Migrate { to: name(node), kind, how })
    }
    /// Where its holder is migrating it to, or was, by the claim.
    #[must_use]
    fn sent_to_node(self, node: &str) -> Self;
    /// A target's answer for that version of its record; `None`: it is accepted.
    #[must_use]
    fn answered(self, node: &str, of: Version, refused: Option<&str>) -> Self;
    /// Its home.
    #[must_use]
    fn away_from(self, home: &str) -> Self;
    /// Its metadata.
    #[must_use]
    fn with(self, change: impl FnOnce(&mut VmMeta)) -> Self;
    /// How it is moved.
    #[must_use]
    fn method(self, method: MigrationMethod) -> Self {
        self.with(|meta| meta.method = method)
    }
    /// Its priority.
    #[must_use]
    fn priority(self, priority: i32) -> Self {
        self.with(|meta| meta.priority = priority)
    }
    /// Its node limit.
    #[must_use]
    fn limited(self, nodes: &[&str]) -> Self {
        self.with(|meta| meta.node_limit = nodes.iter().map(|n| name(n)).collect())
    }
    /// Its node selector.
    #[must_use]
    fn selector(self, selector: Selector) -> Self {
        self.with(|meta| meta.selector = Some(selector))
    }
    /// It starts when its node is ready.
    #[must_use]
    fn autostart(self) -> Self {
        self.with(|meta| meta.autostart = true)
    }
    /// The devices of its definition: the content of `<domain>`.
    #[must_use]
    fn defined(self, parts: &str) -> Self;
    /// The report of its node.
    #[must_use]
    fn reported(self, change: impl FnOnce(&mut VmStatus)) -> Self;
    /// Moves to that node have failed this often, because there is `no route`.
    #[must_use]
    fn failed(self, to: &str, count: u32) -> Self {
        let failure = MoveFailure { to: name(to), reason: "no route".to_owned(), count, told: count };
        self.reported(|report| report.move_failure = Some(failure))
    }
    /// Its guest is paused by an administrator.
    #[must_use]
    fn paused(self) -> Self {
        self.reported(|report| {
            (report.run, report.paused) = (Some(RunState::Paused), Some(PausedBy::Administrator.into()));
        })
    }
    /// Its record has that version.
    #[must_use]
    fn version(self, version: i64) -> Self;
}

impl VmWords for VmView {
    fn named(self, name: &str) -> Self {
        self.but(|vm| vm.record.name = VmName::new(name).unwrap())
    }
    fn on(self, node: &str) -> Self {
        self.but(|vm| vm.record.node = Some(name(node)))
    }
    fn wanted(self, state: VmState) -> Self {
        self.but(|vm| vm.record.state = state)
    }
    fn held_by(self, node: &str) -> Self {
        self.but(|vm| vm.claim.as_mut().unwrap().node = Some(name(node)))
    }
    fn sent_to_node(self, node: &str) -> Self {
        self.but(|vm| vm.claim.as_mut().unwrap().to = Some(name(node)))
    }
    fn answered(self, node: &str, of: Version, refused: Option<&str>) -> Self {
        let refused = refused.map(str::to_owned);
        self.but(|vm| vm.arrival = Some(kept(Arrival { schema: VM_SCHEMA, node: name(node), of, refused })))
    }
    fn away_from(self, home: &str) -> Self {
        self.but(|vm| vm.record.last_node = Some(name(home)))
    }
    fn with(self, change: impl FnOnce(&mut VmMeta)) -> Self {
        self.but(|vm| change(&mut vm.record.meta))
    }
    fn defined(self, parts: &str) -> Self {
        self.but(|vm| vm.devices = Arc::new(Devices::read(&format!("<domain>{parts}</domain>"))))
    }
    fn reported(self, change: impl FnOnce(&mut VmStatus)) -> Self {
        self.but(|vm| {
            let node = vm.record.node.clone().unwrap_or_else(|| name("a"));
            let epoch = vm.claim.as_ref().map_or(Epoch(1), |claim| claim.epoch);
            let report = vm.status.get_or_insert_with(|| kept(VmStatus::new(node, epoch, WallTime(0))));
            change(report);
        })
    }
    fn version(self, version: i64) -> Self {
        self.but(|vm| vm.record.version = Version(version))
    }
}
