//! Whether a node's BMC would cut its power, and which coordinators could ask it to.

use drover_model::{BmcRecord, ClusterView, DaemonState, NodeName, PowerState, Role};

/// What is wrong with a node's own BMC by its answer (empty: nothing), and whether it is that of another machine. The
/// node itself asks, so it runs. `wrong`: it was found to be another machine's since the daemon was started. It stays
/// so then: that it reads on, or cannot be asked, later says nothing about which machine it controls.
pub fn problem(answer: Result<PowerState, String>, wrong: bool) -> (String, bool) {
    match answer {
        Ok(PowerState::Off) => {
            ("it says that this machine is off, but it runs: it controls another machine".to_owned(), true)
        }
        _ if wrong => {
            let why = "it said that this machine is off while it ran, so it controls another machine: correct [fence], \
                and restart droverd";
            (why.to_owned(), true)
        }
        Ok(PowerState::On) => (String::new(), false),
        Err(why) => (why, false),
    }
}

/// Why the BMC of the node `name` is never asked for proof, if it is so: the node itself has found that it controls
/// another machine. A report about another BMC than the one that is recorded now says nothing.
pub fn disowned(view: &ClusterView, name: &NodeName) -> Option<String> {
    let report = view.nodes.get(name)?.status.as_ref()?.bmc.as_ref().filter(|report| report.wrong)?;
    view.shelf::<BmcRecord>().get(name).filter(|record| record.value.shown == report.shown)?;
    let shown = &report.shown;
    Some(format!(
        "{name} has found that {shown} controls another machine, so it is not asked: correct [fence] in the \
        configuration of {name}"
    ))
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
    use drover_model::{BmcReport, NodeStatus, NodeView, RecordKind, Version, bmc::BMC_SCHEMA, testing::*};

    #[test]
    fn a_bmc_that_says_off_controls_another_machine() {
        assert_eq!(problem(Ok(PowerState::On), false), (String::new(), false));
        assert_eq!(problem(Err("no answer".to_owned()), false), ("no answer".to_owned(), false));
        let (why, wrong) = problem(Ok(PowerState::Off), false);
        assert!(wrong && why.contains("another machine"), "{why}");
        // The other machine was switched on, or its BMC is not there.
        for later in [Ok(PowerState::On), Err("no answer".to_owned())] {
            let (why, wrong) = problem(later, true);
            assert!(wrong && why.contains("another machine"), "{why}");
        }
    }

    #[test]
    fn a_bmc_that_its_node_disowns_is_not_asked() {
        let with = |wrong: bool, recorded: &str| {
            let bmc = Some(BmcReport { shown: "ipmi at 10.0.0.9".to_owned(), wrong, ..BmcReport::default() });
            let status = NodeStatus { bmc, ..node("c", 1).status.unwrap().value.clone() };
            let mut view = cluster(vec![NodeView { status: Some(kept(status)), ..node("c", 1) }], vec![]);
            let (key, sealed) = (String::new(), String::new());
            let record = BmcRecord { schema: BMC_SCHEMA, shown: recorded.to_owned(), key, sealed };
            view.apply(&BmcRecord::path(&name("c")), Some((&serde_json::to_vec(&record).unwrap(), Version(0))));
            disowned(&view, &name("c"))
        };
        let why = with(true, "ipmi at 10.0.0.9").unwrap();
        assert!(why.starts_with("c has found that ipmi at 10.0.0.9 controls another machine"), "{why}");
        assert_eq!(with(false, "ipmi at 10.0.0.9"), None);
        assert_eq!(with(true, "ipmi at 10.0.0.3"), None, "that is another BMC");
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
