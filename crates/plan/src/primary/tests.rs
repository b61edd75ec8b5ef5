//! The table of [`super::decide`], row by row. (What must hold in all states is in `tests/handoff`.)

mod requests;

use super::*;
use drover_model::primary::PRIMARY_SCHEMA;

const NOW: Mono = Mono(100_000);
const TERM: Duration = Duration::from_secs(4);

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// `a>b take`: held by a, passing to b, in that phase. `a`: held by a. `-`: without a holder. Both sides are suspects
/// from `stop` on.
fn record(text: &str) -> Primary {
    let (sides, phase) = text.split_once(' ').unwrap_or((text, ""));
    let (holder, to) = sides.split_once('>').unwrap_or((sides, ""));
    let holder = (holder != "-").then(|| name(holder));
    let handoff =
        (!to.is_empty()).then(|| Handoff { to: name(to), phase: phase.parse().unwrap(), why: "a test".into() });
    let begun = handoff.as_ref().filter(|h| h.phase != Phase::Lock).map(|h| h.to.clone());
    let suspects = holder.iter().cloned().chain(begun).collect();
    Primary { schema: PRIMARY_SCHEMA, epoch: Epoch(7), holder, suspects, handoff, failed: None }
}

/// A situation of a node: it has authority, all leases are fresh, everything is down, the record is new.
struct Case {
    me: NodeName,
    record: Primary,
    leases: BTreeMap<NodeName, Heard>,
    timing: Timing,
    standing: Standing,
    authority: Option<Mono>,
    record_since: Mono,
    last_beat: Option<Mono>,
    connected: Option<Mono>,
    writing: bool,
    locked: bool,
    new: bool,
    shared: Level,
    exclusive: Level,
    trouble: Option<&'static str>,
}

fn case(me: &str, text: &str) -> Case {
    let record = record(text);
    let lease = |name: &NodeName| (name.clone(), Heard { version: Version(3), revision: 9, since: NOW, term: TERM });
    Case {
        me: name(me),
        leases: record.suspects.iter().map(lease).collect(),
        record,
        timing: Timing::of(TERM),
        standing: Standing { eligible: true, ..Standing::default() },
        authority: Some(NOW.after(Duration::from_secs(3))),
        record_since: NOW,
        last_beat: Some(NOW),
        connected: Some(Mono(0)),
        writing: false,
        locked: false,
        new: false,
        shared: Level::Down,
        exclusive: Level::Down,
        trouble: None,
    }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Case)) -> Case {
        change(&mut self);
        self
    }

    fn levels(self, shared: Level, exclusive: Level) -> Case {
        self.with(|c| (c.shared, c.exclusive) = (shared, exclusive))
    }

    /// This node's lease has been unchanged for so many milliseconds.
    fn silent(self, who: &str, ms: u64) -> Case {
        self.with(|c| c.leases.get_mut(&name(who)).unwrap().since = Mono(NOW.0 - ms))
    }

    fn decide(&self) -> Decision {
        decide(&Situation {
            me: &self.me,
            now: NOW,
            timing: &self.timing,
            record: Some(&self.record),
            record_since: self.record_since,
            leases: &self.leases,
            authority: self.authority,
            last_beat: self.last_beat,
            beating: false,
            connected: self.connected,
            writing: self.writing,
            locked: self.locked,
            new: self.new,
            shared: self.shared,
            exclusive: self.exclusive,
            trouble: self.trouble,
            standing: &self.standing,
        })
    }

    /// What is written, in the short form; `""` if nothing.
    fn writes(&self) -> String {
        let Some(write) = self.decide().write else { return String::new() };
        let record = write.record;
        let handoff = record.handoff.map(|h| format!(">{} {}", h.to, h.phase)).unwrap_or_default();
        format!("{}{handoff}", record.holder.map_or("-".to_owned(), |h| h.to_string()))
    }
}

