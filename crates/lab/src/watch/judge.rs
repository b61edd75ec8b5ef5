//! What a [`super::Watch`] makes of its samples. No I/O, so that each rule has its test.
//!
//! A QEMU process *executes* a guest if its vCPU threads have used [`EXECUTED`] of CPU time. An incoming migration that
//! waits, and a guest that is paused, use none. Of the processes of one guest, the one that has begun to execute last
//! is its *executor*. Rules:
//!
//! | rule | broken if |
//! |---|---|
//! | runs once | a process executes after another one has become the executor |
//! | goes on | nothing has executed for [`STILL_MAX`], and neither the guest nor its node is spared |
//! | is not restarted | the new executor is not an incoming migration, and the old one's node is not spared |
//! | one holder | an address is on two nodes for longer than [`SHARED_MAX`] |
//!
//! A handover between two samples is none: what the old one used until the sample that shows the new one at work counts
//! for nothing. Execution of both at the same time is seen as soon as both have used that much, whoever began.

use crate::process::Process;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

/// CPU time by which a guest's execution is recognised: the kernel counts in hundredths of a second, user and system
/// time apart, so two of them may be an error. An idle guest uses that in about a second.
pub(crate) const EXECUTED: Duration = Duration::from_millis(30);
/// How long a guest may not execute: it is idle, and the machine may be busy.
pub(crate) const STILL_MAX: Duration = Duration::from_secs(20);
/// How long a handoff may leave a floating address on two nodes: no longer than a lease of the primary.
pub(crate) const SHARED_MAX: Duration = Duration::from_secs(4);

/// A QEMU process of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The guest's UUID.
    pub(crate) guest: String,
    pub(crate) node: String,
    pub(crate) process: Process,
    /// It was started for an incoming migration.
    pub(crate) incoming: bool,
    /// CPU time of its vCPU threads.
    pub(crate) cpu: Duration,
}

/// All that was seen at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Since the beginning.
    pub(crate) at: Duration,
    pub(crate) seen: Vec<Seen>,
    /// The nodes that have each floating address.
    pub(crate) holders: BTreeMap<IpAddr, Vec<String>>,
}

/// A process of a guest over time.
#[derive(Debug)]
struct Run {
    seen: Seen,
    /// CPU time from which its execution counts.
    from: Duration,
    /// When it was last seen to have executed.
    executed: Option<Duration>,
    /// It was replaced by another executor.
    replaced: bool,
}

/// What is known of a guest.
#[derive(Debug, Default)]
struct Track {
    runs: Vec<Run>,
    /// Process and node.
    executor: Option<(Process, String)>,
    /// When it last executed, or began to be watched.
    executed: Duration,
    /// It was on a node that is spared.
    spared: bool,
    /// It was said already that it is still.
    still: bool,
}

/// The verdicts so far.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// By UUID.
    guests: BTreeMap<String, Track>,
    names: BTreeMap<String, String>,
    spared_nodes: BTreeSet<String>,
    spared_guests: BTreeSet<String>,
    now: Duration,
    /// Since when an address is on several nodes, and whether that was said already.
    shared: BTreeMap<IpAddr, (Duration, bool)>,
    /// The longest time that an address was on several nodes.
    pub(crate) longest_shared: Duration,
    /// Addresses that no node has, or several, at the last sample.
    pub(crate) not_on_one_node: Vec<IpAddr>,
    pub(crate) violations: Vec<String>,
}

impl Judge {
    /// For guests by UUID, with their names.
    pub(crate) fn new(names: BTreeMap<String, String>) -> Judge {
        let guests = names.keys().map(|uuid| (uuid.clone(), Track::default())).collect();
        Judge { guests, names, ..Judge::default() }
    }

    /// From now on, guests that are or come on these nodes may stop and be restarted, and these guests (names) may
    /// stand still for longer. Replaces what was said before; with nothing to spare, all are watched anew.
    pub(crate) fn spare(&mut self, nodes: BTreeSet<String>, guests: BTreeSet<String>) {
        let anew = nodes.is_empty() && guests.is_empty();
        for track in self.guests.values_mut() {
            let on = |node: &String| nodes.contains(node);
            track.spared = track.executor.as_ref().is_some_and(|(_, node)| on(node))
                || track.runs.iter().any(|run| on(&run.seen.node));
            if anew {
                (track.executed, track.still) = (self.now, false);
            }
        }
        (self.spared_nodes, self.spared_guests) = (nodes, guests);
    }

