//! This process's monotonic clock. It is tokio's, so it is virtual in the simulation.

use drover_model::Mono;
use std::time::Duration;
use tokio::time::Instant;

/// Counts milliseconds since it was created.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Mono {
        Mono::default().after(self.start.elapsed())
    }

    /// Sleeps until then; for ever if `None`.
    pub(crate) async fn until(&self, moment: Option<Mono>) {
        match moment {
            Some(moment) => tokio::time::sleep_until(self.start + Duration::from_millis(moment.0)).await,
            None => std::future::pending().await,
        }
    }
}
