//! Fake hypervisor for simulation, with latency, hanging calls, lost events, and guests that stop by themselves.
//!
//! A [`FakeMachine`] is the node's hardware and libvirtd: it outlives the daemon. A [`FakeHypervisor`] is one daemon's
//! connection to it. Calls of a daemon that crashed may still take effect, as with a real hypervisor: `create` is
//! *define*, then *start*; at a crash the phase under way is completed, and no later one.
//!
//! Everything runs on tokio's (virtual) clock, and takes its random numbers from one seed.

mod foreign;
mod guests;
mod migrate;
mod weather;

pub use weather::Weather;

use super::{Connection, Domain, Event, Host, Hypervisor, HypervisorError, Listing, Result, Sending};
use async_trait::async_trait;
use drover_model::{
    Dice, Obs, OffReason, Paused, PausedBy, Progress, RunState, Transit,
    domain::{Candidate, Mark, Written, started_with, written},
};
use migrate::Leaving;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// Timeout of a caller; the call itself may take longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Called, synchronously, when a domain came into memory (true) or left it (false).
pub type Observer = Box<dyn Fn(Uuid, Mark, bool) + Send>;

/// Called, synchronously, when a domain was destroyed that had memory of a guest which executes elsewhere.
pub type OnTorn = Box<dyn Fn(Uuid, Mark) + Send>;

/// Called, synchronously, when a copy of a guest begins to execute although the guest has gone on elsewhere since the
/// copy was made.
pub type OnStale = Box<dyn Fn(Uuid, Mark) + Send>;

/// Called, synchronously, when a domain's state outside its definition was deleted.
pub type OnErased = Box<dyn Fn(Uuid) + Send>;

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
    /// Incremented by each power-off: calls of an earlier life have no effect.
    life: u64,
    observer: Option<Observer>,
    /// Domains that are not Drover's.
    foreign: BTreeMap<Uuid, Candidate>,
    /// The domains of which something is kept outside their definitions.
    kept: BTreeSet<Uuid>,
    on_erased: Option<OnErased>,
    on_torn: Option<OnTorn>,
    on_stale: Option<OnStale>,
    /// Guests of which a daemon has destroyed one half while the other may have needed it. (Others end guests too.)
    halved: BTreeSet<Uuid>,
}

#[derive(Debug, Clone)]
struct FakeDomain {
    name: String,
    mark: Mark,
    run: RunState,
    off: Option<OffReason>,
    /// When it went off.
    ended: Option<Instant>,
    /// Why it does not execute, if it is paused.
    paused: Option<Paused>,
    /// It hangs: nobody who asks it gets an answer.
    hung: bool,
    /// Its migration, while it is being sent.
    sending: Option<Leaving>,
    /// It has no definition: it is still arriving, or that was removed. Nothing is left of it when it ends.
    transient: bool,
    transit: Option<Transit>,
    /// The observer was told that it came into memory. (A migration hides it from the time at which it is paused.)
    told: bool,
    /// Of a copy that came by migration: whether the guest has gone on where it came from.
    outdated: Arc<AtomicBool>,
    /// The same of the copy that it has left elsewhere.
    copy: Option<Arc<AtomicBool>>,
    /// The disks that it was started with, and those that it has. As in libvirt, its definition follows the latter.
    started_with: Written,
    disks: Written,
}

impl FakeDomain {
    /// A definition.
    fn off(name: String, mark: Mark, started_with: Written, disks: Written) -> FakeDomain {
        let (run, off, ended, paused, sending, transit) = (RunState::Off, None, None, None, None, None);
        let (hung, transient, told) = (false, false, false);
        let (outdated, copy) = (Arc::default(), None);
        FakeDomain {
            name,
            mark,
            run,
            off,
            ended,
            paused,
            hung,
            sending,
            transient,
            transit,
            told,
            outdated,
            copy,
            started_with,
            disks,
        }
    }

    fn seen(&self, uuid: Uuid) -> Domain {
        let FakeDomain { name, mark, run, off, sending, transit, transient, started_with, disks, .. } = self.clone();
        let by = match transit {
            Some(Transit::Broken) => PausedBy::PostCopyFailed.into(),
            Some(_) => PausedBy::Migrating.into(),
            None => self.paused.clone().unwrap_or_default(),
        };
        let paused = (run == RunState::Paused).then_some(by);
        let (vnc, sending) = (None, sending.is_some());
        Domain { uuid, name, run, off, paused, mark, vnc, sending, transit, transient, started_with, disks }
    }

