//! What a VM's node must do next for it: one pass of the VM's task.
//!
//! [`next`] looks at the whole situation (the records, the domain as it was just observed, and the little that must be
//! remembered between passes) and names one step. It does not matter what happened before or which event was missed:
//! the same situation always gives the same step, and doing the step again does no harm.
//!
//! ```text
//!               the domain is ...   absent            off                         in memory
//! wanted                         ┌──────────────────┬───────────────────────────┬──────────────────────────────
//!  start        (claim free/mine)│ take claim, start│ guest powered off: → stop  │ -
//!                                │                  │ crashed: again, later      │
//!  shutdown                      │ → stop / disable │ → stop / disable           │ press button; at deadline cut
//!  restart                       │ → start          │ forget domain              │ press button; at deadline cut
//!  migrate                       │ hand over        │ forget domain              │ send it; cold: press button
//!  stop, disable, fail           │ release claim    │ forget domain              │ cut power
//!  delete                        │ delete records   │ forget domain              │ cut power
//! ```
//!
//! Three rules stand above the table:
//!
//! * While the domain's state is *unknown*, nothing is done but looking again. Above all the claim is not released.
//! * A domain in memory without a claim of this node's is cut off at once, whatever is wanted. (The claim moves only by
//!   its holder's hand or by the fencer's; a node that finds its claim gone was fenced.) The one exception is a guest
//!   that comes by migration: it carries the next grant (`moving`).
//! * A domain whose VM the store does not know is left alone: an empty store must not cost anybody a guest.

mod moving;

use crate::moves::Turn;
use drover_model::{
    Claim, Epoch, How, Mono, NodeName, Obs, OffReason, RunState, Stored, Version, VmRecord, VmState, domain::Mark,
};
use std::time::Duration;

/// Crashes in a row after which a VM is not started again by itself.
pub const CRASH_LIMIT: u32 = 5;

/// A VM that has run for so long has recovered: its crashes are forgotten.
pub const CRASH_QUIET: Duration = Duration::from_secs(600);

/// The power button is pressed again after so long, for a guest that was not yet ready to hear it.
pub const BUTTON_REPEAT: Duration = Duration::from_secs(30);

/// A guest that has not powered off so long after the button was pressed, and was let run on since, did not hear it: if
/// it powers off later, it does so by its own wish.
pub const BUTTON_FORGOTTEN: Duration = Duration::from_secs(180);

/// How soon an unknown domain, or a hypervisor that cannot be used, is looked at again if no event comes before.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long to wait after the `n`th crash in a row before starting again: 1 s, 2 s, 4 s, ... at most a minute.
pub fn backoff(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        n => Duration::from_secs(1u64 << (n - 1).min(6)).min(Duration::from_secs(60)),
    }
}

/// What the hypervisor says of the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What it does.
    pub run: RunState,
    /// Why it is off, when it is.
    pub off: Option<OffReason>,
    /// Under which grant and from which definition it was started.
    pub mark: Mark,
    /// Whether it is being sent to another node.
    pub sending: bool,
}

/// What a VM's task remembers between passes. All of it may be lost in a restart of the daemon: that costs a little
/// patience or one more start, never correctness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Crashes in a row.
    pub crashes: u32,
    /// When the last one was noticed.
    pub crashed_at: Option<Mono>,
    /// The grant whose crash was counted last.
    pub counted: Option<Epoch>,
    /// The grant under which the domain was seen in memory, and since when.
    pub running: Option<(Epoch, Mono)>,
    /// Since when the guest is wanted off (shutdown or restart).
    pub off_wanted: Option<Mono>,
    /// The grant whose guest was asked to power off, and when last.
    pub pressed: Option<(Epoch, Mono)>,
    /// The hypervisor refused to start the VM as of this version of its record, and why.
    pub refused: Option<(Version, String)>,
    /// Sending the VM failed as of this version of its record, and why.
    pub move_failed: Option<(Version, String)>,
    /// The grant under which this daemon sends, or sent, the guest itself. It knows of its own call for as long as that
    /// lasts: then the guest is seen to be sent, or is unknown.
    pub sent: Option<Epoch>,
    /// Since when the guest is seen not to be sent, though it may have been.
    pub not_sending: Option<Mono>,
    /// The disks of a VM that is being deleted are gone.
    pub disks_removed: bool,
}

