//! The kernel's addresses and interfaces, and the neighbours on its links: the real thing.
//!
//! An address with an end is given to the kernel with a lifetime, and the kernel takes it away by itself. It counts
//! whole seconds, and is late; both are reckoned in, so that the address is gone by the moment that was asked for.

use super::{
    Link, Network, NetworkError,
    netlink::{FOREVER, Failure, Interface, Netlink, watch_links, whole},
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
    time::{Instant, timeout},
};

/// How late the kernel may take an address away: its timer may come `ADDRCONF_TIMER_FUZZ_MAX` (1 s) late, and then
/// still leaves what ends within `ADDRCONF_TIMER_FUZZ` (0.25 s) to the next time (linux: net/addrconf.h;
/// `check_lifetime` in net/ipv4/devinet.c, `addrconf_verify_rtnl` in net/ipv6/addrconf.c).
const KERNEL_LATE: Duration = Duration::from_millis(1250);
/// What is allowed for a request's way to the kernel. When it took longer, the lifetime is set again.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// How often a probe asks (`PROBE_NUM` in RFC 5227, section 1.1); into so many parts the patience is divided.
const PROBES: u32 = 3;
const PARTS: u32 = 4;
/// How often a neighbour is asked.
const CALLS: u32 = 2;
/// How long an announcement may wait for a place in the interface's queue.
const SENDING: Duration = Duration::from_secs(1);

/// Until when the kernel keeps an address, at which interface.
#[derive(Debug, Clone, Copy)]
struct Kept {
    index: u32,
    /// `None`: for ever.
    until: Option<Instant>,
}

type Holdings = BTreeMap<FloatingAddress, Kept>;

/// This machine's kernel. Needs CAP_NET_ADMIN and CAP_NET_RAW.
pub struct KernelNetwork {
    netlink: Arc<Netlink>,
    /// What this process has put up. Whoever changes an address has it locked, until the kernel has answered.
    held: Arc<Mutex<Holdings>>,
    /// Where announcements are sent, by interface.
    senders: std::sync::Mutex<BTreeMap<u32, Arc<Raw>>>,
    bell: watch::Sender<()>,
    watcher: JoinHandle<()>,
}

