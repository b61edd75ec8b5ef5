//! Guests that are sent from one fake machine to another, as libvirt's peer-to-peer migration does it: the machines do
//! it by themselves once it has begun, whatever becomes of the daemon that asked. A guest is paused at the target when
//! it is there. A failure leaves it where it was, and at the target nothing, its definition, or its paused copy. By
//! post-copy it executes at the target while part of its memory is still at the source.

use super::{FakeDomain, FakeHypervisor, FakeMachine, Inner, connection::Kind};
use crate::hypervisor::{HypervisorError, Result, Sending};
use drover_model::{
    Bytes, Epoch, OffReason, PausedBy, Progress, RunState, Transit,
    domain::{Mark, Written},
};
use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// Name of the lane of a migration.
pub(super) const WHAT: &str = "send a guest to another node";
/// Number of parts in which a guest is sent; after each, it is checked whether it can still be sent.
const PARTS: u32 = 8;
/// Timeout for a machine that has fallen silent.
const KEEPALIVE: Duration = Duration::from_secs(6);
/// Latency of a message between two machines.
const ANSWER: Duration = Duration::from_millis(300);
/// Time until somebody has repaired a broken migration by post-copy.
const REPAIR: Duration = Duration::from_secs(20);

/// A guest that is being sent.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    since: Instant,
    parts: u32,
    pub(super) aborted: bool,
    /// It may be switched to post-copy.
    by_post_copy: bool,
    switched: bool,
}

impl Leaving {
    pub(super) fn progress(&self) -> Progress {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let part = |n: u32| Bytes::mib(16 * u64::from(n));
        let (total, sent) = (part(PARTS), part(self.parts));
        Progress { total, sent, left: total.saturating_sub(sent), rate: part(1), elapsed_ms }
    }

    /// Switches to post-copy, if that is possible.
    pub(super) fn switch(&mut self) -> bool {
        self.switched = self.by_post_copy && !self.aborted;
        self.switched
    }
}

/// Why a guest does not arrive.
type Why = String;

/// One end of a migration: a machine in one of its lives.
struct End {
    machine: FakeMachine,
    life: u64,
}

/// A migration under way.
struct Passage {
    uuid: Uuid,
    source: End,
    target: End,
    /// At the target.
    mark: Mark,
    time: Duration,
    /// See [`FakeHypervisor::without_pausing`].
    pausing: bool,
}

/// Sends a guest: on a task of its own, for the machines go on if the daemon dies.
pub(super) async fn send(from: &FakeHypervisor, uuid: Uuid, how: Sending) -> Result<()> {
    let refused = |why: String| HypervisorError::Refused { what: WHAT.to_owned(), why };
    if let Some(down) = from.down(WHAT) {
        return Err(down);
    }
    let lane = (uuid, Kind::Change);
    from.take(lane, WHAT)?;
    let (answer, wait) = oneshot::channel();
    let (source, lanes, target) = (from.machine.clone(), from.lanes.clone(), from.machine.network.find(&how.uri));
    let pausing = from.pausing;
    tokio::spawn(async move {
        let outcome = match &target {
            Some(target) => transfer((&source, target), uuid, &how, pausing).await,
            None => Err(format!("there is no machine at {}", how.uri)),
        };
        lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane);
        source.send_event(uuid);
        if let Some(target) = target {
            target.send_event(uuid);
        }
        // It fails when the caller gave up.
        answer.send(outcome).ok();
    });
    match wait.await {
        Ok(outcome) => outcome.map_err(refused),
        Err(_) => Err(HypervisorError::Unknown { what: WHAT.to_owned(), why: "the call was lost".to_owned() }),
    }
}

async fn transfer(
    (source, target): (&FakeMachine, &FakeMachine),
    uuid: Uuid,
    how: &Sending,
    pausing: bool,
) -> std::result::Result<(), Why> {
    let (here, name, time, astray) = {
        let mut inner = source.lock();
        let (time, chance) = (inner.weather.transfer_ms.clone(), inner.weather.astray_per_mille);
        let (time, astray) = (inner.dice.millis(&time), inner.dice.per_mille(chance));
        let life = inner.life;
        let domain = inner.domains.get_mut(&uuid).filter(|d| d.run == RunState::Running && !d.hung);
        let domain = domain.filter(|d| d.transit.is_none()).ok_or("the domain does not run, or hangs")?;
        if domain.sending.is_some() {
            return Err("it is being sent already".to_owned());
        }
        let since = Instant::now();
        domain.sending =
            Some(Leaving { since, parts: 0, aborted: false, by_post_copy: how.post_copy, switched: false });
        (life, domain.name.clone(), time, astray)
    };
    let there = match prepare(&mut target.lock(), uuid, name, how.mark) {
        Ok(life) => life,
        Err(why) => {
            End { machine: source.clone(), life: here }.goes_on(uuid);
            return Err(why);
        }
    };
    target.send_event(uuid);
    let source = End { machine: source.clone(), life: here };
    let target = End { machine: target.clone(), life: there };
    let passage = Passage { uuid, source, target, mark: how.mark, time, pausing };
    match passage.send_memory(astray, how.post_copy).await {
        Ok(()) if how.post_copy => passage.follow().await,
        Ok(()) => passage.finish().await,
        Err(why) => {
            if !passage.source.lives() || !passage.target.lives() {
                sleep(KEEPALIVE).await;
            }
            passage.target.forget(uuid, how.mark);
            passage.source.goes_on(uuid);
            Err(why)
        }
    }
}

