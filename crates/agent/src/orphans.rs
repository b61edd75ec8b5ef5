//! Gives VMs whose node is not in the cluster any more another one, while this node is the primary (`plan::node`):
//! those that were defined in the moment of its removal, after it was decided.

use crate::{commands::Commands, context::Context, operation::scope, view::differs};
use drover_model::ClusterView;
use drover_plan::node;
use std::{sync::Arc, time::Duration};

/// Poll interval while there is one that no node can take, or that could not be written.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs until dropped.
pub(crate) async fn run(ctx: Arc<Context>) {
    let commands = Commands::new(ctx.clone());
    let mut views = ctx.views.subscribe();
    loop {
        ctx.membership().await;
        let view = views.borrow_and_update().clone();
        let primary = view.primary_node() == Some(ctx.me());
        let current = ctx.views.freshness().borrow().is_current();
        let mut left = !current;
        if primary && current {
            for (vm, gone) in node::orphans(&view) {
                let (uuid, name) = (vm.record.value.uuid, &vm.record.value.name);
                let Some(to) = node::heir(&view, vm) else {
                    tracing::debug!(vm = %name, %gone, "no node can take a VM of a node that was removed");
                    left = true;
                    continue;
                };
                // It may be deleted meanwhile, or the node may be back.
                let given = scope(Some(ctx.own_operation()), commands.give_to_heir(uuid, gone, to));
                if let Err(error) = given.await {
                    tracing::debug!(vm = %name, %gone, %error, "a VM of a removed node is not assigned to another");
                    left = true;
                }
            }
        }
        let again = (primary && left).then(|| ctx.clock.now().after(LOOK_AGAIN));
        tokio::select! {
            changed = differs(&mut views, &view, of_interest) => if changed.is_err() { return },
            () = ctx.clock.until(again) => {}
        }
    }
}

/// Whether there may be orphans in a view that there were not in an older one.
fn of_interest(old: &ClusterView, new: &ClusterView) -> bool {
    let is_orphan = |vm: &drover_model::VmView| node::is_orphan(new, vm);
    !old.nodes.ptr_eq(&new.nodes)
        || old.primary != new.primary
        || new.vms.changes(&old.vms).any(|uuid| new.vms.get(uuid).is_some_and(|vm| is_orphan(vm)))
}
