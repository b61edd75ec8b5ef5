//! The machines of a scenario, and what commands do to them.

use super::{
    commands::{Command, Daemon, Mood, Order, VmOrder},
    language::{Node, Scenario, Vm},
};
use crate::{
    Lie, Options, Shape,
    invariants::Violation,
    weather::ORDER_TIMEOUT,
    world::{Fittings, World},
};
use drover_agent::{CommandError, Commands, ConfigChange, Define, Maintenance, NodeHandle};
use drover_drivers::{
    host_network::fake as host_network,
    hypervisor::fake,
    power::fake::{FakeBmc, Trouble},
    watchdog::fake::Make,
};
use drover_model::{
    MetaChange, MoveKind, NodeName, OffReason, Only, PowerState, Primary, RecordKind, VmName, WallTime,
};
use drover_plan::{admit, moves::Request};
use drover_store::memory;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// All randomness of all scenarios.
const SEED: u64 = 1;
/// Time in which a cluster is up, its VMs run, and it is at rest.
const SETUP: Duration = Duration::from_secs(120);

/// What came of an order.
pub(super) struct Told {
    /// As it is written.
    pub(super) text: String,
    /// Whether it was to be refused.
    pub(super) refused: bool,
    pub(super) outcome: Result<(), String>,
}

/// The machines, and what is wrong with them.
pub(super) struct Stage {
    pub(super) world: World,
    pub(super) vms: BTreeMap<Uuid, String>,
    no_store: bool,
    cut_from_store: BTreeSet<NodeName>,
    cut_from_network: BTreeSet<NodeName>,
    frozen: BTreeSet<NodeName>,
    /// The nodes whose present daemon has no connection to the store.
    unlinked: BTreeSet<NodeName>,
    tell: mpsc::UnboundedSender<Told>,
    pub(super) told: mpsc::UnboundedReceiver<Told>,
}

/// A range with one value.
fn exactly(span: Duration) -> std::ops::Range<u64> {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX - 1);
    ms..ms + 1
}

fn xml(uuid: &Uuid, vm: &Vm) -> String {
    format!(
        "<domain type='kvm'><name>{}</name><uuid>{uuid}</uuid><memory unit='KiB'>{}</memory><vcpu>1</vcpu>\
        <os><type>hvm</type></os><devices/></domain>",
        vm.name,
        vm.memory.0 / 1024
    )
}

fn behave(bmc: &mut FakeBmc, own: &NodeName, mood: &Mood) {
    let latency = Duration::from_millis(50);
    let quick = FakeBmc { machine: own.to_string(), latency, delay: Duration::from_secs(1), ..FakeBmc::default() };
    let trouble = |trouble| FakeBmc { trouble, ..quick.clone() };
    *bmc = match mood {
        Mood::Ok => quick,
        Mood::Dead => trouble(Trouble::Dead),
        Mood::DeadWithHost => trouble(Trouble::DiesWithMachine),
        Mood::Slow => FakeBmc { latency: Duration::from_secs(6), delay: Duration::from_secs(5), ..quick },
        Mood::WrongPassword => trouble(Trouble::Credentials),
        Mood::AcceptsOnly => trouble(Trouble::AcceptsOnly),
        Mood::LiesOff => FakeBmc { ordered: Some(PowerState::Off), ..trouble(Trouble::Lies) },
        Mood::Lies => trouble(Trouble::Lies),
        // It has another machine's place, which is always on.
        Mood::LiesOn => FakeBmc { machine: String::new(), ..trouble(Trouble::AcceptsOnly) },
        Mood::Nonsense => trouble(Trouble::Nonsense),
        Mood::RefusesAlready => trouble(Trouble::RefusesAlready),
        Mood::Controls(node) => FakeBmc { machine: node.to_string(), ..quick },
    };
}

