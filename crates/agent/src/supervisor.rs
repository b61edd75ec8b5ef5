//! Runs one task for each VM that concerns this node, and wakes it when there is a reason to look.

use crate::{
    context::Context,
    duty::{self, Failures},
    published::Strays,
    vm,
};
use drover_drivers::hypervisor::Event;
use drover_model::{ClusterView, VmView};
use drover_plan::faults;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::{Id, JoinSet},
};
use uuid::Uuid;

/// Poll interval for everything: the most that a missed event can cost.
const RESCAN: Duration = Duration::from_secs(30);

struct Supervisor {
    ctx: Arc<Context>,
    /// Where the tasks publish their strays.
    strays: watch::Sender<Strays>,
    failures: Failures,
    tasks: JoinSet<(Uuid, u64)>,
    ids: BTreeMap<Id, Uuid>,
    wakers: BTreeMap<Uuid, watch::Sender<u64>>,
    /// The view of the last comparison.
    seen: Arc<ClusterView>,
    /// VMs whose task panicked. They get a new one at the next rescan, not at once, so that a task that always panics
    /// does not use up the processor.
    failed: BTreeSet<Uuid>,
}

/// Runs until dropped; the VMs' tasks are dropped with it.
pub(crate) async fn run(ctx: Arc<Context>, strays: watch::Sender<Strays>, failures: Failures) {
    let mut views = ctx.views.subscribe();
    let mut events = ctx.hypervisor.events();
    let mut domain_type = ctx.options.domain_type.clone();
    let mut connection = ctx.hypervisor.connection();
    let mut supervisor = Supervisor {
        ctx: ctx.clone(),
        strays,
        failures,
        tasks: JoinSet::new(),
        ids: BTreeMap::new(),
        wakers: BTreeMap::new(),
        seen: Arc::default(),
        failed: BTreeSet::new(),
    };
    // Decide nothing before the first complete view.
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    views.mark_changed();
    let mut rescan = Some(ctx.clock.now());
    // In a task of its own, so that a hanging hypervisor delays nothing else.
    let mut listing = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            changed = views.changed() => {
                if changed.is_err() { return }
                let view = views.borrow_and_update().clone();
                supervisor.look_at(view);
            }
            event = events.recv() => match event {
                Ok(Event::Domain(uuid)) => supervisor.wake(uuid),
                Ok(Event::Everything) | Err(RecvError::Lagged(_)) => rescan = Some(ctx.clock.now()),
                Err(RecvError::Closed) => return,
            },
            Ok(()) = domain_type.changed() => supervisor.wake_all(),
            Ok(()) = connection.changed() => supervisor.wake_all(),
            Some(ended) = supervisor.tasks.join_next_with_id() => supervisor.ended(ended),
            () = ctx.clock.until(rescan) => {
                rescan = Some(ctx.clock.now().after(RESCAN));
                supervisor.wake_all();
                // Their guests may be gone without a domain that is listed.
                faults::strays_of(&ctx.views.latest(), ctx.me()).into_iter().for_each(|uuid| supervisor.wake(uuid));
                std::mem::take(&mut supervisor.failed).into_iter().for_each(|uuid| supervisor.wake(uuid));
                if listing.is_empty() {
                    let hypervisor = ctx.hypervisor.clone();
                    listing.spawn(async move { hypervisor.domains().await });
                }
            }
            // A domain that is not in the view, yet or any more, gets a task too.
            Some(listed) = listing.join_next() => match listed {
                Ok(Ok(domains)) => domains.ours.into_iter().for_each(|(uuid, _)| supervisor.wake(uuid)),
                Ok(Err(error)) => tracing::debug!(%error, "cannot list the domains now"),
                Err(error) => tracing::error!(%error, "listing the domains failed"),
            }
        }
    }
}

impl Supervisor {
    /// Wakes the tasks of this node's VMs that changed since the last view.
    fn look_at(&mut self, view: Arc<ClusterView>) {
        let seen = std::mem::replace(&mut self.seen, view.clone());
        for uuid in view.vms.changes(&seen.vms) {
            let concerns = |vm: &Arc<VmView>| vm.concerns(self.ctx.me());
            if self.wakers.contains_key(uuid) || view.vms.get(uuid).is_some_and(concerns) {
                self.wake(*uuid);
            }
        }
    }

    /// Wakes a VM's task, or starts it.
    fn wake(&mut self, uuid: Uuid) {
        if self.failed.contains(&uuid) {
            return;
        }
        match self.wakers.get(&uuid) {
            Some(waker) => waker.send_modify(|n| *n += 1),
            None => {
                let (waker, woken) = watch::channel(0);
                self.wakers.insert(uuid, waker);
                self.spawn(uuid, woken);
            }
        }
    }

    fn wake_all(&mut self) {
        for waker in self.wakers.values() {
            waker.send_modify(|n| *n += 1);
        }
    }

    fn spawn(&mut self, uuid: Uuid, woken: watch::Receiver<u64>) {
        let (ctx, strays) = (self.ctx.clone(), self.strays.clone());
        let handle = self.tasks.spawn(async move { (uuid, vm::run(ctx, strays, uuid, woken).await) });
        self.ids.insert(handle.id(), uuid);
    }

    /// Removes a task that ended, or starts it again if it was woken after its last pass.
    fn ended(&mut self, ended: Result<(Id, (Uuid, u64)), tokio::task::JoinError>) {
        let (uuid, handled) = match ended {
            Ok((id, (uuid, handled))) => {
                self.ids.remove(&id);
                (uuid, handled)
            }
            Err(error) => {
                let Some(uuid) = self.ids.remove(&error.id()) else { return };
                self.failures.count(&format!("vm {uuid}"), &duty::panic_message(error));
                self.wakers.remove(&uuid);
                self.failed.insert(uuid);
                return;
            }
        };
        match self.wakers.get(&uuid) {
            Some(waker) if *waker.borrow() != handled => {
                let woken = waker.subscribe();
                self.spawn(uuid, woken);
            }
            _ => {
                self.wakers.remove(&uuid);
            }
        }
    }
}
