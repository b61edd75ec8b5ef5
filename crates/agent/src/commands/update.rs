//! How a request changes records: read them, decide, compare-and-set, log it, wait until this node's view shows it. The
//! one place through which every request goes that changes something.

use super::{CommandError, Commands, Result};
use crate::events::{About, Entry, EventKind};
use drover_model::ClusterView;
use drover_store::{Op, StoreError};
use std::{future::Future, ops::Range, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Maximum number of attempts after conflicts. More means that something is badly wrong.
const TRIES: usize = 30;

/// Timeout for the view to show a change before it is answered.
const SHOW: Duration = Duration::from_secs(2);

/// Whether a view shows what was written.
pub(super) type Shows = Box<dyn Fn(&ClusterView) -> bool + Send + Sync>;

/// The decision on a request.
pub(super) enum Outcome<A> {
    /// Nothing to change.
    Unchanged(A),
    /// Change records.
    Write(Write<A>),
}

/// A change of records.
pub(super) struct Write<A> {
    /// The transaction.
    pub(super) ops: Vec<Op>,
    /// The answer on success.
    pub(super) answer: A,
    /// What was done, for the log.
    pub(super) log: String,
    /// Whether a view shows it.
    pub(super) shows: Shows,
    /// Operations whose refusal is final (a name is taken, a record has gone), and the answer then. After any other
    /// refusal the request is decided again.
    pub(super) taken: Vec<(Range<usize>, CommandError)>,
}

impl Commands {
    /// Executes a request. `attempt` reads and decides; it is called again after a conflict. `what` is being changed.
    pub(super) async fn update<A, F: Future<Output = Result<Outcome<A>>>>(
        &self,
        what: About,
        attempt: impl Fn() -> F,
    ) -> Result<A> {
        // This server of the store may be behind: what it does not know yet would be refused, or called unchanged.
        // (After a conflict it is not: it has applied what was written before.)
        self.ctx.store.sync().await?;
        for _ in 0..TRIES {
            let write = match attempt().await? {
                Outcome::Unchanged(answer) => return Ok(answer),
                Outcome::Write(write) => write,
            };
            match self.ctx.store.multi(write.ops).await {
                Ok(()) => {
                    tracing::info!("{what}: {}", write.log);
                    let said = format!("Ordered: {what}: {}.", write.log);
                    self.ctx.tell(Entry::new(what, EventKind::Request, said));
                    self.shown(|view| (write.shows)(view)).await;
                    return Ok(write.answer);
                }
                Err(error) => {
                    let at = match &error {
                        StoreError::Refused { index, .. } => Some(*index),
                        _ => None,
                    };
                    let is_final = |(ops, _): &(Range<usize>, CommandError)| at.is_some_and(|at| ops.contains(&at));
                    if let Some((_, answer)) = write.taken.into_iter().find(is_final) {
                        return Err(answer);
                    }
                    if !error.is_conflict() {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(CommandError::Conflict(format!("{what} is being changed by others all the time; try again")))
    }

    /// Waits until this node's view shows a change that was just written, so that the next request to this node sees
    /// it. With a timeout, because the change is written in any case.
    pub(super) async fn shown(&self, shows: impl Fn(&ClusterView) -> bool) {
        let mut views = self.ctx.views.subscribe();
        let shows = |view: &Arc<ClusterView>| shows(view);
        if timeout(SHOW, views.wait_for(shows)).await.is_err() {
            tracing::debug!("the view does not show a change yet");
        }
    }
}
