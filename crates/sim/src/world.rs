//! The machines, their daemons, and the course of a run.

use crate::{
    Lie, Options, Shape, Tally,
    invariants::{Judge, Violation},
    orders::Administrator,
    stall::Switch,
    weather,
};
use drover_agent::{Agent, Drivers, HostFacts, NodeHandle, PrimaryOptions, WatchedNetwork};
use drover_drivers::{
    hypervisor::{
        Hypervisor,
        fake::{FakeHypervisor, FakeMachine, FakeNetwork},
    },
    network::{Network, fake::FakeKernel},
    storage::fake::FakeDisks,
};
use drover_model::{Bytes, Dice, DomainType, FloatingAddress, NodeName, Role, WallTime};
use drover_store::{
    Store,
    memory::{MemoryCluster, MemoryStore},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// What each machine offers.
pub(crate) const MEMORY: Bytes = Bytes::mib(16384);
/// After so long the server ends a silent session.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
/// In so much virtual time of calm everything must be as it should. A guest may use all of its patience for a shutdown,
/// twice.
const CALM: Duration = Duration::from_secs(900);

/// A daemon that runs.
pub(crate) struct Daemon {
    task: JoinHandle<()>,
    /// The loop of the primary's role, if the run is about that.
    primary: Option<JoinHandle<()>>,
    pub(crate) switch: Switch,
    pub(crate) store: MemoryStore,
    pub(crate) hypervisor: Arc<FakeHypervisor>,
    pub(crate) handle: NodeHandle,
}

impl Daemon {
    fn end_primary(&self) {
        self.primary.as_ref().inspect(|task| task.abort());
    }
}

/// The address that the primary has.
fn floating_address() -> Option<FloatingAddress> {
    let address = "203.0.113.50/24".parse().ok()?;
    Some(FloatingAddress { address, interface: "eth1".to_owned(), network: "upstream".to_owned() })
}

/// A machine, on or off.
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    pub(crate) hardware: FakeMachine,
    pub(crate) kernel: FakeKernel,
    pub(crate) daemon: Option<Daemon>,
    /// Counts boots; the boot's id.
    boots: u32,
    /// Counts daemons.
    daemons: u32,
}

/// Everything.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) cluster: MemoryCluster,
    pub(crate) machines: Vec<Machine>,
    pub(crate) judge: Judge,
    pub(crate) shape: Shape,
    lie: Lie,
}

impl Machine {
    /// Starts the daemon, if it does not run.
    pub(crate) fn start_daemon(&mut self, cluster: &MemoryCluster, judge: &Judge, lie: Lie, shape: Shape) {
        if self.daemon.is_some() {
            return;
        }
        self.daemons += 1;
        judge.note(&format!("{}: daemon {} starts", self.name, self.daemons), |_| ());
        let store = cluster.session(SESSION_TIMEOUT);
        let hypervisor = Arc::new(self.hardware.connect());
        let began = judge.start();
        let facts = HostFacts { cpus: 8, memory_total: MEMORY, memory_available: MEMORY, ..HostFacts::default() };
        let instance = Uuid::from_u64_pair(u64::from(self.daemons), self.name.as_str().bytes().map(u64::from).sum());
        let options = drover_agent::Options {
            name: self.name.clone(),
            role: Role::Coordinator,
            api: format!("{}:7370", self.name),
            machine: self.name.to_string(),
            boot: self.boots.to_string(),
            instance,
            migration: format!("fake://{}", self.name),
            shared: vec![],
            capacity: None,
            host: Arc::new(move || Ok(facts.clone())),
            domain_type: always(DomainType::Qemu),
            console_dir: "/nowhere/consoles".into(),
            log_file: "/nowhere/log".into(),
            primary: PrimaryOptions {
                addresses: floating_address().into_iter().collect(),
                networks: vec![WatchedNetwork {
                    name: "upstream".to_owned(),
                    interface: "eth1".to_owned(),
                    gateway: None,
                }],
                term: Some(SESSION_TIMEOUT),
            },
            token: "drover_simulated".to_owned(),
            wall: Arc::new(move || WallTime(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))),
        };
        let to_store: Arc<dyn Store> = Arc::new(store.clone());
        let to_hypervisor: Arc<dyn Hypervisor> = hypervisor.clone();
        let network: Arc<dyn Network> = Arc::new(self.kernel.clone());
        let drivers = Drivers {
            hypervisor: lie.hypervisor(to_hypervisor),
            disks: Arc::new(FakeDisks),
            network: lie.network(network),
        };
        let agent = Agent::new(options, lie.store(to_store), drivers);
        let handle = agent.handle();
        let switch = Switch::default();
        let primary = (shape == Shape::Handoffs).then(|| tokio::spawn(switch.wrap(agent.primary(vec![]).run())));
        let (name, judge) = (self.name.clone(), judge.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = agent.run().await {
                judge.note(&format!("{name}: the daemon ends: {error}"), |_| ());
            }
        });
        self.daemon = Some(Daemon { task, primary, switch, store, hypervisor, handle });
    }

    /// The daemon dies wherever it is.
    pub(crate) fn crash_daemon(&mut self, judge: &Judge) {
        if let Some(daemon) = self.daemon.take() {
            judge.note(&format!("{}: daemon crashes", self.name), |t| t.crashes += 1);
            daemon.end_primary();
            daemon.hypervisor.crash();
            daemon.task.abort();
            daemon.store.abandon();
        }
    }

    /// The daemon is stopped in good order.
    pub(crate) async fn stop_daemon(&mut self, judge: &Judge) {
        if let Some(daemon) = self.daemon.take() {
            judge.note(&format!("{}: daemon is stopped", self.name), |_| ());
            daemon.handle.stop();
            // As the real one: a store that does not answer keeps it for so long at most.
            let mut task = daemon.task;
            let primary = daemon.primary;
            if timeout(Duration::from_secs(20), &mut task).await.is_err() {
                task.abort();
                daemon.store.abandon();
            }
            primary.inspect(JoinHandle::abort);
            daemon.hypervisor.crash();
        }
    }

    /// The power is cut.
    pub(crate) fn power_off(&mut self, judge: &Judge) {
        judge.note(&format!("{}: power is cut", self.name), |t| t.power_cuts += 1);
        self.crash_daemon(judge);
        self.hardware.power_off();
        self.kernel.power_off();
        self.boots += 1;
    }
}

