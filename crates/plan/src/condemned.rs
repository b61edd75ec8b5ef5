//! The fence of a node's present boot, and whether the node's power may be cut at any moment.

use drover_model::{ClusterView, Fence, FencePhase, NodeName, NodeView};

/// The fence of a node's present boot.
pub fn fence_of<'a>(view: &'a ClusterView, name: &NodeName, node: &NodeView) -> Option<&'a Fence> {
    let fence = view.fences().get(name).map(|fence| &fence.value)?;
    (view.fences().problem(name).is_none() && fence.is_of(&node.record.value)).then_some(fence)
}

/// Whether a node's power may be cut at any moment, as its fence says, although its daemon may be back: it waits, and
/// does nothing under its name, until that is over ([`crate::fence::returned`]). It is no target for VMs and no
/// witness.
pub fn is_condemned(view: &ClusterView, name: &NodeName, node: &NodeView) -> bool {
    let ordered = |fence: &Fence| fence.off_ordered && !fence.phase.is_proved() && fence.phase != FencePhase::Over;
    fence_of(view, name, node).is_some_and(ordered)
}
