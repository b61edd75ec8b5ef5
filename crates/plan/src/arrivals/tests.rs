//! What a node answers to VMs that are to come to it; and that it never promises more than it can carry.

use super::*;
use crate::place::tests::{
    Tweak, cluster, kept, moving, name, node, node_in, running, same_cases, sending, status, vm,
};
use drover_model::{Arrival, DomainState, How, MoveKind, NodeView, VmRecord, vm::VM_SCHEMA};
use proptest::prelude::*;

/// What node `b` has said of a VM, as of a version of its record.
fn said(vm: &mut VmView, of: i64, refused: Option<&str>) {
    let refused = refused.map(str::to_owned);
    vm.arrival = Some(kept(Arrival { schema: VM_SCHEMA, node: name("b"), of: Version(of), refused }));
}

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
fn room_is_given_out_once() {
    let no = "vm1: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free";
    let other = |state, on, held| vm(2, state, on, held, 4096);
    let comes = || moving(2, "a", "b", 4096);
    let here = [
        ("one that runs here", other(VmState::Start, "b", Some("b"))),
        ("one that is to start here", other(VmState::Start, "b", None)),
        ("one that is held here still", other(VmState::Stop, "c", Some("b"))),
        ("one that may have been sent here", running(2, "a", 4096).but(|v| sending(v, "b"))),
        ("one that was let come", comes().but(|v| said(v, 0, None))),
    ];
    for (what, vm) in here {
        assert_eq!(told(&around(node("b", 8), vec![moving(1, "a", "b", 4096), vm]), &[]), no, "{what}");
    }
    let not_here = [
        ("one that is off here", other(VmState::Stop, "b", None)),
        ("one that was refused", comes().but(|v| said(v, 0, Some("full")))),
        ("one that was taken back", running(2, "a", 4096).but(|v| said(v, 0, None))),
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
    let vms = vec![
        moving(1, "a", "b", 4096),
        moving(2, "a", "b", 4096).but(|v| v.record.value.meta.priority = 1),
        moving(3, "a", "b", 1024),
    ];
    let no = "vm1: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free";
    assert_eq!(told(&around(node("b", 8), vms), &[]), format!("vm2: yes; {no}; vm3: yes"));
}

#[test]
fn no_more_come_at_once_than_the_limit_and_the_others_are_answered_later() {
    let comes = |n| moving(n, "a", "b", 64);
    let with = |vms: Vec<VmView>| {
        let mut view = around(node("b", 8), vms);
        view.config.limits.per_target = 2;
        told(&view, &[])
    };
    assert_eq!(with(vec![comes(1), comes(2), comes(3)]), "vm1: yes; vm2: yes");
    let let_come = |n| comes(n).but(|v| said(v, 0, None));
    assert_eq!(with(vec![comes(1), comes(2), let_come(3)]), "vm1: yes");
    assert_eq!(with(vec![comes(1), let_come(2), let_come(3)]), "");
    let sent = running(3, "a", 64).but(|v| sending(v, "b"));
    assert_eq!(with(vec![comes(1), comes(2), sent]), "vm1: yes");
    assert_eq!(with(vec![comes(1), comes(2), running(3, "b", 64)]), "vm1: yes; vm2: yes", "it has arrived");
    // A refusal need not wait.
    let huge = moving(3, "a", "b", 9000);
    let no = "vm3: no, 9096 MiB are needed (with 96 MiB for QEMU itself), 7680 MiB are free";
    assert_eq!(with(vec![let_come(1), let_come(2), huge]), no);
}

#[test]
fn what_is_answered_is_answered_anew_only_when_its_record_changes() {
    let later = |vm: VmView| vm.but(|v| v.record.version = Version(1));
    let comes = || moving(1, "a", "b", 4096);
    for refused in [None, Some("full")] {
        assert_eq!(told(&around(node("b", 8), vec![comes().but(|v| said(v, 0, refused))]), &[]), "");
        assert_eq!(told(&around(node("b", 8), vec![later(comes()).but(|v| said(v, 0, refused))]), &[]), "vm1: yes");
    }
    // Its room is its own still, though there is none beside, and no more may come just now.
    let again = later(comes()).but(|v| said(v, 0, None));
    let mut view = around(node("b", 8), vec![again.clone(), running(2, "b", 3000)]);
    view.config.limits.per_target = 1;
    assert_eq!(told(&view, &[]), "vm1: yes");
    // But not if the move was taken back, and another one was let come meanwhile.
    let second = moving(2, "a", "b", 4096).but(|v| said(v, 0, None));
    let vms = vec![again.clone(), second.clone(), moving(3, "a", "b", 3000)];
    let no = "vm1: no, 4192 MiB are needed (with 96 MiB for QEMU itself), 3488 MiB are free";
    assert_eq!(told(&around(node("b", 8), vms), &[]), format!("{no}; vm3: yes"));
    // What is being sent comes in any case.
    let vms = vec![again.but(|v| sending(v, "b")), second, moving(3, "a", "b", 3000)];
    let no = "vm3: no, 3096 MiB are needed (with 96 MiB for QEMU itself), 0 MiB are free";
    assert_eq!(told(&around(node("b", 8), vms), &[]), format!("vm1: yes; {no}"));
}

#[test]
fn what_can_never_come_is_refused_with_the_reason() {
    let ask = |kind, b: NodeView| {
        let state = VmState::Migrate { to: name("b"), kind, how: How::Live };
        told(&around(b, vec![vm(1, state, "a", Some("a"), 64)]), &[])
    };
    use MoveKind::*;
    for kind in [Migrate, Move, Unmigrate] {
        assert_eq!(ask(kind, node("b", 8)), "vm1: yes");
        assert_eq!(ask(kind, node_in("b", 8, DomainState::Flush)), "vm1: no, it is in state flush");
        assert_eq!(ask(kind, node_in("b", 8, DomainState::Flushed)), "vm1: no, it is in state flushed");
        let broken = node("b", 8).but(|n| status(n).hypervisor_problem = "no libvirtd".to_owned());
        assert_eq!(ask(kind, broken), "vm1: no, its hypervisor cannot be used: no libvirtd");
        assert!(ask(kind, node("b", 8).but(|n| n.status = None)).starts_with("vm1: no"));
    }
    // A node that is being made ready takes those that come home, and no others.
    assert_eq!(ask(Unmigrate, node_in("b", 8, DomainState::Unflush)), "vm1: yes");
    for kind in [Migrate, Move] {
        assert_eq!(ask(kind, node_in("b", 8, DomainState::Unflush)), "vm1: no, it is in state unflush");
    }
}

#[test]
fn what_was_said_of_a_vm_that_does_not_come_any_more_is_taken_away() {
    let vms = vec![
        moving(1, "a", "b", 64).but(|v| said(v, 0, None)),
        moving(2, "a", "c", 64).but(|v| said(v, 0, None)),
        running(3, "b", 64).but(|v| said(v, 0, None)),
        running(4, "a", 64).but(|v| said(v, 0, Some("full"))),
        running(5, "a", 64),
    ];
    let outdated = outdated(&around(node("b", 8), vms.clone()), &name("b"));
    assert_eq!(outdated, [2, 3, 4].map(Uuid::from_u128));
    assert!(super::outdated(&around(node("b", 8), vms), &name("a")).is_empty(), "it is not that node's to take away");
}

/// What happens to one of some VMs, or at node `b`.
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
                Event::Sent(i) => change(&mut store, i, |vm| if may_come(vm) { sending(vm, "b") }),
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
                            store.change_vm(&answer.uuid, |vm| said(vm, answer.of.0, refused));
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