impl Stage {
    /// The machines, off.
    pub(super) fn new(scenario: &Scenario) -> Stage {
        let options = Options { lie: Lie::None, shape: Shape::Fences, ..Options::of(SEED) };
        let names = scenario.nodes.iter().map(|node| node.name.clone()).collect();
        let fit = |name: &NodeName, _: &mut _| {
            let node = scenario.nodes.iter().find(|node| node.name == *name);
            Fittings {
                memory: node.map(|node| node.memory).unwrap_or_default(),
                bmc: node.is_some_and(|node| node.bmc.is_some()),
                watchdog: node.and_then(|node| node.watchdog).map(|timeout| Make { timeout, ..Make::default() }),
            }
        };
        let world = World::with(options, scenario.settings.session, names, &fit);
        world.cluster.set_weather(memory::Weather { latency_ms: 2..3, lost_per_mille: 0 });
        for machine in &world.machines {
            machine.hardware.set_weather(fake::Weather {
                latency_ms: 20..21,
                power_off_ms: exactly(scenario.settings.power_off),
                transfer_ms: exactly(scenario.settings.transfer),
                ..Default::default()
            });
            machine.kernel.set_weather(host_network::Weather { latency_ms: 5..6, ..Default::default() });
            machine.mains.change_bmc(&machine.name, |bmc| behave(bmc, &machine.name, &Mood::Ok));
        }
        let (tell, told) = mpsc::unbounded_channel();
        let vms = (1..).zip(&scenario.vms).map(|(n, vm)| (Uuid::from_u128(n), vm.name.to_string())).collect();
        let (no_store, cut_from_store, cut_from_network, frozen, unlinked) = Default::default();
        Stage { world, vms, no_store, cut_from_store, cut_from_network, frozen, unlinked, tell, told }
    }

    /// Switches everything on, defines the VMs and starts them, and waits until all is as the scenario says.
    pub(super) async fn set_up(&mut self, scenario: &Scenario) -> Result<(), String> {
        self.world.start_daemons();
        sleep(Duration::from_secs(10)).await;
        let handle = self.somebody().ok_or("no daemon runs")?;
        let commands = handle.commands();
        let failed = |what: String| move |error: CommandError| format!("{what}: {error}");
        if scenario.settings.config != ConfigChange::default() {
            commands.set_config(&scenario.settings.config).await.map_err(failed("the settings".to_owned()))?;
        }
        for ((uuid, _), vm) in self.vms.iter().zip(&scenario.vms) {
            let meta = MetaChange {
                node_limit: (!vm.limit.is_empty()).then(|| vm.limit.iter().cloned().collect()),
                autostart: Some(vm.autostart),
                priority: vm.priority,
                ..MetaChange::default()
            };
            let define = Define { xml: xml(uuid, vm), node: vm.on.clone(), meta, ..Define::default() };
            commands.define(define).await.map_err(failed(format!("VM {} is not defined", vm.name)))?;
            if !vm.off {
                let start = admit::Command::Start { force: false };
                commands.set_state(*uuid, start).await.map_err(failed(format!("VM {} is not started", vm.name)))?;
            }
        }
        let first = scenario.nodes.first().map(|node| node.name.clone());
        let primary = |world: &World| world.judge.read(&Primary::path(&Only)).and_then(|record: Primary| record.holder);
        if let Some(first) = first.as_ref().filter(|first| primary(&self.world).as_ref() != Some(first)) {
            let handed = commands.set_coordinator_state(first, true).await;
            handed.map_err(failed(format!("{first} does not become the primary")))?;
        }
        let deadline = Instant::now() + SETUP;
        loop {
            let running = self.world.judge.lock().running.clone();
            let all = self.vms.keys().zip(&scenario.vms).filter(|(_, vm)| !vm.off);
            let waiting: Vec<&VmName> = all
                .filter(|(uuid, vm)| {
                    let on = running.get(uuid).and_then(|nodes| nodes.keys().next());
                    on.is_none() || vm.on.is_some() && on != vm.on.as_ref()
                })
                .map(|(_, vm)| &vm.name)
                .collect();
            if waiting.is_empty() && primary(&self.world) == first {
                break;
            }
            if Instant::now() > deadline {
                let names: Vec<String> = waiting.into_iter().map(ToString::to_string).collect();
                return Err(format!("the cluster does not come up as it is to be: {} do not run", names.join(", ")));
            }
            sleep(Duration::from_millis(100)).await;
        }
        // What is known of every machine before something happens: reports, BMCs, promises of watchdogs.
        sleep(Duration::from_secs(30)).await;
        for Node { name, bmc, .. } in &scenario.nodes {
            if let (Some(mood), Some(machine)) = (bmc, self.machine(name)) {
                machine.mains.change_bmc(name, |bmc| behave(bmc, name, mood));
            }
        }
        Ok(())
    }

    fn machine(&self, name: &NodeName) -> Option<&crate::world::Machine> {
        self.world.machines.iter().find(|machine| machine.name == *name)
    }

