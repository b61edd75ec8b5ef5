//! Guests that are not where the claim says, because somebody used the hypervisor directly (`virsh migrate`), or
//! because the store was lost and the VM was defined again.
//!
//! A domain's mark has the epoch of the grant under which it was started, so the two epochs tell what it is:
//!
//! ```text
//!  mark, compared with the claim's epoch e     this node has no claim         this node has the claim
//!  older; what a send that was called back     removed: the claim moved on    removed; e-1, or what the grant
//!  has left is always older (`moving`)                                        adopts: marked e
//!  e                                           the guest of the grant         as it should be
//!  e+1                                         arrives, or is removed         adopted: marked anew
//!                                              (`moving`)
//!  later                                       the record is older than it    adopted: marked anew
//!  any, and the claim was never granted        adopted                        -
//!  of an earlier VM that was deleted           removed                        removed
//!  of a store that was lost, and the claim     left alone                     left alone
//!  was granted since
//! ```
//!
//! * The last two are told apart by where the store's epochs begin (`Claim::is_of_another_store`). Nobody has ordered
//!   the deletion of a VM that the store did not know, so its guest is never killed. It may run beside the VM's present
//!   guest, if its node was away when the VM was defined again and started: only a person can choose between the two.
//!
//! * The guest of the grant that is seen on another node than the holder's has been taken there. It is never killed:
//!   the node reports it as a *stray*, and raises a fault. If the claim is free, it adopts it. Otherwise the holder
//!   hands the claim over, when its own domain is gone, and the node that has the guest then marks it anew. The claim
//!   is changed by compare-and-set, and never free in between.
//! * One that is paused may be a copy that somebody's own migration has left (`virsh migrate`, whose last answer was
//!   lost): it has the guest's mark, and the guest has written to its disks since. Nothing tells it from the guest, so
//!   it is never taken over: its node raises a fault, and does not report it. It is removed with the next grant; one
//!   that somebody lets run on is a stray as any. (Drover's own migrations leave none: each has an epoch of its own.)
//!   That holds also while the grant adopts the guest under its earlier mark, which the copy has too.
//! * The holder does not start a second guest while another node reports one, alive or not. The report comes after the
//!   guest, so a holder whose guest has *vanished* (a guest that ends leaves its definition behind, off; one that was
//!   migrated does not, or leaves it with that reason) waits for reports. Without any, the VM fails: it may run on a
//!   machine that is no node, and only a person can know.
//! * A grant that follows a guest, or takes it over, says under which mark it runs. Until it has the grant's own it may
//!   be taken on, and is followed again.
//! * Re-marking under one's own grant cannot hide a second guest: one machine has one domain of a UUID. The mark before
//!   the grant's (e-1) has no other grant in between, so nobody else has run the VM since. With more in between,
//!   another guest has written to its disks, and this one is removed. One with e-1 that is paused, and not the
//!   one that the grant is for, may be a copy: a person decides.
//! * Nobody knows of a guest that was taken to a node whose daemon is away. If its own node loses its power before that
//!   is back, the VM is started there a second time.
//! * A domain that is imported (`drover vm import`) has no mark at first. Its VM's claim says so
//!   (`Claim::is_for_unmarked`): held, if the domain was in memory, else free. It is given a mark, and is then the
//!   guest that the grant adopts; or a domain that is off, which is removed with all that is kept of it left in place;
//!   or, if it was started in between, a guest that is adopted. The definition of a VM that does not run is in its
//!   record only.

use super::{
    elsewhere::{Elsewhere, may_be_present},
    moving::{is_by_order, wants_no_guest},
    seen::{Seen, in_memory},
    situation::{Decision, LOOK_AGAIN, Situation, Step},
};
use drover_model::{Claim, Epoch, NodeName, RunState, VmRecord, VmState, VmStatus};
use std::time::Duration;

/// How long the holder of a guest that vanished waits for another node to report it: longer than a node needs to notice
/// a domain whose event it missed, and to report it.
pub const LOOK_ELSEWHERE: Duration = Duration::from_secs(45);

/// Number of failed attempts to mark a guest anew after which its move is given up.
const MARK_TRIES: u32 = 3;

/// Whether a VM's guest was in memory on this node under this claim: the last report says so, or there is none yet of a
/// guest that the claim adopts.
pub fn was_in_memory(claim: &Claim, status: &VmStatus, me: &NodeName, boot: &str) -> bool {
    // It has ended with the machine's last boot.
    let rebooted = !claim.boot.is_empty() && claim.boot != boot;
    let reported = status.node == *me && status.epoch == claim.epoch;
    let was = match status.run {
        Some(run) if reported => in_memory(run),
        // A report made while its domain could not be seen says nothing of it.
        None if reported && !status.unknown => false,
        _ => claim.adopts.is_some(),
    };
    claim.is_held_by(me) && !rebooted && was
}