impl Drop for KernelNetwork {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl KernelNetwork {
    fn senders(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Arc<Raw>>> {
        self.senders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sender(&self, index: u32) -> io::Result<Arc<Raw>> {
        if let Some(sender) = self.senders().get(&index) {
            return Ok(sender.clone());
        }
        let sender = Arc::new(Raw::sender(index)?);
        self.senders().insert(index, sender.clone());
        Ok(sender)
    }

    /// Connects to the kernel, in the network namespace of the calling thread, and watches its links with a task on the
    /// current runtime.
    pub async fn connect() -> Result<KernelNetwork, NetworkError> {
        let fail = |error: io::Error| NetworkError {
            what: "reach the kernel's networking".to_owned(),
            why: error.to_string(),
        };
        let bell = watch::channel(()).0;
        Ok(KernelNetwork {
            netlink: Arc::new(Netlink::new().map_err(fail)?),
            held: Arc::default(),
            senders: Default::default(),
            watcher: watch_links(bell.clone()).map_err(fail)?,
            bell,
        })
    }

    async fn interface(&self, attempt: &Attempt) -> Result<Interface, NetworkError> {
        let found = self.netlink.interface(&attempt.interface).await.map_err(|failure| attempt.failed(failure))?;
        found.ok_or_else(|| attempt.absent())
    }

    /// The address that this machine speaks from on an interface, to this neighbour; `None`: it has none.
    async fn own_address(&self, interface: &Interface, neighbour: IpAddr) -> Result<Option<IpAddr>, Failure> {
        let addresses = self.netlink.addresses(interface.index, neighbour).await?;
        let own: Vec<_> = addresses.iter().filter(|address| address.preferred()).collect();
        let near = own.iter().find(|address| same_network(address.ip, neighbour, address.prefix));
        Ok(near.or(own.first()).map(|address| address.ip))
    }
}

/// What is being attempted, for errors.
#[derive(Clone)]
struct Attempt {
    what: String,
    interface: String,
}

impl Attempt {
    fn new(verb: &str, address: &FloatingAddress) -> Attempt {
        Attempt { what: format!("{verb} {address}"), interface: address.interface.clone() }
    }

    fn error(&self, why: impl Into<String>) -> NetworkError {
        NetworkError { what: self.what.clone(), why: why.into() }
    }

    fn absent(&self) -> NetworkError {
        self.error(format!("there is no interface {}", self.interface))
    }

    fn too_near(&self) -> NetworkError {
        let least = (KERNEL_LATE + ROUND_TRIP + Duration::from_secs(1)).as_millis();
        self.error(format!("its end is too near; the kernel can keep to one that is {least} ms away"))
    }

    fn failed(&self, failure: Failure) -> NetworkError {
        let name = &self.interface;
        match failure {
            Failure::Refused(Errno::EPERM) => self.error("not permitted: droverd needs CAP_NET_ADMIN"),
            Failure::Refused(Errno::ENODEV) => self.absent(),
            // What the kernel says of IPv6 where disable_ipv6 is set, and where the whole of it is left out.
            Failure::Refused(Errno::EACCES) => self.error(format!("IPv6 is switched off on {name}")),
            Failure::Refused(Errno::EOPNOTSUPP) => self.error("the kernel has no such kind of addresses"),
            Failure::Refused(errno) => self.error(errno.desc()),
            Failure::Unknown(why) => self.error(why),
        }
    }

    fn broken(&self, error: &io::Error) -> NetworkError {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => self.error("not permitted: droverd needs CAP_NET_RAW"),
            Some(Errno::ENODEV | Errno::ENXIO) => self.absent(),
            Some(Errno::ENETDOWN) => self.error(format!("{} is down", self.interface)),
            Some(Errno::ENOBUFS) => self.error(format!("{} has too much to send", self.interface)),
            _ => self.error(error.to_string()),
        }
    }
}

/// The lifetime that the kernel is to be told at `now`, in seconds, for an address that must be gone by `until`;
/// `None`: that is too near.
fn lifetime(now: Instant, until: Option<Instant>) -> Option<u32> {
    let Some(until) = until else { return Some(FOREVER) };
    let left = until.checked_duration_since(now)?.checked_sub(KERNEL_LATE + ROUND_TRIP)?;
    // So long a time that it does not fit is cut short; the most that is not "for ever".
    let seconds = u32::try_from(left.as_secs()).unwrap_or(FOREVER).min(FOREVER - 1);
    (seconds >= 1).then_some(seconds)
}

fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let differ = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(prefix)
}

/// Puts an address up with a lifetime that ends by `until`, and makes sure of it: the request may have been on its way
/// for long.
async fn put_until(
    netlink: &Netlink,
    interface: &Interface,
    address: &FloatingAddress,
    until: Option<Instant>,
    attempt: &Attempt,
) -> Result<Kept, NetworkError> {
    let ip = address.address.ip;
    let mut put_before = false;
    loop {
        let sent = Instant::now();
        let Some(valid) = lifetime(sent, until) else {
            let mut error = attempt.too_near();
            if put_before && let Err(failure) = take(netlink, interface, ip).await {
                error.why = format!("{}, and it is still there: {}", error.why, attempt.failed(failure).why);
            }
            return Err(error);
        };
        match netlink.put(interface, ip, valid).await {
            Ok(()) => {}
            Err(failure @ Failure::Refused(_)) => return Err(attempt.failed(failure)),
            Err(failure @ Failure::Unknown(_)) => {
                // It may still be done, at a time when this lifetime is too long. What is asked for now is done after
                // it, also if that is when nobody waits for it any more.
                if until.is_some() {
                    let _ = netlink.take(interface, ip, whole(ip)).await;
                }
                return Err(attempt.failed(failure));
            }
        }
        put_before = true;
        let lasts = Duration::from_secs(valid.into());
        let Some(until) = until else { return Ok(Kept { index: interface.index, until: None }) };
        // The kernel's clock for this address began at some moment before now.
        if Instant::now() + lasts + KERNEL_LATE <= until {
            return Ok(Kept { index: interface.index, until: Some(sent + lasts) });
        }
        tracing::debug!(%address, "the kernel was late in putting up an address; its lifetime is set again");
    }
}

/// Does the work of [`Network::hold`], with the holdings locked.
async fn hold_locked(
    netlink: &Netlink,
    held: &mut Holdings,
    address: &FloatingAddress,
    until: Option<Instant>,
) -> Result<(), NetworkError> {
    let attempt = Attempt::new("hold", address);
    let found = netlink.interface(&address.interface).await.map_err(|failure| attempt.failed(failure))?;
    let interface = found.ok_or_else(|| attempt.absent())?;
    let now = Instant::now();
    let valid = lifetime(now, until).ok_or_else(|| attempt.too_near())?;
    let earlier = held.get(address).filter(|kept| kept.index == interface.index);
    let not_later = |kept: &Kept| match (kept.until, until) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(kept), Some(_)) => kept > now && now + Duration::from_secs(valid.into()) <= kept,
    };
    if earlier.is_some_and(not_later) {
        let there =
            present(netlink, &interface, address.address.ip).await.map_err(|failure| attempt.failed(failure))?;
        if there {
            return Ok(());
        }
    }
    match put_until(netlink, &interface, address, until, &attempt).await {
        Ok(kept) => {
            held.insert(address.clone(), kept);
            Ok(())
        }
        Err(error) => {
            // What the kernel has now is not known.
            held.remove(address);
            Err(error)
        }
    }
}

