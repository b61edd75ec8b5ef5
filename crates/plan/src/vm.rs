//! The next step of a VM's node for it: one pass of the VM's task.
//!
//! [`next`] takes the whole situation (the records, the domain as just observed, and the little state that is kept
//! between passes) and returns one step. Earlier events, missed or not, do not matter: the same situation always gives
//! the same step, and every step is idempotent.
//!
//! ```text
//!               the domain is ...   absent            off                         in memory
//! wanted                         ┌──────────────────┬───────────────────────────┬──────────────────────────────
//!  start        (claim free/mine)│ take claim, start│ guest powered off: → stop  │ -
//!                                │                  │ crashed, or ended by the   │
//!                                │                  │ host: again, later         │
//!    … with older data (`older`) │ → fail           │ → fail                     │ -
//!  shutdown                      │ → stop / disable │ → stop / disable           │ press button; at deadline cut
//!  restart                       │ → start          │ forget domain              │ press button; at deadline cut
//!  migrate                       │ hand over        │ forget domain              │ send it; cold: press button
//!  stop, disable, fail           │ release claim    │ forget domain              │ cut power
//!  delete                        │ delete records   │ forget domain              │ cut power
//! ```
//!
//! Five rules take precedence over the table:
//!
//! * While the domain's state is *unknown*, the only step is to look again. In particular the claim is not released.
//!   One that is imported is unknown until it has a mark, which it is given (`strays`).
//! * A domain of an earlier VM with the same UUID (`Claim::is_after`) is removed, whoever holds the claim: it is not
//!   this VM's guest, whose disks it may be using. One in memory is, only if that VM was deleted: a guest of a store
//!   that was lost is adopted or left alone (`strays`).
//! * A domain in memory is destroyed at once, whatever is wanted, if the claim was granted anew since it was started.
//!   (A claim changes only by its holder or by the fencing; a node whose claim is gone was fenced.) Two exceptions
//!   (`moving`): a guest that arrives by migration carries the next epoch; and what is left of one that has gone on by
//!   post-copy has memory that it needs. The guest of the present grant, or of a later one, is not destroyed, wherever
//!   it is (`strays`).
//! * While the claim has a `to`, its holder starts nothing and releases nothing: the guest may be at either end.
//! * A guest that came by migration is paused, and executes only under the claim.
//! * A domain whose VM is not in the store is left alone: an empty store must not destroy guests.
//!
//! While the machine goes down, somebody ends its guests (libvirt-guests by their power buttons, systemd by signals).
//! None of that is a guest's own decision, and nothing is started again: the VMs stay wanted until the machine is back.

mod attempts;
mod attempts_after_error;
mod elsewhere;
mod ended;
mod memory;
mod moving;
mod older;
mod pausing;
mod power;
mod seen;
mod situation;
mod starts;
mod strays;
mod unattended;

pub use attempts::{Acted, FAULT_AFTER, Failures, backoff};
pub use attempts_after_error::Attempts;
pub use elsewhere::Elsewhere;
pub use ended::WORD_BY_THEN;
pub use memory::{BUTTON_FORGOTTEN, CRASH_QUIET, Memory};
pub use moving::{may_be_ordered, shown};
pub use older::{Disks, noted};
pub use pausing::WAKES_BY_THEN;
pub use power::BUTTON_REPEAT;
pub use seen::Seen;
pub use situation::{Decision, HostState, LOOK_AGAIN, Situation, Step};
pub use starts::{Failed, START_LIMIT, StartFailures, is_not_lost};
pub use strays::{LOOK_ELSEWHERE, is_reported, is_stray, reported, was_in_memory};

use crate::moves::Back;
use drover_model::{Claim, NodeName, Obs, OffReason, RunState, VmRecord, VmState};
use ended::{WHO_ENDED_IT, off_reason, powered_itself_off};
use power::{cannot_hear, power_off};
use seen::in_memory;
use std::time::Duration;

/// Number of crashes in a row after which a VM is not restarted automatically.
pub const CRASH_LIMIT: u32 = 5;

/// What is said of VMs whose guests end while the machine goes down.
const GOING_DOWN: &str = "off, because the machine is going down; started again when it is back";
/// Poll interval while the machine goes down, which may be called off.
const STILL_GOING_DOWN: Duration = Duration::from_secs(10);

/// Decides the next step. See the module's documentation for the table.
pub fn next(s: &Situation<'_>) -> Decision {
    power::patiently(s, decide(s))
}

