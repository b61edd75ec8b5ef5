//! Faults: problems that need an administrator, reported once for each cause.
//!
//! Level-triggered: each pass of a VM's task compares the state with what is reported, so that a crash of the daemon
//! leaves no fault unreported and none behind.

use crate::{
    context::Context,
    events::{Entry, EventKind},
    records,
    view::differs,
};
use drover_model::{
    ClusterView, Fault, NodeName, NodeView, Paused, PausedBy, RecordKind, RecordPath, Role, RunState, Stored, Version,
    VmRecord, VmState, cluster::CLUSTER_SCHEMA,
};
use drover_plan::faults::{self, vm_disks, vm_failed, vm_paused, vm_refused, vm_torn, vm_unkillable, vm_unresumed};
use drover_store::{Op, StoreError};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// Percentage of the cluster's health that a failed VM costs.
const VM_HEALTH_DELTA: u8 = 10;
/// Percentage that a running guest with replaced disks costs: a backup makes it so for minutes, every night.
const DISKS_HEALTH_DELTA: u8 = 1;

/// Percentage that a VM costs which could not be started where it was moved to, and runs elsewhere.
const REFUSED_HEALTH_DELTA: u8 = 2;

/// Percentage that a problem of the primary costs.
const PRIMARY_HEALTH_DELTA: u8 = 10;
/// A service of the primary does not run.
const SERVICES: &str = "primary-services";
/// Coordinators are configured with different floating addresses.
const ADDRESSES: &str = "primary-addresses-differ";
/// Pause before a report is retried after a store error.
const RETRY: Duration = Duration::from_secs(1);

/// What may be known.
pub(crate) enum Told<T> {
    /// This is so.
    Is(T),
    /// Nothing is known now: what was reported stays.
    Unknown,
}

/// What is the matter with a guest, as its node observes it.
pub(crate) struct Troubles {
    /// Why it is paused, if somebody must see to that.
    pub(crate) paused: Told<Option<Paused>>,
    /// Whether its migration by post-copy broke.
    pub(crate) torn: Told<bool>,
    /// Why it cannot execute after its migration, if that is so for a while.
    pub(crate) unresumed: Option<String>,
    /// Why its power cannot be cut, if that is so for a while.
    pub(crate) unkillable: Told<Option<String>>,
    /// Why it would not be started again, because of disks that were replaced while it ran.
    pub(crate) older: Option<String>,
}

/// Reports what is the matter with a guest, and withdraws what is not any more.
pub(crate) async fn of_guest(ctx: &Context, record: &Stored<VmRecord>, troubles: &Troubles) -> Result<(), StoreError> {
    let vm = &record.value;
    if let Told::Is(paused) = &troubles.paused {
        let message = paused.as_ref().map(|paused| {
            let by_itself = match vm.meta.resume_after_io_error && paused.by == PausedBy::IoError {
                true => " It is resumed now and then (after 10 s, later every 5 minutes), in case the cause is gone.",
                false => "",
            };
            format!("The guest of VM {} {paused}: {}.{by_itself}", vm.name, paused.by.way_on(&vm.name))
        });
        keep(ctx, record, vm_paused(&vm.uuid), message, VM_HEALTH_DELTA).await?;
    }
    if let Told::Is(torn) = troubles.torn {
        keep(ctx, record, vm_torn(&vm.uuid), torn.then(|| torn_message(vm)), VM_HEALTH_DELTA).await?;
    }
    let unresumed = troubles.unresumed.as_ref().map(|why| {
        format!(
            "The guest of VM {} is whole on {} after a migration, and cannot execute there: {why}. It is tried again, \
             and the guest waits, paused.",
            vm.name,
            ctx.me()
        )
    });
    keep(ctx, record, vm_unresumed(&vm.uuid), unresumed, VM_HEALTH_DELTA).await?;
    let refused = vm.refused.last().map(|refused| {
        let (name, node) = (&vm.name, &refused.node);
        format!(
            "VM {name} was moved to {node} while off and could not be started there, so it went back: {}. Repair the \
             cause, and move it there again ('drover vm migrate {name} --to {node}'); nothing else brings it there.",
            refused.why
        )
    });
    keep(ctx, record, vm_refused(&vm.uuid), refused, REFUSED_HEALTH_DELTA).await?;
    let older = troubles.older.as_ref().map(|why| format!("VM {} cannot be started again: {why}.", vm.name));
    keep(ctx, record, vm_disks(&vm.uuid), older, DISKS_HEALTH_DELTA).await?;
    let Told::Is(unkillable) = &troubles.unkillable else { return Ok(()) };
    let unkillable = unkillable.as_ref().map(|why| {
        format!(
            "The power of VM {} cannot be cut on {}: {why}. The VM stays on that node until it has ended. \
             Its QEMU probably waits for a storage that does not answer; if it never does, restart the node.",
            vm.name,
            ctx.me()
        )
    });
    keep(ctx, record, vm_unkillable(&vm.uuid), unkillable, VM_HEALTH_DELTA).await
}