#[test]
fn services_of_each_side_in_each_phase() {
    use Want::{Down, Up};
    for (text, a, b) in [
        ("a", (Up, Up), (Down, Down)),
        ("a>b lock", (Up, Up), (Down, Down)),
        ("a>b stop", (Up, Down), (Down, Down)),
        ("a>b take", (Up, Down), (Up, Down)),
        ("a>b drop", (Down, Down), (Up, Down)),
        ("a>b start", (Down, Down), (Up, Up)),
        ("a>b back", (Up, Up), (Down, Down)),
    ] {
        for (me, wants) in [("a", a), ("b", b), ("c", (Down, Down))] {
            let decision = case(me, text).decide();
            assert_eq!((decision.shared, decision.exclusive), wants, "{me} in {text}");
            // Without authority nothing is up.
            let lapsed = case(me, text).with(|c| c.authority = Some(NOW)).decide();
            assert_eq!((lapsed.shared, lapsed.exclusive), (Down, Down), "{me} in {text}, lapsed");
        }
    }
}

#[test]
fn nodes_that_are_not_notified_of_leases_decide_independently_of_them() {
    let texts = ["-", "a", "a>b lock", "a>b stop", "a>b take", "a>b drop", "a>b start", "a>b back"];
    let long = TERM * 9;
    for (text, me, eligible) in
        texts.iter().flat_map(|t| ["a", "b", "c"].into_iter().flat_map(move |me| [(t, me, true), (t, me, false)]))
    {
        let of = |change: fn(&mut Case, Mono)| {
            let case = case(me, text).with(|c| {
                c.standing.eligible = eligible;
                c.record_since = Mono(0);
                change(c, Mono(NOW.0.saturating_sub(u64::try_from(long.as_millis()).unwrap())));
            });
            case.decide()
        };
        let silent = |c: &mut Case, at: Mono| c.leases.values_mut().for_each(|heard| heard.since = at);
        let different = of(|_, _| {}) != of(silent);
        let hears = hears_leases(Some(&record(text)), &name(me), eligible);
        assert!(hears || !different, "{me} in {text:?}, eligible: {eligible}");
        // Only those that may change the decision.
        let has_part = text.split([' ', '>']).take(2).any(|side| side == me);
        assert_eq!(hears, eligible || has_part, "{me} in {text:?}");
    }
    assert!(hears_leases(None, &name("c"), false), "the record is not known");
}

#[test]
fn only_the_owner_of_the_addresses_announces() {
    let announces = |me: &str, text: &str| case(me, text).decide().announce;
    for (text, who) in
        [("a", "a"), ("a>b lock", "a"), ("a>b take", "b"), ("a>b drop", "b"), ("a>b start", "b"), ("a>b back", "a")]
    {
        let all: Vec<&str> = ["a", "b", "c"].into_iter().filter(|me| announces(me, text).is_some()).collect();
        assert_eq!(all, [who], "{text}");
    }
    assert_eq!(announces("a", "a>b stop"), None, "the other is about to");
    assert_eq!(announces("a", "a"), announces("a", "a>b lock"), "nothing has changed");
    assert_ne!(announces("b", "a>b drop"), announces("b", "a>b start"), "again when the holder has let go");
    assert_ne!(announces("a", "a"), announces("a", "a>b back"), "again when the other may have spoken");
}

#[test]
fn each_phase_is_ended_by_the_side_that_acts_in_it() {
    use Level::{Down, Unknown, Up};
    for (case, wanted) in [
        (case("b", "a>b lock"), ""),
        (case("b", "a>b lock").with(|c| c.locked = true), "a>b stop"),
        (case("b", "a>b lock").with(|c| c.locked = true).levels(Unknown, Down), ""),
        (case("a", "a>b stop").levels(Up, Unknown), ""),
        (case("a", "a>b stop").levels(Up, Down), "a>b take"),
        (case("b", "a>b take").levels(Unknown, Down), ""),
        (case("b", "a>b take").levels(Up, Down), "a>b drop"),
        (case("b", "a>b take").with(|c| c.trouble = Some("no such interface")), "a>b back"),
        (case("a", "a>b drop").levels(Unknown, Down), ""),
        (case("a", "a>b drop").levels(Down, Down), "a>b start"),
        (case("b", "a>b start").levels(Up, Unknown), ""),
        (case("b", "a>b start").levels(Up, Up), "b"),
        (case("b", "a>b back").levels(Unknown, Down), ""),
        (case("b", "a>b back").levels(Down, Down), "a"),
        // No side writes the other's phase, and a third node writes nothing.
        (case("a", "a>b take").levels(Up, Down), ""),
        (case("b", "a>b drop").levels(Up, Down), ""),
        (case("c", "a>b start"), ""),
        (case("a", "a"), ""),
    ] {
        assert_eq!(case.writes(), wanted, "{} in {:?} {:?} {:?}", case.me, case.record, case.shared, case.exclusive);
        assert_eq!(case.with(|c| c.writing = true).writes(), "", "one change at a time");
    }
}

