//! What a node is when it is back after its VMs were given to others: flushed until an administrator makes it ready, or
//! ready by itself, as the policy says ([`OnReturn`]).
//!
//! The node is flushed in the step that begins the recovery, and its record says then whether it is to become ready
//! again ([`NodeRecord::then_ready`]): it was ready, and that was the policy. Any order about the node takes that back,
//! so nothing that an administrator has ordered is undone. The node itself becomes ready when it is back and nothing of
//! its lost VMs is left on it, by the same request as an administrator's.
//!
//! In maintenance it waits, as nothing about nodes that were off is done by itself then. A node that was said to be
//! gone for good stays flushed, and so does one that is back in the very boot that was proved to have ended: how it is
//! fenced is wrong, and somebody must look at it first.

use drover_model::{
    ClusterConfig, ClusterView, Fence, FencePhase, NodeName, NodeRecord, NodeState, OnReturn, WallTime,
};
use uuid::Uuid;

/// The record of a node that is off, whose VMs are given to others from now on.
pub fn taken_out(record: &NodeRecord, config: &ClusterConfig, fence: &Fence) -> NodeRecord {
    NodeRecord { domain_state: NodeState::Flushed, then_ready: will_be_ready(record, config, fence), ..record.clone() }
}

/// Whether a node that is off becomes ready by itself when it is back, as things are now. One that was lost once more
/// before it was ready again still does.
pub fn will_be_ready(record: &NodeRecord, config: &ClusterConfig, fence: &Fence) -> bool {
    let was_ready = match record.domain_state {
        NodeState::Ready | NodeState::Unflush => true,
        NodeState::Flushed => record.then_ready,
        NodeState::Flush => false,
    };
    was_ready && !fence.for_good && record.effective_on_return(config) == OnReturn::Ready
}

/// The record of a node with the state that somebody has ordered. The order counts, and no policy.
pub fn ordered(record: &NodeRecord, state: NodeState) -> NodeRecord {
    NodeRecord { domain_state: state, then_ready: false, ..record.clone() }
}

/// What becomes of this node, which is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is not to become ready by itself.
    Nothing,
    /// It stays flushed: the policy has changed since, or its fence says that somebody must look at it first. That is
    /// decided once.
    Stays,
    /// It is to become ready, and something has to end first.
    Waits,
    /// It is made ready.
    Ready,
}

/// Decides for a node that is a member of the cluster. `record`: its own, as it is in the store. `ours`: the domains of
/// Drover's that its hypervisor lists, running or not; also those that cannot be observed.
pub fn next(view: &ClusterView, record: &NodeRecord, ours: impl IntoIterator<Item = Uuid>, now: WallTime) -> Next {
    if record.domain_state != NodeState::Flushed || !record.then_ready {
        return Next::Nothing;
    }
    let doubtful = view.fences().get(&record.name).is_some_and(|fence| {
        let fence = &fence.value;
        let proved = fence.phase.is_proved() || fence.phase == FencePhase::Over;
        fence.for_good || proved && fence.is_of(record)
    });
    if doubtful || record.effective_on_return(&view.config) != OnReturn::Ready {
        return Next::Stays;
    }
    let waits = view.config.is_in_maintenance(now) || ours.into_iter().any(|uuid| is_left(view, &record.name, &uuid));
    if waits { Next::Waits } else { Next::Ready }
}

