//! What holds for the choice of a node in every cluster.

use super::*;
use crate::{capacity::HOST_RESERVE, testing::same_cases};
use proptest::prelude::*;
use std::sync::Arc;

/// A node: GiB, its state, whether its daemon runs, its load in tenths.
type RandomNode = (u64, usize, bool, u32);
/// A VM: its state, the node that it is assigned to, the one that holds it, MiB, vCPUs.
type RandomVm = (usize, usize, Option<usize>, u64, u32);

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn random_nodes() -> impl Strategy<Value = Vec<RandomNode>> {
    let state = prop_oneof![4 => Just(0), 1 => 1usize..4];
    prop::collection::vec((1u64..=8, state, prop::bool::weighted(0.9), 0u32..80), 1..=NODES.len())
}

fn random_vms() -> impl Strategy<Value = Vec<RandomVm>> {
    let held = prop::option::of(0..NODES.len());
    prop::collection::vec((0usize..6, 0..NODES.len(), held, 1u64..=2048, 1u32..=4), 0..12)
}

fn random_wanted() -> impl Strategy<Value = (Demand, VmMeta)> {
    let limit = prop::collection::btree_set(0..NODES.len(), 0..4);
    let selector = prop::option::of(prop::sample::select(Selector::WORDS));
    (1u64..=3000, 1u32..=5, limit, selector).prop_map(|(mib, vcpus, limit, selector)| {
        let node_limit = limit.into_iter().map(|i| name(NODES[i])).collect();
        let selector = selector.map(|word| word.parse().unwrap());
        (Demand { memory: Bytes::mib(mib), vcpus }, VmMeta { node_limit, selector, ..VmMeta::default() })
    })
}

fn build_node(i: usize, (gib, state, runs, load): RandomNode) -> NodeView {
    let state = [NodeState::Ready, NodeState::Flush, NodeState::Flushed, NodeState::Unflush][state];
    let mut node = node(NODES[i], gib).in_state(state);
    node.report().load = load as f32 / 10.0;
    node.session = node.session.filter(|_| runs);
    node
}

fn build_vm(i: usize, (state, on, held, mib, vcpus): RandomVm) -> VmView {
    use VmState::*;
    let to = name(NODES[(on + 1) % NODES.len()]);
    let state = match state {
        0 => Start,
        1 => Stop,
        2 => Shutdown { timeout_s: 9, then: drover_model::AtRest::Stop },
        3 => Migrate { to, kind: MoveKind::Migrate, how: How::Live },
        4 => Disable,
        _ => Restart { timeout_s: 9 },
    };
    let vm = vm(i as u128, mib).on(NODES[on]).wanted(state).but(|v| v.demand.vcpus = vcpus);
    vm.but(|v| v.claim.as_mut().unwrap().node = held.map(|i| name(NODES[i])))
}

fn build(nodes: &[RandomNode], vms: &[RandomVm]) -> (Vec<NodeView>, Vec<VmView>) {
    let nodes = nodes.iter().enumerate().map(|(i, n)| build_node(i, *n)).collect();
    (nodes, vms.iter().enumerate().map(|(i, v)| build_vm(i, *v)).collect())
}

/// What a node must be able to carry, added up once more in the plainest way.
fn carries(view: &ClusterView, node: &NodeName) -> Bytes {
    let concerns = |vm: &&Arc<VmView>| {
        let record = &vm.record.value;
        let held = vm.claim.as_ref().is_some_and(|c| c.value.is_held_by(node));
        let wanted = record.node.as_ref() == Some(node) && record.state.occupies_node();
        held || wanted || record.state.destination() == Some(node)
    };
    view.vms.values().filter(concerns).map(|vm| vm.demand.memory.saturating_add(OVERHEAD)).sum()
}

fn choose_for(view: &ClusterView, (demand, meta): &(Demand, VmMeta)) -> Placement {
    let devices = Devices::default();
    let wanted = Wanted::new(*demand, meta, &devices);
    choose(view, &Ledger::of(view), &wanted)
}

proptest! {
    #![proptest_config(same_cases(300))]

    #[test]
    fn the_chosen_node_is_fit_and_a_fit_node_is_found(
        nodes in random_nodes(), vms in random_vms(), wanted in random_wanted()
    ) {
        let (nodes, vms) = build(&nodes, &vms);
        let view = cluster(nodes, vms);
        let (demand, meta) = &wanted;
        let fit = |n: &NodeName| {
            let node = &view.nodes[n];
            let offered = node.status.as_ref().unwrap().memory_total.saturating_sub(HOST_RESERVE);
            node.daemon_state() == DaemonState::Run
                && node.record.value.domain_state == NodeState::Ready
                && (meta.node_limit.is_empty() || meta.node_limit.contains(n))
                && demand.vcpus <= 4
                && carries(&view, n).saturating_add(demand.memory).saturating_add(OVERHEAD) <= offered
        };
        match choose_for(&view, &wanted).chosen {
            Some((node, _)) => prop_assert!(fit(&node), "{} was chosen", node),
            None => prop_assert!(!view.nodes.keys().any(fit)),
        }
    }

    #[test]
    fn the_order_in_which_things_became_known_does_not_matter(
        nodes in random_nodes(), vms in random_vms(), wanted in random_wanted()
    ) {
        let (mut nodes, mut vms) = build(&nodes, &vms);
        let first = choose_for(&cluster(nodes.clone(), vms.clone()), &wanted);
        nodes.reverse();
        vms.reverse();
        prop_assert_eq!(first, choose_for(&cluster(nodes, vms), &wanted));
    }

    #[test]
    fn a_node_that_is_not_chosen_changes_nothing_between_the_others(
        nodes in random_nodes(), vms in random_vms(), wanted in random_wanted(), which in 0..NODES.len()
    ) {
        let (mut nodes, vms) = build(&nodes, &vms);
        let all = choose_for(&cluster(nodes.clone(), vms.clone()), &wanted);
        nodes.remove(which % nodes.len());
        let others = choose_for(&cluster(nodes, vms), &wanted);
        for (node, verdict) in &others.verdicts {
            let before = all.verdicts.iter().find(|(n, _)| n == node);
            prop_assert_eq!(before.map(|(_, v)| v), Some(verdict));
        }
        if all.chosen.is_none() || others.verdicts.iter().any(|(node, _)| Some(node) == all.node()) {
            prop_assert_eq!(others.chosen, all.chosen);
        }
    }

    #[test]
    fn what_is_promised_is_never_promised_again(
        nodes in random_nodes(), vms in random_vms(), wanted in prop::collection::vec(random_wanted(), 1..20)
    ) {
        let (nodes, vms) = build(&nodes, &vms);
        let view = cluster(nodes, vms);
        let mut ledger = Ledger::of(&view);
        let mut carried: Vec<(NodeName, Bytes)> = vec![];
        let devices = Devices::default();
        for (demand, meta) in &wanted {
            let wanted = Wanted::new(*demand, meta, &devices);
            if let Some((node, _)) = choose(&view, &ledger, &wanted).chosen {
                ledger.expect(&node, *demand);
                carried.push((node, demand.memory.saturating_add(OVERHEAD)));
            }
        }
        for (name, node) in &view.nodes {
            let new: Bytes = carried.iter().filter(|(n, _)| n == name).map(|(_, size)| *size).sum();
            let offered = node.status.as_ref().unwrap().memory_total.saturating_sub(HOST_RESERVE);
            let all = carries(&view, name).saturating_add(new);
            prop_assert!(new == Bytes(0) || all <= offered, "{}: {} of {}", name, all, offered);
        }
    }
}
