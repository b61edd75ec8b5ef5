//! Answers of a node to incoming moves; it never promises more than it has.

use super::*;
use crate::testing::same_cases;
use drover_model::{How, MoveKind, NodeState, NodeView, VmRecord, testing::*};
use proptest::prelude::*;

/// What node `b` answers: `vm1: yes; vm2: no, ...`. It has let come those of `granted`, which the view may not show
/// yet.
fn told(view: &ClusterView, granted: &[u128]) -> String {
    let granted = granted.iter().map(|n| Uuid::from_u128(*n)).collect();
    let answer = |a: Answer| {
        assert_eq!(a.of, view.vms[&a.uuid].record.version);
        let vm = &view.vms[&a.uuid].record.value.name;
        a.refused.map_or_else(|| format!("{vm}: yes"), |why| format!("{vm}: no, {why}"))
    };
    answers(view, &name("b"), &granted).into_iter().map(answer).collect::<Vec<_>>().join("; ")
}

fn around(b: NodeView, vms: Vec<VmView>) -> ClusterView {
    cluster(vec![node("a", 64), b, node("c", 64)], vms)
}

#[test]
fn memory_is_promised_once() {
    let no = "vm1: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free";
    let other = |on| vm(2, 4096).on(on);
    let comes = || moving(2, "a", "b", 4096);
    let here = [
        ("one that runs here", running(2, "b", 4096)),
        ("one that is to start here", waiting(2, "b", 4096)),
        ("one that is held here still", other("c").held_by("b")),
        ("one that may have been sent here", running(2, "a", 4096).sent_to_node("b")),
        ("one that was let come", comes().answered("b", Version(0), None)),
    ];
    for (what, vm) in here {
        assert_eq!(told(&around(node("b", 8), vec![moving(1, "a", "b", 4096), vm]), &[]), no, "{what}");
    }
    let not_here = [
        ("one that is off here", other("b")),
        ("one that was refused", comes().answered("b", Version(0), Some("full"))),
        ("one that was taken back", running(2, "a", 4096).answered("b", Version(0), None)),
        ("one that goes elsewhere", moving(2, "a", "c", 4096)),
    ];
    for (what, vm) in not_here {
        assert_eq!(told(&around(node("b", 8), vec![moving(1, "a", "b", 4096), vm]), &[]), "vm1: yes", "{what}");
    }
    let both = around(node("b", 8), vec![moving(1, "a", "b", 4096), comes()]);
    assert_eq!(
        told(&both, &[]),
        "vm1: yes; vm2: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free"
    );
    assert_eq!(told(&both, &[2]), format!("{no}; vm2: yes"), "its own answer is on its way");
}

#[test]
fn the_most_important_is_asked_first_and_a_large_one_does_not_keep_a_small_one_out() {
    let vms = vec![moving(1, "a", "b", 4096), moving(2, "a", "b", 4096).priority(1), moving(3, "a", "b", 1024)];
    let no = "vm1: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free";
    assert_eq!(told(&around(node("b", 8), vms), &[]), format!("vm2: yes; {no}; vm3: yes"));
}

#[test]
fn moves_beyond_the_limit_are_answered_later() {
    let comes = |n| moving(n, "a", "b", 64);
    let with = |vms: Vec<VmView>| {
        let mut view = around(node("b", 8), vms);
        view.config.limits.per_target = 2;
        told(&view, &[])
    };
    assert_eq!(with(vec![comes(1), comes(2), comes(3)]), "vm1: yes; vm2: yes");
    let let_come = |n| comes(n).answered("b", Version(0), None);
    assert_eq!(with(vec![comes(1), comes(2), let_come(3)]), "vm1: yes");
    assert_eq!(with(vec![comes(1), let_come(2), let_come(3)]), "");
    let sent = running(3, "a", 64).sent_to_node("b");
    assert_eq!(with(vec![comes(1), comes(2), sent]), "vm1: yes");
    assert_eq!(with(vec![comes(1), comes(2), running(3, "b", 64)]), "vm1: yes; vm2: yes", "it has arrived");
    // What nobody holds is only started here: it neither waits nor makes others wait.
    let free = |n| waiting(n, "a", 64).going_to("b", MoveKind::Migrate, How::Cold);
    assert_eq!(
        with(vec![free(1), free(2), free(3), comes(4), comes(5), comes(6)]),
        "vm1: yes; vm2: yes; vm3: yes; \
                                                                                    vm4: yes; vm5: yes"
    );
    let taken = |n| free(n).answered("b", Version(0), None);
    assert_eq!(with(vec![taken(1), taken(2), taken(3), comes(4)]), "vm4: yes");
    assert_eq!(with(vec![let_come(1), let_come(2), comes(3), free(4)]), "vm4: yes");
    // But the room of one that waits is its own.
    let free = |n, mib| waiting(n, "a", mib).going_to("b", MoveKind::Migrate, How::Cold);
    let waits = moving(3, "a", "b", 3000).priority(1);
    let no = "vm4: no, 5096 MiB are needed (with 96 MiB for QEMU itself), 4264 MiB are free";
    assert_eq!(with(vec![let_come(1), let_come(2), waits.clone(), free(4, 5000)]), no);
    assert_eq!(with(vec![let_come(1), let_come(2), waits, free(4, 4000)]), "vm4: yes");
    // A refusal need not wait.
    let huge = moving(3, "a", "b", 9000);
    let no = "vm3: no, 9096 MiB are needed (with 96 MiB for QEMU itself), 7680 MiB are free";
    assert_eq!(with(vec![let_come(1), let_come(2), huge]), no);
}

