//! Faults in the API, and the orders in which they are listed.

use crate::{
    Fault,
    words::{words, written_as_words},
};
use serde::{Deserialize, Serialize};

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FaultInfo {
    /// Identifies the cause.
    pub id: String,
    /// When it was first seen: milliseconds since 1970, UTC.
    pub first_reported: u64,
    /// When it was last seen.
    pub last_reported: u64,
    /// When it was acknowledged; 0: it was not.
    pub acknowledged_at: u64,
    /// `new` or `ack`.
    pub status: String,
    /// Deduction from the cluster's health, in percent.
    pub health_delta: u8,
    /// What is wrong and what to do.
    pub message: String,
}

impl From<&Fault> for FaultInfo {
    fn from(fault: &Fault) -> FaultInfo {
        FaultInfo {
            id: fault.id.clone(),
            first_reported: fault.first_reported.0,
            last_reported: fault.last_reported.0,
            acknowledged_at: fault.acknowledged_at.map_or(0, |t| t.0),
            status: if fault.acknowledged_at.is_some() { "ack" } else { "new" }.to_owned(),
            health_delta: fault.health_delta,
            message: fault.message.clone(),
        }
    }
}

/// Keys to sort faults by: the names of their fields. Equal ones are sorted by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKey {
    /// When each was first seen.
    FirstReported,
    /// When each was last seen.
    LastReported,
    /// When it was acknowledged; unacknowledged ones come first.
    AcknowledgedAt,
    /// By the alphabet: `ack`, `new`.
    Status,
    /// Deduction from the cluster's health, smallest first.
    HealthDelta,
    /// By the alphabet.
    Message,
}
words!(
    FaultKey,
    "key to list faults by",
    FirstReported = "first_reported",
    LastReported = "last_reported",
    AcknowledgedAt = "acknowledged_at",
    Status = "status",
    HealthDelta = "health_delta",
    Message = "message"
);
written_as_words!(FaultKey);

impl FaultKey {
    /// Sorts faults that are sorted by id by this key.
    pub fn sort(self, faults: &mut [FaultInfo]) {
        match self {
            FaultKey::FirstReported => faults.sort_by_key(|f| f.first_reported),
            FaultKey::LastReported => faults.sort_by_key(|f| f.last_reported),
            FaultKey::AcknowledgedAt => faults.sort_by_key(|f| f.acknowledged_at),
            FaultKey::Status => faults.sort_by(|a, b| a.status.cmp(&b.status)),
            FaultKey::HealthDelta => faults.sort_by_key(|f| f.health_delta),
            FaultKey::Message => faults.sort_by(|a, b| a.message.cmp(&b.message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_sorted_by_any_of_their_fields() {
        let fault = |id: &str, first, last, acknowledged, delta, message: &str| FaultInfo {
            id: id.to_owned(),
            first_reported: first,
            last_reported: last,
            acknowledged_at: acknowledged,
            status: if acknowledged > 0 { "ack" } else { "new" }.to_owned(),
            health_delta: delta,
            message: message.to_owned(),
        };
        let all = [fault("a", 3, 5, 0, 10, "n"), fault("b", 1, 6, 9, 10, "m"), fault("c", 2, 4, 8, 5, "o")];
        let by = |key: FaultKey| {
            let mut faults = all.clone();
            key.sort(&mut faults);
            faults.map(|f| f.id).concat()
        };
        for (key, order) in [
            (FaultKey::FirstReported, "bca"),
            (FaultKey::LastReported, "cab"),
            (FaultKey::AcknowledgedAt, "acb"),
            (FaultKey::Status, "bca"),
            (FaultKey::HealthDelta, "cab"),
            (FaultKey::Message, "bac"),
        ] {
            assert_eq!(by(key), order, "{key}");
        }
    }
}
