//! Keeps the faults of the standing recovery plan (`plan::standing`), while this node is the primary: losses of a node,
//! or of several at once, that the others could not absorb.

use crate::{context::Context, faults, view::differs};
use drover_model::{ClusterView, Demand, NodeName};
use drover_plan::standing::{self, Losses};
use std::{sync::Arc, time::Duration};

/// Minimum interval between two plans. They are for people, and cost as much as all recoveries together.
const INTERVAL: Duration = Duration::from_secs(10);
/// A plan takes at most one part in so many of the time.
const SHARE: u32 = 200;

/// Runs until dropped.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut views = ctx.views.subscribe();
    loop {
        ctx.membership().await;
        let view = views.borrow_and_update().clone();
        let begun = ctx.clock.now();
        let done = view.primary_node() != Some(ctx.me()) || pass(&ctx, &view).await;
        let now = ctx.clock.now();
        ctx.clock.until(Some(now.after(INTERVAL.max(now.since(begun) * SHARE)))).await;
        if done && differs(&mut views, &view, of_interest).await.is_err() {
            return;
        }
    }
}

fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    !old.nodes.ptr_eq(&new.nodes)
        || !old.vms.ptr_eq(&new.vms)
        || old.primary != new.primary
        || old.config != new.config
        || !old.faults().ptr_eq(new.faults())
}

/// Reports what the cluster must tolerate and could not. Returns whether it was written.
async fn pass(ctx: &Context, view: &ClusterView) -> bool {
    let current = ctx.views.freshness().borrow().is_current();
    if !current || view.config.is_in_maintenance(ctx.wall()) {
        return current;
    }
    let losses = if standing::is_tolerant(view) { losses(view, None).await } else { Losses::default() };
    let reported = standing::reported(view).cloned().collect();
    match faults::keep_all(ctx, standing::faults(view, &losses), reported).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "cannot report or withdraw the faults of the standing recovery plan");
            false
        }
    }
}

/// What the losses would mean that are to be planned. Others go on between two of them.
pub(crate) async fn losses(view: &ClusterView, size: Option<Demand>) -> Losses {
    losses_of(view, view.nodes.keys(), size, || true).await
}

/// The same with the nodes in this order, as far as it comes while `more` says so.
pub(crate) async fn losses_of<'a>(
    view: &ClusterView,
    nodes: impl IntoIterator<Item = &'a NodeName>,
    size: Option<Demand>,
    more: impl Fn() -> bool,
) -> Losses {
    let mut losses = Losses::default();
    for node in nodes.into_iter().take_while(|_| more()) {
        losses.each.push((node.clone(), standing::loss(view, std::slice::from_ref(node), size)));
        tokio::task::yield_now().await;
    }
    let sets = standing::sets(view, &losses.each);
    for nodes in sets.sets.iter().take_while(|_| more()) {
        losses.add(&sets, nodes, standing::loss(view, nodes, size));
        tokio::task::yield_now().await;
    }
    losses
}
