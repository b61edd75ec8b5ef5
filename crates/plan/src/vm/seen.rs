//! A domain as observed.

use drover_model::{Claim, OffReason, PausedBy, RunState, Transit, domain::Mark};

/// The domain's state as reported by the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Run state.
    pub run: RunState,
    /// Why it is off, if it is.
    pub off: Option<OffReason>,
    /// Why it does not execute, if it is paused.
    pub paused: Option<PausedBy>,
    /// The epoch and the definition that it was started with.
    pub mark: Mark,
    /// Whether it is being migrated to another node.
    pub sending: bool,
    /// Whether it is in memory without a definition: when it ends, nothing is left that says how.
    pub transient: bool,
    /// What its state says of a migration, from here or to here.
    pub transit: Option<Transit>,
}

impl Seen {
    /// Whether part of the guest's memory is on another node.
    pub(super) fn is_torn(&self) -> bool {
        matches!(self.transit, Some(Transit::Split | Transit::Broken))
    }
}

/// Whether a domain in that run state uses memory.
pub(super) fn in_memory(run: RunState) -> bool {
    run != RunState::Off
}

impl Seen {
    /// Why it does not execute although it is in memory; `None`: it executes, or is off.
    pub(super) fn why_paused(&self) -> Option<PausedBy> {
        (self.run == RunState::Paused).then(|| self.paused.unwrap_or_default())
    }
}

/// Whether a VM's guest, which was in memory here under this node's claim, is gone without an end. (What was on its way
/// here, and has not executed, may be dropped by libvirt without a trace.)
pub(super) fn vanished(claim: &Claim, seen: Option<&Seen>, was_in_memory: bool) -> bool {
    claim.to.is_none()
        && !claim.resume
        && match seen {
            None => was_in_memory,
            Some(seen) => {
                let mark = seen.mark.epoch;
                seen.off == Some(OffReason::Migrated) && (mark == claim.epoch || claim.adopts == Some(mark))
            }
        }
}
