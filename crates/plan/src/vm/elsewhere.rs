//! Guests that other nodes report.

use drover_model::{ClusterView, DaemonState, Epoch, NodeName, NodeStatus};
use uuid::Uuid;

/// A guest of the VM that another node reports, without having the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// That node.
    pub node: NodeName,
    /// The grant in the guest's mark.
    pub epoch: Epoch,
    /// Whether the node's daemon is alive, so that the report is current.
    pub alive: bool,
}

impl Elsewhere {
    /// The guest of that UUID that another node than `me` reports; of several, that of the latest grant.
    pub fn find(view: &ClusterView, me: &NodeName, uuid: &Uuid) -> Option<Elsewhere> {
        let of = |status: &NodeStatus| status.strays.iter().find(|stray| stray.uuid == *uuid).map(|stray| stray.epoch);
        let others = view.nodes.iter().filter(|(name, _)| *name != me);
        let found = others.filter_map(|(name, node)| {
            let alive = !matches!(node.daemon_state(), DaemonState::Dead | DaemonState::Stop);
            Some(Elsewhere { node: name.clone(), epoch: of(node.status.as_ref()?)?, alive })
        });
        found.max_by_key(|other| other.epoch)
    }
}
