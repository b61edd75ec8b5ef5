//! This machine's watchdog: a timer that resets the machine when it runs out. The trait [`Watchdog`], the kernel's
//! device, one behind a socket, and a fake.
//!
//! When it is petted, and why, is decided in `drover_plan::selffence`.

mod device;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod ffi;
mod socket;

pub use device::KernelWatchdog;

use drover_model::Mono;
use std::time::Duration;

/// A watchdog that has been started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// What it says of itself, for people.
    pub identity: String,
    /// The timeout that it has taken: at most the one that was asked for.
    pub timeout: Duration,
}

/// Why a watchdog cannot be used. The text is for administrators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchdogError {
    /// Another program has it, which may end.
    #[error(
        "{device} is busy: another program has it. systemd is one if RuntimeWatchdogSec is set in \
         /etc/systemd/system.conf"
    )]
    Busy {
        /// The device.
        device: String,
    },
    /// It is of a kind that proves nothing. It was not started, or was stopped again.
    #[error("{device} cannot be used: {why}")]
    Unfit {
        /// The device.
        device: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// It does not work.
    #[error("{device}: cannot {what}: {why}")]
    Failed {
        /// The device.
        device: String,
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        why: String,
    },
}

/// This machine's watchdog. Calls do not block for long.
pub trait Watchdog: Send + Sync + 'static {
    /// The machine's own clock: it counts since the boot, also while the machine sleeps.
    fn now(&self) -> Mono;

    /// The timeout that it is asked for.
    fn asked(&self) -> Duration;

    /// Opens it and starts its timer; this is a pet, too. Nobody else may have it open. Only one that goes on counting
    /// when its process ends, and can be stopped by it, is accepted.
    ///
    /// # Errors
    /// See [`WatchdogError`]. After [`WatchdogError::Failed`] the timer may run.
    fn open(&self) -> Result<Started, WatchdogError>;

    /// Starts the timer anew.
    ///
    /// # Errors
    /// If it is not open, or does not work.
    fn pet(&self) -> Result<(), WatchdogError>;

    /// Stops the timer and closes it. Succeeds if it is not open.
    ///
    /// # Errors
    /// If the timer cannot be stopped: it is still open and runs.
    fn close(&self) -> Result<(), WatchdogError>;

    /// Its name, for people.
    fn name(&self) -> String;
}
