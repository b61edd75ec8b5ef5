//! What holds for a flush and a ready in every cluster: every plan comes to its end, and no node ever carries more than
//! it can.

use crate::{testing::same_cases, world::World};
use drover_model::{
    Bytes, MigrationMethod, NodeName, NodeState, VmName, VmState,
    testing::{But, VmWords, name, node, vm},
};
use drover_plan::{
    capacity::{HOST_RESERVE, Ledger, OVERHEAD},
    drain::request,
};
use proptest::prelude::*;

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A VM: its node, MiB, priority, whether it runs (or waits to start), how it is moved, the node that it may run on
/// beside its own.
type RandomVm = (usize, u64, i32, Life, MigrationMethod, Option<usize>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    Runs,
    Waits,
    Off,
}

fn random_vms() -> impl Strategy<Value = Vec<RandomVm>> {
    let life = prop_oneof![6 => Just(Life::Runs), 1 => Just(Life::Waits), 1 => Just(Life::Off)];
    let method = prop_oneof![Just(MigrationMethod::None), Just(MigrationMethod::Live), Just(MigrationMethod::Shutdown)];
    let limit = prop::option::weighted(0.2, 0..NODES.len());
    prop::collection::vec((0..NODES.len(), 100u64..3000, -1..=1, life, method, limit), 0..16)
}

fn random_nodes() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1u64..=12, 1..=NODES.len())
}

/// Each VM is on its node if there is room for it.
fn world(sizes: &[u64], vms: &[RandomVm], pace: u64) -> World {
    let mut world = World::paced(pace);
    sizes.iter().zip(NODES).for_each(|(gib, name)| world.view.put_node(&node(name, *gib)));
    for (n, (on, mib, priority, life, method, limit)) in vms.iter().enumerate() {
        let on = NODES[on % sizes.len()];
        let needed = Bytes::mib(*mib).saturating_add(OVERHEAD);
        if Ledger::of(&world.view).free_memory(&world.view, &name(on)).unwrap() < needed {
            continue;
        }
        let vm = vm(n as u128, *mib).on(on).priority(*priority).method(*method).but(|v| {
            v.record.meta.node_limit = limit.iter().flat_map(|i| [name(NODES[*i]), name(on)]).collect();
        });
        world.put_vm(&match life {
            Life::Runs => vm.wanted(VmState::Start).held_by(on),
            Life::Waits => vm.wanted(VmState::Start),
            Life::Off => vm,
        });
    }
    world
}

/// Rounds until every node is done. At no moment a node carries more than it can.
fn settle(world: &mut World) {
    for _ in 0..300 {
        round(world);
        let states = world.view.nodes.values().map(|node| node.record.domain_state);
        let moving = world.view.moving().next().is_some();
        if !moving && states.into_iter().all(|s| matches!(s, NodeState::Ready | NodeState::Flushed)) {
            return;
        }
    }
    let plans: Vec<_> = world.view.nodes.keys().map(|n| World::plan(&world.view, n).0).collect();
    panic!("it comes to no end: {plans:#?}");
}

fn round(world: &mut World) {
    world.round();
    for (name, node) in &world.view.nodes {
        let carried = world.view.vms.values().filter(|vm| vm.is_held_by(name));
        let all: Bytes = carried.map(|vm| vm.demand.memory.saturating_add(OVERHEAD)).sum();
        let offered = node.status.as_ref().unwrap().memory_total.saturating_sub(HOST_RESERVE);
        assert!(all <= offered, "{name} carries {all} of {offered}");
    }
}

/// What a person would see: each VM that runs or should, and where; each that was shut down for a flush.
fn picture(world: &World) -> Vec<(VmName, String, NodeName, Option<NodeName>, bool)> {
    let vms = world.view.vms.values().map(|vm| vm.record.value.clone());
    vms.map(|r| (r.name, r.state.word().to_owned(), r.node.unwrap(), r.last_node, r.meta.autostart)).collect()
}

proptest! {
    #![proptest_config(same_cases(400))]

    #[test]
    fn flushed_nodes_become_empty_and_all_is_as_before_when_they_are_ready(
        sizes in random_nodes(), vms in random_vms(), pace in 1u64..3,
        flushed in prop::collection::btree_set(0..NODES.len(), 1..4)
    ) {
        let mut world = world(&sizes, &vms, pace);
        let before = picture(&world);
        let flushed: Vec<NodeName> = flushed.into_iter().filter(|i| *i < sizes.len()).map(|i| name(NODES[i])).collect();
        for node in &flushed {
            world.set_state(node, NodeState::Flush);
        }
        settle(&mut world);
        for vm in world.view.vms.values() {
            let record = &vm.record.value;
            prop_assert!(!flushed.iter().any(|node| vm.is_held_by(node)), "{} is still there", record.name);
            let runs = record.state == VmState::Start;
            let should = before.iter().any(|(name, state, ..)| *name == record.name && state == "start");
            prop_assert!(runs || record.meta.autostart || !should, "{} is forgotten", record.name);
        }
        for node in &flushed {
            world.set_state(node, NodeState::Unflush);
        }
        settle(&mut world);
        prop_assert_eq!(picture(&world), before);
    }

    /// Nodes are flushed and made ready again at any moment, while moves are under way.
    #[test]
    fn requests_that_follow_each_other_overfill_no_node_and_end_when_all_are_ready(
        sizes in random_nodes(), vms in random_vms(), pace in 1u64..3,
        requests in prop::collection::vec((0..NODES.len(), any::<bool>(), 0usize..3), 0..12)
    ) {
        let mut world = world(&sizes, &vms, pace);
        let (wanted, before) = (picture(&world), world.view.clone());
        for (i, ready, rounds) in requests {
            let node = name(NODES[i % sizes.len()]);
            let state = request(&world.view, &node, world.state_of(&node), ready, true).unwrap();
            world.set_state(&node, state);
            for _ in 0..rounds {
                round(&mut world);
            }
        }
        for node in before.nodes.keys() {
            let state = request(&world.view, node, world.state_of(node), true, false).unwrap();
            world.set_state(node, state);
        }
        settle(&mut world);
        for (vm, (name, state, ..)) in world.view.vms.values().zip(wanted) {
            let record = &vm.record.value;
            prop_assert!(record.state.word() == state || record.meta.autostart, "{}: {}", name, record.state);
            prop_assert!(record.state.at_rest(), "{}: {}", name, record.state);
        }
    }
}
