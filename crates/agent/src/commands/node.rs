//! Requests about nodes.

use super::{CommandError, Commands, Result};
use drover_model::{ClusterView, NodeName, layout};
use drover_plan::node;
use drover_store::{Op, StoreError, Version};

impl Commands {
    /// Removes a node that is gone for good, so that its name is free.
    pub async fn remove_node(&self, name: NodeName) -> Result<()> {
        let view = self.ctx.views.latest();
        let record = known(&view, &name)?;
        node::remove(&view, &name).map_err(|refusal| CommandError::Refused(refusal.to_string()))?;
        let mut ops = vec![Op::Delete(layout::node(&name), Some(Version(record)))];
        // Its session, if it has one by now, keeps its record from being deleted.
        if self.ctx.store.get(&layout::node_status(&name)).await?.is_some() {
            ops.insert(0, Op::Delete(layout::node_status(&name), None));
        }
        match self.ctx.store.multi(ops).await {
            Ok(()) => {
                tracing::info!(node = %name, "removed a node");
                self.shown(|view| !view.nodes.contains_key(&name)).await;
                Ok(())
            }
            Err(StoreError::Refused { .. }) => {
                Err(CommandError::Conflict(format!("node {name} has just changed or come back; look at it again")))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The version of a node's record.
fn known(view: &ClusterView, name: &NodeName) -> Result<i64> {
    view.nodes.get(name).map(|node| node.record.version).ok_or_else(|| {
        let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
        CommandError::NotFound(format!("there is no node {name}; there are {}", known.join(", ")))
    })
}
