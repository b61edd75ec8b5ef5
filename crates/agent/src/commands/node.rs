//! Requests about nodes.

use super::{
    CommandError, Commands, Result,
    update::{Outcome, Write},
};
use crate::{belongings, records};
use drover_model::{ClusterView, DomainState, NodeName, NodeRecord, Only, Primary, Version};
use drover_plan::{drain, node, primary};
use drover_store::StoreError;

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
        let name = &name;
        self.update(&format!("node {name}"), || async move {
            let old = records::read::<NodeRecord>(&*self.ctx.store, name).await?;
            let view = self.view()?;
            known(&view, name)?;
            let Some(old) = old else { return Err(CommandError::NotFound(format!("there is no node {name}"))) };
            let next = drain::request(&view, name, old.value.domain_state, ready, force)?;
            if next == old.value.domain_state {
                return Ok(Outcome::Unchanged(next));
            }
            let new = NodeRecord { domain_state: next, ..old.value.clone() };
            let ops = vec![records::set_op(name, &old, &new)?];
            let said = format!("its wanted state is {next} (was {})", old.value.domain_state);
            let (name, version) = (name.clone(), old.version.next());
            let newer =
                move |view: &ClusterView| view.nodes.get(&name).is_none_or(|node| node.record.version >= version);
            Ok(Outcome::Write(Write { ops, answer: next, said, shows: Box::new(newer), taken: None }))
        })
        .await
    }

    /// Has a node become the primary, or hand that role over. Returns whether that changes anything.
    pub async fn set_coordinator_state(&self, name: &NodeName, primary: bool) -> Result<bool> {
        self.update("the role of the primary", || async move {
            let old = records::read::<Primary>(&*self.ctx.store, &Only).await?;
            let view = self.view()?;
            known(&view, name)?;
            let Some(old) = old else { return Err(primary::admit::Refusal::Vacant.into()) };
            let next = if primary {
                primary::admit::make_primary(&old.value, &view, name)?
            } else {
                primary::admit::make_secondary(&old.value, &view, name)?
            };
            let Some(next) = next else { return Ok(Outcome::Unchanged(false)) };
            let ops = vec![records::set_op(&Only, &old, &next)?];
            let said = format!("node {name} is to be {}", if primary { "the primary" } else { "a secondary" });
            let version = old.version.next();
            let newer = move |view: &ClusterView| view.primary.as_ref().is_some_and(|shown| shown.version >= version);
            Ok(Outcome::Write(Write { ops, answer: true, said, shows: Box::new(newer), taken: None }))
        })
        .await
    }

    /// What a flush of a node would do now.
    pub fn plan_flush(&self, name: &NodeName) -> Result<drain::Plan> {
        let view = self.view()?;
        known(&view, name)?;
        Ok(drain::evacuate(&view, name))
    }

    /// Removes a node that is gone for good, so that its name is free.
    pub async fn remove_node(&self, name: NodeName) -> Result<()> {
        let view = self.view()?;
        let record = known(&view, &name)?;
        node::remove(&view, &name).map_err(|refusal| CommandError::Refused(refusal.to_string()))?;
        let ops = belongings::of_node(&*self.ctx.store, &name, record).await?;
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
fn known(view: &ClusterView, name: &NodeName) -> Result<Version> {
    view.nodes.get(name).map(|node| node.record.version).ok_or_else(|| {
        let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
        CommandError::NotFound(format!("there is no node {name}; there are {}", known.join(", ")))
    })
}
