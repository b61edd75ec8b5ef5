//! Limits on what clients may use of the daemon: connections and request bodies.
//!
//! They hold before a token is known, so that nobody without one can take the API away from others, or descriptors and
//! memory from the daemon's own work: its store, its hypervisor and the primary's lease need both.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// Maximum size of a request's body, in bytes. The largest useful one is a form with a percent-encoded domain XML.
pub(crate) const BODY_MAX: usize = 1 << 20;
/// Maximum size of all request bodies that are being received, in bytes.
const BODIES_MAX: usize = 16 << 20;
/// Maximum number of connections to the API.
const CONNECTIONS: usize = 2048;
/// Maximum number of connections of one client, if there are descriptors for [`CONNECTIONS`].
const CONNECTIONS_OF_ONE: usize = 256;
/// File descriptors that are not for the API: those of the store, libvirt, the consoles and disks of guests. A daemon
/// with 100 running guests uses about 60.
const RESERVED: u64 = 256;
/// Pause between two warnings about refused connections.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Counts connections and bodies. Shared by all listeners of a daemon.
#[derive(Debug)]
pub(crate) struct Limits {
    connections: usize,
    of_one: usize,
    open: Mutex<Open>,
    /// Permits for a KiB each.
    bodies: Semaphore,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
    warned: Option<Instant>,
}

/// An open connection, until dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    limits: Arc<Limits>,
    client: IpAddr,
}

impl Limits {
    /// The limits of a process that may have this many open files. A request may need a second descriptor besides its
    /// connection: that of a log, or of the connection to another node.
    pub(crate) fn of(open_files: u64) -> Limits {
        let possible = usize::try_from(open_files.saturating_sub(RESERVED) / 2).unwrap_or(CONNECTIONS);
        let connections = possible.clamp(8, CONNECTIONS);
        let of_one = (connections / 4).clamp(4, CONNECTIONS_OF_ONE);
        Limits { connections, of_one, open: Mutex::default(), bodies: Semaphore::new(BODIES_MAX / 1024) }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new connection; `None`: it must be refused.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Connection> {
        let client = client(peer);
        let mut open = self.open();
        let of_client = open.by_client.get(&client).copied().unwrap_or(0);
        if open.all >= self.connections || of_client >= self.of_one {
            if open.warned.is_none_or(|at| at.elapsed() >= WARN_AGAIN) {
                open.warned = Some(Instant::now());
                let (all, of_one) = (self.connections, self.of_one);
                tracing::warn!(
                    %peer, open = open.all, of_client, all, of_one,
                    "too many connections to the API: one is refused"
                );
            }
            return None;
        }
        open.all += 1;
        open.by_client.insert(client, of_client + 1);
        drop(open);
        Some(Connection { limits: self.clone(), client })
    }

    /// Waits until a body of that size may be received; the permit is for the time in which it is in memory.
    pub(crate) async fn body(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kib = bytes.min(BODY_MAX).div_ceil(1024);
        // Fails only if the semaphore is closed, which it never is.
        self.bodies.acquire_many(u32::try_from(kib).ok()?).await.ok()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.limits.open();
        open.all = open.all.saturating_sub(1);
        match open.by_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = open.by_client.remove(&self.client),
        }
    }
}

/// The address by which a client is counted. A host has a whole /64 of IPv6 addresses (RFC 6177).
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(ip) if !ip.is_unicast_link_local() && !ip.is_loopback() => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn limits_follow_the_descriptors() {
        for (open_files, all, of_one) in
            [(524_288, 2048, 256), (1024, 384, 96), (4096, 1920, 256), (64, 8, 4), (u64::MAX, 2048, 256)]
        {
            let limits = Limits::of(open_files);
            assert_eq!((limits.connections, limits.of_one), (all, of_one), "{open_files}");
        }
    }

    #[test]
    fn one_client_cannot_take_all_connections_and_gives_them_back() {
        let limits = Arc::new(Limits::of(1024));
        let mut held: Vec<_> = (0..96).map(|_| limits.admit(ip("192.0.2.1")).unwrap()).collect();
        assert!(limits.admit(ip("192.0.2.1")).is_none());
        assert!(limits.admit(ip("::ffff:192.0.2.1")).is_none(), "the same client");
        held.push(limits.admit(ip("192.0.2.2")).unwrap());
        held.remove(0);
        held.push(limits.admit(ip("192.0.2.1")).unwrap());
        // A /64 is one client.
        held.extend((0..96).map(|n| limits.admit(ip(&format!("2001:db8::{n}"))).unwrap()));
        assert!(limits.admit(ip("2001:db8::ffff")).is_none());
        // All together.
        held.extend((0..191).map(|n| limits.admit(ip(&format!("198.51.100.{n}"))).unwrap()));
        assert!(limits.admit(ip("203.0.113.1")).is_none());
        drop(held);
        let open = limits.open();
        assert_eq!((open.all, open.by_client.len()), (0, 0));
    }

    #[tokio::test]
    async fn bodies_wait_for_each_other() {
        use futures_util::FutureExt;
        let limits = Limits::of(1024);
        let mut held = Vec::new();
        for _ in 0..BODIES_MAX / BODY_MAX {
            held.push(limits.body(BODY_MAX).await.unwrap());
        }
        assert!(limits.body(1).now_or_never().is_none());
        held.pop();
        assert!(limits.body(usize::MAX).now_or_never().flatten().is_some(), "never more than the largest body");
    }
}