/// Reports a VM's fault with that message, or withdraws it if there is none.
async fn keep(
    ctx: &Context,
    vm: &Stored<VmRecord>,
    id: String,
    message: Option<String>,
    health_delta: u8,
) -> Result<(), StoreError> {
    let view = ctx.views.latest();
    match (message, view.faults().get(&id)) {
        (Some(message), reported) if reported.is_none_or(|fault| fault.message != message) => {
            report(ctx, id, message, health_delta, Some(unchanged(vm))).await
        }
        (None, Some(_)) => withdraw(ctx, &id).await,
        _ => Ok(()),
    }
}

/// The condition under which a VM's fault is written, in the same transaction: the VM may be deleted at any time, also
/// through another node.
fn unchanged(vm: &Stored<VmRecord>) -> Op {
    records::check_op::<VmRecord>(&vm.value.uuid, vm.version)
}

fn torn_message(vm: &VmRecord) -> String {
    let uuid = vm.uuid;
    format!(
        "The migration of VM {} by post-copy broke: part of its memory is on each of two nodes. Repair their link; if \
         it does not go on by itself, continue on the node where it is paused: 'virsh migrate {uuid} --live --p2p \
         --postcopy --postcopy-resume' with the target's URI. Or give up what is in its memory: stop and start it.",
        vm.name
    )
}

/// Reports a failed VM, and withdraws the report when it runs again.
pub(crate) async fn of_failed_vm(
    ctx: &Context,
    record: &Stored<VmRecord>,
    run: Option<RunState>,
) -> Result<(), StoreError> {
    let vm = &record.value;
    let view = ctx.views.latest();
    let reported = view.faults().get(&vm_failed(&vm.uuid));
    match (&vm.state, reported) {
        (VmState::Fail { reason }, reported) => {
            let message = failed_message(vm, reason);
            if reported.is_some_and(|fault| fault.message == message) {
                return Ok(());
            }
            report(ctx, vm_failed(&vm.uuid), message, VM_HEALTH_DELTA, Some(unchanged(record))).await
        }
        // It runs again, or somebody wants it off: nothing is left to repair.
        (state, Some(_)) if run == Some(RunState::Running) || matches!(state, VmState::Stop | VmState::Disable) => {
            withdraw(ctx, &vm_failed(&vm.uuid)).await
        }
        _ => Ok(()),
    }
}

/// Percentage that a guest without a claim costs.
const STRAY_HEALTH_DELTA: u8 = 10;

/// Reports a guest that runs on this node without a claim, and withdraws the report when it does not any more.
/// It may be without a record, so the fault is not of a VM.
pub(crate) async fn of_stray(ctx: &Context, uuid: &Uuid, message: Option<String>) -> Result<(), StoreError> {
    let id = faults::stray(uuid, ctx.me());
    let reported = ctx.views.latest().faults().contains_key(&id);
    match message {
        Some(message) => report(ctx, id, message, STRAY_HEALTH_DELTA, None).await,
        None if reported => withdraw(ctx, &id).await,
        None => Ok(()),
    }
}

/// Whether there is no fault of a VM.
pub(crate) fn none_of_vm(view: &ClusterView, uuid: &Uuid) -> bool {
    !faults::of_vm(uuid).iter().any(|id| view.faults().contains_key(id))
}

fn failed_message(vm: &VmRecord, reason: &str) -> String {
    format!(
        "VM {} was given up: {reason}. See 'drover vm log {}', fix the cause, and start it again.",
        vm.name, vm.name
    )
}

/// Creates or updates a fault. An acknowledged one stays acknowledged until its cause is gone. `cause`: fails if what
/// the fault is of is another by now, or is not there any more.
async fn report(
    ctx: &Context,
    id: String,
    message: String,
    health_delta: u8,
    cause: Option<Op>,
) -> Result<(), StoreError> {
    let now = ctx.wall();
    let old = match records::read::<Fault>(&*ctx.store, &id).await {
        // A newer daemon reported the same cause; its record is not ours to write.
        Err(StoreError::Unreadable { .. }) => return Ok(()),
        old => old?,
    };
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
    let old_known = old.is_some();
    let write = match old {
        Some(old) => records::set_op(&id, &old, &fault)?,
        None => records::create_op(&id, &fault)?,
    };
    let (kind, what) =
        if old_known { (EventKind::FaultChanged, "changed") } else { (EventKind::FaultRaised, "raised") };
    let told = Entry::of_cluster(kind, format!("Fault {what}: {}", fault.message)).with("fault", &id);
    ctx.store.multi(cause.into_iter().chain([write]).collect()).await?;
    ctx.tell(told);
    Ok(())
}

