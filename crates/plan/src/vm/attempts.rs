//! What a VM's task remembers of attempts that failed, or that are made once.

use drover_model::{Epoch, Mono, Version};
use std::time::Duration;

/// Back-off after the `n`th crash, or failed start, in a row: 1 s, 2 s, 4 s, ... at most 60 s.
pub fn backoff(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        n => Duration::from_secs(1u64 << (n - 1).min(6)).min(Duration::from_secs(60)),
    }
}

/// Time after the first failed attempt at which a guest that cannot be killed, or cannot execute where it was sent, is
/// a fault.
pub const FAULT_AFTER: Duration = Duration::from_secs(60);

/// Failed attempts in a row to cut a guest's power, or to let it execute after its migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// The epoch of the guest.
    pub of: Epoch,
    /// Number of attempts.
    pub tries: u32,
    /// Time of the first failure.
    pub since: Mono,
    /// Time of the last one.
    pub at: Mono,
    /// What the hypervisor said last.
    pub why: String,
}

impl Failures {
    pub(super) fn after(before: Option<&Failures>, of: Epoch, why: String, at: Mono) -> Failures {
        let before = before.filter(|failures| failures.of == of);
        let (tries, since) = before.map_or((0, at), |failures| (failures.tries, failures.since));
        Failures { of, tries: tries.saturating_add(1), since, at, why }
    }

    /// Whether an administrator should know.
    pub fn is_fault(&self, now: Mono) -> bool {
        now.since(self.since) >= FAULT_AFTER
    }
}

/// An attempt to pause, resume or wake a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acted {
    /// The version of the record with the order.
    pub of: Version,
    /// When.
    pub at: Mono,
    /// Why the hypervisor refused; `None`: it did it.
    pub refused: Option<String>,
}
