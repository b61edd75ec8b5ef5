mod policies;

use super::*;
use crate::liveness;
use drover_model::{ClusterConfig, Epoch, NodeView, Only, PowerState, RecordKind, Version, testing::*};
use proof::{Attempts, Found, Presence, Reading};
use report::{faults, reported};

/// Seconds of the monotonic clock.
fn at(seconds: u64) -> Mono {
    Mono(0).after(Duration::from_secs(seconds))
}

fn put(view: &mut ClusterView, node: &str, fence: &Fence) {
    view.apply(&Fence::path(&name(node)), Some((&serde_json::to_vec(fence).unwrap(), Version(0))));
}

fn fence(view: &ClusterView, node: &str, phase: FencePhase) -> Fence {
    let record = &view.nodes.get(&name(node)).unwrap().record.value;
    let fence = Fence::suspicion(record, &name("a"), Epoch(1), WallTime(0));
    let evidence =
        Evidence { kind: EvidenceKind::Administrator, at: WallTime(1), by: name("a"), what: "said so".to_owned() };
    let fence = if phase.is_proved() || phase == FencePhase::Over { fence.proved(evidence) } else { fence };
    fence.to(phase, WallTime(2))
}

fn five() -> Vec<NodeView> {
    ["a", "b", "c", "d", "e"].map(|n| node(n, 8).booted("b1")).into()
}

/// Nodes `dead` fell silent at these seconds; the decision at `now`.
fn outlook(view: &ClusterView, lives: &[(&str, u64)], now: u64) -> Outlook {
    let (mut all, _) = liveness::observe(&Lives::new(), view, at(0), WallTime(0));
    for (node, since) in lives {
        all.get_mut(&name(node)).unwrap().since = at(*since);
    }
    next(view, (&all, &BTreeSet::new()), &Plan::default(), &Tries::new(), at(now), WallTime(now * 1000))
}

/// The decision, with what was found about node c, now.
fn after(view: &ClusterView, power: Option<PowerState>, silent: bool, ordered: bool) -> Outlook {
    let (mut lives, _) = liveness::observe(&Lives::new(), view, at(0), WallTime(0));
    lives.get_mut(&name("c")).unwrap().since = at(50);
    let reading = power.map_or(Reading::None("it is mute".to_owned()), |power| Reading::Power("B".to_owned(), power));
    let presence = match silent {
        true => Presence::Silent("c:7370".to_owned()),
        false => Presence::Answers("c:7370".to_owned(), "it refuses connections".to_owned()),
    };
    let found = Found { reading, presence, order: ordered.then_some(Ok(())) };
    let attempts = Attempts { boot: "b1".to_owned(), last: None, failed: 0 }.ended(at(60), found);
    let tries = Tries::from([(name("c"), attempts)]);
    next(view, (&lives, &BTreeSet::new()), &Plan::default(), &tries, at(61), WallTime(61_000))
}

fn step_of(outlook: Outlook) -> Option<Step> {
    outlook.steps.into_iter().next().map(|(_, step)| step)
}

fn steps(view: &ClusterView, lives: &[(&str, u64)], now: u64) -> Vec<(String, Step)> {
    outlook(view, lives, now).steps.into_iter().map(|(node, step)| (node.to_string(), step)).collect()
}

fn silence(view: &mut ClusterView, nodes: &[&str]) {
    for node in nodes {
        view.change_node(&name(node), |node| node.session = None);
    }
}

#[test]
fn silence_is_suspected_after_a_while_and_proves_nothing() {
    let mut view = cluster(five(), vec![]);
    assert_eq!(steps(&view, &[], 100), []);
    silence(&mut view, &["c"]);
    let early = outlook(&view, &[("c", 50)], 52);
    assert_eq!((early.steps, early.look_again), (vec![], Some(at(53))));
    assert_eq!(steps(&view, &[("c", 50)], 53), [("c".to_owned(), Step::Suspect)]);
    let suspect = fence(&view, "c", FencePhase::Suspect);
    put(&mut view, "c", &suspect);
    let begun = outlook(&view, &[("c", 50)], 54);
    assert_eq!((begun.steps, begun.ask), (vec![(name("c"), Step::Proving)], vec![name("c")]));
    let no = step_of(after(&view, None, true, false));
    assert_eq!(no, Some(Step::Unproved(vec!["it is mute".to_owned()])));
    let unproved = Fence { problems: vec!["it is mute".to_owned()], ..fence(&view, "c", FencePhase::Unproved) };
    put(&mut view, "c", &unproved);
    let still = after(&view, None, true, false);
    assert_eq!((still.steps, still.ask), (vec![], vec![]), "nothing happens, however long it lasts");
    assert_eq!(still.look_again, Some(at(65)), "and it is tried again");
    assert!(recovering(&view).is_empty());
}

