//! Whole clusters that are flushed and made ready, in a small model of what nodes do with their VMs: every plan comes
//! to its end, and no node ever carries more than it can.

use super::*;
use crate::{
    arrivals,
    capacity::{HOST_RESERVE, OVERHEAD},
    moves::Turn,
    place::tests::{kept, same_cases},
};
use drover_model::{Arrival, Bytes, Stored};
use proptest::prelude::*;
use std::collections::BTreeSet;

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

#[derive(Debug)]
struct World {
    view: ClusterView,
    rounds: u64,
    /// Which VMs idle in which round.
    pace: u64,
}

impl World {
    /// Each VM is on its node if there is room for it.
    fn new(sizes: &[u64], vms: &[RandomVm], pace: u64) -> World {
        let nodes = sizes.iter().zip(NODES).map(|(gib, name)| node(name, *gib)).collect();
        let mut view = cluster(nodes, vec![]);
        for (n, (on, mib, priority, life, method, limit)) in vms.iter().enumerate() {
            let on = NODES[on % sizes.len()];
            let needed = Bytes::mib(*mib).saturating_add(OVERHEAD);
            if Ledger::of(&view).free_memory(&view, &name(on)).unwrap() < needed {
                continue;
            }
            let (state, held) = match life {
                Life::Runs => (VmState::Start, Some(on)),
                Life::Waits => (VmState::Start, None),
                Life::Off => (VmState::Stop, None),
            };
            let vm = important(vm(n as u128, state, on, held, *mib), *priority).but(|v| {
                v.record.value.meta.method = *method;
                v.record.value.meta.node_limit = limit.iter().flat_map(|i| [name(NODES[*i]), name(on)]).collect();
            });
            view.put_vm(&vm);
        }
        World { view, rounds: 0, pace }
    }

    fn set(&mut self, node: &NodeName, state: DomainState) {
        self.view.change_node(node, |node| node.record.value.domain_state = state);
    }

    fn state_of(&self, node: &NodeName) -> DomainState {
        self.view.nodes[node].record.value.domain_state
    }

    fn in_state(&self, state: DomainState) -> Vec<NodeName> {
        let nodes = self.view.nodes.iter().filter(|(_, node)| node.record.value.domain_state == state);
        nodes.map(|(name, _)| name.clone()).collect()
    }

    /// One pass of everything. All nodes plan on the same picture, before any of them has written. Returns whether
    /// every node is done.
    fn round(&mut self) -> bool {
        let picture = self.view.clone();
        let mut done = true;
        for me in self.in_state(DomainState::Flush) {
            let plan = evacuate(&picture, &me);
            self.write(plan.orders(&picture, &me, MoveKind::Migrate));
            if plan.fates.is_empty() {
                self.set(&me, DomainState::Flushed);
            }
            done &= plan.fates.is_empty();
        }
        for me in self.in_state(DomainState::Unflush) {
            let plan = bring_home(&picture, &me);
            self.write(plan.orders(&picture, &me, MoveKind::Unmigrate));
            if plan.is_done() {
                self.set(&me, DomainState::Ready);
            }
            done &= plan.is_done();
        }
        for me in self.view.nodes.keys().cloned().collect::<Vec<_>>() {
            self.answer(&me);
        }
        self.rounds += 1;
        for (n, uuid) in (0..).zip(self.view.vms.keys().copied().collect::<Vec<_>>()) {
            if !(n + self.rounds * self.pace).is_multiple_of(3) {
                self.step(&uuid);
            }
        }
        self.check();
        done
    }

    fn change(&mut self, uuid: &Uuid, record: VmRecord, change: impl FnOnce(&mut VmView)) {
        self.view.change_vm(uuid, |vm| {
            vm.record = Stored::new(record, vm.record.version.next()).into();
            change(vm);
        });
    }

    fn write(&mut self, orders: Vec<Order>) {
        for order in orders {
            if self.view.vms[&order.uuid].record.version == order.version {
                self.change(&order.uuid, order.record, |_| {});
            }
        }
    }

    fn answer(&mut self, me: &NodeName) {
        for answer in arrivals::answers(&self.view, me, &BTreeSet::new()) {
            let value = Arrival { schema: VM_SCHEMA, node: me.clone(), of: answer.of, refused: answer.refused };
            self.view.change_vm(&answer.uuid, |vm| vm.arrival = Some(kept(value)));
        }
        for uuid in arrivals::outdated(&self.view, me) {
            self.view.change_vm(&uuid, |vm| vm.arrival = None);
        }
    }

