//! The few calls of libvirt's C library that the `virt` crate does not have: the event loop, and callbacks for events
//! and for the connection's end.
//!
//! All unsafe code of the driver is here. Callbacks come on the event loop's thread; each gets its closure back from
//! the opaque pointer that it was registered with, and libvirt frees that through our `free` function when the
//! registration ends.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    sync::Once,
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain};
use virt_sys as sys;

/// An event callback: gets the domain's UUID and the event.
type OnEvent = Box<dyn Fn(Uuid, Happened) + Send + Sync>;

/// A lifecycle event, as far as the driver distinguishes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// A guest was started.
    Began,
    /// A guest is about to end.
    Ending {
        /// As libvirt 9.0.0 reports it: a power-off or reset by the guest, also after the power button, is; a signal,
        /// `quit` and an error in QEMU are not (QEMU 7.2, `shutdown_caused_by_guest`).
        own_wish: bool,
    },
    /// The definition was removed.
    Undefined,
    /// Any other event.
    Other,
}

impl Happened {
    fn read(event: c_int, detail: c_int) -> Happened {
        match (u32::try_from(event), u32::try_from(detail)) {
            (Ok(sys::VIR_DOMAIN_EVENT_STARTED), _) => Happened::Began,
            (Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN), Ok(detail)) => {
                Happened::Ending { own_wish: detail != sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST }
            }
            (Ok(sys::VIR_DOMAIN_EVENT_UNDEFINED), _) => Happened::Undefined,
            _ => Happened::Other,
        }
    }
}
/// A callback for the end of the connection: gets the reason.
type OnClose = Box<dyn Fn(&'static str) + Send + Sync>;

static EVENT_LOOP: Once = Once::new();

/// Starts libvirt's event loop on its own thread, once per process. Must be called before a connection is
/// opened.
pub(super) fn start_event_loop() {
    EVENT_LOOP.call_once(|| {
        // Errors are returned; the library must not print them as well.
        virt::error::clear_error_callback();
        // SAFETY: takes no arguments; called once, before any connection exists, as the library demands.
        if unsafe { sys::virEventRegisterDefaultImpl() } != 0 {
            tracing::error!("libvirt's event loop cannot be set up; events will be missed and found by looking");
            return;
        }
        let spawned = std::thread::Builder::new().name("libvirt-events".to_owned()).spawn(|| {
            loop {
                // SAFETY: takes no arguments; only this thread runs the loop.
                if unsafe { sys::virEventRunDefaultImpl() } != 0 {
                    // Happens only without memory; do not spin.
                    std::thread::yield_now();
                }
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "libvirt's event loop has no thread; events will be missed and found by looking");
        }
    });
}

extern "C" fn free<T>(opaque: *mut c_void) {
    // SAFETY: `opaque` was made by `Box::into_raw` of a `Box<T>` when the callback was registered, and libvirt calls
    // this once.
    drop(unsafe { Box::from_raw(opaque.cast::<T>()) });
}

/// The UUID of a domain that a callback got from libvirt.
fn uuid_of(domain: sys::virDomainPtr) -> Option<Uuid> {
    // VIR_UUID_STRING_BUFLEN (36 characters and the final zero).
    let mut text: [c_char; 37] = [0; 37];
    // SAFETY: `domain` is valid for the length of the callback, and the buffer has the size that the function demands.
    if unsafe { sys::virDomainGetUUIDString(domain, text.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: on success the function has written a zero-terminated text into the buffer.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    Uuid::parse_str(text.to_str().ok()?).ok()
}

fn tell(domain: sys::virDomainPtr, happened: Happened, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Box<OnEvent>` of the registration, alive until `free` is called for it.
    let callback = unsafe { &*opaque.cast::<OnEvent>() };
    if let Some(uuid) = uuid_of(domain) {
        callback(uuid, happened);
    }
}

extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    tell(domain, Happened::read(event, detail), opaque);
    0
}

extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    tell(domain, Happened::Other, opaque);
}

extern "C" fn on_closed(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Box<OnClose>` of the registration, alive until `free` is called for it.
    let callback = unsafe { &*opaque.cast::<OnClose>() };
    callback(match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_ERROR) => "an input or output error",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "libvirtd closed it",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "libvirtd did not answer keepalives",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => "this daemon closed it",
        _ => "unknown",
    });
}

/// The job of a domain, as libvirt reports it.
pub(super) struct Job {
    /// `virDomainJobOperation`; `None`: not reported.
    pub(super) operation: Option<u32>,
    /// Bytes to send in total.
    pub(super) total: u64,
    /// Bytes sent.
    pub(super) processed: u64,
    /// Bytes remaining.
    pub(super) remaining: u64,
    /// Bytes of memory sent per second.
    pub(super) rate: u64,
    /// Milliseconds since its start.
    pub(super) elapsed: u64,
}

/// A list of parameters that libvirt allocated.
struct Figures {
    list: sys::virTypedParameterPtr,
    count: c_int,
}

impl Figures {
    fn number(&self, name: &CStr) -> Option<u64> {
        let mut value: std::ffi::c_ulonglong = 0;
        // SAFETY: the list has `count` entries (it may be null when that is 0); name and value live as long as the
        // call.
        let found = unsafe {
            sys::virTypedParamsGetULLong(self.list, self.count, name.as_ptr(), std::ptr::from_mut(&mut value))
        };
        (found == 1).then_some(value)
    }

    fn small(&self, name: &CStr) -> Option<u32> {
        let mut value: c_int = 0;
        // SAFETY: as above.
        let found =
            unsafe { sys::virTypedParamsGetInt(self.list, self.count, name.as_ptr(), std::ptr::from_mut(&mut value)) };
        (found == 1).then(|| u32::try_from(value).ok()).flatten()
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        // SAFETY: the list came from libvirt, and is freed once. Null is fine.
        unsafe { sys::virTypedParamsFree(self.list, self.count) }
    }
}

/// The job in progress on a domain; `None`: none. (The binding's own function builds a slice from a null pointer when
/// there is none.)
pub(super) fn job(domain: &Domain) -> Result<Option<Job>, virt::error::Error> {
    let mut kind: c_int = 0;
    let mut figures = Figures { list: std::ptr::null_mut(), count: 0 };
    // SAFETY: the domain is valid as long as its handle; libvirt fills in what the pointers point to, and allocates the
    // list.
    let done = unsafe {
        sys::virDomainGetJobStats(
            domain.as_ptr(),
            std::ptr::from_mut(&mut kind),
            std::ptr::from_mut(&mut figures.list),
            std::ptr::from_mut(&mut figures.count),
            0,
        )
    };
    if done < 0 {
        return Err(virt::error::Error::last_error());
    }
    if u32::try_from(kind) == Ok(sys::VIR_DOMAIN_JOB_NONE) {
        return Ok(None);
    }
    // The names are those of libvirt-domain.h, VIR_DOMAIN_JOB_*.
    let number = |name| figures.number(name).unwrap_or(0);
    Ok(Some(Job {
        operation: figures.small(c"operation"),
        total: number(c"data_total"),
        processed: number(c"data_processed"),
        remaining: number(c"data_remaining"),
        rate: number(c"memory_bps"),
        elapsed: number(c"time_elapsed"),
    }))
}

/// Whether the monitor of a running domain is occupied, and no long job (such as a migration) is in progress. libvirt
/// 9.0.0 answers without waiting for the monitor (`qemuDomainGetControlInfo`).
pub(super) fn is_occupied(domain: &Domain) -> Result<bool, virt::error::Error> {
    let mut info = sys::virDomainControlInfo { state: 0, details: 0, stateTime: 0 };
    // SAFETY: the domain is valid as long as its handle; libvirt fills in the structure; it knows no flags (0).
    if unsafe { sys::virDomainGetControlInfo(domain.as_ptr(), std::ptr::from_mut(&mut info), 0) } < 0 {
        return Err(virt::error::Error::last_error());
    }
    Ok(info.state == sys::VIR_DOMAIN_CONTROL_OCCUPIED)
}

/// How many checkpoints of a domain libvirt has notes of.
pub(super) fn checkpoints(domain: &Domain) -> Result<u32, virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle; without a list libvirt returns the number (9.0.0,
    // `virDomainListAllCheckpoints`); no flags (0).
    let number = unsafe { sys::virDomainListAllCheckpoints(domain.as_ptr(), std::ptr::null_mut(), 0) };
    u32::try_from(number).map_err(|_| virt::error::Error::last_error())
}

/// How many snapshots of a domain libvirt has notes of.
pub(super) fn snapshots(domain: &Domain) -> Result<u32, virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle; no flags (0).
    let number = unsafe { sys::virDomainSnapshotNum(domain.as_ptr(), 0) };
    u32::try_from(number).map_err(|_| virt::error::Error::last_error())
}

/// The disks of a running domain with an error since it last began to execute (`cont` forgets them, QEMU 7.2), with
/// their `virDomainDiskErrorCode`.
pub(super) fn disk_errors(domain: &Domain) -> Result<Vec<(String, u32)>, virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle; without a list libvirt returns the number of disks; it knows
    // no flags (0).
    let disks = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), std::ptr::null_mut(), 0, 0) };
    let Ok(most) = c_uint::try_from(disks) else { return Err(virt::error::Error::last_error()) };
    if most == 0 {
        return Ok(Vec::new());
    }
    let mut list =
        vec![sys::virDomainDiskError { disk: std::ptr::null_mut(), error: 0 }; disks.unsigned_abs() as usize];
    // SAFETY: as above; the list has `most` entries, of which libvirt fills in as many as it returns.
    let filled = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), list.as_mut_ptr(), most, 0) };
    let Ok(filled) = usize::try_from(filled) else { return Err(virt::error::Error::last_error()) };
    let named = list.into_iter().take(filled).map(|entry| {
        // SAFETY: libvirt has set the name to a zero-terminated text that it allocated with malloc, and that is ours.
        let name = unsafe { CStr::from_ptr(entry.disk) }.to_string_lossy().into_owned();
        // SAFETY: as above; freed once.
        unsafe { nix::libc::free(entry.disk.cast()) };
        (name, u32::try_from(entry.error).unwrap_or(0))
    });
    Ok(named.collect())
}