impl FakeMachine {
    /// Whether a changing call on a domain is under way, also one of a daemon that is gone. Somebody's own migration
    /// waits for it: both need the domain's job (`qemuProcessBeginJob`, `virDomainObjBeginAsyncJob`; libvirt 9.0.0).
    pub fn is_called(&self, uuid: Uuid) -> bool {
        self.lock().calls.contains_key(&uuid)
    }

    pub(super) fn call_has_ended(&self, uuid: Uuid) {
        let mut inner = self.lock();
        let left = inner.calls.remove(&uuid).unwrap_or_default().saturating_sub(1);
        if left > 0 {
            inner.calls.insert(uuid, left);
        }
    }

    /// Somebody migrates a guest by hand (`virsh migrate`, which leaves the definition here, and makes none there).
    pub fn guest_is_taken(&self, to: &FakeMachine, uuid: Uuid) {
        let (name, mark, disks) = {
            let mut inner = self.lock();
            let Some(left) = inner.domains.get(&uuid).cloned() else { return };
            inner.switch_off(uuid, OffReason::Migrated);
            (left.name, left.mark, (left.started_with, left.disks))
        };
        let mut there = to.lock();
        if prepare(&mut there, uuid, name, mark).is_ok()
            && let Some(domain) = there.domains.get_mut(&uuid)
        {
            domain.transient = true;
            (domain.started_with, domain.disks) = disks;
            domain.set_paused(None);
            there.notify(uuid, mark, true);
        }
        drop(there);
        self.send_event(uuid);
        to.send_event(uuid);
    }

    /// Somebody's own migration of a guest fails in its last step: the guest goes on here, and a paused copy of it,
    /// with the same mark, stays there. Returns whether there is one.
    pub fn copy_is_left(&self, at: &FakeMachine, uuid: Uuid) -> bool {
        let source = self.lock().domains.get(&uuid).filter(|d| d.run == RunState::Running).cloned();
        let Some(FakeDomain { name, mark, started_with, disks, .. }) = source else { return false };
        let made = {
            let mut there = at.lock();
            let made = prepare(&mut there, uuid, name, mark).is_ok();
            if let Some(copy) = there.domains.get_mut(&uuid).filter(|_| made) {
                (copy.started_with, copy.disks, copy.transit) = (started_with, disks, None);
                copy.outdated.store(true, Ordering::Relaxed);
            }
            made
        };
        at.send_event(uuid);
        made
    }

    /// Somebody ends the copies that [`FakeMachine::copy_is_left`] has left here.
    pub fn copies_are_ended(&self) {
        let copies: Vec<Uuid> = {
            let inner = self.lock();
            let is_copy = |domain: &FakeDomain| domain.run == RunState::Paused && !domain.observed;
            let copies = inner.domains.iter().filter(|(_, domain)| is_copy(domain));
            copies.filter(|(_, copy)| copy.outdated.load(Ordering::Relaxed)).map(|(uuid, _)| *uuid).collect()
        };
        copies.into_iter().for_each(|uuid| self.guest_goes_down(uuid, OffReason::Destroyed));
    }
}

/// Makes a paused domain at the target; gives its life.
fn prepare(inner: &mut Inner, uuid: Uuid, name: String, mark: Mark) -> std::result::Result<u64, Why> {
    if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
        return Err("the domain is active at the target".to_owned());
    }
    let arriving = FakeDomain {
        name,
        mark,
        run: RunState::Paused,
        off: None,
        ended: None,
        paused: Some(PausedBy::Administrator.into()),
        hung: false,
        sending: None,
        transient: true,
        transit: Some(Transit::Switching),
        observed: false,
        outdated: Arc::default(),
        copy: None,
        started_with: Written::new(),
        disks: Written::new(),
    };
    inner.domains.insert(uuid, arriving);
    Ok(inner.life)
}

