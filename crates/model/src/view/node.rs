//! A node's records, joined.

use crate::{
    name::NodeName,
    node::{CoordinatorState, DaemonState, NodeRecord, NodeSession, NodeStatus, Role},
    primary::{Phase, Primary},
    record::{Kept, Unreadable},
    shelf::Shelves,
};
use std::sync::Arc;

/// A node's three records.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// What it is meant to be.
    pub record: Kept<NodeRecord>,
    /// What it reports.
    pub status: Option<Kept<NodeStatus>>,
    /// Its daemon's sign of life.
    pub session: Option<Kept<NodeSession>>,
    /// Why one of them cannot be read: then it is no target for VMs.
    pub unreadable: Option<Arc<Unreadable>>,
}

impl NodeView {
    /// Joins what is on the shelves; `None`: there is no such node.
    pub(super) fn join(shelves: &Shelves, name: &NodeName) -> Option<NodeView> {
        let (record, status) = (shelves.of::<NodeRecord>(), shelves.of::<NodeStatus>());
        Some(NodeView {
            record: record.get(name)?.clone(),
            status: status.get(name).cloned(),
            session: shelves.of::<NodeSession>().get(name).cloned(),
            unreadable: record.problem(name).or(status.problem(name)).cloned(),
        })
    }

    /// What its daemon does, as the others see it: a report counts while its session lives.
    pub fn daemon_state(&self) -> DaemonState {
        match (&self.session, self.status.as_ref().map(|s| s.value.daemon)) {
            (Some(_), Some(state)) if state != DaemonState::Stop => state,
            (Some(_), _) => DaemonState::Init,
            (None, Some(DaemonState::Stop)) => DaemonState::Stop,
            (None, _) => DaemonState::Dead,
        }
    }

    /// The part that it plays.
    pub fn coordinator_state(&self, primary: &Primary) -> CoordinatorState {
        let me = &self.record.value.name;
        let passing = primary.phase().is_some_and(|phase| !matches!(phase, Phase::Lock | Phase::Back));
        if primary.is_held_by(me) {
            if passing { CoordinatorState::Relinquish } else { CoordinatorState::Primary }
        } else if primary.candidate() == Some(me) && primary.phase() != Some(Phase::Back) {
            CoordinatorState::Takeover
        } else {
            match self.record.value.role {
                Role::Hypervisor => CoordinatorState::Client,
                Role::Coordinator => CoordinatorState::Secondary,
            }
        }
    }
}
