//! Faults: what a person should look at, reported once for each cause.

use crate::{context::Context, records};
use drover_model::{Fault, Stored, VmRecord, cluster::CLUSTER_SCHEMA, layout};
use drover_store::{CreateMode, StoreError, Version};
use uuid::Uuid;

/// How much of the cluster's health a VM costs that cannot be kept running, in percent.
const VM_HEALTH_DELTA: u8 = 10;

/// The fault of a VM that was given up.
pub(crate) fn vm_failed_id(uuid: &Uuid) -> String {
    format!("vm-failed-{uuid}")
}

/// Reports that a VM was given up. A fault that is known already is only marked as seen again.
pub(crate) async fn vm_failed(ctx: &Context, vm: &VmRecord, reason: &str) -> Result<(), StoreError> {
    let id = vm_failed_id(&vm.uuid);
    let path = layout::fault(&id);
    let now = ctx.wall();
    let message =
        format!("VM {} was given up: {reason}. See 'drover vm log {}', mend it, and start it again.", vm.name, vm.name);
    let old: Option<Stored<Fault>> = records::read(&*ctx.store, &path).await?;
    let fault = Fault {
        schema: CLUSTER_SCHEMA,
        id,
        message,
        health_delta: VM_HEALTH_DELTA,
        first_reported: old.as_ref().map_or(now, |f| f.value.first_reported),
        last_reported: now,
        acknowledged_at: None,
    };
    let data = records::encode(&fault)?;
    match old {
        Some(old) => ctx.store.set(&path, data, Version(old.version)).await.map(|_| ()),
        None => ctx.store.create(&path, data, CreateMode::Persistent).await.map(|_| ()),
    }
}

/// Takes a VM's fault back: it runs again, or is gone.
pub(crate) async fn vm_well(ctx: &Context, uuid: &Uuid) -> Result<(), StoreError> {
    if !ctx.views.latest().faults.contains_key(&vm_failed_id(uuid)) {
        return Ok(());
    }
    match ctx.store.delete(&layout::fault(&vm_failed_id(uuid)), None).await {
        Ok(()) | Err(StoreError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
