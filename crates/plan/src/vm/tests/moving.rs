//! The steps of a VM that moves: at the node that sends it, and at the one that it comes to.

use super::*;
use crate::moves::Turn;
use drover_model::{Epoch, How, MoveKind, domain::KeptState};

fn migrate(to: &str, how: How) -> VmState {
    VmState::Migrate { to: name(to), kind: MoveKind::Migrate, how }
}
fn live() -> VmState {
    migrate("b", How::Live)
}
fn live_else_cold() -> VmState {
    migrate("b", How::LiveElseCold)
}
fn cold() -> VmState {
    migrate("b", How::Cold)
}

/// Everything that may be wanted of a VM.
pub(super) fn every_state() -> Vec<VmState> {
    use VmState::*;
    let moves = [live(), live_else_cold(), cold(), migrate("c", How::Live), migrate("a", How::Live)];
    let others = [Start, Stop, Disable, fail(), shutdown(), restart(), delete(), Delete { disks: true }];
    moves.into_iter().chain(others).collect()
}

pub(super) fn turn(word: &str) -> Turn {
    match word {
        "go" => Turn::Go,
        "wait" => Turn::Wait("others move".to_owned()),
        "unfit" => Turn::Unfit("b is full".to_owned()),
        other => panic!("{other}"),
    }
}

#[test]
fn the_sender_sends_when_it_is_its_turn() {
    use Step::*;
    let give_up = || GiveUpMove("b is full".to_owned());
    let stopped = || Complete(VmState::Stop);
    let paused =
        |what: &str| format!("{what}; 'drover vm resume vm1' lets it run on, 'drover vm stop vm1' cuts its power");
    let rows: Vec<(VmState, &str, &str, Step)> = vec![
        (live(), "go", "running", Migrate(name("b"))),
        (live_else_cold(), "go", "running", Migrate(name("b"))),
        (cold(), "go", "running", PressButton),
        (live(), "wait", "running", Wait),
        (live_else_cold(), "wait", "running", Wait),
        (cold(), "wait", "running", Wait),
        (live(), "unfit", "running", give_up()),
        (live_else_cold(), "unfit", "running", give_up()),
        (cold(), "unfit", "running", give_up()),
        // A guest that does not execute does not arrive, and does not hear its power button.
        (live(), "go", "paused", GiveUpMove(paused("the guest is paused by an administrator"))),
        (live_else_cold(), "go", "shutting-down", Wait),
        (cold(), "go", "paused", GiveUpMove(paused("the guest is paused by an administrator, and cannot hear"))),
        // Off: the target starts it.
        (live(), "go", "absent", HandOver(name("b"))),
        (cold(), "go", "absent", HandOver(name("b"))),
        (live(), "wait", "absent", Wait),
        (cold(), "unfit", "absent", give_up()),
        (live(), "go", "destroyed", Undefine),
        (live(), "wait", "crashed", Undefine),
        (cold(), "unfit", "destroyed", Undefine),
        // The guest powered itself off, which nobody asked of it.
        (live(), "go", "shutdown", stopped()),
        (live_else_cold(), "wait", "shutdown", stopped()),
        // In a cold move an earlier daemon may have asked.
        (cold(), "wait", "shutdown", Undefine),
        // Somebody else sends it.
        (live(), "go", "sending", AbortMigration),
        (cold(), "wait", "sending", AbortMigration),
        (live(), "go", "unknown", Wait),
        (cold(), "go", "unknown", Wait),
        // It is to go where it is.
        (migrate("a", How::Live), "unfit", "running", Complete(VmState::Start)),
        (migrate("a", How::Cold), "go", "absent", Complete(VmState::Start)),
    ];
    for (state, word, domain, step) in rows {
        let mut case = Case { turn: turn(word), ..Case::new(state.clone(), "a", "a", domain) };
        assert_eq!(case.decide().step, step, "{state:?}, turn {word}, domain {domain}");
    }
}

#[test]
fn a_wait_for_ones_turn_ends_without_an_event() {
    for state in [live(), cold()] {
        let mut case = Case { turn: turn("wait"), ..Case::new(state, "a", "a", "running") };
        let decision = case.decide();
        assert_eq!((decision.doing.as_str(), decision.look_again), ("others move", Some(case.now.after(LOOK_AGAIN))));
    }
}

