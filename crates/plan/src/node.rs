//! Whether a request about a node is allowed.

use drover_model::{ClusterView, DaemonState, NodeName};

/// Why a request about a node is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its daemon may be there.
    #[error("node {node} is there: its daemon is in state {daemon}; stop it first")]
    Present {
        /// The node.
        node: NodeName,
        /// What its daemon does.
        daemon: DaemonState,
    },
    /// VMs belong to it, or may even run there.
    #[error("node {node} has VMs that {}: {vms}; move or undefine them first", if *held { "may still run there" } else { "are assigned to it" })]
    HasVms {
        /// The node.
        node: NodeName,
        /// Their names.
        vms: String,
        /// Whether it has a claim on them.
        held: bool,
    },
}

/// Whether a node may be removed from the cluster: nobody is there, and nothing is left of it that matters.
pub fn remove(view: &ClusterView, name: &NodeName) -> Result<(), Refusal> {
    let Some(node) = view.nodes.get(name) else { return Ok(()) };
    let daemon = node.daemon_state();
    if !matches!(daemon, DaemonState::Dead | DaemonState::Stop) {
        return Err(Refusal::Present { node: name.clone(), daemon });
    }
    let names = |concerns: &dyn Fn(&drover_model::VmView) -> bool| {
        let found = view.vms_of(name).filter(|vm| concerns(vm)).map(|vm| vm.record.value.name.to_string());
        Some(found.collect::<Vec<_>>().join(", ")).filter(|names| !names.is_empty())
    };
    let refuse = |vms, held| Err(Refusal::HasVms { node: name.clone(), vms, held });
    let may_run = |vm: &drover_model::VmView| vm.is_held_by(name) || vm.sent_to() == Some(name);
    if let Some(vms) = names(&may_run) {
        return refuse(vms, true);
    }
    let wanted = |vm: &drover_model::VmView| {
        let record = &vm.record.value;
        record.node.as_ref() == Some(name) || record.state.destination() == Some(name)
    };
    if let Some(vms) = names(&wanted) {
        return refuse(vms, false);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::{cluster, name, node, vm};
    use drover_model::VmState;

    #[test]
    fn only_a_node_that_is_gone_and_has_nothing_is_removed() {
        let gone = |n| drover_model::NodeView { session: None, ..node(n, 8) };
        assert!(matches!(remove(&cluster(vec![node("a", 8)], vec![]), &name("a")), Err(Refusal::Present { .. })));
        assert_eq!(remove(&cluster(vec![gone("a")], vec![]), &name("a")), Ok(()));
        let held = vm(1, VmState::Stop, "b", Some("a"), 64);
        let refusal = remove(&cluster(vec![gone("a")], vec![held]), &name("a")).unwrap_err();
        assert_eq!(refusal.to_string(), "node a has VMs that may still run there: vm1; move or undefine them first");
        let mut coming = vm(1, VmState::Start, "b", Some("b"), 64);
        if let Some(claim) = &mut coming.claim {
            claim.value.to = Some(name("a"));
        }
        let refusal = remove(&cluster(vec![gone("a")], vec![coming]), &name("a")).unwrap_err();
        assert!(matches!(refusal, Refusal::HasVms { held: true, .. }), "it may be there by now");
        let assigned = vm(1, VmState::Stop, "a", None, 64);
        let refusal = remove(&cluster(vec![gone("a")], vec![assigned]), &name("a")).unwrap_err();
        assert_eq!(refusal.to_string(), "node a has VMs that are assigned to it: vm1; move or undefine them first");
    }
}
