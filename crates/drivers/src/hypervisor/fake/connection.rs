//! One daemon's connection to a fake machine: its lanes, calls that are done phase by phase, and what it did not hear.

use super::{DEADLINE, FakeMachine, Inner, Weather, foreign, migrate};
use crate::hypervisor::{Connection, Domain, Event, HypervisorError, Result};
use drover_model::{Obs, OffReason};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// A time in which a daemon received no events, from and until; `None`: always.
pub(super) type Offline = (Option<Instant>, Option<Instant>);

/// One daemon's connection to a [`FakeMachine`].
pub struct FakeHypervisor {
    pub(super) machine: FakeMachine,
    /// Unfinished calls, as the real driver keeps them.
    pub(super) lanes: Arc<Mutex<BTreeMap<(Uuid, Kind), &'static str>>>,
    /// See [`FakeHypervisor::without_overtaking`].
    pub(super) overtaking: bool,
    /// See [`FakeHypervisor::without_pausing`].
    pub(super) pausing: bool,
    /// False when the daemon has crashed.
    pub(super) daemon: watch::Sender<bool>,
    pub(super) connection: watch::Sender<Connection>,
    /// When it received no events of the machine, from and until.
    pub(super) offline: Mutex<Vec<Offline>>,
}

/// What a call does to a domain. Each kind waits only for its own; see the real driver's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Change,
    Cut,
    Question,
}

/// One part of a call that is done whole or not at all.
pub(super) type Phase = Box<dyn FnOnce(&mut Inner) -> std::result::Result<(), String> + Send>;

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

    pub(super) fn kind(&self, kind: Kind) -> Kind {
        if self.overtaking { kind } else { Kind::Change }
    }

    /// Takes a domain's lane for a call.
    pub(super) fn take(&self, lane: (Uuid, Kind), what: &'static str) -> Result<()> {
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
            let mut offline = self.offline.lock().unwrap_or_else(PoisonError::into_inner);
            match offline.last_mut() {
                Some((_, until)) if connected => *until = Some(Instant::now()),
                _ => offline.push((Some(Instant::now()), None)),
            }
            drop(offline);
            // It fails when nobody listens.
            self.machine.events.send(Event::Everything).ok();
        }
    }

    /// Whether it has its connection.
    pub fn is_connected(&self) -> bool {
        *self.connection.borrow() == Connection::Up
    }

    pub(super) fn down(&self, what: &str) -> Option<HypervisorError> {
        match &*self.connection.borrow() {
            Connection::Up => None,
            Connection::Down(why) => Some(HypervisorError::Disconnected { what: what.to_owned(), why: why.clone() }),
        }
    }

    /// Does a changing call, phase by phase, on a task of its own: the caller's patience ends earlier than the call
    /// may.
    pub(super) async fn change(&self, uuid: Uuid, what: &'static str, phases: Vec<Phase>) -> Result<()> {
        self.call((uuid, self.kind(Kind::Change)), what, phases, false).await
    }

    /// The same in any lane. `hung`: the call lasts until the domain's power is cut.
    pub(super) async fn call(
        &self,
        lane: (Uuid, Kind),
        what: &'static str,
        phases: Vec<Phase>,
        hung: bool,
    ) -> Result<()> {
        if let Some(down) = self.down(what) {
            return Err(down);
        }
        self.take(lane, what)?;
        let uuid = lane.0;
        let (answer, wait) = oneshot::channel();
        let (machine, lanes, daemon) = (self.machine.clone(), self.lanes.clone(), self.daemon.subscribe());
        *machine.lock().calls.entry(uuid).or_default() += 1;
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
            machine.call_has_ended(uuid);
            machine.send_event(uuid);
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

    pub(super) fn look(&self, uuid: Uuid) -> Obs<Domain> {
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
                let told = !d.ended.is_some_and(|at| self.was_offline(at));
                Obs::Known(Domain { off: seen.off.map(|off| if told { off } else { without_event(off) }), ..seen })
            }
            (None, None) if machine.foreign.contains_key(&uuid) => Obs::Unknown(foreign::IS_FOREIGN.to_owned()),
            (None, None) => Obs::Absent,
        }
    }

    /// Whether it received no events then.
    pub(super) fn was_offline(&self, at: Instant) -> bool {
        let offline = self.offline.lock().unwrap_or_else(PoisonError::into_inner);
        offline.iter().any(|(from, until)| from.is_none_or(|from| from <= at) && until.is_none_or(|until| at < until))
    }
}

/// Why a domain is off, for whoever has not heard libvirt's event: it does not keep the rest.
pub(super) fn without_event(off: OffReason) -> OffReason {
    match off {
        OffReason::Shutdown | OffReason::Ended => OffReason::ShutdownOrEnded,
        other => other,
    }
}
