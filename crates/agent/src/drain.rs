//! Drains this node, or brings its VMs home, as its record asks; and admits VMs that are to be moved here
//! ([`arrivals`]).
//!
//! The loop waits for the view to change, asks `plan::drain` for the whole plan, writes as much of it as the limits
//! allow, and waits again. It keeps no state: a new request on the node is seen in the next pass; moves that are under
//! way then finish, and are planned anew. The moves themselves are done by the VMs' tasks.

use crate::{
    arrivals,
    context::Context,
    events::{About, Entry, EventKind},
    operation::scope,
    records, returning,
    view::{differs, shows},
};
use drover_model::{Claim, ClusterView, DrainReport, MoveKind, NodeName, NodeRecord, NodeState, Obs, RunState};
use drover_plan::drain::{self, Order, Plan};
use drover_store::StoreError;
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// Poll interval for what has no event: the last domain's end, a failed call.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Timeout for the view to show what a pass wrote.
const SHOWN: Duration = Duration::from_secs(2);

/// Runs until dropped. Publishes how far the node's flush or ready is; `None`: there is none.
pub(crate) async fn run(ctx: Arc<Context>, report: watch::Sender<Option<DrainReport>>) {
    let mut views = ctx.views.subscribe();
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    let mut granted = arrivals::Granted::default();
    loop {
        ctx.membership().await;
        let view = views.borrow_and_update().clone();
        // In this loop, so that arriving VMs and VMs started here are counted in one place.
        let answered = arrivals::pass(&ctx, &view, &mut granted).await;
        let state = view.nodes.get(ctx.me()).map(|node| node.record.value.domain_state);
        let operation = view.nodes.get(ctx.me()).and_then(|node| node.record.value.operation.clone());
        let busy = match state {
            Some(NodeState::Flush) => scope(operation, pass(&ctx, &view, Way::Out, &report)).await,
            Some(NodeState::Unflush) => scope(operation, pass(&ctx, &view, Way::Home, &report)).await,
            _ => {
                // Cleared without notifying: the report would change, and a changed report wakes this loop.
                report.send_if_modified(|now| now.take().is_some());
                returning::pass(&ctx, &view).await
            }
        };
        let again = (busy || !answered).then(|| ctx.clock.now().after(LOOK_AGAIN));
        tokio::select! {
            biased;
            changed = differs(&mut views, &view, |old, new| of_interest(old, new, ctx.me())) => {
                if changed.is_err() { return }
            }
            () = ctx.clock.until(again) => {}
        }
    }
}

/// Whether two views differ in what a plan for this node depends on: the nodes, the limits, and the VMs that concern
/// it. (What a plan waits for elsewhere is polled, see [`LOOK_AGAIN`].)
fn of_interest(old: &ClusterView, new: &ClusterView, me: &NodeName) -> bool {
    let concerns = |view: &ClusterView, uuid| view.vms.get(uuid).is_some_and(|vm| vm.matters_to(me));
    old.nodes.get(me) != new.nodes.get(me)
        || old.config != new.config
        || new.vms.changes(&old.vms).any(|uuid| concerns(old, uuid) || concerns(new, uuid))
}

/// The direction of the moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    Home,
}

/// One pass: plans, writes what can be done now. Returns whether there is more to do.
async fn pass(ctx: &Context, view: &ClusterView, way: Way, report: &watch::Sender<Option<DrainReport>>) -> bool {
    let me = ctx.me();
    let (plan, kind) = match way {
        Way::Out => (drain::evacuate(view, me), MoveKind::Migrate),
        Way::Home => (drain::bring_home(view, me), MoveKind::Unmigrate),
    };
    let progress = plan.report();
    report.send_if_modified(|now| {
        let changed = now.as_ref() != Some(&progress);
        *now = Some(progress);
        changed
    });
    let orders = plan.orders(view, me, kind, ctx.wall());
    let written = join_all(orders.iter().map(|order| write(ctx, view, order))).await;
    for error in written.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a planned change was not written; it is planned again");
    }
    // With a timeout, because a refused write is never shown.
    let ordered: Vec<_> = orders.iter().map(|order| (order.uuid, order.version)).collect();
    if !shows(&ctx.views, &ordered, SHOWN).await {
        tracing::debug!("the view does not show all planned changes yet");
    }
    match finished(ctx, &plan, way).await {
        Some(done) => match complete(ctx, view, done).await {
            Ok(()) => false,
            Err(error) => {
                tracing::debug!(%error, "cannot complete the node's state");
                true
            }
        },
        None => true,
    }
}

/// The node's new state, if nothing is left to do.
async fn finished(ctx: &Context, plan: &Plan, way: Way) -> Option<NodeState> {
    match way {
        Way::Home => plan.is_done().then_some(NodeState::Ready),
        Way::Out if !plan.has_left() => None,
        // Ask the hypervisor itself.
        Way::Out => match ctx.hypervisor.domains().await {
            Ok(domains) => {
                let left = |domain: &Obs<drover_drivers::hypervisor::Domain>| match domain {
                    Obs::Known(domain) => domain.run != RunState::Off,
                    Obs::Unknown(_) => true,
                    Obs::Absent => false,
                };
                (!domains.ours.iter().any(|(_, domain)| left(domain))).then_some(NodeState::Flushed)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot list the domains to see whether the node is empty");
                None
            }
        },
    }
}

async fn write(ctx: &Context, view: &ClusterView, order: &Order) -> Result<(), StoreError> {
    let Some(vm) = view.vms.get(&order.uuid) else { return Ok(()) };
    let mut ops = vec![records::set_op(&order.uuid, &vm.record, &order.record)?];
    ops.extend(order.claim.map(|version| records::check_op::<Claim>(&order.uuid, version)));
    ctx.store.multi(ops).await?;
    tracing::info!(
        vm = %order.record.name, to = %order.record.state, target = ?order.record.state.destination(),
        "ordered by the plan"
    );
    let (me, name, state) = (ctx.me(), &order.record.name, &order.record.state);
    let to = state.destination().map(ToString::to_string).unwrap_or_default();
    let towards = if to.is_empty() { String::new() } else { format!(", to {to}") };
    let what = format!("VM {name}: state {state}{towards}, ordered by the plan for node {me}.");
    ctx.tell(Entry::new(&order.record, EventKind::Planned, what).with("to", to).with("why", &order.why));
    Ok(())
}

/// Completes the request in the node's record, on the version that the decision was made on.
async fn complete(ctx: &Context, view: &ClusterView, done: NodeState) -> Result<(), StoreError> {
    let Some(node) = view.nodes.get(ctx.me()) else { return Ok(()) };
    let record = NodeRecord { domain_state: done, ..node.record.value.clone() };
    records::set(&*ctx.store, ctx.me(), &node.record, &record).await?;
    tracing::info!(node = %ctx.me(), state = %done, "the node's state is complete");
    ctx.tell(Entry::new(
        About::Node(ctx.me().clone()),
        EventKind::NodeState,
        format!("Node {} is {done} now.", ctx.me()),
    ));
    Ok(())
}
