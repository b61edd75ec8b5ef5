//! What a scenario expects: conditions on what is to be seen, and when they are to hold.

use super::{
    language::{Read, Scenario, time},
    scene::Scene,
};
use drover_model::{FencePhase, NodeName, NodeState};
use std::{collections::BTreeSet, time::Duration};

/// When a condition is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Once at least, between these times.
    Within(Duration, Duration),
    /// At every moment between these times; `None`: until the end.
    Throughout(Duration, Option<Duration>),
    /// At no moment.
    Never,
    /// At the end.
    Finally,
}

/// A condition, and when it is to hold.
#[derive(Debug)]
pub(super) struct Expectation {
    pub(super) line: usize,
    text: String,
    when: When,
    subjects: Vec<String>,
    what: What,
    /// Whether it is known already that it holds.
    met: bool,
}

/// What is said of a node, a VM or a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// The VM runs on one of these; none given: on any.
    Runs(BTreeSet<NodeName>),
    RunsNowhere,
    /// What is wanted of the VM, in a word.
    InState(String),
    Gone,
    Node(State),
    Raised,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    On,
    Off,
    Alive,
    Dead,
    Suspected,
    Unproved,
    Fenced,
    WasFenced,
    WasCut,
    Primary,
    Takes(NodeState),
}

const NODES: &str = "NODE is on|off|alive|dead|suspected|unproved|fenced|primary|ready|flush|flushed|unflush, \
                     NODE was fenced, NODE was cut by its bmc";
const VMS: &str = "VM runs [on NODE [or NODE]], VM runs nowhere, VM is in state STATE, VM is gone";
const WHEN: &str = "within TIME:, from TIME:, until TIME:, from TIME until TIME:, always:, never:, finally:, \
                    violation:";

/// Reads `within 15s: web runs on hv1 or hv2`. `after`: the time of the command before.
pub(super) fn read(scenario: &Scenario, line: usize, after: Duration, rest: &str) -> Read<Expectation> {
    let wrong = || format!("{rest:?} does not say when; accepted are {WHEN} and what is expected");
    let (when, condition) = rest.split_once(':').ok_or_else(wrong)?;
    let when = match when.split_whitespace().collect::<Vec<_>>()[..] {
        ["within", span] => When::Within(after, after + time(span)?),
        ["from", at] => When::Throughout(time(at)?, None),
        ["from", from, "until", until] => When::Throughout(time(from)?, Some(time(until)?)),
        ["until", at] => When::Throughout(Duration::ZERO, Some(time(at)?)),
        ["always"] => When::Throughout(Duration::ZERO, None),
        ["never"] => When::Never,
        ["finally"] => When::Finally,
        _ => return Err(wrong()),
    };
    let words: Vec<&str> = condition.split_whitespace().collect();
    let verb = words.iter().position(|word| ["run", "runs", "is", "are", "was", "were"].contains(word));
    let unknown =
        || format!("{:?} cannot be expected; accepted are {NODES}, {VMS}, fault ID is raised", condition.trim());
    let (subjects, said) = words.split_at(verb.filter(|at| *at > 0).ok_or_else(unknown)?);
    let (subjects, what) = match subjects {
        ["fault", id] if said == ["is", "raised"] => (vec![(*id).to_owned()], What::Raised),
        subjects => {
            let what = what(scenario, said)?.ok_or_else(unknown)?;
            for subject in subjects {
                match what {
                    What::Node(_) => scenario.node(subject).map(|_| ())?,
                    _ => scenario.vm(subject).map(|_| ())?,
                }
            }
            (subjects.iter().map(|subject| (*subject).to_owned()).collect(), what)
        }
    };
    Ok(Expectation { line, text: rest.to_owned(), when, subjects, what, met: false })
}

