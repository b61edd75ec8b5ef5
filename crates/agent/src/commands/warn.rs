//! What an order means for the standing recovery plan, for the answer to whoever gave it.

use super::Commands;
use crate::standing::losses_of;
use drover_model::NodeName;
use drover_plan::standing;
use std::time::Duration;
use uuid::Uuid;

/// Maximum delay of an answer. What takes longer to plan, in a large cluster, is not said: the fault comes soon after.
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
        let end = self.ctx.clock.now().after(PATIENCE);
        // Its own node first: that one has more to lose now.
        let own = view.vms.get(&uuid).and_then(|vm| vm.holder().or(vm.record.value.node.as_ref()));
        let mut nodes: Vec<&NodeName> = view.nodes.keys().collect();
        nodes.sort_by_key(|node| Some(*node) != own);
        let losses = losses_of(&view, nodes, None, || self.ctx.clock.now() < end).await;
        standing::warnings(&view, &losses)
    }
}
