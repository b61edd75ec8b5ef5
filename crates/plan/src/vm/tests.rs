//! The table of [`super::next`], row by row, and the updates of its memory.

mod moving;
mod strays;
mod unattended;

use super::*;
use crate::moves::Turn;
use drover_model::{
    AtRest, Claim, Epoch, Generation, How, Mono, MoveKind, PausedBy, Replaced, RunState, Stored, Transit, Version,
    VmRecord,
    domain::{KeptState, Mark, Written},
    testing::*,
};
use std::time::Duration;

/// A situation on node `a`, put together from short words.
#[derive(Debug)]
struct Case {
    record: Option<Stored<VmRecord>>,
    claim: Option<Stored<Claim>>,
    domain: Obs<Seen>,
    memory: Memory,
    host: HostState,
    turn: Turn,
    kept: Option<KeptState>,
    elsewhere: Option<Elsewhere>,
    was_in_memory: bool,
    replaced: Option<Replaced>,
    back: Back,
    now: Mono,
}

fn record(state: VmState, on: &str) -> VmRecord {
    VmRecord { node: (on != "-").then(|| name(on)), ..vm(1, 64).wanted(state).record.value.clone() }
}

/// The run state of a domain, or why it is off. Prefix `+`: under the next epoch; `~`: under a later one; `<`: under an
/// earlier one; `!`: under one of a deleted VM with the same UUID.
fn seen(word: &str) -> Obs<Seen> {
    let off = |reason| (RunState::Off, Some(reason));
    let (epoch, word) = match word.split_at_checked(1) {
        Some(("+", word)) => (Epoch(5), word),
        Some(("~", word)) => (Epoch(9), word),
        Some(("!", word)) => (Epoch(1), word),
        Some(("<", word)) => (Epoch(2), word),
        _ => (Epoch(4), word),
    };
    let paused = match word {
        "paused" => Some(PausedBy::Administrator),
        "io-error" => Some(PausedBy::IoError),
        "asleep" => Some(PausedBy::Asleep),
        "preserved" => Some(PausedBy::Crashed),
        "busy" => Some(PausedBy::Busy),
        "switching" | "split-half" => Some(PausedBy::Migrating),
        "broken-half" => Some(PausedBy::PostCopyFailed),
        _ => None,
    };
    let (run, off) = match word {
        _ if paused.is_some() => (RunState::Paused, None),
        "absent" => return Obs::Absent,
        "unknown" => return Obs::Unknown("a test".to_owned()),
        "running" | "sending" | "split" | "broken" => (RunState::Running, None),
        "sending-paused" => (RunState::Paused, None),
        "shutting-down" => (RunState::ShuttingDown, None),
        "shutdown" => off(OffReason::Shutdown),
        "destroyed" => off(OffReason::Destroyed),
        "crashed" => off(OffReason::Crashed),
        "migrated" => off(OffReason::Migrated),
        "failed" => off(OffReason::Failed),
        "ended" => off(OffReason::Ended),
        "unclear" => off(OffReason::ShutdownOrEnded),
        "saved" => off(OffReason::Saved),
        other => panic!("{other}"),
    };
    let sending = word.starts_with("sending");
    let transit = match word {
        "switching" => Some(Transit::Switching),
        "split" | "split-half" => Some(Transit::Split),
        "broken" | "broken-half" => Some(Transit::Broken),
        _ => None,
    };
    let mark = Mark { epoch, generation: Generation(1) };
    Obs::Known(Seen { run, off, paused, mark, sending, transit, transient: false })
}

/// Who holds the claim, and to whom the guest is being sent: `-`, `a`, `a>b`. Prefix `+`: under the next epoch, and the
/// guest is to be resumed.
fn claim(word: &str) -> Claim {
    if let Some(word) = word.strip_prefix('+') {
        return Claim { epoch: Epoch(5), resume: true, ..claim(word) };
    }
    let (holder, to) = word.split_once('>').unwrap_or((word, "-"));
    let named = |n: &str| (n != "-").then(|| name(n));
    Claim { node: named(holder), epoch: Epoch(4), to: named(to), ..Claim::new(Epoch(1)) }
}

