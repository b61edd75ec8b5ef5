//! What every loop of an agent shares.

use crate::{clock::Clock, duty::Failures, primary::PrimaryOptions, view::Views};
use drover_drivers::{hypervisor::Hypervisor, network::Network, storage::Disks};
use drover_model::{Bytes, DomainType, DrainReport, NodeName, Role, WallTime};
use drover_plan::{liveness::Lives, vm::HostState};
use drover_store::Store;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::watch;
use uuid::Uuid;

/// What the machine says of itself, each time that it is asked.
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

/// What an agent is told at its start.
#[derive(Clone)]
pub struct Options {
    /// This node's name.
    pub name: NodeName,
    /// What it may be.
    pub role: Role,
    /// Where the other daemons reach its API: `address:port`.
    pub api: String,
    /// The machine's id, and this boot's.
    pub machine: String,
    /// See `machine`.
    pub boot: String,
    /// This run of the daemon.
    pub instance: Uuid,
    /// The libvirt URI by which other nodes send it guests.
    pub migration: String,
    /// Folders that other nodes have too, with the same content under the same name.
    pub shared: Vec<String>,
    /// The memory that the node offers; `None`: all that the machine has.
    pub capacity: Option<Bytes>,
    /// Facts of the machine.
    pub host: HostSource,
    /// How guests are executed here; `None` until that is known. No guest is started before.
    pub domain_type: watch::Receiver<Option<DomainType>>,
    /// Folder of the consoles' logs.
    pub console_dir: PathBuf,
    /// The daemon's own log.
    pub log_file: PathBuf,
    /// What it has up as the primary, and for how long at a time.
    pub primary: PrimaryOptions,
    /// The token by which this daemon is known to the others.
    pub token: String,
    /// The wall clock, for what people read.
    pub wall: Arc<dyn Fn() -> WallTime + Send + Sync>,
}

/// What an agent acts through.
#[derive(Clone)]
pub struct Drivers {
    /// This node's hypervisor.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// The disks that are Drover's own on this node.
    pub disks: Arc<dyn Disks>,
    /// This node's part of the networks.
    pub network: Arc<dyn Network>,
}

/// Shared by the loops.
pub(crate) struct Context {
    pub(crate) options: Options,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) views: Views,
    pub(crate) clock: Clock,
    /// How far the node is with being emptied or filled, for its report.
    pub(crate) drain: watch::Sender<Option<DrainReport>>,
    /// What ails the networks of the floating addresses, for its report and for the election.
    pub(crate) network_problems: watch::Sender<Vec<String>>,
    /// Which primary services are not as they should be here, and why; empty when this node is not the primary.
    pub(crate) service_problems: watch::Sender<Vec<(String, String)>>,
    /// What the nodes' daemons do, and since when.
    pub(crate) lives: watch::Sender<Lives>,
    /// What of the daemon itself failed lately.
    pub(crate) failures: Failures,
    /// The daemon has been told to end.
    pub(crate) stopping: watch::Sender<bool>,
    /// This node has a part in the role of the primary that somebody else could take over.
    pub(crate) must_hand_over: watch::Sender<bool>,
}

impl Context {
    pub(crate) fn new(options: Options, store: Arc<dyn Store>, drivers: Drivers, views: Views) -> Context {
        let Drivers { hypervisor, disks, network } = drivers;
        let clock = Clock::new();
        Context {
            options,
            store,
            hypervisor,
            disks,
            network,
            views,
            clock,
            lives: watch::channel(Lives::new()).0,
            failures: Failures::new(clock),
            drain: watch::channel(None).0,
            network_problems: watch::channel(Vec::new()).0,
            service_problems: watch::channel(Vec::new()).0,
            stopping: watch::channel(false).0,
            must_hand_over: watch::channel(false).0,
        }
    }

    pub(crate) fn me(&self) -> &NodeName {
        &self.options.name
    }

    pub(crate) fn wall(&self) -> WallTime {
        (self.options.wall)()
    }

    /// Whether guests can be started now.
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

    /// Where the console of a VM is logged on this node.
    pub(crate) fn console_file(&self, uuid: &Uuid) -> PathBuf {
        self.options.console_dir.join(format!("{uuid}.log"))
    }
}