fn decide(s: &Situation<'_>) -> Decision {
    let seen = match s.domain {
        Obs::Unknown(_) if strays::is_to_be_marked(s) => {
            return Decision::to(Step::Import, "taking over the domain that is here");
        }
        Obs::Unknown(why) => {
            return Decision::wait(format!("looking at the domain: {why}"), Some(s.now.after(LOOK_AGAIN)));
        }
        Obs::Known(seen) => Some(seen),
        Obs::Absent => None,
    };
    let Some(record) = s.record else {
        return match seen {
            None => Decision::to(Step::Leave, ""),
            Some(_) => Decision::wait(
                "a domain with Drover's mark runs here that is not in the cluster; it is left alone ('drover vm define \
                --adopt' takes it over)",
                None,
            ),
        };
    };
    let Some(claim) = s.claim else {
        return Decision::wait("the VM's claim cannot be read", None);
    };
    let (vm, mine) = (&record.value, s.is_mine(&claim.value));
    let assigned = vm.node.as_ref() == Some(s.me);

    if let Some(seen) = seen
        && let Some(decision) = strays::earlier(&claim.value, seen)
    {
        return decision;
    }

    if let Some(seen) = seen
        && !mine
    {
        if claim.value.to.as_ref() == Some(s.me) && seen.mark.epoch == claim.value.sent() {
            return moving::arriving(record, seen, s.now);
        }
        if seen.sending {
            // It is about to leave: the target's write came first.
            return Decision::wait("the guest is leaving", Some(s.now.after(LOOK_AGAIN)));
        }
        if moving::is_needed(&claim.value, seen) {
            return Decision::wait(
                "part of the memory of the guest, which runs on another node, is here",
                Some(s.now.after(LOOK_AGAIN)),
            );
        }
        return strays::unclaimed(vm, &claim.value, seen);
    }
    if (assigned || vm.state.destination() == Some(s.me))
        && let Some(wait) = strays::free(s, &claim.value)
    {
        return wait;
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
        return Decision::wait(held_by(s, &claim.value, holder), None);
    }
    if let Some(to) = claim.value.to.as_ref().filter(|_| mine) {
        return moving::sent(s, &vm.state, seen, to);
    }
    // A guest that a failed migration has left paused goes on first: a mark can wait.
    let landed = seen.and_then(|seen| moving::landed(s, &claim.value, &vm.state, seen)).filter(|_| mine);
    let stray = || strays::remarked(s, &claim.value, &vm.state, seen?).filter(|_| mine);
    let gone = || strays::gone(s, vm, &claim.value, seen).filter(|_| mine);
    if let Some(decision) = landed.or_else(stray).or_else(gone) {
        return decision;
    }
    // In the last moment, when the guest is paused, there is nothing to abort.
    if seen.is_some_and(|seen| seen.sending && seen.run != RunState::Paused) {
        return Decision::to(Step::AbortMigration, "aborting a migration that Drover did not start");
    }
    match &vm.state {
        VmState::Migrate { to, kind, how } => moving::next(s, record, seen, (to, *kind, *how)),
        VmState::Start if seen.is_some_and(|seen| seen.transient) => {
            Decision::to(Step::Remark, "its definition was removed outside Drover, and is written again")
        }
        VmState::Start => wanted_running(s, vm, seen, mine, assigned),
        VmState::Shutdown { timeout_s, then } => match seen {
            Some(seen) if in_memory(seen.run) => ask_off(s, vm, seen, *timeout_s, "shutting down"),
            _ => Decision::to(Step::Complete((*then).into()), "shut down"),
        },
        VmState::Restart { timeout_s } => match seen {
            Some(seen) if in_memory(seen.run) => ask_off(s, vm, seen, *timeout_s, "restarting"),
            Some(_) => Decision::to(Step::Undefine, "restarting"),
            None => Decision::to(Step::Complete(VmState::Start), "restarting"),
        },
        VmState::Pause => pausing::pause(s, record.version, seen),
        VmState::Resume => pausing::resume(s, record.version, seen),
        VmState::Stop | VmState::Disable | VmState::Fail { .. } => match seen {
            Some(seen) if in_memory(seen.run) => Decision::to(Step::Destroy, "stopping"),
            Some(_) => Decision::to(Step::Undefine, "stopping"),
            None if mine || strays::is_taken_over(&claim.value) => Decision::to(Step::Release, ""),
            None => Decision::wait("", None),
        },
        VmState::Unreadable => Decision::wait("its record is unreadable: nothing is done with it", None),
        VmState::Delete { disks } => match seen {
            Some(seen) if in_memory(seen.run) => Decision::to(Step::Destroy, "deleting"),
            Some(_) => Decision::to(Step::Undefine, "deleting"),
            None if *disks && !s.memory.disks_removed => match &s.memory.delete_wait {
                Some((why, until)) if s.now < *until => {
                    Decision::wait(format!("its disks are not deleted yet: {why}"), Some(*until))
                }
                _ => Decision::to(Step::RemoveDisks, "deleting its disks"),
            },
            None => match &s.memory.delete_wait {
                Some((why, until)) if s.now < *until => {
                    Decision::wait(format!("its records are not deleted yet: {why}"), Some(*until))
                }
                _ => Decision::to(Step::DeleteRecords, "deleting"),
            },
        },
    }
}