fn always<T: Send + Sync + 'static>(value: T) -> watch::Receiver<Option<T>> {
    let (sender, receiver) = watch::channel(Some(value));
    // Open for as long as the run lasts: a closed channel would be another thing to tell.
    tokio::spawn(async move { sender.closed().await });
    receiver
}

impl World {
    fn new(options: Options) -> World {
        let mut dice = Dice::new(options.seed);
        let cluster = MemoryCluster::new(dice.any());
        let judge = Judge::new(cluster.clone(), options.shape);
        let network = FakeNetwork::default();
        let machines = (1..=options.shape.nodes()).filter_map(|i| {
            let name = NodeName::new(&format!("hv{i}")).ok()?;
            let hardware = network.plug(&format!("fake://{name}"), &FakeMachine::new(dice.any()));
            let kernel = FakeKernel::new(dice.any());
            let (observer, node) = (judge.clone(), name.clone());
            kernel.observe(Box::new(move |_, came| observer.address(&node, came)));
            let (observer, node) = (judge.clone(), name.clone());
            hardware.observe(Box::new(move |uuid, mark, started| observer.domain(&node, uuid, mark, started)));
            Some(Machine { name, hardware, kernel, daemon: None, boots: 1, daemons: 0 })
        });
        let machines = machines.collect();
        World { dice, cluster, machines, judge, shape: options.shape, lie: options.lie }
    }

    /// Starts whatever daemon does not run.
    pub(crate) fn start_daemons(&mut self) {
        for machine in &mut self.machines {
            machine.start_daemon(&self.cluster, &self.judge, self.lie, self.shape);
        }
    }

    pub(crate) fn start_daemon(&mut self, index: usize) {
        if let Some(machine) = self.machines.get_mut(index) {
            machine.start_daemon(&self.cluster, &self.judge, self.lie, self.shape);
        }
    }
}

/// One run.
pub(crate) async fn play(options: Options) -> Result<Tally, Violation> {
    let mut world = World::new(options);
    let server = world.cluster.clone();
    let server = tokio::spawn(async move { server.run().await });
    world.start_daemons();
    sleep(Duration::from_secs(5)).await;
    let mut administrator = Administrator::new(world.dice.any());
    if world.shape == Shape::Drills {
        administrator.fill(&mut world).await;
    }
    let until = Instant::now() + options.weather;
    let mut weather = weather::Weather::default();
    weather.begin(&mut world);
    while Instant::now() < until {
        let pause = world.dice.millis(&(0..1500));
        sleep(pause).await;
        weather.change(&mut world).await;
        administrator.act(&mut world);
        world.judge.claims_hold();
        world.judge.addresses_hold();
        world.judge.verdict()?;
    }
    weather.calm(&mut world);
    administrator.finish().await;
    let deadline = Instant::now() + CALM;
    loop {
        world.judge.claims_hold();
        world.judge.verdict()?;
        let mut unfinished = world.judge.unfinished(administrator.vms());
        unfinished.extend(world.judge.unfinished_nodes(world.machines.iter().map(|m| &m.name)));
        world.judge.addresses_hold();
        unfinished.extend(world.judge.unfinished_handoff());
        if unfinished.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(world.judge.never_calm(&unfinished));
        }
        sleep(Duration::from_secs(1)).await;
    }
    for machine in &mut world.machines {
        machine.crash_daemon(&Judge::new(world.cluster.clone(), world.shape));
    }
    server.abort();
    Ok(world.judge.tally())
}