#[test]
fn a_bmc_is_asked_before_the_suspicion_but_not_about_a_daemon_that_restarts() {
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c"]);
    assert_eq!(outlook(&view, &[("c", 50)], 50).ask, []);
    assert_eq!(outlook(&view, &[("c", 50)], 51).ask, [name("c")]);
}

/// The decision at second 61 about node c, of which this was found at second 60; silent: since when it has no session.
fn ahead(found: Option<(PowerState, bool)>, silent: Option<u64>, maintenance: bool) -> Outlook {
    let mut view = cluster(five(), vec![]);
    let config = ClusterConfig { maintenance, ..ClusterConfig::default() };
    view.apply(&ClusterConfig::path(&Only), Some((&serde_json::to_vec(&config).unwrap(), Version(1))));
    if silent.is_some() {
        silence(&mut view, &["c"]);
    }
    let (mut lives, _) = liveness::observe(&Lives::new(), &view, at(0), WallTime(0));
    lives.get_mut(&name("c")).unwrap().since = at(silent.unwrap_or_default());
    let attempts = found.map(|(power, silent)| {
        let at_its_api = "c:7370".to_owned();
        let presence = match silent {
            true => Presence::Silent(at_its_api),
            false => Presence::Answers(at_its_api, "it refuses connections".to_owned()),
        };
        let found = Found { reading: Reading::Power("B".to_owned(), power), presence, order: None };
        (name("c"), Attempts { boot: "b1".to_owned(), last: None, failed: 0 }.ended(at(60), found))
    });
    let unheard = if silent.is_none() { BTreeSet::from([name("c")]) } else { BTreeSet::new() };
    let tries = Tries::from_iter(attempts);
    next(&view, (&lives, &unheard), &Plan::default(), &tries, at(61), WallTime(61_000))
}

#[test]
fn a_machine_that_does_not_answer_is_asked_about_while_its_session_lives_and_no_more() {
    assert_eq!(ahead(None, None, false).ask, [name("c")]);
    assert_eq!(ahead(None, None, true).ask, [], "in maintenance");
    for power in [PowerState::On, PowerState::Off] {
        for silent in [true, false] {
            let outlook = ahead(Some((power, silent)), None, false);
            assert_eq!((outlook.steps, outlook.ask), (vec![], vec![]), "{power} {silent}");
            assert_eq!(outlook.look_again, Some(at(62)), "{power} {silent}: it is asked again when that is old");
        }
    }
}

/// Sessions of machines that fall silent together end one after the other.
#[test]
fn nodes_with_sessions_that_do_not_answer_count_as_silent() {
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c"]);
    let (mut lives, _) = liveness::observe(&Lives::new(), &view, at(0), WallTime(0));
    lives.get_mut(&name("c")).unwrap().since = at(50);
    let decide = |unheard: &[&str]| {
        let unheard = unheard.iter().map(|node| name(node)).collect();
        next(&view, (&lives, &unheard), &Plan::default(), &Tries::new(), at(60), WallTime(60_000))
    };
    assert_eq!(step_of(decide(&[])), Some(Step::Suspect));
    let held = decide(&["d", "e"]);
    assert_eq!((held.steps, held.ask), (vec![], vec![]));
    assert!(held.held.is_some_and(|why| why.contains("3 of 5 nodes are silent (c, d, e)")));
}

#[test]
fn what_was_found_while_its_session_lived_counts_when_it_has_ended() {
    // It has just ended.
    let step = |power, silent, maintenance| step_of(ahead(Some((power, silent)), Some(61), maintenance));
    assert_eq!(step(PowerState::Off, true, false), Some(Step::Suspect));
    assert_eq!(step(PowerState::Off, true, true), None);
    // Its daemon may be restarting, or the BMC may be that of another machine.
    assert_eq!(step(PowerState::On, true, false), None);
    assert_eq!(step(PowerState::Off, false, false), None);
    // An attempt that found no proof is repeated now, not when its pause is over.
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c"]);
    let (mut lives, _) = liveness::observe(&Lives::new(), &view, at(0), WallTime(0));
    lives.get_mut(&name("c")).unwrap().since = at(61);
    let found = Found {
        reading: Reading::None("it is mute".to_owned()),
        presence: Presence::Silent("c:7370".to_owned()),
        order: None,
    };
    let attempts = Attempts { boot: "b1".to_owned(), last: None, failed: 0 }.ended(at(60), found);
    let tries = Tries::from([(name("c"), attempts)]);
    let now = |now| next(&view, (&lives, &BTreeSet::new()), &Plan::default(), &tries, at(now), WallTime(0)).ask;
    assert_eq!((now(61), now(62)), (vec![], vec![name("c")]));
}

