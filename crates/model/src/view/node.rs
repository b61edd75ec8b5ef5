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
    /// Its configuration and wanted state.
    pub record: Kept<NodeRecord>,
    /// Its report.
    pub status: Option<Kept<NodeStatus>>,
    /// The session of its daemon.
    pub session: Option<Kept<NodeSession>>,
    /// Why one of them cannot be read; then the node is not a target for VMs.
    pub unreadable: Option<Arc<Unreadable>>,
}

impl NodeView {
    /// Joins the node's records from the shelves; `None`: there is no such node.
    pub(super) fn join(shelves: &Shelves, name: &NodeName) -> Option<NodeView> {
        let (record, status) = (shelves.of::<NodeRecord>(), shelves.of::<NodeStatus>());
        Some(NodeView {
            record: record.get(name)?.clone(),
            status: status.get(name).cloned(),
            session: shelves.of::<NodeSession>().get(name).cloned(),
            unreadable: record.problem(name).or(status.problem(name)).cloned(),
        })
    }

    /// The state of its daemon as seen by the others: a report counts only while its session lives.
    pub fn daemon_state(&self) -> DaemonState {
        match (&self.session, self.status.as_ref().map(|s| s.value.daemon)) {
            (Some(_), Some(state)) if state != DaemonState::Stop => state,
            (Some(_), _) => DaemonState::Init,
            (None, Some(DaemonState::Stop)) => DaemonState::Stop,
            (None, _) => DaemonState::Dead,
        }
    }

    /// Its state as a coordinator.
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