    /// Whether it has a part of a guest's memory, of which the rest is on another machine.
    fn is_half(&self) -> bool {
        self.run == RunState::Paused && matches!(self.transit, Some(Transit::Split | Transit::Broken))
    }

    /// libvirt's state of a guest that it was asked to leave paused at its arrival is as if somebody had paused it.
    fn set_paused(&mut self, paused: Option<Paused>) {
        self.run = if paused.is_some() { RunState::Paused } else { RunState::Running };
        self.paused = paused;
    }
}

impl Inner {
    /// The domain of that guest, if it is in memory.
    fn guest(&mut self, uuid: Uuid, mark: Mark) -> std::result::Result<&mut FakeDomain, String> {
        let domain = self.domains.get_mut(&uuid).filter(|d| d.run != RunState::Off).ok_or("domain is not running")?;
        if domain.mark == mark { Ok(domain) } else { Err("it is another guest by now".to_owned()) }
    }

    fn tell(&mut self, uuid: Uuid, mark: Mark, started: bool) {
        if let Some(domain) = self.domains.get_mut(&uuid) {
            domain.told = started;
            if let Some(copy) = domain.copy.take_if(|_| started) {
                copy.store(true, Ordering::Relaxed);
            }
            let outdated = started && domain.outdated.load(Ordering::Relaxed);
            if let Some(observer) = self.on_stale.as_ref().filter(|_| outdated) {
                observer(uuid, mark);
            }
        }
        if let Some(observer) = &self.observer {
            observer(uuid, mark, started);
        }
    }

    fn switch_off(&mut self, uuid: Uuid, reason: OffReason) {
        let Some(domain) = self.domains.get_mut(&uuid).filter(|d| d.run != RunState::Off) else { return };
        (domain.run, domain.off, domain.sending, domain.hung) = (RunState::Off, Some(reason), None, false);
        domain.ended = Some(Instant::now());
        (domain.paused, domain.transit) = (None, None);
        let (mark, transient, told) = (domain.mark, domain.transient, domain.told);
        if transient {
            self.domains.remove(&uuid);
        }
        if told {
            self.tell(uuid, mark, false);
        }
    }
}