#[test]
fn the_nodes_are_listened_to_once_a_second_or_fifty_of_them() {
    let seconds = [3, 50, 100].map(|nodes| pulse(nodes).as_secs());
    assert_eq!(seconds, [1, 1, 2]);
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c"]);
    view.change_node(&name("d"), |node| node.report().daemon = DaemonState::Stop);
    view.change_node(&name("d"), |node| node.session = None);
    let me = name("a");
    let heard: Vec<&str> = listened_to(&view, &me).map(|(name, _)| name.as_str()).collect();
    assert_eq!(heard, ["b", "e"]);
}

#[test]
fn only_off_that_was_read_is_proof_and_power_is_cut_only_if_the_machine_is_silent() {
    let (on, off) = (Some(PowerState::On), Some(PowerState::Off));
    for phase in [FencePhase::Suspect, FencePhase::Proving, FencePhase::Unproved] {
        let mut view = cluster(five(), vec![]);
        silence(&mut view, &["c"]);
        let fence = fence(&view, "c", phase);
        put(&mut view, "c", &fence);
        let step = |power, silent, ordered| step_of(after(&view, power, silent, ordered));
        assert_eq!(step(off, true, false), Some(Step::Proved("B reads off".to_owned())), "{phase}");
        let cut = "B reads off, after it was ordered to cut the power".to_owned();
        assert_eq!(step(off, true, true), Some(Step::Proved(cut)), "{phase}");
        assert_eq!(step(on, true, false), Some(Step::Cut), "{phase}");
        for (power, silent, ordered, says) in [
            (on, true, true, "B accepted the order to cut the power, and still reads on"),
            (on, false, false, "the power is not cut while the machine answers"),
            (off, false, false, "that BMC controls another machine"),
            (off, false, true, "that BMC controls another machine"),
            (None, true, false, "it is mute"),
            (None, true, true, "it is mute"),
            (None, false, false, "its machine answers at c:7370 (it refuses connections)"),
        ] {
            let Some(Step::Unproved(problems)) = step(power, silent, ordered) else {
                panic!("{phase} {power:?} {silent} {ordered}")
            };
            assert!(problems.join("; ").contains(says), "{problems:?}");
        }
    }
}

#[test]
fn maintenance_and_the_governor_cut_no_power_and_prove_nothing() {
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c"]);
    let suspect = fence(&view, "c", FencePhase::Suspect);
    put(&mut view, "c", &suspect);
    let mut many = view.clone();
    silence(&mut many, &["d", "e"]);
    let config = ClusterConfig { maintenance: true, ..ClusterConfig::default() };
    view.apply(&ClusterConfig::path(&Only), Some((&serde_json::to_vec(&config).unwrap(), Version(1))));
    for (view, says) in [(view, "in maintenance"), (many, "3 of 5 nodes are silent")] {
        for power in [PowerState::On, PowerState::Off] {
            let quiet = after(&view, Some(power), true, false);
            let Some(Step::Unproved(problems)) = step_of(quiet.clone()) else { panic!("{quiet:?}") };
            assert!(problems.len() == 1 && problems[0].contains(says) && quiet.ask.is_empty(), "{quiet:?}");
        }
    }
}

#[test]
fn a_daemon_that_was_stopped_on_purpose_is_not_suspected() {
    let mut view = cluster(five(), vec![]);
    view.change_node(&name("c"), |node| node.report().daemon = DaemonState::Stop);
    silence(&mut view, &["c"]);
    assert_eq!(steps(&view, &[("c", 50)], 900), []);
    // It was silent first, and is told to have been stopped.
    let suspect = fence(&view, "c", FencePhase::Suspect);
    put(&mut view, "c", &suspect);
    assert_eq!(steps(&view, &[("c", 50)], 900), [("c".to_owned(), Step::Withdraw)]);
}