impl Passage {
    /// Sends the guest's memory, while it executes: all of it, or until it is switched to post-copy.
    async fn send_memory(&self, astray: bool, by_post_copy: bool) -> std::result::Result<(), Why> {
        for part in 1.. {
            sleep(self.time / PARTS + Duration::from_millis(u64::from(by_post_copy))).await;
            let last = part >= PARTS;
            match self
                .source
                .domain(self.uuid, |d| {
                    d.sending.as_mut().map(|leaving| {
                        leaving.parts = part.min(PARTS);
                        (leaving.aborted, leaving.switched)
                    })
                })
                .flatten()
            {
                None => return Err("the guest ended".to_owned()),
                Some((true, _)) => return Err("it was stopped".to_owned()),
                Some(_) if astray && last => return Err("the connection broke".to_owned()),
                Some(_) if !self.target.lives() => return Err("the target does not answer".to_owned()),
                Some((_, true)) => return Ok(()),
                Some(_) if last && !by_post_copy => return Ok(()),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The last steps of a migration without post-copy: the source pauses the guest, the target says that it has it,
    /// the source's is ended.
    async fn finish(&self) -> std::result::Result<(), Why> {
        self.pause(Transit::Switching)?;
        sleep(ANSWER / 10).await;
        let botched = self.target.chance(|weather| weather.botched_per_mille);
        let disks = self.disks();
        let outdated = Arc::new(AtomicBool::new(false));
        self.source.domain(self.uuid, |domain| domain.copy = Some(outdated.clone()));
        let arrived = self.target.arriving(self.uuid, self.mark, |domain| {
            (domain.started_with, domain.disks) = disks;
            domain.outdated = outdated;
            domain.transient = false;
            domain.transit = None;
            if botched {
                (domain.run, domain.off, domain.paused) = (RunState::Off, Some(OffReason::Failed), None);
            }
        });
        if arrived && !botched && !self.pausing {
            self.target.executes(self.uuid);
        }
        self.target.machine.send_event(self.uuid);
        sleep(ANSWER).await;
        if !arrived || botched {
            self.source.goes_on(self.uuid);
            return Err("the guest cannot go on at the target".to_owned());
        }
        if self.source.chance(|weather| weather.unanswered_per_mille) {
            self.source.goes_on(self.uuid);
            return Err("the target has not answered".to_owned());
        }
        if self.source.chance(|weather| weather.stuck_per_mille) {
            self.source.domain(self.uuid, |domain| domain.sending = None);
            return Err("libvirtd was restarted".to_owned());
        }
        self.leave()
    }

    /// The disks that go along: those that it was started with, and those that it has.
    fn disks(&self) -> (Written, Written) {
        self.source.domain(self.uuid, |d| (d.started_with.clone(), d.disks.clone())).unwrap_or_default()
    }

    /// The guest stops at the source. If it has ended before, there is nothing to be sent.
    fn pause(&self, transit: Transit) -> std::result::Result<(), Why> {
        if self.source.pause(self.uuid, transit) {
            return Ok(());
        }
        self.target.forget(self.uuid, self.mark);
        Err("the guest ended".to_owned())
    }

    /// Post-copy: the guest executes at the target while its memory follows.
    async fn follow(&self) -> std::result::Result<(), Why> {
        self.pause(Transit::Split)?;
        self.source.machine.lock().halved.remove(&self.uuid);
        let disks = self.disks();
        let arrived = self.target.arriving(self.uuid, self.mark, |domain| {
            (domain.started_with, domain.disks) = disks;
            (domain.transient, domain.transit) = (false, Some(Transit::Split));
        });
        if !arrived {
            // There is no way back.
            return Err(self.broken());
        }
        self.target.executes(self.uuid);
        self.target.machine.send_event(self.uuid);
        let torn = self.source.chance(|weather| weather.torn_per_mille);
        for part in 1..=PARTS {
            sleep(self.time / PARTS).await;
            if !self.is_whole() {
                return Err(self.broken());
            }
            if torn && part == PARTS / 2 {
                let why = self.broken();
                let (uuid, mark) = (self.uuid, self.mark);
                let end = |end: &End| End { machine: end.machine.clone(), life: end.life };
                let (source, target) = (end(&self.source), end(&self.target));
                let rest = Passage { uuid, mark, source, target, time: self.time, pausing: self.pausing };
                tokio::spawn(async move { rest.repair().await });
                return Err(why);
            }
        }
        self.target.domain(self.uuid, |domain| domain.transit = None);
        self.leave()
    }

    /// Somebody lets a broken migration by post-copy go on.
    async fn repair(&self) {
        sleep(REPAIR).await;
        if self.is_whole() {
            self.target.domain(self.uuid, |domain| domain.transit = None);
            // It fails when there is nothing left of it.
            self.leave().ok();
        } else {
            self.broken();
        }
        self.source.machine.send_event(self.uuid);
        self.target.machine.send_event(self.uuid);
    }

    /// Whether both halves of the guest are there.
    fn is_whole(&self) -> bool {
        let here = self.source.domain(self.uuid, |d| d.is_half());
        let there = self.target.domain(self.uuid, |d| d.run != RunState::Off && d.mark == self.mark);
        here == Some(true) && there == Some(true)
    }

    /// The two halves of the guest cannot reach each other; one without the other is no guest.
    fn broken(&self) -> Why {
        let half = |d: &mut FakeDomain| {
            d.sending = None;
            let is = d.is_half();
            if is {
                d.transit = Some(Transit::Broken);
            }
            is
        };
        let here = self.source.domain(self.uuid, half) == Some(true);
        let there = self.target.domain(self.uuid, |d| {
            let is = d.run != RunState::Off && d.mark == self.mark;
            if is {
                d.transit = Some(Transit::Broken);
            }
            is
        });
        if !here && there == Some(true) {
            let mut inner = self.source.machine.lock();
            let mark = Mark { epoch: Epoch(self.mark.epoch.0.saturating_sub(1)), ..self.mark };
            if inner.life == self.source.life
                && inner.halved.remove(&self.uuid)
                && let Some(observer) = &inner.on_torn
            {
                observer(self.uuid, mark);
            }
            drop(inner);
            self.target.machine.lock().switch_off(self.uuid, OffReason::Crashed);
        }
        if here && there != Some(true) {
            // The guest is lost with its other half: somebody sees to what is left.
            let (end, uuid) = (End { machine: self.source.machine.clone(), life: self.source.life }, self.uuid);
            tokio::spawn(async move {
                sleep(REPAIR).await;
                if end.domain(uuid, |d| d.transit == Some(Transit::Broken)) == Some(true) {
                    end.machine.lock().switch_off(uuid, OffReason::Destroyed);
                    end.machine.send_event(uuid);
                }
            });
        }
        self.source.machine.send_event(self.uuid);
        self.target.machine.send_event(self.uuid);
        "the guest's memory is on two machines, which do not reach each other".to_owned()
    }

    /// The guest is at the target for good: its domain here is ended.
    fn leave(&self) -> std::result::Result<(), Why> {
        let keeps = {
            let mut inner = self.source.machine.lock();
            if inner.life != self.source.life {
                return Err("the machine was off".to_owned());
            }
            inner.domains.remove(&self.uuid);
            inner.kept.remove(&self.uuid)
        };
        if keeps {
            self.target.machine.lock().kept.insert(self.uuid);
        }
        Ok(())
    }
}

impl End {
    /// Whether the machine has not been off since.
    fn lives(&self) -> bool {
        self.machine.lock().life == self.life
    }

    fn chance(&self, of: impl FnOnce(&super::Weather) -> u64) -> bool {
        let mut inner = self.machine.lock();
        let chance = of(&inner.weather);
        inner.dice.per_mille(chance)
    }

    /// Does something to a domain, if it is there.
    fn domain<T>(&self, uuid: Uuid, act: impl FnOnce(&mut FakeDomain) -> T) -> Option<T> {
        let mut inner = self.machine.lock();
        if inner.life != self.life {
            return None;
        }
        inner.domains.get_mut(&uuid).map(act)
    }

    /// The same to the paused copy of a guest; whether it is there.
    fn arriving(&self, uuid: Uuid, mark: Mark, act: impl FnOnce(&mut FakeDomain)) -> bool {
        let waits = |d: &FakeDomain| d.run == RunState::Paused && d.mark == mark && d.transient;
        self.domain(uuid, |domain| waits(domain).then(|| act(domain))).flatten().is_some()
    }

    fn pause(&self, uuid: Uuid, transit: Transit) -> bool {
        let mut inner = self.machine.lock();
        let runs = |d: &&mut FakeDomain| d.run == RunState::Running;
        if inner.life == self.life
            && let Some(domain) = inner.domains.get_mut(&uuid).filter(runs)
        {
            domain.set_paused(Some(PausedBy::Migrating.into()));
            domain.transit = Some(transit);
            let mark = domain.mark;
            inner.notify(uuid, mark, false);
            return true;
        }
        false
    }

    fn executes(&self, uuid: Uuid) {
        let mut inner = self.machine.lock();
        if let Some(domain) = inner.domains.get_mut(&uuid) {
            domain.set_paused(None);
            let mark = domain.mark;
            inner.notify(uuid, mark, true);
        }
    }

    /// The guest goes on where it was.
    fn goes_on(&self, uuid: Uuid) {
        let paused = self.domain(uuid, |domain| {
            domain.sending = None;
            domain.run == RunState::Paused && domain.transit.take() == Some(Transit::Switching)
        });
        if paused == Some(true) {
            self.executes(uuid);
        }
    }

    /// The target forgets what did not arrive.
    fn forget(&self, uuid: Uuid, mark: Mark) {
        if self.arriving(uuid, mark, |_| ()) {
            self.machine.lock().domains.remove(&uuid);
        }
    }
}
