//! The sender of a move: whether it can act. A VM whose holder is away holds up nobody else: it counts in no limit, and
//! no flush and no ready waits for it.

use drover_model::{ClusterView, DaemonState, NodeName, VmView};

/// The VM's holder, and the state of its daemon, if that does not run. Only the holder can send or stop a guest.
pub(crate) fn holder_away<'a>(view: &ClusterView, vm: &'a VmView) -> Option<(&'a NodeName, DaemonState)> {
    vm.holder().and_then(|holder| away(view, holder))
}

/// The node and the state of its daemon, if that does not run.
pub(crate) fn away<'a>(view: &ClusterView, node: &'a NodeName) -> Option<(&'a NodeName, DaemonState)> {
    let daemon = view.nodes.get(node).map_or(DaemonState::Dead, |node| node.daemon_state());
    (daemon != DaemonState::Run).then_some((node, daemon))
}
