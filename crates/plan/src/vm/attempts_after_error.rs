//! What a VM's task remembers of attempts to let a guest run on after an I/O error.

use super::seen::{Seen, in_memory};
use drover_model::{Epoch, Mono, Obs, PausedBy};
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
    pub(super) tries: u32,
    /// Time of the pause, or of the last attempt since.
    at: Mono,
    /// Time since which it is not paused by an error.
    pub(super) runs: Option<Mono>,
    /// Why the hypervisor refused the last attempt.
    pub(super) refused: Option<String>,
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
    pub(super) fn next(&self) -> Mono {
        // Beyond this the pause is the longest in any case.
        let pause = FIRST * (1 << self.tries.min(5));
        self.at.after(pause.min(LONGEST))
    }

    /// Whether it is not known yet whether the guest runs on.
    pub fn is_open(&self, now: Mono) -> bool {
        self.tries > 0 && self.runs.is_none_or(|since| now.since(since) < SETTLED)
    }
}
