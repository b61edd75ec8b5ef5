//! The steps of a move, at the source and at the target.
//!
//! ```text
//!  sender (has the claim, epoch e)                           target
//!    claim: to = target
//!    sends the guest, which carries the mark e+1   ──►         paused, or off: wait
//!    the guest is here, not sent, or powered
//!      itself off here: claim: (sender, e+2),                  no claim: destroy what has come
//!      to = none; mark the guest e+2
//!    the guest is gone from here: hand over
//!      one multi: claim (sender, e) → (target, e+1, resume); its node; state start
//!                                                  ──►         resume it; claim: resume = none
//! ```
//!
//! * While `to` is in the claim the guest may be at either end, whatever this node remembers and whatever was ordered
//!   meanwhile. The source starts and releases nothing then: it observes, and either sees the guest here and not being
//!   sent, or hands over. The claim is never free in between, so no third node can start the VM.
//! * A domain that is *off* under the next epoch is not a guest that has arrived, and does not tell where the guest is.
//!   libvirt (9.0.0, `qemuMigrationDstFinishFresh`) writes the definition at the target before it waits for the guest's
//!   state. If that fails (a device's state does not load) the guest continues at the source, and the definition stays
//!   at the target, off. So the source decides about it; the definition is removed when the claim has no `to` any more,
//!   or is used when the claim arrives.
//! * A cancel that is too late finds the VM running at the target.
//! * *Each send has an epoch of its own.* Whether the guest is handed over (e+1) or called back (e+2), the claim is
//!   granted anew. So the next send's epoch is another one, and a copy that this one has left at the target is older
//!   than the claim for ever: it is destroyed when its node sees it, however late. (If its epoch were granted later,
//!   the copy would look like the guest to a node that was away meanwhile.)
//! * *A guest that ended at the source is not resumed at the target*: it may have gone on at the source after its copy
//!   was made. The claim goes to the target above the copy's mark, so the copy is destroyed and the VM started again.
//!
//! # The guest executes at one end only
//!
//! libvirt does not see to that. Its last three steps are *perform* (the guest is paused at the source, all of it is
//! sent), *finish* at the target, *confirm* at the source, which kills the source's domain after a good answer to
//! *finish*, and resumes it after a bad one or none (9.0.0, `qemuMigrationSrcPerformPeer2Peer3`: "There is a small
//! chance that the ddomain is NULL due to an RPC failure, in which case ddomain could in fact be running on the dest").
//! So a guest is sent with the flag *paused*: *finish* leaves it paused at the target, *confirm* is the same. Two
//! libvirtds then never let it execute at the target. Drover does, under the claim, which its source gives away only
//! when its own domain is gone. The orders in which things can fail:
//!
//! | what fails | the source's domain | the target's domain | what follows |
//! |---|---|---|---|
//! | link, either libvirtd, either node before *finish* | goes on | is destroyed by libvirt | `to` = none, not moved |
//! | link during *finish*: no answer | goes on | paused, whole | called back; the target destroys its copy |
//! | target's libvirtd in *finish* | goes on | killed when libvirtd is back | `to` = none, not moved |
//! | source's libvirtd between *perform* and *confirm* | paused | paused, whole, or destroyed | `to` = none; the source resumes its guest |
//! | source's libvirtd in *confirm* | killed when it is back | paused, whole | handed over, resumed |
//! | source's daemon after *confirm*, or the store is away | gone | paused, whole | waits; handed over later, resumed |
//! | source's node after *confirm* | gone | paused, whole | waits for the source's node, which has the claim |
//! | source's QEMU or node between *finish* and *confirm* | off | paused, whole | handed over, started again |
//! | link during *finish*, then the source's QEMU | off | paused, older | handed over, started again |
//! | target's daemon | gone | paused, whole | handed over; resumed when that daemon is back |
//! | target's node after *confirm* | gone | gone | handed over; started again |
//! | the target cannot resume it (an image is locked) | gone | paused, whole | tried again; said in `doing` |
//!
//! The second line of defence is QEMU's lock on the image files, for disks that are files on file systems with locks
//! that all nodes see: QEMU takes it when the guest executes (7.2, `file.locking=auto`: open file description locks;
//! libvirt sets nothing else; and 9.0.0 asks for `late-block-activate`, so that a paused target has none).
//!
//! # Post-copy
//!
//! The guest executes at the target before all of its memory is there. libvirt refuses that together with *paused*.
//! It is not needed either: from the switch to post-copy on, libvirt resumes the source's domain in no case. What must
//! not happen is that *finish* comes without a switch; so a guest is sent by post-copy only when it has not converged,
//! slowly, and is switched at once.
//!
//! * Until all memory has come, neither domain is whole: [`Transit::Split`]. The target takes the claim over from a
//!   guest that executes there. The source's domain, paused, is kept, with and without a claim, as long as the guest
//!   may be under the next epoch.
//! * When the link between the two QEMUs breaks, libvirt keeps both domains ([`Transit::Broken`]): the target's
//!   executes until it needs what is not there. An administrator can repair the link and go on (`virsh migrate
//!   --postcopy --postcopy-resume`), or stop the VM and give up what is in its memory. When one of the two domains is
//!   gone, so is the guest.