    fn index(&self, name: &NodeName) -> Option<usize> {
        self.world.machines.iter().position(|machine| machine.name == *name)
    }

    /// The daemon that takes orders: the first one that nothing is wrong with, else the first one that runs.
    fn somebody(&self) -> Option<NodeHandle> {
        let well = |name: &NodeName| !self.unlinked.contains(name) && !self.cut_from_network.contains(name);
        let running = self.world.machines.iter().filter(|m| m.daemon.is_some() && !self.frozen.contains(&m.name));
        let (first, other) = (running.clone().find(|m| well(&m.name)), running.clone().next());
        first.or(other).and_then(|m| Some(m.daemon.as_ref()?.handle.clone()))
    }

    /// Does what a command says. Returns why that is not possible.
    pub(super) async fn act(&mut self, text: &str, command: &Command, refused: bool) -> Result<(), String> {
        let judge = self.world.judge.clone();
        let index =
            |stage: &Stage, node: &NodeName| stage.index(node).ok_or_else(|| format!("there is no node {node}"));
        match command {
            Command::Power { node, on: true } => {
                let index = index(self, node)?;
                self.start(index);
            }
            Command::Power { node, on: false } => {
                let index = index(self, node)?;
                self.world.machines[index].power_off(&judge);
                self.frozen.remove(node);
            }
            Command::Cut { node, store, network } => {
                if *store {
                    self.cut_from_store.insert(node.clone());
                }
                if *network {
                    self.cut_from_network.insert(node.clone());
                }
            }
            Command::Reconnect(node) => {
                self.cut_from_store.remove(node);
                self.cut_from_network.remove(node);
            }
            Command::Freeze { node, frozen } => {
                let Some(daemon) = self.machine(node).and_then(|machine| machine.daemon.as_ref()) else {
                    return Err(format!("no daemon of {node} runs"));
                };
                if *frozen {
                    daemon.switch.stop();
                    self.frozen.insert(node.clone());
                } else {
                    daemon.switch.go_on();
                    self.frozen.remove(node);
                }
            }
            Command::Daemon { node, does } => {
                let index = index(self, node)?;
                let machine = &mut self.world.machines[index];
                match does {
                    _ if !machine.has_booted() => return Err(format!("{node} is off")),
                    Daemon::Crashes => machine.crash_daemon(&judge),
                    Daemon::Stops | Daemon::Restarts => machine.stop_daemon(&judge).await,
                    Daemon::Starts => {}
                }
                if matches!(does, Daemon::Starts | Daemon::Restarts) {
                    self.start(index);
                }
            }
            Command::ShutDownNode(node) => {
                let index = index(self, node)?;
                let world = &mut self.world;
                world.machines[index].shut_down(&judge, &mut world.dice);
            }
            Command::Bmc { node, mood } => {
                let machine = self.machine(node);
                machine.inspect(|machine| machine.mains.change_bmc(node, |bmc| behave(bmc, node, mood)));
            }
            Command::Store { up } => self.no_store = !up,
            Command::Guest { vm, reason } => {
                let uuid = self.uuid(vm)?;
                let machine = self.world.machines.iter().find(|machine| judge.executes_on(&machine.name, uuid));
                let machine = machine.ok_or_else(|| format!("{vm} runs nowhere"))?;
                match reason {
                    OffReason::Ended => machine.end_guest(&judge, uuid, *reason),
                    _ => machine.hardware.guest_goes_down(uuid, *reason),
                }
            }
            Command::Order(order) => self.order(text, order.clone(), refused)?,
        }
        self.link();
        Ok(())
    }

    fn uuid(&self, vm: &VmName) -> Result<Uuid, String> {
        let found = self.vms.iter().find(|(_, name)| name.as_str() == vm.as_str());
        found.map(|(uuid, _)| *uuid).ok_or_else(|| format!("there is no VM {vm}"))
    }

    fn start(&mut self, index: usize) {
        let Some(machine) = self.world.machines.get(index).filter(|machine| machine.daemon.is_none()) else { return };
        self.unlinked.remove(&machine.name);
        self.world.start_daemon(index);
        self.link();
    }

    /// Looks which machines have lost or got their power meanwhile.
    pub(super) fn notice(&mut self) {
        for index in self.world.notice_cuts() {
            if let Some(machine) = self.world.machines.get(index) {
                self.frozen.remove(&machine.name);
            }
        }
        for index in self.world.switched_on() {
            self.start(index);
        }
    }

