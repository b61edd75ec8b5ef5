//! Guests that other nodes report.

use drover_model::{Claim, ClusterView, DaemonState, Epoch, NodeName, NodeStatus, Stray};
use uuid::Uuid;

/// Whether a guest with that mark may be the VM's present one: of the last grant, of a later one, or the one that this
/// grant adopts. (That of the next grant arrives by a migration of Drover's, or is what such a migration left.)
pub(super) fn may_be_present(claim: &Claim, mark: Epoch) -> bool {
    mark >= claim.epoch && mark != claim.epoch.next() || claim.adopts == Some(mark)
}

/// A guest of the VM that another node reports, without having the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// That node.
    pub node: NodeName,
    /// The grant in the guest's mark.
    pub epoch: Epoch,
    /// Whether the node's daemon is alive, so that the report is current.
    pub alive: bool,
    /// Whether somebody had it paused there.
    pub paused: bool,
}

impl Elsewhere {
    /// The guest of that UUID that another node than `me` reports and that `counts`; of several, that of the latest
    /// grant, and of these one that is not paused.
    pub fn find(
        view: &ClusterView,
        me: &NodeName,
        uuid: &Uuid,
        counts: impl Fn(&Elsewhere) -> bool,
    ) -> Option<Elsewhere> {
        let of = |status: &NodeStatus| status.strays.iter().find(|stray| stray.uuid == *uuid).cloned();
        let others = view.nodes.iter().filter(|(name, _)| *name != me);
        let found = others.filter_map(|(name, node)| {
            let alive = !matches!(node.daemon_state(), DaemonState::Dead | DaemonState::Stop);
            let Stray { epoch, paused, .. } = of(node.status.as_ref()?)?;
            Some(Elsewhere { node: name.clone(), epoch, alive, paused })
        });
        found.filter(counts).max_by_key(|other| (other.epoch, !other.paused))
    }

    /// Whether it may be the VM's guest, or is one of a store that was lost. A paused one is not taken for it, as its
    /// own node does not (`strays`); but that may not have known the claim yet when it reported.
    pub fn counts(&self, claim: &Claim) -> bool {
        let lost = claim.never_granted() || claim.is_of_another_store(self.epoch);
        lost || !self.paused && may_be_present(claim, self.epoch)
    }
}