use super::{
    ended::{WHO_ENDED_IT, off_reason, powered_itself_off},
    older,
    power::{cannot_hear, power_off},
    seen::{Seen, in_memory},
    situation::{Decision, HostState, LOOK_AGAIN, Situation, Step},
};
use crate::moves::Turn;
use drover_model::{
    Claim, How, Mono, MoveKind, NodeName, OffReason, Paused, PausedBy, RunState, Stored, Transit, VmRecord, VmState,
    domain::Mark,
};
use std::time::Duration;

/// Time for which a guest that a previous daemon may have been migrating must be seen here, not being sent, before that
/// migration counts as over: what that daemon had requested from libvirt has begun by then.
const BEGUN_BY_THEN: Duration = Duration::from_secs(10);

/// At the target: a domain under the next epoch, while the source has the claim.
pub(super) fn arriving(record: &Stored<VmRecord>, seen: &Seen, now: Mono) -> Decision {
    match seen.run {
        // By post-copy: the source's will never execute again.
        RunState::Running | RunState::ShuttingDown => {
            Decision::to(Step::TakeOver, format!("{} has arrived", record.value.name))
        }
        RunState::Paused if seen.transit.is_none() => {
            Decision::wait("the guest is here, paused, until its last node hands it over", None)
        }
        RunState::Paused => Decision::wait("a guest is arriving", None),
        // It could not be loaded here, or has ended since: the source knows which.
        RunState::Off => Decision::wait("off here; the source knows where it is", Some(now.after(LOOK_AGAIN))),
    }
}

/// At the source, while the claim has `to`.
pub(super) fn sent(s: &Situation<'_>, state: &VmState, seen: Option<&Seen>, to: &NodeName) -> Decision {
    let again = Some(s.now.after(LOOK_AGAIN));
    match seen {
        Some(seen) if seen.run == RunState::Paused && seen.is_torn() => {
            // Until the target has taken it over, its power can be cut here only.
            if seen.transit == Some(Transit::Broken) && wants_no_guest(state) {
                return Decision::to(Step::Destroy, "stopping, with part of its memory on each of two nodes");
            }
            Decision::wait(torn(seen, to), again)
        }
        Some(seen) if seen.sending => match state {
            VmState::Migrate { to: wanted, .. } if wanted == to => Decision::wait(format!("migrating to {to}"), again),
            _ => Decision::to(Step::AbortMigration, "the migration is cancelled"),
        },
        Some(seen) if in_memory(seen.run) => {
            if over(s, seen) {
                Decision::to(Step::CallBack, "the guest is here, and is not being sent")
            } else {
                Decision::wait(format!("checking whether the guest is being sent to {to}"), again)
            }
        }
        // Only an executing guest powers itself off, and a guest that executes here does not execute there.
        Some(seen) if off_reason(seen, s.memory) == Some(OffReason::Shutdown) => {
            if over(s, seen) {
                Decision::to(Step::CallBack, format!("the guest powered off before it was at {to}"))
            } else {
                Decision::wait(format!("off here; checking whether it is being sent to {to}"), again)
            }
        }
        // If nobody heard how it ended, it may be what was left here of a guest that executes there, by post-copy, and
        // that the host ended. So it is started there; also if it did power itself off, which nothing tells.
        Some(seen) if powered_itself_off(seen, s.memory, s.now).is_none() => Decision::wait(WHO_ENDED_IT, again),
        Some(seen) if seen.off == Some(OffReason::Migrated) => {
            Decision::to(Step::Undefine, format!("gone from here; handing it over to {to}"))
        }
        // It may have gone on here after its copy there was made. The definition stays here until the claim is gone:
        // without it, nothing tells this from a guest that has left.
        Some(_) => Decision::to(Step::StartThere(to.clone()), format!("its guest ended here; it is started on {to}")),
        None => Decision::to(Step::HandOver(to.clone()), format!("gone from here; handing it over to {to}")),
    }
}

