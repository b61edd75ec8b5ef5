//! A simulated cluster, and the course of a run.

mod machine;

pub(crate) use machine::{Common, Daemon, Fittings, Machine};

use crate::{
    Lie, Options, Shape, Tally, clone,
    invariants::{Judge, Violation},
    orders::Administrator,
    power::Mains,
    versions::Newer,
    weather,
};
use drover_drivers::{
    host_network::fake::FakeHostNetwork,
    hypervisor::fake::{FakeMachine, FakeNetwork},
    watchdog::fake::Make,
};
use drover_model::{Bytes, Dice, NodeName};
use drover_store::memory::{MemoryCluster, MemoryStore};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Memory of each machine.
pub(crate) const MEMORY: Bytes = Bytes::mib(16384);
/// Session timeout of the store.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
/// Virtual time of calm in which everything must settle. A guest may use its whole shutdown timeout twice.
const CALM: Duration = Duration::from_secs(900);

/// Time of calm after which the cluster is idle, and how long it is then observed.
const REST: Duration = Duration::from_secs(60);

/// A simulated cluster.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) cluster: MemoryCluster,
    pub(crate) machines: Vec<Machine>,
    /// The clone of each machine, where there are clones.
    clones: Vec<Machine>,
    pub(crate) judge: Judge,
    pub(crate) shape: Shape,
    common: Common,
}

impl World {
    /// The cluster of a run with weather.
    fn new(options: Options) -> World {
        let names = (1..=options.shape.nodes()).filter_map(|i| NodeName::new(&format!("hv{i}")).ok()).collect();
        World::with(options, SESSION_TIMEOUT, names, &|_, dice| {
            let bmc = options.shape.has_bmcs() && dice.per_mille(800);
            let watchdog = options.shape.has_watchdogs().then(|| {
                // Clocks that are 1 % wrong are broken already.
                let mut wrong = || i32::try_from(dice.roll(21)).unwrap_or(0) - 10;
                let good = options.lie.watchdog();
                let clock_per_mille = good.clock_per_mille + wrong();
                Make { clock_per_mille, timer_per_mille: wrong(), ..good }
            });
            Fittings { memory: MEMORY, bmc, watchdog }
        })
    }

    /// A cluster of these machines, all of them off. `fit`: what a machine has.
    pub(crate) fn with(
        options: Options,
        session: Duration,
        names: Vec<NodeName>,
        fit: &dyn Fn(&NodeName, &mut Dice) -> Fittings,
    ) -> World {
        let mut dice = Dice::new(options.seed);
        let cluster = MemoryCluster::new(dice.any());
        let judge = Judge::new(cluster.clone(), options.shape);
        let network = FakeNetwork::default();
        let mains = Mains::new(judge.clone());
        let machine = |name: NodeName, node: NodeName, dice: &mut Dice| {
            let hardware = network.plug(&format!("fake://{name}"), &FakeMachine::new(dice.any()));
            let kernel = FakeHostNetwork::new(dice.any());
            let (observer, at) = (judge.clone(), name.clone());
            kernel.observe(Box::new(move |_, came| observer.address(&at, came)));
            let (observer, at) = (judge.clone(), name.clone());
            hardware.observe(Box::new(move |uuid, mark, started| observer.domain(&at, uuid, mark, started)));
            let (observer, at) = (judge.clone(), name.clone());
            hardware.observe_erased(Box::new(move |uuid| observer.erased(&at, uuid)));
            let (observer, at) = (judge.clone(), name.clone());
            hardware.observe_torn(Box::new(move |uuid, mark| observer.torn(&at, uuid, mark)));
            let (observer, at) = (judge.clone(), name.clone());
            hardware.observe_stale(Box::new(move |uuid, mark| observer.stale(&at, uuid, mark)));
            let Fittings { memory, bmc, watchdog } = fit(&node, dice);
            mains.plug(&name, &hardware, &kernel, bmc);
            let watchdog = watchdog.map(|make| mains.guard(&name, make));
            let (mains, isolated) = (mains.clone(), false);
            let (daemon, going_down) = Default::default();
            let (on, boots, daemons, is_newer) = (false, 1, 0, false);
            Machine {
                name,
                node,
                hardware,
                kernel,
                daemon,
                going_down,
                mains,
                on,
                memory,
                bmc,
                watchdog,
                isolated,
                unheard: false,
                boots,
                daemons,
                is_newer,
            }
        };
        let mut machines: Vec<Machine> =
            names.iter().map(|name| machine(name.clone(), name.clone(), &mut dice)).collect();
        let cloned = names.iter().filter(|_| options.shape == Shape::Clones);
        let clones: Vec<Machine> =
            cloned.filter_map(|node| Some(machine(clone::name_of(node)?, node.clone(), &mut dice))).collect();
        let newer = (options.shape == Shape::Versions).then(|| {
            // One of each version, the others at random.
            for (index, machine) in machines.iter_mut().enumerate() {
                machine.is_newer = index == 1 || index > 1 && dice.per_mille(500);
            }
            Newer::new(dice.any(), cluster.clone(), judge.clone())
        });
        let (shape, lie) = (options.shape, options.lie);
        let common = Common { cluster: cluster.clone(), judge: judge.clone(), shape, lie, session, newer };
        World { dice, cluster, machines, clones, judge, shape, common }
    }

