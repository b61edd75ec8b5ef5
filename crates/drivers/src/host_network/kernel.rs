//! [`HostNetwork`] on the Linux kernel: netlink for addresses and links, packet sockets for announcements and probes.
//!
//! An address that must end is added with a lifetime (`valid_lft`), so that the kernel removes it without us. The
//! kernel counts whole seconds and removes late; both are allowed for, so that the address is gone by the given moment.

use super::{
    HostNetwork, HostNetworkError, Link,
    netlink::{FOREVER, Failure, Interface, Netlink, full_prefix, watch_links},
    packet::{self, ETHERTYPE_ARP, ETHERTYPE_IPV6, Mac},
    raw::Raw,
};
use async_trait::async_trait;
use drover_model::FloatingAddress;
use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Maximum delay of the kernel in removing an expired address: its timer may fire `ADDRCONF_TIMER_FUZZ_MAX` (1 s) late,
/// and then still leaves what expires within `ADDRCONF_TIMER_FUZZ` (0.25 s) to its next run (linux: net/addrconf.h;
/// `check_lifetime` in net/ipv4/devinet.c, `addrconf_verify_rtnl` in net/ipv6/addrconf.c).
const EXPIRY_DELAY: Duration = Duration::from_millis(1250);
/// Allowance for a request to reach the kernel. If it took longer, the lifetime is set again.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Maximum delay of the kernel between its answer that it has an IPv6 address and the first packet that it delivers to
/// it, and how often it is asked meanwhile. It enters the address's local route from a work queue that waits for its
/// lock for all of networking (linux 6.18: `addrconf_dad_start`, `addrconf_dad_work` in net/ipv6/addrconf.c), also
/// without duplicate address detection. Until then it takes packets for the address as a stranger's, and drops them.
const DELIVERY_DELAY: Duration = Duration::from_secs(2);
const DELIVERY_POLL: Duration = Duration::from_millis(1);
/// Number of probes for an address (`PROBE_NUM` in RFC 5227, section 1.1).
const PROBES: u32 = 3;
/// The interval between probes is the timeout divided by this, which leaves half of it for answers to the last probe.
const PROBE_INTERVALS: u32 = 4;
/// Number of requests to a neighbour whose reachability is checked.
const NEIGHBOUR_REQUESTS: u32 = 2;
/// Timeout for sending an announcement while the interface's queue is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// An address that the kernel has from us.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Interface index.
    index: u32,
    /// End of its lifetime by the kernel's count; `None` if it has none.
    until: Option<Instant>,
}

type HeldAddresses = BTreeMap<FloatingAddress, Held>;

/// [`HostNetwork`] of this host, in one network namespace. Needs CAP_NET_ADMIN and CAP_NET_RAW.
pub struct KernelHostNetwork {
    netlink: Arc<Netlink>,
    /// Addresses added by this process. Locked while an address is changed, until the kernel has answered.
    held: Arc<Mutex<HeldAddresses>>,
    /// Sockets for announcements, by interface name.
    senders: std::sync::Mutex<BTreeMap<String, Arc<Raw>>>,
    link_changes: watch::Sender<()>,
    watcher: JoinHandle<()>,
}