#[test]
fn only_the_holder_sends() {
    assert_eq!(Case::new(live(), "a", "b", "absent").decide().step, Step::Wait);
    assert_eq!(Case::new(live(), "c", "c", "absent").decide().step, Step::Leave);
    assert_eq!(Case::new(migrate("a", How::Live), "c", "c", "absent").decide().step, Step::Leave);
}

#[test]
fn what_nobody_holds_is_taken_by_the_node_that_it_is_to_go_to() {
    let give_up = || Step::GiveUpMove("b is full".to_owned());
    for how in [How::Live, How::LiveElseCold, How::Cold] {
        for (to, on, word, step) in [
            // This node is the target.
            ("a", "c", "go", Step::TakeOver),
            ("a", "c", "wait", Step::Wait),
            ("a", "c", "unfit", give_up()),
            // It is assigned here, and waits for the target.
            ("b", "a", "go", Step::Wait),
            ("b", "a", "wait", Step::Wait),
            ("b", "a", "unfit", give_up()),
            // Neither.
            ("b", "c", "go", Step::Leave),
            ("b", "-", "unfit", Step::Leave),
        ] {
            let mut case = Case { turn: turn(word), ..Case::new(migrate(to, how), on, "-", "absent") };
            assert_eq!(case.decide().step, step, "to {to} on {on}, turn {word}");
        }
    }
}

#[test]
fn a_failed_live_move_is_done_cold_if_it_may_and_is_not_tried_again_otherwise() {
    for (state, version, step) in [
        (live(), 7, Step::Complete(VmState::Start)),
        (live_else_cold(), 7, Step::Complete(cold())),
        (cold(), 7, Step::Complete(VmState::Start)),
        // It failed as of another record: somebody wants it again.
        (live(), 6, Step::Migrate(name("b"))),
        (live_else_cold(), 6, Step::Migrate(name("b"))),
    ] {
        for word in ["go", "wait", "unfit"].into_iter().filter(|word| version == 7 || *word == "go") {
            let mut case = Case { turn: turn(word), ..Case::new(state.clone(), "a", "a", "running") };
            case.memory.move_failed = Some((Version(version), "no route".to_owned()));
            assert_eq!(case.decide().step, step, "{state:?}, failed at version {version}, turn {word}");
        }
    }
}

/// A cold move whose turn it is, and whose guest was asked to power off.
fn asked() -> Case {
    let mut case = Case::new(cold(), "a", "a", "running");
    assert_eq!(case.decide().step, Step::PressButton);
    case.memory.pressed = Some((Epoch(4), case.now));
    case
}

#[test]
fn a_cold_move_asks_the_guest_cuts_its_power_at_the_deadline_and_hands_it_over() {
    let mut case = asked();
    let t0 = case.now;
    let decision = case.decide();
    assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(t0.after(BUTTON_REPEAT))));
    case.now = t0.after(BUTTON_REPEAT);
    assert_eq!(case.decide().step, Step::PressButton);
    case.memory.pressed = Some((Epoch(4), case.now));
    case.now = t0.after(Duration::from_secs(180));
    assert_eq!(case.decide().step, Step::Destroy);
    for (domain, step) in [("destroyed", Step::Undefine), ("absent", Step::HandOver(name("b")))] {
        case.domain = seen(domain);
        assert_eq!(case.decide().step, step);
    }
}

#[test]
fn a_guest_that_was_asked_is_off_for_the_move() {
    let mut case = asked();
    case.domain = seen("shutdown");
    assert_eq!(case.decide().step, Step::Undefine);
    // Asked for an earlier command that was taken back since, it is no wish of its own either.
    let mut case = Case::new(live(), "a", "a", "shutdown");
    case.memory.pressed = Some((Epoch(4), case.now));
    assert_eq!(case.decide().step, Step::Undefine);
    // But in an earlier life it was another guest that was asked.
    let mut case = Case::new(live(), "a", "a", "shutdown");
    case.memory.pressed = Some((Epoch(3), case.now));
    assert_eq!(case.decide().step, Step::Complete(VmState::Stop));
}

