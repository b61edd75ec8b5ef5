//! A machine: its power, its daemon, and what happens to both.

use crate::{
    Lie, Shape, clone,
    invariants::Judge,
    power::{self, Mains, Process},
    stall::Switch,
    versions::{Newer, Versioned},
};
use drover_agent::{Agent, Drivers, HostFacts, NodeHandle, PrimaryOptions, WatchedLink};
use drover_drivers::{
    console::FakeLogs,
    host_network::{HostNetwork, fake::FakeHostNetwork},
    hypervisor::{
        Hypervisor,
        fake::{FakeHypervisor, FakeMachine},
    },
    storage::fake::FakeDisks,
    watchdog::{
        Watchdog,
        fake::{FakeDevice, FakeWatchdog, Make},
    },
};
use drover_model::{Bytes, Dice, DomainType, FloatingAddress, NodeName, OffReason, PowerState, Role, WallTime};
use drover_store::{
    Store,
    memory::{MemoryCluster, MemoryStore},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use uuid::Uuid;

/// A running daemon.
pub(crate) struct Daemon {
    task: JoinHandle<()>,
    /// The task of the primary role, if the run has it.
    primary: Option<JoinHandle<drover_store::Result<()>>>,
    /// The self-fence, and the watchdog as it has it, if the machine has one.
    fence: Option<(JoinHandle<()>, FakeWatchdog)>,
    pub(crate) switch: Switch,
    pub(crate) store: MemoryStore,
    pub(crate) hypervisor: Arc<FakeHypervisor>,
    pub(crate) handle: NodeHandle,
    pub(super) instance: Uuid,
}

impl Daemon {
    /// Whether it has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    fn end_primary(&self) {
        self.primary.as_ref().inspect(|task| task.abort());
    }

    fn end_fence(&self) {
        if let Some((task, watchdog)) = &self.fence {
            task.abort();
            watchdog.crash();
        }
    }
}

/// The floating address.
fn floating_address() -> Option<FloatingAddress> {
    let address = "203.0.113.50/24".parse().ok()?;
    Some(FloatingAddress { address, interface: "eth1".to_owned(), network: "upstream".to_owned() })
}

/// A machine, on or off.
pub(crate) struct Machine {
    /// Its own name, for the log.
    pub(crate) name: NodeName,
    /// The node's name, which a clone has too.
    pub(super) node: NodeName,
    pub(crate) hardware: FakeMachine,
    pub(crate) kernel: FakeHostNetwork,
    pub(crate) daemon: Option<Daemon>,
    /// Whether it is being shut down.
    pub(crate) going_down: Arc<AtomicBool>,
    /// The power of all machines, and whether this one had it when that was looked at last.
    pub(crate) mains: Mains,
    pub(super) on: bool,
    pub(super) memory: Bytes,
    /// Whether it has a BMC.
    pub(super) bmc: bool,
    pub(super) watchdog: Option<FakeDevice>,
    /// Whether it is cut off from all other machines, but its BMC is not.
    pub(crate) isolated: bool,
    /// The others cannot reach it.
    pub(crate) unheard: bool,
    /// Number of boots, which is the boot ID.
    pub(super) boots: u32,
    /// Number of daemons started.
    pub(super) daemons: u32,
    /// Whether its daemons are of the newer version, where there are two.
    pub(crate) is_newer: bool,
}

/// What a machine has.
#[derive(Debug, Clone)]
pub(crate) struct Fittings {
    pub(crate) memory: Bytes,
    pub(crate) bmc: bool,
    pub(crate) watchdog: Option<Make>,
}

/// State shared by all daemons of a run.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) cluster: MemoryCluster,
    pub(crate) judge: Judge,
    pub(super) shape: Shape,
    pub(super) lie: Lie,
    /// Session timeout of the store, and term of the primary's lease.
    pub(super) session: Duration,
    /// The newer version, where there are two.
    pub(super) newer: Option<Newer>,
}

impl Machine {
    /// Whether it has power and has booted.
    pub(crate) fn has_booted(&self) -> bool {
        self.on && self.mains.is_on(&self.name)
    }