impl Case {
    /// State, assigned node, claim's holder, domain.
    fn new(state: VmState, on: &str, held: &str, domain: &str) -> Case {
        Case {
            record: Some(Stored::new(record(state, on), Version(7))),
            claim: Some(Stored::new(claim(held), Version(2))),
            domain: seen(domain),
            memory: Memory::default(),
            host: HostState::Ready,
            turn: Turn::Go,
            kept: None,
            elsewhere: None,
            was_in_memory: false,
            replaced: None,
            back: Back::Nowhere,
            now: Mono(1_000_000),
        }
    }

    /// One pass, as the agent makes it.
    fn decide(&mut self) -> Decision {
        let (record, claim) = (self.record.as_ref().map(|r| &r.value), self.claim.as_ref().map(|c| &c.value));
        self.memory.absorb(record, claim, &self.domain, self.now);
        self.memory.absorb_gone(claim, &self.domain, self.was_in_memory, self.now);
        next(&Situation {
            me: &name("a"),
            machine: "m",
            record: self.record.as_ref(),
            claim: self.claim.as_ref(),
            domain: &self.domain,
            memory: &self.memory,
            host: &self.host,
            turn: &self.turn,
            kept: self.kept,
            elsewhere: self.elsewhere.as_ref(),
            replaced: self.replaced.as_ref(),
            back: &self.back,
            now: self.now,
        })
    }
}

fn shutdown() -> VmState {
    VmState::Shutdown { timeout_s: 60, then: AtRest::Stop }
}
fn restart() -> VmState {
    VmState::Restart { timeout_s: 60 }
}
fn fail() -> VmState {
    VmState::Fail { reason: "x".to_owned() }
}
fn delete() -> VmState {
    VmState::Delete { disks: false }
}

#[test]
fn the_table() {
    use Step::*;
    use VmState as V;
    let rows: Vec<(VmState, &str, &str, &str, Step)> = vec![
        // Nobody's and nothing's: not our business.
        (V::Start, "b", "b", "absent", Leave),
        (V::Start, "b", "-", "absent", Leave),
        (V::Stop, "-", "-", "absent", Leave),
        // Unknown: only look again, whatever is wanted and whoever holds it.
        (V::Start, "a", "a", "unknown", Wait),
        (V::Stop, "a", "a", "unknown", Wait),
        (delete(), "a", "a", "unknown", Wait),
        (V::Stop, "a", "b", "unknown", Wait),
        // A domain without a claim of ours goes, whatever is wanted, if the VM was granted anew since.
        (V::Start, "a", "b", "<running", Destroy),
        (V::Start, "a", "-", "<running", Destroy),
        (V::Stop, "a", "b", "<paused", Destroy),
        (shutdown(), "b", "b", "<running", Destroy),
        (V::Start, "a", "b", "shutdown", Undefine),
        // Start.
        (V::Start, "a", "-", "absent", Start),
        (V::Start, "a", "a", "absent", Start),
        (V::Start, "a", "b", "absent", Wait),
        (V::Start, "a", "a", "running", Wait),
        (V::Start, "a", "a", "paused", Wait),
        (V::Start, "a", "a", "io-error", Wait),
        (V::Start, "a", "a", "asleep", Wait),
        (V::Start, "a", "a", "preserved", Wait),
        // Its memory is saved: the next start goes on from there.
        (V::Start, "a", "a", "saved", Start),
        (V::Pause, "a", "a", "running", Pause),
        (V::Pause, "a", "a", "paused", Complete(V::Start)),
        (V::Pause, "a", "a", "io-error", Complete(V::Start)),
        (V::Pause, "a", "a", "busy", Wait),
        (V::Pause, "a", "a", "shutting-down", Complete(V::Start)),
        (V::Pause, "a", "a", "crashed", Complete(V::Start)),
        (V::Pause, "a", "a", "absent", Complete(V::Start)),
        (V::Resume, "a", "a", "running", Complete(V::Start)),
        (V::Resume, "a", "a", "paused", Resume),
        (V::Resume, "a", "a", "io-error", Resume),
        (V::Resume, "a", "a", "asleep", Wake),
        (V::Resume, "a", "a", "busy", Wait),
        (V::Resume, "a", "a", "preserved", Complete(V::Start)),
        (V::Resume, "a", "a", "absent", Complete(V::Start)),
        // It cannot hear its power button: the order is given back, and its power is not cut.
        (shutdown(), "a", "a", "paused", Complete(V::Start)),
        (shutdown(), "a", "a", "preserved", Complete(V::Start)),
        (restart(), "a", "a", "asleep", Complete(V::Start)),
        (shutdown(), "a", "a", "busy", PressButton),
        (V::Start, "a", "a", "destroyed", Start),
        (V::Start, "a", "a", "shutdown", Complete(V::Stop)),
        // Assigned elsewhere: it runs on where it is, or the claim is given up.
        (V::Start, "b", "a", "running", Wait),
        (V::Start, "b", "a", "destroyed", Undefine),
        (V::Start, "b", "a", "absent", Release),
        // Shutdown and restart.
        (shutdown(), "a", "a", "running", PressButton),
        (shutdown(), "a", "a", "shutdown", Complete(V::Stop)),
        (shutdown(), "a", "a", "absent", Complete(V::Stop)),
        (shutdown(), "a", "-", "absent", Complete(V::Stop)),
        (V::Shutdown { timeout_s: 9, then: AtRest::Disable }, "a", "a", "absent", Complete(V::Disable)),
        (restart(), "a", "a", "running", PressButton),
        (restart(), "a", "a", "shutdown", Undefine),
        (restart(), "a", "a", "absent", Complete(V::Start)),
        // At rest and off.
        (V::Stop, "a", "a", "running", Destroy),
        (V::Stop, "a", "a", "paused", Destroy),
        (V::Stop, "a", "a", "destroyed", Undefine),
        (V::Stop, "a", "a", "absent", Release),
        (V::Stop, "a", "-", "absent", Wait),
        (V::Disable, "a", "a", "running", Destroy),
        (fail(), "a", "a", "crashed", Undefine),
        (fail(), "a", "a", "absent", Release),
        // Delete.
        (delete(), "a", "a", "running", Destroy),
        (delete(), "a", "a", "destroyed", Undefine),
        (delete(), "a", "a", "absent", DeleteRecords),
        (delete(), "a", "-", "absent", DeleteRecords),
        (delete(), "a", "b", "absent", Wait),
        (V::Delete { disks: true }, "a", "-", "absent", RemoveDisks),
    ];
    for (state, on, held, domain, step) in rows {
        let mut case = Case::new(state.clone(), on, held, domain);
        assert_eq!(case.decide().step, step, "{state:?} on {on}, held by {held}, domain {domain}");
    }
}

