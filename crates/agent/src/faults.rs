//! Faults: what a person should look at, reported once for each cause.
//!
//! Level-triggered, as everything here: each pass of a VM's task compares what is so with what is reported, so that a
//! daemon that died in between leaves no fault out and none behind.

use crate::{context::Context, records, view::differs};
use drover_model::{
    ClusterView, Fault, NodeName, NodeView, RecordKind, Role, RunState, VmRecord, VmState, cluster::CLUSTER_SCHEMA,
};
use drover_store::StoreError;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How much of the cluster's health a VM costs that cannot be kept running, in percent.
const VM_HEALTH_DELTA: u8 = 10;

/// How much a primary costs that is not as it should be, in percent.
const PRIMARY_HEALTH_DELTA: u8 = 10;
/// Something that the primary should have up is not.
const SERVICES: &str = "primary-services";
/// Coordinators disagree about the floating addresses.
const ADDRESSES: &str = "primary-addresses-differ";
/// How soon a report is tried again that the store did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// The fault of a VM that was given up.
pub(crate) fn vm_failed_id(uuid: &Uuid) -> String {
    format!("vm-failed-{uuid}")
}

/// Reports a VM that was given up, and takes the report back when it runs again.
pub(crate) async fn of_vm(ctx: &Context, vm: &VmRecord, run: Option<RunState>) -> Result<(), StoreError> {
    let view = ctx.views.latest();
    let reported = view.faults().get(&vm_failed_id(&vm.uuid));
    match (&vm.state, reported) {
        (VmState::Fail { reason }, reported) => {
            let message = failed_message(vm, reason);
            if reported.is_some_and(|fault| fault.message == message) {
                return Ok(());
            }
            report(ctx, vm_failed_id(&vm.uuid), message, VM_HEALTH_DELTA).await
        }
        // It runs again, or somebody wants it off: then there is nothing to be mended.
        (state, Some(_)) if run == Some(RunState::Running) || matches!(state, VmState::Stop | VmState::Disable) => {
            take_back(ctx, &vm_failed_id(&vm.uuid)).await
        }
        _ => Ok(()),
    }
}

fn failed_message(vm: &VmRecord, reason: &str) -> String {
    format!("VM {} was given up: {reason}. See 'drover vm log {}', mend it, and start it again.", vm.name, vm.name)
}

/// A fault that somebody acknowledged stays acknowledged until its cause is gone.
async fn report(ctx: &Context, id: String, message: String, health_delta: u8) -> Result<(), StoreError> {
    let now = ctx.wall();
    let old = records::read::<Fault>(&*ctx.store, &id).await?;
    if old.as_ref().is_some_and(|old| old.value.message == message) {
        return Ok(());
    }
    let fault = Fault {
        schema: CLUSTER_SCHEMA,
        id: id.clone(),
        message,
        health_delta,
        first_reported: old.as_ref().map_or(now, |f| f.value.first_reported),
        last_reported: now,
        acknowledged_at: old.as_ref().and_then(|f| f.value.acknowledged_at),
    };
    match old {
        Some(old) => records::set(&*ctx.store, &id, &old, &fault).await.map(|_| ()),
        None => records::create(&*ctx.store, &id, &fault).await,
    }
}

async fn take_back(ctx: &Context, id: &String) -> Result<(), StoreError> {
    match ctx.store.delete(&Fault::path(id), None).await {
        Ok(()) | Err(StoreError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reports what ails the primary, for as long as this node is the primary. Runs until dropped.
pub(crate) async fn of_primary(ctx: Arc<Context>) {
    let mut views = ctx.views.subscribe();
    let mut problems = ctx.service_problems.subscribe();
    loop {
        let view = views.borrow_and_update().clone();
        let ailing = problems.borrow_and_update().clone();
        let mut done = true;
        if view.primary_node() == Some(ctx.me()) {
            for (id, wanted) in
                [(SERVICES, services_message(ctx.me(), &ailing)), (ADDRESSES, differing(&view, ctx.me()))]
            {
                let is = view.faults().get(&id.to_owned()).map(|fault| fault.message.as_str());
                let outcome = match wanted {
                    Some(wanted) if is != Some(&wanted) => {
                        report(&ctx, id.to_owned(), wanted, PRIMARY_HEALTH_DELTA).await
                    }
                    None if is.is_some() => take_back(&ctx, &id.to_owned()).await,
                    _ => Ok(()),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, fault = id, "a fault was not reported or taken back");
                    done = false;
                }
            }
        }
        let again = (!done).then(|| ctx.clock.now().after(AGAIN));
        tokio::select! {
            biased;
            changed = differs(&mut views, &view, of_interest) => if changed.is_err() { return },
            Ok(()) = problems.changed() => {}
            () = ctx.clock.until(again) => {}
        }
    }
}

/// Whether two views differ in what these faults are made from.
fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    let faults = |view: &ClusterView, id: &str| view.faults().get(&id.to_owned()).cloned();
    !old.nodes.ptr_eq(&new.nodes)
        || old.primary != new.primary
        || [SERVICES, ADDRESSES].into_iter().any(|id| faults(old, id) != faults(new, id))
}

fn services_message(me: &NodeName, ailing: &[(String, String)]) -> Option<String> {
    let each: Vec<String> = ailing.iter().map(|(service, why)| format!("{service}: {why}")).collect();
    (!each.is_empty()).then(|| format!("The primary, {me}, lacks: {}. It goes on trying.", each.join("; ")))
}

/// The floating addresses are in the configuration file of each coordinator, and must be the same in all.
fn differing(view: &ClusterView, me: &NodeName) -> Option<String> {
    let of = |node: &NodeView| node.status.as_ref().map(|status| status.floating.clone());
    let mine = of(view.nodes.get(me)?)?;
    let others = view.nodes.iter().filter(|(_, node)| node.record.value.role == Role::Coordinator);
    let others: Vec<&str> =
        others.filter(|(_, node)| of(node).is_some_and(|its| its != mine)).map(|(name, _)| name.as_str()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "The floating addresses in the configuration of {} are not those of the primary, {me}. Make [network] the same on all coordinators, and restart their daemons.",
            others.join(", ")
        )
    })
}
