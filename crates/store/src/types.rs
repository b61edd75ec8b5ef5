//! The words of the store's trait: versions, records, operations, wake-ups, sessions.

use drover_model::{RecordPath, Version};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is stored: one JSON document.
    pub data: Vec<u8>,
    /// To be named by the write that replaces it.
    pub version: Version,
    /// The store's global counter at the last change of the data (ZooKeeper: `mzxid`): orders reads of one record,
    /// also across a deletion and a new creation.
    pub revision: i64,
}

/// How long a new record lives, and how it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// Until deleted.
    Persistent,
    /// Until deleted or until the session that made it ends. Has no children.
    Ephemeral,
    /// Persistent, with a rising number appended to its name.
    PersistentSequential,
    /// Ephemeral, with a rising number appended to its name.
    EphemeralSequential,
}

/// One step of [`crate::Store::multi`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The record must have this version.
    Check(RecordPath, Version),
    /// Create a record (not sequential).
    Create(RecordPath, Vec<u8>, CreateMode),
    /// Replace data of this version.
    Set(RecordPath, Vec<u8>, Version),
    /// Delete; with a version, only that one.
    Delete(RecordPath, Option<Version>),
}

impl Op {
    /// The record that this step is about.
    pub fn path(&self) -> &RecordPath {
        match self {
            Op::Check(p, _) | Op::Create(p, _, _) | Op::Set(p, _, _) | Op::Delete(p, _) => p,
        }
    }
}

/// Why a [`Watch`] woke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// These records may have been created, changed or deleted. Several changes may be folded into one wake-up.
    Paths(BTreeSet<RecordPath>),
    /// Anything may have changed (the first wake-up of every watch; a reconnect; too many changes to list).
    Everything,
}

impl Wakeup {
    /// Folds a later wake-up into this one.
    pub fn merge(&mut self, later: Wakeup) {
        match (&mut *self, later) {
            (Wakeup::Paths(have), Wakeup::Paths(more)) => have.extend(more),
            (_, Wakeup::Everything) => *self = Wakeup::Everything,
            (Wakeup::Everything, _) => {}
        }
    }
}

/// A stream of wake-ups. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    bell: watch::Receiver<()>,
    pile: Arc<Mutex<Option<Wakeup>>>,
}

/// The sending half of a [`Watch`], held by a back end.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    bell: watch::Sender<()>,
    pile: Arc<Mutex<Option<Wakeup>>>,
}

impl Watch {
    /// A new watch, which will wake with [`Wakeup::Everything`] first, and its sending half.
    pub(crate) fn new() -> (Waker, Watch) {
        let pile = Arc::new(Mutex::new(Some(Wakeup::Everything)));
        let (sender, bell) = watch::channel(());
        (Waker { bell: sender, pile: pile.clone() }, Watch { bell, pile })
    }

    /// Waits for the next wake-up: everything that came since the last call, folded into one. `None` when the store
    /// handle is closed. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<Wakeup> {
        loop {
            // Marked as seen before the pile is looked at, so that what is piled up in between rings again.
            self.bell.borrow_and_update();
            if let Some(wakeup) = lock(&self.pile).take() {
                return Some(wakeup);
            }
            self.bell.changed().await.ok()?;
        }
    }
}

impl Waker {
    /// Wakes the watch; returns whether anybody still listens.
    pub(crate) fn wake(&self, wakeup: Wakeup) -> bool {
        match &mut *lock(&self.pile) {
            Some(have) => have.merge(wakeup),
            none => *none = Some(wakeup),
        }
        self.bell.send_replace(());
        self.is_heard()
    }

    /// Whether anybody still listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.bell.receiver_count() > 0
    }
}

/// Locks a mutex whose content stays right even if a holder panicked: it is only ever replaced whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this side knows of its session with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Rises with every new session of this handle; 1 is the first. Ephemeral records of earlier sessions are gone or
    /// going.
    pub generation: u64,
    /// Whether it can be used now.
    pub state: SessionState,
}

/// Whether a session can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Calls are answered.
    Connected,
    /// No answer just now. The session, and its ephemeral records, may be alive or not.
    Disconnected,
    /// Closed by us for good.
    Closed,
}
