//! Seeds that run with the tests. To run more: `drover-sim --seeds 0..10000`.
#![allow(clippy::panic, reason = "tests end by panicking")]

use drover_sim::{Lie, Options, Shape, run};
use std::time::Duration;

#[test]
fn no_seed_violates_anything() {
    let mut starts = 0;
    for seed in 0..100 {
        match run(Options::of(seed)) {
            Ok(tally) => starts += tally.starts,
            Err(violation) => panic!("{violation}\nTo see it: cargo run -p drover-sim -- --seed {seed}"),
        }
    }
    assert!(starts > 500, "in {starts} starts there is not much to see");
}

#[test]
fn no_drill_violates_anything() {
    for seed in 0..12 {
        if let Err(violation) = run(Options { shape: Shape::Drills, ..Options::of(seed) }) {
            panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape drills --seed {seed}");
        }
    }
}

#[test]
fn a_cluster_at_rest_leaves_its_store_alone() {
    // Sixty VMs, each of which is checked twice in that minute.
    let drill = Options { shape: Shape::Drills, weather: Duration::ZERO, ..Options::of(1) };
    let calls = run(drill).unwrap_or_else(|violation| panic!("{violation}")).calls_at_rest;
    assert!(calls < 60, "{calls} calls of the store in a minute");
}

#[test]
fn no_handoff_violates_anything() {
    let mut takeovers = 0;
    for seed in 0..150 {
        match run(Options { shape: Shape::Handoffs, ..Options::of(seed) }) {
            Ok(tally) => takeovers += tally.takeovers,
            Err(violation) => {
                panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape handoffs --seed {seed}")
            }
        }
    }
    assert!(takeovers > 1000, "in {takeovers} takeovers there is not much to see");
}

#[test]
fn no_cluster_of_two_versions_violates_anything() {
    let mut foreign = 0;
    for seed in 0..40 {
        match run(Options { shape: Shape::Versions, ..Options::of(seed) }) {
            Ok(tally) => foreign += tally.foreign,
            Err(violation) => {
                panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape versions --seed {seed}")
            }
        }
    }
    assert!(foreign > 1000, "with {foreign} foreign records there is not much to see");
}

#[test]
fn no_fence_violates_anything() {
    let (mut recovered, mut proved, mut cuts) = (0, 0, 0);
    for seed in 0..50 {
        match run(Options { shape: Shape::Fences, ..Options::of(seed) }) {
            Ok(tally) => {
                recovered += tally.recovered;
                proved += tally.proved;
                cuts += tally.cuts;
            }
            Err(violation) => panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape fences --seed {seed}"),
        }
    }
    assert!(recovered > 40, "with {recovered} nodes that were off there is not much to see");
    assert!(proved > 25 && cuts > 15, "nor with {proved} proofs by BMCs and {cuts} orders to cut the power");
}

#[test]
fn no_watchdog_violates_anything() {
    let (mut resets, mut ran_out) = (0, 0);
    for seed in 0..50 {
        match run(Options { shape: Shape::Watchdogs, ..Options::of(seed) }) {
            Ok(tally) => {
                resets += tally.resets;
                ran_out += tally.ran_out;
            }
            Err(violation) => {
                panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape watchdogs --seed {seed}")
            }
        }
    }
    assert!(resets > 100, "with {resets} resets by watchdogs there is not much to see");
    assert!(ran_out > 15, "nor with {ran_out} that proved that their nodes were off");
}

#[test]
fn no_clone_violates_anything() {
    let mut clones = 0;
    for seed in 0..40 {
        match run(Options { shape: Shape::Clones, ..Options::of(seed) }) {
            Ok(tally) => clones += tally.clones,
            Err(violation) => panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape clones --seed {seed}"),
        }
    }
    assert!(clones > 200, "with {clones} clones there is not much to see");
}

#[test]
fn nothing_that_is_done_behind_drovers_back_violates_anything() {
    let (mut hands, mut made, mut replaced, mut losses) = (0, 0, 0, 0);
    for seed in 0..60 {
        match run(Options { shape: Shape::Strangers, ..Options::of(seed) }) {
            Ok(tally) => {
                hands += tally.hands;
                made += tally.foreign_domains;
                replaced += tally.replaced;
                losses += tally.losses;
            }
            Err(violation) => {
                panic!("{violation}\nTo see it: cargo run -p drover-sim -- --shape strangers --seed {seed}")
            }
        }
    }
    let seen = format!("{hands} migrations, {made} domains, {replaced} snapshots, {losses} losses");
    assert!(hands > 100 && made > 60 && replaced > 30 && losses > 50, "{seen}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        assert_eq!(run(Options::of(seed)), run(Options::of(seed)), "seed {seed}");
        let handoffs = || run(Options { shape: Shape::Handoffs, ..Options::of(seed) });
        assert_eq!(handoffs(), handoffs(), "seed {seed}, handoffs");
        let versions = || run(Options { shape: Shape::Versions, ..Options::of(seed) });
        assert_eq!(versions(), versions(), "seed {seed}, versions");
        let clones = || run(Options { shape: Shape::Clones, ..Options::of(seed) });
        assert_eq!(clones(), clones(), "seed {seed}, clones");
        let strangers = || run(Options { shape: Shape::Strangers, ..Options::of(seed) });
        assert_eq!(strangers(), strangers(), "seed {seed}, strangers");
        let watchdogs = || run(Options { shape: Shape::Watchdogs, ..Options::of(seed) });
        assert_eq!(watchdogs(), watchdogs(), "seed {seed}, watchdogs");
    }
    assert_ne!(run(Options::of(1)), run(Options::of(2)));
}

