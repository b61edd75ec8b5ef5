//! What a plan reports, and who may be flushed. Who leaves and who comes home is told by `tests/scripts`.

mod orders;

use super::*;
use drover_model::{MigrationMethod, MoveFailure, RunState, testing::*};

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
    let moves = || Fate::Moves { to: name("b"), how: How::Live, why: Box::default() };
    let fates = vec![
        fate(1, moves()),
        fate(2, Fate::UnderWay),
        fate(3, Fate::ShutDown("full".to_owned())),
        fate(4, Fate::Starts),
        fate(5, Fate::Blocked("it failed".to_owned())),
        fate(6, Fate::UnderWay),
    ];
    let blocked = vec![(VmName::new("vm5").unwrap(), "it failed".to_owned())];
    let strays = vec![Uuid::from_u128(9)];
    let report = DrainReport { left: 5, moving: 2, blocked, strays: strays.clone() };
    assert_eq!(Plan { fates, strays }.report(), report);
    for (one, done) in [
        (moves(), false),
        (Fate::UnderWay, false),
        (Fate::ShutDown(String::new()), false),
        (Fate::Starts, false),
        (Fate::Blocked(String::new()), true),
        (Fate::Away(String::new()), true),
    ] {
        assert_eq!(Plan { fates: vec![fate(1, one.clone())], strays: vec![] }.is_done(), done, "{one:?}");
    }
}

#[test]
fn a_request_begins_what_is_not_so_yet() {
    use NodeState::*;
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
    use NodeState::*;
    let last = "a is the last node that takes VMs: every VM on it would be shut down. Make another node ready first, \
                or use force";
    let others = [
        ("none", vec![], false),
        ("one that is flushed", vec![node("b", 8).in_state(Flushed)], false),
        ("one that is being flushed", vec![node("b", 8).in_state(Flush)], false),
        ("one that is being made ready", vec![node("b", 8).in_state(Unflush)], false),
        ("one that is dead", vec![node("b", 8).dead()], false),
        ("one that takes VMs", vec![node("b", 8).in_state(Flushed), node("c", 8)], true),
    ];
    for (what, others, allowed) in others {
        let view = cluster([vec![node("a", 8)], others].concat(), vec![]);
        let asked = request(&view, &name("a"), Ready, false, false);
        let wanted = if allowed { Ok(Flush) } else { Err(last.to_owned()) };
        assert_eq!(asked.map_err(|refusal| refusal.to_string()), wanted, "others: {what}");
        assert_eq!(request(&view, &name("a"), Ready, false, true), Ok(Flush), "others: {what}");
        assert_eq!(request(&view, &name("a"), Ready, true, false), Ok(Ready), "others: {what}");
    }
    let alone = cluster(vec![node("a", 8).in_state(Flushed)], vec![]);
    assert_eq!(request(&alone, &name("a"), Flushed, false, false), Ok(Flushed), "it is so already");
    assert_eq!(request(&alone, &name("a"), Flushed, true, false), Ok(Unflush));
}

#[test]
fn a_node_whose_daemon_does_not_run_cannot_be_asked_by_force_either() {
    use NodeState::*;
    let dead = |state| cluster(vec![node("a", 8).in_state(state).dead(), node("b", 8)], vec![]);
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

#[test]
fn a_vm_that_cannot_be_moved_live_or_cold_is_left_to_an_administrator() {
    let fate = |count| {
        let failed = MoveFailure { to: name("b"), reason: "it hangs".to_owned(), count, told: 2 * count };
        let vm = running(1, "a", 64).defined("<devices><tpm><backend type='emulator'/></tpm></devices>");
        let vm = vm.reported(|report| {
            (report.run, report.move_failure) = (Some(RunState::Running), Some(failed));
        });
        evacuate(&cluster(vec![node("a", 8), node("b", 8)], vec![vm]), &name("a")).fates.remove(0).2
    };
    assert!(matches!(fate(FAILURES_MAX - 1), Fate::Moves { .. }));
    assert_eq!(fate(FAILURES_MAX), Fate::Blocked("its move to b failed 3 times: it hangs".to_owned()));
}