#[test]
fn once_asked_the_guest_goes_whoevers_turn_it_is() {
    for word in ["wait", "unfit"] {
        let mut case = Case { turn: turn(word), ..asked() };
        assert_eq!(case.decide().step, Step::Wait);
        case.now = case.now.after(BUTTON_REPEAT);
        assert_eq!(case.decide().step, Step::PressButton);
        case.now = case.now.after(Duration::from_secs(180));
        assert_eq!(case.decide().step, Step::Destroy);
    }
}

#[test]
fn the_guests_time_begins_when_it_is_asked_not_when_its_turn_is_awaited() {
    let mut case = Case { turn: turn("wait"), ..Case::new(cold(), "a", "a", "running") };
    for _ in 0..10 {
        assert_eq!(case.decide().step, Step::Wait);
        case.now = case.now.after(Duration::from_secs(60));
    }
    case.turn = turn("go");
    assert_eq!(case.decide().step, Step::PressButton);
    case.memory.pressed = Some((Epoch(4), case.now));
    case.now = case.now.after(Duration::from_secs(179));
    assert_ne!(case.decide().step, Step::Destroy);
    case.now = case.now.after(Duration::from_secs(1));
    assert_eq!(case.decide().step, Step::Destroy);
}

#[test]
fn while_the_guest_may_be_at_either_end_the_sender_only_looks() {
    for state in every_state() {
        let wanted_there = state.destination() == Some(&name("b"));
        for domain in ["sending", "sending-paused"] {
            let step = if wanted_there { Step::Wait } else { Step::AbortMigration };
            assert_eq!(Case::new(state.clone(), "a", "a>b", domain).decide().step, step, "{state:?}, {domain}");
        }
        for (domain, step) in [
            ("unknown", Step::Wait),
            // Not being sent yet, or any more.
            ("paused", Step::Wait),
            ("switching", Step::Wait),
            ("running", Step::Wait),
            ("shutting-down", Step::Wait),
            // It powered itself off here, so it is not there; but a call may have been late to send it.
            ("shutdown", Step::Wait),
            // It is what is left of a guest that has gone.
            ("migrated", Step::Undefine),
            // These too, or the guest went on here after its copy there was made. So that copy is not the guest.
            ("destroyed", Step::StartThere(name("b"))),
            ("crashed", Step::StartThere(name("b"))),
            ("ended", Step::StartThere(name("b"))),
            ("absent", Step::HandOver(name("b"))),
        ] {
            for on in ["a", "b", "-"] {
                let mut case = Case::new(state.clone(), on, "a>b", domain);
                assert_eq!(case.decide().step, step, "{state:?} on {on}, {domain}");
            }
        }
    }
}

#[test]
fn a_guest_that_powers_itself_off_on_its_way_is_called_back_and_stopped() {
    for state in [live(), live_else_cold()] {
        let mut case = Case::new(state.clone(), "a", "a>b", "shutdown");
        case.memory.sent = Some(Epoch(4));
        case.memory.move_failed = Some((Version(7), "the guest ended".to_owned()));
        assert_eq!(case.decide().step, Step::CallBack, "{state:?}");
        case.claim = Some(Stored::new(claim("a"), Version(3)));
        assert_eq!(case.decide().step, Step::Complete(VmState::Stop), "{state:?}");

        let mut other = Case::new(state.clone(), "a", "a>b", "shutdown");
        assert_eq!(other.decide().step, Step::Wait, "{state:?}");
        other.now = other.now.after(Duration::from_secs(10));
        assert_eq!(other.decide().step, Step::CallBack, "{state:?}");
    }
}

/// What is left at the source of a guest that executes at the target, by post-copy, is ended by a signal when the
/// machine goes down. A daemon that was not there then is told of nothing but a shutdown.
#[test]
fn a_guest_of_which_nobody_heard_how_it_ended_on_its_way_is_not_called_back() {
    for state in [live(), live_else_cold()] {
        let mut case = Case::new(state.clone(), "a", "a>b", "unclear");
        case.memory.sent = Some(Epoch(4));
        assert_eq!(case.decide().step, Step::Wait, "{state:?}: libvirt may still say");
        case.now = case.now.after(Duration::from_secs(10));
        assert_eq!(case.decide().step, Step::StartThere(name("b")), "{state:?}");
    }
}

