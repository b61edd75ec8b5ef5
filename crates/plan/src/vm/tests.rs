//! The table of [`super::next`], row by row, and the life of its memory.

mod moving;

use super::*;
use drover_model::{AtRest, Generation, VmName, vm::VM_SCHEMA};
use uuid::Uuid;

/// A situation on node `a`, put together from short words.
#[derive(Debug)]
struct Case {
    record: Option<Stored<VmRecord>>,
    claim: Option<Stored<Claim>>,
    domain: Obs<Seen>,
    memory: Memory,
    host: HostState,
    turn: Turn,
    now: Mono,
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn record(state: VmState, on: &str) -> VmRecord {
    VmRecord {
        schema: VM_SCHEMA,
        uuid: Uuid::from_u128(1),
        name: VmName::new("vm").unwrap(),
        state,
        node: (on != "-").then(|| node(on)),
        last_node: None,
        xml: String::new(),
        generation: Generation(1),
        description: String::new(),
        profile: String::new(),
        meta: Default::default(),
    }
}

/// What the domain does, or why it is off. A `+` before it: under the next grant; a `~`: under another one.
fn seen(word: &str) -> Obs<Seen> {
    let off = |reason| (RunState::Off, Some(reason));
    let (epoch, word) = match word.split_at_checked(1) {
        Some(("+", word)) => (Epoch(5), word),
        Some(("~", word)) => (Epoch(9), word),
        _ => (Epoch(4), word),
    };
    let (run, off) = match word {
        "absent" => return Obs::Absent,
        "unknown" => return Obs::Unknown("a test".to_owned()),
        "running" | "sending" => (RunState::Running, None),
        "paused" | "sending-paused" => (RunState::Paused, None),
        "shutting-down" => (RunState::ShuttingDown, None),
        "shutdown" => off(OffReason::Shutdown),
        "destroyed" => off(OffReason::Destroyed),
        "crashed" => off(OffReason::Crashed),
        "migrated" => off(OffReason::Migrated),
        other => panic!("{other}"),
    };
    let sending = word.starts_with("sending");
    Obs::Known(Seen { run, off, mark: Mark { epoch, generation: Generation(1) }, sending })
}

/// Who holds the claim, and to whom the guest is being sent: `-`, `a`, `a>b`.
fn claim(word: &str) -> Claim {
    let (holder, to) = word.split_once('>').unwrap_or((word, "-"));
    let named = |name: &str| (name != "-").then(|| node(name));
    Claim { schema: VM_SCHEMA, node: named(holder), epoch: Epoch(4), to: named(to) }
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
            now: Mono(1_000_000),
        }
    }

    /// One pass, as the agent makes it.
    fn decide(&mut self) -> Decision {
        self.memory.absorb(self.record.as_ref().map(|r| &r.value), &self.domain, self.now);
        next(&Situation {
            me: &node("a"),
            record: self.record.as_ref(),
            claim: self.claim.as_ref(),
            domain: &self.domain,
            memory: &self.memory,
            host: &self.host,
            turn: &self.turn,
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
        // A domain without a claim of ours goes, whatever is wanted.
        (V::Start, "a", "b", "running", Destroy),
        (V::Start, "a", "-", "running", Destroy),
        (V::Stop, "a", "b", "paused", Destroy),
        (shutdown(), "b", "b", "running", Destroy),
        (V::Start, "a", "b", "shutdown", Undefine),
        // Start.
        (V::Start, "a", "-", "absent", Start),
        (V::Start, "a", "a", "absent", Start),
        (V::Start, "a", "b", "absent", Wait),
        (V::Start, "a", "a", "running", Wait),
        (V::Start, "a", "a", "paused", Wait),
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
fn a_refused_start_fails_until_somebody_changes_the_record() {
    let mut case = Case::new(VmState::Start, "a", "a", "absent");
    case.memory.refused = Some((Version(7), "no such machine".to_owned()));
    assert_eq!(case.decide().step, Step::Complete(VmState::Fail { reason: "no such machine".to_owned() }));
    case.record = Some(Stored::new(record(VmState::Start, "a"), Version(9)));
    assert_eq!(case.decide().step, Step::Start);
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
