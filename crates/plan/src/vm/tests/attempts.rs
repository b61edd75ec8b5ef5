//! Starts that fail, guests that crash, and guests that cannot be killed: how often something is tried, and when.

use super::*;

#[test]
fn crashes_are_counted_once_wait_longer_each_time_and_end_in_fail() {
    let mut case = Case::new(VmState::Start, "a", "a", "crashed");
    for n in 1..CRASH_LIMIT {
        let (first, again) = (case.decide(), case.decide());
        assert_eq!(case.memory.crashes, n, "counted once");
        assert_eq!((&first.step, &first), (&Step::Wait, &again));
        assert_eq!(first.look_again, Some(case.now.after(backoff(n))));
        case.now = case.now.after(backoff(n));
        assert_eq!(case.decide().step, Step::Start);
        if let Obs::Known(seen) = &mut case.domain {
            seen.mark.epoch = seen.mark.epoch.next();
        }
    }
    let Step::Complete(VmState::Fail { reason }) = case.decide().step else { panic!("{:?}", case.memory) };
    assert_eq!(reason, "crashed 5 times in a row");

    // A person's command begins anew.
    case.record = Some(Stored::new(record(VmState::Stop, "a"), Version(8)));
    case.decide();
    assert_eq!(case.memory.crashes, 0);
}

#[test]
fn a_quiet_time_forgives_and_a_vanished_domain_counts() {
    let mut case = Case::new(VmState::Start, "a", "a", "running");
    case.memory.crashes = 3;
    let t0 = case.now;
    assert_eq!(case.decide().look_again, Some(t0.after(CRASH_QUIET)));
    case.now = t0.after(CRASH_QUIET);
    case.decide();
    assert_eq!(case.memory.crashes, 0);
    case.domain = Obs::Absent;
    assert_eq!(case.decide().step, Step::Wait);
    assert_eq!(case.memory.crashes, 1);
}

#[test]
fn a_refused_start_is_tried_again_later_each_time_and_given_up_with_the_hypervisors_words() {
    let mut case = Case::new(VmState::Start, "a", "a", "absent");
    for n in 1..START_LIMIT {
        case.memory.start_failed(Generation(1), Failed::Refused, "no bridge br1".to_owned(), case.now);
        let decision = case.decide();
        assert_eq!((&decision.step, decision.look_again), (&Step::Wait, Some(case.now.after(backoff(n)))));
        assert!(decision.doing.contains("no bridge br1"), "{decision:?}");
        case.now = case.now.after(backoff(n));
        assert_eq!(case.decide().step, Step::Start);
    }
    assert!(
        case.now.since(Mono(1_000_000)) > Duration::from_secs(90),
        "what comes a minute after the boot is waited for"
    );
    case.memory.start_failed(Generation(1), Failed::Refused, "no bridge br1".to_owned(), case.now);
    assert_eq!(case.decide().step, Step::Complete(VmState::Fail { reason: "no bridge br1".to_owned() }));
    // A guest that came into memory has been started.
    case.domain = seen("running");
    case.decide();
    assert_eq!(case.memory.start_failures, None);
}

#[test]
fn a_start_of_which_nothing_is_known_is_tried_again_later_each_time_and_not_given_up() {
    let mut case = Case::new(VmState::Start, "a", "a", "absent");
    for n in 1..START_LIMIT * 3 {
        case.memory.start_failed(Generation(1), Failed::Unknown, "no answer".to_owned(), case.now);
        let decision = case.decide();
        assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(case.now.after(backoff(n)))));
        case.now = case.now.after(backoff(n));
        assert_eq!(case.decide().step, Step::Start);
    }
}

#[test]
fn a_definition_that_is_not_accepted_fails_at_once_until_somebody_changes_it_or_stops_the_vm() {
    let fails = Step::Complete(VmState::Fail { reason: "no such machine".to_owned() });
    let failed = || {
        let mut case = Case::new(VmState::Start, "a", "a", "absent");
        case.memory.start_failed(Generation(1), Failed::ForGood, "no such machine".to_owned(), case.now);
        assert_eq!(case.decide().step, fails);
        case
    };
    let stored = |record| Some(Stored::new(record, Version(9)));
    let mut case = failed();
    case.record = stored(VmRecord { generation: Generation(2), ..record(VmState::Start, "a") });
    assert_eq!(case.decide().step, Step::Start);
    let mut case = failed();
    case.record = stored(record(VmState::Fail { reason: String::new() }, "a"));
    case.decide();
    case.record = stored(record(VmState::Start, "a"));
    assert_eq!(case.decide().step, Step::Start);
}

