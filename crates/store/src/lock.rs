//! Exclusive locks on any back end, by ZooKeeper's lock recipe.
//!
//! Each waiter creates an ephemeral sequential record below the lock's record; the lowest number holds the lock. A
//! waiter watches only its predecessor, so that a release wakes one waiter (no thundering herd). The record of a
//! creation whose answer was lost is found again by the random part of its name. So is the record of a waiter that gave
//! up, until the store has said definitely that it is not there: left behind, it would block the lock for as long as
//! the session lives.
//!
//! A lock is advisory: a holder that is cut off from the store may believe that it still has it. [`Guard::lost`]
//! completes when that may be the case. What must never happen twice is guarded by compare-and-set instead.

use crate::{CreateMode, Result, SessionState, Store, StoreError};
use drover_model::RecordPath;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

/// Delay before a call without an answer is retried.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Name prefix of waiters' records, as in ZooKeeper's recipe, where shared locks have another one.
const PREFIX: &str = "write";

/// A held lock. Dropping it releases the lock in the background; [`Guard::release`] waits for that.
pub struct Guard {
    store: Arc<dyn Store>,
    mine: Option<RecordPath>,
    generation: u64,
    runtime: Option<tokio::runtime::Handle>,
}

/// Acquires the lock at `path`, an existing record. `owner` is stored with the lock, for people. Fails with
/// [`StoreError::Unknown`] if it is not acquired by the deadline; the waiter's record is then deleted, at the latest
/// when the session ends.
pub async fn acquire(store: &Arc<dyn Store>, path: &RecordPath, owner: &str, deadline: Instant) -> Result<Guard> {
    let guid = Uuid::new_v4().simple().to_string();
    // It exists before the record does: if dropped, it deletes a record that may have been created.
    let mut pending = Pending { store: store.clone(), path: path.clone(), guid, armed: true };
    let timed_out = || StoreError::Unknown {
        what: format!("acquire the lock {path}"),
        why: "it was not free by the deadline".to_owned(),
    };
    let acquire = async {
        // Which session it is in is known only once there is one.
        let mut session = store.session();
        let connected = session.wait_for(|session| session.state != SessionState::Disconnected).await;
        let generation = connected.map(|session| session.generation).map_err(|_| StoreError::Closed)?;
        let mine = pending.enqueue(owner).await?;
        wait_for_turn(&**store, path, &mine).await?;
        Ok((mine, generation))
    };
    match timeout_at(deadline, acquire).await {
        Ok(Ok((mine, generation))) => {
            pending.armed = false;
            let runtime = tokio::runtime::Handle::try_current().ok();
            Ok(Guard { store: store.clone(), mine: Some(mine), generation, runtime })
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(timed_out()),
    }
}

/// A waiter that does not hold the lock yet.
struct Pending {
    store: Arc<dyn Store>,
    path: RecordPath,
    guid: String,
    armed: bool,
}

impl Pending {
    /// Creates the waiter's record, exactly once even if answers are lost.
    async fn enqueue(&self, owner: &str) -> Result<RecordPath> {
        let name = format!("{PREFIX}-{}-", self.guid);
        let path = self.path.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?;
        loop {
            match self.store.create(&path, owner.as_bytes().to_vec(), CreateMode::EphemeralSequential).await {
                Err(StoreError::Unknown { .. }) => sleep(RETRY_DELAY).await,
                other => return other,
            }
            if let Ok(Some(created)) = find(&*self.store, &self.path, &self.guid).await {
                return Ok(created);
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
                while let Err(StoreError::Unknown { .. }) = give_up(&*store, &path, &guid).await {
                    sleep(RETRY_DELAY).await;
                }
            });
        }
    }
}

/// Deletes the record of an attempt that was given up, if there is one.
async fn give_up(store: &dyn Store, path: &RecordPath, guid: &str) -> Result<()> {
    // Its creation may have had no answer, and this server of the store may not show it yet.
    store.sync().await?;
    match find(store, path, guid).await? {
        Some(created) => store.delete(&created, None).await,
        None => Ok(()),
    }
}

async fn find(store: &dyn Store, path: &RecordPath, guid: &str) -> Result<Option<RecordPath>> {
    let names = store.children(path).await?;
    Ok(names.iter().find(|name| name.contains(guid)).and_then(|name| path.join(name).ok()))
}

/// The sequence number in a waiter's name: its place in the queue.
fn number(name: &str) -> Option<u64> {
    name.get(name.len().checked_sub(10)?..)?.parse().ok()
}

/// Waits until `mine` is first in the queue.
async fn wait_for_turn(store: &dyn Store, path: &RecordPath, mine: &RecordPath) -> Result<()> {
    let my_number = number(mine.name());
    loop {
        let names = match store.children(path).await {
            Ok(names) => names,
            Err(StoreError::Unknown { .. }) => {
                sleep(RETRY_DELAY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !names.iter().any(|name| name == mine.name()) {
            return Err(StoreError::NotFound(mine.clone()));
        }
        let before = names.iter().filter(|name| number(name) < my_number);
        let Some(last) = before.max_by_key(|name| number(name)) else { return Ok(()) };
        let predecessor = path.join(last).map_err(|e| StoreError::Broken(e.to_string()))?;
        let mut watch = store.watch(&predecessor).await?;
        // The first notification comes at once, so a deletion between the listing and the watch is not missed.
        while watch.next().await.is_some() {
            match store.get(&predecessor).await {
                Ok(None) => break,
                Ok(Some(_)) | Err(StoreError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Guard {
    /// Completes when the lock may be lost: its session has expired, is closed, or is disconnected.
    pub async fn lost(&self) {
        let mut session: watch::Receiver<_> = self.store.session();
        let lost = |s: &crate::Session| s.generation != self.generation || s.state != SessionState::Connected;
        // An error means that the store handle is gone, and the lock with it.
        session.wait_for(lost).await.ok();
    }

    /// Whether the session has the lock for sure: it is connected, and the one in which the lock was acquired.
    pub fn is_held(&self) -> bool {
        let session = *self.store.session().borrow();
        session.generation == self.generation && session.state == SessionState::Connected
    }

    /// Releases the lock, and waits until it is released.
    pub async fn release(mut self) -> Result<()> {
        if let Some(mine) = &self.mine {
            // If this is dropped before it is done, the guard's own drop does it.
            release(&*self.store, mine).await?;
            self.mine = None;
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(mine), Some(runtime)) = (self.mine.take(), self.runtime.take()) else { return };
        let store = self.store.clone();
        runtime.spawn(async move {
            if let Err(error) = release(&*store, &mine).await {
                tracing::debug!(%error, lock = %mine, "cannot release a lock; it is released when the session ends");
            }
        });
    }
}

async fn release(store: &dyn Store, mine: &RecordPath) -> Result<()> {
    loop {
        match store.delete(mine, None).await {
            Ok(()) | Err(StoreError::NotFound(_)) => return Ok(()),
            Err(StoreError::Unknown { .. }) => sleep(RETRY_DELAY).await,
            Err(error) => return Err(error),
        }
    }
}
