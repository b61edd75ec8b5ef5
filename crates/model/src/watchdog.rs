//! A node's promise that its machine is reset when the node is cut off, by a watchdog.
//!
//! A watchdog is a timer that resets its machine when it runs out. A node with an armed one renews a record, and keeps
//! the timer from running out only while the renewals are acknowledged. So whoever sees that the record has not changed
//! for the time that is promised in it knows that this boot of the machine has ended.

use crate::{
    name::NodeName,
    record::{RecordKind, Writer},
};
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, time::Duration};

/// The layout version of this module's record.
pub const WATCHDOG_SCHEMA: u32 = 1;

/// Timeouts of a watchdog that are accepted, in seconds. Shorter ones would reset a machine that is only slow for a
/// moment, or whose daemon is being started again; longer ones prove too late.
pub const TIMEOUT_S: RangeInclusive<u64> = 5..=60;

/// `/watchdogs/<node>`: what the node's daemon promises about one boot of its machine. Renewed all the time while the
/// watchdog is armed; deleted by whoever has used it as a proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The machine's boot.
    pub boot: String,
    /// So long after the sending of the last renewal this boot has ended, in milliseconds. With every margin: others
    /// count it by their own clocks, from when they saw the renewal. `None`: nothing is promised (the watchdog was
    /// disarmed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_after_ms: Option<u64>,
    /// The watchdog's timeout, in milliseconds; for people.
    #[serde(default)]
    pub timeout_ms: u64,
    /// Number of renewals.
    #[serde(default)]
    pub beat: u64,
}

impl Promise {
    /// See [`Promise::gone_after_ms`].
    pub fn gone_after(&self) -> Option<Duration> {
        self.gone_after_ms.map(Duration::from_millis)
    }
}

impl RecordKind for Promise {
    type Key = NodeName;
    const AT: &'static str = "/watchdogs/*";
    const SCHEMA: u32 = WATCHDOG_SCHEMA;
    const WRITER: Writer = Writer::Node;
}

/// A node's report about its watchdog.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WatchdogReport {
    /// What it is, for people: the device, and what it says of itself.
    #[serde(default)]
    pub what: String,
    /// Whether it is armed, and others may count on it.
    #[serde(default)]
    pub armed: bool,
    /// Its timeout, in seconds; 0: not known.
    #[serde(default)]
    pub timeout_s: u64,
    /// Why it is not armed; empty: it is.
    #[serde(default)]
    pub why_not: String,
    /// Whether something is wrong, and not only switched off on purpose.
    #[serde(default)]
    pub failed: bool,
}
