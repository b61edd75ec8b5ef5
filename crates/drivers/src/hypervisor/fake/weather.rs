//! Latency and faults of a fake machine.

use std::ops::Range;

/// Latency and failures of calls, and the behaviour of guests. Default: no latency, no failures, obedient guests.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Latency of a call, in milliseconds.
    pub latency_ms: Range<u64>,
    /// How many of 1000 calls take three times their caller's timeout, and take effect all the same.
    pub hang_per_mille: u64,
    /// How many of 1000 starts are refused.
    pub refuse_per_mille: u64,
    /// How many of 1000 starts end at once without an answer and without effect.
    pub broken_per_mille: u64,
    /// How many of 1000 events are lost.
    pub lost_event_per_mille: u64,
    /// How many of 1000 guests that are asked to power off ignore it.
    pub stubborn_per_mille: u64,
    /// How many of 1000 guests that are asked to power off hang, and the call with them, until their power is cut.
    pub hung_per_mille: u64,
    /// Time that a guest takes to power off, in milliseconds.
    pub power_off_ms: Range<u64>,
    /// Duration of a migration to another machine, in milliseconds.
    pub transfer_ms: Range<u64>,
    /// How many of 1000 guests that are sent do not arrive.
    pub astray_per_mille: u64,
    /// How many of 1000 guests that have come here cannot continue here: they continue where they were, and their
    /// definition stays here, off.
    pub botched_per_mille: u64,
    /// How many of 1000 attempts to cut a guest's power fail, because its process does not end.
    pub unkillable_per_mille: u64,
    /// How many of 1000 guests that are resumed after an I/O error have it again.
    pub still_broken_per_mille: u64,
    /// For how many of 1000 guests that have left here the answer is lost: they continue here, too.
    pub unanswered_per_mille: u64,
    /// How many of 1000 guests that have left here stay paused at both ends, because libvirtd was restarted.
    pub stuck_per_mille: u64,
    /// For how many of 1000 guests that have left here by post-copy the link breaks before all memory has followed.
    pub torn_per_mille: u64,
}
