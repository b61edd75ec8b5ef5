//! A hypervisor that only pretends, for simulation: with latency, hanging calls, lost events, guests with a will of
//! their own.
//!
//! A [`FakeMachine`] is the node's hardware and libvirtd: it outlives the daemon. A [`FakeHypervisor`] is one daemon's
//! connection to it. What a daemon had asked for when it crashed may still happen, as with the real thing: `create` is
//! *define*, then *start*, and at a crash the one of them that is under way is still done, and no later one.
//!
//! Everything runs on tokio's (virtual) clock and takes its chance from one seed.

mod migrate;

use super::{Connection, Domain, Event, Host, Hypervisor, HypervisorError, Result, Sending};
use async_trait::async_trait;
use drover_model::{Dice, Obs, OffReason, Progress, RunState, domain::Mark};
use migrate::Leaving;
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{sleep, timeout},
};
use uuid::Uuid;

/// How long a caller waits for a call; the call itself may take longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How calls and guests behave. The default: at once, and well.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// How long a call takes, in milliseconds.
    pub latency_ms: Range<u64>,
    /// Of 1000 calls, how many take three times as long as their caller waits, and are done all the same.
    pub hang_per_mille: u64,
    /// Of 1000 starts, how many are refused.
    pub refuse_per_mille: u64,
    /// Of 1000 events, how many are lost.
    pub deaf_per_mille: u64,
    /// Of 1000 guests that are asked to power off, how many ignore it.
    pub stubborn_per_mille: u64,
    /// How long a guest takes to power off, in milliseconds.
    pub power_off_ms: Range<u64>,
    /// How long it takes to send a guest to another machine, in milliseconds.
    pub transfer_ms: Range<u64>,
    /// Of 1000 guests that are sent, how many do not arrive.
    pub astray_per_mille: u64,
}

/// Told, synchronously, that a domain came into memory (true) or went (false).
pub type Observer = Box<dyn Fn(Uuid, Mark, bool) + Send>;

/// One node's hardware.
#[derive(Clone)]
pub struct FakeMachine {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<Event>,
    network: FakeNetwork,
}

/// The machines that can send guests to each other, by the URIs of their hypervisors.
#[derive(Clone, Default)]
pub struct FakeNetwork {
    machines: Arc<Mutex<BTreeMap<String, FakeMachine>>>,
}

impl FakeNetwork {
    /// Puts a machine on the network, under a URI.
    pub fn plug(&self, uri: &str, machine: &FakeMachine) -> FakeMachine {
        let machine = FakeMachine { network: self.clone(), ..machine.clone() };
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).insert(uri.to_owned(), machine.clone());
        machine
    }

    pub(super) fn find(&self, uri: &str) -> Option<FakeMachine> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).get(uri).cloned()
    }
}

struct Inner {
    domains: BTreeMap<Uuid, FakeDomain>,
    weather: Weather,
    dice: Dice,
    /// Rises with every power-off: calls of an earlier life do nothing.
    life: u64,
    observer: Option<Observer>,
}

#[derive(Debug, Clone)]
struct FakeDomain {
    name: String,
    mark: Mark,
    run: RunState,
    off: Option<OffReason>,
    /// Its migration, while it is being sent.
    sending: Option<Leaving>,
}

impl FakeDomain {
    fn seen(&self, uuid: Uuid) -> Domain {
        let FakeDomain { name, mark, run, off, sending } = self.clone();
        Domain { uuid, name, run, off, mark, vnc: None, sending: sending.is_some() }
    }
}

impl Inner {
    fn tell(&self, uuid: Uuid, mark: Mark, started: bool) {
        if let Some(observer) = &self.observer {
            observer(uuid, mark, started);
        }
    }

    fn switch_off(&mut self, uuid: Uuid, reason: OffReason) {
        let Some(domain) = self.domains.get_mut(&uuid).filter(|d| d.run != RunState::Off) else { return };
        if domain.run == RunState::Paused {
            // A guest that is arriving is not defined here yet: nothing is left of it.
            self.domains.remove(&uuid);
            return;
        }
        (domain.run, domain.off, domain.sending) = (RunState::Off, Some(reason), None);
        let mark = domain.mark;
        self.tell(uuid, mark, false);
    }
}

