//! Fences nodes that are off, and gives their VMs to others, while this node is the primary (`plan::fence`,
//! `plan::recover`); and the part of a node that joins in its own fence.
//!
//! Each pass decides on the whole view, and on what this node has found out about machines ([`proof`]), which any other
//! coordinator can find out again: it goes on where this one stopped. Each write is one transaction that fails if
//!
//! * the record of the primary has changed: another coordinator may be at work by now,
//! * the node has a session,
//! * the node's record has changed: another boot of its machine may act under its name by now,
//! * the fence has changed: the proof may not hold any more,
//! * what is written has changed.

mod proof;
mod pulse;
mod recovery;
mod watchdog;

use crate::{
    context::Context,
    events::{About, Entry, EventKind},
    faults,
    operation::scope,
    records,
    view::differs,
};
use drover_model::{
    ClusterView, Evidence, EvidenceKind, Fence, FencePhase, Mono, NodeName, NodeRecord, NodeSession, Only, Operation,
    Primary, Promise, RecordKind, Stored, Version,
};
use drover_plan::{
    fence::{self, Step},
    liveness::Lives,
    recover, returning,
};
use drover_store::{CreateMode, Op, StoreError};
use proof::Seeker;
use pulse::Pulse;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::watch;
use watchdog::Listener;

/// Poll interval while there is work; what it waits for is usually seen in the view before.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Interval at which a target is asked again that has refused a VM.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Runs until dropped.
pub(crate) async fn run(ctx: Arc<Context>, mut lives: watch::Receiver<Lives>) {
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    let mut views = ctx.views.subscribe();
    let mut asked = ctx.clock.now();
    let mut seeker = Seeker::new(lives.clone());
    let mut listener = Listener::default();
    let mut pulse = Pulse::default();
    loop {
        ctx.membership().await;
        let view = views.borrow_and_update().clone();
        let alive = lives.borrow_and_update().clone();
        let primary = view.primary_node() == Some(ctx.me());
        let again = if primary {
            pass(&ctx, &view, (&alive, pulse.unheard()), &mut asked, &mut seeker, &mut listener).await
        } else {
            seeker.forget();
            listener.forget();
            pulse.forget();
            None
        };
        tokio::select! {
            biased;
            // First, for there are few of them: a view that always changes must not keep a proof from being used.
            () = seeker.ended(ctx.clock) => {}
            () = pulse.changed(&ctx), if primary => {}
            changed = differs(&mut views, &view, |old, new| {
                if primary { of_interest(old, new) } else { old.primary != new.primary }
            }) => if changed.is_err() { return },
            Ok(()) = lives.changed() => {}
            () = ctx.clock.until(again) => {}
        }
    }
}

/// Whether two views differ in what fences depend on. VMs matter only while some are to be recovered. A fault that was
/// reported when its cause was over already, by this node or a primary that is none any more, is seen only afterwards,
/// and is to be withdrawn then.
fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    let recovering = fence::recovering(new);
    !old.nodes.ptr_eq(&new.nodes)
        || old.primary != new.primary
        || old.config != new.config
        || !old.fences().ptr_eq(new.fences())
        || !old.faults().ptr_eq(new.faults()) && !fence::report::reported(old).eq(fence::report::reported(new))
        || !recovering.is_empty() && recovering.keys().any(|node| vms_differ(old, new, node))
}

fn vms_differ(old: &ClusterView, new: &ClusterView, node: &NodeName) -> bool {
    new.vms.changes(&old.vms).any(|uuid| new.vms.get(uuid).is_some_and(|vm| vm.matters_to(node)))
}

/// One pass. Returns when to look again without a change.
async fn pass(
    ctx: &Arc<Context>,
    view: &ClusterView,
    (lives, unheard): (&Lives, &BTreeSet<NodeName>),
    asked: &mut Mono,
    seeker: &mut Seeker,
    listener: &mut Listener,
) -> Option<Mono> {
    if !ctx.views.freshness().borrow().is_current() {
        return Some(ctx.clock.now().after(LOOK_AGAIN));
    }
    let (silences, listen_again) = listener.listen(ctx, view).await;
    let now = ctx.clock.now();
    let again = now.since(*asked) >= ASK_AGAIN;
    if again {
        *asked = now;
    }
    let plan = recover::plan(view, &fence::recovering(view), again);
    let tries = seeker.tries(view, unheard);
    let outlook = fence::next(view, (lives, unheard), &plan, tries, now, ctx.wall());
    let quiet = fence::is_quiet(view, (lives, unheard), now, ctx.wall());
    let outlook = fence::watchdog::prove(outlook, view, silences, quiet, now);
    for node in &outlook.ask {
        seeker.look(ctx, view, node);
    }
    let mut done = true;
    for (node, step) in &outlook.steps {
        let sent = ctx.clock.now();
        match scope(operation_of(ctx, view, node, step), write(ctx, view, node, step)).await {
            // Only now that it is known to be written.
            Ok(()) if *step == Step::Cut => seeker.cut(ctx, view, node, sent),
            Ok(()) if *step == Step::PowerOn => seeker.power_on(ctx, view, node, sent),
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%node, ?step, %error, "a step of a fence was not written; it is decided again");
                done = false;
            }
        }
    }
    done &= recovery::recover(ctx, view, &plan).await;
    if !view.config.is_in_maintenance(ctx.wall()) {
        let reported: Vec<String> = fence::report::reported(view).cloned().collect();
        if let Err(error) = faults::keep_all(ctx, fence::report::faults(view, &outlook, &plan), reported).await {
            tracing::debug!(%error, "cannot report or withdraw the faults of fences");
            done = false;
        }
    }
    let poll = (!done || !plan.is_done()).then(|| now.after(LOOK_AGAIN));
    poll.into_iter().chain(outlook.look_again).chain(listen_again).min()
}

