//! The words of the store's trait: versions, records, operations, wake-ups, sessions.

use drover_model::RecordPath;
use std::collections::BTreeSet;
use tokio::sync::watch;

/// How often a record's data was replaced since the record was created; 0 for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub i64);

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
    /// What has piled up since the last call of [`Watch::next`].
    pending: watch::Receiver<Option<Wakeup>>,
    taken: std::sync::Arc<std::sync::Mutex<Option<Wakeup>>>,
}

/// The sending half of a [`Watch`], held by a back end.
#[derive(Debug, Clone)]
pub(crate) struct Waker {
    bell: watch::Sender<Option<Wakeup>>,
    pile: std::sync::Arc<std::sync::Mutex<Option<Wakeup>>>,
}

impl Watch {
    /// A new watch, which will wake with [`Wakeup::Everything`] first, and its sending half.
    pub(crate) fn new() -> (Waker, Watch) {
        let pile = std::sync::Arc::new(std::sync::Mutex::new(Some(Wakeup::Everything)));
        let (bell, pending) = watch::channel(None);
        bell.send_replace(Some(Wakeup::Everything));
        let mut pending = pending;
        pending.mark_changed();
        (
            Waker {
                bell,
                pile: pile.clone(),
            },
            Watch {
                pending,
                taken: pile,
            },
        )
    }

    /// Waits for the next wake-up: everything that came since the last call, folded into one. `None` when the store handle is closed.
    /// Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<Wakeup> {
        loop {
            {
                let mut pile = self.taken.lock().unwrap_or_else(|e| e.into_inner());
                if let Some(wakeup) = pile.take() {
                    return Some(wakeup);
                }
            }
            self.pending.changed().await.ok()?;
        }
    }
}

impl Waker {
    /// Wakes the watch; returns whether anybody still listens.
    pub(crate) fn wake(&self, wakeup: Wakeup) -> bool {
        {
            let mut pile = self.pile.lock().unwrap_or_else(|e| e.into_inner());
            match &mut *pile {
                Some(have) => have.merge(wakeup),
                none => *none = Some(wakeup),
            }
        }
        self.bell.send_replace(None);
        self.bell.receiver_count() > 0
    }
}

/// What this side knows of its session with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Rises with every new session of this handle; 1 is the first. Ephemeral records of earlier sessions are gone or going.
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
