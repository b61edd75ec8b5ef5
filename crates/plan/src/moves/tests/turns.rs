//! A target's consent is to one order, and every move comes to its turn. In which order is told by
//! `tests/scripts/move-turns.txt`.

use super::*;
use crate::{arrivals, testing::same_cases};
use drover_model::{Arrival, Bytes, MoveLimits, Version, vm::VM_SCHEMA};
use proptest::prelude::*;
use std::{collections::BTreeSet, sync::Arc};

/// `vm<n>` is to go from `a` to `b` (`a>b`).
fn to_go(n: u128, route: &str, priority: i32) -> VmView {
    let (from, to) = route.split_once('>').unwrap();
    moving(n, from, to, 64).priority(priority)
}

fn said(turn: Turn) -> String {
    match turn {
        Turn::Go => "go".to_owned(),
        Turn::Wait(why) => why,
        Turn::Unfit(why) => format!("unfit: {why}"),
    }
}

fn nodes() -> Vec<NodeView> {
    vec![node("a", 8), node("b", 8), node("c", 8), node("d", 8)]
}

fn limits(per_source: u32, per_target: u32, cluster: u32) -> MoveLimits {
    MoveLimits { per_source, per_target, cluster }
}

#[test]
fn a_move_waits_for_its_targets_answer_about_this_very_record() {
    let ask = |change: &dyn Fn(VmView) -> VmView| {
        let vm = change(to_go(1, "a>b", 0));
        said(turn(&cluster(nodes(), vec![vm.clone()]), &vm.record.value.uuid))
    };
    assert_eq!(ask(&|v| v), "waiting for b to accept it");
    assert_eq!(ask(&|v| v.answered("b", Version(0), None)), "go");
    assert_eq!(ask(&|v| v.answered("b", Version(0), Some("it is full"))), "unfit: b cannot take it: it is full");
    assert_eq!(ask(&|v| v.answered("b", Version(-1), None)), "waiting for b to accept it", "of an earlier record");
    assert_eq!(ask(&|v| v.answered("b", Version(-1), Some("x"))), "waiting for b to accept it", "of an earlier record");
    assert_eq!(ask(&|v| v.answered("c", Version(0), None)), "waiting for b to accept it", "of another node");
    // Whether there is room is for the target to say.
    let huge = |v: VmView| v.answered("b", Version(0), None).but(|v| v.demand.memory = Bytes::mib(100_000));
    assert_eq!(ask(&huge), "go");
    assert_eq!(ask(&|v| v.wanted(VmState::Start)), "go", "nothing is to be waited for");
    let unknown = turn(&cluster(nodes(), vec![]), &Uuid::from_u128(9));
    assert_eq!(said(unknown), "the VM is not in the view yet");
}

/// One that is sent out of a node that is off must not wait for the others that were there.
#[test]
fn what_nobody_holds_takes_no_turn() {
    let accepted = |vm: VmView| vm.answered("b", Version(0), None);
    let free = |n| accepted(waiting(n, "a", 64).going_to("b", MoveKind::Migrate, How::Cold));
    let mut view = cluster(nodes(), vec![free(1), free(2), free(3), accepted(to_go(4, "a>b", 0)), free(5)]);
    view.config.limits = limits(1, 1, 1);
    for n in 1..=5 {
        assert_eq!(said(turn(&view, &Uuid::from_u128(n))), "go", "vm{n}");
    }
    view.put_vm(&accepted(to_go(6, "a>b", 1)));
    for n in 1..=6 {
        let waits = said(turn(&view, &Uuid::from_u128(n))).starts_with("waiting for its turn");
        assert_eq!(waits, n == 4, "vm{n}: the one that is held, with the lower priority");
    }
    // Who holds it is not known yet.
    view.change_vm(&Uuid::from_u128(1), |vm| vm.claim = None);
    assert!(said(turn(&view, &Uuid::from_u128(1))).starts_with("waiting for its turn"));
}

