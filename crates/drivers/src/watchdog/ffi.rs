//! The requests of the kernel's watchdog devices (include/uapi/linux/watchdog.h, Linux 6.1).
//!
//! All unsafe code of the driver is here: each request is made with a pointer to a value of the size that its number
//! says, which lives until the call is over.
#![allow(unsafe_code)]

use nix::libc::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `WDIOF_MAGICCLOSE`: it goes on counting when its process ends without the magic letter.
pub(super) const MAGIC_CLOSE: u32 = 0x0100;
/// `WDIOF_SETTIMEOUT`: its timeout can be set.
pub(super) const SET_TIMEOUT: u32 = 0x0080;
/// `WDIOF_ALARMONLY`: it raises an alarm when its time is over, and resets nothing.
pub(super) const ALARM_ONLY: u32 = 0x0400;
/// `WDIOF_KEEPALIVEPING`: it can be petted by `WDIOC_KEEPALIVE`; without it that call fails.
pub(super) const KEEP_ALIVE: u32 = 0x8000;
/// `WDIOS_DISABLECARD`
const DISABLE: c_int = 1;

/// `struct watchdog_info`
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

mod request {
    use super::Info;
    use nix::libc::c_int;

    nix::ioctl_read!(get_support, b'W', 0, Info);
    // The kernel reads the number, although it is declared the other way round.
    nix::ioctl_read!(set_options, b'W', 4, c_int);
    nix::ioctl_read!(keep_alive, b'W', 5, c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, c_int);
}

/// What a device can do, and its name.
pub(super) fn support(device: BorrowedFd<'_>) -> nix::Result<(u32, String)> {
    let mut info = Info::default();
    // SAFETY: `info` is a `struct watchdog_info`.
    unsafe { request::get_support(device.as_raw_fd(), &raw mut info) }?;
    let name = info.identity.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((info.options, String::from_utf8_lossy(name).trim().to_owned()))
}

/// Sets the timeout in seconds; returns the one that was taken.
pub(super) fn set_timeout(device: BorrowedFd<'_>, seconds: u16) -> nix::Result<u64> {
    let mut wanted = c_int::from(seconds);
    // SAFETY: `wanted` is an int.
    unsafe { request::set_timeout(device.as_raw_fd(), &raw mut wanted) }?;
    timeout(device)
}

/// The timeout in seconds.
pub(super) fn timeout(device: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut seconds: c_int = 0;
    // SAFETY: `seconds` is an int.
    unsafe { request::get_timeout(device.as_raw_fd(), &raw mut seconds) }?;
    Ok(u64::try_from(seconds).unwrap_or(0))
}

/// Starts the timer anew.
pub(super) fn keep_alive(device: BorrowedFd<'_>) -> nix::Result<()> {
    let mut unused: c_int = 0;
    // SAFETY: `unused` is an int.
    unsafe { request::keep_alive(device.as_raw_fd(), &raw mut unused) }.map(|_| ())
}

/// Stops the timer; `EBUSY` if it cannot be stopped (`nowayout`).
pub(super) fn disable(device: BorrowedFd<'_>) -> nix::Result<()> {
    let mut options = DISABLE;
    // SAFETY: `options` is an int.
    unsafe { request::set_options(device.as_raw_fd(), &raw mut options) }.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::Info;
    use nix::libc::c_int;

    /// The numbers as the kernel's header makes them: `WDIOC_GETSUPPORT` and so on.
    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(nix::request_code_read!(b'W', 0, size_of::<Info>()), 0x8028_5700);
        assert_eq!(nix::request_code_read!(b'W', 4, size_of::<c_int>()), 0x8004_5704);
        assert_eq!(nix::request_code_read!(b'W', 5, size_of::<c_int>()), 0x8004_5705);
        assert_eq!(nix::request_code_readwrite!(b'W', 6, size_of::<c_int>()), 0xc004_5706);
        assert_eq!(nix::request_code_read!(b'W', 7, size_of::<c_int>()), 0x8004_5707);
    }
}