/// What is said of a guest whose memory is on two nodes.
fn torn(seen: &Seen, other: &NodeName) -> String {
    match seen.transit {
        Some(Transit::Broken) => format!(
            "its migration by post-copy broke: part of its memory is here, part on {other}, and each needs the other"
        ),
        _ => format!("it goes on at {other}; the rest of its memory follows"),
    }
}

/// At a node without the claim: whether its domain has memory of a guest that may execute elsewhere, under the next
/// epoch. Under a later one it is another guest, and without a holder there is none.
pub(super) fn is_needed(claim: &Claim, seen: &Seen) -> bool {
    seen.run == RunState::Paused && seen.is_torn() && claim.node.is_some() && claim.epoch == seen.mark.epoch.next()
}

pub(super) fn wants_no_guest(state: &VmState) -> bool {
    matches!(state, VmState::Stop | VmState::Disable | VmState::Fail { .. } | VmState::Delete { .. })
}

/// Whether a guest that came by migration is to be let execute by the holder of its claim.
fn waits_for_us(claim: &Claim, mark: Mark) -> bool {
    claim.resume && mark.epoch == claim.epoch
}

/// Whether somebody had it paused, which is also what libvirt says of a guest that it left paused at its arrival.
pub(super) fn is_by_order(seen: &Seen) -> bool {
    seen.why_paused().is_some_and(may_be_ordered)
}

/// Whether a guest that is paused by this may be so because somebody ordered it, or because it was left so.
pub fn may_be_ordered(by: PausedBy) -> bool {
    matches!(by, PausedBy::Administrator | PausedBy::Unknown)
}

/// Why a guest is paused, for users: libvirt says of one that has arrived that somebody paused it.
pub fn shown(claim: &Claim, mark: Mark, paused: Paused) -> Paused {
    match paused.by {
        PausedBy::Administrator if waits_for_us(claim, mark) => PausedBy::Migrating.into(),
        _ => paused,
    }
}

/// At the holder of the claim, which has no `to`: what is to be done about a domain that a migration has left as it is.
pub(super) fn landed(s: &Situation<'_>, claim: &Claim, state: &VmState, seen: &Seen) -> Option<Decision> {
    // What came before another grant is no guest, complete or not: it is removed ([`super::strays`]).
    if seen.sending || claim.is_past(seen.mark.epoch) {
        return None;
    }
    let comes = waits_for_us(claim, seen.mark);
    match (seen.run, seen.transit) {
        // It has executed here, and stopped since for a reason of its own.
        (RunState::Paused, None) if comes && !is_by_order(seen) => Some(Decision::to(Step::Settle, "")),
        // It was to be paused while it was on its way, and is.
        (RunState::Paused, None) if comes && *state == VmState::Pause => Some(Decision::to(Step::Settle, "")),
        (RunState::Paused, transit) if !wants_no_guest(state) => match transit {
            None if comes => Some(Decision::to(Step::LetRun, "it has arrived")),
            Some(Transit::Switching) if comes => {
                Some(Decision::wait("a guest is arriving", Some(s.now.after(LOOK_AGAIN))))
            }
            // libvirt lost track of a migration that Drover has called back.
            Some(Transit::Switching) => Some(Decision::to(Step::LetRun, "its migration has failed")),
            _ => settled(claim, seen),
        },
        (RunState::Running | RunState::ShuttingDown, _) if comes => Some(Decision::to(Step::Settle, "")),
        (RunState::Running | RunState::ShuttingDown, Some(Transit::Split)) if state.destination().is_some() => {
            Some(Decision::wait("the rest of its memory is still on its way here", Some(s.now.after(LOOK_AGAIN))))
        }
        _ if !wants_no_guest(state) => settled(claim, seen),
        _ => None,
    }
}

/// Whether the claim says something of where its guest was, which is in memory under the claim's own mark by now,
/// executing or not.
fn settled(claim: &Claim, seen: &Seen) -> Option<Decision> {
    let past = claim.adopts.is_some() || claim.from.is_some();
    (past && in_memory(seen.run) && seen.mark.epoch == claim.epoch).then(|| Decision::to(Step::Settle, ""))
}