#[test]
fn a_node_that_is_back_is_suspected_no_more_and_proof_is_used_no_more() {
    for (phase, step) in [
        (FencePhase::Suspect, Some(Step::Withdraw)),
        (FencePhase::Proving, Some(Step::Withdraw)),
        (FencePhase::Unproved, Some(Step::Withdraw)),
        (FencePhase::Proved, Some(Step::End)),
        (FencePhase::Recovering, Some(Step::End)),
        (FencePhase::Recovered, Some(Step::End)),
        (FencePhase::Over, None),
    ] {
        let mut view = cluster(five(), vec![]);
        let fence = fence(&view, "c", phase);
        put(&mut view, "c", &fence);
        let wanted: Vec<_> = step.into_iter().map(|step| ("c".to_owned(), step)).collect();
        assert_eq!(steps(&view, &[], 9), wanted, "{phase}");
        assert!(recovering(&view).is_empty(), "{phase}");
        let ordered = Fence { off_ordered: true, ..fence };
        put(&mut view, "c", &ordered);
        assert_eq!(steps(&view, &[], 9), [], "{phase}: the node itself says when an order cannot hit it any more");
    }
}

#[test]
fn proof_of_one_boot_is_none_of_the_next() {
    let mut view = cluster(five(), vec![]);
    let recovered = fence(&view, "c", FencePhase::Recovered);
    put(&mut view, "c", &recovered);
    silence(&mut view, &["c"]);
    assert_eq!(recovering(&view), BTreeMap::from([(name("c"), false)]));
    assert_eq!(steps(&view, &[("c", 50)], 900), []);
    // It was booted since, and fell silent again.
    view.change_node(&name("c"), |node| node.record.boot = "b2".to_owned());
    assert!(recovering(&view).is_empty());
    assert_eq!(steps(&view, &[("c", 50)], 900), [("c".to_owned(), Step::Suspect)]);
    // The same boot fell silent again, after it was back: what was said of it was wrong.
    view.change_node(&name("c"), |node| node.record.boot = "b1".to_owned());
    let over = fence(&view, "c", FencePhase::Over);
    put(&mut view, "c", &over);
    assert!(recovering(&view).is_empty());
    assert_eq!(steps(&view, &[("c", 50)], 900), [("c".to_owned(), Step::Suspect)]);
}

#[test]
fn recovery_begins_and_ends() {
    let mut view = cluster(five(), vec![running(1, "c", 64)]);
    silence(&mut view, &["c"]);
    let proved = fence(&view, "c", FencePhase::Proved);
    put(&mut view, "c", &proved);
    assert_eq!(steps(&view, &[], 9), [("c".to_owned(), Step::Recover)]);
    assert!(recovering(&view).is_empty(), "not before the record says so, and the node takes no VMs");
    let begun = fence(&view, "c", FencePhase::Recovering);
    put(&mut view, "c", &begun);
    let plan = crate::recover::plan(&view, &recovering(&view), false);
    let (lives, _) = liveness::observe(&Lives::new(), &view, at(0), WallTime(0));
    assert_eq!(
        (plan.items.len(), next(&view, (&lives, &BTreeSet::new()), &plan, &Tries::new(), at(9), WallTime(0)).steps),
        (1, vec![])
    );
    assert_eq!(steps(&view, &[], 9), [("c".to_owned(), Step::Recovered)], "nothing is left");
}

#[test]
fn the_governor_raises_no_suspicion_when_too_many_are_silent() {
    let mut view = cluster(five(), vec![]);
    silence(&mut view, &["c", "d"]);
    let two = [("c", 100), ("d", 100)];
    assert_eq!(steps(&view, &two, 110).len(), 2, "two of five at once are two dead nodes");
    silence(&mut view, &["e"]);
    let three = [("c", 100), ("d", 100), ("e", 100)];
    let held = outlook(&view, &three, 500);
    assert_eq!((held.steps.len(), held.held.as_deref()), (0, Some("3 of 5 nodes are silent (c, d, e)")));
    assert!(held.look_again.is_some(), "and it goes on when that is over");
    // Two of them are proved to be off: one of three is silent.
    for node in ["c", "d"] {
        let recovered = fence(&view, node, FencePhase::Recovered);
        put(&mut view, node, &recovered);
    }
    assert_eq!(steps(&view, &three, 500), [("e".to_owned(), Step::Suspect)]);
}