#[test]
fn a_target_that_can_never_take_it_is_unfit_whatever_it_said() {
    let kinds = [MoveKind::Migrate, MoveKind::Move, MoveKind::Unmigrate];
    let ask = |kind: MoveKind, change: &dyn Fn(&mut NodeView)| {
        let vm = to_go(1, "a>b", 0).answered("b", Version(0), None).but(|v| {
            v.record.value.state = VmState::Migrate { to: name("b"), kind, how: How::Live };
            v.record.value.meta.node_limit = [name("a"), name("b"), name("x")].into();
        });
        let nodes = vec![node("a", 8), node("b", 8).but(|n| change(n))];
        said(turn(&cluster(nodes, vec![vm.clone()]), &vm.record.value.uuid))
    };
    for kind in kinds {
        assert_eq!(ask(kind, &|_| {}), "go");
        for (state, word) in [(NodeState::Flush, "flush"), (NodeState::Flushed, "flushed")] {
            let says = format!("unfit: b cannot take it: it is in state {word}");
            assert_eq!(ask(kind, &|n| n.record.value.domain_state = state), says);
        }
        let says = "unfit: b cannot take it: its daemon is in state dead";
        assert_eq!(ask(kind, &|n| n.session = None), says);
        assert_eq!(ask(kind, &|n| n.record.value.name = name("x")), "unfit: there is no node b");
    }
    // A node that is being made ready takes those that come home, and no others.
    let unflush = |n: &mut NodeView| n.record.value.domain_state = NodeState::Unflush;
    assert_eq!(ask(MoveKind::Unmigrate, &unflush), "go");
    assert_eq!(ask(MoveKind::Migrate, &unflush), "unfit: b cannot take it: it is in state unflush");
    assert_eq!(ask(MoveKind::Move, &unflush), "unfit: b cannot take it: it is in state unflush");
}

/// All nodes answer what they are asked.
fn answer(view: &mut ClusterView) {
    for me in view.nodes.keys().cloned().collect::<Vec<_>>() {
        for a in arrivals::answers(view, &me, &BTreeSet::new()) {
            let value = Arrival { schema: VM_SCHEMA, node: me.clone(), of: a.of, refused: a.refused };
            view.change_vm(&a.uuid, |vm| vm.arrival = Some(kept(value)));
        }
    }
}

proptest! {
    #![proptest_config(same_cases(500))]

    /// Requests come one after the other, nodes answer whenever they like, and then whoever may go goes: nobody waits
    /// for ever.
    #[test]
    fn every_move_comes_to_its_turn(
        steps in prop::collection::vec((0usize..4, 1usize..4, -1i32..=1, any::<bool>()), 1..14),
        per_source in 1u32..3, per_target in 1u32..3, all in 1u32..5
    ) {
        let mut view = cluster(nodes(), vec![]);
        view.config.limits = limits(per_source, per_target, all);
        for (n, (from, by, priority, answers)) in steps.into_iter().enumerate() {
            let route = format!("{}>{}", ["a", "b", "c", "d"][from], ["a", "b", "c", "d"][(from + by) % 4]);
            let vm = to_go(n as u128, &route, priority);
            view.put_vm(&vm);
            if answers {
                answer(&mut view);
            }
        }
        loop {
            let waiting = |vm: &&Arc<VmView>| vm.record.value.state.destination().is_some();
            let left = view.vms.values().filter(waiting).count();
            if left == 0 {
                break;
            }
            answer(&mut view);
            let gone: Vec<Uuid> = view.vms.keys().copied().filter(|uuid| {
                waiting(&&view.vms[uuid]) && turn(&view, uuid) == Turn::Go
            }).collect();
            prop_assert!(!gone.is_empty(), "{} wait for each other", left);
            prop_assert!(gone.len() as u32 <= all);
            for uuid in gone {
                view.change_vm(&uuid, |vm| {
                    let to = vm.record.value.state.destination().unwrap().clone();
                    let there = vm.record.value.arrived(&to, MoveKind::Move);
                    vm.record.value = VmRecord { state: VmState::Start, ..there };
                    vm.record.version = vm.record.version.next();
                    let claim = vm.claim.as_mut().unwrap();
                    claim.value = claim.value.granted_to(&to);
                    vm.arrival = None;
                });
            }
        }
    }
}
