//! Whether what a node's BMC says, and what its machine does on the network, proves that the machine is off; and when
//! its power may be cut for that.
//!
//! | the BMC says | the machine | |
//! |---|---|---|
//! | off | does not answer | it is off: proof |
//! | off | answers | no proof: the BMC is that of another machine |
//! | off | it is not known whether it answers | no proof: it could be that of another machine |
//! | on | answers | no proof, and its power stays: only its daemon is down, and its guests may run |
//! | on | it is not known whether it answers | no proof, and its power stays |
//! | on | does not answer | its power is cut; then the BMC is asked again, until it says off |
//! | nothing that can be used | | no proof; a BMC that lost its power with its machine proves nothing |
//!
//! * Only a state that was *read* is proof. That an order was accepted, or had been carried out already, is none.
//! * "Off" proves that every boot until then has ended: also the one that the fence names, whoever ended it.
//! * What was found is used for the boot that it was found about, by who found it, and only while it is new.

use drover_model::{Mono, NodeName, PowerState};
use std::{collections::BTreeMap, fmt, time::Duration};

/// The first pause after an attempt without proof; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pause after an attempt without proof while the node has a session.
const AHEAD_AGAIN: Duration = Duration::from_secs(30);
/// What was found before is looked up again before anything is done.
const FRESH: Duration = Duration::from_secs(5);

/// This long after the fence was written that announces it, an order to cut the power has been carried out, or never
/// will be: it is sent within 5 s (`SEND_WITHIN` in `agent::fence::proof`), the slowest way to give it takes 30 s
/// (`drivers::power::COMMAND_TIMEOUT`), and 10 s are left for the BMC.
pub const ORDER_IN_FORCE: Duration = Duration::from_secs(45);

/// What a BMC said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The power as it read it. The text names the BMC.
    Power(String, PowerState),
    /// It could not be asked, or its answer cannot be used. The sentence says why, without a full stop.
    None(String),
}

/// Whether a machine answers on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It does: its address, and how.
    Answers(String, String),
    /// It does not, at this address.
    Silent(String),
    /// It is not known: why.
    Unknown(String),
}

/// What an attempt to find proof ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the BMC said last.
    pub reading: Reading,
    /// Whether the machine answered then.
    pub presence: Presence,
    /// What became of an order to cut the power, if one was given: why it failed.
    pub order: Option<Result<(), String>>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reading {
            Reading::Power(bmc, state) => write!(f, "{bmc} reads {state}")?,
            Reading::None(why) => f.write_str(why)?,
        }
        match &self.presence {
            Presence::Answers(at, how) => write!(f, "; its machine answers at {at} ({how})")?,
            Presence::Silent(at) => write!(f, "; its machine does not answer at {at}")?,
            Presence::Unknown(why) => write!(f, "; it is not known whether its machine answers: {why}")?,
        }
        match &self.order {
            None => Ok(()),
            Some(Ok(())) => f.write_str("; it was ordered to cut the power"),
            Some(Err(why)) => write!(f, "; the order to cut the power failed: {why}"),
        }
    }
}

/// The attempts of this node to prove that one boot of a node's machine has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// The boot.
    pub boot: String,
    /// When the last attempt ended, and with what; `None` while one is under way.
    pub last: Option<(Mono, Found)>,
    /// How many found no proof.
    pub failed: u32,
}

impl Attempts {
    /// With the end of an attempt.
    #[must_use]
    pub fn ended(self, now: Mono, found: Found) -> Attempts {
        let failed = self.failed.saturating_add(u32::from(judge(&found) == Verdict::None));
        Attempts { last: Some((now, found)), failed, ..self }
    }

    /// Whether an attempt found no proof a short while ago.
    pub(super) fn had_no_proof(&self, now: Mono) -> bool {
        self.last.as_ref().is_some_and(|(at, found)| judge(found) != Verdict::Off && now.since(*at) < AHEAD_AGAIN)
    }

    /// Whether the last attempt ended before then, without proof: what it found may have changed with that.
    pub(super) fn had_failed_before(&self, then: Mono) -> bool {
        self.last.as_ref().is_some_and(|(at, found)| *at < then && judge(found) == Verdict::None)
    }
}

/// The attempts, by node.
pub type Tries = BTreeMap<NodeName, Attempts>;

