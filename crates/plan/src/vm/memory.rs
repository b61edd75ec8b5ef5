//! State of a VM's task between passes.

use super::{
    attempts::{Acted, Failures},
    attempts_after_error::Attempts,
    seen::{Seen, in_memory, vanished},
    starts::{Failed, StartFailures},
};
use drover_model::{Claim, Epoch, Generation, How, Mono, Obs, OffReason, RunState, Version, VmRecord, VmState};
use std::time::Duration;

/// Run time after which a VM counts as recovered, and its crash count is reset.
pub const CRASH_QUIET: Duration = Duration::from_secs(600);

/// Time after a press of the power button, without a power-off and with the command cancelled, after which the guest is
/// assumed to have ignored it: a later power-off is the guest's own decision.
pub const BUTTON_FORGOTTEN: Duration = Duration::from_secs(180);

/// State of a VM's task between passes. It is lost in a restart of the daemon: that costs a longer wait or one more
/// start, never correctness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Number of crashes in a row.
    pub crashes: u32,
    /// Time at which the last one was noticed.
    pub crashed_at: Option<Mono>,
    /// Epoch of the crash that was counted last.
    pub counted: Option<Epoch>,
    /// Epoch under which the domain was seen in memory, and since when.
    pub running: Option<(Epoch, Mono)>,
    /// Epoch of the last guest of which the hypervisor said that the host ended it. Reported, so that the next daemon
    /// knows it: to that one the hypervisor does not say it, and the guest would seem to have powered itself off.
    pub ended: Option<Epoch>,
    /// Epoch under which the domain was seen off, and since when.
    pub off_since: Option<(Epoch, Mono)>,
    /// Time since which the guest should be off (shutdown or restart).
    pub off_wanted: Option<Mono>,
    /// Epoch of the guest whose power button was pressed, and when last.
    pub pressed: Option<(Epoch, Mono)>,
    /// Failed starts since the guest last ran, or was stopped by a user.
    pub start_failures: Option<StartFailures>,
    /// Failed attempts to cut the power of the guest that is in memory.
    pub cut_failures: Option<Failures>,
    /// Failed attempts to let the guest execute after its migration.
    pub run_failures: Option<Failures>,
    /// Failed attempts to mark the guest anew.
    pub mark_failures: Option<Failures>,
    /// Attempts to let the guest run on after an I/O error.
    pub io_error: Option<Attempts>,
    /// The last attempt to pause, resume or wake the guest.
    pub acted: Option<Acted>,
    /// The version of the record for which the migration failed, and why.
    pub move_failed: Option<(Version, String)>,
    /// The version of the record for which the guest was sent without post-copy and did not converge: it is sent again,
    /// by post-copy.
    pub stalled: Option<Version>,
    /// Epoch under which this daemon migrates, or migrated, the guest itself. The daemon knows about its own call while
    /// that lasts: the guest is then observed as being sent, or is unknown.
    pub sent: Option<Epoch>,
    /// Time since which the guest is observed as not being sent, although it may have been.
    pub not_sending: Option<Mono>,
    /// Epoch of the claim whose imported domain has a mark now.
    pub imported: Option<Epoch>,
    /// Time since which the guest is gone from here without an end.
    pub vanished: Option<Mono>,
    /// The disks of the VM, which is being deleted, are deleted.
    pub disks_removed: bool,
    /// Why the disks, or else the records, cannot be deleted yet, and when it is tried again.
    pub delete_wait: Option<(String, Mono)>,
}

fn wants_off(state: &VmState) -> bool {
    matches!(state, VmState::Shutdown { .. } | VmState::Restart { .. } | VmState::Migrate { how: How::Cold, .. })
}

impl Memory {
    /// Must be called before the guest of that epoch is migrated.
    pub fn begin_sending(&mut self, epoch: Epoch) {
        (self.sent, self.not_sending) = (Some(epoch), None);
    }

    /// Records a failed start of that definition.
    pub fn start_failed(&mut self, of: Generation, last: Failed, why: String, at: Mono) {
        self.start_failures = Some(StartFailures::after(self.start_failures.as_ref(), of, last, why, at));
    }

    /// Records that it was ordered back to where it came from, because it cannot be started here.
    pub fn sent_back(&mut self) {
        if let Some(failures) = &mut self.start_failures {
            failures.sent_back = true;
        }
    }

    /// Records that another node has the VM: what failed here tells nothing of the next time.
    pub fn handed_over(&mut self) {
        self.start_failures = None;
    }

    /// Records that the power of the guest of that epoch could not be cut.
    pub fn cut_failed(&mut self, epoch: Epoch, why: String, at: Mono) {
        self.cut_failures = Some(Failures::after(self.cut_failures.as_ref(), epoch, why, at));
    }

    /// Records that the guest of that epoch is off for the hypervisor, although its process has not ended.
    pub fn given_up(&mut self, epoch: Epoch, why: String, at: Mono) {
        let before = self.cut_failures.take().filter(|failures| failures.of == epoch);
        self.cut_failures = match before {
            Some(failures) => Some(Failures { why, ..failures }),
            None => Some(Failures::after(None, epoch, why, at)),
        };
    }

    /// Records that the guest of that epoch could not be let execute after its migration.
    pub fn run_failed(&mut self, epoch: Epoch, why: String, at: Mono) {
        self.run_failures = Some(Failures::after(self.run_failures.as_ref(), epoch, why, at));
    }

