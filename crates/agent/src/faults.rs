//! Faults: what a person should look at, reported once for each cause.
//!
//! Level-triggered, as everything here: each pass of a VM's task compares what is so with what is reported, so that a daemon that died in
//! between leaves no fault out and none behind.

use crate::{context::Context, records};
use drover_model::{Fault, RunState, Stored, VmRecord, VmState, cluster::CLUSTER_SCHEMA, layout};
use drover_store::{CreateMode, Op, Store, StoreError, Version};
use uuid::Uuid;

/// How much of the cluster's health a VM costs that cannot be kept running, in percent.
const VM_HEALTH_DELTA: u8 = 10;

/// The fault of a VM that was given up.
fn vm_failed_id(uuid: &Uuid) -> String {
    format!("vm-failed-{uuid}")
}

/// Reports a VM that was given up, and takes the report back when it runs again.
pub(crate) async fn of_vm(ctx: &Context, vm: &VmRecord, run: Option<RunState>) -> Result<(), StoreError> {
    let view = ctx.views.latest();
    let reported = view.faults.get(&vm_failed_id(&vm.uuid));
    match (&vm.state, reported) {
        (VmState::Fail { reason }, reported) => {
            let message = failed_message(vm, reason);
            if reported.is_some_and(|fault| fault.message == message) { Ok(()) } else { report(ctx, vm, message).await }
        }
        // It runs again, or somebody wants it off: then there is nothing to be mended.
        (state, Some(_)) if run == Some(RunState::Running) || matches!(state, VmState::Stop | VmState::Disable) => {
            match ctx.store.delete(&layout::fault(&vm_failed_id(&vm.uuid)), None).await {
                Ok(()) | Err(StoreError::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
        _ => Ok(()),
    }
}

fn failed_message(vm: &VmRecord, reason: &str) -> String {
    format!("VM {} was given up: {reason}. See 'drover vm log {}', mend it, and start it again.", vm.name, vm.name)
}

/// A fault that somebody acknowledged stays acknowledged until its cause is gone.
async fn report(ctx: &Context, vm: &VmRecord, message: String) -> Result<(), StoreError> {
    let id = vm_failed_id(&vm.uuid);
    let path = layout::fault(&id);
    let now = ctx.wall();
    let old: Option<Stored<Fault>> = records::read(&*ctx.store, &path).await?;
    if old.as_ref().is_some_and(|old| old.value.message == message) {
        return Ok(());
    }
    let fault = Fault {
        schema: CLUSTER_SCHEMA,
        id,
        message,
        health_delta: VM_HEALTH_DELTA,
        first_reported: old.as_ref().map_or(now, |f| f.value.first_reported),
        last_reported: now,
        acknowledged_at: old.as_ref().and_then(|f| f.value.acknowledged_at),
    };
    let data = records::encode(&fault)?;
    match old {
        Some(old) => ctx.store.set(&path, data, Version(old.version)).await.map(|_| ()),
        None => ctx.store.create(&path, data, CreateMode::Persistent).await.map(|_| ()),
    }
}

/// The step that takes a VM's fault away together with the VM, if it has one.
pub(crate) async fn removal(store: &dyn Store, uuid: &Uuid) -> Result<Option<Op>, StoreError> {
    let path = layout::fault(&vm_failed_id(uuid));
    Ok(store.get(&path).await?.map(|fault| Op::Delete(path, Some(fault.version))))
}