    /// Connects and disconnects the daemons and machines as it is said.
    fn link(&mut self) {
        for machine in &self.world.machines {
            let name = &machine.name;
            let silent = self.cut_from_network.contains(name) || !machine.mains.is_on(name);
            machine.mains.set_answers(name, !silent);
            let Some(daemon) = &machine.daemon else {
                self.unlinked.remove(name);
                continue;
            };
            if self.no_store || self.cut_from_store.contains(name) || self.frozen.contains(name) {
                daemon.store.cut();
                self.unlinked.insert(name.clone());
            } else if self.unlinked.remove(name) {
                daemon.store.heal();
            }
        }
    }

    /// Gives an order. What comes of it is told later.
    fn order(&mut self, text: &str, order: Order, refused: bool) -> Result<(), String> {
        let handle = self.somebody().ok_or("no daemon runs that could take an order")?;
        let uuid = match &order {
            Order::Vm { vm, what } => {
                let uuid = self.uuid(vm)?;
                let judge = &self.world.judge;
                match what {
                    VmOrder::Delete => judge.condemn(uuid),
                    VmOrder::Stop | VmOrder::Shutdown | VmOrder::Disable => judge.ordered_off(uuid),
                    _ => {}
                }
                uuid
            }
            _ => Uuid::nil(),
        };
        let (tell, text) = (self.tell.clone(), text.to_owned());
        let wall = handle.wall();
        tokio::spawn(async move {
            let outcome = match timeout(ORDER_TIMEOUT, give(handle.commands(), uuid, order, wall)).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            // Nobody listens after the end.
            _ = tell.send(Told { text, refused, outcome });
        });
        Ok(())
    }

    /// Checks what must hold at every moment. (Whether a VM runs twice is seen when it starts.) `stirred`: a record may
    /// have changed since.
    pub(super) fn judge(&self, stirred: bool) -> Result<(), Violation> {
        let judge = &self.world.judge;
        if !stirred {
            return judge.verdict();
        }
        judge.claims_hold();
        judge.pace_holds(&self.vms.keys().copied().collect());
        judge.addresses_hold();
        self.world.maintenance_holds();
        judge.verdict()
    }
}

async fn give(commands: &Commands, uuid: Uuid, order: Order, now: WallTime) -> Result<(), CommandError> {
    let relocation = |kind, to| Request { kind, to, force: false, live_only: false };
    match order {
        Order::Vm { what, .. } => {
            let command = match what {
                VmOrder::Start => admit::Command::Start { force: false },
                VmOrder::Stop => admit::Command::Stop,
                VmOrder::Shutdown => admit::Command::Shutdown(None),
                VmOrder::Restart => admit::Command::Restart(None),
                VmOrder::Disable => admit::Command::Disable { force: false },
                VmOrder::Cancel => admit::Command::CancelMove,
                VmOrder::Delete => return commands.delete(uuid, false).await.map(|_| ()),
                VmOrder::Migrate(to) => {
                    return commands.relocate(uuid, &relocation(MoveKind::Migrate, to)).await.map(|_| ());
                }
                VmOrder::Move(to) => {
                    return commands.relocate(uuid, &relocation(MoveKind::Move, to)).await.map(|_| ());
                }
                VmOrder::Home => {
                    return commands.relocate(uuid, &relocation(MoveKind::Unmigrate, None)).await.map(|_| ());
                }
            };
            commands.set_state(uuid, command).await.map(|_| ())
        }
        Order::Flush(node) => commands.set_domain_state(node, false, false).await.map(|_| ()),
        Order::Ready(node) => commands.set_domain_state(node, true, false).await.map(|_| ()),
        Order::Primary { node, primary } => commands.set_coordinator_state(&node, primary).await.map(|_| ()),
        Order::ConfirmOff { node, for_good } => commands.confirm_off(node, None, for_good).await.map(|_| ()),
        Order::Remove(node) => commands.remove_node(node).await,
        Order::Config(change) => commands.set_config(&change).await.map(|_| ()),
        Order::Policy { node, change } => commands.set_node_policies(node, change).await.map(|_| ()),
        Order::MaintenanceFor(span) => {
            let until = WallTime(now.0 + u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2));
            let maintenance = Some(Maintenance::On(Some(until)));
            commands.set_config(&ConfigChange { maintenance, ..ConfigChange::default() }).await.map(|_| ())
        }
    }
}
