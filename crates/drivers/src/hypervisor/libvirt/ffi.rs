//! The few calls of libvirt's C library that the `virt` crate does not have: the event loop, and callbacks for events
//! and for the connection's end.
//!
//! All unsafe code of the driver is here. Callbacks come on the event loop's thread; each gets its closure back from
//! the opaque pointer that it was registered with, and libvirt frees that through our `free` function when the
//! registration ends.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::Once,
};
use uuid::Uuid;
use virt::{connect::Connect, domain::Domain};
use virt_sys as sys;

/// What an event callback gets: the domain's UUID.
type OnEvent = Box<dyn Fn(Uuid) + Send + Sync>;
/// What a callback of the connection's end gets: why.
type OnClose = Box<dyn Fn(&'static str) + Send + Sync>;

static EVENT_LOOP: Once = Once::new();

/// Starts libvirt's event loop on a thread of its own, once in the process. Must be called before a connection is
/// opened.
pub(super) fn start_event_loop() {
    EVENT_LOOP.call_once(|| {
        // Errors come back as values; the library need not print them too.
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
                    // Cannot happen short of running out of memory; do not spin.
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

/// The UUID of a domain that libvirt lends to a callback.
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

fn tell(domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: `opaque` is the `Box<OnEvent>` of the registration, alive until `free` is called for it.
    let callback = unsafe { &*opaque.cast::<OnEvent>() };
    if let Some(uuid) = uuid_of(domain) {
        callback(uuid);
    }
}

extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    tell(domain, opaque);
    0
}

extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    tell(domain, opaque);
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

/// The job of a domain, as libvirt tells it.
pub(super) struct Job {
    /// `virDomainJobOperation`; `None`: libvirt does not say.
    pub(super) operation: Option<u32>,
    /// Bytes to be sent in all.
    pub(super) total: u64,
    /// Bytes sent.
    pub(super) processed: u64,
    /// Bytes left.
    pub(super) remaining: u64,
    /// Bytes of memory sent in a second.
    pub(super) rate: u64,
    /// Milliseconds since its beginning.
    pub(super) elapsed: u64,
}

/// Figures that libvirt allocated, and frees.
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

/// The job that a domain is busy with; `None`: it has none. (The binding's own function builds a list out of a null
/// pointer when there is none.)
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

/// Stops the job of a domain, such as its migration.
pub(super) fn abort_job(domain: &Domain) -> Result<(), virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle.
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 { Err(virt::error::Error::last_error()) } else { Ok(()) }
}

/// Lets a migration that was begun with post-copy allowed go on at the target now.
pub(super) fn start_post_copy(domain: &Domain) -> Result<(), virt::error::Error> {
    // SAFETY: the domain is valid as long as its handle; the function knows no flags (0).
    let done = unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) };
    if done < 0 { Err(virt::error::Error::last_error()) } else { Ok(()) }
}

/// Has `callback` called for every event of a domain's life, for as long as the connection lives.
pub(super) fn watch_domains(
    connection: &Connect,
    callback: impl Fn(Uuid) + Send + Sync + Clone + 'static,
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

/// Has `callback` called when the connection ends, whyever it does.
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