impl FakeMachine {
    /// A machine without domains, whose chance comes from `seed`.
    pub fn new(seed: u64) -> FakeMachine {
        let inner = Inner {
            domains: BTreeMap::new(),
            foreign: BTreeMap::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            life: 0,
            observer: None,
            kept: BTreeSet::new(),
            on_erased: None,
            on_torn: None,
            on_stale: None,
            halved: BTreeSet::new(),
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

    /// Sets the observer of domains that come into memory or leave it.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Sets the observer of deleted state.
    pub fn observe_erased(&self, observer: OnErased) {
        self.lock().on_erased = Some(observer);
    }

    /// Sets the observer of guests that lose memory which is still here.
    pub fn observe_torn(&self, observer: OnTorn) {
        self.lock().on_torn = Some(observer);
    }

    /// Sets the observer of copies that execute although their guests have gone on.
    pub fn observe_stale(&self, observer: OnStale) {
        self.lock().on_stale = Some(observer);
    }

    /// Whether something is kept of a domain outside its definition.
    pub fn keeps(&self, uuid: Uuid) -> bool {
        self.lock().kept.contains(&uuid)
    }

    /// A daemon's connection.
    pub fn connect(&self) -> FakeHypervisor {
        FakeHypervisor {
            machine: self.clone(),
            lanes: Arc::default(),
            overtaking: true,
            pausing: true,
            daemon: watch::channel(true).0,
            connection: watch::channel(Connection::Up).0,
            deaf: Mutex::new(vec![(None, Some(Instant::now()))]),
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
}

/// A time in which a daemon hears nothing, from and until; `None`: always.
type Deafness = (Option<Instant>, Option<Instant>);

/// One daemon's connection to a [`FakeMachine`].
pub struct FakeHypervisor {
    machine: FakeMachine,
    /// Unfinished calls, as the real driver keeps them.
    lanes: Arc<Mutex<BTreeMap<(Uuid, Kind), &'static str>>>,
    /// See [`FakeHypervisor::without_overtaking`].
    overtaking: bool,
    /// See [`FakeHypervisor::without_pausing`].
    pausing: bool,
    /// False when the daemon has crashed.
    daemon: watch::Sender<bool>,
    connection: watch::Sender<Connection>,
    /// When it heard nothing of the machine, from and until.
    deaf: Mutex<Vec<Deafness>>,
}

/// What a call does to a domain. Each kind waits only for its own; see the real driver's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Change,
    Cut,
    Question,
}

/// One part of a call that is done whole or not at all.
type Phase = Box<dyn FnOnce(&mut Inner) -> std::result::Result<(), String> + Send>;

impl FakeHypervisor {
    /// Every call on a domain waits for every other, and hides the domain: a defect, to see that it would be found.
    #[must_use]
    pub fn without_overtaking(self) -> FakeHypervisor {
        FakeHypervisor { overtaking: false, ..self }
    }

    /// A guest that is sent executes at the target as soon as it is there: a defect, to see that it would be found.
    #[must_use]
    pub fn without_pausing(self) -> FakeHypervisor {
        FakeHypervisor { pausing: false, ..self }
    }

    fn kind(&self, kind: Kind) -> Kind {
        if self.overtaking { kind } else { Kind::Change }
    }

    /// Takes a domain's lane for a call.
    fn take(&self, lane: (Uuid, Kind), what: &'static str) -> Result<()> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        match lanes.get(&lane) {
            Some(earlier) => {
                let why = format!("an earlier call to {earlier} has not finished");
                Err(HypervisorError::Unknown { what: what.to_owned(), why })
            }
            None => {
                lanes.insert(lane, what);
                Ok(())
            }
        }
    }

    /// The daemon dies: the phase that is under way of each call is still done, no later one.
    pub fn crash(&self) {
        self.daemon.send_replace(false);
    }

    /// Loses the connection, or has it again.
    pub fn set_connected(&self, connected: bool) {
        let next = if connected { Connection::Up } else { Connection::Down("a fault".to_owned()) };
        if *self.connection.borrow() != next {
            self.connection.send_replace(next);
            let mut deaf = self.deaf.lock().unwrap_or_else(PoisonError::into_inner);
            match deaf.last_mut() {
                Some((_, until)) if connected => *until = Some(Instant::now()),
                _ => deaf.push((Some(Instant::now()), None)),
            }
            drop(deaf);
            // It fails when nobody listens.
            self.machine.events.send(Event::Everything).ok();
        }
    }

    /// Whether it has its connection.
    pub fn is_connected(&self) -> bool {
        *self.connection.borrow() == Connection::Up
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
        self.call((uuid, self.kind(Kind::Change)), what, phases, false).await
    }

    /// The same in any lane. `hung`: the call lasts until the domain's power is cut.
    async fn call(&self, lane: (Uuid, Kind), what: &'static str, phases: Vec<Phase>, hung: bool) -> Result<()> {
        if let Some(down) = self.down(what) {
            return Err(down);
        }
        self.take(lane, what)?;
        let uuid = lane.0;
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
            if hung {
                machine.until_cut(uuid).await;
                outcome = Err("the guest has ended".to_owned());
            }
            lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane);
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
        let lane = {
            let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.get(&(uuid, Kind::Cut)).or_else(|| lanes.get(&(uuid, Kind::Change))).copied()
        };
        let machine = self.machine.lock();
        let domain = machine.domains.get(&uuid);
        match (lane, domain) {
            (Some(migrate::WHAT), Some(d)) if d.sending.is_some() => Obs::Known(d.seen(uuid)),
            (Some(what), _) => Obs::Unknown(format!("a call to {what} has not finished")),
            (None, Some(d)) => {
                let seen = d.seen(uuid);
                let told = !d.ended.is_some_and(|at| self.was_deaf(at));
                Obs::Known(Domain { off: seen.off.map(|off| if told { off } else { untold(off) }), ..seen })
            }
            (None, None) if machine.foreign.contains_key(&uuid) => Obs::Unknown(foreign::IS_FOREIGN.to_owned()),
            (None, None) => Obs::Absent,
        }
    }

    /// Whether it heard nothing of what happened then.
    fn was_deaf(&self, at: Instant) -> bool {
        let deaf = self.deaf.lock().unwrap_or_else(PoisonError::into_inner);
        deaf.iter().any(|(from, until)| from.is_none_or(|from| from <= at) && until.is_none_or(|until| at < until))
    }
}

/// Why a domain is off, for whoever has not heard libvirt's event: it does not keep the rest.
fn untold(off: OffReason) -> OffReason {
    match off {
        OffReason::Shutdown | OffReason::Ended => OffReason::ShutdownOrEnded,
        other => other,
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn domains(&self) -> Result<Listing> {
        if let Some(down) = self.down("list domains") {
            return Err(down);
        }
        let all = self.machine.defined();
        let ours = all.into_iter().map(|uuid| (uuid, self.look(uuid))).collect();
        Ok(Listing { ours, foreign: self.machine.foreign() })
    }

    async fn inspect(&self, which: String) -> Result<Option<Candidate>> {
        match self.down("inspect a domain") {
            Some(down) => Err(down),
            None => Ok(self.machine.inspect(&which)),
        }
    }

    async fn import(&self, uuid: Uuid) -> Result<()> {
        self.change(uuid, "import", vec![foreign::import(uuid)]).await
    }

    async fn mark(&self, uuid: Uuid, from: Mark, to: Mark) -> Result<()> {
        let mark: Phase = Box::new(move |inner| match inner.domains.get_mut(&uuid) {
            Some(d) if d.mark == from || d.mark == to => {
                let (was, runs) = (d.mark, d.run != RunState::Off);
                (d.mark, d.transient) = (to, false);
                if runs && was != to {
                    inner.tell(uuid, to, true);
                }
                Ok(())
            }
            Some(_) => Err("it is another guest by now".to_owned()),
            None => Err("there is no such domain".to_owned()),
        });
        self.change(uuid, "mark", vec![mark]).await
    }

    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        match self.down("look at a domain") {
            Some(down) => Obs::Unknown(down.to_string()),
            None => self.look(uuid),
        }
    }

    async fn check(&self, xml: String) -> Result<()> {
        let what = "check a definition";
        if let Some(down) = self.down(what) {
            return Err(down);
        }
        let (pause, hangs) = {
            let mut inner = self.machine.lock();
            let Weather { latency_ms, hang_per_mille, .. } = inner.weather.clone();
            (inner.dice.millis(&latency_ms), inner.dice.per_mille(hang_per_mille))
        };
        if hangs {
            sleep(DEADLINE).await;
            let why = format!("no answer in {} s", DEADLINE.as_secs());
            return Err(HypervisorError::Unknown { what: what.to_owned(), why });
        }
        if pause > Duration::ZERO {
            sleep(pause).await;
        }
        // A machine type that no QEMU has.
        if xml.contains("machine='none-such'") {
            let why = "unsupported configuration: unsupported machine type".to_owned();
            return Err(HypervisorError::BadDefinition { what: what.to_owned(), why });
        }
        Ok(())
    }

    async fn create(&self, uuid: Uuid, xml: String) -> Result<()> {
        let Some(mark) = Mark::read(&xml) else {
            return Err(HypervisorError::Refused { what: "start".to_owned(), why: "the XML has no mark".to_owned() });
        };
        let broken = {
            let mut inner = self.machine.lock();
            let chance = inner.weather.broken_per_mille;
            inner.dice.per_mille(chance)
        };
        if broken {
            let why = "the connection broke".to_owned();
            return Err(HypervisorError::Unknown { what: "start".to_owned(), why });
        }
        let keeps = xml.contains("<tpm");
        let (started_with, disks) = (started_with(&xml), written(&xml));
        let define: Phase = Box::new(move |inner| {
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is already active".to_owned());
            }
            if inner.foreign.contains_key(&uuid) {
                return Err(foreign::IS_FOREIGN.to_owned());
            }
            inner.domains.insert(uuid, FakeDomain::off(uuid.to_string(), mark, started_with, disks));
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
            if keeps {
                inner.kept.insert(uuid);
            }
            inner.tell(uuid, mark, true);
            Ok(())
        });
        self.change(uuid, "start", vec![define, start]).await
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<()> {
        let hung = self.machine.hangs(uuid);
        self.call((uuid, self.kind(Kind::Question)), "shut down", vec![], hung).await?;
        self.machine.press(uuid);
        Ok(())
    }

    async fn pause(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let pause: Phase = Box::new(move |inner| {
            let domain = inner.guest(uuid, mark)?;
            match domain.paused.as_ref().map(|paused| paused.by) {
                Some(PausedBy::Asleep) => return Err("domain is pmsuspended".to_owned()),
                Some(_) => {}
                None => domain.set_paused(Some(PausedBy::Administrator.into())),
            }
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Question)), "pause", vec![pause], false).await
    }