    /// Records that the guest with that mark could not be marked anew.
    pub fn mark_failed(&mut self, epoch: Epoch, why: String, at: Mono) {
        self.mark_failures = Some(Failures::after(self.mark_failures.as_ref(), epoch, why, at));
    }

    /// Records an attempt to pause, resume or wake the guest, ordered by that version of the record.
    pub fn acted(&mut self, of: Version, at: Mono, refused: Option<String>) {
        self.acted = Some(Acted { of, at, refused });
    }

    /// Records an attempt to let the guest run on after an I/O error. `refused`: why the hypervisor did not do it.
    pub fn resumed_after_error(&mut self, at: Mono, refused: Option<String>) {
        self.io_error = self.io_error.as_ref().map(|attempts| attempts.tried(at, refused));
    }

    /// Updates whether the guest is gone without an end; must be called before [`super::next`]. `was_in_memory`: see
    /// [`super::was_in_memory`]. An unknown domain changes nothing.
    pub fn absorb_gone(&mut self, claim: Option<&Claim>, domain: &Obs<Seen>, was_in_memory: bool, now: Mono) {
        let vanished = match (claim, domain) {
            (_, Obs::Unknown(_)) => return,
            (Some(claim), domain) => vanished(claim, domain.known(), was_in_memory),
            (None, _) => false,
        };
        self.vanished = vanished.then(|| self.vanished.unwrap_or(now));
    }

    /// Updates the state with a new observation; must be called before [`super::next`].
    pub fn absorb(&mut self, record: Option<&VmRecord>, claim: Option<&Claim>, domain: &Obs<Seen>, now: Mono) {
        let state = record.map(|r| &r.state);
        let off_wanted = state.is_some_and(wants_off);
        if !off_wanted && self.pressed.is_some_and(|(_, at)| now.since(at) >= BUTTON_FORGOTTEN) {
            self.pressed = None;
        }
        // A cold move waits for its turn first: the timeout starts when the power button is pressed.
        let asked = |since| self.pressed.is_some_and(|(_, at)| at >= since);
        let waits = matches!(state, Some(VmState::Migrate { .. })) && !self.off_wanted.is_some_and(asked);
        self.off_wanted = match self.off_wanted {
            Some(since) if off_wanted && !waits => Some(since),
            _ => off_wanted.then_some(now),
        };
        if !matches!(state, Some(VmState::Start)) {
            // A user's command resets the crash count.
            (self.crashes, self.crashed_at) = (0, None);
        }
        if !matches!(state, Some(VmState::Start | VmState::Migrate { .. })) {
            self.start_failures = None;
        }
        self.io_error = Attempts::after(self.io_error.as_ref(), domain, now);
        match domain {
            Obs::Known(seen) if !seen.sending => self.not_sending = self.not_sending.or(Some(now)),
            _ => self.not_sending = None,
        }
        match domain {
            Obs::Known(seen) if in_memory(seen.run) => {
                let same = |failures: &Failures| failures.of == seen.mark.epoch;
                self.cut_failures = self.cut_failures.take().filter(same);
                self.run_failures = self.run_failures.take().filter(|of| same(of) && seen.run == RunState::Paused);
                self.mark_failures = self.mark_failures.take().filter(same);
            }
            Obs::Known(_) | Obs::Absent => {
                (self.cut_failures, self.run_failures, self.mark_failures) = (None, None, None);
            }
            Obs::Unknown(_) => {}
        }
        // What becomes of an earlier VM's domain is no event of this VM's guest.
        let domain = match domain {
            Obs::Known(seen) if claim.is_some_and(|claim| claim.is_after(seen.mark.epoch)) => &Obs::Absent,
            domain => domain,
        };
        match domain {
            Obs::Unknown(_) => {}
            Obs::Known(seen) if !in_memory(seen.run) => {
                let epoch = seen.mark.epoch;
                self.off_since = self.off_since.filter(|(of, _)| *of == epoch).or(Some((epoch, now)));
            }
            _ => self.off_since = None,
        }
        match domain {
            Obs::Unknown(_) => {}
            Obs::Known(seen) if in_memory(seen.run) => {
                let since = match self.running {
                    Some((epoch, since)) if epoch == seen.mark.epoch => since,
                    _ => now,
                };
                self.running = Some((seen.mark.epoch, since));
                self.start_failures = None;
                if now.since(since) >= CRASH_QUIET {
                    (self.crashes, self.crashed_at) = (0, None);
                }
            }
            Obs::Known(seen) => {
                if seen.off == Some(OffReason::Ended) {
                    self.ended = Some(seen.mark.epoch);
                }
                let was_running = self.running.is_some_and(|(epoch, _)| epoch == seen.mark.epoch);
                let crash = match seen.off {
                    // What ends a guest may go on doing so: it is not started at full speed.
                    Some(OffReason::Crashed | OffReason::Failed | OffReason::Ended) => true,
                    // libvirt was restarted after the guest ended: it went off while its reason was not reported.
                    Some(OffReason::Unknown) | None => was_running,
                    Some(
                        OffReason::Shutdown
                        | OffReason::ShutdownOrEnded
                        | OffReason::Destroyed
                        | OffReason::Migrated
                        | OffReason::Saved,
                    ) => false,
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
