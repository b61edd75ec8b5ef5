//! This process' own clock: monotonic, and virtual in the simulation (it is tokio's).

use drover_model::Mono;
use std::time::Duration;
use tokio::time::Instant;

/// Counts milliseconds from its making.
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

    /// Completes at that moment; never, if there is none.
    pub(crate) async fn until(&self, moment: Option<Mono>) {
        match moment {
            Some(moment) => tokio::time::sleep_until(self.start + Duration::from_millis(moment.0)).await,
            None => std::future::pending().await,
        }
    }
}
