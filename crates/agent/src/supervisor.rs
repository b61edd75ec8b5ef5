//! Gives each VM that concerns this node its task, and rings its bell when there is a reason to look.

use crate::{context::Context, duty, vm};
use drover_drivers::hypervisor::Event;
use drover_model::{ClusterView, VmView};
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

/// Everything is looked at again after so long without an event. A missed event costs this time at most.
const RESCAN: Duration = Duration::from_secs(30);

struct Supervisor {
    ctx: Arc<Context>,
    tasks: JoinSet<(Uuid, u64)>,
    ids: BTreeMap<Id, Uuid>,
    bells: BTreeMap<Uuid, watch::Sender<u64>>,
    /// The view that was looked at last.
    seen: Arc<ClusterView>,
    /// VMs whose task failed: they get another at the next rescan, not at once, lest it fail all the time.
    failed: BTreeSet<Uuid>,
}

/// Runs until dropped; the VMs' tasks are dropped with it.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut views = ctx.views.subscribe();
    let mut events = ctx.hypervisor.events();
    let mut domain_type = ctx.options.domain_type.clone();
    let mut connection = ctx.hypervisor.connection();
    let mut supervisor = Supervisor {
        ctx: ctx.clone(),
        tasks: JoinSet::new(),
        ids: BTreeMap::new(),
        bells: BTreeMap::new(),
        seen: Arc::default(),
        failed: BTreeSet::new(),
    };
    // Nothing is decided before the first whole view is there.
    let mut freshness = ctx.views.freshness();
    if freshness.wait_for(|f| f.is_loaded()).await.is_err() {
        return;
    }
    views.mark_changed();
    let mut rescan = Some(ctx.clock.now());
    // Beside the loop, so that a hypervisor that hangs delays nothing else.
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
                Ok(Event::Domain(uuid)) => supervisor.ring(uuid),
                Ok(Event::Everything) | Err(RecvError::Lagged(_)) => rescan = Some(ctx.clock.now()),
                Err(RecvError::Closed) => return,
            },
            Ok(()) = domain_type.changed() => supervisor.ring_all(),
            Ok(()) = connection.changed() => supervisor.ring_all(),
            Some(ended) = supervisor.tasks.join_next_with_id() => supervisor.ended(ended),
            () = ctx.clock.until(rescan) => {
                rescan = Some(ctx.clock.now().after(RESCAN));
                supervisor.ring_all();
                std::mem::take(&mut supervisor.failed).into_iter().for_each(|uuid| supervisor.ring(uuid));
                if listing.is_empty() {
                    let hypervisor = ctx.hypervisor.clone();
                    listing.spawn(async move { hypervisor.domains().await });
                }
            }
            // What runs here and is not in the view yet, or no more, has a task too.
            Some(listed) = listing.join_next() => match listed {
                Ok(Ok(domains)) => domains.into_iter().for_each(|(uuid, _)| supervisor.ring(uuid)),
                Ok(Err(error)) => tracing::debug!(%error, "cannot list the domains now"),
                Err(error) => tracing::error!(%error, "listing the domains failed"),
            }
        }
    }
}

impl Supervisor {
    /// Rings for every VM of this node that changed in the view since the last look.
    fn look_at(&mut self, view: Arc<ClusterView>) {
        let seen = std::mem::replace(&mut self.seen, view.clone());
        for uuid in view.vms.changes(&seen.vms) {
            let concerns = |vm: &Arc<VmView>| vm.concerns(self.ctx.me());
            if self.bells.contains_key(uuid) || view.vms.get(uuid).is_some_and(concerns) {
                self.ring(*uuid);
            }
        }
    }

    /// Rings a VM's bell, and starts its task if it has none.
    fn ring(&mut self, uuid: Uuid) {
        if self.failed.contains(&uuid) {
            return;
        }
        match self.bells.get(&uuid) {
            Some(bell) => bell.send_modify(|n| *n += 1),
            None => {
                let (bell, listen) = watch::channel(0);
                self.bells.insert(uuid, bell);
                self.spawn(uuid, listen);
            }
        }
    }

    fn ring_all(&mut self) {
        for bell in self.bells.values() {
            bell.send_modify(|n| *n += 1);
        }
    }

    fn spawn(&mut self, uuid: Uuid, listen: watch::Receiver<u64>) {
        let ctx = self.ctx.clone();
        let handle = self.tasks.spawn(async move { (uuid, vm::run(ctx, uuid, listen).await) });
        self.ids.insert(handle.id(), uuid);
    }

    /// A task ended: for good, unless its bell was rung after it last looked.
    fn ended(&mut self, ended: Result<(Id, (Uuid, u64)), tokio::task::JoinError>) {
        let (uuid, answered) = match ended {
            Ok((id, (uuid, answered))) => {
                self.ids.remove(&id);
                (uuid, answered)
            }
            Err(error) => {
                let Some(uuid) = self.ids.remove(&error.id()) else { return };
                self.ctx.failures.count(&format!("vm {uuid}"), &duty::said(error));
                self.bells.remove(&uuid);
                self.failed.insert(uuid);
                return;
            }
        };
        match self.bells.get(&uuid) {
            Some(bell) if *bell.borrow() != answered => {
                let listen = bell.subscribe();
                self.spawn(uuid, listen);
            }
            _ => {
                self.bells.remove(&uuid);
            }
        }
    }
}
