//! Makes this node ready when it is back after its VMs were given to others, if its policy says so (`plan::returning`).

use crate::{commands::Commands, context::Context, operation::scope};
use drover_model::ClusterView;
use drover_plan::returning::{self, Next};
use std::sync::Arc;
use uuid::Uuid;

/// One pass. Returns whether it has to wait for something.
pub(crate) async fn pass(ctx: &Arc<Context>, view: &ClusterView) -> bool {
    let Some(record) = view.nodes.get(ctx.me()).map(|node| &node.record.value) else { return false };
    // Decided on the view first: a node may wait for days, in maintenance, and nobody is asked anything meanwhile.
    let next = |listed: &[Uuid]| returning::next(view, record, listed.iter().copied(), ctx.wall());
    match next(&[]) {
        Next::Nothing => return false,
        Next::Waits => return true,
        Next::Stays | Next::Ready => {}
    }
    let listed: Vec<Uuid> = match ctx.hypervisor.domains().await {
        Ok(domains) => domains.ours.into_iter().map(|(uuid, _)| uuid).collect(),
        Err(error) => {
            tracing::debug!(%error, "cannot list the domains to see whether this node can become ready");
            return true;
        }
    };
    if next(&listed) == Next::Waits {
        return true;
    }
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
