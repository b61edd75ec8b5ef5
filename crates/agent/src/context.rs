//! What all duties of an agent share: who this node is, its clock, the store, the view, the drivers. What a duty
//! publishes for others is a channel of its own ([`crate::published`]).

use crate::{bmc::BmcOptions, clock::Clock, events::Events, primary::PrimaryOptions, starts::Starts, view::Views};
use drover_drivers::{
    console::ConsoleLogs, host_network::HostNetwork, hypervisor::Hypervisor, power::Power, presence::Presence,
    storage::Disks, watchdog::Watchdog,
};
use drover_model::{
    Bytes, Claim, DomainType, Epoch, NodeName, Role, WallTime,
    domain::{BadXml, Effective, Mark, nvram_file},
};
use drover_plan::vm::HostState;
use drover_store::{SessionState, Store};
use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
};
use tokio::sync::watch;
use uuid::Uuid;

/// Facts about the machine, read anew on each call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFacts {
    /// Kernel release.
    pub kernel: String,
    /// Operating system, for people.
    pub os: String,
    /// `x86_64`.
    pub arch: String,
    /// Processor threads.
    pub cpus: u32,
    /// The processors' model.
    pub cpu_model: String,
    /// Bridges that guests can be connected to.
    pub bridges: Vec<String>,
    /// All memory.
    pub memory_total: Bytes,
    /// Memory that could be given out now.
    pub memory_available: Bytes,
    /// Load average over one minute.
    pub load: f32,
}

/// Where [`HostFacts`] come from. Called every few seconds; must not block for long.
pub type HostSource = Arc<dyn Fn() -> Result<HostFacts, String> + Send + Sync>;

/// Whether the machine is going down. Asked anew each time that a guest is off which should run.
pub type GoingDown = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Configuration of an agent.
#[derive(Clone)]
pub struct Options {
    /// This node's name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// The address of its API for the other daemons: `address:port`.
    pub api: String,
    /// The machine's id, and this boot's.
    pub machine: String,
    /// See `machine`.
    pub boot: String,
    /// The administrator confirms that this is the machine that had the name before, at another address.
    pub same_machine: bool,
    /// Whether the node may join the cluster again after it was removed: an administrator says so.
    pub join_again: bool,
    /// This run of the daemon.
    pub instance: Uuid,
    /// The libvirt URI by which other nodes send it guests.
    pub migration: String,
    /// Shared folders: other nodes have the same content under the same path.
    pub shared: Vec<String>,
    /// The memory offered for guests; `None`: all of the machine's.
    pub capacity: Option<Bytes>,
    /// Facts of the machine.
    pub host: HostSource,
    /// Whether it is going down.
    pub going_down: GoingDown,
    /// The domain type for guests; `None` until it is known. No guest is started before.
    pub domain_type: watch::Receiver<Option<DomainType>>,
    /// Folder of the consoles' logs.
    pub console_dir: PathBuf,
    /// The daemon's own log.
    pub log_file: PathBuf,
    /// Addresses and lease of the primary role.
    pub primary: PrimaryOptions,
    /// This node's BMC, and the key to those of the others.
    pub bmc: BmcOptions,
    /// The token that authenticates this daemon to the others.
    pub token: String,
    /// This node's history.
    pub events: Arc<Events>,
    /// The wall clock, for timestamps shown to people.
    pub wall: Arc<dyn Fn() -> WallTime + Send + Sync>,
}

/// The drivers of an agent.
#[derive(Clone)]
pub struct Drivers {
    /// This node's hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The disks on this node that Drover manages.
    pub disks: Arc<dyn Disks>,
    /// The guests' console logs on this node.
    pub consoles: Arc<dyn ConsoleLogs>,
    /// This node's part of the networks.
    pub network: Arc<dyn HostNetwork>,
    /// The power of all nodes.
    pub power: Arc<dyn Power>,
    /// Whether other nodes' machines answer on the network.
    pub presence: Arc<dyn Presence>,
    /// This machine's watchdog; `None`: none is configured.
    pub watchdog: Option<Arc<dyn Watchdog>>,
}