impl Drop for KernelHostNetwork {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl KernelHostNetwork {
    fn senders(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Raw>>> {
        self.senders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The socket of an interface. One of an earlier interface of that name is closed.
    fn sender(&self, name: &str, index: u32) -> io::Result<Arc<Raw>> {
        if let Some(sender) = self.senders().get(name).filter(|sender| sender.index() == index) {
            return Ok(sender.clone());
        }
        let sender = Arc::new(Raw::sender(index)?);
        self.senders().insert(name.to_owned(), sender.clone());
        Ok(sender)
    }

    /// Opens netlink sockets in the network namespace of the calling thread, and spawns a task on the current runtime
    /// that watches the links.
    ///
    /// # Errors
    /// If a netlink socket cannot be opened.
    pub async fn connect() -> Result<KernelHostNetwork, HostNetworkError> {
        let fail = |error: io::Error| HostNetworkError {
            operation: "open a netlink socket".to_owned(),
            reason: error.to_string(),
        };
        let link_changes = watch::channel(()).0;
        Ok(KernelHostNetwork {
            netlink: Arc::new(Netlink::new().map_err(fail)?),
            held: Arc::default(),
            senders: Default::default(),
            watcher: watch_links(link_changes.clone()).map_err(fail)?,
            link_changes,
        })
    }

    async fn interface(&self, attempt: &Attempt) -> Result<Interface, HostNetworkError> {
        let found = self.netlink.interface(&attempt.interface).await.map_err(|failure| attempt.failed(failure))?;
        found.ok_or_else(|| attempt.absent())
    }

    /// The source address for packets to this neighbour: one in the neighbour's subnet if there is one. `None` if the
    /// interface has no preferred address.
    async fn own_address(&self, interface: &Interface, neighbour: IpAddr) -> Result<Option<IpAddr>, Failure> {
        let addresses = self.netlink.addresses(interface.index, neighbour).await?;
        let own: Vec<_> = addresses.iter().filter(|address| address.preferred()).collect();
        let in_subnet = own.iter().find(|address| same_subnet(address.ip, neighbour, address.prefix));
        Ok(in_subnet.or(own.first()).map(|address| address.ip))
    }
}

/// The operation under way, for error messages.
#[derive(Clone)]
struct Attempt {
    operation: String,
    interface: String,
}

impl Attempt {
    fn new(verb: &str, address: &FloatingAddress) -> Attempt {
        Attempt { operation: format!("{verb} {address}"), interface: address.interface.clone() }
    }

    fn error(&self, reason: impl Into<String>) -> HostNetworkError {
        HostNetworkError { operation: self.operation.clone(), reason: reason.into() }
    }

    fn absent(&self) -> HostNetworkError {
        self.error(format!("there is no interface {}", self.interface))
    }

    fn too_short(&self) -> HostNetworkError {
        let least = (EXPIRY_DELAY + ROUND_TRIP + Duration::from_secs(1)).as_millis();
        self.error(format!("its lifetime is too short; the kernel can enforce one of at least {least} ms"))
    }

    fn failed(&self, failure: Failure) -> HostNetworkError {
        let name = &self.interface;
        match failure {
            Failure::Refused(Errno::EPERM) => self.error("not permitted: droverd needs CAP_NET_ADMIN"),
            Failure::Refused(Errno::ENODEV) => self.absent(),
            // The kernel's answers where disable_ipv6 is set, and where it was built or booted without IPv6.
            Failure::Refused(Errno::EACCES) => self.error(format!("IPv6 is disabled on {name}")),
            Failure::Refused(Errno::EOPNOTSUPP) => self.error("the kernel does not support this address family"),
            Failure::Refused(errno) => self.error(errno.desc()),
            Failure::Unknown(reason) => self.error(reason),
        }
    }

    fn socket_failed(&self, error: &io::Error) -> HostNetworkError {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => self.error("not permitted: droverd needs CAP_NET_RAW"),
            Some(Errno::ENODEV | Errno::ENXIO) => self.absent(),
            Some(Errno::ENETDOWN) => self.error(format!("{} is down", self.interface)),
            Some(Errno::ENOBUFS) => self.error(format!("the send queue of {} is full", self.interface)),
            _ => self.error(error.to_string()),
        }
    }
}

/// The lifetime to set at `now`, in seconds, so that the address is gone by `until`; `None` if that is too soon.
fn lifetime(now: Instant, until: Option<Instant>) -> Option<u32> {
    let Some(until) = until else { return Some(FOREVER) };
    let left = until.checked_duration_since(now)?.checked_sub(EXPIRY_DELAY + ROUND_TRIP)?;
    // Saturates at the longest finite lifetime.
    let seconds = u32::try_from(left.as_secs()).unwrap_or(FOREVER).min(FOREVER - 1);
    (seconds >= 1).then_some(seconds)
}

fn same_subnet(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let common = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    common >= u32::from(prefix)
}

/// Adds an address with a lifetime that ends by `until`. If the request took too long to reach the kernel, the lifetime
/// is set again.
async fn add_until(
    netlink: &Netlink,
    interface: &Interface,
    address: &FloatingAddress,
    until: Option<Instant>,
    attempt: &Attempt,
) -> Result<Held, HostNetworkError> {
    let ip = address.address.ip;
    let mut added = false;
    loop {
        let sent = Instant::now();
        let Some(valid) = lifetime(sent, until) else {
            let mut error = attempt.too_short();
            if added && let Err(failure) = remove(netlink, interface, ip).await {
                error.reason = format!("{}, and it is still present: {}", error.reason, attempt.failed(failure).reason);
            }
            return Err(error);
        };
        match netlink.add_address(interface, ip, valid).await {
            Ok(()) => {}
            Err(failure @ Failure::Refused(_)) => return Err(attempt.failed(failure)),
            Err(failure @ Failure::Unknown(_)) => {
                // The kernel may still execute the request, when this lifetime is too long. It executes the removal
                // after it, even if that is after we have given up waiting: its result does not matter.
                if until.is_some() {
                    netlink.remove_address(interface, ip, full_prefix(ip)).await.ok();
                }
                return Err(attempt.failed(failure));
            }
        }
        added = true;
        let valid = Duration::from_secs(valid.into());
        let Some(until) = until else { return Ok(Held { index: interface.index, until: None }) };
        // The lifetime began when the kernel executed the request: now at the latest.
        if Instant::now() + valid + EXPIRY_DELAY <= until {
            return Ok(Held { index: interface.index, until: Some(sent + valid) });
        }
        tracing::debug!(%address, "the kernel was slow to add an address; setting its lifetime again");
    }
}

/// [`HostNetwork::hold`] with `held` locked, but for the wait until the kernel delivers.
async fn hold_locked(
    netlink: &Netlink,
    held: &mut HeldAddresses,
    address: &FloatingAddress,
    until: Option<Instant>,
) -> Result<Interface, HostNetworkError> {
    let attempt = Attempt::new("add", address);
    let found = netlink.interface(&address.interface).await.map_err(|failure| attempt.failed(failure))?;
    let interface = found.ok_or_else(|| attempt.absent())?;
    let now = Instant::now();
    let valid = lifetime(now, until).ok_or_else(|| attempt.too_short())?;
    let current = held.get(address).filter(|held| held.index == interface.index);
    let lasts_longer = |held: &Held| match (held.until, until) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(end), Some(_)) => end > now && now + Duration::from_secs(valid.into()) <= end,
    };
    if current.is_some_and(lasts_longer) {
        let present =
            is_present(netlink, &interface, address.address.ip).await.map_err(|failure| attempt.failed(failure))?;
        if present {
            return Ok(interface);
        }
    }
    match add_until(netlink, &interface, address, until, &attempt).await {
        Ok(added) => {
            held.insert(address.clone(), added);
            Ok(interface)
        }
        Err(error) => {
            // The state of the address in the kernel is now unknown.
            held.remove(address);
            Err(error)
        }
    }
}

