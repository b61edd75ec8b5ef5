//! What holds for a VM that moves in every situation, whatever a node remembers.

use super::*;
use moving::{every_state, turn};
use proptest::prelude::*;

/// Any memory at all: what is remembered may be right, old, or lost.
fn any_memory() -> impl Strategy<Value = Memory> {
    let at = || (0u64..2_000_000).prop_map(Mono);
    let epoch = || (3u64..7).prop_map(Epoch);
    let maybe = prop::option::of::<std::ops::Range<u64>>;
    let often = prop::option::of((epoch(), at()));
    let (crashes, failed) = (0..CRASH_LIMIT + 1, prop::option::of(6i64..9));
    let moments = (prop::option::of(at()), prop::option::of(at()), prop::option::of(at()));
    let grants = (prop::option::of((epoch(), at())), often, maybe(3..7), any::<bool>());
    (crashes, failed, moments, grants).prop_map(
        |(crashes, failed, moments, (running, pressed, sent, disks_removed))| {
            let why = |version| (Version(version), "a test".to_owned());
            Memory {
                crashes,
                crashed_at: moments.0,
                off_wanted: moments.1,
                not_sending: moments.2,
                running,
                pressed,
                start_failures: failed.map(|_| StartFailures {
                    of: Generation(u64::from(crashes % 2)),
                    tries: crashes,
                    refusals: crashes,
                    last: Failed::Refused,
                    at: moments.0.unwrap_or(Mono(0)),
                    why: "a test".to_owned(),
                    sent_back: false,
                }),
                move_failed: failed.map(why),
                sent: sent.map(Epoch),
                disks_removed,
                ..Memory::default()
            }
        },
    )
}

fn any_domain() -> impl Strategy<Value = Obs<Seen>> {
    let words = [
        "absent",
        "unknown",
        "running",
        "paused",
        "sending",
        "sending-paused",
        "switching",
        "split",
        "split-half",
        "broken",
        "broken-half",
        "shutting-down",
        "shutdown",
        "destroyed",
        "crashed",
        "migrated",
        "failed",
        "ended",
        "unclear",
    ];
    let epoch = prop::sample::select(vec!["", "+", "~", "<"]);
    (epoch, prop::sample::select(words.to_vec())).prop_map(|(epoch, word)| match word {
        "absent" | "unknown" => seen(word),
        _ => seen(&format!("{epoch}{word}")),
    })
}

/// Any situation in which these hold the claim.
fn any_case(held: &'static [&'static str]) -> impl Strategy<Value = Case> {
    let words = (
        prop::sample::select(every_state()),
        prop::sample::select(vec!["a", "b", "-"]),
        prop::sample::select(held.to_vec()),
        prop::sample::select(vec!["go", "wait", "unfit"]),
    );
    (words, any_domain(), any_memory(), any::<bool>()).prop_map(|((state, on, held, word), domain, memory, ready)| {
        let host = if ready { HostState::Ready } else { HostState::NotReady("a test".to_owned()) };
        Case { domain, memory, host, turn: turn(word), ..Case::new(state, on, held, "absent") }
    })
}

proptest! {
    #![proptest_config(crate::testing::same_cases(5000))]

    #[test]
    fn a_sender_whose_guest_may_be_elsewhere_starts_and_gives_up_nothing(mut case in any_case(&["a>b", "a>c"])) {
        use Step::*;
        let step = case.decide().step;
        let state = case.record.as_ref().map(|record| record.value.state.clone());
        let off =
            matches!(state, Some(VmState::Stop | VmState::Disable | VmState::Fail { .. } | VmState::Delete { .. }));
        let given_up = off && case.domain.known().is_some_and(|seen| seen.transit == Some(Transit::Broken));
        let harmless = matches!(step, Wait | AbortMigration | CallBack | Undefine | HandOver(_) | StartThere(_));
        prop_assert!(harmless || step == Destroy && given_up, "{:?}", step);
        let to = case.claim.as_ref().and_then(|c| c.value.to.clone());
        match (&step, &case.domain) {
            (HandOver(node), Obs::Absent) => prop_assert_eq!(Some(node), to.as_ref()),
            (StartThere(node), Obs::Known(seen)) => {
                prop_assert_eq!((Some(node), seen.run), (to.as_ref(), RunState::Off));
                prop_assert!(seen.off != Some(OffReason::Migrated), "{:?}", seen);
            }
            (HandOver(_) | StartThere(_), domain) => prop_assert!(false, "handed over while {:?}", domain),
            (CallBack, Obs::Known(seen)) => {
                let here = match seen.run {
                    RunState::Off => seen.off == Some(OffReason::Shutdown),
                    run => !(seen.sending || run == RunState::Paused && seen.is_torn()),
                };
                prop_assert!(here, "{:?}", seen);
            }
            _ => {}
        }
    }

    #[test]
    fn a_node_without_the_claim_starts_and_gives_up_nothing(mut case in any_case(&["b", "b>a", "b>c"])) {
        use Step::*;
        let step = case.decide().step;
        prop_assert!(matches!(step, Wait | Leave | Destroy | Undefine | TakeOver), "{:?}", step);
        if step == TakeOver {
            let next_grant = matches!(&case.domain, Obs::Known(seen) if seen.mark.epoch == Epoch(5));
            let executes =
                case.domain.known().is_some_and(|d| matches!(d.run, RunState::Running | RunState::ShuttingDown));
            let to = case.claim.as_ref().and_then(|c| c.value.to.clone());
            prop_assert!(next_grant && executes && to == Some(name("a")));
        }
    }

    /// Whoever holds it, and whatever is wanted: only a guest that the claim has left behind, and a copy that a
    /// migration left, are destroyed by a node without the claim.
    #[test]
    fn the_guest_of_the_present_grant_is_not_destroyed_by_a_node_without_it(
        mut case in any_case(&["b", "b>a", "b>c", "-"]),
        (unused, elsewhere) in (any::<bool>(), any::<bool>())
    ) {
        if elsewhere {
            case.elsewhere = Some(Elsewhere { node: name("c"), epoch: Epoch(4), alive: true, paused: false });
        }
        if unused && let Some(claim) = &mut case.claim {
            claim.value = Claim::new(Epoch(0));
        }
        if case.decide().step == Step::Destroy {
            let marked = case.domain.known().map(|seen| seen.mark.epoch);
            prop_assert!(!unused && [Some(Epoch(2)), Some(Epoch(5))].contains(&marked), "{:?}", marked);
        }
    }

    /// Nothing is started while another node reports the guest of the grant.
    #[test]
    fn no_second_guest_is_started(mut case in any_case(&["a", "-"]), alive in any::<bool>()) {
        case.elsewhere = Some(Elsewhere { node: name("b"), epoch: Epoch(4), alive, paused: false });
        let step = case.decide().step;
        let ends = matches!(step, Step::Start | Step::Release | Step::DeleteRecords | Step::RemoveDisks);
        prop_assert!(!ends, "{:?}", step);
        if let Step::HandOver(to) = step {
            prop_assert!(alive && to == name("b") && case.domain == Obs::Absent, "{:?}", to);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_looked_at_again(mut case in any_case(&["a", "a>b", "b", "b>a", "-"])) {
        case.domain = seen("unknown");
        let decision = case.decide();
        prop_assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(case.now.after(LOOK_AGAIN))));
    }
}