#[test]
fn what_libvirt_keeps_here_is_not_left_behind_by_a_guest_that_ends_before_it_goes() {
    for state in [live(), live_else_cold(), cold()] {
        for (domain, stays) in [("absent", true), ("crashed", true), ("destroyed", true), ("running", false)] {
            let kept = Some(KeptState::Tpm);
            let mut case = Case { kept, ..Case::new(state.clone(), "a", "a", domain) };
            let decision = case.decide();
            assert_eq!(matches!(decision.step, Step::GiveUpMove(_)), stays, "{state:?}, {domain}: {decision:?}");
        }
    }
}

#[test]
fn the_guest_is_called_back_when_it_is_surely_here() {
    for state in every_state() {
        // This daemon sent it, and had an answer: it is not on its way.
        let mut own = Case::new(state.clone(), "a", "a>b", "running");
        own.memory.sent = Some(Epoch(4));
        assert_eq!(own.decide().step, Step::CallBack, "{state:?}");
        for domain in ["paused", "switching"] {
            own.domain = seen(domain);
            assert_eq!(own.decide().step, Step::CallBack, "{state:?}: it executes nowhere else without the claim");
        }

        // An earlier daemon may have sent it: what that one asked for has begun after a while.
        let mut other = Case::new(state.clone(), "a", "a>b", "running");
        other.memory.sent = Some(Epoch(3));
        let decision = other.decide();
        assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(other.now.after(LOOK_AGAIN))), "{state:?}");
        other.now = other.now.after(Duration::from_secs(9));
        assert_eq!(other.decide().step, Step::Wait, "{state:?}");
        other.now = other.now.after(Duration::from_secs(1));
        assert_eq!(other.decide().step, Step::CallBack, "{state:?}");
    }
}

#[test]
fn the_while_begins_anew_when_it_is_seen_to_be_sent_or_cannot_be_seen() {
    for between in ["sending", "unknown", "absent"] {
        let mut case = Case::new(live(), "a", "a>b", "running");
        case.decide();
        case.now = case.now.after(Duration::from_secs(60));
        case.domain = seen(between);
        case.decide();
        case.domain = seen("running");
        assert_eq!(case.decide().step, Step::Wait, "{between}");
        case.now = case.now.after(Duration::from_secs(10));
        assert_eq!(case.decide().step, Step::CallBack, "{between}");
    }
}

#[test]
fn a_sending_that_somebody_takes_back_is_stopped_while_it_lasts_and_over_when_the_call_is() {
    let mut case = Case::new(VmState::Start, "a", "a>b", "sending");
    case.memory.begin_sending(Epoch(4));
    assert_eq!(case.decide().step, Step::AbortMigration);
    // As long as the call lasts the guest is seen to be sent, or cannot be seen.
    case.domain = seen("unknown");
    assert_eq!(case.decide().step, Step::Wait);
    case.domain = seen("running");
    assert_eq!(case.decide().step, Step::CallBack);
    // What this daemon did under an earlier grant says nothing about what another did since.
    let mut other = Case::new(VmState::Start, "a", "a>b", "running");
    other.memory.begin_sending(Epoch(3));
    assert_eq!(other.decide().step, Step::Wait);
}

