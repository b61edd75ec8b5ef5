//! The kernel's watchdog device.
//!
//! Facts, from drivers/watchdog/watchdog_dev.c and softdog.c of Linux 6.1 (Debian 12):
//!
//! * To open it starts it, or pets it if it runs. It can be open once; another attempt gets `EBUSY`.
//! * To close it stops it only after the magic letter `V`, or if the driver has no `WDIOF_MAGICCLOSE`. Else it goes on
//!   counting, and closing it pets it once more. So a driver without that option proves nothing: it stops when the
//!   daemon is killed.
//! * With `nowayout` it cannot be stopped at all; then to stop the daemon would reset the machine. That is asked of
//!   sysfs before it is opened.
//! * `softdog` is a timer of the kernel: a kernel that hangs, or a virtual machine that is frozen, is not reset by it.
//!   It is used only if the administrator says so. Loaded with `soft_noboot=1` it resets nothing, and that cannot be
//!   seen: the parameter is not in sysfs.
//! * A driver with `WDIOF_ALARMONLY` resets nothing. One without `WDIOF_KEEPALIVEPING` refuses `WDIOC_KEEPALIVE`.

use super::{Started, Watchdog, WatchdogError, ffi, socket::SocketWatchdog};
use drover_model::{Mono, watchdog::TIMEOUT_S};
use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What `softdog` says of itself.
const SOFTWARE: &str = "Software Watchdog";

/// A watchdog of the kernel, or one behind a Unix socket in its place (`socket`).
#[derive(Debug)]
pub struct KernelWatchdog {
    path: PathBuf,
    timeout: u16,
    software: bool,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
enum Open {
    Device(File),
    Socket(SocketWatchdog),
}

impl KernelWatchdog {
    /// The device at this path, with a timeout in seconds. `software`: `softdog` is accepted. Nothing is opened yet.
    pub fn new(path: PathBuf, timeout: u16, software: bool) -> KernelWatchdog {
        KernelWatchdog { path, timeout, software, open: Mutex::default() }
    }

    fn failed(&self, what: &'static str, why: impl ToString) -> WatchdogError {
        WatchdogError::Failed { device: self.name(), what, why: why.to_string() }
    }

    fn unfit(&self, why: impl Into<String>) -> WatchdogError {
        WatchdogError::Unfit { device: self.name(), why: why.into() }
    }

    fn open_device(&self) -> Result<(File, Started), WatchdogError> {
        match fs::read_to_string(nowayout(&self.path)) {
            Ok(text) if text.trim() == "0" => {}
            Ok(_) => {
                return Err(self.unfit(
                    "its driver was loaded with nowayout, so that it could not be stopped, and the machine would be \
                     reset whenever droverd is stopped. Load it without",
                ));
            }
            Err(error) => {
                return Err(self.unfit(format!(
                    "it cannot be found out whether it can be stopped: {}: {error}",
                    nowayout(&self.path).display()
                )));
            }
        }
        let device = OpenOptions::new().write(true).open(&self.path).map_err(|error| {
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EBUSY) => WatchdogError::Busy { device: self.name() },
                _ => self.failed("open it", error),
            }
        })?;
        match self.examine(&device) {
            Ok(started) => Ok((device, started)),
            Err(error) => {
                stop(&device).map_err(|why| self.failed("stop it", why))?;
                Err(error)
            }
        }
    }

    /// Sets the timeout, and looks whether it is one that proves anything.
    fn examine(&self, device: &File) -> Result<Started, WatchdogError> {
        let (options, identity) =
            ffi::support(device.as_fd()).map_err(|error| self.unfit(format!("it is no watchdog: {error}")))?;
        if let Some(why) = unfit(options, &identity, self.software) {
            return Err(self.unfit(why));
        }
        let taken = if options & ffi::SET_TIMEOUT == 0 {
            ffi::timeout(device.as_fd())
        } else {
            ffi::set_timeout(device.as_fd(), self.timeout)
        };
        let timeout = Duration::from_secs(taken.map_err(|error| self.failed("set its timeout", error))?);
        // What was promised counts on it.
        if timeout.as_secs() < *TIMEOUT_S.start() || timeout > self.asked() {
            let why = format!(
                "its timeout is {} s, and {} s were asked for; try another watchdog.timeout",
                timeout.as_secs(),
                self.timeout
            );
            return Err(self.unfit(why));
        }
        Ok(Started { identity, timeout })
    }
}

/// Why a device that says this of itself proves nothing. `software`: `softdog` is accepted.
fn unfit(options: u32, identity: &str, software: bool) -> Option<String> {
    if options & ffi::ALARM_ONLY != 0 {
        return Some(format!("{identity:?} raises an alarm, and does not reset the machine"));
    }
    if options & ffi::KEEP_ALIVE == 0 {
        return Some(format!("{identity:?} cannot be told that the daemon is alive"));
    }
    if options & ffi::MAGIC_CLOSE == 0 {
        return Some(format!("{identity:?} stops when its process is killed"));
    }
    (identity == SOFTWARE && !software).then(|| {
        "it is a timer of the kernel (softdog), which does not reset a machine whose kernel hangs or that is frozen. \
         If that is good enough, set watchdog.software = true"
            .to_owned()
    })
}

