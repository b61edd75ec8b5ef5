//! Requests to pass the primary's role to another node.

use super::election::{heir, is_candidate};
use drover_model::{ClusterView, Handoff, NodeName, Phase, Primary, Role};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The node is a hypervisor only.
    #[error(
        "{0} is not a coordinator and cannot be the primary; coordinators are the nodes with role = \"coordinator\" in \
         their configuration file"
    )]
    NoCoordinator(NodeName),
    /// Its daemon does not run.
    #[error("{0} cannot become the primary: its daemon does not run")]
    Away(NodeName),
    /// There is no holder that could hand the role over.
    #[error("there is no primary at this moment; the coordinators are choosing one, try again in a few seconds")]
    Vacant,
    /// Another handoff has progressed too far to be replaced.
    #[error("the role is passing to {to} already (phase {phase}); try again when that is over")]
    Busy {
        /// The candidate.
        to: NodeName,
        /// Its phase.
        phase: Phase,
    },
    /// There is no other candidate.
    #[error("no other coordinator runs that could take over from {0}")]
    NoHeir(NodeName),
}

/// The record after a request to make `node` the primary; `None` if it is already, or is becoming it.
pub fn make_primary(record: &Primary, view: &ClusterView, node: &NodeName) -> Result<Option<Primary>, Refusal> {
    let able = view.nodes.get(node).ok_or_else(|| Refusal::Away(node.clone()))?;
    if able.record.value.role != Role::Coordinator {
        return Err(Refusal::NoCoordinator(node.clone()));
    }
    if record.candidate() == Some(node) && record.phase() != Some(Phase::Back) {
        return Ok(None);
    }
    // A handoff that has not begun can be replaced or cancelled.
    if let Some(Handoff { to, phase, .. }) = &record.handoff
        && *phase != Phase::Lock
    {
        return Err(Refusal::Busy { to: to.clone(), phase: *phase });
    }
    if record.is_held_by(node) {
        let taken_back = Primary { handoff: None, failed: None, ..record.clone() };
        return Ok(record.handoff.is_some().then_some(taken_back));
    }
    if record.holder.is_none() {
        return Err(Refusal::Vacant);
    }
    if !is_candidate(able) {
        return Err(Refusal::Away(node.clone()));
    }
    let handoff = Some(Handoff { to: node.clone(), phase: Phase::Lock, why: String::new() });
    Ok(Some(Primary { handoff, failed: None, ..record.clone() }))
}

/// The record after a request to make `node` a secondary; `None` if it is already.
pub fn make_secondary(record: &Primary, view: &ClusterView, node: &NodeName) -> Result<Option<Primary>, Refusal> {
    if view.nodes.get(node).is_some_and(|n| n.record.value.role != Role::Coordinator) {
        return Err(Refusal::NoCoordinator(node.clone()));
    }
    match &record.handoff {
        Some(Handoff { to, phase: Phase::Lock, .. }) if to == node => {
            Ok(Some(Primary { handoff: None, failed: None, ..record.clone() }))
        }
        Some(Handoff { to, phase: Phase::Stop | Phase::Take, .. }) if to == node => {
            let why = "it was asked to stay secondary".to_owned();
            let handoff = Some(Handoff { to: to.clone(), phase: Phase::Back, why });
            Ok(Some(Primary { handoff, ..record.clone() }))
        }
        Some(Handoff { to, phase, .. }) if to == node && *phase != Phase::Back => {
            Err(Refusal::Busy { to: to.clone(), phase: *phase })
        }
        // The holder is giving it away, or another node is.
        Some(_) => Ok(None),
        None if record.is_held_by(node) => {
            let to = heir(view, node).ok_or_else(|| Refusal::NoHeir(node.clone()))?;
            make_primary(record, view, &to)
        }
        None => Ok(None),
    }
}