#[test]
fn the_governor_counts_those_that_fell_silent_lately() {
    let nodes: Vec<NodeView> = (0..9).map(|n| node(&format!("n{n}"), 8).booted("b1")).collect();
    let mut view = cluster(nodes, vec![]);
    silence(&mut view, &["n0", "n1", "n2", "n3"]);
    let lives = [("n0", 10), ("n1", 100), ("n2", 100), ("n3", 100)];
    assert_eq!(steps(&view, &lives, 110).len(), 4, "three of nine within a minute");
    let lives = [("n0", 90), ("n1", 100), ("n2", 100), ("n3", 100)];
    let held = outlook(&view, &lives, 110).held;
    assert!(held.is_some_and(|why| why.starts_with("4 of 9 nodes fell silent within 60 s")));
    assert_eq!(steps(&view, &lives, 161).len(), 4, "it is over");

    // Those whose power was cut count on, until the minute is over: one after the other would be cut otherwise.
    let mut cut = fence(&view, "n0", FencePhase::Recovered);
    let (by, what) = (name("n8"), String::new());
    cut.evidence = vec![Evidence { kind: EvidenceKind::Power, at: WallTime(1), by, what }];
    put(&mut view, "n0", &cut);
    let held = outlook(&view, &lives, 110).held;
    assert!(held.is_some_and(|why| why.starts_with("4 of 9 nodes fell silent within 60 s")));
    cut.evidence[0].kind = EvidenceKind::Administrator;
    put(&mut view, "n0", &cut);
    assert_eq!(steps(&view, &lives, 110).len(), 3, "an administrator knows which are off");
}

#[test]
fn maintenance_raises_no_suspicion_but_what_is_confirmed_is_done() {
    let mut view = cluster(five(), vec![]);
    let config = ClusterConfig { maintenance: true, ..ClusterConfig::default() };
    view.apply(&ClusterConfig::path(&Only), Some((&serde_json::to_vec(&config).unwrap(), Version(1))));
    silence(&mut view, &["c"]);
    assert_eq!(steps(&view, &[("c", 50)], 900), []);
    let proved = fence(&view, "c", FencePhase::Proved);
    put(&mut view, "c", &proved);
    assert_eq!(steps(&view, &[("c", 50)], 900), [("c".to_owned(), Step::Recover)]);
}

#[test]
fn only_a_silent_node_is_confirmed_to_be_off() {
    let node = node("c", 8).booted("b1").record.value.clone();
    let said = |present, old: Option<&Fence>, for_good| {
        confirm(&node, present, old, (Some("b1"), for_good), (&name("a"), Epoch(4)), WallTime(7))
    };
    let refusal = said(Some(DaemonState::Run), None, false).unwrap_err().to_string();
    assert!(refusal.starts_with("node c is not off: its daemon is in state run"), "{refusal}");
    let proved = said(None, None, false).unwrap().unwrap();
    assert!(proved.phase == FencePhase::Proved && proved.is_of(&node) && proved.evidence.len() == 1);
    assert_eq!(said(None, Some(&proved), false), Ok(None), "it is known");
    assert!(said(None, Some(&proved), true).unwrap().unwrap().for_good);
    // A suspicion keeps the time at which it began.
    let suspicion = Fence::suspicion(&node, &name("b"), Epoch(3), WallTime(5));
    let after = said(None, Some(&suspicion), false).unwrap().unwrap();
    assert_eq!((after.since, &after.by, after.epoch), (WallTime(5), &name("a"), Epoch(4)));
    // What was proved of another boot, or was over, begins anew.
    let other = Fence { boot: "b0".to_owned(), ..proved.clone() };
    assert_eq!(said(None, Some(&other), false).unwrap().unwrap().since, WallTime(7));
    let over = proved.to(FencePhase::Over, WallTime(6));
    assert_eq!(said(None, Some(&over), false).unwrap().unwrap().phase, FencePhase::Proved);
    let old = NodeRecord { boot: String::new(), ..node.clone() };
    let refused = confirm(&old, None, None, (None, false), (&name("a"), Epoch(4)), WallTime(7));
    assert!(matches!(refused, Err(Refusal::UnknownBoot { .. })));
    let another = confirm(&node, None, None, (Some("b0"), false), (&name("a"), Epoch(4)), WallTime(7));
    assert!(matches!(another, Err(Refusal::Booted { .. })), "what was seen to be off is not what was there last");
}