/// Powers the guest off, or gives the order back if the guest cannot hear it.
fn ask_off(s: &Situation<'_>, vm: &VmRecord, seen: &Seen, timeout_s: u32, doing: &str) -> Decision {
    match cannot_hear(s, seen, &vm.name) {
        Some(why) => Decision::to(Step::Complete(VmState::Start), format!("not done: {why}")),
        None => power_off(s, seen, timeout_s, doing),
    }
}

/// What is said of a VM that another machine holds.
fn held_by(s: &Situation<'_>, claim: &Claim, holder: &NodeName) -> String {
    if holder == s.me {
        format!("another machine (id {}) holds the VM under this node's name", claim.machine)
    } else {
        format!("{holder} still holds the VM")
    }
}

/// The VM should run, and no other node has a claim on it.
fn wanted_running(s: &Situation<'_>, vm: &VmRecord, seen: Option<&Seen>, mine: bool, assigned: bool) -> Decision {
    match seen {
        Some(seen) if in_memory(seen.run) => {
            if let Some(decision) = unattended::next(s, vm, seen) {
                return decision;
            }
            // Look again only to reset the crash count in time.
            let quiet = s.memory.running.filter(|_| s.memory.crashes > 0).map(|(_, since)| since.after(CRASH_QUIET));
            return Decision::wait(pausing::note(s, vm, seen), quiet.into_iter().chain(unattended::settles(s)).min());
        }
        _ if *s.host == HostState::GoingDown => {
            return Decision::wait(GOING_DOWN, Some(s.now.after(STILL_GOING_DOWN)));
        }
        Some(seen) => match powered_itself_off(seen, s.memory, s.now) {
            Some(true) => return Decision::to(Step::Complete(VmState::Stop), "the guest powered itself off"),
            Some(false) => {}
            None => return Decision::wait(WHO_ENDED_IT, Some(s.now.after(LOOK_AGAIN))),
        },
        None => {}
    }
    if !assigned {
        // Assigned to another node now. (`mine` holds here, otherwise the VM would not concern this node.)
        return match seen {
            Some(_) => Decision::to(Step::Undefine, ""),
            None => Decision::to(Step::Release, ""),
        };
    }
    debug_assert!(mine || seen.is_none());
    if let Some(reason) = older::refused(s, vm, seen) {
        return Decision::to(Step::Complete(VmState::Fail { reason }), "not started");
    }
    if let Some(failures) = s.memory.start_failures.as_ref().filter(|failures| failures.of == vm.generation) {
        let StartFailures { tries, refusals, last, at, why, .. } = failures;
        if *last == Failed::ForGood || (*last == Failed::Refused && *refusals >= START_LIMIT) {
            return match s.back {
                Back::Unknown => Decision::wait(format!("could not be started: {why}"), Some(s.now.after(LOOK_AGAIN))),
                // Once: if it is refused there, it stays.
                Back::To(back) if !failures.sent_back => {
                    let doing = format!("could not be started here, and goes to {}: {why}", back.to);
                    Decision::to(Step::GoBack(back.clone(), why.clone()), doing)
                }
                _ => Decision::to(Step::Complete(VmState::Fail { reason: why.clone() }), "could not be started"),
            };
        }
        let until = at.after(backoff(*tries));
        if s.now < until {
            let doing = format!("could not be started ({tries}×), is tried again in a moment: {why}");
            return Decision::wait(doing, Some(until));
        }
    }
    if s.memory.crashes >= CRASH_LIMIT {
        let reason = format!("crashed {} times in a row", s.memory.crashes);
        return Decision::to(Step::Complete(VmState::Fail { reason }), "keeps crashing");
    }
    if let Some(at) = s.memory.crashed_at {
        let until = at.after(backoff(s.memory.crashes));
        if s.now < until {
            let verb = match seen.and_then(|seen| off_reason(seen, s.memory)) {
                Some(OffReason::Ended) => "was ended by the host",
                _ => "crashed",
            };
            let doing = format!("{verb} ({}×), is started again in a moment", s.memory.crashes);
            return Decision::wait(doing, Some(until));
        }
    }
    match s.host {
        HostState::NotReady(why) => Decision::wait(format!("waiting to start: {why}"), Some(s.now.after(LOOK_AGAIN))),
        HostState::GoingDown => Decision::wait(GOING_DOWN, Some(s.now.after(STILL_GOING_DOWN))),
        HostState::Ready => Decision::to(Step::Start, "starting"),
    }
}

#[cfg(test)]
mod tests;