/// A domain of an earlier VM with the same UUID. `None`: it is none, or is to be adopted.
pub(super) fn earlier(claim: &Claim, seen: &Seen) -> Option<Decision> {
    let mark = seen.mark.epoch;
    if !claim.is_after(mark) {
        None
    } else if !in_memory(seen.run) {
        Some(Decision::to(Step::Undefine, "an earlier VM with the same UUID left this domain here: it is removed"))
    } else if is_of_deleted(claim, mark) {
        Some(Decision::to(Step::Destroy, "a deleted VM with the same UUID left this domain here: it is removed"))
    } else if claim.never_granted() {
        None
    } else {
        let doing = "a guest of an earlier record of the VM, which is lost, runs here, and the VM has been started \
        since: end one of them ('virsh destroy')";
        Some(Decision::wait(doing, None))
    }
}

/// Whether a mark is of an earlier VM with the same UUID which was deleted.
fn is_of_deleted(claim: &Claim, mark: Epoch) -> bool {
    claim.is_after(mark) && !claim.is_of_another_store(mark)
}

/// Whether it may be a copy of the guest that a migration outside Drover has left, and that has never executed.
fn may_be_copy(claim: &Claim, seen: &Seen) -> bool {
    let known = !claim.never_granted() && !claim.is_of_another_store(seen.mark.epoch);
    known && is_by_order(seen)
}

/// At a node without the claim: a domain that does not arrive by a migration of Drover's.
pub(super) fn unclaimed(record: &VmRecord, claim: &Claim, seen: &Seen) -> Decision {
    let gone = "this node has no claim on the VM: its domain is removed";
    let (mark, epoch) = (seen.mark.epoch, claim.epoch);
    if !in_memory(seen.run) {
        return Decision::to(Step::Undefine, gone);
    }
    if claim.never_granted() && is_deleted(&record.state) {
        // Who ordered that did not know that it runs.
        return Decision::wait(
            "it runs here under a grant of an earlier record, and is not deleted with this one",
            None,
        );
    }
    if claim.never_granted() {
        let state = if is_off(&record.state) { VmState::Start } else { record.state.clone() };
        return Decision::to(Step::Adopt(state), "it runs here under a grant of an earlier record");
    }
    if !may_be_present(claim, mark) {
        return Decision::to(Step::Destroy, gone);
    }
    if may_be_copy(claim, seen) {
        let doing = "it is paused here, and this node has no claim on it: it may be an old copy, which a migration \
        outside Drover left. End it ('virsh destroy'), or let it run on ('virsh resume') if you are sure that it is \
        the guest";
        return Decision::wait(doing, None);
    }
    match &claim.node {
        // Somebody ordered it to be off after it was taken here, or it failed because it was not found.
        None => {
            let state = match &record.state {
                VmState::Fail { .. } => VmState::Start,
                state => state.clone(),
            };
            Decision::to(Step::Adopt(state), "it runs here, and no node has a claim on it")
        }
        Some(holder) if mark <= epoch => {
            Decision::wait(format!("it was taken here from {holder}, outside Drover; waiting for its claim"), None)
        }
        Some(holder) => Decision::wait(
            format!("it runs here under grant {mark}, and {holder} has grant {epoch}: the records are older than it"),
            None,
        ),
    }
}

fn is_off(state: &VmState) -> bool {
    matches!(state, VmState::Stop | VmState::Disable | VmState::Fail { .. })
}

fn is_deleted(state: &VmState) -> bool {
    matches!(state, VmState::Delete { .. })
}

/// Whether the others are to know of a stray: it may be the VM's guest.
pub fn is_reported(claim: Option<&Claim>, seen: &Seen) -> bool {
    claim.is_none_or(|claim| !may_be_copy(claim, seen))
}

/// Whether a domain on this node is a stray: it is in memory without a claim and is left alone.
pub fn is_stray(claim: Option<&Claim>, me: &NodeName, seen: &Seen) -> bool {
    let mark = seen.mark.epoch;
    in_memory(seen.run)
        && claim.is_none_or(|claim| {
            let left_alone = claim.never_granted() || may_be_present(claim, mark);
            claim.is_of_another_store(mark) || !claim.is_held_by(me) && !is_of_deleted(claim, mark) && left_alone
        })
}

