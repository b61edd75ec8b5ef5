//! The table of [`super::next`], row by row, and the updates of its memory.

mod attempts;
mod ended;
mod moving;
mod properties;
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
