//! Supervision of live migrations that do not complete in time.

use drover_model::{ClusterConfig, Stall};
use std::time::Duration;

/// What to do about a live migration that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// Nothing: it goes on.
    GoOn,
    /// Abort it, and send the guest again by post-copy.
    SendAgain,
    /// Switch to post-copy: resume the guest at the target.
    Switch,
    /// Abort it.
    GiveUp,
}

/// How a migration is done, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Whole: the guest goes on at the target when all of its memory is there.
    Whole,
    /// By post-copy, which has not begun.
    ByPostCopy,
    /// By post-copy: it executes at the target.
    Switched,
}

/// Time in which a migration by post-copy can be switched, whatever the deadline is: the target's QEMU must have been
/// started, and the migration begun.
const SWITCHED_BY_THEN: Duration = Duration::from_secs(60);

/// What to do about a live migration after `elapsed`.
pub fn supervise(config: &ClusterConfig, elapsed: Duration, sent: Sent) -> Supervision {
    let late = elapsed >= Duration::from_secs(config.migration_deadline_s.into());
    match sent {
        // It cannot be aborted.
        Sent::Switched => Supervision::GoOn,
        Sent::ByPostCopy if late && elapsed >= SWITCHED_BY_THEN => Supervision::GiveUp,
        Sent::ByPostCopy => Supervision::Switch,
        Sent::Whole if !late => Supervision::GoOn,
        Sent::Whole => match config.stall {
            Stall::PostCopy => Supervision::SendAgain,
            Stall::Abort => Supervision::GiveUp,
        },
    }
}