#[test]
fn orders_to_move_a_vm_that_could_not_be_started_do_not_shorten_the_wait_for_its_next_start() {
    let mut case = Case::new(VmState::Start, "a", "a", "absent");
    case.kept = Some(KeptState::Tpm);
    for n in 1..START_LIMIT {
        case.memory.start_failed(Generation(1), Failed::Unknown, "no answer".to_owned(), case.now);
        let migrate = VmState::Migrate { to: name("b"), kind: MoveKind::Migrate, how: How::Live };
        case.record = Some(Stored::new(record(migrate, "a"), Version(i64::from(n) * 2 + 8)));
        assert!(matches!(case.decide().step, Step::GiveUpMove(_)));
        case.record = Some(Stored::new(record(VmState::Start, "a"), Version(i64::from(n) * 2 + 9)));
        assert_eq!(case.decide().step, Step::Wait);
        case.now = case.now.after(backoff(n));
        assert_eq!(case.decide().step, Step::Start);
    }
}

#[test]
fn a_guest_that_cannot_be_killed_keeps_its_claim_and_is_a_fault_after_a_while() {
    let mut case = Case::new(VmState::Stop, "a", "a", "running");
    assert_eq!(case.decide().step, Step::Destroy);
    let first = case.now;
    let (mut tries, mut last) = (0, case.now);
    // Ten minutes of attempts, each of which fails at once.
    while case.now < first.after(Duration::from_secs(600)) {
        let decision = case.decide();
        let is_fault = case.memory.cut_failures.as_ref().is_some_and(|failures| failures.is_fault(case.now));
        assert_eq!(is_fault, tries > 0 && case.now >= first.after(FAULT_AFTER), "{:?}", case.now);
        match decision.step {
            Step::Destroy => {
                assert!(tries == 0 || case.now >= last.after(backoff(tries)), "too early: {:?}", case.now);
                (tries, last) = (tries + 1, case.now);
                case.memory.cut_failed(Epoch(4), "the process does not end".to_owned(), case.now);
            }
            Step::Wait => {
                assert!(decision.doing.contains("the process does not end"), "{}", decision.doing);
                case.now = decision.look_again.unwrap();
            }
            step => panic!("{step:?}"),
        }
    }
    assert!((10..20).contains(&tries), "{tries}");
    // What ended it does not matter; another guest is cut at once.
    case.domain = seen("<running");
    assert_eq!(case.decide().step, Step::Destroy);
    case.domain = seen("destroyed");
    case.decide();
    assert_eq!(case.memory.cut_failures, None);
}

#[test]
fn a_process_that_the_hypervisor_has_given_up_is_the_same_trouble_until_it_has_ended() {
    let mut case = Case::new(VmState::Stop, "a", "a", "unknown");
    let begin = case.now;
    let is_fault = |case: &Case| case.memory.cut_failures.as_ref().is_some_and(|failures| failures.is_fault(case.now));
    // Cutting the power failed at first.
    case.memory.cut_failed(Epoch(4), "no answer".to_owned(), case.now);
    while case.now < begin.after(FAULT_AFTER) {
        case.memory.given_up(Epoch(4), "it has not ended".to_owned(), case.now);
        assert!(!is_fault(&case));
        assert_eq!(case.decide().step, Step::Wait, "the claim is not released");
        case.now = case.now.after(LOOK_AGAIN);
    }
    case.decide();
    assert!(is_fault(&case));
    assert_eq!(case.memory.cut_failures.as_ref().map(|failures| &*failures.why), Some("it has not ended"));
    // That of another guest is another one.
    case.memory.given_up(Epoch(5), "it has not ended".to_owned(), case.now);
    assert!(!is_fault(&case));
    case.domain = Obs::Absent;
    assert_eq!(case.decide().step, Step::Release);
    assert_eq!(case.memory.cut_failures, None);
}