#[test]
fn the_target_takes_over_what_executes_under_the_next_grant_and_is_addressed_to_it() {
    use Step::*;
    let rows = [
        ("b>a", "+paused", Wait),
        ("b>a", "+running", TakeOver),
        ("b>a", "+shutting-down", TakeOver),
        // Its sender has it still, or hands it over.
        ("b>a", "+shutdown", Wait),
        ("b>a", "+crashed", Wait),
        ("b>a", "+failed", Wait),
        ("b>a", "unknown", Wait),
        // Under another grant.
        ("b>a", "<running", Destroy),
        ("b>a", "<paused", Destroy),
        ("b>a", "<crashed", Undefine),
        ("b>a", "~crashed", Undefine),
        // Not addressed to this node, or not any more.
        ("b>c", "+running", Destroy),
        ("b>c", "+paused", Destroy),
        ("b", "+running", Destroy),
        ("b", "+paused", Destroy),
        ("b", "+crashed", Undefine),
        ("b", "+failed", Undefine),
        ("c>b", "+running", Destroy),
        ("-", "+running", Destroy),
    ];
    for state in every_state() {
        for on in ["b", "a"] {
            for (held, domain, step) in &rows {
                let mut case = Case::new(state.clone(), on, held, domain);
                assert_eq!(case.decide().step, *step, "{state:?} on {on}, claim {held}, domain {domain}");
            }
        }
        assert_eq!(Case::new(state.clone(), "b", "b>a", "absent").decide().step, Leave, "{state:?}");
        assert_eq!(Case::new(state.clone(), "a", "b>a", "absent").decide().step, Wait, "{state:?}");
    }
}

#[test]
fn a_guest_that_has_arrived_executes_only_under_the_claim() {
    use Step::*;
    for state in every_state() {
        let off = matches!(state, VmState::Stop | VmState::Disable | VmState::Fail { .. } | VmState::Delete { .. });
        for (held, domain, resumed) in [
            // Its last node has it still.
            ("b>a", "+paused", false),
            ("b>a", "+switching", false),
            ("b", "+paused", false),
            // Handed over.
            ("+a", "+paused", true),
            // It ran here, and stopped since.
            ("+a", "+io-error", false),
            // Of an earlier grant, or paused by somebody after its arrival.
            ("+a", "paused", false),
            ("a", "paused", false),
        ] {
            let mut case = Case::new(state.clone(), "a", held, domain);
            let step = case.decide().step;
            let stays = state == VmState::Pause;
            assert_eq!(step == LetRun, resumed && !off && !stays, "{state:?}, claim {held}, {domain}: {step:?}");
            let over = domain == "+io-error" || resumed && stays;
            assert_eq!(step == Settle, over, "{state:?}, claim {held}, {domain}");
        }
        assert_eq!(Case::new(state.clone(), "a", "+a", "+running").decide().step, Settle, "{state:?}");
        // Handed over although it has not come: libvirt makes an end of what is there.
        assert_ne!(Case::new(state.clone(), "a", "+a", "+switching").decide().step, LetRun, "{state:?}");
        // It has ended since: it is started again, or not, like any other.
        let (mut came, mut never) =
            (Case::new(state.clone(), "a", "+a", "absent"), Case::new(state.clone(), "a", "a", "absent"));
        assert_eq!(came.decide().step, never.decide().step, "{state:?}");
    }
}

#[test]
fn a_guest_that_waits_to_be_let_run_is_not_shown_as_paused_by_somebody() {
    let shown = |held, epoch, by: PausedBy| {
        shown(&claim(held), Mark { epoch: Epoch(epoch), generation: Generation(1) }, by.into()).by
    };
    assert_eq!(shown("+a", 5, PausedBy::Administrator), PausedBy::Migrating);
    assert_eq!(shown("+a", 4, PausedBy::Administrator), PausedBy::Administrator, "of an earlier grant");
    assert_eq!(shown("a", 4, PausedBy::Administrator), PausedBy::Administrator);
    assert_eq!(shown("+a", 5, PausedBy::IoError), PausedBy::IoError);
}

#[test]
fn a_guest_that_cannot_execute_where_it_was_sent_is_tried_again_and_becomes_a_fault() {
    let mut case = Case::new(VmState::Start, "a", "+a", "+paused");
    let first = case.now;
    for second in 0..120 {
        case.now = first.after(Duration::from_secs(second));
        let record = case.record.as_ref().map(|record| record.value.clone());
        let claim = case.claim.as_ref().map(|claim| &claim.value);
        case.memory.absorb(record.as_ref(), claim, &case.domain, case.now);
        let failures = case.memory.run_failures.clone();
        let is_fault = failures.as_ref().is_some_and(|failures| failures.is_fault(case.now));
        assert_eq!(is_fault, second > 0 && second >= FAULT_AFTER.as_secs(), "after {second} s");
        let decision = case.decide();
        match decision.step {
            Step::LetRun => case.memory.run_failed(Epoch(5), "the disk is locked".to_owned(), case.now),
            Step::Wait => {
                assert!(decision.doing.contains("the disk is locked"), "{}", decision.doing);
                assert!(decision.look_again.is_some_and(|at| at <= case.now.after(Duration::from_secs(5))));
            }
            step => panic!("{step:?}"),
        }
    }
    case.domain = seen("+running");
    case.memory.absorb(None, None, &case.domain, case.now);
    assert_eq!(case.memory.run_failures, None);
}