fn what(scenario: &Scenario, said: &[&str]) -> Read<Option<What>> {
    let node = |state| Ok(Some(What::Node(state)));
    match said {
        ["run" | "runs"] => Ok(Some(What::Runs(BTreeSet::new()))),
        ["run" | "runs", "nowhere"] => Ok(Some(What::RunsNowhere)),
        ["run" | "runs", "on", nodes @ ..] => {
            let nodes = nodes.iter().filter(|word| **word != "or").map(|node| scenario.node(node));
            Ok(Some(What::Runs(nodes.collect::<Read<_>>()?)))
        }
        ["is" | "are", "in", "state", state] => Ok(Some(What::InState((*state).to_owned()))),
        ["is" | "are", "gone"] => Ok(Some(What::Gone)),
        ["is" | "are", "on"] => node(State::On),
        ["is" | "are", "off"] => node(State::Off),
        ["is" | "are", "alive"] => node(State::Alive),
        ["is" | "are", "dead"] => node(State::Dead),
        ["is" | "are", "suspected"] => node(State::Suspected),
        ["is" | "are", "unproved"] => node(State::Unproved),
        ["is" | "are", "fenced"] => node(State::Fenced),
        ["was" | "were", "fenced"] => node(State::WasFenced),
        ["was" | "were", "cut", "by", "its" | "their", "bmc" | "bmcs"] => node(State::WasCut),
        ["is", "primary"] => node(State::Primary),
        ["is" | "are", state] => Ok(state.parse().ok().map(|state| What::Node(State::Takes(state)))),
        _ => Ok(None),
    }
}

impl What {
    fn holds(&self, subject: &str, scene: &Scene) -> bool {
        let vm = scene.vms.get(subject);
        match self {
            What::Raised => scene.faults.contains_key(subject),
            What::Runs(on) => {
                vm.is_some_and(|vm| !vm.on.is_empty() && (on.is_empty() || vm.on.iter().all(|node| on.contains(node))))
            }
            What::RunsNowhere => vm.is_none_or(|vm| vm.on.is_empty()),
            What::InState(state) => vm.is_some_and(|vm| vm.state.as_ref() == Some(state)),
            What::Gone => vm.is_none_or(|vm| vm.state.is_none()),
            What::Node(state) => scene.nodes.get(subject).is_some_and(|node| {
                let phase = node.fence.as_ref().map(|fence| fence.phase);
                match state {
                    State::On => node.on,
                    State::Off => !node.on,
                    State::Alive => node.alive,
                    State::Dead => !node.alive,
                    State::Suspected => {
                        matches!(phase, Some(FencePhase::Suspect | FencePhase::Proving | FencePhase::Unproved))
                    }
                    State::Unproved => phase == Some(FencePhase::Unproved),
                    State::Fenced => phase.is_some_and(FencePhase::is_proved),
                    State::WasFenced => node.was_fenced,
                    State::WasCut => node.was_cut,
                    State::Primary => scene.primary.as_ref().is_some_and(|primary| primary.as_str() == subject),
                    State::Takes(state) => node.state == Some(*state),
                }
            }),
        }
    }
}

impl Expectation {
    /// The last moment at which it looks, if it names one.
    pub(super) fn last(&self) -> Option<Duration> {
        match self.when {
            When::Within(_, until) | When::Throughout(_, Some(until)) => Some(until),
            When::Throughout(from, None) => Some(from),
            When::Never | When::Finally => None,
        }
    }

    /// Looks whether it holds. Returns what is wrong, once: whoever has been told does not ask again.
    pub(super) fn check(&mut self, at: Duration, ends: bool, scene: &Scene) -> Option<String> {
        if self.met {
            return None;
        }
        let all = self.subjects.iter().all(|subject| self.what.holds(subject, scene));
        let any = self.subjects.iter().any(|subject| self.what.holds(subject, scene));
        let wrong = match self.when {
            When::Within(from, until) => {
                self.met = all && at >= from && at <= until;
                !self.met && at >= until
            }
            When::Throughout(from, until) => !all && at >= from && until.is_none_or(|until| at <= until),
            When::Never => any,
            When::Finally => ends && !all,
        };
        wrong.then(|| {
            self.met = true;
            let seconds = at.as_secs_f64();
            format!("line {}: after {seconds:.1} s this does not hold: expect {}", self.line, self.text)
        })
    }
}