/// A VM whose record has `/a` as vda, and whose last guest went on with `/s`.
fn older(state: VmState, domain: &str) -> Case {
    let disk = |path: &str| Written::from([("vda".to_owned(), path.to_owned())]);
    let mut case = Case::new(state.clone(), "a", "a", domain);
    case.replaced = Replaced::between(Epoch(4), &disk("/a"), &disk("/s"));
    let xml = "<domain><devices><disk><source file='/a'/><target dev='vda'/></disk></devices></domain>".to_owned();
    case.record = Some(Stored::new(VmRecord { xml, ..record(state, "a") }, Version(7)));
    case
}

#[test]
fn a_guest_whose_disks_were_replaced_is_not_started_with_the_older_ones() {
    for domain in ["absent", "destroyed", "crashed", "ended", "failed"] {
        let mut case = older(VmState::Start, domain);
        let Step::Complete(VmState::Fail { reason }) = case.decide().step else { panic!("{domain}: {case:?}") };
        assert!(reason.contains("disk vda is /s, and the definition has /a"), "{reason}");
        // Unless an administrator wants that, or the definition has something else by now.
        let mut forced = older(VmState::Start, domain);
        forced.record.as_mut().unwrap().value.older_disks = Some(Epoch(4));
        let mut other = older(VmState::Start, domain);
        let record = other.record.as_mut().unwrap();
        record.value.xml = record.value.xml.replace("/a", "/s");
        for case in [&mut forced, &mut other] {
            case.memory.counted = Some(Epoch(4));
            assert_eq!(case.decide().step, Step::Start, "{domain}");
        }
    }
    for (state, domain, step) in [
        (VmState::Start, "running", Step::Wait),
        // The saved memory has the disks with it.
        (VmState::Start, "saved", Step::Start),
        (VmState::Start, "shutdown", Step::Complete(VmState::Stop)),
        (shutdown(), "running", Step::PressButton),
        (VmState::Stop, "absent", Step::Release),
        (restart(), "destroyed", Step::Undefine),
    ] {
        assert_eq!(older(state.clone(), domain).decide().step, step, "{state:?} {domain}");
    }
}

