//! Empties this node, or brings its VMs home, when its record asks for it; and lets VMs come to it that others send
//! ([`arrivals`]).
//!
//! The loop waits for the view to change, asks `plan::drain` for the whole plan, writes as much of it as the limits
//! allow, and waits again. It remembers nothing: another request on the node is seen in the next pass, which then
//! follows that one; what is on its way by then arrives and is planned anew. The moves themselves are the VMs' own
//! tasks.

use crate::{arrivals, context::Context, records, view::differs};
use drover_model::{Claim, ClusterView, DomainState, MoveKind, NodeName, NodeRecord, Obs, RunState};
use drover_plan::drain::{self, Order, Plan};
use drover_store::StoreError;
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How soon it is looked again without any change: for what no event tells (the last domain's end, a call that failed).
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a pass waits until the view shows what it ordered.
const SHOWN: Duration = Duration::from_secs(2);

/// Runs until dropped.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut views = ctx.views.subscribe();
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    let mut granted = arrivals::Granted::default();
    loop {
        let view = views.borrow_and_update().clone();
        // Here and not beside it, so that what comes and what is started here is counted by one.
        let answered = arrivals::pass(&ctx, &view, &mut granted).await;
        let state = view.nodes.get(ctx.me()).map(|node| node.record.value.domain_state);
        let busy = match state {
            Some(DomainState::Flush) => pass(&ctx, &view, Way::Out).await,
            Some(DomainState::Unflush) => pass(&ctx, &view, Way::Home).await,
            _ => {
                // Nobody is told of what was so before: a report is written when this changes, and a report is a change
                // that wakes this loop.
                ctx.drain.send_if_modified(|now| now.take().is_some());
                false
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

/// Whether two views differ in what a plan for this node is made from: the nodes, the limits, and the VMs that concern
/// it. (What a plan waits for elsewhere is looked at again after [`LOOK_AGAIN`].)
fn of_interest(old: &ClusterView, new: &ClusterView, me: &NodeName) -> bool {
    let concerns = |view: &ClusterView, uuid| view.vms.get(uuid).is_some_and(|vm| vm.matters_to(me));
    old.nodes.get(me) != new.nodes.get(me)
        || old.config != new.config
        || new.vms.changes(&old.vms).any(|uuid| concerns(old, uuid) || concerns(new, uuid))
}

/// Which way VMs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    Home,
}

/// One look at the whole, and what can be done now. Returns whether there is more to do.
async fn pass(ctx: &Context, view: &ClusterView, way: Way) -> bool {
    let me = ctx.me();
    let (plan, kind) = match way {
        Way::Out => (drain::evacuate(view, me), MoveKind::Migrate),
        Way::Home => (drain::bring_home(view, me), MoveKind::Unmigrate),
    };
    let report = plan.report();
    ctx.drain.send_if_modified(|now| {
        let changed = now.as_ref() != Some(&report);
        *now = Some(report);
        changed
    });
    let orders = plan.orders(view, me, kind);
    let written = join_all(orders.iter().map(|order| write(ctx, view, order))).await;
    for error in written.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "an order of the plan was not taken; the next plan is made on what is so then");
    }
    shown(ctx, &orders).await;
    match finished(ctx, &plan, way).await {
        Some(done) => match complete(ctx, view, done).await {
            Ok(()) => false,
            Err(error) => {
                tracing::debug!(%error, "the node's state was not completed");
                true
            }
        },
        None => true,
    }
}

/// The state that the node is in now, if nothing is left to do.
async fn finished(ctx: &Context, plan: &Plan, way: Way) -> Option<DomainState> {
    match way {
        Way::Home => plan.is_done().then_some(DomainState::Ready),
        Way::Out if !plan.fates.is_empty() => None,
        // The hypervisor itself must say that nothing is left.
        Way::Out => match ctx.hypervisor.domains().await {
            Ok(domains) => {
                let left = |domain: &Obs<drover_drivers::hypervisor::Domain>| match domain {
                    Obs::Known(domain) => domain.run != RunState::Off,
                    Obs::Unknown(_) => true,
                    Obs::Absent => false,
                };
                (!domains.iter().any(|(_, domain)| left(domain))).then_some(DomainState::Flushed)
            }
            Err(error) => {
                tracing::debug!(%error, "cannot see whether the node is empty");
                None
            }
        },
    }
}

/// Waits until the view shows what was ordered, so that the next pass counts it. Not for long: what was not taken will
/// never be shown.
async fn shown(ctx: &Context, orders: &[Order]) {
    let mut views = ctx.views.subscribe();
    let newer = |view: &Arc<ClusterView>| {
        orders.iter().all(|order| view.vms.get(&order.uuid).is_none_or(|vm| vm.record.version > order.version))
    };
    if timeout(SHOWN, views.wait_for(newer)).await.is_err() {
        tracing::debug!("the view does not show all that was ordered");
    }
}

async fn write(ctx: &Context, view: &ClusterView, order: &Order) -> Result<(), StoreError> {
    let Some(vm) = view.vms.get(&order.uuid) else { return Ok(()) };
    let mut ops = vec![records::set_op(&order.uuid, &vm.record, &order.record)?];
    ops.extend(order.claim.map(|version| records::check_op::<Claim>(&order.uuid, version)));
    ctx.store.multi(ops).await?;
    tracing::info!(vm = %order.record.name, to = %order.record.state, target = ?order.record.state.destination(), "ordered by the plan");
    Ok(())
}

/// Completes the command in the node's record, on the version that it was decided on.
async fn complete(ctx: &Context, view: &ClusterView, done: DomainState) -> Result<(), StoreError> {
    let Some(node) = view.nodes.get(ctx.me()) else { return Ok(()) };
    let record = NodeRecord { domain_state: done, ..node.record.value.clone() };
    records::set(&*ctx.store, ctx.me(), &node.record, &record).await?;
    tracing::info!(node = %ctx.me(), state = %done, "the node's state is complete");
    Ok(())
}