/// Whether this node can start guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostState {
    /// It can.
    Ready,
    /// It cannot yet, for this reason.
    NotReady(String),
}

/// Everything that one decision is made from.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// This node.
    pub me: &'a NodeName,
    /// The VM's record; `None`: there is none.
    pub record: Option<&'a Stored<VmRecord>>,
    /// Its claim; `None`: there is none, or it cannot be read.
    pub claim: Option<&'a Stored<Claim>>,
    /// The domain on this node.
    pub domain: &'a Obs<Seen>,
    /// See [`Memory`]; already updated by [`Memory::absorb`].
    pub memory: &'a Memory,
    /// Whether guests can be started here.
    pub host: &'a HostState,
    /// Whether it may go now, if it is to be moved.
    pub turn: &'a Turn,
    /// This process' clock.
    pub now: Mono,
}

/// The one thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something changes, or until the moment in [`Decision::look_again`].
    Wait,
    /// This VM does not concern this node any more; its task ends.
    Leave,
    /// Take the claim (on the record and the claim that were read), then create the domain.
    Start,
    /// Press the guest's power button.
    PressButton,
    /// Cut the domain's power.
    Destroy,
    /// Forget the definition of a domain that is off.
    Undefine,
    /// Set this state on the version of the record that was read.
    Complete(VmState),
    /// Give the claim back.
    Release,
    /// Send the guest to that node.
    Migrate(NodeName),
    /// Stop sending the guest.
    AbortMigration,
    /// The guest is here and is not being sent: say so in the claim.
    CallBack,
    /// It cannot be moved, for this reason: set the state *start*.
    GiveUpMove(String),
    /// Nothing of it is here any more: give the claim to the node that it is to go to, and assign it there.
    HandOver(NodeName),
    /// Its guest has come here: take the claim from the node that sent it, and assign it here.
    TakeOver,
    /// Delete the disks of a VM that is being deleted.
    RemoveDisks,
    /// Delete the VM's records.
    DeleteRecords,
}

/// A step, why, and when to look again without an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// For people: what is going on. Empty when there is nothing to tell.
    pub doing: String,
    /// When to ask again at the latest.
    pub look_again: Option<Mono>,
}

impl Decision {
    fn to(step: Step, doing: impl Into<String>) -> Decision {
        Decision { step, doing: doing.into(), look_again: None }
    }
    fn wait(doing: impl Into<String>, look_again: Option<Mono>) -> Decision {
        Decision { step: Step::Wait, doing: doing.into(), look_again }
    }
}

fn wants_off(state: &VmState) -> bool {
    matches!(state, VmState::Shutdown { .. } | VmState::Restart { .. } | VmState::Migrate { how: How::Cold, .. })
}

/// Whether a domain of that run state holds memory.
fn in_memory(run: RunState) -> bool {
    run != RunState::Off
}

impl Memory {
    /// To be called before the guest of that grant is sent.
    pub fn begin_sending(&mut self, epoch: Epoch) {
        (self.sent, self.not_sending) = (Some(epoch), None);
    }