    async fn resume(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let resume: Phase = Box::new(move |inner| {
            let chance = inner.weather.still_broken_per_mille;
            let broken = inner.dice.per_mille(chance);
            let domain = inner.guest(uuid, mark)?;
            if domain.run == RunState::Paused {
                let arrives = domain.transient && domain.transit == Some(Transit::Switching);
                if domain.sending.is_some() || arrives {
                    return Err("it is being migrated".to_owned());
                }
                if matches!(domain.transit, Some(Transit::Split | Transit::Broken)) {
                    return Err("part of its memory is elsewhere".to_owned());
                }
            }
            match domain.paused.as_ref().map(|paused| paused.by) {
                None => return Err("domain is already running".to_owned()),
                Some(PausedBy::Asleep) => return Err("domain is pmsuspended".to_owned()),
                Some(PausedBy::IoError) if broken => {}
                Some(_) => {
                    domain.set_paused(None);
                    domain.transit = None;
                    if !domain.told {
                        inner.tell(uuid, mark, true);
                    }
                }
            }
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Question)), "resume", vec![resume], false).await
    }

    async fn wake(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let wake: Phase = Box::new(move |inner| {
            let domain = inner.guest(uuid, mark)?;
            match domain.paused.as_ref().map(|paused| paused.by) {
                Some(PausedBy::Asleep) => domain.set_paused(None),
                _ => return Err("unable to wake up: guest is not in suspended state".to_owned()),
            }
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Question)), "wake", vec![wake], false).await
    }

    async fn destroy(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let destroy: Phase = Box::new(move |inner| {
            let chance = inner.weather.unkillable_per_mille;
            if inner.dice.per_mille(chance) {
                return Err("Failed to terminate process 1 with SIGKILL: Device or resource busy".to_owned());
            }
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off && d.mark != mark) {
                return Err("it is another guest by now".to_owned());
            }
            if inner.domains.get(&uuid).is_some_and(FakeDomain::is_half) {
                inner.halved.insert(uuid);
            }
            inner.switch_off(uuid, OffReason::Destroyed);
            Ok(())
        });
        self.call((uuid, self.kind(Kind::Cut)), "destroy", vec![destroy], false).await
    }

    async fn undefine(&self, uuid: Uuid, mark: Mark) -> Result<()> {
        let undefine: Phase = Box::new(move |inner| match inner.domains.get(&uuid) {
            Some(d) if d.run != RunState::Off => Err("domain is active".to_owned()),
            Some(d) if d.mark != mark => Err("it is another guest by now".to_owned()),
            _ => {
                inner.domains.remove(&uuid);
                Ok(())
            }
        });
        self.change(uuid, "undefine", vec![undefine]).await
    }

    async fn erase(&self, uuid: Uuid, _xml: String, _nvram: bool) -> Result<()> {
        let erase: Phase = Box::new(move |inner| {
            if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
                return Err("domain is active".to_owned());
            }
            inner.domains.remove(&uuid);
            if inner.kept.remove(&uuid)
                && let Some(observer) = &inner.on_erased
            {
                observer(uuid);
            }
            Ok(())
        });
        self.change(uuid, "erase", vec![erase]).await
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

    async fn post_copy(&self, uuid: Uuid) -> Result<()> {
        let mut machine = self.machine.lock();
        match machine.domains.get_mut(&uuid).and_then(|d| d.sending.as_mut()).map(Leaving::switch) {
            Some(true) => Ok(()),
            _ => Err(HypervisorError::Refused { what: "post-copy".to_owned(), why: "it has not begun".to_owned() }),
        }
    }

    async fn host(&self) -> Result<Host> {
        let domain_types = vec!["qemu".to_owned()];
        Ok(Host { version: "fake".to_owned(), cpus: 4, domain_types, guests: None })
    }

    fn given_up(&self, _: Uuid) -> Option<String> {
        None
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.machine.events.subscribe()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }
}

#[cfg(test)]
mod tests;