/// Takes an address away, whatever its prefix is: it may not be us who put it there.
async fn take(netlink: &Netlink, interface: &Interface, ip: IpAddr) -> Result<(), Failure> {
    for present in netlink.addresses(interface.index, ip).await?.iter().filter(|present| present.ip == ip) {
        netlink.take(interface, ip, present.prefix).await?;
    }
    Ok(())
}

async fn present(netlink: &Netlink, interface: &Interface, ip: IpAddr) -> Result<bool, Failure> {
    let there = netlink.addresses(interface.index, ip).await?;
    Ok(there.iter().any(|present| present.ip == ip && present.usable()))
}

#[async_trait]
impl Network for KernelNetwork {
    async fn hold(&self, address: &FloatingAddress, until: Option<Instant>) -> Result<(), NetworkError> {
        let mut held = self.held.clone().lock_owned().await;
        let (netlink, on) = (self.netlink.clone(), address.clone());
        // Once begun it is finished, even if nobody waits for it: a lifetime that came too late to the kernel must be
        // put right.
        let task = tokio::spawn(async move { hold_locked(&netlink, &mut held, &on, until).await });
        task.await.unwrap_or_else(|error| Err(Attempt::new("hold", address).error(error.to_string())))
    }

    async fn release(&self, address: &FloatingAddress) -> Result<(), NetworkError> {
        let attempt = Attempt::new("release", address);
        let mut held = self.held.lock().await;
        held.remove(address);
        let found = self.netlink.interface(&address.interface).await.map_err(|failure| attempt.failed(failure))?;
        let Some(interface) = found else { return Ok(()) };
        let taken = take(&self.netlink, &interface, address.address.ip).await;
        taken.map_err(|failure| attempt.failed(failure))
    }

    async fn holds(&self, address: &FloatingAddress) -> Result<bool, NetworkError> {
        let attempt = Attempt::new("look for", address);
        let found = self.netlink.interface(&address.interface).await.map_err(|failure| attempt.failed(failure))?;
        let Some(interface) = found else { return Ok(false) };
        present(&self.netlink, &interface, address.address.ip).await.map_err(|failure| attempt.failed(failure))
    }

    async fn announce(&self, address: &FloatingAddress) -> Result<(), NetworkError> {
        let attempt = Attempt::new("announce", address);
        let interface = self.interface(&attempt).await?;
        let Some(mac) = interface.mac else { return Ok(()) };
        let frames = match address.address.ip {
            IpAddr::V4(ip) => packet::arp_announcements(mac, ip).to_vec(),
            IpAddr::V6(ip) => vec![packet::advertisement(mac, ip)],
        };
        let send = async {
            let raw = self.sender(interface.index)?;
            for frame in &frames {
                raw.send(frame).await?;
            }
            Ok(())
        };
        let sent = timeout(SENDING, send).await.unwrap_or(Err(Errno::ENOBUFS.into()));
        sent.map_err(|error: io::Error| {
            // It may have been of an interface that is not there any more.
            self.senders().remove(&interface.index);
            attempt.broken(&error)
        })
    }

    async fn probe(&self, address: &FloatingAddress, patience: Duration) -> Result<Option<String>, NetworkError> {
        let attempt = Attempt::new("probe for", address);
        // Where nobody can be heard, silence says nothing.
        let connected = |interface: Interface| match interface {
            Interface { up: false, .. } => Err(attempt.broken(&Errno::ENETDOWN.into())),
            Interface { carrier: false, .. } => Err(attempt.error(format!("{} is not connected", attempt.interface))),
            interface => Ok(interface),
        };
        let interface = self.interface(&attempt).await?;
        let Some(own) = interface.mac else { return Ok(None) };
        connected(interface)?;
        let ip = address.address.ip;
        let asked = ask(&interface, ip, question(own, None, ip), PROBES, patience, move |f| packet::claims(f, ip, own));
        let answer: Option<Mac> = asked.await.map_err(|error| attempt.broken(&error))?;
        if answer.is_none() {
            connected(self.interface(&attempt).await?)?;
        }
        Ok(answer.map(|mac| mac.to_string()))
    }

