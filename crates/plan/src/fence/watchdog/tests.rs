use super::*;
use crate::{fence, liveness, recover::Plan};
use drover_model::{Epoch, Fence, NodeView, RecordKind, WallTime, testing::*, watchdog::WATCHDOG_SCHEMA};
use fence::proof::Tries;
use std::collections::BTreeSet;

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1000)
}

fn promise(boot: &str, gone_after: Option<u64>) -> Promise {
    let gone_after_ms = gone_after.map(|seconds| seconds * 1000);
    Promise { schema: WATCHDOG_SCHEMA, boot: boot.to_owned(), gone_after_ms, timeout_ms: 10_000, beat: 3 }
}

/// Node c is silent, and its fence is in this phase.
fn silent_node(phase: FencePhase) -> ClusterView {
    let nodes: Vec<NodeView> = ["a", "b", "c", "d"].map(|n| node(n, 8).booted("b1")).into();
    let mut view = cluster(nodes, vec![]);
    view.change_node(&name("c"), |node| node.session = None);
    let record = &view.nodes.get(&name("c")).unwrap().record.value;
    let fence = Fence::suspicion(record, &name("a"), Epoch(1), WallTime(0)).to(phase, WallTime(1));
    view.apply(&Fence::path(&name("c")), Some((&serde_json::to_vec(&fence).unwrap(), Version(0))));
    view
}

/// The decision 20 s after the session ended; the promise was last renewed at 10 s.
fn decided(view: &ClusterView, promise: Promise, quiet: bool, now: u64) -> Outlook {
    let (lives, _) = liveness::observe(&liveness::Lives::new(), view, at(10), WallTime(0));
    let outlook = fence::next(view, (&lives, &BTreeSet::new()), &Plan::default(), &Tries::new(), at(now), WallTime(0));
    let heard = Heard { version: Version(7), revision: 70, since: at(10), promise };
    prove(outlook, view, &Silences::from([(name("c"), heard)]), quiet, at(now))
}

#[test]
fn a_promise_that_is_not_renewed_proves_that_its_boot_has_ended() {
    let view = silent_node(FencePhase::Unproved);
    let early = decided(&view, promise("b1", Some(50)), false, 59);
    assert!(early.steps.is_empty() && early.look_again == Some(at(60)), "{early:?}");
    let due = decided(&view, promise("b1", Some(50)), false, 60);
    let [(node, Step::RanOut(what, Version(7)))] = due.steps.as_slice() else { panic!("{due:?}") };
    assert_eq!((node.as_str(), due.ask.len()), ("c", 0));
    assert!(what.contains("timeout 10 s") && what.contains("for 50 s"), "{what}");
    for (phase, promise, quiet, why) in [
        (FencePhase::Unproved, promise("b1", Some(50)), true, "nothing is proved by itself now"),
        (FencePhase::Unproved, promise("b1", None), false, "it was withdrawn"),
        (FencePhase::Unproved, promise("b0", Some(50)), false, "it was about another boot"),
        (FencePhase::Over, promise("b1", Some(50)), false, "the fence is over"),
        (FencePhase::Proved, promise("b1", Some(50)), false, "it is proved already"),
    ] {
        let steps = decided(&silent_node(phase), promise, quiet, 600).steps;
        assert!(!steps.iter().any(|(_, step)| matches!(step, Step::RanOut(..))), "{why}: {steps:?}");
    }
    let mut back = silent_node(FencePhase::Unproved);
    back.change_node(&name("c"), |node| node.session = view.nodes.get(&name("a")).unwrap().session.clone());
    let steps = decided(&back, promise("b1", Some(50)), false, 600).steps;
    assert_eq!(steps, [(name("c"), Step::Withdraw)], "its session is there");
}

#[test]
fn that_there_will_be_a_proof_is_among_the_reasons_once() {
    let mut view = silent_node(FencePhase::Proving);
    let found = fence::proof::Found {
        reading: fence::proof::Reading::None("it is mute".to_owned()),
        presence: fence::proof::Presence::Silent("c:7370".to_owned()),
        order: None,
    };
    let attempts = fence::proof::Attempts { boot: "b1".to_owned(), last: None, failed: 0 }.ended(at(20), found);
    let tries = Tries::from([(name("c"), attempts)]);
    let decided = |view: &ClusterView| {
        let (lives, _) = liveness::observe(&liveness::Lives::new(), view, at(10), WallTime(0));
        let outlook = fence::next(view, (&lives, &BTreeSet::new()), &Plan::default(), &tries, at(21), WallTime(0));
        let promise = promise("b1", Some(50));
        let heard = Heard { version: Version(7), revision: 70, since: at(10), promise };
        prove(outlook, view, &Silences::from([(name("c"), heard)]), false, at(21)).steps
    };
    let steps = decided(&view);
    let [(_, Step::Unproved(problems))] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].ends_with("has not renewed its promise for 50 s"), "{problems:?}");
    let old = view.fences().get(&name("c")).unwrap().value.to(FencePhase::Unproved, WallTime(1));
    let fence = Fence { problems: problems.clone(), ..old };
    view.apply(&Fence::path(&name("c")), Some((&serde_json::to_vec(&fence).unwrap(), Version(1))));
    assert_eq!(decided(&view), [], "it is on record");
}

#[test]
fn silence_counts_from_the_last_change_that_was_seen() {
    let first = Heard::read(None, Version(7), 70, promise("b1", Some(50)), at(10));
    let same = Heard::read(Some(&first), Version(7), 70, promise("b1", Some(50)), at(40));
    assert_eq!(same.since, at(10));
    // Deleted and made again: the same version, and it is another one.
    let other = Heard::read(Some(&same), Version(7), 71, promise("b1", Some(50)), at(45));
    assert_eq!(other.since, at(45));
}

#[test]
fn only_silent_nodes_without_proof_are_listened_to() {
    let names = |view: &ClusterView| silent(view).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&silent_node(FencePhase::Suspect)), ["c"]);
    assert_eq!(names(&silent_node(FencePhase::Recovering)), Vec::<String>::new());
    let mut booted = silent_node(FencePhase::Recovering);
    booted.change_node(&name("c"), |node| {
        let record = drover_model::NodeRecord { boot: "b2".to_owned(), ..node.record.value.clone() };
        node.record = kept(record);
    });
    assert_eq!(names(&booted), ["c"], "the proof was about another boot");
}
