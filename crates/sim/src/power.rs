//! The power of the machines: their BMCs, what loses its power with a machine, and the judge beside every order.

use crate::{Lie, invariants::Judge};
use async_trait::async_trait;
use drover_agent::{BmcOptions, ClusterKey};
use drover_drivers::{
    host_network::fake::FakeHostNetwork,
    hypervisor::fake::{FakeHypervisor, FakeMachine},
    power::{
        Power, PowerError,
        fake::{FakeBmc, FakePower, Trouble, at},
    },
    presence::{Answer, Presence, fake::FakePresence},
    watchdog::fake::{FakeDevice, Make, OnReset},
};
use drover_model::{Bmc, BmcAccess, Dice, NodeName, PowerState, Secret};
use drover_store::memory::MemoryStore;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::task::AbortHandle;

/// The address of a node's API.
pub(crate) fn api(node: &NodeName) -> String {
    format!("{node}:7370")
}

/// A daemon, as far as it ends with its machine's power.
pub(crate) struct Process {
    pub(crate) tasks: Vec<AbortHandle>,
    pub(crate) hypervisor: Arc<FakeHypervisor>,
    pub(crate) store: MemoryStore,
}

/// What loses its power with a machine.
struct Load {
    hardware: FakeMachine,
    kernel: FakeHostNetwork,
    watchdog: Option<FakeDevice>,
    daemon: Option<Process>,
}

/// What the machines are to each other while they have power.
#[derive(Clone)]
struct Wires {
    presence: FakePresence,
    loads: Arc<Mutex<BTreeMap<String, Load>>>,
    judge: Judge,
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Load>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_answers(&self, name: &NodeName, answers: bool) {
        self.presence.set_silent(&api(name), !answers);
        self.judge.answers(name, answers);
    }

    /// Everything ends with the power.
    fn lost(&self, machine: &str) {
        let Ok(name) = NodeName::new(machine) else { return };
        self.set_answers(&name, false);
        self.judge.boot_ends(&name);
        let taken = self
            .lock()
            .get_mut(machine)
            .map(|load| (load.daemon.take(), load.hardware.clone(), load.kernel.clone(), load.watchdog.clone()));
        let Some((daemon, hardware, kernel, watchdog)) = taken else { return };
        watchdog.inspect(FakeDevice::power_off);
        if let Some(Process { tasks, hypervisor, store }) = daemon {
            self.judge.daemon_ends(&name);
            hypervisor.crash();
            tasks.iter().for_each(AbortHandle::abort);
            store.abandon();
        }
        hardware.power_off();
        kernel.power_off();
    }
}

/// The power of all machines. Clones are the same.
#[derive(Clone)]
pub(crate) struct Mains {
    power: FakePower,
    wires: Wires,
}

impl Mains {
    pub(crate) fn new(judge: Judge) -> Mains {
        let wires = Wires { presence: FakePresence::default(), loads: Arc::default(), judge };
        let mains = Mains { power: FakePower::default(), wires };
        // At the very moment at which the power goes, whoever cut it.
        let wires = mains.wires.clone();
        mains.power.observe(Box::new(move |machine, state| {
            if state == PowerState::Off {
                wires.lost(machine);
            }
        }));
        mains
    }

    /// Connects a machine, which has a BMC or none.
    pub(crate) fn plug(&self, name: &NodeName, hardware: &FakeMachine, kernel: &FakeHostNetwork, bmc: bool) {
        let load = Load { hardware: hardware.clone(), kernel: kernel.clone(), watchdog: None, daemon: None };
        self.wires.lock().insert(name.to_string(), load);
        if bmc {
            self.power.put(name.as_str(), FakeBmc { machine: name.to_string(), ..FakeBmc::default() });
        }
    }

    /// Gives a machine a watchdog, which cuts its power: somebody switches it on later.
    pub(crate) fn guard(&self, name: &NodeName, make: Make) -> FakeDevice {
        let (mains, of) = (self.clone(), name.clone());
        let reset: OnReset = Arc::new(move || {
            mains.wires.judge.note(&format!("{of}: its watchdog resets it"), |t| t.resets += 1);
            mains.set(&of, PowerState::Off);
        });
        let device = FakeDevice::new(make, reset);
        if let Some(load) = self.wires.lock().get_mut(name.as_str()) {
            load.watchdog = Some(device.clone());
        }
        device
    }

    /// From now on this daemon ends with the machine's power.
    pub(crate) fn starts(&self, name: &NodeName, daemon: Process) {
        if let Some(load) = self.wires.lock().get_mut(name.as_str()) {
            load.daemon = Some(daemon);
        }
    }