    async fn reaches(&self, interface: &str, neighbour: IpAddr, patience: Duration) -> Result<bool, NetworkError> {
        let what = format!("ask for {neighbour} on {interface}");
        let attempt = Attempt { what, interface: interface.to_owned() };
        let interface = self.interface(&attempt).await?;
        let Some(own) = interface.mac else {
            return Err(attempt.error(format!("{} has no neighbours: it is no Ethernet", attempt.interface)));
        };
        if !interface.up {
            return Ok(false);
        }
        let sender = self.own_address(&interface, neighbour).await.map_err(|failure| attempt.failed(failure))?;
        let question = question(own, sender, neighbour);
        let asked = ask(&interface, neighbour, question, CALLS, patience, move |f| packet::answers(f, neighbour));
        match asked.await {
            Ok(answer) => Ok(answer.is_some()),
            // Just now.
            Err(error) if error.raw_os_error() == Some(Errno::ENETDOWN as i32) => Ok(false),
            Err(error) => Err(attempt.broken(&error)),
        }
    }

    async fn link(&self, interface: &str) -> Result<Option<Link>, NetworkError> {
        let attempt = Attempt { what: format!("look at the link of {interface}"), interface: interface.to_owned() };
        let found = self.netlink.interface(interface).await.map_err(|failure| attempt.failed(failure))?;
        Ok(found.map(|interface| Link { up: interface.up, carrier: interface.carrier }))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}

/// The frame that asks for `target`; without a sender, it comes from nobody.
fn question(own: Mac, sender: Option<IpAddr>, target: IpAddr) -> Vec<u8> {
    match (target, sender) {
        (IpAddr::V4(target), Some(IpAddr::V4(sender))) => packet::arp_request(own, sender, target),
        (IpAddr::V4(target), _) => packet::arp_request(own, Ipv4Addr::UNSPECIFIED, target),
        (IpAddr::V6(target), Some(IpAddr::V6(sender))) => packet::solicitation(own, sender, target),
        (IpAddr::V6(target), _) => packet::solicitation(own, Ipv6Addr::UNSPECIFIED, target),
    }
}

async fn ask<T: Send>(
    interface: &Interface,
    ip: IpAddr,
    question: Vec<u8>,
    times: u32,
    patience: Duration,
    heard: impl Fn(&[u8]) -> Option<T> + Send,
) -> io::Result<Option<T>> {
    let mut raw = Raw::open(interface.index, if ip.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 }).await?;
    if let IpAddr::V6(ip) = ip {
        raw.join(packet::solicited_node(ip));
    }
    let gap = if times == PROBES { patience / PARTS } else { patience / times };
    raw.ask(&question, times, gap, patience, heard).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_ends_in_time_and_is_as_long_as_it_can() {
        let now = Instant::now();
        let after = |ms| lifetime(now, Some(now + Duration::from_millis(ms)));
        assert_eq!(
            (after(0), after(2_299), after(2_300), after(3_299), after(3_300)),
            (None, None, Some(1), Some(1), Some(2))
        );
        assert_eq!(lifetime(now, None), Some(FOREVER));
        assert_eq!(lifetime(now + Duration::from_secs(1), Some(now)), None, "over");
        let years = Duration::from_secs(u64::from(u32::MAX) * 3);
        assert_eq!(lifetime(now, Some(now + years)), Some(FOREVER - 1), "an end is an end");
    }

    #[test]
    fn networks_are_told_apart() {
        let same = |a: &str, b: &str, prefix| same_network(a.parse().unwrap(), b.parse().unwrap(), prefix);
        assert!(same("192.0.2.1", "192.0.2.254", 24) && !same("192.0.2.1", "192.0.3.1", 24));
        assert!(same("192.0.2.1", "192.0.2.1", 32) && !same("192.0.2.1", "192.0.2.0", 32));
        assert!(same("fe80::1", "fe80::2", 64) && !same("fe80::1", "192.0.2.1", 0));
    }
}