/// Deletes faults of VMs and nodes that are not there any more.
async fn clear(ctx: &Context, leftovers: Vec<(String, RecordPath, Version)>) -> Result<(), StoreError> {
    if leftovers.is_empty() {
        return Ok(());
    }
    // A VM that has just been defined, or a node that has just come, may not be in the view yet.
    ctx.store.sync().await?;
    for (id, of, version) in leftovers {
        if ctx.store.get(&of).await?.is_none() {
            ctx.store.delete(&Fault::path(&id), Some(version)).await?;
            tracing::info!(fault = id, %of, "deleted a fault of what is not there any more");
        }
    }
    Ok(())
}

async fn withdraw(ctx: &Context, id: &String) -> Result<(), StoreError> {
    match ctx.store.delete(&Fault::path(id), None).await {
        Ok(()) => {
            ctx.tell(Entry::of_cluster(EventKind::FaultEnded, format!("Fault {id} has ended.")).with("fault", id));
            Ok(())
        }
        Err(StoreError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reports these faults, by id with message and deduction, and withdraws the reported ones that are not among them.
pub(crate) async fn keep_all(
    ctx: &Context,
    wanted: BTreeMap<String, (String, u8)>,
    reported: Vec<String>,
) -> Result<(), StoreError> {
    let view = ctx.views.latest();
    for id in reported.iter().filter(|id| !wanted.contains_key(*id)) {
        withdraw(ctx, id).await?;
    }
    for (id, (message, delta)) in wanted {
        if view.faults().get(&id).is_none_or(|fault| fault.message != message) {
            report(ctx, id, message, delta, None).await?;
        }
    }
    Ok(())
}

/// Reports problems of the primary, while this node is the primary: failed services, with the reasons, among others.
/// Runs until dropped.
pub(crate) async fn of_primary(ctx: Arc<Context>, mut problems: watch::Receiver<Vec<(String, String)>>) {
    let mut views = ctx.views.subscribe();
    loop {
        ctx.membership().await;
        let view = views.borrow_and_update().clone();
        let failed = problems.borrow_and_update().clone();
        let mut done = true;
        if view.primary_node() == Some(ctx.me()) {
            if let Err(error) = clear(&ctx, faults::leftovers(&view)).await {
                tracing::debug!(%error, "cannot delete the faults of VMs and nodes that are not there any more");
                done = false;
            }
            for (id, wanted) in
                [(SERVICES, services_message(ctx.me(), &failed)), (ADDRESSES, differing(&view, ctx.me()))]
            {
                let is = view.faults().get(&id.to_owned()).map(|fault| fault.message.as_str());
                let outcome = match wanted {
                    Some(wanted) if is != Some(&wanted) => {
                        report(&ctx, id.to_owned(), wanted, PRIMARY_HEALTH_DELTA, None).await
                    }
                    None if is.is_some() => withdraw(&ctx, &id.to_owned()).await,
                    _ => Ok(()),
                };
                if let Err(error) = outcome {
                    tracing::debug!(%error, fault = id, "cannot report or withdraw a fault");
                    done = false;
                }
            }
        }
        let again = (!done).then(|| ctx.clock.now().after(RETRY));
        tokio::select! {
            biased;
            changed = differs(&mut views, &view, of_interest) => if changed.is_err() { return },
            Ok(()) = problems.changed() => {}
            () = ctx.clock.until(again) => {}
        }
    }
}

/// Whether two views differ in what these faults depend on.
fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    let fault = |view: &ClusterView, id: &str| view.faults().get(&id.to_owned()).cloned();
    !old.nodes.ptr_eq(&new.nodes)
        || old.primary != new.primary
        || faults::leftovers(old) != faults::leftovers(new)
        || [SERVICES, ADDRESSES].into_iter().any(|id| fault(old, id) != fault(new, id))
}

fn services_message(me: &NodeName, failed: &[(String, String)]) -> Option<String> {
    let each: Vec<String> = failed.iter().map(|(service, why)| format!("{service}: {why}")).collect();
    (!each.is_empty()).then(|| format!("The primary, {me}, lacks: {}. It keeps trying.", each.join("; ")))
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
            "The floating addresses in the configuration of {} are not those of the primary, {me}. Make [network] the \
             same on all coordinators, and restart their daemons.",
            others.join(", ")
        )
    })
}
