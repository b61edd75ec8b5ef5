//! What the back ends without a network share: a tree, and those who watch it.

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

    /// Wakes those who watch something of what was touched, except the sessions that cannot hear it.
    pub(crate) fn wake(&mut self, touched: &BTreeSet<RecordPath>, deaf: impl Fn(SessionId) -> bool) {
        self.watches.retain(|(session, root, waker)| {
            let seen: BTreeSet<RecordPath> = touched.iter().filter(|p| p.is_within(root)).cloned().collect();
            if seen.is_empty() || deaf(*session) { waker.is_heard() } else { waker.wake(Wakeup::Paths(seen)) }
        });
    }

    #[cfg(any(test, feature = "testing"))]
    /// Tells a session's watches that anything may have changed, and gives them to its next session.
    pub(crate) fn wake_all(&mut self, session: SessionId, next: SessionId) {
        for (owner, _, waker) in &mut self.watches {
            if *owner == session {
                *owner = next;
                waker.wake(Wakeup::Everything);
            }
        }
    }

    /// Ends a session's watches.
    pub(crate) fn drop_watches(&mut self, session: SessionId) {
        self.watches.retain(|(owner, _, _)| *owner != session);
    }
}

/// A single operation's error without the number of the step.
pub(crate) fn single<T>(result: std::result::Result<T, (usize, StoreError)>) -> Result<T> {
    result.map_err(|(_, error)| error)
}

/// An atomic change's error, with the number of the refused step.
pub(crate) fn several(result: std::result::Result<Applied, (usize, StoreError)>) -> Result<Applied> {
    result.map_err(|(index, cause)| match cause {
        cause @ StoreError::TooLarge { .. } => cause,
        cause => StoreError::Refused { index, cause: Box::new(cause) },
    })
}

/// What a call is called in messages.
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