/// At the holder: what is to be done about a domain that does not have the grant's mark.
pub(super) fn remarked(s: &Situation<'_>, claim: &Claim, wanted: &VmState, seen: &Seen) -> Option<Decision> {
    let (mark, epoch) = (seen.mark.epoch, claim.epoch);
    let ends = matches!(wanted, VmState::Shutdown { .. } | VmState::Restart { .. });
    if !in_memory(seen.run) || mark == epoch || seen.sending || wants_no_guest(wanted) {
        None
    } else if mark > epoch {
        Some(Decision::to(Step::Regrant, "it runs here under a later grant than the record's"))
    } else if claim.adopts == Some(mark) || mark.next() == epoch && !is_by_order(seen) {
        // A guest that is to end needs no mark, and one that hangs may not get it.
        if ends {
            return None;
        }
        let failures = s.memory.mark_failures.as_ref().filter(|failures| failures.of == mark);
        match (failures, wanted) {
            (Some(failures), VmState::Migrate { .. }) if failures.tries >= MARK_TRIES => {
                let why = format!("its domain cannot be marked as it must be before it is sent: {}", failures.why);
                Some(Decision::to(Step::GiveUpMove(why.clone()), format!("not moved: {why}")))
            }
            _ => Some(Decision::to(Step::Remark, "it runs on under this grant")),
        }
    } else if mark.next() == epoch {
        let doing = "it is paused here under the grant before: it may be an old copy, which a migration outside Drover \
        left, and then the VM is not started beside it. End it ('virsh destroy'), or let it run on ('virsh resume') if \
        you are sure that it is the guest";
        (!ends).then(|| Decision::wait(doing, None))
    } else {
        Some(Decision::to(Step::Destroy, "a guest of an earlier grant: others have had the VM since"))
    }
}

/// Whether the domain here, which has no mark, is to become the VM's.
pub(super) fn is_to_be_marked(s: &Situation<'_>) -> bool {
    let (Some(record), Some(claim)) = (s.record, s.claim) else { return false };
    let (claim, assigned) = (&claim.value, record.value.node.as_ref() == Some(s.me));
    let here = s.is_mine(claim) || claim.never_granted() && assigned;
    claim.is_for_unmarked() && here && s.memory.imported != Some(claim.epoch)
}

/// Whether a claim is for an imported domain that is off. When that is gone, what the claim says of it goes too.
pub(super) fn is_taken_over(claim: &Claim) -> bool {
    claim.node.is_none() && claim.adopts.is_some()
}

/// While no node holds the VM: the wait because of a guest elsewhere, whose node adopts it.
pub(super) fn free(s: &Situation<'_>, claim: &Claim) -> Option<Decision> {
    let Elsewhere { node, epoch, .. } = elsewhere(s, claim).filter(|_| claim.node.is_none())?;
    // The guest is not deleted with this record, and may keep the disks.
    let apart = claim.never_granted() || claim.is_of_another_store(*epoch);
    if apart && s.record.is_some_and(|record| record.value.state == VmState::Delete { disks: false }) {
        return None;
    }
    Some(Decision::wait(format!("{node} reports that it runs there"), Some(s.now.after(LOOK_AGAIN))))
}

/// The guest elsewhere, if it is not older than the claim, or is of a store that was lost.
fn elsewhere<'a>(s: &Situation<'a>, claim: &Claim) -> Option<&'a Elsewhere> {
    s.elsewhere.filter(|other| other.counts(claim))
}

/// At the holder, whose claim has no `to`, and which has no guest in memory: the step because of a guest elsewhere.
pub(super) fn gone(s: &Situation<'_>, record: &VmRecord, claim: &Claim, seen: Option<&Seen>) -> Option<Decision> {
    if seen.is_some_and(|seen| in_memory(seen.run)) {
        return None;
    }
    let again = Some(s.now.after(LOOK_AGAIN));
    if let Some(Elsewhere { node, alive, epoch, .. }) = elsewhere(s, claim) {
        let lost = claim.is_of_another_store(*epoch);
        let no_start = is_off(&record.state) || matches!(record.state, VmState::Shutdown { .. });
        if lost && (no_start || record.state == VmState::Delete { disks: false }) {
            return None;
        }
        return Some(match seen {
            _ if lost => {
                let doing =
                    format!("{node} reports a guest of an earlier record of the VM, which is lost: end that first");
                Decision::wait(doing, again)
            }
            _ if !alive => {
                Decision::wait(format!("{node} reported that it runs there, and {node}'s daemon is not alive"), again)
            }
            Some(_) => Decision::to(Step::Undefine, format!("it runs on {node}")),
            None => Decision::to(Step::Follow(node.clone(), *epoch), format!("it was taken to {node}, outside Drover")),
        });
    }
    let since = s.memory.vanished?;
    let until = since.after(LOOK_ELSEWHERE);
    if s.now < until {
        let doing = "its domain is gone from here without an end; waiting for another node to report it";
        return Some(Decision::wait(doing, again));
    }
    // An order to be off is satisfied here.
    if is_off(&record.state) || matches!(record.state, VmState::Delete { .. } | VmState::Shutdown { .. }) {
        return None;
    }
    let reason = format!(
        "its domain vanished from {} while it ran, and no node reports it: somebody removed it or migrated it outside \
        Drover. Make sure that it runs nowhere before you start it",
        s.me
    );
    Some(Decision::to(Step::Complete(VmState::Fail { reason }), "its guest is gone"))
}

/// The run state to report of a guest that vanished: what it was, so that a new daemon does not take it for ended.
pub fn reported(old: Option<RunState>, vanished: bool, now: Option<RunState>) -> Option<RunState> {
    if vanished { old.filter(|run| in_memory(*run)).or(Some(RunState::Running)) } else { now }
}