/// Shared by the duties.
pub(crate) struct Context {
    pub(crate) options: Options,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) consoles: Arc<dyn ConsoleLogs>,
    pub(crate) network: Arc<dyn HostNetwork>,
    pub(crate) power: Arc<dyn Power>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) watchdog: Option<Arc<dyn Watchdog>>,
    pub(crate) views: Views,
    pub(crate) clock: Clock,
    /// The generation of the store session in which this daemon created its node's session record; 0: none. Nothing is
    /// done under the node's name in any other session ([`Context::is_member`]).
    pub(crate) member: watch::Sender<u64>,
    /// Whose turn it is to start a guest here.
    pub(crate) starts: Starts,
    /// Number of operations that this daemon has begun.
    pub(crate) operations: AtomicU64,
}

impl Context {
    pub(crate) fn new(options: Options, store: Arc<dyn Store>, drivers: Drivers, views: Views) -> Context {
        let Drivers { hypervisor, disks, consoles, network, power, presence, watchdog } = drivers;
        Context {
            options,
            store,
            hypervisor,
            disks,
            consoles,
            network,
            power,
            presence,
            watchdog,
            views,
            clock: Clock::new(),
            member: watch::channel(0).0,
            starts: Starts::new(),
            operations: AtomicU64::new(0),
        }
    }

    pub(crate) fn me(&self) -> &NodeName {
        &self.options.name
    }

    /// A grant to a node, with the identity of that node's machine.
    pub(crate) fn identified(&self, claim: Claim, to: &NodeName) -> Claim {
        let Options { machine, boot, .. } = &self.options;
        if to == self.me() {
            return claim.on(machine, boot);
        }
        match self.views.latest().nodes.get(to) {
            Some(node) => claim.on(&node.record.value.machine, &node.record.value.boot),
            None => claim,
        }
    }

    pub(crate) fn wall(&self) -> WallTime {
        (self.options.wall)()
    }

    /// Whether this daemon holds the node's session in the current store session.
    pub(crate) fn is_member(&self) -> bool {
        let (member, session) = (*self.member.borrow(), *self.store.session().borrow());
        member != 0 && member == session.generation
    }

    /// Whether a guest may still be started here under a grant with that epoch. A start may wait in a queue meanwhile:
    /// this is asked when its turn has come. Without a connection to the store, nobody knows.
    pub(crate) fn may_start(&self, uuid: &Uuid, granted: Epoch) -> bool {
        let connected = self.store.session().borrow().state == SessionState::Connected;
        let view = self.views.latest();
        let shown = view.vms.get(uuid).and_then(|vm| vm.claim.as_ref()).map(|claim| &claim.value);
        connected && self.is_member() && drover_plan::vm::is_not_lost(granted, self.me(), shown)
    }

    /// Waits until [`Context::is_member`]. Every duty that acts waits here before it decides: claims are held by the
    /// node's name, so a second machine of that name (a clone) would take the first one's VMs for its own.
    pub(crate) async fn membership(&self) {
        let (mut member, mut session) = (self.member.subscribe(), self.store.session());
        loop {
            let (generation, now) = (*member.borrow_and_update(), *session.borrow_and_update());
            if generation != 0 && generation == now.generation {
                return;
            }
            tokio::select! {
                Ok(()) = member.changed() => {}
                Ok(()) = session.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Whether guests can be started.
    pub(crate) fn host_state(&self) -> HostState {
        use drover_drivers::hypervisor::Connection;
        if let Connection::Down(why) = &*self.hypervisor.connection().borrow() {
            return HostState::NotReady(format!("no connection to the hypervisor: {why}"));
        }
        match *self.options.domain_type.borrow() {
            Some(_) => HostState::Ready,
            None => HostState::NotReady("finding out whether KVM works here".to_owned()),
        }
    }

    /// The domain XML of a VM for this node's hypervisor.
    pub(crate) fn effective(
        &self,
        uuid: &Uuid,
        domain_type: DomainType,
        mark: Mark,
        xml: &str,
    ) -> Result<String, BadXml> {
        let (console, nvram) = (self.console_file(uuid), nvram_file(uuid));
        Effective { domain_type, mark, console_log: console.to_str(), nvram: Some(&nvram) }.render(xml)
    }

    /// The console log of a VM on this node.
    pub(crate) fn console_file(&self, uuid: &Uuid) -> PathBuf {
        self.options.console_dir.join(format!("{uuid}.log"))
    }
}