#[test]
fn what_is_answered_is_answered_anew_only_when_its_record_changes() {
    let later = |vm: VmView| vm.version(1);
    let comes = || moving(1, "a", "b", 4096);
    for refused in [None, Some("full")] {
        assert_eq!(told(&around(node("b", 8), vec![comes().answered("b", Version(0), refused)]), &[]), "");
        assert_eq!(
            told(&around(node("b", 8), vec![later(comes()).answered("b", Version(0), refused)]), &[]),
            "vm1: yes"
        );
    }
    // Its room is its own still, though there is none beside, and no more may come just now.
    let again = later(comes()).answered("b", Version(0), None);
    let mut view = around(node("b", 8), vec![again.clone(), running(2, "b", 3000)]);
    view.config.limits.per_target = 1;
    assert_eq!(told(&view, &[]), "vm1: yes");
    // But not if the move was taken back, and another one was let come meanwhile.
    let second = moving(2, "a", "b", 4096).answered("b", Version(0), None);
    let vms = vec![again.clone(), second.clone(), moving(3, "a", "b", 3000)];
    let no = "vm1: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free";
    assert_eq!(told(&around(node("b", 8), vms), &[]), format!("{no}; vm3: yes"));
    // What is being sent comes in any case.
    let vms = vec![again.sent_to_node("b"), second, moving(3, "a", "b", 3000)];
    let no = "vm3: no, 3096 MiB are needed (with 96 MiB for QEMU itself), 0 MiB are free";
    assert_eq!(told(&around(node("b", 8), vms), &[]), format!("vm1: yes; {no}"));
}

#[test]
fn impossible_moves_are_refused_with_the_reason() {
    let ask = |kind, b: NodeView| {
        let state = VmState::Migrate { to: name("b"), kind, how: How::Live };
        told(&around(b, vec![vm(1, 64).on("a").wanted(state).held_by("a")]), &[])
    };
    use MoveKind::*;
    for kind in [Migrate, Move, Unmigrate] {
        assert_eq!(ask(kind, node("b", 8)), "vm1: yes");
        assert_eq!(ask(kind, node("b", 8).in_state(NodeState::Flush)), "vm1: no, it is in state flush");
        assert_eq!(ask(kind, node("b", 8).in_state(NodeState::Flushed)), "vm1: no, it is in state flushed");
        let broken = node("b", 8).without_hypervisor("no libvirtd");
        assert_eq!(ask(kind, broken), "vm1: no, its hypervisor cannot be used: no libvirtd");
        assert!(ask(kind, node("b", 8).unreported()).starts_with("vm1: no"));
    }
    // A node that is being made ready takes those that come home, and no others.
    assert_eq!(ask(Unmigrate, node("b", 8).in_state(NodeState::Unflush)), "vm1: yes");
    for kind in [Migrate, Move] {
        assert_eq!(ask(kind, node("b", 8).in_state(NodeState::Unflush)), "vm1: no, it is in state unflush");
    }
}

#[test]
fn what_was_said_of_a_vm_that_does_not_come_any_more_is_taken_away() {
    let vms = vec![
        moving(1, "a", "b", 64).answered("b", Version(0), None),
        moving(2, "a", "c", 64).answered("b", Version(0), None),
        running(3, "b", 64).answered("b", Version(0), None),
        running(4, "a", 64).answered("b", Version(0), Some("full")),
        running(5, "a", 64),
    ];
    let outdated = outdated(&around(node("b", 8), vms.clone()), &name("b"));
    assert_eq!(outdated, [2, 3, 4].map(Uuid::from_u128));
    assert!(super::outdated(&around(node("b", 8), vms), &name("a")).is_empty(), "it is not that node's to take away");
}