    /// The nodes on which processes of a guest (UUID) have executed since a time.
    pub(crate) fn executed_on(&self, uuid: &str, since: Duration) -> Vec<String> {
        let runs = self.guests.get(uuid).map_or(&[][..], |track| &track.runs);
        runs.iter().filter(|run| run.executed >= Some(since)).map(|run| run.seen.node.clone()).collect()
    }

    /// The time of the last sample.
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Judges a sample.
    pub(crate) fn see(&mut self, sample: Sample) {
        self.now = sample.at;
        let mut found = Vec::new();
        for (uuid, track) in &mut self.guests {
            let name = self.names.get(uuid).unwrap_or(uuid);
            let seen = sample.seen.iter().filter(|seen| seen.guest == *uuid);
            track.see(sample.at, seen.cloned().collect(), &self.spared_nodes, name, &mut found);
            let spared = track.spared || self.spared_guests.contains(name);
            if track.executor.is_some() && !spared && !track.still && sample.at > track.executed + STILL_MAX {
                track.still = true;
                let on = track.executor.as_ref().map_or("", |(_, node)| node);
                found.push(format!("{name} has not executed for {} s; it was on {on}", STILL_MAX.as_secs()));
            }
        }
        let elsewhere = sample.holders.iter().filter(|(_, nodes)| nodes.len() != 1);
        self.not_on_one_node = elsewhere.map(|(address, _)| *address).collect();
        for (address, nodes) in &sample.holders {
            if nodes.len() < 2 {
                self.shared.remove(address);
                continue;
            }
            let (since, said) = self.shared.entry(*address).or_insert((sample.at, false));
            let lasts = sample.at.saturating_sub(*since);
            self.longest_shared = self.longest_shared.max(lasts);
            if lasts > SHARED_MAX && !*said {
                *said = true;
                found.push(format!("{address} is on {} for {:.1} s", nodes.join(" and "), lasts.as_secs_f32()));
            }
        }
        self.violations.extend(found);
    }
}

