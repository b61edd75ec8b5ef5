//! Whether a node's BMC would cut its power, and which coordinators could ask it to.

use drover_model::{BmcRecord, ClusterView, DaemonState, NodeName, PowerState, Role};

/// What is wrong with a node's own BMC by its answer; empty: nothing. The node itself asks, so it runs.
pub fn problem(answer: Result<PowerState, String>) -> String {
    match answer {
        Ok(PowerState::On) => String::new(),
        Ok(PowerState::Off) => "it says that this machine is off, but it runs: it controls another machine".to_owned(),
        Err(why) => why,
    }
}

/// Coordinators that cannot read the BMC data of other nodes, each with the nodes, because it has another cluster key
/// or none. They could not prove that those are off.
pub fn unreadable(view: &ClusterView) -> Vec<(NodeName, Vec<NodeName>)> {
    let coordinators = view
        .nodes
        .iter()
        .filter(|(_, node)| node.record.value.role == Role::Coordinator && node.daemon_state() == DaemonState::Run);
    let without = coordinators.filter_map(|(name, node)| {
        let key = &node.status.as_ref()?.cluster_key;
        let others = view.shelf::<BmcRecord>().iter().filter(|(of, record)| *of != name && record.key != *key);
        let others: Vec<NodeName> = others.map(|(of, _)| of.clone()).collect();
        (!others.is_empty()).then(|| (name.clone(), others))
    });
    without.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{NodeStatus, NodeView, RecordKind, Version, bmc::BMC_SCHEMA, testing::*};

    #[test]
    fn a_bmc_that_says_off_controls_another_machine() {
        assert_eq!(problem(Ok(PowerState::On)), "");
        assert!(problem(Ok(PowerState::Off)).contains("another machine"));
        assert_eq!(problem(Err("no answer".to_owned())), "no answer");
    }

    #[test]
    fn coordinators_need_the_key_of_the_others() {
        let with_key = |n: &str, key: &str| {
            let status = NodeStatus { cluster_key: key.to_owned(), ..node(n, 1).status.unwrap().value.clone() };
            NodeView { status: Some(kept(status)), ..node(n, 1) }
        };
        let mut hypervisor = with_key("d", "");
        hypervisor.record.role = Role::Hypervisor;
        let nodes = vec![with_key("a", "k"), with_key("b", ""), with_key("c", "other"), hypervisor];
        let mut view = cluster(nodes, vec![]);
        for n in ["a", "b"] {
            let record =
                BmcRecord { schema: BMC_SCHEMA, shown: String::new(), key: "k".to_owned(), sealed: String::new() };
            let data = serde_json::to_vec(&record).unwrap();
            view.apply(&BmcRecord::path(&name(n)), Some((&data, Version(0))));
        }
        let [a, b, c] = ["a", "b", "c"].map(name);
        assert_eq!(unreadable(&view), [(b.clone(), vec![a.clone()]), (c, vec![a, b])]);
    }
}
