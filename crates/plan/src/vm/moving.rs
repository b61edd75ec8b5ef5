//! The steps of a VM that is to go to another node: at the node that sends it, and at the one that it comes to.
//!
//! ```text
//!  sender (has the claim, epoch e)                           target
//!    claim: to = target
//!    sends the guest, which carries the mark e+1   ──►         paused: wait
//!    the guest is gone from here: hand over        ──┐      ┌─ executes under e+1: take over
//!    the guest is here, not sent: claim: to = none   ▼      ▼
//!                     one multi: claim (sender, e) → (target, e+1); its node; state start
//! ```
//!
//! * While `to` is in the claim the guest may be at either end, whatever this node remembers and whatever was ordered
//!   meanwhile. The sender starts nothing and releases nothing then: it looks, and either sees the guest here and not
//!   being sent, or hands over.
//! * Both ends do the same change by compare-and-set, so it does not matter who is quicker, or whether one of them
//!   dies. The claim is never free in between, so no third node can start the VM.
//! * libvirt lets the guest execute at the target only when it does not execute at the sender any more, and removes the
//!   sender's domain after that.
//! * A cancel that comes too late finds the VM at the target, running.

use super::{Decision, LOOK_AGAIN, Seen, Situation, Step, in_memory, power_off};
use crate::moves::Turn;
use drover_model::{How, MoveKind, NodeName, OffReason, RunState, Stored, VmRecord, VmState};
use std::time::Duration;

/// A guest that an earlier daemon may have sent is here for good when it was seen here for so long: what that daemon
/// had asked libvirt for has begun by then.
const BEGUN_BY_THEN: Duration = Duration::from_secs(10);

/// At the target: a domain under the next grant, while its sender has the claim.
pub(super) fn arriving(record: &Stored<VmRecord>, seen: &Seen) -> Decision {
    match seen.run {
        // The sender's hypervisor has let it go.
        RunState::Running | RunState::ShuttingDown | RunState::Off => {
            Decision::to(Step::TakeOver, format!("{} has arrived", record.value.name))
        }
        RunState::Paused => Decision::wait("a guest is arriving", None),
    }
}

/// At the sender, while the claim says that the guest is sent to `to`.
pub(super) fn sent(s: &Situation<'_>, state: &VmState, seen: Option<&Seen>, to: &NodeName) -> Decision {
    let again = Some(s.now.after(LOOK_AGAIN));
    match seen {
        Some(seen) if seen.sending => match state {
            VmState::Migrate { to: wanted, .. } if wanted == to => Decision::wait(format!("migrating to {to}"), again),
            _ => Decision::to(Step::AbortMigration, "the migration is cancelled"),
        },
        Some(seen) if in_memory(seen.run) => {
            // In the middle of it the guest executes nowhere.
            if seen.run == RunState::Paused {
                return Decision::wait(format!("the guest is paused on its way to {to}"), again);
            }
            let own = s.memory.sent == Some(seen.mark.epoch);
            let long = s.memory.not_sending.is_some_and(|since| s.now.since(since) >= BEGUN_BY_THEN);
            if own || long {
                Decision::to(Step::CallBack, "the guest is here, and is not being sent")
            } else {
                Decision::wait(format!("looking whether the guest is being sent to {to}"), again)
            }
        }
        Some(_) => Decision::to(Step::Undefine, format!("gone from here; {to} is to have it")),
        None => Decision::to(Step::HandOver(to.clone()), format!("gone from here; {to} is to have it")),
    }
}

/// A VM that nobody holds is to go to another node: that one takes it, so that it does not matter whether the other is
/// there.
pub(super) fn unheld(s: &Situation<'_>, assigned: bool, to: &NodeName) -> Decision {
    if to == s.me {
        return turn(s, || Decision::to(Step::TakeOver, "nobody holds it; it is started here"));
    }
    if !assigned {
        return Decision::to(Step::Leave, "");
    }
    match s.turn {
        Turn::Unfit(why) => Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}")),
        Turn::Go | Turn::Wait(_) => {
            Decision::wait(format!("{to} is to take it and to start it"), Some(s.now.after(LOOK_AGAIN)))
        }
    }
}

/// At the sender: what is next for a VM that is to go `to` another node.
pub(super) fn next(
    s: &Situation<'_>,
    record: &Stored<VmRecord>,
    seen: Option<&Seen>,
    (to, kind, how): (&NodeName, MoveKind, How),
) -> Decision {
    if to == s.me {
        return Decision::to(Step::Complete(VmState::Start), "it is here already");
    }
    let Some(seen) = seen else {
        return turn(s, || Decision::to(Step::HandOver(to.clone()), format!("off here; {to} is to start it")));
    };
    let pressed = s
        .memory
        .pressed
        .is_some_and(|(epoch, at)| epoch == seen.mark.epoch && s.memory.off_wanted.is_some_and(|since| at >= since));
    if !in_memory(seen.run) {
        // Nobody pressed its button: it is the guest's own wish to be off. (In a cold move somebody did, if only an
        // earlier daemon.)
        let own_wish = how != How::Cold
            && seen.off == Some(OffReason::Shutdown)
            && s.memory.pressed.is_none_or(|(epoch, _)| epoch != seen.mark.epoch);
        return if own_wish {
            Decision::to(Step::Complete(VmState::Stop), "the guest powered itself off")
        } else {
            Decision::to(Step::Undefine, format!("moving to {to}"))
        };
    }
    if let Some((version, why)) = &s.memory.move_failed
        && *version == record.version
    {
        return match how {
            How::LiveElseCold => {
                let cold = VmState::Migrate { to: to.clone(), kind, how: How::Cold };
                Decision::to(Step::Complete(cold), format!("cannot be moved live ({why}), so it is moved cold"))
            }
            How::Live | How::Cold => Decision::to(Step::Complete(VmState::Start), format!("not moved: {why}")),
        };
    }
    let off = || power_off(s, seen, drover_model::vm::SHUTDOWN_TIMEOUT_S, &format!("moving to {to} while off"));
    match how {
        How::Cold if pressed => off(),
        How::Cold => turn(s, off),
        How::Live | How::LiveElseCold if seen.run == RunState::ShuttingDown => {
            Decision::wait("the guest is powering off", Some(s.now.after(LOOK_AGAIN)))
        }
        How::Live | How::LiveElseCold if seen.run != RunState::Running => {
            let why = "the guest is paused; let it run on, or stop it".to_owned();
            Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}"))
        }
        How::Live | How::LiveElseCold => {
            turn(s, || Decision::to(Step::Migrate(to.clone()), format!("migrating to {to}")))
        }
    }
}

/// What is done when it is the VM's turn, and before.
fn turn(s: &Situation<'_>, go: impl FnOnce() -> Decision) -> Decision {
    match s.turn {
        Turn::Go => go(),
        Turn::Wait(why) => Decision::wait(why.clone(), Some(s.now.after(LOOK_AGAIN))),
        Turn::Unfit(why) => Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}")),
    }
}
