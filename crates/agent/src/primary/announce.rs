//! Schedule of announcements: a burst at once, then at growing intervals for those who missed it.

use super::{at, service::Services};
use drover_model::{Phase, vm::Epoch};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::time::Instant;

/// Times of the announcements in milliseconds. The burst is for lost frames, the later ones for switches that learn
/// anew after a change of the cabling.
const SCHEDULE_MS: &[u64] = &[0, 20, 60, 150, 400, 1_000, 3_000, 10_000, 30_000];

/// The grant and phase that an announcement is made under.
type Cause = (Epoch, Option<Phase>);

/// Repeats announcements as long as they are wanted.
#[derive(Default)]
pub(super) struct Announcer {
    cause: Option<Cause>,
    since: Option<Instant>,
    done: usize,
    round: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Announcer {
    /// Announces for this cause, or stops. A new cause restarts the schedule.
    pub(super) fn want(&mut self, cause: Option<Cause>) {
        if cause != self.cause {
            (self.cause, self.since, self.done, self.round) = (cause, cause.map(|_| Instant::now()), 0, None);
        }
    }

    /// Restarts the schedule: something started that did not run before.
    pub(super) fn restart(&mut self) {
        (self.since, self.done) = (self.cause.map(|_| Instant::now()), 0);
    }

    fn due(&self) -> Option<Instant> {
        Some(self.since? + Duration::from_millis(*SCHEDULE_MS.get(self.done)?))
    }

    /// Completes after the next announcement.
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
