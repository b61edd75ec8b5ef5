//! Who ended a guest: itself, its host, or nobody knows; and what the machine's own end means.

use super::*;

#[test]
fn a_host_that_is_not_ready_starts_nothing_but_stops_what_must_stop() {
    let not_ready = HostState::NotReady("probing".to_owned());
    let mut case = Case { host: not_ready.clone(), ..Case::new(VmState::Start, "a", "-", "absent") };
    let decision = case.decide();
    assert_eq!(decision.step, Step::Wait);
    assert!(decision.look_again.is_some() && decision.doing.contains("probing"));
    let mut case = Case { host: not_ready, ..Case::new(VmState::Stop, "a", "a", "running") };
    assert_eq!(case.decide().step, Step::Destroy);
}

#[test]
fn a_guest_that_the_host_ended_is_started_again_as_after_a_crash() {
    let mut case = Case::new(VmState::Start, "a", "a", "ended");
    let decision = case.decide();
    assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(case.now.after(backoff(1)))));
    assert!(decision.doing.contains("ended by the host"), "{}", decision.doing);
    case.now = case.now.after(backoff(1));
    assert_eq!(case.decide().step, Step::Start);
    // Nor was it its own wish when it should move: it is started at the target.
    let migrate = VmState::Migrate { to: name("b"), kind: MoveKind::Migrate, how: How::Live };
    assert_eq!(Case::new(migrate.clone(), "a", "a", "ended").decide().step, Step::Undefine);
    assert_eq!(Case::new(migrate, "a", "a", "shutdown").decide().step, Step::Complete(VmState::Stop));
}

#[test]
fn a_guest_of_which_nobody_saw_who_ended_it_powered_itself_off_unless_the_hypervisor_says_so_in_time() {
    let migrate = VmState::Migrate { to: name("b"), kind: MoveKind::Migrate, how: How::Live };
    for state in [VmState::Start, migrate] {
        let mut case = Case::new(state, "a", "a", "unclear");
        assert_eq!(case.decide().step, Step::Wait);
        case.now = case.now.after(WORD_BY_THEN);
        assert_eq!(case.decide().step, Step::Complete(VmState::Stop));
    }
    let mut case = Case::new(VmState::Start, "a", "a", "unclear");
    case.decide();
    case.domain = seen("ended");
    case.decide();
    assert_eq!(case.memory.crashes, 1);
    // The time is that of this guest, not of the one before.
    let mut case = Case::new(VmState::Start, "a", "a", "unclear");
    case.decide();
    case.now = case.now.after(WORD_BY_THEN);
    case.domain = seen("+unclear");
    assert_eq!(case.decide().step, Step::Wait);
}

#[test]
fn the_next_daemon_knows_that_the_host_ended_the_guest() {
    let mut case = Case::new(VmState::Start, "a", "a", "ended");
    case.decide();
    // Of its predecessor's memory it has what was reported. The hypervisor does not tell it who ended the guest.
    let Memory { ended, crashes, .. } = case.memory;
    case.memory = Memory { ended, crashes, crashed_at: Some(case.now), ..Memory::default() };
    case.domain = seen("unclear");
    let decision = case.decide();
    assert!(decision.doing.contains("ended by the host (1×)"), "{}", decision.doing);
    case.now = case.now.after(WORD_BY_THEN);
    assert_eq!(case.decide().step, Step::Start);
    // The next guest powers itself off.
    case.domain = seen("+unclear");
    case.decide();
    case.now = case.now.after(WORD_BY_THEN);
    assert_eq!(case.decide().step, Step::Complete(VmState::Stop));
}

#[test]
fn on_a_machine_that_goes_down_nothing_is_stopped_for_good_or_started_again() {
    for domain in ["shutdown", "ended", "unclear", "crashed", "destroyed", "absent"] {
        let mut case = Case { host: HostState::GoingDown, ..Case::new(VmState::Start, "a", "a", domain) };
        case.memory.crashes = CRASH_LIMIT;
        let decision = case.decide();
        assert_eq!((decision.step, decision.look_again.is_some()), (Step::Wait, true), "{domain}");
    }
    // What should be off is off, and what should be elsewhere goes there.
    let case = |state, domain| Case { host: HostState::GoingDown, ..Case::new(state, "a", "a", domain) }.decide().step;
    assert_eq!(case(shutdown(), "shutdown"), Step::Complete(VmState::Stop));
    let migrate = VmState::Migrate { to: name("b"), kind: MoveKind::Migrate, how: How::Live };
    assert_eq!(case(migrate, "shutdown"), Step::Undefine);
}