    pub(crate) fn set(&self, name: &NodeName, state: PowerState) {
        self.power.set_machine(name.as_str(), state);
    }

    pub(crate) fn is_on(&self, name: &NodeName) -> bool {
        self.power.machine(name.as_str()) == PowerState::On
    }

    /// Whether a machine answers on the network from now on.
    pub(crate) fn set_answers(&self, name: &NodeName, answers: bool) {
        self.wires.set_answers(name, answers);
    }

    /// Changes a machine's BMC, if it has one.
    pub(crate) fn change_bmc(&self, name: &NodeName, change: impl FnOnce(&mut FakeBmc)) {
        self.power.change(name.as_str(), change);
    }

    /// Something else is wrong with a BMC, or nothing.
    pub(crate) fn mood(&self, name: &NodeName, dice: &mut Dice) {
        let troubles = [
            Trouble::None,
            Trouble::None,
            Trouble::None,
            Trouble::None,
            Trouble::RefusesAlready,
            Trouble::DiesWithMachine,
            Trouble::Dead,
            Trouble::Credentials,
            Trouble::AcceptsOnly,
            Trouble::Nonsense,
        ];
        let trouble = dice.pick(&troubles).copied().unwrap_or_default();
        let slow = dice.per_mille(300);
        let mut within = |most| dice.millis(&(0..most));
        let (latency, delay) = if slow { (within(14_000), within(20_000)) } else { (within(500), within(5000)) };
        self.power.change(name.as_str(), |bmc| (bmc.trouble, bmc.latency, bmc.delay) = (trouble, latency, delay));
    }

    /// Nothing is wrong with any BMC.
    pub(crate) fn calm(&self, name: &NodeName) {
        self.power.change(name.as_str(), |bmc| {
            (bmc.trouble, bmc.latency, bmc.delay) = (Trouble::None, Duration::from_millis(50), Duration::from_secs(1));
        });
    }

    /// What a daemon is configured with.
    pub(crate) fn options(&self, name: &NodeName, bmc: bool) -> BmcOptions {
        let bmc = bmc.then(|| Bmc { access: at(name.as_str()), password: Some(Secret::new("secret".to_owned())) });
        BmcOptions { bmc, key: ClusterKey::parse(&"5e".repeat(32)).ok() }
    }

    /// The drivers of a daemon.
    pub(crate) fn drivers(&self, lie: Lie) -> (Arc<dyn Power>, Arc<dyn Presence>) {
        let (truth, judge) = (self.power.clone(), self.wires.judge.clone());
        let power = Watched { truth, judge, lie, accepted: Mutex::default() };
        let presence: Arc<dyn Presence> = match lie {
            Lie::Deaf => Arc::new(Deaf { truth: self.wires.presence.clone() }),
            _ => Arc::new(self.wires.presence.clone()),
        };
        (Arc::new(power), presence)
    }
}

/// The power as one daemon sees it.
struct Watched {
    truth: FakePower,
    judge: Judge,
    lie: Lie,
    /// The BMCs that have accepted an order to cut the power.
    accepted: Mutex<BTreeSet<String>>,
}

fn machine(bmc: &Bmc) -> &str {
    match &bmc.access {
        BmcAccess::Ipmi { address, .. } => address,
        BmcAccess::Redfish { url, .. } => url,
        BmcAccess::Command { .. } => "",
    }
}

impl Watched {
    fn accepted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Power for Watched {
    async fn state(&self, bmc: &Bmc) -> Result<PowerState, PowerError> {
        let truth = self.truth.state(bmc).await?;
        Ok(match self.lie {
            Lie::AcceptedIsOff if self.accepted().contains(machine(bmc)) => PowerState::Off,
            Lie::SaysOff => PowerState::Off,
            _ => truth,
        })
    }
    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError> {
        if let Ok(name) = NodeName::new(machine(bmc)) {
            self.judge.power_is_cut(&name);
        }
        self.truth.off(bmc).await?;
        self.accepted().insert(machine(bmc).to_owned());
        Ok(())
    }
    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.truth.on(bmc).await
    }
}

/// Does not hear one of the machines.
struct Deaf {
    truth: FakePresence,
}

#[async_trait]
impl Presence for Deaf {
    async fn answers(&self, api: &str) -> Answer {
        if api.starts_with("hv1:") { Answer::Silent } else { self.truth.answers(api).await }
    }
}