/// Stops a device, also without `WDIOS_DISABLECARD` if the driver does not know that: then the letter does it when the
/// device is closed.
fn stop(mut device: &File) -> Result<(), String> {
    match ffi::disable(device.as_fd()) {
        Ok(()) | Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
        Err(error) => return Err(error.to_string()),
    }
    device.write_all(b"V").map_err(|error| error.to_string())
}

/// The file that says whether a device cannot be stopped. `/dev/watchdog` is the first one (`watchdog_cdev_register`).
fn nowayout(device: &Path) -> PathBuf {
    let name = device.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = if name == "watchdog" { "watchdog0" } else { name };
    Path::new("/sys/class/watchdog").join(name).join("nowayout")
}

impl Watchdog for KernelWatchdog {
    fn now(&self) -> Mono {
        // It cannot fail for a clock that every Linux has.
        let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Mono::default().after(since)
    }

    fn asked(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    fn open(&self) -> Result<Started, WatchdogError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_some() {
            return Err(WatchdogError::Busy { device: self.name() });
        }
        let is_socket = fs::metadata(&self.path).is_ok_and(|facts| facts.file_type().is_socket());
        let (opened, started) = if is_socket {
            let timeout = self.asked();
            let socket = SocketWatchdog::start(&self.path, timeout).map_err(|why| self.failed("start it", why))?;
            (Open::Socket(socket), Started { identity: "behind a socket".to_owned(), timeout })
        } else {
            let (device, started) = self.open_device()?;
            (Open::Device(device), started)
        };
        *open = Some(opened);
        Ok(started)
    }

    fn pet(&self) -> Result<(), WatchdogError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match open.as_mut() {
            Some(Open::Device(device)) => ffi::keep_alive(device.as_fd()).map_err(|error| error.to_string()),
            Some(Open::Socket(socket)) => socket.pet().map_err(|error| error.to_string()),
            None => Err("it is not open".to_owned()),
        };
        done.map_err(|why| self.failed("pet it", why))
    }

    fn close(&self) -> Result<(), WatchdogError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let done = match open.as_mut() {
            Some(Open::Device(device)) => stop(device),
            Some(Open::Socket(socket)) => socket.stop().map_err(|error| error.to_string()),
            None => Ok(()),
        };
        done.map_err(|why| self.failed("stop it", why))?;
        *open = None;
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_watchdog_is_not_used() {
        let open = |path: &str| KernelWatchdog::new(path.into(), 10, false).open();
        let Err(WatchdogError::Unfit { why, .. }) = open("/dev/null") else { panic!("it was opened") };
        assert!(why.contains("/sys/class/watchdog/null/nowayout"), "{why}");
        assert_eq!(nowayout(Path::new("/dev/watchdog")), Path::new("/sys/class/watchdog/watchdog0/nowayout"));
        assert_eq!(nowayout(Path::new("/dev/watchdog1")), Path::new("/sys/class/watchdog/watchdog1/nowayout"));
        // As if sysfs had said yes.
        let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let watchdog = KernelWatchdog::new("/dev/null".into(), 10, false);
        assert!(matches!(watchdog.examine(&null), Err(WatchdogError::Unfit { .. })));
        assert!(matches!(watchdog.pet(), Err(WatchdogError::Failed { .. })));
        assert_eq!(watchdog.close(), Ok(()));
    }

    #[test]
    fn a_device_that_would_not_reset_a_machine_without_its_daemon_is_not_used() {
        // What iTCO_wdt says of itself (Linux 6.1).
        let fit = ffi::SET_TIMEOUT | ffi::KEEP_ALIVE | ffi::MAGIC_CLOSE;
        assert_eq!(unfit(fit, "iTCO_wdt", false), None);
        assert_eq!(unfit(fit, SOFTWARE, true), None);
        for (options, identity, why) in [
            (fit | ffi::ALARM_ONLY, "an alarm", "does not reset"),
            (fit & !ffi::KEEP_ALIVE, "deaf", "cannot be told"),
            (fit & !ffi::MAGIC_CLOSE, "simple", "stops when its process is killed"),
            (fit, SOFTWARE, "watchdog.software = true"),
        ] {
            let said = unfit(options, identity, false);
            assert!(said.as_ref().is_some_and(|said| said.contains(why)), "{identity}: {said:?}");
        }
    }

    #[test]
    fn the_clock_counts() {
        let watchdog = KernelWatchdog::new("/dev/null".into(), 10, false);
        let before = watchdog.now();
        assert!(before > Mono::default());
        std::thread::sleep(Duration::from_millis(20));
        assert!(watchdog.now().since(before) >= Duration::from_millis(20));
    }
}