    /// Takes in what was just seen, before [`next`] is asked.
    pub fn absorb(&mut self, record: Option<&VmRecord>, domain: &Obs<Seen>, now: Mono) {
        let state = record.map(|r| &r.state);
        let off_wanted = state.is_some_and(wants_off);
        if !off_wanted && self.pressed.is_some_and(|(_, at)| now.since(at) >= BUTTON_FORGOTTEN) {
            self.pressed = None;
        }
        // A cold move waits for its turn first: the guest's time begins when it is asked.
        let asked = |since| self.pressed.is_some_and(|(_, at)| at >= since);
        let waits = matches!(state, Some(VmState::Migrate { .. })) && !self.off_wanted.is_some_and(asked);
        self.off_wanted = match self.off_wanted {
            Some(since) if off_wanted && !waits => Some(since),
            _ => off_wanted.then_some(now),
        };
        if !matches!(state, Some(VmState::Start)) {
            // A command of a person's begins a new life: old crashes do not count against it.
            (self.crashes, self.crashed_at) = (0, None);
        }
        match domain {
            Obs::Known(seen) if !seen.sending => self.not_sending = self.not_sending.or(Some(now)),
            _ => self.not_sending = None,
        }
        match domain {
            Obs::Unknown(_) => {}
            Obs::Known(seen) if in_memory(seen.run) => {
                let since = match self.running {
                    Some((epoch, since)) if epoch == seen.mark.epoch => since,
                    _ => now,
                };
                self.running = Some((seen.mark.epoch, since));
                self.refused = None;
                if now.since(since) >= CRASH_QUIET {
                    (self.crashes, self.crashed_at) = (0, None);
                }
            }
            Obs::Known(seen) => {
                let was_running = self.running.is_some_and(|(epoch, _)| epoch == seen.mark.epoch);
                let crash = match seen.off {
                    Some(OffReason::Crashed | OffReason::Failed) => true,
                    // Somebody restarted the hypervisor over a dead guest: it went down while we were not told why.
                    Some(OffReason::Unknown) | None => was_running,
                    Some(OffReason::Shutdown | OffReason::Destroyed | OffReason::Migrated) => false,
                };
                if crash {
                    self.count_crash(seen.mark.epoch, state, now);
                }
                self.running = None;
            }
            Obs::Absent => {
                if let Some((epoch, _)) = self.running.take() {
                    self.count_crash(epoch, state, now);
                }
            }
        }
    }

    fn count_crash(&mut self, epoch: Epoch, state: Option<&VmState>, now: Mono) {
        if matches!(state, Some(VmState::Start)) && self.counted != Some(epoch) {
            self.counted = Some(epoch);
            self.crashes = self.crashes.saturating_add(1);
            self.crashed_at = Some(now);
        }
    }
}

/// Decides the next step. See the module's text for the table behind it.
pub fn next(s: &Situation<'_>) -> Decision {
    let seen = match s.domain {
        Obs::Unknown(why) => {
            return Decision::wait(format!("looking at the domain: {why}"), Some(s.now.after(LOOK_AGAIN)));
        }
        Obs::Known(seen) => Some(seen),
        Obs::Absent => None,
    };
    let Some(record) = s.record else {
        return match seen {
            None => Decision::to(Step::Leave, ""),
            Some(_) => {
                Decision::wait("a domain of ours runs here that the cluster does not know; it is left alone", None)
            }
        };
    };
    let Some(claim) = s.claim else {
        return Decision::wait("the VM's claim cannot be read", None);
    };
    let (vm, mine) = (&record.value, claim.value.is_held_by(s.me));
    let assigned = vm.node.as_ref() == Some(s.me);

    if let Some(seen) = seen
        && !mine
    {
        if claim.value.to.as_ref() == Some(s.me) && seen.mark.epoch == claim.value.epoch.next() {
            return moving::arriving(record, seen);
        }
        if seen.sending {
            // It is just leaving: its target was quicker to say so.
            return Decision::wait("the guest is leaving", Some(s.now.after(LOOK_AGAIN)));
        }
        let step = if in_memory(seen.run) { Step::Destroy } else { Step::Undefine };
        return Decision::to(step, "this node has no claim on the VM: its domain is removed");
    }
    if let VmState::Migrate { to, .. } = &vm.state
        && claim.value.node.is_none()
    {
        return moving::unheld(s, assigned, to);
    }
    if !mine && !assigned {
        return Decision::to(Step::Leave, "");
    }
    if !mine && let Some(holder) = &claim.value.node {
        return Decision::wait(format!("{holder} still holds the VM"), None);
    }
    if let Some(to) = claim.value.to.as_ref().filter(|_| mine) {
        return moving::sent(s, &vm.state, seen, to);
    }
    if seen.is_some_and(|seen| seen.sending) {
        return Decision::to(Step::AbortMigration, "somebody else is sending the guest away");
    }
    match &vm.state {
        VmState::Migrate { to, kind, how } => moving::next(s, record, seen, (to, *kind, *how)),
        VmState::Start => wanted_running(s, record.version, seen, mine, assigned),
        VmState::Shutdown { timeout_s, then } => match seen {
            Some(seen) if in_memory(seen.run) => power_off(s, seen, *timeout_s, "shutting down"),
            _ => Decision::to(Step::Complete((*then).into()), "shut down"),
        },
        VmState::Restart { timeout_s } => match seen {
            Some(seen) if in_memory(seen.run) => power_off(s, seen, *timeout_s, "restarting"),
            Some(_) => Decision::to(Step::Undefine, "restarting"),
            None => Decision::to(Step::Complete(VmState::Start), "restarting"),
        },
        VmState::Stop | VmState::Disable | VmState::Fail { .. } => match seen {
            Some(seen) if in_memory(seen.run) => Decision::to(Step::Destroy, "stopping"),
            Some(_) => Decision::to(Step::Undefine, "stopping"),
            None if mine => Decision::to(Step::Release, ""),
            None => Decision::wait("", None),
        },
        VmState::Unreadable => Decision::wait("its record is unreadable: nothing is done with it", None),
        VmState::Delete { disks } => match seen {
            Some(seen) if in_memory(seen.run) => Decision::to(Step::Destroy, "deleting"),
            Some(_) => Decision::to(Step::Undefine, "deleting"),
            None if *disks && !s.memory.disks_removed => Decision::to(Step::RemoveDisks, "deleting its disks"),
            None => Decision::to(Step::DeleteRecords, "deleting"),
        },
    }
}