/// The operation of a step: a suspicion begins one, and all that follows from it is part of that.
fn operation_of(ctx: &Context, view: &ClusterView, node: &NodeName, step: &Step) -> Option<Operation> {
    match step {
        Step::Suspect => Some(ctx.own_operation()),
        _ => view.fences().get(node)?.value.operation.clone(),
    }
}

/// The conditions of every write about a silent node.
fn conditions(view: &ClusterView, node: &NodeName) -> Vec<Op> {
    let session = NodeSession::path(node);
    let primary = view.primary.as_ref().map_or(Version::NEW, |primary| primary.version);
    vec![
        records::check_op::<Primary>(&Only, primary),
        Op::Create(session.clone(), Vec::new(), CreateMode::Persistent),
        Op::Delete(session, Some(Version::NEW)),
    ]
}

async fn write(ctx: &Context, view: &ClusterView, name: &NodeName, step: &Step) -> Result<(), StoreError> {
    let (Some(node), Some(primary)) = (view.nodes.get(name), view.primary.as_ref()) else {
        return Err(StoreError::NotFound(NodeRecord::path(name)));
    };
    let (old, now) = (view.fences().get(name), ctx.wall());
    let record = &node.record;
    let unchanged = records::check_op::<NodeRecord>(name, record.version);
    let changed = |fence: Fence| Fence { by: ctx.me().clone(), epoch: primary.value.epoch, ..fence };
    let mut ops = match step {
        // The node itself may be doing the same.
        Step::Withdraw | Step::End => vec![records::check_op::<Primary>(&Only, primary.version)],
        _ => conditions(view, name),
    };
    match (step, old) {
        (Step::Suspect, old) => {
            let new = Fence::suspicion(&record.value, ctx.me(), primary.value.epoch, now);
            ops.push(unchanged);
            ops.push(match old {
                Some(old) => records::set_op(name, old, &new)?,
                None => records::create_op(name, &new)?,
            });
        }
        (_, None) => return Err(StoreError::NotFound(Fence::path(name))),
        (Step::Withdraw, Some(old)) => ops.push(records::delete_op::<Fence>(name, Some(old.version))),
        (Step::Proving, Some(old)) => {
            ops.extend([unchanged, records::set_op(name, old, &changed(old.value.to(FencePhase::Proving, now)))?]);
        }
        (Step::Cut, Some(old)) => {
            let then_on = record.value.effective_power_on(&view.config);
            let new = Fence { off_ordered: true, then_on, ..changed(old.value.to(FencePhase::Proving, now)) };
            ops.extend([unchanged, records::set_op(name, old, &new)?]);
        }
        (Step::Unproved(problems), Some(old)) => {
            let mut new = changed(old.value.to(FencePhase::Unproved, now));
            new.problems.clone_from(problems);
            ops.extend([unchanged, records::set_op(name, old, &new)?]);
        }
        (Step::Proved(what) | Step::RanOut(what, _), Some(old)) => {
            let (by, what) = (ctx.me().clone(), what.clone());
            let kind = if matches!(step, Step::Proved(_)) { EvidenceKind::Power } else { EvidenceKind::Watchdog };
            let evidence = Evidence { kind, at: now, by, what };
            ops.extend([unchanged, records::set_op(name, old, &changed(old.value.proved(evidence)))?]);
            if let Step::RanOut(_, version) = step {
                // A renewal that came meanwhile makes it fail; one that comes later finds nothing.
                ops.push(records::delete_op::<Promise>(name, Some(*version)));
            }
        }
        (Step::Recover, Some(old)) => {
            ops.push(records::set_op(name, old, &changed(old.value.to(FencePhase::Recovering, now)))?);
            let flushed = returning::taken_out(&record.value, &view.config, &old.value);
            ops.push(records::set_op(name, record, &flushed)?);
        }
        (Step::Recovered, Some(old)) => {
            ops.extend([unchanged, records::set_op(name, old, &changed(old.value.to(FencePhase::Recovered, now)))?]);
        }
        (Step::PowerOn, Some(old)) => {
            let new = Fence { on_ordered: true, ..changed(old.value.clone()) };
            ops.extend([unchanged, records::set_op(name, old, &new)?]);
        }
        (Step::End, Some(old)) => {
            ops.push(records::set_op(name, old, &changed(old.value.to(FencePhase::Over, now)))?);
        }
    }
    ctx.store.multi(ops).await?;
    ctx.tell(told(name, step, &record.value.boot, old.map(|old| &old.value)));
    match step {
        Step::Suspect => tracing::warn!(node = %name, boot = record.value.boot, "a node is suspected to be off"),
        Step::Withdraw => tracing::info!(node = %name, "a node is suspected no more"),
        Step::Proving => tracing::info!(node = %name, "looking for proof that a silent node is off"),
        Step::Cut => tracing::warn!(node = %name, "a silent node's power is to be cut"),
        Step::Unproved(problems) => {
            let why = problems.join("; ");
            tracing::warn!(node = %name, why, "nothing proves that a silent node is off; its VMs wait");
        }
        Step::Proved(what) | Step::RanOut(what, _) => {
            tracing::warn!(node = %name, what, "it is proved that a silent node is off")
        }
        Step::Recover => tracing::warn!(node = %name, "a node is off: its VMs are given to other nodes"),
        Step::Recovered => tracing::info!(node = %name, "nothing is left of a node that is off"),
        Step::PowerOn => tracing::info!(node = %name, "a node whose power was cut is to be switched on again"),
        Step::End => tracing::info!(node = %name, "a node that was off is back"),
    }
    Ok(())
}

