//! When addresses are announced: a burst at once, then again at growing distances, for those who were not listening.

use super::{at, service::Services};
use drover_model::{Phase, vm::Epoch};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::time::Instant;

/// After so many milliseconds each. The burst is for frames that get lost, the later ones for switches that learn anew
/// after a change of the cabling.
const SCHEDULE_MS: &[u64] = &[0, 20, 60, 150, 400, 1_000, 3_000, 10_000, 30_000];

/// Under which grant, and in which phase, an announcement is made.
type Cause = (Epoch, Option<Phase>);

/// Announces as long as it is wanted.
#[derive(Default)]
pub(super) struct Announcer {
    cause: Option<Cause>,
    since: Option<Instant>,
    done: usize,
    round: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Announcer {
    /// For this cause, or no more. Another cause begins anew.
    pub(super) fn want(&mut self, cause: Option<Cause>) {
        if cause != self.cause {
            (self.cause, self.since, self.done, self.round) = (cause, cause.map(|_| Instant::now()), 0, None);
        }
    }

    /// Begins anew: something came up that was not there before.
    pub(super) fn again(&mut self) {
        (self.since, self.done) = (self.cause.map(|_| Instant::now()), 0);
    }

    fn due(&self) -> Option<Instant> {
        Some(self.since? + Duration::from_millis(*SCHEDULE_MS.get(self.done)?))
    }

    /// Completes when the next announcement was made.
    pub(super) async fn next(&mut self, services: &Services) {
        if self.round.is_none() {
            at(self.due()).await;
            self.round = Some(Box::pin(services.clone().announce()));
        }
        if let Some(round) = &mut self.round {
            round.await;
        }
        self.round = None;
        self.done += 1;
    }
}
