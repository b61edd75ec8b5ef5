//! Guests that are sent from one fake machine to another, as libvirt's peer-to-peer migration does it: the machines do
//! it by themselves once it has begun, whatever becomes of the daemon that asked; the guest executes at one end only; a
//! failure leaves it where it was and nothing at the target.

use super::{FakeDomain, FakeHypervisor, FakeMachine, Inner};
use crate::hypervisor::{HypervisorError, Result, Sending};
use drover_model::{Bytes, Progress, RunState, domain::Mark};
use std::{sync::PoisonError, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use uuid::Uuid;

/// The name of the lane.
pub(super) const WHAT: &str = "send a guest to another node";
/// In so many parts a guest is sent; after each it is looked whether it still can be.
const PARTS: u32 = 8;
/// How long a machine waits for one that has fallen silent.
const KEEPALIVE: Duration = Duration::from_secs(6);

/// A guest that is being sent.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    since: Instant,
    parts: u32,
    pub(super) aborted: bool,
}

impl Leaving {
    pub(super) fn progress(&self) -> Progress {
        let elapsed_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let part = |n: u32| Bytes::mib(16 * u64::from(n));
        let (total, sent) = (part(PARTS), part(self.parts));
        Progress { total, sent, left: total.saturating_sub(sent), rate: part(1), elapsed_ms }
    }
}

/// Sends a guest: on a task of its own, for the machines go on if the daemon dies.
pub(super) async fn send(from: &FakeHypervisor, uuid: Uuid, how: Sending) -> Result<()> {
    let refused = |why: String| HypervisorError::Refused { what: WHAT.to_owned(), why };
    if let Some(down) = from.down(WHAT) {
        return Err(down);
    }
    {
        let mut lanes = from.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = lanes.get(&uuid) {
            let why = format!("an earlier call to {earlier} has not finished");
            return Err(HypervisorError::Unknown { what: WHAT.to_owned(), why });
        }
        lanes.insert(uuid, WHAT);
    }
    let (answer, wait) = oneshot::channel();
    let (source, lanes, target) = (from.machine.clone(), from.lanes.clone(), from.machine.network.find(&how.uri));
    tokio::spawn(async move {
        let outcome = match &target {
            Some(target) => transfer(&source, target, uuid, how.mark).await,
            None => Err(format!("there is no machine at {}", how.uri)),
        };
        lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
        source.ring(uuid);
        if let Some(target) = target {
            target.ring(uuid);
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
    source: &FakeMachine,
    target: &FakeMachine,
    uuid: Uuid,
    mark: Mark,
) -> std::result::Result<(), String> {
    let (here, name, time, astray) = {
        let mut inner = source.lock();
        let (time, chance) = (inner.weather.transfer_ms.clone(), inner.weather.astray_per_mille);
        let (time, astray) = (inner.dice.millis(&time), inner.dice.per_mille(chance));
        let life = inner.life;
        let domain = inner.domains.get_mut(&uuid).filter(|d| d.run == RunState::Running);
        let domain = domain.ok_or("the domain does not run")?;
        if domain.sending.is_some() {
            return Err("it is being sent already".to_owned());
        }
        domain.sending = Some(Leaving { since: Instant::now(), parts: 0, aborted: false });
        (life, domain.name.clone(), time, astray)
    };
    let there = match prepare(&mut target.lock(), uuid, name, mark) {
        Ok(life) => life,
        Err(why) => {
            stays(source, here, uuid);
            return Err(why);
        }
    };
    target.ring(uuid);
    for part in 1..=PARTS {
        sleep(time / PARTS).await;
        let trouble = {
            let mut inner = source.lock();
            let alive = inner.life == here;
            match inner.domains.get_mut(&uuid).and_then(|d| d.sending.as_mut()).filter(|_| alive) {
                None => Some("the guest ended"),
                Some(leaving) if leaving.aborted => Some("it was stopped"),
                Some(leaving) => {
                    leaving.parts = part;
                    (astray && part == PARTS).then_some("the connection broke")
                }
            }
        };
        if let Some(why) = trouble {
            if source.lock().life != here {
                sleep(KEEPALIVE).await;
            }
            forget(target, there, uuid, mark);
            stays(source, here, uuid);
            return Err(why.to_owned());
        }
        if target.lock().life != there {
            sleep(KEEPALIVE).await;
            stays(source, here, uuid);
            return Err("the target does not answer".to_owned());
        }
    }
    // From here to its end nothing else happens: the guest stops here and executes there.
    arrive(source, target, uuid, mark)
}

/// Makes a paused domain at the target; gives its life.
fn prepare(inner: &mut Inner, uuid: Uuid, name: String, mark: Mark) -> std::result::Result<u64, String> {
    if inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Off) {
        return Err("the domain is active at the target".to_owned());
    }
    inner.domains.insert(uuid, FakeDomain { name, mark, run: RunState::Paused, off: None, sending: None });
    Ok(inner.life)
}

/// The guest goes on where it was.
fn stays(source: &FakeMachine, life: u64, uuid: Uuid) {
    let mut inner = source.lock();
    if inner.life == life
        && let Some(domain) = inner.domains.get_mut(&uuid)
    {
        domain.sending = None;
    }
}

/// The target forgets what did not arrive.
fn forget(target: &FakeMachine, life: u64, uuid: Uuid, mark: Mark) {
    let mut inner = target.lock();
    let waits = inner.domains.get(&uuid).is_some_and(|d| d.run == RunState::Paused && d.mark == mark);
    if inner.life == life && waits {
        inner.domains.remove(&uuid);
    }
}

fn arrive(source: &FakeMachine, target: &FakeMachine, uuid: Uuid, mark: Mark) -> std::result::Result<(), String> {
    if !target.lock().domains.get(&uuid).is_some_and(|d| d.run == RunState::Paused && d.mark == mark) {
        let life = source.lock().life;
        stays(source, life, uuid);
        return Err("the target has lost it".to_owned());
    }
    {
        let mut inner = source.lock();
        let left = inner.domains.remove(&uuid);
        if let Some(left) = left {
            inner.tell(uuid, left.mark, false);
        }
    }
    let mut inner = target.lock();
    if let Some(domain) = inner.domains.get_mut(&uuid) {
        domain.run = RunState::Running;
    }
    inner.tell(uuid, mark, true);
    Ok(())
}
