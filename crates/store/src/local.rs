//! Common part of the embedded and the in-memory back end: a tree with its watches.

use crate::{
    Op, Result, StoreError, Wakeup,
    tree::{Applied, SessionId, Tree},
    types::Waker,
};
use drover_model::RecordPath;
use std::collections::BTreeSet;

/// A tree with its watches.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) tree: Tree,
    watches: Vec<(SessionId, RecordPath, Waker)>,
    next_session: SessionId,
}

impl Local {
    pub(crate) fn new(tree: Tree) -> Local {
        Local { tree, watches: Vec::new(), next_session: 1 }
    }

    pub(crate) fn new_session(&mut self) -> SessionId {
        self.next_session += 1;
        self.next_session - 1
    }

    pub(crate) fn add_watch(&mut self, session: SessionId, path: &RecordPath, waker: Waker) {
        self.watches.push((session, path.clone(), waker));
    }

    /// Notifies the watches of changed records, except those of disconnected sessions. Removes dropped watches.
    pub(crate) fn wake(&mut self, changed: &BTreeSet<RecordPath>, is_disconnected: impl Fn(SessionId) -> bool) {
        self.watches.retain(|(session, root, waker)| {
            let watched: BTreeSet<RecordPath> = changed.iter().filter(|p| p.is_within(root)).cloned().collect();
            if watched.is_empty() || is_disconnected(*session) {
                waker.is_watched()
            } else {
                waker.wake(Wakeup::Paths(watched))
            }
        });
    }

    /// Notifies all watches of a session that anything may have changed, and moves them to its next session.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn wake_all(&mut self, session: SessionId, next: SessionId) {
        for (owner, _, waker) in &mut self.watches {
            if *owner == session {
                *owner = next;
                waker.wake(Wakeup::Everything);
            }
        }
    }

    /// Ends the watches of a session.
    pub(crate) fn drop_watches(&mut self, session: SessionId) {
        self.watches.retain(|(owner, _, _)| *owner != session);
    }
}

/// The error of a single operation, without its index.
pub(crate) fn single<T>(result: std::result::Result<T, (usize, StoreError)>) -> Result<T> {
    result.map_err(|(_, error)| error)
}

/// The error of a transaction, with the index of the refused operation.
pub(crate) fn several(result: std::result::Result<Applied, (usize, StoreError)>) -> Result<Applied> {
    result.map_err(|(index, cause)| match cause {
        cause @ StoreError::TooLarge { .. } => cause,
        cause => StoreError::Refused { index, cause: Box::new(cause) },
    })
}

/// Description of a call for error messages.
pub(crate) fn describe(ops: &[Op]) -> String {
    match ops {
        [] => "change nothing".to_owned(),
        [Op::Check(p, _)] => format!("check {p}"),
        [Op::Create(p, ..)] => format!("create {p}"),
        [Op::Set(p, ..)] => format!("set {p}"),
        [Op::Delete(p, _)] => format!("delete {p}"),
        [first, ..] => format!("change {} and {} more", first.path(), ops.len() - 1),
    }
}
