//! Deletes console logs of VMs that do not exist any more, a while after them (`plan::consoles`).

use crate::context::Context;
use drover_drivers::{console::ConsoleLogs, hypervisor::Listing};
use drover_model::{Mono, RecordKind, VmRecord};
use drover_plan::consoles::{self, Orphans};
use drover_store::Store;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use uuid::Uuid;

/// Pause after a failure: of the folder, the hypervisor or the store.
const RETRY: Duration = Duration::from_secs(600);

/// Runs until dropped.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    let mut orphans = Orphans::default();
    loop {
        ctx.membership().await;
        let again = match pass(&ctx, &mut orphans).await {
            Ok(again) => again,
            Err(error) => {
                tracing::warn!(error, "cannot look for console logs of VMs that do not exist any more");
                ctx.clock.now().after(RETRY)
            }
        };
        ctx.clock.until(Some(again)).await;
    }
}

/// Looks once. Returns when to look again.
async fn pass(ctx: &Context, orphans: &mut Orphans) -> Result<Mono, String> {
    let logs = ctx.consoles.list().await.map_err(|error| error.to_string())?;
    let domains = match &*logs {
        [] => Listing::default(),
        // What cannot be observed is listed too.
        _ => ctx.hypervisor.domains().await.map_err(|error| error.to_string())?,
    };
    let domains: BTreeSet<_> = domains.ours.into_iter().map(|(uuid, _)| uuid).collect();
    let sweep = consoles::sweep(orphans, &ctx.views.latest(), &logs, &domains, ctx.clock.now());
    delete(&*ctx.store, &*ctx.consoles, &sweep.delete).await?;
    Ok(sweep.look_again)
}

/// Deletes the logs of these VMs, if the store too has no record of them: a VM that has just been defined may not be in
/// the view yet. Its record need not be readable.
async fn delete(store: &dyn Store, logs: &dyn ConsoleLogs, vms: &[Uuid]) -> Result<(), String> {
    if vms.is_empty() {
        return Ok(());
    }
    store.sync().await.map_err(|error| error.to_string())?;
    for vm in vms {
        if store.get(&VmRecord::path(vm)).await.map_err(|error| error.to_string())?.is_none() {
            logs.delete(*vm).await.map_err(|error| error.to_string())?;
            tracing::info!(%vm, "deleted the console log of a VM that does not exist any more");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_drivers::console::FakeLogs;
    use drover_store::{CreateMode, memory::MemoryCluster};

    #[tokio::test(start_paused = true)]
    async fn the_log_of_a_vm_that_the_store_has_stays() {
        let store = MemoryCluster::new(1).session(Duration::from_secs(4));
        let [defined, gone, other] = [1, 2, 3].map(Uuid::from_u128);
        store.create(&"/vms".parse().unwrap(), Vec::new(), CreateMode::Persistent).await.unwrap();
        store.create(&VmRecord::path(&defined), b"cannot be read".to_vec(), CreateMode::Persistent).await.unwrap();
        let logs = FakeLogs::default();
        [defined, gone, other].into_iter().for_each(|vm| logs.put(vm, Duration::ZERO));
        delete(&store, &logs, &[defined, gone]).await.unwrap();
        assert_eq!([defined, gone, other].map(|vm| logs.has(&vm)), [true, false, true]);
        // Without the store's word nothing is deleted.
        store.cut();
        assert!(delete(&store, &logs, &[other]).await.is_err());
        assert!(logs.has(&other));
    }
}