/// The VM is to run, and nobody else has a claim on it.
fn wanted_running(s: &Situation<'_>, version: Version, seen: Option<&Seen>, mine: bool, assigned: bool) -> Decision {
    match seen {
        Some(seen) if in_memory(seen.run) => {
            let doing = match seen.run {
                RunState::Paused => "paused by the hypervisor or by somebody on the node",
                _ => "",
            };
            // Only to forget old crashes in time.
            let quiet = s.memory.running.filter(|_| s.memory.crashes > 0).map(|(_, since)| since.after(CRASH_QUIET));
            return Decision::wait(doing, quiet);
        }
        // Our own press of the button, which a later command took back, is no wish of the guest's.
        Some(seen)
            if seen.off == Some(OffReason::Shutdown)
                && s.memory.pressed.is_none_or(|(epoch, _)| epoch != seen.mark.epoch) =>
        {
            return Decision::to(Step::Complete(VmState::Stop), "the guest powered itself off");
        }
        _ => {}
    }
    if !assigned {
        // Somewhere else now. (`mine` holds here, or this VM would not be ours to look at.)
        return match seen {
            Some(_) => Decision::to(Step::Undefine, ""),
            None => Decision::to(Step::Release, ""),
        };
    }
    debug_assert!(mine || seen.is_none());
    if let Some((at, why)) = &s.memory.refused
        && *at == version
    {
        return Decision::to(Step::Complete(VmState::Fail { reason: why.clone() }), "could not be started");
    }
    if s.memory.crashes >= CRASH_LIMIT {
        let reason = format!("crashed {} times in a row", s.memory.crashes);
        return Decision::to(Step::Complete(VmState::Fail { reason }), "keeps crashing");
    }
    if let Some(at) = s.memory.crashed_at {
        let until = at.after(backoff(s.memory.crashes));
        if s.now < until {
            return Decision::wait(
                format!("crashed ({}×), is started again in a moment", s.memory.crashes),
                Some(until),
            );
        }
    }
    match s.host {
        HostState::NotReady(why) => Decision::wait(format!("waiting to start: {why}"), Some(s.now.after(LOOK_AGAIN))),
        HostState::Ready => Decision::to(Step::Start, "starting"),
    }
}

/// The guest is to power off: ask it, ask it again, and cut its power at the deadline.
fn power_off(s: &Situation<'_>, seen: &Seen, timeout_s: u32, doing: &str) -> Decision {
    let since = s.memory.off_wanted.unwrap_or(s.now);
    let deadline = since.after(Duration::from_secs(timeout_s.into()));
    if s.now >= deadline {
        return Decision::to(
            Step::Destroy,
            format!("{doing}: the guest did not power off in {timeout_s} s, its power is cut"),
        );
    }
    let pressed = s.memory.pressed.filter(|(epoch, at)| *epoch == seen.mark.epoch && *at >= since);
    match pressed.map(|(_, at)| at.after(BUTTON_REPEAT)) {
        Some(again) if s.now < again => {
            Decision::wait(format!("{doing}: waiting for the guest, at most {timeout_s} s"), Some(again.min(deadline)))
        }
        _ => Decision::to(Step::PressButton, format!("{doing}: asking the guest to power off")),
    }
}

#[cfg(test)]
mod tests;
