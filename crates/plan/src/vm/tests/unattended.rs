//! Guests that are paused by an I/O error and run on by themselves.

use super::*;
use crate::vm::attempts_after_error::{LONGEST, QUIET, SETTLED};

/// A VM with or without that wish, on its node.
fn case(wished: bool, domain: &str) -> Case {
    let mut case = Case::new(VmState::Start, "a", "a", domain);
    if let Some(record) = &mut case.record {
        record.value.meta.resume_after_io_error = wished;
    }
    case
}

impl Case {
    /// Seconds until the guest, which stays paused, is resumed for the next time; and the guest was, in vain.
    fn until_tried(&mut self, refused: Option<&str>) -> u64 {
        let begin = self.now;
        loop {
            let decision = self.decide();
            if decision.step == Step::ResumeAfterError {
                self.memory.resumed_after_error(self.now, refused.map(str::to_owned));
                return self.now.since(begin).as_secs();
            }
            assert_eq!(decision.step, Step::Wait);
            self.now = decision.look_again.unwrap();
        }
    }

    /// The guest is seen like that for so long.
    fn is_seen(&mut self, word: &str, long: Duration) {
        self.domain = seen(word);
        self.decide();
        self.now = self.now.after(long);
        self.decide();
    }
}

#[test]
fn it_is_tried_with_growing_pauses_and_what_it_is_doing_says_so() {
    let mut case = case(true, "io-error");
    let first = case.decide();
    assert!(first.doing.contains("resumed now and then") && first.doing.contains("'drover vm resume"), "{first:?}");
    let tried: Vec<u64> = (0..8).map(|_| case.until_tried(None)).collect();
    assert_eq!(tried, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert!(case.decide().doing.contains("(8×)"), "{:?}", case.decide());
    case.until_tried(Some("the monitor does not answer"));
    assert!(case.decide().doing.contains("(9×, the monitor does not answer)"), "{:?}", case.decide());
}

#[test]
fn a_guest_that_fails_again_is_not_tried_faster_and_one_that_has_run_for_long_is_as_new() {
    let mut failing = case(true, "io-error");
    assert_eq!([failing.until_tried(None), failing.until_tried(None)], [10, 20]);
    for pause in [40, 80, 160] {
        // It executes until it uses its disk again.
        failing.is_seen("running", QUIET / 2);
        failing.domain = seen("io-error");
        assert_eq!(failing.until_tried(None), pause);
    }
    // What cannot be seen is no run.
    failing.is_seen("unknown", QUIET * 2);
    failing.domain = seen("io-error");
    failing.decide();
    assert!(failing.until_tried(None) <= LONGEST.as_secs());
    assert_eq!(failing.until_tried(None), LONGEST.as_secs());
    failing.is_seen("running", QUIET);
    failing.domain = seen("io-error");
    assert_eq!(failing.until_tried(None), 10);
    // Another guest has its own trouble.
    failing.until_tried(None);
    failing.claim = Some(Stored::new(claim("a").granted_to(&name("a")), Version(3)));
    failing.domain = Obs::Known(Seen {
        mark: Mark { epoch: Epoch(5), generation: Generation(1) },
        ..*failing.domain.known().unwrap()
    });
    assert_eq!(failing.until_tried(None), 10);
}

#[test]
fn nobody_elses_pause_is_ended_and_none_that_is_not_wished() {
    for domain in ["paused", "preserved", "asleep", "busy", "switching", "broken-half"] {
        let mut case = case(true, domain);
        for _ in 0..20 {
            let step = case.decide().step;
            assert!(!matches!(step, Step::ResumeAfterError | Step::Resume | Step::Wake), "{domain}: {step:?}");
            case.now = case.now.after(LONGEST);
        }
    }
    let mut unwished = case(false, "io-error");
    for _ in 0..5 {
        let decision = unwished.decide();
        assert_eq!((decision.step, decision.look_again), (Step::Wait, None));
        assert!(!decision.doing.contains("now and then"), "{}", decision.doing);
        unwished.now = unwished.now.after(LONGEST);
    }
    // An order comes first.
    for state in [VmState::Stop, VmState::Resume, shutdown()] {
        let mut ordered = case(true, "io-error");
        ordered.decide();
        ordered.now = ordered.now.after(LONGEST);
        ordered.record.as_mut().unwrap().value.state = state.clone();
        assert_ne!(ordered.decide().step, Step::ResumeAfterError, "{state:?}");
    }
}

#[test]
fn whether_it_runs_on_is_known_a_while_later() {
    let open = |case: &Case| case.memory.io_error.as_ref().is_some_and(|attempts| attempts.is_open(case.now));
    let mut case = case(true, "io-error");
    case.decide();
    assert!(!open(&case), "nothing was tried");
    case.until_tried(None);
    assert!(open(&case));
    case.domain = seen("running");
    let decision = case.decide();
    assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(case.now.after(SETTLED))));
    assert!(open(&case));
    case.now = case.now.after(SETTLED);
    assert_eq!((case.decide().look_again, open(&case)), (None, false));
    // One that ends has no such trouble.
    case.domain = seen("crashed");
    case.decide();
    assert_eq!(case.memory.io_error, None);
}