/// Removes an address with any prefix length: it may have been added by someone else.
async fn remove(netlink: &Netlink, interface: &Interface, ip: IpAddr) -> Result<(), Failure> {
    for present in netlink.addresses(interface.index, ip).await?.iter().filter(|present| present.ip == ip) {
        netlink.remove_address(interface, ip, present.prefix).await?;
    }
    Ok(())
}

async fn is_present(netlink: &Netlink, interface: &Interface, ip: IpAddr) -> Result<bool, Failure> {
    let addresses = netlink.addresses(interface.index, ip).await?;
    let present = addresses.iter().any(|present| present.ip == ip && present.usable());
    Ok(present && delivers(netlink, interface, ip).await?)
}

/// Whether the kernel delivers packets for an address that it has. An IPv4 address has its route with the kernel's
/// answer (`fib_add_ifaddr` in net/ipv4/fib_frontend.c).
async fn delivers(netlink: &Netlink, interface: &Interface, ip: IpAddr) -> Result<bool, Failure> {
    Ok(ip.is_ipv4() || netlink.delivers(interface.index, ip).await?)
}

#[async_trait]
impl HostNetwork for KernelHostNetwork {
    async fn hold(&self, address: &FloatingAddress, until: Option<Instant>) -> Result<(), HostNetworkError> {
        let mut held = self.held.clone().lock_owned().await;
        let (netlink, owned) = (self.netlink.clone(), address.clone());
        // In its own task, so that it is finished even if the caller is cancelled: a lifetime that reached the kernel
        // too late must be corrected.
        let task = tokio::spawn(async move { hold_locked(&netlink, &mut held, &owned, until).await });
        let attempt = Attempt::new("add", address);
        let interface = task.await.unwrap_or_else(|error| Err(attempt.error(error.to_string())))?;
        let delivered = async {
            while !delivers(&self.netlink, &interface, address.address.ip).await? {
                sleep(DELIVERY_POLL).await;
            }
            Ok(())
        };
        match timeout(DELIVERY_DELAY, delivered).await {
            Ok(delivered) => delivered.map_err(|failure| attempt.failed(failure)),
            Err(_) => Err(attempt.error("the kernel has it, but does not deliver packets to it")),
        }
    }

