//! What an order means for the standing recovery plan, for the answer to whoever gave it.

use super::Commands;
use crate::standing::losses;
use drover_plan::standing;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// Maximum delay of an answer. In a cluster that takes longer to plan there is no warning: the fault comes soon after.
const PATIENCE: Duration = Duration::from_millis(500);

impl Commands {
    /// Sentences about nodes whose loss the others could not absorb, if this VM runs (and is no fault yet without it).
    /// The view must show the order.
    pub async fn warnings(&self, uuid: Uuid) -> Vec<String> {
        let view = self.ctx.views.latest();
        if !standing::is_tolerant(&view) || view.config.is_in_maintenance(self.ctx.wall()) {
            return Vec::new();
        }
        let view = standing::if_started(&view, &uuid);
        match timeout(PATIENCE, losses(&view, None)).await {
            Ok(losses) => standing::warnings(&view, &losses),
            Err(_) => Vec::new(),
        }
    }
}