/// Aborts the job of a domain, such as its migration.
pub(super) fn abort_job(domain: &Domain) -> Result<(), virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 { Err(virt::error::Error::last_error()) } else { Ok(()) }
}

/// Switches a migration that allows post-copy to the target now.
pub(super) fn start_post_copy(domain: &Domain) -> Result<(), virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle; the function knows no flags (0).
    let done = unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) };
    if done < 0 { Err(virt::error::Error::last_error()) } else { Ok(()) }
}

/// Registers `callback` for every lifecycle event of all domains, until the connection ends.
pub(super) fn watch_domains(
    connection: &Connect,
    callback: impl Fn(Uuid, Happened) + Send + Sync + Clone + 'static,
) -> Result<(), virt::error::Error> {
    // SAFETY: libvirt calls a lifecycle callback with exactly `on_lifecycle`'s arguments; the generic type is how it is
    // handed over (libvirt-domain.h, VIR_DOMAIN_EVENT_CALLBACK).
    let lifecycle: sys::virConnectDomainEventGenericCallback = Some(unsafe {
        std::mem::transmute::<
            extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int,
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
        >(on_lifecycle)
    });
    let reboot: sys::virConnectDomainEventGenericCallback = Some(on_reboot);
    for (event, function) in
        [(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle), (sys::VIR_DOMAIN_EVENT_ID_REBOOT, reboot)]
    {
        let boxed: OnEvent = Box::new(callback.clone());
        let opaque = Box::into_raw(Box::new(boxed)).cast::<c_void>();
        // SAFETY: the connection is open; a null domain means all of them; `opaque` lives until `free::<OnEvent>` is
        // called for it.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connection.as_ptr(),
                std::ptr::null_mut(),
                c_int::try_from(event).unwrap_or(0),
                function,
                opaque,
                Some(free::<OnEvent>),
            )
        };
        if id < 0 {
            // A refused registration is not freed by libvirt.
            free::<OnEvent>(opaque);
            return Err(virt::error::Error::last_error());
        }
    }
    Ok(())
}

/// Registers `callback` for the end of the connection, whatever the reason.
pub(super) fn watch_connection(
    connection: &Connect,
    callback: impl Fn(&'static str) + Send + Sync + 'static,
) -> Result<(), virt::error::Error> {
    let boxed: OnClose = Box::new(callback);
    let opaque = Box::into_raw(Box::new(boxed)).cast::<c_void>();
    // SAFETY: the connection is open; `opaque` lives until `free::<OnClose>` is called for it.
    let done = unsafe {
        sys::virConnectRegisterCloseCallback(connection.as_ptr(), Some(on_closed), opaque, Some(free::<OnClose>))
    };
    if done < 0 {
        free::<OnClose>(opaque);
        return Err(virt::error::Error::last_error());
    }
    Ok(())
}
