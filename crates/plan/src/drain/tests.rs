//! Golden tables of plans: who leaves a node that is flushed, in which order, and where to; who may be flushed.

mod home;
mod orders;
mod worlds;

use super::*;
use crate::moves;
use crate::place::tests::kept;
use crate::place::tests::{Tweak, cluster, moving, name, node, node_in, running, sending, status, vm};
use drover_model::{
    DomainType, Epoch, MigrationMethod, MoveFailure, NodeView, Selector, VmStatus, WallTime, domain::devices::Devices,
    vm::VM_SCHEMA,
};

/// A plan, in its order: `vm2 to b; vm1 shut down; ...`.
fn told(plan: &Plan) -> String {
    let one = |(_, name, fate): &(Uuid, VmName, Fate)| match fate {
        Fate::Moves { to, how: How::LiveElseCold } => format!("{name} to {to}"),
        Fate::Moves { to, how } => format!("{name} to {to} {how:?}"),
        Fate::ShutDown(_) => format!("{name} shut down"),
        Fate::Starts => format!("{name} starts"),
        Fate::UnderWay => format!("{name} under way"),
        Fate::Blocked(why) => format!("{name} blocked: {why}"),
    };
    plan.fates.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Its priority is that.
fn important(vm: VmView, priority: i32) -> VmView {
    vm.but(|v| v.record.value.meta.priority = priority)
}

fn limited(vm: VmView, nodes: &[&str]) -> VmView {
    vm.but(|v| v.record.value.meta.node_limit = nodes.iter().map(|n| name(n)).collect())
}

/// Its home is that node.
fn away_from(home: &str, vm: VmView) -> VmView {
    vm.but(|v| v.record.value.last_node = Some(name(home)))
}

/// A flush had to shut it down.
fn autostart(vm: VmView) -> VmView {
    vm.but(|v| v.record.value.meta.autostart = true)
}

/// Moves of it to that node failed so often.
fn failed(vm: VmView, to: &str, count: u32) -> VmView {
    vm.but(|v| {
        v.status = Some(kept(VmStatus {
            schema: VM_SCHEMA,
            node: name("a"),
            epoch: Epoch(1),
            run: None,
            unknown: false,
            doing: String::new(),
            generation: None,
            crashes: 0,
            since: WallTime(0),
            console: false,
            vnc: None,
            progress: None,
            move_failure: Some(MoveFailure { to: name(to), reason: "no route".to_owned(), count, told: count }),
        }));
    })
}

/// Who leaves node `a`, which is flushed; `b` and `c` take VMs, and `c` has more memory.
fn leaving(vms: Vec<VmView>) -> String {
    let nodes = vec![node_in("a", 64, DomainState::Flush), node("b", 16), node("c", 32)];
    told(&evacuate(&cluster(nodes, vms), &name("a")))
}

#[test]
fn the_most_important_leaves_first_then_the_largest_then_by_name() {
    let vms = vec![
        running(1, "a", 1024),
        running(2, "a", 2048),
        running(3, "a", 2048),
        important(running(4, "a", 512), 1),
        important(running(5, "a", 4096), -1),
    ];
    assert_eq!(leaving(vms), "vm4 to c; vm2 to c; vm3 to c; vm1 to c; vm5 to c");
}

#[test]
fn room_is_reserved_as_it_is_planned_so_that_not_all_go_to_one_node() {
    let flushed_a = |nodes: Vec<NodeView>, vms| told(&evacuate(&cluster(nodes, vms), &name("a")));
    let four = || (1..=4).map(|n| running(n, "a", 2048)).collect::<Vec<_>>();
    let equal = vec![node_in("a", 64, DomainState::Flush), node("b", 16), node("c", 16)];
    assert_eq!(flushed_a(equal, four()), "vm1 to b; vm2 to c; vm3 to b; vm4 to c");
    let full = vec![node_in("a", 64, DomainState::Flush), node("b", 5), node("c", 7)];
    assert_eq!(flushed_a(full, four()), "vm1 to c; vm2 to b; vm3 to c; vm4 to b");
    let fuller = vec![node_in("a", 64, DomainState::Flush), node("b", 3), node("c", 7)];
    assert_eq!(flushed_a(fuller, four()), "vm1 to c; vm2 to c; vm3 to b; vm4 to c");
}

#[test]
fn each_vm_goes_where_its_own_selector_and_limit_say() {
    let by_vms = |n| running(n, "a", 64).but(|v| v.record.value.meta.selector = Some(Selector::Vms));
    assert_eq!(leaving(vec![by_vms(1), by_vms(2), running(3, "a", 64)]), "vm1 to b; vm2 to c; vm3 to c");
    assert_eq!(leaving(vec![limited(running(1, "a", 64), &["a", "b"])]), "vm1 to b");
}

#[test]
fn one_with_nowhere_to_go_is_shut_down_and_the_plan_says_why() {
    let view = cluster(
        vec![node_in("a", 64, DomainState::Flush), node("b", 2), node_in("c", 64, DomainState::Flushed)],
        vec![running(1, "a", 2048), running(2, "a", 1024)],
    );
    let plan = evacuate(&view, &name("a"));
    assert_eq!(told(&plan), "vm1 shut down; vm2 to b");
    assert_eq!(
        plan.fates[0].2,
        Fate::ShutDown(
            "b: 2144 MiB are needed (with 96 MiB for QEMU itself), 1536 MiB are free; \
             c: it is in state flushed"
                .to_owned()
        )
    );
}

#[test]
fn how_a_vm_leaves_is_its_methods_to_say() {
    let by = |method| leaving(vec![running(1, "a", 64).but(|v| v.record.value.meta.method = method)]);
    assert_eq!(by(MigrationMethod::None), "vm1 to c");
    assert_eq!(by(MigrationMethod::Live), "vm1 to c Live");
    assert_eq!(by(MigrationMethod::Shutdown), "vm1 to c Cold");
}

#[test]
fn only_a_running_guest_needs_the_same_processor() {
    let kvm = |node: NodeView, model: &str| {
        node.but(|n| (status(n).domain_type, status(n).cpu_model) = (Some(DomainType::Kvm), model.to_owned()))
    };
    let leaves = |vm: VmView| {
        let nodes = vec![kvm(node_in("a", 8, DomainState::Flush), "xeon"), kvm(node("b", 8), "epyc")];
        let host_cpu = Devices::read("<domain><cpu mode='host-passthrough'/></domain>");
        told(&evacuate(&cluster(nodes, vec![vm.but(|v| v.devices = host_cpu.into())]), &name("a")))
    };
    let by = |method| running(1, "a", 64).but(|v| v.record.value.meta.method = method);
    assert_eq!(leaves(by(MigrationMethod::Live)), "vm1 shut down");
    assert_eq!(leaves(by(MigrationMethod::None)), "vm1 to b Cold");
    assert_eq!(leaves(by(MigrationMethod::Shutdown)), "vm1 to b Cold");
    assert_eq!(leaves(vm(1, VmState::Start, "a", None, 64)), "vm1 to b");
}

#[test]
fn what_is_on_the_node_leaves_what_is_being_done_is_waited_for_the_rest_does_not_count() {
    use VmState::*;
    let fail = || Fail { reason: "x".to_owned() };
    let shutdown = || Shutdown { timeout_s: 9, then: AtRest::Stop };
    let restart = || Restart { timeout_s: 9 };
    let rows = [
        ("runs here", running(1, "a", 64), "vm1 to c"),
        ("is to start here", vm(1, Start, "a", None, 64), "vm1 to c"),
        ("is to start here, and is held elsewhere still", vm(1, Start, "a", Some("b"), 64), "vm1 to c"),
        ("is shut down", vm(1, shutdown(), "a", Some("a"), 64), "vm1 under way"),
        ("restarts", vm(1, restart(), "a", Some("a"), 64), "vm1 under way"),
        ("restarts, and is not held", vm(1, restart(), "a", None, 64), "vm1 under way"),
        ("is on its way from here", moving(1, "a", "b", 64), "vm1 under way"),
        ("is on its way to here", moving(1, "b", "a", 64), "vm1 under way"),
        ("may have come here after all", running(1, "b", 64).but(|v| sending(v, "a")), "vm1 under way"),
        ("may have gone from here after all", running(1, "a", 64).but(|v| sending(v, "b")), "vm1 under way"),
        ("is assigned elsewhere, and held here", vm(1, Start, "b", Some("a"), 64), "vm1 under way"),
        ("is off, and held here", vm(1, Stop, "a", Some("a"), 64), "vm1 under way"),
        ("is deleted, and held here", vm(1, Delete { disks: true }, "a", Some("a"), 64), "vm1 under way"),
        ("is off", vm(1, Stop, "a", None, 64), ""),
        ("is disabled", vm(1, Disable, "a", None, 64), ""),
        ("failed", vm(1, fail(), "a", None, 64), ""),
        ("runs elsewhere", running(1, "b", 64), ""),
        ("runs elsewhere, and has its home here", away_from("a", running(1, "b", 64)), ""),
        ("goes from elsewhere to elsewhere", moving(1, "b", "c", 64), ""),
    ];
    for (what, vm, says) in rows {
        assert_eq!(leaving(vec![vm]), says, "a VM that {what}");
    }
}

#[test]
fn where_it_failed_is_tried_again_only_if_there_is_no_other_and_not_for_ever() {
    let vm1 = || running(1, "a", 64);
    assert_eq!(leaving(vec![vm1()]), "vm1 to c");
    assert_eq!(leaving(vec![failed(vm1(), "c", 1)]), "vm1 to b");
    assert_eq!(leaving(vec![failed(vm1(), "b", 2)]), "vm1 to c");
    assert_eq!(leaving(vec![limited(failed(vm1(), "c", 2), &["c"])]), "vm1 to c");
    // One that may only be moved live is left to an administrator in the end; others are moved cold by then.
    let live_only = |vm: VmView| vm.but(|v| v.record.value.meta.method = MigrationMethod::Live);
    assert_eq!(leaving(vec![live_only(failed(vm1(), "c", 2))]), "vm1 to b Live");
    assert_eq!(leaving(vec![live_only(failed(vm1(), "c", 3))]), "vm1 blocked: its move to c failed 3 times: no route");
    assert_eq!(leaving(vec![failed(vm1(), "c", 3)]), "vm1 to b");
    // It takes no room from the others then.
    let large = running(1, "a", 31 * 1024);
    assert_eq!(leaving(vec![large.clone(), running(2, "a", 20 * 1024)]), "vm1 to c; vm2 shut down");
    let blocked = leaving(vec![live_only(failed(large, "c", 3)), running(2, "a", 20 * 1024)]);
    assert_eq!(blocked, "vm1 blocked: its move to c failed 3 times: no route; vm2 to c");
}

#[test]
fn what_is_explained_and_what_is_asked_for_avoid_where_it_failed_as_a_flush_does() {
    let vm1 = failed(running(1, "a", 64), "c", 1);
    let view = cluster(vec![node("a", 64), node("b", 16), node("c", 32)], vec![vm1.clone()]);
    let explained = place::choose(&view, &Ledger::of(&view), &Wanted::moved(&vm1));
    assert_eq!(explained.chosen, Some((name("b"), How::LiveElseCold)));
    assert_eq!(explained.reasons(), "c: it could not be brought there just now: no route");
    let asked = |to| moves::Request { kind: MoveKind::Move, to, force: false, live_only: false };
    let goes = |to| moves::relocate(&view, &vm1, &asked(to)).unwrap().state.destination().cloned();
    assert_eq!(goes(None), Some(name("b")));
    assert_eq!(goes(Some(name("c"))), Some(name("c")), "it was named");
}

#[test]
fn two_nodes_that_are_flushed_at_once_never_pick_each_other() {
    let flushed = |third: Option<NodeView>| {
        let nodes = vec![node_in("a", 64, DomainState::Flush), node_in("b", 64, DomainState::Flush)];
        let nodes = nodes.into_iter().chain(third).collect();
        let view = cluster(nodes, vec![running(1, "a", 64), running(2, "b", 64)]);
        (told(&evacuate(&view, &name("a"))), told(&evacuate(&view, &name("b"))))
    };
    assert_eq!(flushed(Some(node("c", 2))), ("vm1 to c".to_owned(), "vm2 to c".to_owned()));
    assert_eq!(flushed(None), ("vm1 shut down".to_owned(), "vm2 shut down".to_owned()));
}

#[test]
fn an_empty_node_has_an_empty_plan_and_one_that_nobody_knows_too() {
    let view = cluster(vec![node("a", 8), node("b", 8)], vec![running(1, "b", 64)]);
    assert_eq!(evacuate(&view, &name("a")), Plan::default());
    assert_eq!(evacuate(&view, &name("x")), Plan::default());
    assert_eq!(bring_home(&view, &name("x")), Plan::default());
    assert!(Plan::default().is_done());
}

#[test]
fn a_report_counts_what_is_left_what_is_on_its_way_and_names_what_is_stuck() {
    let fate = |n: u128, fate| (Uuid::from_u128(n), VmName::new(&format!("vm{n}")).unwrap(), fate);
    let moves = || Fate::Moves { to: name("b"), how: How::Live };
    let fates = vec![
        fate(1, moves()),
        fate(2, Fate::UnderWay),
        fate(3, Fate::ShutDown("full".to_owned())),
        fate(4, Fate::Starts),
        fate(5, Fate::Blocked("it failed".to_owned())),
        fate(6, Fate::UnderWay),
    ];
    let blocked = vec![(VmName::new("vm5").unwrap(), "it failed".to_owned())];
    assert_eq!(Plan { fates }.report(), DrainReport { left: 5, moving: 2, blocked });
    for (one, done) in [
        (moves(), false),
        (Fate::UnderWay, false),
        (Fate::ShutDown(String::new()), false),
        (Fate::Starts, false),
        (Fate::Blocked(String::new()), true),
    ] {
        assert_eq!(Plan { fates: vec![fate(1, one.clone())] }.is_done(), done, "{one:?}");
    }
}

#[test]
fn a_request_begins_what_is_not_so_yet() {
    use DomainState::*;
    let ask = |now, ready| request(&cluster(vec![node("a", 8), node("b", 8)], vec![]), &name("a"), now, ready, false);
    for (now, ready, then) in [
        (Ready, false, Flush),
        (Unflush, false, Flush),
        (Flush, false, Flush),
        (Flushed, false, Flushed),
        (Flush, true, Unflush),
        (Flushed, true, Unflush),
        (Unflush, true, Unflush),
        (Ready, true, Ready),
    ] {
        assert_eq!(ask(now, ready), Ok(then), "{now}, ready: {ready}");
    }
}

#[test]
fn the_last_node_that_takes_vms_is_flushed_by_force_only() {
    use DomainState::*;
    let last = "a is the last node that takes VMs: every VM on it would be shut down. Make another node ready first, \
                or use force";
    let others = [
        ("none", vec![], false),
        ("one that is flushed", vec![node_in("b", 8, Flushed)], false),
        ("one that is being flushed", vec![node_in("b", 8, Flush)], false),
        ("one that is being made ready", vec![node_in("b", 8, Unflush)], false),
        ("one that is dead", vec![node("b", 8).but(|n| n.session = None)], false),
        ("one that takes VMs", vec![node_in("b", 8, Flushed), node("c", 8)], true),
    ];
    for (what, others, allowed) in others {
        let view = cluster([vec![node("a", 8)], others].concat(), vec![]);
        let asked = request(&view, &name("a"), Ready, false, false);
        let wanted = if allowed { Ok(Flush) } else { Err(last.to_owned()) };
        assert_eq!(asked.map_err(|refusal| refusal.to_string()), wanted, "others: {what}");
        assert_eq!(request(&view, &name("a"), Ready, false, true), Ok(Flush), "others: {what}");
        assert_eq!(request(&view, &name("a"), Ready, true, false), Ok(Ready), "others: {what}");
    }
    let alone = cluster(vec![node_in("a", 8, Flushed)], vec![]);
    assert_eq!(request(&alone, &name("a"), Flushed, false, false), Ok(Flushed), "it is so already");
    assert_eq!(request(&alone, &name("a"), Flushed, true, false), Ok(Unflush));
}

#[test]
fn a_node_whose_daemon_does_not_run_cannot_be_asked_by_force_either() {
    use DomainState::*;
    let dead = |state| cluster(vec![node_in("a", 8, state).but(|n| n.session = None), node("b", 8)], vec![]);
    let says = "the daemon of node a is in state dead, so it cannot do this; start it first";
    for (now, ready) in [(Ready, false), (Flushed, true), (Flush, true), (Unflush, false)] {
        for force in [false, true] {
            let refusal = request(&dead(now), &name("a"), now, ready, force).unwrap_err();
            assert_eq!(refusal.to_string(), says, "{now}, ready: {ready}, force: {force}");
        }
    }
    for (now, ready) in [(Ready, true), (Flushed, false), (Flush, false), (Unflush, true)] {
        assert_eq!(request(&dead(now), &name("a"), now, ready, false), Ok(now), "nothing is to be done");
    }
}