/// An event of one VM, or at node `b`.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Somebody wants it to go to `b`.
    Asked(usize),
    /// Or not any more.
    TakenBack(usize),
    /// If it may come, it is sent.
    Sent(usize),
    /// It is there.
    Arrived(usize),
    /// Node `b` sees everything as it is.
    Seen,
    /// Node `b` answers, by what it saw last.
    Answered,
}

const VMS: usize = 5;

fn events() -> impl Strategy<Value = Vec<Event>> {
    use Event::*;
    let event = prop_oneof![
        3 => (0..VMS).prop_map(Asked),
        2 => (0..VMS).prop_map(TakenBack),
        1 => (0..VMS).prop_map(Sent),
        1 => (0..VMS).prop_map(Arrived),
        3 => Just(Seen),
        4 => Just(Answered),
    ];
    prop::collection::vec(event, 0..60)
}

fn change(store: &mut ClusterView, i: usize, change: impl FnOnce(&mut VmView)) {
    if let Some(uuid) = store.vms.keys().nth(i).copied() {
        store.change_vm(&uuid, change);
    }
}

fn set_state(vm: &mut VmView, state: VmState) {
    vm.record.value.state = state;
    vm.record.version = vm.record.version.next();
}

/// Whether its sender may send it now.
fn may_come(vm: &VmView) -> bool {
    let said = vm.arrival.as_ref().is_some_and(|a| a.value.of == vm.record.version && a.value.refused.is_none());
    said && vm.record.value.state.destination().is_some()
}

proptest! {
    #![proptest_config(same_cases(1000))]

    /// What it let come fits together at every moment, however old its picture of the others is.
    #[test]
    fn a_node_never_promises_more_than_it_can_carry(sizes in prop::array::uniform5(500u64..4000), events in events()) {
        let vms = (0..VMS).map(|n| running(n as u128, "a", sizes[n])).collect();
        let mut store = around(node("b", 8), vms);
        store.config.limits.per_target = 3;
        let (b, mut seen, mut granted) = (name("b"), store.clone(), BTreeSet::new());
        for event in events {
            match event {
                Event::Asked(i) => change(&mut store, i, |vm| {
                    if vm.record.value.state == VmState::Start && vm.record.value.node == Some(name("a")) {
                        let kind = MoveKind::Move;
                        set_state(vm, VmState::Migrate { to: name("b"), kind, how: How::Live });
                    }
                }),
                Event::TakenBack(i) => change(&mut store, i, |vm| set_state(vm, VmState::Start)),
                Event::Sent(i) => change(&mut store, i, |vm| {
                    if may_come(vm) {
                        vm.claim.as_mut().unwrap().to = Some(name("b"));
                    }
                }),
                Event::Arrived(i) => change(&mut store, i, |vm| {
                    let claim = &mut vm.claim.as_mut().unwrap().value;
                    if claim.to.is_some() {
                        *claim = claim.granted_to(&b);
                        vm.record.value = VmRecord { ..vm.record.value.arrived(&b, MoveKind::Move) };
                        set_state(vm, VmState::Start);
                    }
                }),
                Event::Seen => seen = store.clone(),
                Event::Answered => {
                    let shown = |uuid: &Uuid| {
                        let vm = &seen.vms[uuid];
                        vm.arrival.as_ref().is_some_and(|a| a.value.of == vm.record.version)
                    };
                    granted.retain(|uuid| !shown(uuid));
                    for answer in answers(&seen, &b, &granted) {
                        if answer.refused.is_none() {
                            granted.insert(answer.uuid);
                        }
                        if store.vms[&answer.uuid].record.version == answer.of {
                            let refused = answer.refused.as_deref();
                            store.change_vm(&answer.uuid, |vm| *vm = vm.clone().answered("b", answer.of, refused));
                        }
                    }
                    for uuid in outdated(&seen, &b) {
                        store.change_vm(&uuid, |vm| vm.arrival = None);
                    }
                }
            }
            let carries = |vm: &&Arc<VmView>| {
                let claim = &vm.claim.as_ref().unwrap().value;
                claim.is_held_by(&b) || claim.to.as_ref() == Some(&b) || may_come(vm)
            };
            let sizes = store.vms.values().filter(carries).map(|vm| vm.demand.memory.saturating_add(OVERHEAD));
            let all: Bytes = sizes.sum();
            prop_assert!(all <= Bytes::mib(8 * 1024 - 512), "{} after {:?}", all, event);
        }
    }
}
