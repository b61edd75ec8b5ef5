//! Exclusive locks: ZooKeeper's recipe, over any back end.
//!
//! Below the lock's record each waiter makes an ephemeral, sequential record; the lowest number has the lock. A waiter
//! watches only the one record that it waits for, so a release wakes one waiter and not the herd. An unfinished
//! creation whose answer got lost is found again by the random part of its name.
//!
//! A lock is advice, not proof: who was cut off from the store may think that it holds one. [`Guard::lost`] says when
//! that may be, and what must never happen twice is decided by compare-and-set.

use crate::{CreateMode, Result, SessionState, Store, StoreError};
use drover_model::RecordPath;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

/// How soon an unanswered call is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What the names of waiters' records begin with: ZooKeeper's recipe has another word for those who share a lock, which
/// nobody does.
const PREFIX: &str = "write";

/// A held lock. Dropping it gives it back in the background; [`Guard::release`] waits for that.
pub struct Guard {
    store: Arc<dyn Store>,
    mine: Option<RecordPath>,
    generation: u64,
    runtime: Option<tokio::runtime::Handle>,
}

/// Takes the lock at `path` (a record that exists), saying who takes it. Fails with [`StoreError::Unknown`] when it is
/// not had by the deadline; then nothing is left behind but what the session's end takes away.
pub async fn acquire(store: &Arc<dyn Store>, path: &RecordPath, owner: &str, deadline: Instant) -> Result<Guard> {
    let guid = Uuid::new_v4().simple().to_string();
    let generation = store.session().borrow().generation;
    // The guard exists before the record does: dropped in the middle, it looks for what may have been made.
    let mut pending = Pending { store: store.clone(), path: path.clone(), guid, armed: true };
    let late = || StoreError::Unknown {
        what: format!("take the lock {path}"),
        why: "it was not free by the deadline".to_owned(),
    };
    let work = async {
        let mine = pending.enter(owner).await?;
        wait_for_turn(&**store, path, &mine).await?;
        Ok(mine)
    };
    match timeout_at(deadline, work).await {
        Ok(Ok(mine)) => {
            pending.armed = false;
            let runtime = tokio::runtime::Handle::try_current().ok();
            Ok(Guard { store: store.clone(), mine: Some(mine), generation, runtime })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(late()),
    }
}

/// A waiter that has no guard yet.
struct Pending {
    store: Arc<dyn Store>,
    path: RecordPath,
    guid: String,
    armed: bool,
}

impl Pending {
    /// Makes the waiter's record, once, however often the answer gets lost.
    async fn enter(&self, owner: &str) -> Result<RecordPath> {
        let name = format!("{PREFIX}-{}-", self.guid);
        let path = self.path.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?;
        loop {
            match self.store.create(&path, owner.as_bytes().to_vec(), CreateMode::EphemeralSequential).await {
                Err(StoreError::Unknown { .. }) => sleep(RETRY).await,
                other => return other,
            }
            if let Ok(Some(made)) = find(&*self.store, &self.path, &self.guid).await {
                return Ok(made);
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (store, path, guid) = (self.store.clone(), self.path.clone(), self.guid.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(Some(made)) = find(&*store, &path, &guid).await {
                    // It goes with the session otherwise.
                    store.delete(&made, None).await.ok();
                }
            });
        }
    }
}

async fn find(store: &dyn Store, path: &RecordPath, guid: &str) -> Result<Option<RecordPath>> {
    let names = store.children(path).await?;
    Ok(names.iter().find(|name| name.contains(guid)).and_then(|name| path.join(name).ok()))
}

/// The number that the store appended: the order of the queue.
fn number(name: &str) -> Option<u64> {
    name.get(name.len().checked_sub(10)?..)?.parse().ok()
}

/// Waits until nobody is before `mine` who keeps it from its turn.
async fn wait_for_turn(store: &dyn Store, path: &RecordPath, mine: &RecordPath) -> Result<()> {
    let my_number = number(mine.name());
    loop {
        let names = match store.children(path).await {
            Ok(names) => names,
            Err(StoreError::Unknown { .. }) => {
                sleep(RETRY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !names.iter().any(|name| name == mine.name()) {
            return Err(StoreError::NotFound(mine.clone()));
        }
        let before = names.iter().filter(|name| number(name) < my_number);
        let Some(last) = before.max_by_key(|name| number(name)) else { return Ok(()) };
        let blocker = path.join(last).map_err(|e| StoreError::Broken(e.to_string()))?;
        let mut watch = store.watch(&blocker).await?;
        // The first wake-up comes at once: whoever left between the listing and the watch is noticed.
        while watch.next().await.is_some() {
            match store.get(&blocker).await {
                Ok(None) => break,
                Ok(Some(_)) | Err(StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Guard {
    /// Completes when the lock may be lost: the session that holds it has ended or is cut off.
    pub async fn lost(&self) {
        let mut session: watch::Receiver<_> = self.store.session();
        let lost = |s: &crate::Session| s.generation != self.generation || s.state != SessionState::Connected;
        // It fails when the session is closed, which is lost too.
        session.wait_for(lost).await.ok();
    }

    /// Gives the lock back, and returns when it is.
    pub async fn release(mut self) -> Result<()> {
        let Some(mine) = self.mine.take() else { return Ok(()) };
        give_back(&*self.store, &mine).await
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(mine), Some(runtime)) = (self.mine.take(), self.runtime.take()) else { return };
        let store = self.store.clone();
        runtime.spawn(async move {
            if let Err(error) = give_back(&*store, &mine).await {
                tracing::debug!(%error, lock = %mine, "a lock goes with its session");
            }
        });
    }
}

async fn give_back(store: &dyn Store, mine: &RecordPath) -> Result<()> {
    loop {
        match store.delete(mine, None).await {
            Ok(()) | Err(StoreError::NotFound(_)) => return Ok(()),
            Err(StoreError::Unknown { .. }) => sleep(RETRY).await,
            Err(error) => return Err(error),
        }
    }
}