impl FakeMachine {
    /// A machine without domains, whose chance comes from `seed`.
    pub fn new(seed: u64) -> FakeMachine {
        let inner = Inner {
            domains: BTreeMap::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            life: 0,
            observer: None,
        };
        FakeMachine {
            inner: Arc::new(Mutex::new(inner)),
            events: broadcast::channel(256).0,
            network: FakeNetwork::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How calls and guests behave from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Whom to tell of every domain that comes or goes.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// A daemon's connection.
    pub fn connect(&self) -> FakeHypervisor {
        FakeHypervisor {
            machine: self.clone(),
            lanes: Arc::default(),
            daemon: watch::channel(true).0,
            connection: watch::channel(Connection::Up).0,
        }
    }

    /// The domains in memory: the truth.
    pub fn running(&self) -> Vec<(Uuid, Mark)> {
        let inner = self.lock();
        inner.domains.iter().filter(|(_, d)| d.run != RunState::Off).map(|(uuid, d)| (*uuid, d.mark)).collect()
    }

    /// Every definition, whether in memory or not.
    pub fn defined(&self) -> Vec<Uuid> {
        self.lock().domains.keys().copied().collect()
    }

    /// Pulls the power cord: everything in memory is gone, what was defined on disk is still defined, and off.
    pub fn power_off(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        let all: Vec<Uuid> = inner.domains.keys().copied().collect();
        for uuid in all {
            inner.switch_off(uuid, OffReason::Unknown);
            if let Some(domain) = inner.domains.get_mut(&uuid) {
                domain.off = Some(OffReason::Unknown);
            }
        }
    }

    /// A guest goes down by itself: [`OffReason::Shutdown`] by its own wish, [`OffReason::Crashed`] against it.
    pub fn guest_goes_down(&self, uuid: Uuid, reason: OffReason) {
        self.lock().switch_off(uuid, reason);
        self.ring(uuid);
    }

    fn ring(&self, uuid: Uuid) {
        let deaf = {
            let mut inner = self.lock();
            let chance = inner.weather.deaf_per_mille;
            inner.dice.per_mille(chance)
        };
        if !deaf {
            // It fails when nobody listens.
            self.events.send(Event::Domain(uuid)).ok();
        }
    }

    /// Asks a guest to power off, which it does after a while, or never.
    fn press(&self, uuid: Uuid) {
        let (obeys, after, life, mark) = {
            let mut inner = self.lock();
            let Weather { stubborn_per_mille, power_off_ms, .. } = inner.weather.clone();
            let obeys = !inner.dice.per_mille(stubborn_per_mille);
            (obeys, inner.dice.millis(&power_off_ms), inner.life, inner.domains.get(&uuid).map(|d| d.mark))
        };
        if !obeys {
            return;
        }
        let machine = self.clone();
        tokio::spawn(async move {
            sleep(after).await;
            let mut inner = machine.lock();
            // Only this guest of this life: not one that was started meanwhile.
            if inner.life == life && inner.domains.get(&uuid).map(|d| d.mark) == mark {
                inner.switch_off(uuid, OffReason::Shutdown);
                drop(inner);
                machine.ring(uuid);
            }
        });
    }
}

/// One daemon's connection to a [`FakeMachine`].
pub struct FakeHypervisor {
    machine: FakeMachine,
    /// Unfinished changing calls, as the real driver keeps them.
    lanes: Arc<Mutex<BTreeMap<Uuid, &'static str>>>,
    /// False when the daemon has crashed.
    daemon: watch::Sender<bool>,
    connection: watch::Sender<Connection>,
}

/// One part of a call that is done whole or not at all.
type Phase = Box<dyn FnOnce(&mut Inner) -> std::result::Result<(), String> + Send>;

impl FakeHypervisor {
    /// The daemon dies: the phase that is under way of each call is still done, no later one.
    pub fn crash(&self) {
        self.daemon.send_replace(false);
    }

    /// Loses the connection, or has it again.
    pub fn set_connected(&self, connected: bool) {
        let next = if connected { Connection::Up } else { Connection::Down("a fault".to_owned()) };
        if *self.connection.borrow() != next {
            self.connection.send_replace(next);
            // It fails when nobody listens.
            self.machine.events.send(Event::Everything).ok();
        }
    }

    fn down(&self, what: &str) -> Option<HypervisorError> {
        match &*self.connection.borrow() {
            Connection::Up => None,
            Connection::Down(why) => Some(HypervisorError::Disconnected { what: what.to_owned(), why: why.clone() }),
        }
    }

    /// Does a changing call, phase by phase, on a task of its own: the caller's patience ends earlier than the call
    /// may.
    async fn change(&self, uuid: Uuid, what: &'static str, phases: Vec<Phase>) -> Result<()> {
        if let Some(down) = self.down(what) {
            return Err(down);
        }
        {
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(earlier) = lanes.get(&uuid) {
                let why = format!("an earlier call to {earlier} has not finished");
                return Err(HypervisorError::Unknown { what: what.to_owned(), why });
            }
            lanes.insert(uuid, what);
        }
        let (answer, wait) = oneshot::channel();
        let (machine, lanes, daemon) = (self.machine.clone(), self.lanes.clone(), self.daemon.subscribe());
        tokio::spawn(async move {
            let mut outcome = Ok(());
            for phase in phases {
                if !*daemon.borrow() {
                    break;
                }
                let (pause, life) = {
                    let mut inner = machine.lock();
                    let Weather { latency_ms, hang_per_mille, .. } = inner.weather.clone();
                    let hangs = inner.dice.per_mille(hang_per_mille);
                    let pause = inner.dice.millis(&latency_ms);
                    (if hangs { pause + DEADLINE * 3 } else { pause }, inner.life)
                };
                if pause > Duration::ZERO {
                    sleep(pause).await;
                }
                let mut inner = machine.lock();
                if inner.life != life {
                    break;
                }
                outcome = phase(&mut inner);
                if outcome.is_err() {
                    break;
                }
            }
            lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
            machine.ring(uuid);
            // It fails when the caller gave up.
            answer.send(outcome).ok();
        });
        match timeout(DEADLINE, wait).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(why))) => Err(HypervisorError::Refused { what: what.to_owned(), why }),
            Ok(Err(_)) | Err(_) => {
                Err(HypervisorError::Unknown { what: what.to_owned(), why: "no answer by the deadline".to_owned() })
            }
        }
    }

    fn look(&self, uuid: Uuid) -> Obs<Domain> {
        let lane = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).get(&uuid).copied();
        let machine = self.machine.lock();
        let domain = machine.domains.get(&uuid);
        match (lane, domain) {
            (Some(migrate::WHAT), Some(d)) if d.sending.is_some() => Obs::Known(d.seen(uuid)),
            (Some(what), _) => Obs::Unknown(format!("a call to {what} has not finished")),
            (None, Some(d)) => Obs::Known(d.seen(uuid)),
            (None, None) => Obs::Absent,
        }
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn domains(&self) -> Result<Vec<(Uuid, Obs<Domain>)>> {
        if let Some(down) = self.down("list domains") {
            return Err(down);
        }
        let all = self.machine.defined();
        Ok(all.into_iter().map(|uuid| (uuid, self.look(uuid))).collect())
    }

    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        match self.down("look at a domain") {
            Some(down) => Obs::Unknown(down.to_string()),
            None => self.look(uuid),
        }
    }

    async fn create(&self, uuid: Uuid, xml: String) -> Result<()> {
        let Some(mark) = Mark::read(&xml) else {
            return Err(HypervisorError::Refused { what: "start".to_owned(), why: "the XML has no mark".to_owned() });
        };
        let define: Phase = Box::new(move |inner| {
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is already active".to_owned());
            }
            let domain = FakeDomain { name: uuid.to_string(), mark, run: RunState::Off, off: None, sending: None };
            inner.domains.insert(uuid, domain);
            Ok(())
        });
        let start: Phase = Box::new(move |inner| {
            // A dead daemon's call may have come first.
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is already active".to_owned());
            }
            let chance = inner.weather.refuse_per_mille;
            if inner.dice.per_mille(chance) {
                inner.domains.remove(&uuid);
                return Err("the fake refuses".to_owned());
            }
            let Some(domain) = inner.domains.get_mut(&uuid) else { return Err("no such domain".to_owned()) };
            (domain.run, domain.off) = (RunState::Running, None);
            let mark = domain.mark;
            inner.tell(uuid, mark, true);
            Ok(())
        });
        self.change(uuid, "start", vec![define, start]).await
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<()> {
        self.change(uuid, "shut down", vec![]).await?;
        self.machine.press(uuid);
        Ok(())
    }

    async fn destroy(&self, uuid: Uuid) -> Result<()> {
        let destroy: Phase = Box::new(move |inner| {
            inner.switch_off(uuid, OffReason::Destroyed);
            Ok(())
        });
        self.change(uuid, "destroy", vec![destroy]).await
    }

    async fn undefine(&self, uuid: Uuid) -> Result<()> {
        let undefine: Phase = Box::new(move |inner| match inner.domains.get(&uuid) {
            Some(d) if d.run != RunState::Off => Err("domain is active".to_owned()),
            _ => {
                inner.domains.remove(&uuid);
                Ok(())
            }
        });
        self.change(uuid, "undefine", vec![undefine]).await
    }

    async fn migrate(&self, uuid: Uuid, how: Sending) -> Result<()> {
        migrate::send(self, uuid, how).await
    }

    async fn migration(&self, uuid: Uuid) -> Result<Option<Progress>> {
        let machine = self.machine.lock();
        Ok(machine.domains.get(&uuid).and_then(|d| d.sending.as_ref()).map(Leaving::progress))
    }

    async fn abort_migration(&self, uuid: Uuid) -> Result<()> {
        if let Some(down) = self.down("stop a migration") {
            return Err(down);
        }
        if let Some(leaving) = self.machine.lock().domains.get_mut(&uuid).and_then(|d| d.sending.as_mut()) {
            leaving.aborted = true;
        }
        Ok(())
    }

    async fn post_copy(&self, _uuid: Uuid) -> Result<()> {
        Err(HypervisorError::Refused { what: "post-copy".to_owned(), why: "the fake has none".to_owned() })
    }

    async fn host(&self) -> Result<Host> {
        let domain_types = vec!["qemu".to_owned()];
        Ok(Host { version: "fake".to_owned(), cpus: 4, domain_types })
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.machine.events.subscribe()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str =
        "<domain><metadata><d:vm xmlns:d='urn:drover:domain:1' epoch='3' generation='1'/></metadata></domain>";

    #[tokio::test(start_paused = true)]
    async fn a_hanging_call_is_unknown_until_it_is_done() {
        let machine = FakeMachine::new(1);
        let hypervisor = machine.connect();
        let uuid = Uuid::from_u128(1);
        machine.set_weather(Weather { hang_per_mille: 1000, ..Weather::default() });
        assert!(matches!(hypervisor.create(uuid, XML.to_owned()).await, Err(HypervisorError::Unknown { .. })));
        assert!(matches!(hypervisor.domain(uuid).await, Obs::Unknown(_)));
        assert!(matches!(hypervisor.destroy(uuid).await, Err(HypervisorError::Unknown { .. })));
        sleep(DEADLINE * 10).await;
        assert_eq!(hypervisor.domain(uuid).await.known().map(|d| d.run), Some(RunState::Running));
    }

    #[tokio::test(start_paused = true)]
    async fn at_a_crash_the_phase_under_way_is_done_and_no_later_one() {
        let machine = FakeMachine::new(1);
        machine.set_weather(Weather { latency_ms: 100..101, ..Weather::default() });
        let (hypervisor, uuid) = (machine.connect(), Uuid::from_u128(1));
        let call = timeout(Duration::from_millis(50), hypervisor.create(uuid, XML.to_owned())).await;
        assert!(call.is_err());
        hypervisor.crash();
        sleep(Duration::from_secs(1)).await;
        assert_eq!((machine.defined(), machine.running()), (vec![uuid], vec![]));
    }
}