/// Whether the migration of a guest that is seen here, and not being sent, is certainly over: this daemon called
/// libvirt itself and has its result, or what a previous daemon requested would have begun by now.
fn over(s: &Situation<'_>, seen: &Seen) -> bool {
    let own = s.memory.sent == Some(seen.mark.epoch);
    own || s.memory.not_sending.is_some_and(|since| s.now.since(since) >= BEGUN_BY_THEN)
}

/// A move of a VM without a holder: the target takes it, so that the source need not be up.
pub(super) fn unheld(s: &Situation<'_>, assigned: bool, to: &NodeName) -> Decision {
    if to == s.me {
        return turn(s, || Decision::to(Step::TakeOver, "no node holds it; starting it here"));
    }
    if !assigned {
        return Decision::to(Step::Leave, "");
    }
    match s.turn {
        Turn::Unfit(why) => Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}")),
        Turn::Go | Turn::Wait(_) => {
            Decision::wait(format!("waiting for {to} to take it"), Some(s.now.after(LOOK_AGAIN)))
        }
    }
}

/// At the source: the next step of a move `to` another node.
pub(super) fn next(
    s: &Situation<'_>,
    record: &Stored<VmRecord>,
    seen: Option<&Seen>,
    (to, kind, how): (&NodeName, MoveKind, How),
) -> Decision {
    if to == s.me {
        return Decision::to(Step::Complete(VmState::Start), "it is here already");
    }
    // The move was ordered while it ran, and it has ended since: state that libvirt keeps here stays here.
    let stays = s.kept.map(|kept| format!("it is off, and libvirt keeps {kept} on this node only"));
    // Nor is it shut down here, only to be refused a start there.
    let older = older::refused(s, &record.value, seen);
    let give_up = |why: &String| Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}"));
    let stays = stays.as_ref().or(older.as_ref()).map(give_up);
    let Some(seen) = seen else {
        if let Some(stays) = stays {
            return stays;
        }
        return turn(s, || Decision::to(Step::HandOver(to.clone()), format!("off here; handing it over to {to}")));
    };
    let pressed = s
        .memory
        .pressed
        .is_some_and(|(epoch, at)| epoch == seen.mark.epoch && s.memory.off_wanted.is_some_and(|since| at >= since));
    if !in_memory(seen.run) {
        // Nobody pressed its power button: the guest powered itself off. (In a cold move somebody did, if only a
        // previous daemon.)
        let own_wish = match powered_itself_off(seen, s.memory, s.now) {
            _ if how == How::Cold || *s.host == HostState::GoingDown => false,
            Some(own_wish) => own_wish,
            None => return Decision::wait(WHO_ENDED_IT, Some(s.now.after(LOOK_AGAIN))),
        };
        return match stays {
            _ if own_wish => Decision::to(Step::Complete(VmState::Stop), "the guest powered itself off"),
            Some(stays) => stays,
            None => Decision::to(Step::Undefine, format!("moving to {to}")),
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
        How::Cold => match older.or_else(|| cannot_hear(s, seen, &record.value.name)) {
            Some(why) => give_up(&why),
            None => turn(s, off),
        },
        How::Live | How::LiveElseCold if seen.run == RunState::ShuttingDown => {
            Decision::wait("the guest is powering off", Some(s.now.after(LOOK_AGAIN)))
        }
        How::Live | How::LiveElseCold if seen.run != RunState::Running => {
            let by = seen.why_paused().unwrap_or_default();
            give_up(&format!("the guest {by}; {}", by.way_on(&record.value.name)))
        }
        How::Live | How::LiveElseCold => {
            let doing = format!("migrating to {to}");
            let by_post_copy = s.memory.stalled == Some(record.version);
            let step = if by_post_copy { Step::MigrateByPostCopy } else { Step::Migrate };
            turn(s, || Decision::to(step(to.clone()), doing))
        }
    }
}

/// The step when it is the VM's turn, or the wait before.
fn turn(s: &Situation<'_>, go: impl FnOnce() -> Decision) -> Decision {
    match s.turn {
        Turn::Go => go(),
        Turn::Wait(why) => Decision::wait(why.clone(), Some(s.now.after(LOOK_AGAIN))),
        Turn::Unfit(why) => Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}")),
    }
}
