//! A guest that is paused by an I/O error runs on by itself when the cause is gone, if its metadata say so
//! (`VmMeta::resume_after_io_error`).
//!
//! QEMU (7.2) tells nobody that a storage has space again, or answers again. But with the error policy *stop* it keeps
//! the requests that failed, and tries them again when the guest is resumed; if one fails again, the guest is paused
//! again before it sees an error. So the cause is found to be gone by resuming the guest: with growing pauses, for
//! each attempt is a load on a storage that is in trouble. Only I/O errors: nobody else's pause is ended.
//!
//! The attempts belong to one trouble as long as the guest has not run for `QUIET` since the last one: a storage that
//! fails again and again is not tried faster for that. And the guest's fault stays until it has run for `SETTLED`.

use super::{
    attempts_after_error::SETTLED,
    seen::Seen,
    situation::{Decision, Situation, Step},
};
use drover_model::{Mono, PausedBy, VmRecord};

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
