//! Pausing a guest, and letting it run on.
//!
//! Both are done once, and the wanted state is *start* again. So an administrator's pause needs no memory of Drover's:
//! it is the state of the domain, which outlives the daemon, and nothing in the table ends it.

use super::{
    attempts::Acted,
    seen::{Seen, in_memory},
    situation::{Decision, LOOK_AGAIN, Situation, Step},
};
use drover_model::{PausedBy, RunState, Version, VmRecord, VmState};
use std::time::Duration;

/// Time in which a guest that was asked to wake does so. (libvirt's call ends when QEMU has heard it; the state changes
/// with QEMU's event.)
pub const WAKES_BY_THEN: Duration = Duration::from_secs(10);

/// Back to state *start*.
fn done(doing: impl Into<String>) -> Decision {
    Decision::to(Step::Complete(VmState::Start), doing)
}

/// The next step of an order to pause.
pub(super) fn pause(s: &Situation<'_>, order: Version, seen: Option<&Seen>) -> Decision {
    let Some(seen) = seen.filter(|seen| in_memory(seen.run)) else { return done("not paused: it is off") };
    let acted = s.memory.acted.as_ref().filter(|acted| acted.of == order);
    match (seen.run, seen.why_paused()) {
        (_, Some(by)) if !by.lasts() => Decision::wait(format!("pausing: it {by}"), Some(s.now.after(LOOK_AGAIN))),
        (_, Some(by)) => done(by.to_string()),
        (RunState::Running, None) if acted.is_none() => Decision::to(Step::Pause, "pausing"),
        (RunState::Running, None) => {
            let why = acted.and_then(|acted| acted.refused.as_deref()).unwrap_or("it was resumed at once");
            done(format!("not paused: {why}"))
        }
        _ => done("not paused: the guest is powering off"),
    }
}

/// The next step of an order to resume, or to wake.
pub(super) fn resume(s: &Situation<'_>, order: Version, seen: Option<&Seen>) -> Decision {
    let Some(seen) = seen.filter(|seen| in_memory(seen.run)) else { return done("not resumed: it is off") };
    let Some(by) = seen.why_paused() else { return done("") };
    let again = Some(s.now.after(LOOK_AGAIN));
    match s.memory.acted.as_ref().filter(|acted| acted.of == order) {
        _ if !by.lasts() => Decision::wait(format!("resuming: it {by}"), again),
        None if by == PausedBy::Asleep => Decision::to(Step::Wake, "waking"),
        None if by.can_resume() => Decision::to(Step::Resume, "resuming"),
        None => done(format!("not resumed: it {by}")),
        Some(Acted { refused: Some(why), .. }) => done(format!("not resumed: {why}")),
        Some(Acted { at, .. }) if by == PausedBy::Asleep && s.now < at.after(WAKES_BY_THEN) => {
            Decision::wait("waking", again)
        }
        Some(_) => done(format!("resumed, but it {by} again")),
    }
}

/// What to tell users about a guest in memory that should run; empty if it executes as it was ordered to.
pub(super) fn note(s: &Situation<'_>, vm: &VmRecord, seen: &Seen) -> String {
    // What the last attempt ended with, as long as nothing was ordered since.
    let order = s.record.map(|record| record.version);
    let acted = s.memory.acted.as_ref().filter(|acted| Some(acted.of.next()) == order);
    let refused = acted.and_then(|acted| acted.refused.as_ref());
    match (seen.why_paused(), refused) {
        (None, Some(why)) => format!("not paused: {why}"),
        (None, None) => String::new(),
        (Some(by), Some(why)) => format!("it {by} ({why}); {}", by.way_on(&vm.name)),
        (Some(by), None) if by.lasts() => format!("it {by}; {}", by.way_on(&vm.name)),
        (Some(by), None) => format!("it {by}"),
    }
}