#[test]
fn a_guest_whose_disks_were_replaced_is_moved_live_only() {
    let to = |how| VmState::Migrate { to: name("b"), kind: MoveKind::Move, how };
    assert_eq!(older(to(How::Live), "running").decide().step, Step::Migrate(name("b")));
    for (how, domain) in [(How::Cold, "running"), (How::Cold, "absent"), (How::LiveElseCold, "crashed")] {
        let step = older(to(how), domain).decide().step;
        assert!(matches!(&step, Step::GiveUpMove(why) if why.contains("older data")), "{how:?} {domain}: {step:?}");
    }
}

#[test]
fn a_domain_of_a_deleted_vm_with_the_same_uuid_is_removed_and_not_taken_for_the_guest() {
    let states = [VmState::Start, VmState::Stop, shutdown(), restart(), delete(), VmState::Delete { disks: true }];
    for (state, held) in states.into_iter().flat_map(|state| ["-", "a", "b", "b>a", "a>b"].map(|h| (state.clone(), h)))
    {
        for (domain, step) in [
            ("!running", Step::Destroy),
            ("!paused", Step::Destroy),
            ("!sending", Step::Destroy),
            ("!shutdown", Step::Undefine),
            ("!crashed", Step::Undefine),
        ] {
            let mut case = Case::new(state.clone(), "a", held, domain);
            assert_eq!(case.decide().step, step, "{state:?}, held by {held}, domain {domain}");
            if step == Step::Destroy {
                // One that cannot be killed is tried again later, as any other.
                case.memory.cut_failed(Epoch(1), "the process does not end".to_owned(), case.now);
                assert_eq!(case.decide().step, Step::Wait, "{state:?}, held by {held}, domain {domain}");
            }
            case.domain = Obs::Absent;
            case.decide();
            assert_eq!(case.memory.crashes, 0, "{state:?}, held by {held}, domain {domain}");
        }
    }
    // The first epoch after them is the VM's own.
    let mut case = Case::new(VmState::Start, "a", "a", "running");
    case.claim = Some(Stored::new(Claim { epoch: Epoch(2), ..claim("a") }, Version(2)));
    if let Obs::Known(seen) = &mut case.domain {
        seen.mark.epoch = Epoch(2);
    }
    assert_eq!(case.decide().step, Step::Wait);
}

#[test]
fn disks_that_cannot_be_deleted_yet_are_tried_again_later_and_the_records_stay() {
    let mut case = Case::new(VmState::Delete { disks: true }, "a", "-", "absent");
    assert_eq!(case.decide().step, Step::RemoveDisks);
    let until = case.now.after(LOOK_AGAIN);
    case.memory.delete_wait = Some(("a record cannot be read".to_owned(), until));
    let decision = case.decide();
    assert_eq!((&decision.step, decision.look_again), (&Step::Wait, Some(until)));
    assert!(decision.doing.contains("a record cannot be read"), "{decision:?}");
    case.now = until;
    assert_eq!(case.decide().step, Step::RemoveDisks);
    case.memory.disks_removed = true;
    assert_eq!(case.decide().step, Step::DeleteRecords);
}

#[test]
fn a_domain_that_the_store_does_not_know_is_left_alone() {
    for (domain, step) in [("running", Step::Wait), ("crashed", Step::Wait), ("absent", Step::Leave)] {
        let mut case = Case { record: None, claim: None, ..Case::new(VmState::Stop, "a", "a", domain) };
        assert_eq!(case.decide().step, step, "{domain}");
    }
    let mut case = Case { claim: None, ..Case::new(VmState::Stop, "a", "a", "running") };
    assert_eq!(case.decide().step, Step::Wait, "an unreadable claim is no missing claim");
}