    /// What becomes of one VM: moves arrive, guests obey, what waits is started.
    fn step(&mut self, uuid: &Uuid) {
        let vm = self.view.vms[uuid].clone();
        let (record, claim) = (&vm.record.value, &vm.claim.as_ref().unwrap().value);
        let start = VmRecord { state: VmState::Start, ..record.clone() };
        let set_claim = |claim| move |vm: &mut VmView| vm.claim = Some(kept(claim));
        match &record.state {
            VmState::Migrate { to, kind, .. } => match moves::turn(&self.view, uuid) {
                Turn::Go if claim.node.is_some() && claim.to.is_none() => {
                    self.view.change_vm(uuid, set_claim(claim.sending_to(Some(to))));
                }
                Turn::Go => self.change(uuid, start.arrived(to, *kind), |vm| {
                    set_claim(claim.granted_to(to))(vm);
                    vm.status = None;
                }),
                // What is under way arrives, whatever became of its target meanwhile.
                _ if claim.to.is_some() => self.change(uuid, start.arrived(to, *kind), set_claim(claim.granted_to(to))),
                Turn::Unfit(_) => {
                    let before = vm.status.as_ref().and_then(|s| s.move_failure.as_ref()).map_or(0, |f| f.count);
                    let status = failed(running(0, "a", 0), to.as_str(), before + 1).status;
                    self.change(uuid, start, |vm| vm.status = status);
                }
                Turn::Wait(_) => {}
            },
            VmState::Shutdown { then, .. } => {
                let off = VmRecord { state: (*then).into(), ..record.clone() };
                self.change(uuid, off, set_claim(claim.released()));
            }
            VmState::Start if claim.node.is_none() => {
                let node = record.node.clone().unwrap();
                self.change(uuid, start, set_claim(claim.granted_to(&node)));
            }
            _ => {}
        }
    }

    /// No node carries more than it can.
    fn check(&self) {
        for (name, node) in &self.view.nodes {
            let carried = self.view.vms.values().filter(|vm| vm.is_held_by(name));
            let all: Bytes = carried.map(|vm| vm.demand.memory.saturating_add(OVERHEAD)).sum();
            let offered = node.status.as_ref().unwrap().memory_total.saturating_sub(HOST_RESERVE);
            assert!(all <= offered, "{name} carries {all} of {offered}");
        }
    }

    /// Rounds until every node is done.
    fn settle(&mut self) {
        for _ in 0..100 {
            if self.round() {
                return;
            }
        }
        let plans = self.view.nodes.keys().map(|n| (told(&evacuate(&self.view, n)), told(&bring_home(&self.view, n))));
        panic!("it comes to no end: {:#?}", plans.collect::<Vec<_>>());
    }

    /// What a person would see: each VM that runs or should, and where; each that was shut down for a flush.
    fn picture(&self) -> Vec<(VmName, String, NodeName, Option<NodeName>, bool)> {
        let vms = self.view.vms.values().map(|vm| vm.record.value.clone());
        vms.map(|r| (r.name, r.state.word().to_owned(), r.node.unwrap(), r.last_node, r.meta.autostart)).collect()
    }
}

proptest! {
    #![proptest_config(same_cases(400))]

    #[test]
    fn flushed_nodes_become_empty_and_all_is_as_before_when_they_are_ready(
        sizes in random_nodes(), vms in random_vms(), pace in 1u64..3,
        flushed in prop::collection::btree_set(0..NODES.len(), 1..4)
    ) {
        let mut world = World::new(&sizes, &vms, pace);
        let before = world.picture();
        let flushed: Vec<NodeName> = flushed.into_iter().filter(|i| *i < sizes.len()).map(|i| name(NODES[i])).collect();
        for node in &flushed {
            world.set(node, DomainState::Flush);
        }
        world.settle();
        for vm in world.view.vms.values() {
            let record = &vm.record.value;
            prop_assert!(!flushed.iter().any(|node| vm.is_held_by(node)), "{} is still there", record.name);
            let runs = record.state == VmState::Start;
            let should = before.iter().any(|(name, state, ..)| *name == record.name && state == "start");
            prop_assert!(runs || record.meta.autostart || !should, "{} is forgotten", record.name);
        }
        for node in &flushed {
            world.set(node, DomainState::Unflush);
        }
        world.settle();
        prop_assert_eq!(world.picture(), before);
    }

    /// Nodes are flushed and made ready again at any moment, while moves are under way.
    #[test]
    fn requests_that_follow_each_other_overfill_no_node_and_end_when_all_are_ready(
        sizes in random_nodes(), vms in random_vms(), pace in 1u64..3,
        requests in prop::collection::vec((0..NODES.len(), any::<bool>(), 0usize..3), 0..12)
    ) {
        let mut world = World::new(&sizes, &vms, pace);
        let (wanted, before) = (world.picture(), world.view.clone());
        for (i, ready, rounds) in requests {
            let node = name(NODES[i % sizes.len()]);
            let state = request(&world.view, &node, world.state_of(&node), ready, true).unwrap();
            world.set(&node, state);
            for _ in 0..rounds {
                world.round();
            }
        }
        for node in before.nodes.keys() {
            let state = request(&world.view, node, world.state_of(node), true, false).unwrap();
            world.set(node, state);
        }
        world.settle();
        for (vm, (name, state, ..)) in world.view.vms.values().zip(wanted) {
            let record = &vm.record.value;
            prop_assert!(record.state.word() == state || record.meta.autostart, "{}: {}", name, record.state);
            prop_assert!(record.state.at_rest(), "{}: {}", name, record.state);
        }
    }
}
