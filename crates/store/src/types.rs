//! Types of the [`Store`](crate::Store) trait: records, operations, watches, sessions.

use drover_model::{RecordPath, Version};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// A record with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// A JSON document.
    pub data: Vec<u8>,
    /// The expected version for the write that replaces it.
    pub version: Version,
    /// The store's global change counter at the last change of the data (ZooKeeper: `mzxid`). Orders reads of one
    /// record, even if it was deleted and created again in between.
    pub revision: i64,
    /// The store's counter when a record directly below it was last made or deleted, or when it was made itself, if
    /// there never was one (ZooKeeper: `pzxid`). As long as it is the same, so are the names below it.
    pub below: i64,
}

/// Lifetime and naming of a new record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// Exists until it is deleted.
    Persistent,
    /// Exists until it is deleted or the session that created it ends. Cannot have children.
    Ephemeral,
    /// Persistent, with an increasing number appended to its name.
    PersistentSequential,
    /// Ephemeral, with an increasing number appended to its name.
    EphemeralSequential,
}

/// One operation of [`crate::Store::multi`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fails unless the record has this version.
    Check(RecordPath, Version),
    /// Creates a record (not sequential).
    Create(RecordPath, Vec<u8>, CreateMode),
    /// Replaces the data if the record has this version.
    Set(RecordPath, Vec<u8>, Version),
    /// Deletes the record; with a version, only if it has that one.
    Delete(RecordPath, Option<Version>),
}

impl Op {
    /// The record that the operation applies to.
    pub fn path(&self) -> &RecordPath {
        match self {
            Op::Check(p, _) | Op::Create(p, _, _) | Op::Set(p, _, _) | Op::Delete(p, _) => p,
        }
    }
}

/// A notification of a [`Watch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// These records may have been created, changed or deleted. Several changes may be merged into one notification.
    Paths(BTreeSet<RecordPath>),
    /// Anything may have changed: the first notification of every watch, after a reconnect, or instead of a long list.
    Everything,
}

impl Wakeup {
    /// Merges a later notification into this one.
    pub fn merge(&mut self, later: Wakeup) {
        match (&mut *self, later) {
            (Wakeup::Paths(have), Wakeup::Paths(more)) => have.extend(more),
            (_, Wakeup::Everything) => *self = Wakeup::Everything,
            (Wakeup::Everything, _) => {}
        }
    }
}

/// A subscription to changes. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    notify: watch::Receiver<()>,
    pending: Arc<Mutex<Option<Wakeup>>>,
}

/// The sending half of a [`Watch`], held by a back end.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    notify: watch::Sender<()>,
    pending: Arc<Mutex<Option<Wakeup>>>,
}

impl Watch {
    /// A new watch, whose first notification will be [`Wakeup::Everything`], and its sending half.
    pub(crate) fn new() -> (Waker, Watch) {
        let pending = Arc::new(Mutex::new(Some(Wakeup::Everything)));
        let (sender, receiver) = watch::channel(());
        (Waker { notify: sender, pending: pending.clone() }, Watch { notify: receiver, pending })
    }

    /// Waits for the next notification: all that arrived since the last call, merged into one. `None` when the store
    /// handle is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Wakeup> {
        loop {
            // Marked as seen before `pending` is read, so that what is added in between notifies again.
            self.notify.borrow_and_update();
            if let Some(wakeup) = lock(&self.pending).take() {
                return Some(wakeup);
            }
            self.notify.changed().await.ok()?;
        }
    }
}

impl Waker {
    /// Notifies the watch; returns whether it still exists.
    pub(crate) fn wake(&self, wakeup: Wakeup) -> bool {
        match &mut *lock(&self.pending) {
            Some(pending) => pending.merge(wakeup),
            none => *none = Some(wakeup),
        }
        self.notify.send_replace(());
        self.is_watched()
    }

    /// Whether the watch still exists.
    pub(crate) fn is_watched(&self) -> bool {
        self.notify.receiver_count() > 0
    }
}

/// Locks a mutex and ignores poisoning: what these mutexes guard is valid even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// State of a session as known on the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Number of this handle's session, from 1; incremented by every new session after an expiry. Ephemeral records of
    /// earlier sessions are deleted, or about to be.
    pub generation: u64,
    /// Whether it is connected.
    pub state: SessionState,
}

/// Whether a session is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// The store answers calls.
    Connected,
    /// The store cannot be reached. The session, and its ephemeral records, may have expired or not.
    Disconnected,
    /// Closed by this side, for good.
    Closed,
}