    async fn release(&self, address: &FloatingAddress) -> Result<(), HostNetworkError> {
        let attempt = Attempt::new("remove", address);
        let mut held = self.held.lock().await;
        held.remove(address);
        let found = self.netlink.interface(&address.interface).await.map_err(|failure| attempt.failed(failure))?;
        let Some(interface) = found else { return Ok(()) };
        let removed = remove(&self.netlink, &interface, address.address.ip).await;
        removed.map_err(|failure| attempt.failed(failure))
    }

    async fn holds(&self, address: &FloatingAddress) -> Result<bool, HostNetworkError> {
        let attempt = Attempt::new("look up", address);
        let found = self.netlink.interface(&address.interface).await.map_err(|failure| attempt.failed(failure))?;
        let Some(interface) = found else { return Ok(false) };
        is_present(&self.netlink, &interface, address.address.ip).await.map_err(|failure| attempt.failed(failure))
    }

    async fn announce(&self, address: &FloatingAddress) -> Result<(), HostNetworkError> {
        let attempt = Attempt::new("announce", address);
        let interface = self.interface(&attempt).await?;
        let Some(mac) = interface.mac else { return Ok(()) };
        let frames = match address.address.ip {
            IpAddr::V4(ip) => packet::arp_announcements(mac, ip).to_vec(),
            IpAddr::V6(ip) => vec![packet::advertisement(mac, ip)],
        };
        let send = async {
            let raw = self.sender(&address.interface, interface.index)?;
            for frame in &frames {
                raw.send(frame).await?;
            }
            Ok(())
        };
        let sent = timeout(SEND_TIMEOUT, send).await.unwrap_or(Err(Errno::ENOBUFS.into()));
        sent.map_err(|error: io::Error| {
            // The socket may belong to an interface that no longer exists.
            self.senders().remove(&address.interface);
            attempt.socket_failed(&error)
        })
    }

    async fn probe(&self, address: &FloatingAddress, timeout: Duration) -> Result<Option<String>, HostNetworkError> {
        let attempt = Attempt::new("probe for", address);
        // Without a connection, the lack of an answer proves nothing.
        let connected = |interface: Interface| match interface {
            Interface { up: false, .. } => Err(attempt.socket_failed(&Errno::ENETDOWN.into())),
            Interface { carrier: false, .. } => Err(attempt.error(format!("{} has no carrier", attempt.interface))),
            interface => Ok(interface),
        };
        let interface = self.interface(&attempt).await?;
        let Some(own) = interface.mac else { return Ok(None) };
        connected(interface)?;
        let ip = address.address.ip;
        let interval = timeout / PROBE_INTERVALS;
        let exchange = exchange(&interface, ip, request(own, None, ip), PROBES, interval, timeout, move |frame| {
            packet::claimed_by(frame, ip, own)
        });
        let answer: Option<Mac> = exchange.await.map_err(|error| attempt.socket_failed(&error))?;
        if answer.is_none() {
            connected(self.interface(&attempt).await?)?;
        }
        Ok(answer.map(|mac| mac.to_string()))
    }

