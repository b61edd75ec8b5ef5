//! Requests about nodes.

use super::{CommandError, Commands, Result};
use crate::records;
use drover_model::{ClusterView, DomainState, NodeName, NodeRecord, NodeView, Primary, Stored, layout};
use drover_plan::{drain, node, primary};
use drover_store::{Op, StoreError, Version};
use std::sync::Arc;

impl From<drain::Refusal> for CommandError {
    fn from(refusal: drain::Refusal) -> CommandError {
        CommandError::Refused(refusal.to_string())
    }
}

impl From<primary::admit::Refusal> for CommandError {
    fn from(refusal: primary::admit::Refusal) -> CommandError {
        CommandError::Refused(refusal.to_string())
    }
}

impl Commands {
    /// Has a node emptied, or made ready. Replaces whatever of the two is under way at once.
    pub async fn set_domain_state(&self, name: NodeName, ready: bool, force: bool) -> Result<DomainState> {
        for _ in 0..super::TRIES {
            let path = layout::node(&name);
            let old: Option<Stored<NodeRecord>> = records::read(&*self.ctx.store, &path).await?;
            let mut view = ClusterView::clone(&*self.view()?);
            known(&view, &name)?;
            let Some(old) = old else { return Err(CommandError::NotFound(format!("there is no node {name}"))) };
            if let Some(node) = view.nodes.get_mut(&name) {
                Arc::make_mut(node).record = old.clone();
            }
            let next = drain::request(&view, &name, ready, force)?;
            if next == old.value.domain_state {
                return Ok(next);
            }
            let new = NodeRecord { domain_state: next, ..old.value.clone() };
            match self.ctx.store.set(&path, records::encode(&new)?, Version(old.version)).await {
                Ok(version) => {
                    tracing::info!(node = %name, from = %old.value.domain_state, to = %next, "a node's wanted state");
                    let newer = |node: &Arc<NodeView>| node.record.version >= version.0;
                    self.shown(|view| view.nodes.get(&name).is_none_or(newer)).await;
                    return Ok(next);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommandError::Conflict(format!("node {name} is being changed by others all the time; try again")))
    }

    /// Has a node become the primary, or hand that role over. Returns whether that changes anything.
    pub async fn set_coordinator_state(&self, name: &NodeName, primary: bool) -> Result<bool> {
        let path = layout::primary();
        for _ in 0..super::TRIES {
            let old: Option<Stored<Primary>> = records::read(&*self.ctx.store, &path).await?;
            let view = self.view()?;
            known(&view, name)?;
            let Some(old) = old else { return Err(primary::admit::Refusal::Vacant.into()) };
            let next = if primary {
                primary::admit::make_primary(&old.value, &view, name)?
            } else {
                primary::admit::make_secondary(&old.value, &view, name)?
            };
            let Some(next) = next else { return Ok(false) };
            match self.ctx.store.set(&path, records::encode(&next)?, Version(old.version)).await {
                Ok(version) => {
                    tracing::info!(node = %name, primary, handoff = ?next.handoff, "the role of the primary is to pass on");
                    self.shown(|view| view.primary.as_ref().is_some_and(|shown| shown.version >= version.0)).await;
                    return Ok(true);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommandError::Conflict("who is the primary is being changed all the time; try again".to_owned()))
    }

    /// What a flush of a node would do now.
    pub fn plan_flush(&self, name: &NodeName) -> Result<drain::Plan> {
        let mut view = ClusterView::clone(&*self.view()?);
        known(&view, name)?;
        // As it would be then: the node takes no VMs.
        if let Some(node) = view.nodes.get_mut(name) {
            Arc::make_mut(node).record.value.domain_state = DomainState::Flush;
        }
        Ok(drain::evacuate(&view, name))
    }

    /// Removes a node that is gone for good, so that its name is free.
    pub async fn remove_node(&self, name: NodeName) -> Result<()> {
        let view = self.view()?;
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