/// Whether a domain on a node is of a VM that is not the node's any more, and does not come to it: the VM's task
/// removes it. A domain of whose VM there is no record is left alone, and is waited for by nobody.
fn is_left(view: &ClusterView, node: &NodeName, uuid: &Uuid) -> bool {
    view.vms.get(uuid).is_some_and(|vm| !vm.is_held_by(node) && vm.sent_to() != Some(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::testing::*;
    use drover_model::{Only, RecordKind, Version};

    fn config(on_return: OnReturn) -> ClusterConfig {
        ClusterConfig { on_return, ..ClusterConfig::default() }
    }

    fn record(domain_state: NodeState, then_ready: bool) -> NodeRecord {
        NodeRecord { domain_state, then_ready, ..node("a", 8).booted("b2").record.value.clone() }
    }

    /// The fence of the boot that `record` is in.
    fn fence(phase: FencePhase) -> Fence {
        let record = record(NodeState::Flushed, true);
        Fence::suspicion(&record, &name("b"), drover_model::Epoch(1), WallTime(5)).to(phase, WallTime(5))
    }

    #[test]
    fn a_node_whose_proof_was_false_or_that_was_gone_for_good_stays_flushed() {
        let back = record(NodeState::Flushed, true);
        let now_false = fence(FencePhase::Over);
        let earlier = Fence { boot: "b1".to_owned(), ..now_false.clone() };
        let for_good = Fence { for_good: true, ..earlier.clone() };
        for (fence, wanted) in [(earlier, Next::Ready), (now_false, Next::Stays), (for_good, Next::Stays)] {
            let mut view = cluster(vec![node("a", 8), node("b", 8)], vec![]);
            for (path, bytes) in [
                (ClusterConfig::path(&Only), serde_json::to_vec(&config(OnReturn::Ready)).unwrap()),
                (Fence::path(&name("a")), serde_json::to_vec(&fence).unwrap()),
            ] {
                view.apply(&path, Some((&bytes, Version(1))));
            }
            assert_eq!(next(&view, &back, [], WallTime(5)), wanted, "{fence:?}");
        }
    }

    #[test]
    fn only_a_node_that_was_ready_is_to_become_ready_again_and_only_by_the_policy() {
        use NodeState::*;
        for (was, before, again) in [
            (Ready, false, true),
            (Unflush, false, true),
            (Flush, false, false),
            (Flushed, false, false),
            // It was lost once more before it had become ready.
            (Flushed, true, true),
        ] {
            let out = |policy| taken_out(&record(was, before), &config(policy), &fence(FencePhase::Proved));
            let gone = Fence { for_good: true, ..fence(FencePhase::Proved) };
            assert!(!taken_out(&record(was, before), &config(OnReturn::Ready), &gone).then_ready, "gone for good");
            let ready = out(OnReturn::Ready);
            assert_eq!((ready.domain_state, ready.then_ready), (Flushed, again), "{was} {before}");
            let flushed = out(OnReturn::Flushed);
            assert_eq!((flushed.domain_state, flushed.then_ready), (Flushed, false), "{was} {before}: the default");
        }
        for (all, own, again) in [
            (OnReturn::Ready, Some(OnReturn::Flushed), false),
            (OnReturn::Flushed, Some(OnReturn::Ready), true),
            (OnReturn::Ready, None, true),
        ] {
            let record = NodeRecord { on_return: own, ..record(Ready, false) };
            let then_ready = taken_out(&record, &config(all), &fence(FencePhase::Proved)).then_ready;
            assert_eq!(then_ready, again, "{all:?} {own:?}");
        }
    }

    #[test]
    fn an_order_about_the_node_counts_and_not_the_policy() {
        let waiting = record(NodeState::Flushed, true);
        for state in [NodeState::Flushed, NodeState::Unflush] {
            let new = ordered(&waiting, state);
            assert_eq!((new.domain_state, new.then_ready), (state, false));
        }
    }

    #[test]
    fn it_becomes_ready_when_nothing_of_its_lost_vms_is_left_on_it() {
        let mut coming = running(3, "b", 64);
        if let Some(claim) = &mut coming.claim {
            claim.value.to = Some(name("a"));
        }
        let vms = vec![running(1, "a", 64), running(2, "b", 64), coming, vm(4, 64).on("a")];
        let mut view = cluster(vec![node("a", 8), node("b", 8)], vms);
        let mut set = |config: ClusterConfig| {
            view.apply(&ClusterConfig::path(&Only), Some((&serde_json::to_vec(&config).unwrap(), Version(1))));
            view.clone()
        };
        let (ready, flushed) = (set(config(OnReturn::Ready)), set(config(OnReturn::Flushed)));
        let busy = set(ClusterConfig { maintenance: true, ..config(OnReturn::Ready) });
        let next = |view: &ClusterView, record: &NodeRecord, listed: &[u128]| {
            next(view, record, listed.iter().map(|n| Uuid::from_u128(*n)), WallTime(5))
        };
        let back = record(NodeState::Flushed, true);
        for (listed, wanted) in [
            (&[][..], Next::Ready),
            (&[1], Next::Ready),  // its own: no other node could take it
            (&[3], Next::Ready),  // it is coming
            (&[99], Next::Ready), // there is no record of it
            (&[2], Next::Waits),
            (&[1, 2], Next::Waits),
            (&[4], Next::Waits), // nobody holds it
        ] {
            assert_eq!(next(&ready, &back, listed), wanted, "{listed:?}");
            let stays = next(&flushed, &back, listed);
            assert_eq!(stays, Next::Stays, "the policy was changed while it was off");
        }
        assert_eq!(next(&busy, &back, &[]), Next::Waits, "in maintenance");
        for other in [record(NodeState::Flushed, false), record(NodeState::Flush, true), record(NodeState::Ready, true)]
        {
            assert_eq!(next(&ready, &other, &[]), Next::Nothing, "{other:?}");
        }
    }
}