#[test]
fn leases_are_created_and_deleted_with_the_suspects() {
    let write = |case: Case| case.decide().write.unwrap();
    let entered = write(case("b", "a>b lock").with(|c| c.locked = true));
    assert!(entered.make_lease && entered.end_leases.is_empty());
    let done = write(case("b", "a>b start").levels(Level::Up, Level::Up));
    assert_eq!((done.make_lease, done.end_leases), (false, vec![name("a")]));
    assert_eq!((done.record.suspects, done.record.epoch), ([name("b")].into(), Epoch(8)));
    let back = write(case("b", "a>b back"));
    assert_eq!((back.end_leases, back.record.suspects), (vec![name("b")], [name("a")].into()));
    assert_eq!(back.record.failed, Some(FailedHandoff { to: name("b"), why: "a test".to_owned() }));
    let claimed = write(case("c", "a").silent("a", 4000));
    assert_eq!((claimed.make_lease, claimed.end_leases), (true, vec![name("a")]));
}

#[test]
fn the_role_is_claimed_after_every_suspect_was_silent_for_its_term() {
    for (case, wanted) in [
        (case("c", "-"), "c"),
        (case("c", "a").silent("a", 3999), ""),
        (case("c", "a").silent("a", 4000), "c"),
        (case("c", "a>b take").silent("a", 9000), ""),
        (case("c", "a>b take").silent("a", 9000).silent("b", 4000), "c"),
        (case("b", "a>b take").silent("a", 4000), "b"),
        (case("b", "a>b drop").silent("a", 4000), "b"),
        (case("a", "a>b take").silent("b", 4000), "a"),
        (case("a", "a>b start").silent("b", 4000), "a"),
        // Not by a node that is not eligible, has something up, or has just reconnected to the store.
        (case("c", "a").silent("a", 4000).with(|c| c.standing.eligible = false), ""),
        (case("c", "a").silent("a", 4000).levels(Level::Unknown, Level::Down), ""),
        (case("c", "a").silent("a", 4000).with(|c| c.connected = Some(Mono(NOW.0 - 999))), ""),
        (case("c", "a").silent("a", 4000).with(|c| c.connected = None), ""),
        // The best one first.
        (case("c", "a").silent("a", 4249).with(|c| c.standing.rank = 1), ""),
        (case("c", "a").silent("a", 4250).with(|c| c.standing.rank = 1), "c"),
    ] {
        assert_eq!(case.writes(), wanted, "{} in {:?}", case.me, case.record);
    }
    let wait = case("c", "a").silent("a", 1000).decide();
    assert_eq!(wait.again, Some(NOW.after(Duration::from_secs(3))), "it looks again when that may be so");
}

#[test]
fn at_the_timeout_a_side_turns_back_or_lets_its_lease_expire() {
    let late = |c: Case| c.with(|c| c.record_since = Mono(NOW.0 - 8000));
    for (case, wanted) in [
        (late(case("a", "a>b lock")), "a"),
        (late(case("b", "a>b lock")), "a"),
        (late(case("b", "a>b stop")), "a>b back"),
        (late(case("a", "a>b take")).levels(Level::Up, Level::Down), "a>b back"),
        (late(case("b", "a>b drop")).levels(Level::Up, Level::Down), ""),
        (case("b", "a>b take").with(|c| c.standing.eligible = false), "a>b back"),
    ] {
        assert_eq!(case.writes(), wanted, "{} in {:?}", case.me, case.record);
    }
    let due = |c: Case| c.with(|c| c.last_beat = None);
    assert!(due(case("a", "a>b drop")).decide().beat);
    assert!(!late(due(case("a", "a>b drop"))).levels(Level::Unknown, Level::Down).decide().beat);
    assert!(!late(due(case("b", "a>b back"))).levels(Level::Unknown, Level::Down).decide().beat);
}