impl Track {
    fn see(&mut self, at: Duration, seen: Vec<Seen>, spared: &BTreeSet<String>, name: &str, found: &mut Vec<String>) {
        self.runs.retain(|run| seen.iter().any(|seen| seen.process == run.seen.process));
        let mut newer = Vec::new();
        for seen in seen {
            // It may be lost there at any moment of its way.
            self.spared |= seen.incoming && spared.contains(&seen.node);
            let known = self.runs.iter_mut().find(|run| run.seen.process == seen.process);
            if let Some(run) = known {
                run.seen = seen;
            } else {
                // What an incoming one uses to set itself up is not the guest's; what another one uses is.
                let from = if seen.incoming { seen.cpu } else { Duration::ZERO };
                self.runs.push(Run { seen, from, executed: None, replaced: false });
            }
        }
        for run in &mut self.runs {
            if run.seen.cpu < run.from + EXECUTED {
                continue;
            }
            let new = run.executed.is_none();
            (run.from, run.executed) = (run.seen.cpu, Some(at));
            if run.replaced {
                let by = self.executor.as_ref().map_or("another", |(_, node)| node);
                found.push(format!(
                    "{name} runs twice: process {} on {} executes after one on {by} has begun",
                    run.seen.process.pid(),
                    run.seen.node
                ));
                // Once for each such process: from now on it is one of several.
                run.from = Duration::MAX - EXECUTED;
                continue;
            }
            self.executed = at;
            self.still = false;
            if new {
                newer.push(run.seen.clone());
            }
        }
        for new in newer {
            if let Some((old, node)) = self.executor.take().filter(|(old, _)| *old != new.process) {
                if !new.incoming && !self.spared {
                    found.push(format!("{name} was started anew on {}; it was on {node}", new.node));
                }
                for run in self.runs.iter_mut().filter(|run| run.seen.process == old) {
                    (run.replaced, run.from) = (true, run.seen.cpu);
                }
            }
            self.spared |= spared.contains(&new.node);
            self.executor = Some((new.process, new.node));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(node: &str, pid: i32, incoming: bool, ms: u64) -> Seen {
        let process = Process::sample(pid);
        Seen { guest: "u".to_owned(), node: node.to_owned(), process, incoming, cpu: Duration::from_millis(ms) }
    }

    /// Judges one sample a second.
    fn judged(samples: &[&[Seen]]) -> Judge {
        let mut judge = Judge::new([("u".to_owned(), "web".to_owned())].into());
        see(&mut judge, samples);
        judge
    }

    fn see(judge: &mut Judge, samples: &[&[Seen]]) {
        for sample in samples {
            let at = judge.now() + Duration::from_secs(1);
            judge.see(Sample { at, seen: sample.to_vec(), ..Sample::default() });
        }
    }

    fn violations(samples: &[&[Seen]]) -> Vec<String> {
        judged(samples).violations
    }

    #[test]
    fn a_guest_that_is_handed_over_runs_once() {
        let source = |ms| seen("a", 1, false, ms);
        let target = |ms| seen("b", 2, true, ms);
        let handed: &[&[Seen]] = &[
            &[source(100)],
            // The target waits, and has used something to set itself up.
            &[source(150), target(25)],
            &[source(200), target(25)],
            // Both have used something since: the handover was in between.
            &[source(260), target(70)],
            // What the kernel counts late.
            &[source(270), target(150)],
            &[target(250)],
        ];
        assert_eq!(violations(handed), [""; 0]);
        // A migration that is called off.
        let called_off: &[&[Seen]] = &[&[source(100)], &[source(150), target(25)], &[source(200)], &[source(300)]];
        assert_eq!(violations(called_off), [""; 0]);
    }

    #[test]
    fn a_guest_that_runs_twice_is_seen_once() {
        let (one, other) = (|ms| seen("a", 1, false, ms), |ms, incoming| seen("b", 2, incoming, ms));
        for incoming in [true, false] {
            let twice: &[&[Seen]] = &[
                &[one(100)],
                &[one(200), other(0, incoming)],
                &[one(300), other(90, incoming)],
                &[one(400), other(190, incoming)],
                &[one(500), other(290, incoming)],
            ];
            let found = violations(twice);
            assert!(found.iter().filter(|found| found.contains("runs twice")).count() == 1, "{found:?}");
        }
    }

    #[test]
    fn a_guest_that_goes_on_after_its_successor_has_ended_runs_twice() {
        let old = |ms| seen("a", 1, false, ms);
        let found = violations(&[
            &[old(100)],
            &[old(200), seen("b", 2, true, 0)],
            &[old(200), seen("b", 2, true, 90)],
            &[old(200)],
            &[old(240)],
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_guest_that_is_restarted_or_still_is_seen_unless_its_node_is_spared() {
        let restarted: &[&[Seen]] = &[&[seen("a", 1, false, 100)], &[], &[seen("b", 2, false, 100)]];
        assert_eq!(violations(restarted), ["web was started anew on b; it was on a"]);
        let still: &[&[Seen]] = &[&[seen("a", 1, false, 100)]];
        let spare = |judge: &mut Judge, node: &str| judge.spare([node.to_owned()].into(), BTreeSet::new());
        for (node, count) in [("a", 0), ("b", 1)] {
            let mut judge = judged(still);
            spare(&mut judge, node);
            see(&mut judge, &restarted[1..]);
            assert_eq!(judge.violations.len(), count, "{node}");
            let mut judge = judged(still);
            spare(&mut judge, node);
            see(&mut judge, &vec![&[seen("a", 1, false, 110)][..]; 60]);
            assert_eq!(judge.violations.len(), count, "{node}");
        }
        let mut judge = judged(still);
        judge.spare(BTreeSet::new(), ["web".to_owned()].into());
        see(&mut judge, &vec![&[][..]; 60]);
        assert_eq!(judge.violations, [""; 0]);
        judge.spare(BTreeSet::new(), BTreeSet::new());
        see(&mut judge, &vec![&[][..]; 60]);
        assert_eq!(judge.violations.len(), 1);
    }

    #[test]
    fn an_address_may_be_on_two_nodes_for_a_moment_only() {
        let address: IpAddr = [10, 0, 0, 200].into();
        let mut judge = judged(&[]);
        for (count, at) in [(2, 1), (2, 4), (1, 6), (2, 7), (2, 11)] {
            let nodes = ["a", "b"][..count].iter().map(|&name| name.to_owned()).collect();
            judge.see(Sample { at: Duration::from_secs(at), holders: [(address, nodes)].into(), ..Sample::default() });
        }
        assert_eq!((judge.violations.len(), judge.longest_shared), (0, Duration::from_secs(4)));
        for at in [12, 13] {
            let nodes = vec!["a".to_owned(), "b".to_owned()];
            judge.see(Sample { at: Duration::from_secs(at), holders: [(address, nodes)].into(), ..Sample::default() });
        }
        assert_eq!(judge.violations, ["10.0.0.200 is on a and b for 5.0 s"]);
    }
}