    /// A random VM, which may not exist.
    pub(crate) fn any_vm(&mut self) -> Uuid {
        Uuid::from_u128(u128::from(1 + self.dice.roll(self.shape.vms().max(1))))
    }

    /// Whether an administrator who looks at a machine finds it off.
    pub(crate) fn seems_off(&self, machine: &Machine) -> bool {
        !machine.mains.is_on(&machine.name) || self.common.lie == Lie::BlindConfirmation && machine.daemon.is_none()
    }

    /// The newer version, if there are two.
    pub(crate) fn newer(&self) -> Option<&Newer> {
        self.common.newer.as_ref()
    }

    /// Checks how the daemons of today's version read the configuration.
    pub(crate) fn maintenance_holds(&self) {
        for machine in self.machines.iter().filter(|machine| !machine.is_newer) {
            if let Some(daemon) = &machine.daemon {
                self.judge.maintenance_holds(&machine.name, daemon.instance, &daemon.handle.view());
            }
        }
    }

    /// Looks which machines lost their power by their BMCs since that was looked at last.
    pub(crate) fn notice_cuts(&mut self) -> Vec<usize> {
        let judge = self.judge.clone();
        let lost =
            self.machines.iter_mut().enumerate().filter_map(|(n, machine)| machine.notice_cut(&judge).then_some(n));
        lost.collect()
    }

    /// Starts all daemons that do not run.
    pub(crate) fn start_daemons(&mut self) {
        for machine in &mut self.machines {
            machine.start_daemon(&self.common, false);
        }
    }

    /// The machines that have power and have not booted: their BMCs have switched them on.
    pub(crate) fn switched_on(&self) -> Vec<usize> {
        let machines = self.machines.iter().enumerate();
        machines.filter(|(_, m)| !m.on && m.boots > 1 && m.mains.is_on(&m.name)).map(|(n, _)| n).collect()
    }

    pub(crate) fn start_daemon(&mut self, index: usize) {
        if let Some(machine) = self.machines.get_mut(index) {
            machine.start_daemon(&self.common, false);
        }
    }

    /// Switches a machine's clone on, with its daemon.
    pub(crate) fn start_clone(&mut self, index: usize) {
        if let Some(clone) = self.clones.get_mut(index).filter(|clone| !clone.on) {
            self.judge.note(&format!("{}: is switched on", clone.name), |t| t.clones += 1);
            clone.start_daemon(&self.common, false);
        }
    }

    /// The connection to the store of the daemon of a machine's clone, if that is on.
    pub(crate) fn store_of_clone(&self, index: usize) -> Option<&MemoryStore> {
        self.clones.get(index)?.daemon.as_ref().map(|daemon| &daemon.store)
    }

    /// Switches a machine's clone off.
    pub(crate) fn end_clone(&mut self, index: usize) {
        if let Some(clone) = self.clones.get_mut(index).filter(|clone| clone.on) {
            clone.power_off(&self.judge);
        }
    }

    /// Starts the daemons again that have ended, because a clone had their node's name meanwhile. An administrator who
    /// has switched the clone off says which machine has the name.
    pub(crate) fn restart_ended(&mut self) {
        for (machine, _) in self.machines.iter_mut().zip(&self.clones).filter(|(_, clone)| !clone.on) {
            if machine.daemon.as_ref().is_some_and(Daemon::has_ended) {
                machine.crash_daemon(&self.judge);
                machine.start_daemon(&self.common, true);
            }
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
        world.restart_ended();
        world.judge.claims_hold();
        world.judge.pace_holds(administrator.vms());
        world.judge.addresses_hold();
        world.judge.disks_hold(&world.machines);
        world.maintenance_holds();
        world.judge.verdict()?;
    }
    weather.calm(&mut world);
    administrator.finish().await;
    administrator.adopt(&world).await;
    if world.shape.has_watchdogs() {
        administrator.end_maintenance(&world).await;
    }
    let deadline = Instant::now() + CALM;
    loop {
        world.restart_ended();
        world.judge.claims_hold();
        world.judge.disks_hold(&world.machines);
        world.maintenance_holds();
        world.judge.verdict()?;
        let mut unfinished = world.judge.unfinished(administrator.vms());
        unfinished.extend(world.judge.unfinished_nodes(world.machines.iter().map(|m| &m.name)));
        unfinished.extend(world.judge.unfinished_fences(world.machines.iter().map(|m| &m.name)));
        world.notice_cuts().into_iter().for_each(|index| world.start_daemon(index));
        world.judge.addresses_hold();
        unfinished.extend(world.judge.unfinished_handoff());
        for machine in &world.machines {
            unfinished.extend(world.judge.left_behind(&machine.name, &machine.hardware.running()));
        }
        if unfinished.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            return Err(world.judge.never_calm(&unfinished));
        }
        sleep(Duration::from_secs(1)).await;
    }
    sleep(REST).await;
    let before = world.cluster.calls();
    sleep(REST).await;
    let calls = world.cluster.calls() - before;
    world.judge.note("a minute of rest is over", |t| t.calls_at_rest += calls);
    for machine in &mut world.machines {
        machine.crash_daemon(&Judge::new(world.cluster.clone(), world.shape));
    }
    server.abort();
    Ok(world.judge.tally())
}
