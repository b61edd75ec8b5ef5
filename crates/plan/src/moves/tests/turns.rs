//! Whose turn it is: the target's consent, limits, order; and that every move comes to its turn.

use super::*;
use crate::{
    arrivals,
    place::tests::{kept, same_cases, sending},
};
use drover_model::{Arrival, Bytes, Limits, Version, vm::VM_SCHEMA};
use proptest::prelude::*;
use std::{collections::BTreeSet, sync::Arc};

/// `vm<n>` is to go from `a` to `b` (`a>b`).
fn to_go(n: u128, route: &str, priority: i32) -> VmView {
    let (from, to) = route.split_once('>').unwrap();
    moving(n, from, to, 64).but(|v| v.record.value.meta.priority = priority)
}

/// Its target answers about this version of its record; `None`: it may come.
fn answered(vm: &mut VmView, node: &str, of: i64, refused: Option<&str>) {
    let refused = refused.map(str::to_owned);
    vm.arrival = Some(kept(Arrival { schema: VM_SCHEMA, node: name(node), of: Version(of), refused }));
}

/// What one VM's target and claim say: `-` nothing yet, `yes`, `full` (refused), `sent` (it is under way).
fn with(word: &str, vm: VmView) -> VmView {
    let to = vm.record.value.state.destination().unwrap().to_string();
    vm.but(|v| match word {
        "-" => {}
        "yes" => answered(v, &to, 0, None),
        "full" => answered(v, &to, 0, Some("full")),
        "sent" => {
            answered(v, &to, 0, None);
            sending(v, &to);
        }
        other => panic!("{other}"),
    })
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

fn limits(per_source: u32, per_target: u32, cluster: u32) -> Limits {
    Limits { per_source, per_target, cluster }
}

#[test]
fn turns_go_to_what_may_come_by_what_is_under_way_then_priority_then_name() {
    // Each VM: where it goes, its priority, what its target says. Who of them may go.
    type Moves<'a> = &'a [(&'a str, i32, &'a str)];
    let rows: Vec<(Limits, Moves<'_>, &str)> = vec![
        (limits(2, 2, 8), &[("a>b", 0, "yes"), ("a>c", 0, "yes"), ("a>d", 0, "yes")], "go go wait"),
        (limits(1, 2, 8), &[("a>b", 0, "yes"), ("a>c", 0, "yes"), ("b>c", 0, "yes")], "go wait go"),
        (limits(2, 2, 2), &[("a>b", 0, "yes"), ("b>c", 0, "yes"), ("c>d", 0, "yes")], "go go wait"),
        (limits(1, 2, 8), &[("a>b", 0, "yes"), ("a>c", 5, "yes")], "wait go"),
        (limits(1, 2, 8), &[("a>b", 0, "yes"), ("a>c", -5, "yes")], "go wait"),
        (limits(1, 2, 8), &[("a>b", 5, "yes"), ("a>c", 0, "sent")], "wait go"),
        (limits(1, 2, 8), &[("a>b", 5, "-"), ("a>c", 0, "yes")], "wait go"),
        (limits(2, 2, 1), &[("a>b", 5, "-"), ("c>d", 0, "yes")], "wait go"),
        (limits(2, 2, 8), &[("a>b", 0, "-"), ("a>c", 0, "full"), ("a>d", 0, "yes")], "wait unfit go"),
        // What comes to a node is limited by that node alone: by what it lets come.
        (limits(2, 1, 8), &[("a>c", 0, "yes"), ("b>c", 0, "yes")], "go go"),
    ];
    for (limits, moves, wanted) in rows {
        let vms = moves.iter().enumerate().map(|(n, (route, prio, word))| with(word, to_go(n as u128, route, *prio)));
        let mut view = cluster(nodes(), vms.collect());
        view.config.limits = limits;
        let turns: Vec<&str> = view
            .vms
            .keys()
            .map(|uuid| match turn(&view, uuid) {
                Turn::Go => "go",
                Turn::Wait(_) => "wait",
                Turn::Unfit(_) => "unfit",
            })
            .collect();
        assert_eq!(turns.join(" "), wanted, "{limits:?}, {moves:?}");
    }
}

#[test]
fn a_move_waits_for_its_targets_answer_about_this_very_record() {
    let ask = |change: &dyn Fn(&mut VmView)| {
        let vm = to_go(1, "a>b", 0).but(|v| change(v));
        said(turn(&cluster(nodes(), vec![vm.clone()]), &vm.record.value.uuid))
    };
    assert_eq!(ask(&|_| {}), "waiting until b is ready for it");
    assert_eq!(ask(&|v| answered(v, "b", 0, None)), "go");
    assert_eq!(ask(&|v| answered(v, "b", 0, Some("it is full"))), "unfit: b cannot take it: it is full");
    assert_eq!(ask(&|v| answered(v, "b", -1, None)), "waiting until b is ready for it", "of an earlier record");
    assert_eq!(ask(&|v| answered(v, "b", -1, Some("x"))), "waiting until b is ready for it", "of an earlier record");
    assert_eq!(ask(&|v| answered(v, "c", 0, None)), "waiting until b is ready for it", "of another node");
    // Whether there is room is for the target to say.
    let huge = |v: &mut VmView| {
        answered(v, "b", 0, None);
        v.demand.memory = Bytes::mib(100_000);
    };
    assert_eq!(ask(&huge), "go");
    assert_eq!(ask(&|v| v.record.value.state = VmState::Start), "go", "nothing is to be waited for");
    let unknown = turn(&cluster(nodes(), vec![]), &Uuid::from_u128(9));
    assert_eq!(said(unknown), "the VM is not in the view yet");
}

#[test]
fn a_wait_for_others_says_what_the_limits_are() {
    let vms = (1..=2).map(|n| with("yes", to_go(n, "a>b", 0))).collect();
    let mut view = cluster(nodes(), vms);
    view.config.limits = limits(1, 2, 8);
    let second = said(turn(&view, &Uuid::from_u128(2)));
    assert_eq!(second, "waiting for its turn to move to b (at most 1 from a node, 8 in all)");
}

#[test]
fn a_target_that_can_never_take_it_is_unfit_whatever_it_said() {
    let kinds = [MoveKind::Migrate, MoveKind::Move, MoveKind::Unmigrate];
    let ask = |kind: MoveKind, change: &dyn Fn(&mut NodeView)| {
        let vm = with("yes", to_go(1, "a>b", 0)).but(|v| {
            v.record.value.state = VmState::Migrate { to: name("b"), kind, how: How::Live };
            v.record.value.meta.node_limit = [name("a"), name("b"), name("x")].into();
        });
        let nodes = vec![node("a", 8), node("b", 8).but(|n| change(n))];
        said(turn(&cluster(nodes, vec![vm.clone()]), &vm.record.value.uuid))
    };
    for kind in kinds {
        assert_eq!(ask(kind, &|_| {}), "go");
        for (state, word) in [(DomainState::Flush, "flush"), (DomainState::Flushed, "flushed")] {
            let says = format!("unfit: b cannot take it: it is in state {word}");
            assert_eq!(ask(kind, &|n| n.record.value.domain_state = state), says);
        }
        let says = "unfit: b cannot take it: its daemon is in state dead";
        assert_eq!(ask(kind, &|n| n.session = None), says);
        assert_eq!(ask(kind, &|n| n.record.value.name = name("x")), "unfit: there is no node b");
    }
    // A node that is being made ready takes those that come home, and no others.
    let unflush = |n: &mut NodeView| n.record.value.domain_state = DomainState::Unflush;
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
