//! A guest that is paused by an I/O error runs on by itself when the cause is gone, if its metadata say so
//! (`VmMeta::resume_after_io_error`).
//!
//! QEMU (7.2) tells nobody that a storage has space again, or answers again. But with the error policy *stop* it keeps the
//! requests that failed, and tries them again when the guest is resumed; if one fails again, the guest is paused again before
//! it sees an error. So the cause is found to be gone by resuming the guest: with growing pauses, for each attempt is
//! a load on a storage that is in trouble. Only I/O errors: nobody else's pause is ended.
//!
//! The attempts belong to one trouble as long as the guest has not run for [`QUIET`] since the last one: a storage that
//! fails again and again is not tried faster for that. And the guest's fault stays until it has run for [`SETTLED`].

use super::{
    seen::{Seen, in_memory},
    situation::{Decision, Situation, Step},
};
use drover_model::{Epoch, Mono, Obs, PausedBy, VmRecord};
use std::time::Duration;

/// Time from the pause to the first attempt; each later one takes twice as long.
pub(super) const FIRST: Duration = Duration::from_secs(10);
/// The longest time between attempts.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// Time for which a guest must run before the next error counts as another trouble. Longer than [`LONGEST`].
pub(super) const QUIET: Duration = Duration::from_secs(600);
/// Time for which a guest must run before it counts as running on.
pub(super) const SETTLED: Duration = Duration::from_secs(10);

/// The attempts to let a guest run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    /// The epoch of the guest.
    of: Epoch,
    /// Number of attempts.
    tries: u32,
    /// Time of the pause, or of the last attempt since.
    at: Mono,
    /// Time since which it is not paused by an error.
    runs: Option<Mono>,
    /// Why the hypervisor refused the last attempt.
    refused: Option<String>,
}

impl Attempts {
    /// The attempts after an observation.
    pub(super) fn after(before: Option<&Attempts>, domain: &Obs<Seen>, now: Mono) -> Option<Attempts> {
        let seen = match domain {
            // Nothing is known.
            Obs::Unknown(_) => return before.cloned(),
            Obs::Known(seen) if in_memory(seen.run) => seen,
            Obs::Known(_) | Obs::Absent => return None,
        };
        let before = before.filter(|attempts| attempts.of == seen.mark.epoch);
        let is_over = |attempts: &Attempts| attempts.runs.is_some_and(|since| now.since(since) >= QUIET);
        let same = before.filter(|attempts| !is_over(attempts));
        if seen.why_paused() != Some(PausedBy::IoError) {
            return same.map(|attempts| Attempts { runs: attempts.runs.or(Some(now)), ..attempts.clone() });
        }
        let first = || Attempts { of: seen.mark.epoch, tries: 0, at: now, runs: None, refused: None };
        Some(match same {
            None => first(),
            // It ran in between.
            Some(attempts) if attempts.runs.is_some() => Attempts { at: now, runs: None, ..attempts.clone() },
            Some(attempts) => attempts.clone(),
        })
    }

    /// After another attempt. `refused`: why the hypervisor did not do it.
    pub(super) fn tried(&self, now: Mono, refused: Option<String>) -> Attempts {
        Attempts { tries: self.tries.saturating_add(1), at: now, runs: None, refused, ..self.clone() }
    }

    /// Time of the next attempt.
    fn next(&self) -> Mono {
        // Beyond this the pause is the longest in any case.
        let pause = FIRST * (1 << self.tries.min(5));
        self.at.after(pause.min(LONGEST))
    }

    /// Whether it is not known yet whether the guest runs on.
    pub fn is_open(&self, now: Mono) -> bool {
        self.tries > 0 && self.runs.is_none_or(|since| now.since(since) < SETTLED)
    }
}

/// At a guest in memory that should run: the next step because it is paused by an I/O error.
pub(super) fn next(s: &Situation<'_>, vm: &VmRecord, seen: &Seen) -> Option<Decision> {
    let by = seen.why_paused().filter(|by| *by == PausedBy::IoError && vm.meta.resume_after_io_error)?;
    let attempts = s.memory.io_error.as_ref()?;
    let until = attempts.next();
    if s.now >= until {
        return Some(Decision::to(Step::ResumeAfterError, format!("resuming it, in case the cause is gone: it {by}")));
    }
    let tries = match (attempts.tries, &attempts.refused) {
        (0, _) => String::new(),
        (tries, None) => format!(" ({tries}×)"),
        (tries, Some(why)) => format!(" ({tries}×, {why})"),
    };
    let doing =
        format!("it {by}; it is resumed now and then, in case the cause is gone{tries}; {}", by.way_on(&vm.name));
    Some(Decision::wait(doing, Some(until)))
}

/// When it will be known whether a guest that was resumed so runs on.
pub(super) fn settles(s: &Situation<'_>) -> Option<Mono> {
    let attempts = s.memory.io_error.as_ref().filter(|attempts| attempts.is_open(s.now))?;
    attempts.runs.map(|since| since.after(SETTLED))
}
