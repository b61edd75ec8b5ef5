//! `[watchdog]`: what resets this node's machine when it is cut off. Off, unless a device is given.

use drover_drivers::watchdog::{KernelWatchdog, Watchdog as Driver};
use drover_model::watchdog::TIMEOUT_S;
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// `[watchdog]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "expected a section: [watchdog]")]
pub(crate) struct Watchdog {
    /// The device, `/dev/watchdog`, or the Unix socket of a program that stands for one. Default: none.
    pub(crate) device: Option<PathBuf>,
    /// Its timeout, in whole seconds.
    #[serde(deserialize_with = "super::duration")]
    pub(crate) timeout: Duration,
    /// Whether a timer of the kernel (`softdog`) is good enough.
    pub(crate) software: bool,
}

impl Default for Watchdog {
    fn default() -> Watchdog {
        Watchdog { device: None, timeout: Duration::from_secs(10), software: false }
    }
}

impl Watchdog {
    /// Checks what can be checked without the device.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(device) = self.device.as_ref().filter(|device| !device.is_absolute()) {
            return Err(format!("watchdog.device is {}; accepted are absolute paths", device.display()));
        }
        let timeout = self.timeout;
        if timeout.subsec_nanos() > 0 || !TIMEOUT_S.contains(&timeout.as_secs()) {
            return Err(format!(
                "watchdog.timeout is {} s; accepted are whole seconds, \"{}s\" to \"{}s\"",
                timeout.as_secs_f32(),
                TIMEOUT_S.start(),
                TIMEOUT_S.end()
            ));
        }
        Ok(())
    }

    /// The driver; `None`: there is no watchdog. `clustered`: there are other nodes, which could count on it.
    pub(crate) fn driver(&self, clustered: bool) -> Option<Arc<dyn Driver>> {
        let device = self.device.clone().filter(|_| clustered)?;
        let timeout = u16::try_from(self.timeout.as_secs()).unwrap_or(u16::MAX);
        Some(Arc::new(KernelWatchdog::new(device, timeout, self.software)))
    }
}
