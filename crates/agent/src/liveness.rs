//! Detects when another node's daemon starts, stops or falls silent: the one place in a node where that is seen, logged
//! and published.

use crate::{
    context::Context,
    events::{About, Entry, EventKind},
    view::differs,
};
use drover_model::DaemonState;
use drover_plan::liveness::{self, Lives, Transition};
use std::sync::Arc;
use tokio::sync::watch;

/// Runs until dropped. Publishes the state of each node's daemon.
pub(crate) async fn run(ctx: Arc<Context>, published: watch::Sender<Lives>) {
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    let mut views = ctx.views.subscribe();
    loop {
        let view = views.borrow_and_update().clone();
        let before = published.borrow().clone();
        let (lives, transitions) = liveness::observe(&before, &view, ctx.clock.now(), ctx.wall());
        transitions.iter().for_each(log);
        // Only one node tells it, or it would be told by all.
        if view.primary_node() == Some(ctx.me()) {
            transitions.iter().filter_map(told).for_each(|told| ctx.tell(told));
        }
        published.send_if_modified(|now| {
            let changed = *now != lives;
            *now = lives;
            changed
        });
        if differs(&mut views, &view, |old, new| !old.nodes.ptr_eq(&new.nodes)).await.is_err() {
            return;
        }
    }
}

/// A transition, as an event, if it is news.
fn told(transition: &Transition) -> Option<Entry> {
    let Transition { node, from, to, seen_by } = transition;
    let (from, about) = ((*from)?, About::Node(node.clone()));
    Some(
        match to {
            Some(DaemonState::Dead) => Entry::new(about, EventKind::NodeSilent, format!("Node {node} is silent.")),
            Some(to) => {
                Entry::new(about, EventKind::NodeDaemon, format!("The daemon of node {node} is in state {to} now."))
            }
            None => Entry::new(about, EventKind::NodeRemoved, format!("Node {node} was removed.")),
        }
        .with("from", from)
        .with("seen-by", seen_by),
    )
}

fn log(transition: &Transition) {
    let Transition { node, from, to, seen_by } = transition;
    let word = |state: &Option<DaemonState>| state.map_or("unknown", DaemonState::word);
    match to {
        // Without a previous state it is no news: it was so before this daemon started, or the node is just joining.
        Some(DaemonState::Dead) if from.is_some() => {
            tracing::warn!(%node, from = word(from), %seen_by, "a node is dead")
        }
        Some(to) => tracing::info!(%node, from = word(from), %to, %seen_by, "a node's daemon changed its state"),
        None => tracing::info!(%node, from = word(from), "a node was removed"),
    }
}