/// The simulation can fail: it finds each of these defects.
#[test]
fn planted_defects_are_found() {
    let lies = [
        Lie::UnknownIsAbsent,
        Lie::FailedIsRunning,
        Lie::EndedIsShutdown,
        Lie::UnseenShutdown,
        Lie::KeepsNothing,
        Lie::NothingOvertakes,
        Lie::RunsOnArrival,
        Lie::UnansweredIsStarted,
        Lie::BlindWrites,
        Lie::SameEpochAgain,
    ];
    for lie in lies {
        let found = (0..400).any(|seed| run(Options { lie, ..Options::of(seed) }).is_err());
        assert!(found, "{lie:?} was not found");
    }
    // Found by about one in 330 seeds.
    let unwritten = |seed| Options { lie: Lie::UnwrittenSends, ..Options::of(seed) };
    assert!((530..4530).any(|seed| run(unwritten(seed)).is_err()), "{:?} was not found", Lie::UnwrittenSends);
    // The second defect is found by about one in 300 seeds; start shortly before one that found it when this was
    // written.
    for (lie, from) in [(Lie::EndlessAddresses, 0), (Lie::UnansweredBeats, 1125), (Lie::BlindWrites, 0)] {
        let options = |seed| Options { lie, shape: Shape::Handoffs, ..Options::of(seed) };
        assert!((from..from + 4000).any(|seed| run(options(seed)).is_err()), "{lie:?} was not found");
    }
    // Guests that do not converge are many in drills only.
    let drill = |seed| Options { lie: Lie::UnseenPostCopy, shape: Shape::Drills, ..Options::of(seed) };
    assert!((0..12).any(|seed| run(drill(seed)).is_err()), "{:?} was not found", Lie::UnseenPostCopy);
    for lie in [Lie::DroppedFields, Lie::UnreadableIsFree, Lie::UsualConfig, Lie::SalvageIsAll, Lie::UnseenChildren] {
        let options = |seed| Options { lie, shape: Shape::Versions, ..Options::of(seed) };
        assert!((0..50).any(|seed| run(options(seed)).is_err()), "{lie:?} was not found");
    }
    // Found by about one in 750 seeds.
    let unsynced = |seed| Options { lie: Lie::UnsyncedReads, shape: Shape::Strangers, ..Options::of(seed) };
    assert!((50..4050).any(|seed| run(unsynced(seed)).is_err()), "{:?} was not found", Lie::UnsyncedReads);
    // The rare ones start shortly before a seed that found them when this was written. The ranges are longer than is
    // needed, for another seed finds them after each change; a search ends with the first.
    let of_fences = [
        (Lie::BlindConfirmation, 0),
        (Lie::OldProof, 0),
        (Lie::AcceptedIsOff, 100),
        (Lie::SaysOff, 0),
        (Lie::UnwrittenCuts, 0),
        (Lie::Undaunted, 180),
        (Lie::Deaf, 0),
        (Lie::BlindWrites, 0),
    ];
    for (lie, from) in of_fences {
        let options = |seed| Options { lie, shape: Shape::Fences, ..Options::of(seed) };
        assert!((from..from + 2000).any(|seed| run(options(seed)).is_err()), "{lie:?} was not found");
    }
    for lie in [Lie::PausedIsRunning, Lie::UnseenDisks, Lie::FirstEpochAgain] {
        let options = |seed| Options { lie, shape: Shape::Strangers, ..Options::of(seed) };
        assert!((0..100).any(|seed| run(options(seed)).is_err()), "{lie:?} was not found");
    }
    let of_watchdogs =
        [Lie::SlowClock, Lie::ToothlessWatchdog, Lie::ClosingStops, Lie::HastyProof, Lie::UnwrittenDisarms];
    for lie in of_watchdogs {
        let options = |seed| Options { lie, shape: Shape::Watchdogs, ..Options::of(seed) };
        assert!((0..300).any(|seed| run(options(seed)).is_err()), "{lie:?} was not found");
    }
    let clone = |seed| Options { lie: Lie::UnownedSession, shape: Shape::Clones, ..Options::of(seed) };
    assert!((0..50).any(|seed| run(clone(seed)).is_err()), "{:?} was not found", Lie::UnownedSession);
}
