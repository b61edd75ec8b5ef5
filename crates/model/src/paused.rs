//! Why a guest that is in memory does not execute, and what an administrator can do about it.
//!
//! To libvirt these are several states with reasons; in Drover's records they are one run state
//! ([`RunState::Paused`](crate::RunState)), which daemons of all versions know, and this reason beside it.

use crate::name::VmName;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// Why a guest does not execute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Paused {
    /// The reason.
    pub by: PausedBy,
    /// For [`PausedBy::IoError`]: the disks with an error, as far as known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskError>,
}

/// The reason why a guest does not execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PausedBy {
    /// Somebody paused it: by Drover, or on the node.
    Administrator,
    /// A disk returned an error, and its error policy is to stop the guest.
    IoError,
    /// The guest suspended itself to memory (ACPI S3).
    Asleep,
    /// The guest crashed, and its definition says that it is kept for inspection (`preserve`).
    Crashed,
    /// The guest did not serve its watchdog, and the watchdog's action is to pause it.
    Watchdog,
    /// For a while: libvirt starts, saves, dumps, copies or ends it.
    Busy,
    /// It is on its way to another node, or from one.
    Migrating,
    /// Its migration by post-copy broke off: parts of its memory are at either end.
    PostCopyFailed,
    /// The hypervisor does not say, or an older daemon reported it.
    #[default]
    Unknown,
}

/// A disk that returned an error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiskError {
    /// The disk's target device: `vda`.
    pub disk: String,
    /// The error.
    pub error: DiskProblem,
}

/// An error of a disk, as far as QEMU tells errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskProblem {
    /// Its storage is full.
    NoSpace,
    /// Any other.
    Failed,
}

impl PausedBy {
    /// The word for API clients.
    pub fn word(self) -> &'static str {
        match self {
            PausedBy::Administrator => "administrator",
            PausedBy::IoError => "io-error",
            PausedBy::Asleep => "asleep",
            PausedBy::Crashed => "crashed",
            PausedBy::Watchdog => "watchdog",
            PausedBy::Busy => "busy",
            PausedBy::Migrating => "migrating",
            PausedBy::PostCopyFailed => "post-copy-failed",
            PausedBy::Unknown => "unknown",
        }
    }

    /// Whether the guest stays so until somebody does something. Otherwise it passes by itself.
    pub fn lasts(self) -> bool {
        !matches!(self, PausedBy::Busy | PausedBy::Migrating)
    }

    /// Whether it can execute again: by [`PausedBy::Asleep`] it is woken, otherwise resumed.
    pub fn can_resume(self) -> bool {
        match self {
            PausedBy::Administrator | PausedBy::IoError | PausedBy::Asleep | PausedBy::Watchdog | PausedBy::Unknown => {
                true
            }
            PausedBy::Crashed | PausedBy::Busy | PausedBy::Migrating | PausedBy::PostCopyFailed => false,
        }
    }

    /// Whether it is a problem that an administrator must solve. (Nobody paused it, and it did not choose so itself.)
    pub fn is_fault(self) -> bool {
        match self {
            PausedBy::IoError | PausedBy::Crashed | PausedBy::Watchdog | PausedBy::PostCopyFailed => true,
            PausedBy::Administrator | PausedBy::Asleep | PausedBy::Busy | PausedBy::Migrating | PausedBy::Unknown => {
                false
            }
        }
    }

    /// What an administrator can do, as a part of a sentence; empty: nothing, it passes.
    pub fn way_on(self, vm: &VmName) -> String {
        match self {
            PausedBy::Administrator | PausedBy::Watchdog | PausedBy::Unknown => {
                format!("'drover vm resume {vm}' lets it run on, 'drover vm stop {vm}' cuts its power")
            }
            PausedBy::IoError => {
                format!("remove the cause, then 'drover vm resume {vm}'; 'drover vm stop {vm}' cuts its power")
            }
            PausedBy::Asleep => format!("'drover vm start {vm}' wakes it, 'drover vm stop {vm}' cuts its power"),
            PausedBy::Crashed => {
                format!("inspect it, then 'drover vm stop {vm}' cuts its power, and 'drover vm start {vm}' boots it")
            }
            PausedBy::PostCopyFailed => {
                format!("see 'drover vm info {vm}'; 'drover vm stop {vm}' cuts its power, and its memory is lost")
            }
            PausedBy::Busy | PausedBy::Migrating => String::new(),
        }
    }
}

/// What is the matter, as the end of a sentence: *the guest ...*.
impl fmt::Display for PausedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PausedBy::Administrator => "is paused by an administrator",
            PausedBy::IoError => "is paused by an I/O error",
            PausedBy::Asleep => "is asleep (suspended to memory)",
            PausedBy::Crashed => "has crashed, and is kept for inspection",
            PausedBy::Watchdog => "is paused by its watchdog",
            PausedBy::Busy => "is paused for a moment by the hypervisor",
            PausedBy::Migrating => "is paused while it migrates",
            PausedBy::PostCopyFailed => "is paused because its migration by post-copy broke off",
            PausedBy::Unknown => "is paused for an unknown reason",
        })
    }
}

impl fmt::Display for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.by.fmt(f)?;
        for (n, DiskError { disk, error }) in self.disks.iter().enumerate() {
            let what = match error {
                DiskProblem::NoSpace => "has no space left",
                DiskProblem::Failed => "failed",
            };
            write!(f, "{} disk {disk} {what}", if n == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

impl From<PausedBy> for Paused {
    fn from(by: PausedBy) -> Paused {
        Paused { by, disks: Vec::new() }
    }
}

/// Reads a reason as a whole or not at all: a later version may have more of them, and the guest is paused anyway.
pub(crate) fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Paused>, D::Error> {
    let said = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(said.and_then(|said| serde_json::from_value(said).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, RunState, VmStatus, WallTime, testing::name};
    use serde_json::json;

    #[test]
    fn a_report_with_an_unknown_reason_or_none_is_read() {
        let report = VmStatus { run: Some(RunState::Paused), ..VmStatus::new(name("a"), Epoch(1), WallTime(0)) };
        let full = DiskError { disk: "vda".to_owned(), error: DiskProblem::NoSpace };
        let stopped = Paused { by: PausedBy::IoError, disks: vec![full] };
        let mut document = serde_json::to_value(VmStatus { paused: Some(stopped.clone()), ..report.clone() }).unwrap();
        assert_eq!(document["paused"], json!({"by": "io-error", "disks": [{"disk": "vda", "error": "no-space"}]}));
        assert_eq!(serde_json::from_value::<VmStatus>(document.clone()).unwrap().paused, Some(stopped.clone()));
        document["paused"] = json!({"by": "a-later-reason"});
        assert_eq!(serde_json::from_value::<VmStatus>(document.clone()).unwrap(), report);
        document.as_object_mut().unwrap().remove("paused");
        assert_eq!(serde_json::from_value::<VmStatus>(document).unwrap(), report);
        assert_eq!(stopped.to_string(), "is paused by an I/O error: disk vda has no space left");
    }

    #[test]
    fn whoever_must_be_resumed_is_told_how() {
        use PausedBy::*;
        let vm = VmName::new("web").unwrap();
        for by in [Administrator, IoError, Asleep, Crashed, Watchdog, Busy, Migrating, PostCopyFailed, Unknown] {
            assert_eq!(by.lasts(), !by.way_on(&vm).is_empty(), "{by:?}");
            assert!(by.lasts() || !by.can_resume() && !by.is_fault(), "{by:?}");
            assert_eq!(serde_json::to_value(by).unwrap(), by.word());
        }
    }
}