/// What follows from what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The machine is off.
    Off,
    /// Its power is to be cut.
    Cut,
    /// There is no proof.
    None,
}

pub(super) fn judge(found: &Found) -> Verdict {
    match (&found.reading, &found.presence) {
        (Reading::Power(_, PowerState::Off), Presence::Silent(_)) => Verdict::Off,
        // Once for each attempt: the next one looks again before it cuts again.
        (Reading::Power(_, PowerState::On), Presence::Silent(_)) if found.order.is_none() => Verdict::Cut,
        _ => Verdict::None,
    }
}

/// What to do for the proof about a silent node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// To begin an attempt.
    Ask,
    /// To wait for the attempt that is under way.
    Await,
    /// It is proved, by this.
    Proved(String),
    /// To cut the power.
    Cut,
    /// There is no proof, for these reasons; when to try again.
    Unproved(Vec<String>, Mono),
}

/// Decides about the node `name`, whose last boot is `boot`. `ordered`: its power was ordered to be cut before.
pub(super) fn next(name: &NodeName, boot: &str, attempts: Option<&Attempts>, ordered: bool, now: Mono) -> Next {
    let Some(attempts) = attempts.filter(|attempts| attempts.boot == boot) else { return Next::Ask };
    let Some((at, found)) = &attempts.last else { return Next::Await };
    let fresh = now.since(*at) < FRESH;
    match judge(found) {
        Verdict::Off if fresh => Next::Proved(proof(found, ordered)),
        Verdict::Cut if fresh => Next::Cut,
        Verdict::Off | Verdict::Cut => Next::Ask,
        Verdict::None => {
            let doublings = attempts.failed.saturating_sub(1).min(8);
            let again = at.after(PAUSE.saturating_mul(1 << doublings).min(PAUSE_MAX));
            if now >= again { Next::Ask } else { Next::Unproved(problems(name, found), again) }
        }
    }
}

/// The proof, for users.
fn proof(found: &Found, ordered: bool) -> String {
    let bmc = match &found.reading {
        Reading::Power(bmc, _) => bmc,
        Reading::None(why) => why,
    };
    let after = if ordered || found.order.is_some() { ", after it was ordered to cut the power" } else { "" };
    format!("{bmc} reads off{after}")
}

/// Why there is no proof, for users: what was tried, what it said, and what to do.
fn problems(name: &NodeName, found: &Found) -> Vec<String> {
    let Found { reading, presence, order } = found;
    let mut problems = Vec::new();
    match (reading, presence) {
        (Reading::Power(bmc, PowerState::Off), Presence::Answers(at, how)) => problems.push(format!(
            "{bmc} reads off, but the machine of {name} answers at {at} ({how}), so that BMC controls another machine: \
            correct [fence] in the configuration of {name}"
        )),
        (Reading::Power(bmc, PowerState::On), _) if order.is_some() => problems.push(match order {
            Some(Err(why)) => format!("{bmc} was ordered to cut the power and did not, and reads on: {why}"),
            _ => format!("{bmc} accepted the order to cut the power, and still reads on"),
        }),
        (Reading::Power(bmc, state), Presence::Answers(..)) => {
            problems.push(format!("{bmc} reads {state}, and the power is not cut while the machine answers"));
        }
        (Reading::Power(bmc, PowerState::Off), Presence::Unknown(_)) => problems.push(format!(
            "{bmc} reads off, which is no proof while the machine could answer: the BMC may be that of another machine"
        )),
        (Reading::Power(bmc, state), Presence::Unknown(_)) => problems.push(format!(
            "{bmc} reads {state}, and the power is not cut while it is not known whether the machine answers"
        )),
        (Reading::Power(bmc, state), Presence::Silent(_)) => problems.push(format!("{bmc} reads {state}")),
        (Reading::None(why), _) => problems.push(why.clone()),
    }
    match presence {
        Presence::Answers(at, how) => problems.push(format!(
            "its machine answers at {at} ({how}), so it runs, and only its daemon is down or has lost the store: look \
            at droverd there"
        )),
        Presence::Unknown(why) => problems.push(format!("it is not known whether its machine answers: {why}")),
        Presence::Silent(_) => {}
    }
    problems
}

#[cfg(test)]
mod tests;
