//! Who checks a new definition: a hypervisor must say whether it accepts it, and not only when the VM is started.
//!
//! A request may come to any node, and nodes do not call each other. So the node that has the request asks its own
//! hypervisor, also for another node's VM, if both have the same: the nodes of a cluster are alike.

use drover_model::{ClusterView, NodeName};

/// Whether the hypervisor of the node `at` can say what that of `node` would; if not, why.
pub fn can_judge(view: &ClusterView, at: &NodeName, node: &NodeName) -> Result<(), String> {
    if at == node {
        return Ok(());
    }
    let has = |name: &NodeName| {
        let status = view.nodes.get(name).and_then(|node| node.status.as_ref());
        status.map(|status| status.value.hypervisor.clone()).filter(|version| !version.is_empty())
    };
    match (has(node), has(at)) {
        (Some(theirs), Some(own)) if theirs == own => Ok(()),
        (Some(theirs), Some(own)) => {
            Err(format!("node {node} has {theirs}, and node {at}, which has the request, {own}"))
        }
        (None, _) => Err(format!("the hypervisor of node {node} is not known")),
        (_, None) => Err(format!("the hypervisor of node {at}, which has the request, is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{
        NodeStatus, NodeView,
        testing::{cluster, kept, name, node},
    };

    #[test]
    fn a_like_hypervisor_can_judge() {
        let versions = [("n1", "QEMU 7.2"), ("n2", "QEMU 7.2"), ("n3", "QEMU 8.0"), ("n4", "")];
        let nodes = versions.map(|(n, version)| NodeView {
            status: Some(kept(NodeStatus {
                hypervisor: version.to_owned(),
                ..node(n, 1).status.unwrap().value.clone()
            })),
            ..node(n, 1)
        });
        let view = cluster(nodes.into(), Vec::new());
        let says = |at: u32, of: u32| can_judge(&view, &name(&format!("n{at}")), &name(&format!("n{of}")));
        assert_eq!((says(1, 1), says(1, 2), says(4, 4), says(9, 9)), (Ok(()), Ok(()), Ok(()), Ok(())));
        assert!(says(1, 3).unwrap_err().contains("node n3 has QEMU 8.0, and node n1, which has the request, QEMU 7.2"));
        assert!(says(1, 4).unwrap_err().contains("of node n4 is not known"));
        assert!(says(4, 1).unwrap_err().contains("of node n4, which"));
        assert!(says(1, 9).is_err());
    }
}
