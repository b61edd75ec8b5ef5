//! Powering a guest off: power button, repeated, then destroy.
//!
//! A process that waits in the kernel for its storage does not end before the storage answers, whatever signal it gets.
//! Then destroying its domain fails, after a long wait. Drover keeps the claim, for the guest may still write, and
//! tries again with growing pauses.

use super::{
    attempts::{FAULT_AFTER, Failures, backoff},
    seen::Seen,
    situation::{Decision, Situation, Step},
};
use drover_model::VmName;
use std::time::Duration;

/// Interval between presses of the power button, for a guest that was not yet ready to handle it.
pub const BUTTON_REPEAT: Duration = Duration::from_secs(30);

/// Powers the guest off: presses the power button, repeats it, and destroys the domain at the deadline.
pub(super) fn power_off(s: &Situation<'_>, seen: &Seen, timeout_s: u32, doing: &str) -> Decision {
    let since = s.memory.off_wanted.unwrap_or(s.now);
    let deadline = since.after(Duration::from_secs(timeout_s.into()));
    if s.now >= deadline {
        return Decision::to(
            Step::Destroy,
            format!("{doing}: the guest did not power off in {timeout_s} s, forcing it off"),
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

/// Why the guest cannot hear the power button, if it has not been pressed for this order. A guest that is paused after
/// that may have heard it, and has until the deadline.
pub(super) fn cannot_hear(s: &Situation<'_>, seen: &Seen, vm: &VmName) -> Option<String> {
    let by = seen.why_paused().filter(|by| by.lasts())?;
    let pressed = s
        .memory
        .pressed
        .is_some_and(|(epoch, at)| epoch == seen.mark.epoch && s.memory.off_wanted.is_some_and(|since| at >= since));
    (!pressed).then(|| format!("the guest {by}, and cannot hear; {}", by.way_on(vm)))
}

/// Longest pause between two attempts to let a guest execute: it executes nowhere meanwhile.
const RUN_RETRY: Duration = Duration::from_secs(5);

/// The same decision; but what has failed is tried again after a pause.
pub(super) fn patiently(s: &Situation<'_>, decision: Decision) -> Decision {
    let (failures, longest, what) = match decision.step {
        Step::Destroy => (&s.memory.cut_failures, Duration::MAX, "its power could not be cut"),
        Step::LetRun => (&s.memory.run_failures, RUN_RETRY, "it cannot execute here"),
        Step::Remark => (&s.memory.mark_failures, Duration::MAX, "its domain could not be marked"),
        _ => return decision,
    };
    let Some(Failures { tries, since, at, why, .. }) = failures else { return decision };
    let until = at.after(backoff(*tries).min(longest));
    if s.now >= until {
        return decision;
    }
    let doing = format!("{}: {what} ({tries}×), it is tried again: {why}", decision.doing);
    let fault = since.after(FAULT_AFTER);
    // The fault is due even if the next attempt comes later.
    let look_again = if s.now < fault { until.min(fault) } else { until };
    Decision::wait(doing, Some(look_again))
}