#[test]
fn a_node_that_joins_ends_what_is_recorded_of_it() {
    let view = cluster(vec![node("c", 8).booted("b1")], vec![]);
    let after = |phase, off_ordered| {
        let fence = Fence { off_ordered, ..fence(&view, "c", phase) };
        returned(&Stored::new(fence, Version(3)), Duration::ZERO, WallTime(9))
    };
    assert_eq!(after(FencePhase::Unproved, false), Return::Delete);
    assert_eq!(after(FencePhase::Unproved, true), Return::Wait, "the order may hit this boot too");
    assert_eq!(after(FencePhase::Recovering, true), Return::Wait, "an earlier primary's order may still hit it");
    assert!(matches!(after(FencePhase::Recovering, false), Return::Replace(fence) if fence.phase == FencePhase::Over));
    assert_eq!(after(FencePhase::Over, false), Return::Keep);
    assert_eq!(after(FencePhase::Over, true), Return::Keep, "it has waited");
    let ordered = Fence { off_ordered: true, ..fence(&view, "c", FencePhase::Proving) };
    let ordered = Stored::new(ordered, Version(3));
    let waited = |waited| returned(&ordered, waited, WallTime(9));
    assert_eq!(waited(Duration::from_secs(44)), Return::Wait);
    assert_eq!(waited(proof::ORDER_IN_FORCE), Return::Delete);
    let proved = |version| Stored::new(ordered.value.to(FencePhase::Proved, WallTime(3)), Version(version));
    let over = returned(&proved(4), proof::ORDER_IN_FORCE, WallTime(9));
    assert!(matches!(over, Return::Replace(fence) if fence.phase == FencePhase::Over));

    // Its session keeps others from cutting its power, and from recovering its VMs.
    assert!(!waits_outside(&ordered.value) && waits_outside(&proved(4).value));
    assert!(!waits_outside(&ordered.value.to(FencePhase::Over, WallTime(3))));
    let again = Stored::new(ordered.value.clone(), Version(4));
    assert!(!same_orders(&ordered, &again), "it may have been ordered again");
    assert!(!same_orders(&ordered, &proved(5)) && !same_orders(&proved(4), &Stored::new(again.value, Version(5))));
    assert!(same_orders(&ordered, &ordered) && same_orders(&proved(4), &proved(7)));
}

#[test]
fn faults_say_what_is_missing_and_what_to_do() {
    let mut view = cluster(five(), vec![running(1, "c", 64).limited(&["c"])]);
    silence(&mut view, &["c"]);
    let unproved =
        Fence { problems: vec!["no BMC".to_owned(), "no luck".to_owned()], ..fence(&view, "c", FencePhase::Unproved) };
    put(&mut view, "c", &unproved);
    let told = |view: &ClusterView| {
        let plan = crate::recover::plan(view, &recovering(view), false);
        faults(view, &Outlook::default(), &plan)
    };
    let silent = told(&view);
    assert_eq!(silent.keys().collect::<Vec<_>>(), ["node-dead-c"]);
    let message = &silent["node-dead-c"].0;
    assert!(message.contains("not proved that its machine is off: no BMC; no luck. Its VMs"), "{message}");
    assert!(message.contains("'drover node fence c --confirm-off'"), "{message}");
    let begun = fence(&view, "c", FencePhase::Recovering);
    put(&mut view, "c", &begun);
    let off = told(&view);
    assert_eq!(off.keys().collect::<Vec<_>>(), ["fence-waiting-c", "node-dead-c"]);
    assert!(off["fence-waiting-c"].0.contains("vm1 (a: the VM is limited to c"), "{off:?}");
    assert!(off["node-dead-c"].0.starts_with("Node c is off (said so)"), "{off:?}");
    let over = Fence { boot: "b0".to_owned(), ..fence(&view, "c", FencePhase::Over) };
    put(&mut view, "c", &over);
    assert!(told(&view).is_empty(), "it was booted since");
}

#[test]
fn a_node_that_waits_until_its_power_is_cut_is_no_witness() {
    let mut view = cluster(five(), vec![]);
    let (me, silent) = (name("a"), name("b"));
    let names = |view: &ClusterView| witnesses(view, &me, &silent).map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&view), ["c", "d", "e"]);
    let suspicion = fence(&view, "c", FencePhase::Proving);
    put(&mut view, "c", &suspicion);
    assert_eq!(names(&view), ["c", "d", "e"], "it is only suspected, and is back");
    put(&mut view, "c", &Fence { off_ordered: true, ..suspicion.clone() });
    assert_eq!(names(&view), ["d", "e"]);
    put(&mut view, "c", &Fence { off_ordered: true, ..suspicion.to(FencePhase::Over, WallTime(3)) });
    assert_eq!(names(&view), ["c", "d", "e"]);
}