#[test]
fn a_guest_that_ignores_the_button_is_asked_again_and_cut_off_at_the_deadline() {
    let mut case = Case::new(shutdown(), "a", "a", "running");
    let t0 = case.now;
    assert_eq!(case.decide().step, Step::PressButton);
    case.memory.pressed = Some((Epoch(4), t0));
    let decision = case.decide();
    assert_eq!((decision.step, decision.look_again), (Step::Wait, Some(t0.after(BUTTON_REPEAT))));
    case.now = t0.after(BUTTON_REPEAT);
    assert_eq!(case.decide().step, Step::PressButton);
    case.memory.pressed = Some((Epoch(4), case.now));
    assert_eq!(case.decide().look_again, Some(t0.after(Duration::from_secs(60))), "never past the deadline");
    case.now = t0.after(Duration::from_secs(60));
    assert_eq!(case.decide().step, Step::Destroy);
}

#[test]
fn a_new_deadline_counts_from_when_the_shutdown_began() {
    let mut case = Case::new(shutdown(), "a", "a", "running");
    let t0 = case.now;
    case.decide();
    case.memory.pressed = Some((Epoch(4), t0));
    case.now = t0.after(Duration::from_secs(20));
    case.record = Some(Stored::new(record(VmState::Shutdown { timeout_s: 10, then: AtRest::Stop }, "a"), Version(8)));
    assert_eq!(case.decide().step, Step::Destroy);
}

#[test]
fn a_shutdown_that_was_taken_back_starts_the_guest_again_if_it_had_already_obeyed() {
    let mut case = Case::new(shutdown(), "a", "a", "running");
    case.decide();
    case.memory.pressed = Some((Epoch(4), case.now));
    case.record = Some(Stored::new(record(VmState::Start, "a"), Version(8)));
    case.domain = seen("shutdown");
    assert_eq!(case.decide().step, Step::Start);

    // Long after, the same guest's power-off is its own wish.
    let mut case = Case::new(VmState::Start, "a", "a", "shutdown");
    case.memory.pressed = Some((Epoch(4), case.now));
    case.now = case.now.after(BUTTON_FORGOTTEN);
    assert_eq!(case.decide().step, Step::Complete(VmState::Stop));
}

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

#[test]
fn an_attempt_to_pause_or_resume_is_made_once_for_each_order() {
    let order = Version(7);
    let case = |state: VmState, domain: &str, refused: Option<&str>| {
        let mut case = Case::new(state, "a", "a", domain);
        case.memory.acted(order, case.now, refused.map(str::to_owned));
        case
    };
    let done = Step::Complete(VmState::Start);
    for (state, domain, refused, says) in [
        (VmState::Pause, "running", Some("no"), "not paused: no"),
        (VmState::Resume, "io-error", None, "resumed, but it is paused by an I/O error again"),
        (VmState::Resume, "paused", Some("no"), "not resumed: no"),
    ] {
        let decision = case(state, domain, refused).decide();
        assert_eq!((decision.step, &*decision.doing), (done.clone(), says));
    }
    // An earlier order's attempt does not count.
    let mut later = case(VmState::Resume, "paused", Some("no"));
    later.memory.acted(Version(6), later.now, Some("no".to_owned()));
    assert_eq!(later.decide().step, Step::Resume);
    // It takes a moment to wake.
    let mut asleep = case(VmState::Resume, "asleep", None);
    assert_eq!(asleep.decide().step, Step::Wait);
    asleep.now = asleep.now.after(WAKES_BY_THEN);
    assert_eq!(asleep.decide().step, done);
    // What the order ended with is told until the next one.
    let mut ended = case(VmState::Start, "paused", Some("no"));
    assert!(!ended.decide().doing.contains("(no)"));
    ended.record.as_mut().unwrap().version = order.next();
    let told = ended.decide().doing;
    assert!(told.contains("(no)") && told.contains("'drover vm resume vm1'"), "{told}");
}

#[test]
fn a_guest_that_is_paused_after_it_heard_the_button_has_until_the_deadline() {
    let mut case = Case::new(shutdown(), "a", "a", "running");
    assert_eq!(case.decide().step, Step::PressButton);
    case.memory.pressed = Some((Epoch(4), case.now));
    case.domain = seen("io-error");
    assert_eq!(case.decide().step, Step::Wait);
    case.now = case.now.after(Duration::from_secs(60));
    assert_eq!(case.decide().step, Step::Destroy);
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
