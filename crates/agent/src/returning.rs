//! Makes this node ready when it is back after its VMs were given to others, if its policy says so (`plan::returning`).

use crate::{commands::Commands, context::Context, operation::scope};
use drover_model::ClusterView;
use std::sync::Arc;

/// One pass. Returns whether it has to wait for something.
pub(crate) async fn pass(ctx: &Arc<Context>, view: &ClusterView) -> bool {
    if !view.nodes.get(ctx.me()).is_some_and(|node| node.record.value.then_ready) {
        return false;
    }
    let listed = match ctx.hypervisor.domains().await {
        Ok(domains) => domains.ours.into_iter().map(|(uuid, _)| uuid).collect(),
        Err(error) => {
            tracing::debug!(%error, "cannot list the domains to see whether this node can become ready");
            return true;
        }
    };
    // What began with the suspicion ends with it.
    let fence = view.fences().get(ctx.me()).and_then(|fence| fence.value.operation.clone());
    let operation = fence.unwrap_or_else(|| ctx.own_operation());
    match scope(Some(operation), Commands::new(ctx.clone()).return_to_service(listed)).await {
        Ok(waits) => waits,
        Err(error) => {
            tracing::debug!(%error, "this node cannot become ready by itself yet");
            true
        }
    }
}
