//! Failed starts and their retries.

use drover_model::{Generation, Mono};

/// Number of starts in a row refused by the hypervisor after which a VM fails: about two minutes after the first. A
/// bridge or a storage may take that long after the machine's boot.
pub const START_LIMIT: u32 = 8;

/// How a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The definition is invalid, so that a retry is of no use.
    ForGood,
    /// The hypervisor refused it; what is missing may become available.
    Refused,
    /// Unknown reason, or unknown whether it failed.
    Unknown,
}

/// Failed starts in a row, of one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailures {
    /// The definition. A later one resets the count. (Not every change of the record does: a flush that orders a move,
    /// which is given up because the VM is off, would reset it each time.)
    pub of: Generation,
    /// Number of failed starts.
    pub tries: u32,
    /// Number of those that the hypervisor refused.
    pub refusals: u32,
    /// How the last one failed.
    pub last: Failed,
    /// Time of the last one.
    pub at: Mono,
    /// Error message of the last one.
    pub why: String,
    /// It was ordered back to where it came from.
    pub sent_back: bool,
}

impl StartFailures {
    /// Adds a failure to `before`, for that definition.
    pub(super) fn after(
        before: Option<&StartFailures>,
        of: Generation,
        last: Failed,
        why: String,
        at: Mono,
    ) -> StartFailures {
        let before = before.filter(|f| f.of == of);
        let (tries, refusals) = before.map_or((0, 0), |f| (f.tries, f.refusals));
        let sent_back = before.is_some_and(|f| f.sent_back);
        let refusals = if last == Failed::Unknown { refusals } else { refusals.saturating_add(1) };
        StartFailures { of, tries: tries.saturating_add(1), refusals, last, at, why, sent_back }
    }
}