#[test]
fn a_guest_that_libvirt_left_paused_here_goes_on_when_its_migration_is_over() {
    for state in [VmState::Start, live(), cold(), shutdown()] {
        assert_eq!(Case::new(state.clone(), "a", "a", "switching").decide().step, Step::LetRun, "{state:?}");
        assert_eq!(Case::new(state.clone(), "a", "a>b", "switching").decide().step, Step::Wait, "{state:?}");
        // Somebody's own migration, in its last moment: it is too late to abort it.
        let step = Case::new(state.clone(), "a", "a", "sending-paused").decide().step;
        assert!(step != Step::LetRun && step != Step::AbortMigration, "{state:?}: {step:?}");
    }
}

/// In post-copy the guest executes at the target, and needs what is here.
#[test]
fn what_is_left_here_of_a_guest_in_post_copy_is_not_destroyed() {
    use Step::*;
    for state in every_state() {
        let off = matches!(state, VmState::Stop | VmState::Disable | VmState::Fail { .. } | VmState::Delete { .. });
        for on in ["a", "b"] {
            for (held, domain, step) in [
                // The target has taken it over.
                ("+b", "split-half", Wait),
                ("+b", "broken-half", Wait),
                // It ended there, or was started again somewhere.
                ("+-", "split-half", Destroy),
                ("+-", "broken-half", Destroy),
                ("later b", "broken-half", Destroy),
                // Not taken over yet: only a break leaves nothing to wait for, if nobody wants the guest any more.
                ("a>b", "split-half", Wait),
                ("a>b", "broken-half", if off { Destroy } else { Wait }),
            ] {
                if held == "+-" && state.destination() == Some(&name("a")) {
                    continue;
                }
                for over in [false, true] {
                    let later = held.strip_prefix("later ");
                    let mut case = Case::new(state.clone(), on, later.unwrap_or(held), domain);
                    if later.is_some() {
                        case.claim.as_mut().unwrap().value.epoch = Epoch(6);
                    }
                    case.memory.sent = over.then_some(Epoch(4));
                    assert_eq!(case.decide().step, step, "{state:?} on {on}, claim {held}, {domain}");
                }
            }
        }
        // At the target.
        for domain in ["+split", "+broken"] {
            assert_eq!(Case::new(state.clone(), "b", "b>a", domain).decide().step, TakeOver, "{state:?}, {domain}");
        }
    }
    let mut further = Case::new(live(), "a", "a", "split");
    assert_eq!(further.decide().step, Wait, "all of it must be here before it can go further");
}

#[test]
fn a_guest_that_does_not_converge_is_sent_again_by_post_copy() {
    for (version, step) in [(7, Step::MigrateByPostCopy(name("b"))), (6, Step::Migrate(name("b")))] {
        let mut case = Case::new(live(), "a", "a", "running");
        case.memory.stalled = Some(Version(version));
        assert_eq!(case.decide().step, step);
    }
}

/// A node that died was sending its guest here. What has come is no guest, whole or not, and is never let run.
#[test]
fn what_a_dead_node_was_sending_here_is_removed_and_the_vm_is_started_anew() {
    let granted = claim("b>a").granted_above_sent(&name("a"));
    for domain in ["switching", "paused", "running", "split-half"] {
        let mut case = Case::new(VmState::Start, "a", "a", domain);
        let Obs::Known(seen) = &mut case.domain else { panic!("{domain}") };
        seen.mark.epoch = claim("b>a").sent();
        case.claim = Some(Stored::new(granted.clone(), Version(2)));
        assert_eq!(case.decide().step, Step::Destroy, "{domain}");
    }
}