    async fn reaches(&self, interface: &str, neighbour: IpAddr, timeout: Duration) -> Result<bool, HostNetworkError> {
        let operation = format!("look for the neighbour {neighbour} on {interface}");
        let attempt = Attempt { operation, interface: interface.to_owned() };
        let interface = self.interface(&attempt).await?;
        let Some(own) = interface.mac else {
            return Err(attempt.error(format!("{} is not an Ethernet interface", attempt.interface)));
        };
        if !interface.up {
            return Ok(false);
        }
        let sender = self.own_address(&interface, neighbour).await.map_err(|failure| attempt.failed(failure))?;
        let request = request(own, sender, neighbour);
        let interval = timeout / NEIGHBOUR_REQUESTS;
        let exchange = exchange(&interface, neighbour, request, NEIGHBOUR_REQUESTS, interval, timeout, move |frame| {
            packet::answered_by(frame, neighbour)
        });
        match exchange.await {
            Ok(answer) => Ok(answer.is_some()),
            // The interface went down meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::ENETDOWN as i32) => Ok(false),
            Err(error) => Err(attempt.socket_failed(&error)),
        }
    }

    async fn link(&self, interface: &str) -> Result<Option<Link>, HostNetworkError> {
        let attempt = Attempt { operation: format!("read the state of {interface}"), interface: interface.to_owned() };
        let found = self.netlink.interface(interface).await.map_err(|failure| attempt.failed(failure))?;
        Ok(found.map(|interface| Link { up: interface.up, carrier: interface.carrier }))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.link_changes.subscribe()
    }
}

/// The frame that asks for `target`; without a sender, its source is the unspecified address.
fn request(own: Mac, sender: Option<IpAddr>, target: IpAddr) -> Vec<u8> {
    match (target, sender) {
        (IpAddr::V4(target), Some(IpAddr::V4(sender))) => packet::arp_request(own, sender, target),
        (IpAddr::V4(target), _) => packet::arp_request(own, Ipv4Addr::UNSPECIFIED, target),
        (IpAddr::V6(target), Some(IpAddr::V6(sender))) => packet::solicitation(own, sender, target),
        (IpAddr::V6(target), _) => packet::solicitation(own, Ipv6Addr::UNSPECIFIED, target),
    }
}

/// Sends a request about `ip` on an interface, and waits for an answer; see [`Raw::exchange`].
async fn exchange<T: Send>(
    interface: &Interface,
    ip: IpAddr,
    request: Vec<u8>,
    times: u32,
    interval: Duration,
    timeout: Duration,
    accept: impl Fn(&[u8]) -> Option<T> + Send,
) -> io::Result<Option<T>> {
    let mut raw = Raw::open(interface.index, if ip.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 }).await?;
    if let IpAddr::V6(ip) = ip {
        raw.join(packet::solicited_node(ip));
    }
    raw.exchange(&request, times, interval, timeout, accept).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetime_is_the_longest_that_ends_in_time() {
        let now = Instant::now();
        let after = |ms| lifetime(now, Some(now + Duration::from_millis(ms)));
        assert_eq!(
            (after(0), after(2_299), after(2_300), after(3_299), after(3_300)),
            (None, None, Some(1), Some(1), Some(2))
        );
        assert_eq!(lifetime(now, None), Some(FOREVER));
        assert_eq!(lifetime(now + Duration::from_secs(1), Some(now)), None, "in the past");
        let centuries = Duration::from_secs(u64::from(u32::MAX) * 3);
        assert_eq!(lifetime(now, Some(now + centuries)), Some(FOREVER - 1), "long, but finite");
    }

    #[test]
    fn subnets_are_compared_by_prefix() {
        let same = |a: &str, b: &str, prefix| same_subnet(a.parse().unwrap(), b.parse().unwrap(), prefix);
        assert!(same("192.0.2.1", "192.0.2.254", 24) && !same("192.0.2.1", "192.0.3.1", 24));
        assert!(same("192.0.2.1", "192.0.2.1", 32) && !same("192.0.2.1", "192.0.2.0", 32));
        assert!(same("fe80::1", "fe80::2", 64) && !same("fe80::1", "192.0.2.1", 0));
    }
}