    /// Starts the daemon, if it does not run. `same_machine`: an administrator says that this is the machine that has
    /// the name.
    pub(crate) fn start_daemon(&mut self, common: &Common, same_machine: bool) {
        self.notice_cut(&common.judge);
        if self.daemon.is_some() {
            return;
        }
        let is_clone = self.name != self.node;
        if !self.on {
            judge_boot(common, self);
        }
        self.on = true;
        self.mains.set(&self.name, PowerState::On);
        self.mains.set_answers(&self.name, !self.isolated && !self.unheard);
        let Common { cluster, judge, shape, lie, session, newer } = common.clone();
        self.daemons += 1;
        let version = if self.is_newer { ", of the newer version," } else { "" };
        judge.note(&format!("{}: daemon {}{version} starts", self.name, self.daemons), |_| ());
        let store = cluster.session(session);
        let hypervisor = Arc::new(lie.connection(self.hardware.connect()));
        let began = judge.start();
        let facts =
            HostFacts { cpus: 8, memory_total: self.memory, memory_available: self.memory, ..HostFacts::default() };
        let instance = Uuid::from_u64_pair(u64::from(self.daemons), self.name.as_str().bytes().map(u64::from).sum());
        judge.daemon_starts(&self.name, instance);
        let options = drover_agent::Options {
            name: self.node.clone(),
            role: Role::Coordinator,
            api: power::api(&self.name),
            machine: self.node.to_string(),
            boot: if is_clone { clone::boot(self.boots) } else { lie.boot(self.boots) },
            same_machine,
            join_again: false,
            instance,
            migration: format!("fake://{}", self.name),
            shared: if shape == Shape::Strangers { vec!["/shared".into()] } else { vec![] },
            capacity: None,
            host: Arc::new(move || Ok(facts.clone())),
            going_down: lie.going_down(self.going_down.clone()),
            domain_type: always(DomainType::Qemu),
            console_dir: "/nowhere/consoles".into(),
            log_file: "/nowhere/log".into(),
            primary: PrimaryOptions {
                addresses: floating_address().into_iter().collect(),
                networks: vec![WatchedLink {
                    name: "upstream".to_owned(),
                    interface: "eth1".to_owned(),
                    gateway: None,
                }],
                term: Some(session),
            },
            bmc: if shape.has_bmcs() { self.mains.options(&self.name, self.bmc) } else { Default::default() },
            token: "drover_simulated".to_owned(),
            events: drover_agent::Events::in_memory(),
            wall: Arc::new(move || WallTime(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))),
        };
        let mut to_store: Arc<dyn Store> = Arc::new(store.clone());
        if let Some(newer) = newer {
            to_store = Arc::new(Versioned::new(to_store, newer, self.name.to_string(), self.is_newer));
        }
        let to_hypervisor: Arc<dyn Hypervisor> = hypervisor.clone();
        let network: Arc<dyn HostNetwork> = Arc::new(self.kernel.clone());
        let (power, presence) = self.mains.drivers(lie);
        let watchdog = self.watchdog.as_ref().map(FakeDevice::connect);
        let drivers = Drivers {
            hypervisor: lie.hypervisor(to_hypervisor),
            disks: Arc::new(FakeDisks::default()),
            consoles: Arc::new(FakeLogs::default()),
            network: lie.network(network),
            power,
            presence,
            watchdog: watchdog.clone().map(|watchdog| Arc::new(watchdog) as Arc<dyn Watchdog>),
        };
        let agent = Agent::new(options, lie.store(to_store, &self.node, is_clone), drivers);
        let handle = agent.handle();
        let switch = Switch::default();
        let primary = shape.has_primary().then(|| tokio::spawn(switch.wrap(agent.primary(vec![]).run())));
        let fence = watchdog.map(|watchdog| (tokio::spawn(switch.wrap(agent.self_fence().run())), watchdog));
        let name = self.name.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = agent.run().await {
                judge.note(&format!("{name}: the daemon ends: {error}"), |_| ());
            }
        });
        if self.isolated {
            store.cut();
        }
        let others = primary.iter().map(JoinHandle::abort_handle);
        let others = others.chain(fence.iter().map(|(task, _)| task.abort_handle()));
        let tasks = others.chain([task.abort_handle()]).collect();
        self.mains.starts(&self.name, Process { tasks, hypervisor: hypervisor.clone(), store: store.clone() });
        self.daemon = Some(Daemon { task, primary, fence, switch, store, hypervisor, handle, instance });
    }

    /// The daemon crashes.
    pub(crate) fn crash_daemon(&mut self, judge: &Judge) {
        if let Some(daemon) = self.daemon.take() {
            judge.note(&format!("{}: daemon crashes", self.name), |t| t.crashes += 1);
            judge.daemon_ends(&self.name);
            daemon.end_primary();
            daemon.end_fence();
            daemon.hypervisor.crash();
            daemon.task.abort();
            daemon.store.abandon();
        }
    }

    /// The daemon is stopped cleanly.
    pub(crate) async fn stop_daemon(&mut self, judge: &Judge) {
        if let Some(daemon) = self.daemon.take() {
            judge.note(&format!("{}: daemon is stopped", self.name), |_| ());
            judge.daemon_ends(&self.name);
            daemon.handle.stop();
            let fence = daemon.fence;
            // Like the real daemon, which waits at most this long for the store.
            let mut task = daemon.task;
            let primary = daemon.primary;
            if timeout(Duration::from_secs(20), &mut task).await.is_err() {
                task.abort();
                daemon.store.abandon();
            }
            primary.inspect(JoinHandle::abort);
            fence.inspect(|(task, watchdog)| {
                task.abort();
                watchdog.crash();
            });
            daemon.hypervisor.crash();
        }
    }

    /// The host ends a guest, and the daemon is there to be told.
    pub(crate) fn end_guest(&self, judge: &Judge, uuid: Uuid, reason: OffReason) {
        let executes = judge.executes_on(&self.name, uuid);
        self.hardware.guest_goes_down(uuid, reason);
        // Nothing is left of one that was just coming: it goes on where it was.
        let was_here = self.hardware.defined().contains(&uuid);
        if executes && was_here && self.daemon.as_ref().is_some_and(|daemon| daemon.hypervisor.is_connected()) {
            judge.host_ends(&self.name, uuid);
        }
    }

    /// The machine is shut down: its guests are told to power off, or are ended. Its power goes later.
    pub(crate) fn shut_down(&self, judge: &Judge, dice: &mut Dice) {
        if !self.on {
            return;
        }
        judge.note(&format!("{}: the machine goes down", self.name), |_| ());
        self.going_down.store(true, Ordering::Relaxed);
        for (uuid, _) in self.hardware.running() {
            let reason = if dice.per_mille(500) { OffReason::Shutdown } else { OffReason::Ended };
            self.end_guest(judge, uuid, reason);
        }
    }

    /// The power is cut.
    pub(crate) fn power_off(&mut self, judge: &Judge) {
        self.mains.set(&self.name, PowerState::Off);
        self.notice_cut(judge);
    }

    /// Whether its power is gone since that was looked at last: somebody may have cut it by its BMC.
    pub(crate) fn notice_cut(&mut self, judge: &Judge) -> bool {
        if !self.on || self.mains.is_on(&self.name) {
            return false;
        }
        judge.note(&format!("{}: power is cut", self.name), |t| t.power_cuts += 1);
        self.crash_daemon(judge);
        self.going_down.store(false, Ordering::Relaxed);
        self.on = false;
        self.boots += 1;
        true
    }

    /// All its processes stop at once, or go on.
    pub(crate) fn freeze(&self, judge: &Judge, frozen: bool) {
        let Some(daemon) = &self.daemon else { return };
        judge.note(&format!("{}: frozen: {frozen}", self.name), |t| t.stalls += u64::from(frozen));
        match frozen {
            true => {
                daemon.switch.stop();
                daemon.store.cut();
            }
            false => {
                daemon.switch.go_on();
                if !self.isolated {
                    daemon.store.heal();
                }
            }
        }
    }

    /// It is cut off from all other machines, but for its BMC.
    pub(crate) fn isolate(&mut self, judge: &Judge, isolated: bool) {
        judge.note(&format!("{}: cut off: {isolated}", self.name), |t| t.partitions += u64::from(isolated));
        self.isolated = isolated;
        match &self.daemon {
            Some(daemon) if isolated => daemon.store.cut(),
            Some(daemon) => daemon.store.heal(),
            None => {}
        }
        self.set_answers();
    }

    /// Whether the others can reach it; it reaches the store in any case.
    pub(crate) fn be_heard(&mut self, heard: bool) {
        self.unheard = !heard;
        self.set_answers();
    }

    fn set_answers(&self) {
        let answers = !self.isolated && !self.unheard && self.mains.is_on(&self.name);
        self.mains.set_answers(&self.name, answers);
    }
}

/// A machine is switched on.
pub(super) fn judge_boot(common: &Common, machine: &Machine) {
    common.judge.boot_begins(&machine.name, common.lie.boot(machine.boots));
}

fn always<T: Send + Sync + 'static>(value: T) -> watch::Receiver<Option<T>> {
    let (sender, receiver) = watch::channel(Some(value));
    // Keeps the channel open: a closed one would mean something else.
    tokio::spawn(async move { sender.closed().await });
    receiver
}