#[test]
fn every_owner_renews_its_lease_even_a_lapsed_one() {
    let beats = |c: &Case| c.decide().beat;
    let due = |c: Case| c.with(|c| c.last_beat = Some(Mono(NOW.0 - 500)));
    assert!(!beats(&case("a", "a")) && beats(&due(case("a", "a"))));
    assert!(
        beats(&due(case("a", "a")).with(|c| c.authority = None)),
        "so that it gets authority again, under the same grant"
    );
    assert!(beats(&due(case("b", "a>b take"))) && !beats(&due(case("b", "a>b lock"))));
    assert!(!beats(&due(case("c", "a"))) && !beats(&due(case("a", "a")).with(|c| c.connected = None)));
    assert_eq!(case("a", "a").decide().again, Some(NOW.after(Duration::from_millis(500))));
    // With a store that is not shared, authority never ends.
    let alone = due(case("a", "a")).with(|c| (c.timing, c.authority) = (Timing::alone(), None));
    assert!(!beats(&alone) && alone.decide().shared == Want::Up);
}

#[test]
fn nothing_comes_up_while_the_outcome_of_a_change_is_unknown() {
    let decision = case("a", "a").with(|c| c.writing = true).decide();
    assert_eq!((decision.shared, decision.exclusive), (Want::Keep, Want::Keep));
    let decision = case("a", "a>b drop").with(|c| c.writing = true).decide();
    assert_eq!(decision.shared, Want::Down, "going down is always right");
}

#[test]
fn a_restarted_daemon_keeps_its_predecessors_services_until_it_knows_its_authority() {
    let new = |me: &str| {
        let unknown = case(me, "a").levels(Level::Unknown, Level::Unknown);
        unknown.with(|c| (c.new, c.authority, c.last_beat) = (true, None, None)).decide()
    };
    assert_eq!((new("a").shared, new("a").beat), (Want::Keep, true));
    assert_eq!(new("c").shared, Want::Down, "it has no part in it");
}

#[test]
fn a_holder_with_a_reason_begins_a_handoff() {
    let leaving = |urgent: bool, heir: Option<&str>| {
        case("a", "a").levels(Level::Up, Level::Up).with(|c| {
            (c.standing.leave, c.standing.urgent) = (Some("a test".to_owned()), urgent);
            c.standing.heir = heir.map(name);
        })
    };
    let settled = |c: Case| c.with(|c| c.record_since = Mono(NOW.0 - 8000));
    assert_eq!(leaving(true, Some("b")).writes(), "a>b lock");
    assert_eq!(leaving(false, Some("b")).writes(), "", "not on the heels of the last change");
    assert_eq!(settled(leaving(false, Some("b"))).writes(), "a>b lock");
    assert_eq!(settled(leaving(true, None)).writes(), "", "nobody is there");
    let tried = |c: Case| c.with(|c| c.record.failed = Some(FailedHandoff { to: name("b"), why: String::new() }));
    assert_eq!(tried(leaving(true, Some("b"))).writes(), "");
    assert_eq!(settled(tried(leaving(true, Some("b")))).writes(), "a>b lock");
    // A node that may not have it gives it up anyway.
    let quits = leaving(true, None).with(|c| c.standing.quit = true);
    assert_eq!((quits.decide().shared, quits.writes().as_str()), (Want::Down, ""));
    assert_eq!(quits.levels(Level::Down, Level::Down).writes(), "-");
}

#[test]
fn a_recreated_lease_has_not_been_silent() {
    let old = Heard { version: Version(0), revision: 5, since: Mono(1), term: TERM };
    assert_eq!(Heard::read(Some(old), Version(0), 5, TERM, NOW), old);
    assert_eq!(Heard::read(Some(old), Version(0), 8, TERM, NOW).since, NOW);
    assert_eq!(Heard::read(None, Version(0), 8, TERM, NOW).since, NOW);
}