/// A step, as an event.
fn told(node: &NodeName, step: &Step, boot: &str, old: Option<&Fence>) -> Entry {
    let of = |kind, what: &str| Entry::new(About::Node(node.clone()), kind, format!("Node {node} {what}."));
    match step {
        Step::Suspect => of(EventKind::FenceSuspect, "is suspected to be off").with("boot", boot),
        Step::Withdraw => of(EventKind::FenceWithdrawn, "is suspected no more"),
        Step::Proving => of(EventKind::FenceProving, "is silent: looking for proof that it is off"),
        Step::Cut => of(EventKind::FenceCut, "is silent: its power is to be cut"),
        Step::Unproved(problems) => {
            of(EventKind::FenceUnproved, "is silent, and nothing proves that it is off: its VMs wait")
                .with("problems", problems.join("; "))
        }
        Step::Proved(what) => of(EventKind::FenceProved, "is proved to be off").with("evidence", what),
        Step::RanOut(what, _) => {
            of(EventKind::FenceProved, "is proved to have been reset by its watchdog").with("evidence", what)
        }
        Step::Recover => of(EventKind::FenceRecovering, "is off: its VMs are given to other nodes")
            .with("evidence", old.map(Fence::proof).unwrap_or_default()),
        Step::Recovered => {
            of(EventKind::FenceRecovered, "is off, and nothing is left on it that another node can take")
        }
        Step::PowerOn => of(EventKind::FencePowerOn, "is to be switched on again"),
        Step::End => of(EventKind::FenceOver, "is back"),
    }
}

/// How this node, which joins, ends its own fence. Nothing is done under its name before.
pub(crate) enum Return {
    /// With this change, if any.
    With(Option<Op>),
    /// Its machine's power may be cut at any moment, as this fence says.
    Wait(Box<Stored<Fence>>),
}

/// How this node, which joins, ends its own fence. `seen`: the one that made the node wait, and since when.
///
/// # Errors
/// Those of the store.
pub(crate) async fn returned(ctx: &Context, seen: Option<&(Stored<Fence>, Mono)>) -> Result<Return, StoreError> {
    // This server of the store may be behind.
    ctx.store.sync().await?;
    let fence: Stored<Fence> = match records::read(&*ctx.store, ctx.me()).await {
        Ok(Some(fence)) => fence,
        Ok(None) => return Ok(Return::With(None)),
        // Also one that cannot be read: it may say that this machine's power is about to be cut.
        Err(error) => return Err(error),
    };
    let same = seen.filter(|(old, _)| fence::same_orders(old, &fence));
    let waited = same.map(|(_, since)| ctx.clock.now().since(*since)).unwrap_or_default();
    let op = match fence::returned(&fence, waited, ctx.wall()) {
        fence::Return::Wait => return Ok(Return::Wait(Box::new(fence))),
        fence::Return::Keep => None,
        fence::Return::Delete => Some(records::delete_op::<Fence>(ctx.me(), Some(fence.version))),
        fence::Return::Replace(new) => Some(records::set_op(ctx.me(), &fence, &new)?),
    };
    Ok(Return::With(op))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Fault, WallTime};

    #[test]
    fn a_fault_of_a_fence_that_appears_is_looked_at_and_others_are_not() {
        let old = ClusterView::default();
        for (id, interesting) in
            [("fence-held", true), ("node-dead-b", true), ("vm-failed-x", false), ("primary-services", false)]
        {
            let fault = Fault {
                schema: 1,
                id: id.to_owned(),
                message: "m".to_owned(),
                health_delta: 10,
                first_reported: WallTime(1),
                last_reported: WallTime(1),
                acknowledged_at: None,
            };
            let mut new = old.clone();
            new.apply(&Fault::path(&id.to_owned()), Some((&serde_json::to_vec(&fault).unwrap(), Version(3))));
            assert_eq!(of_interest(&old, &new), interesting, "{id}");
            assert_eq!(of_interest(&new, &old), interesting, "{id} that has gone");
        }
    }
}
