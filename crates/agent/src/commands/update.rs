//! The one way in which a request changes records: read them, decide, compare-and-set, wait until this node's view
//! shows it, log it.

use super::{CommandError, Commands, Result};
use drover_model::ClusterView;
use drover_store::{Op, StoreError};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How often a request is decided anew because somebody else was quicker. More means that something is badly wrong.
const TRIES: usize = 10;

/// How long an answer waits for the view to show what it tells.
const SHOW: Duration = Duration::from_secs(2);

/// Whether a view shows what was written.
pub(super) type Shows = Box<dyn Fn(&ClusterView) -> bool + Send + Sync>;

/// What a request comes to.
pub(super) enum Outcome<A> {
    /// It is so already.
    Unchanged(A),
    /// Records are to be changed.
    Write(Write<A>),
}

/// A change of records.
pub(super) struct Write<A> {
    /// All of them or none.
    pub(super) ops: Vec<Op>,
    /// The answer when it is done.
    pub(super) answer: A,
    /// What was done, for the log.
    pub(super) said: String,
    /// When the view shows it.
    pub(super) shows: Shows,
    /// Whose step it is that somebody else has what is asked for, and what is answered then: it is not decided again.
    pub(super) taken: Option<(usize, CommandError)>,
}

impl Commands {
    /// Carries a request out. `attempt` reads and decides, and is called again when somebody else was quicker; `what`
    /// is being changed.
    pub(super) async fn update<A, F: Future<Output = Result<Outcome<A>>>>(
        &self,
        what: &str,
        attempt: impl Fn() -> F,
    ) -> Result<A> {
        for _ in 0..TRIES {
            let write = match attempt().await? {
                Outcome::Unchanged(answer) => return Ok(answer),
                Outcome::Write(write) => write,
            };
            match self.ctx.store.multi(write.ops).await {
                Ok(()) => {
                    tracing::info!("{what}: {}", write.said);
                    self.shown(|view| (write.shows)(view)).await;
                    return Ok(write.answer);
                }
                Err(StoreError::Refused { index, .. }) if write.taken.as_ref().is_some_and(|(at, _)| *at == index) => {
                    return Err(write.taken.map_or(CommandError::Conflict(String::new()), |(_, error)| error));
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommandError::Conflict(format!("{what} is being changed by others all the time; try again")))
    }

    /// Waits until this node's view shows what was just written, so that whoever asks this node next sees it. Not for
    /// long: it is written in any case.
    pub(super) async fn shown(&self, shows: impl Fn(&ClusterView) -> bool) {
        let mut views = self.ctx.views.subscribe();
        let shows = |view: &Arc<ClusterView>| shows(view);
        if timeout(SHOW, views.wait_for(shows)).await.is_err() {
            tracing::debug!("the view does not show a change yet");
        }
    }
}
