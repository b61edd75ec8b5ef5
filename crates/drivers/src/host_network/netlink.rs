//! Netlink requests about interfaces and addresses (rtnetlink(7)). Each request has a timeout, and succeeds only if the
//! kernel acknowledges it: the end of the connection is not an acknowledgement.

use super::packet::Mac;
use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::{
    Handle,
    constants::RTMGRP_LINK,
    new_connection_with_strict_check,
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
        NetlinkPayload,
    },
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo},
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        route::{RouteAttribute, RouteMessage, RouteType},
    },
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use std::{
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Timeout for one request. The kernel answers in microseconds, unless its lock for all of networking (RTNL) is held.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before a dump is retried that the kernel refused as busy.
const BUSY_RETRY: Duration = Duration::from_millis(2);
/// Number of attempts at a dump that is busy, or inconsistent because of a concurrent change.
const DUMP_ATTEMPTS: usize = 10;
/// Delay before the watch of the links is opened again after an error.
const WATCH_RETRY: Duration = Duration::from_secs(1);
/// Maximum length of an interface name in bytes (`IFNAMSIZ` in linux/if.h, without the terminating zero).
const INTERFACE_NAME_MAX: usize = 15;

/// An infinite lifetime (`INFINITY_LIFE_TIME` in net/addrconf.h of Linux).
pub(super) const FOREVER: u32 = u32::MAX;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel refused it; it had no effect.
    Refused(Errno),
    /// The kernel did not answer; the request may have had its effect, or may have it later.
    Unknown(String),
}

impl Failure {
    fn lost() -> Failure {
        Failure::Unknown("the connection to the kernel was lost".to_owned())
    }
}

/// State of an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    /// Its Ethernet address; `None` if it is not an Ethernet interface.
    pub(super) mac: Option<Mac>,
}

/// An address present on an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    flags: AddressFlags,
}

impl Present {
    /// Whether it can be used: duplicate address detection has neither to finish yet, nor has it failed.
    pub(super) fn usable(&self) -> bool {
        !self.flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
    }

    /// Whether it can be a source address. Floating addresses are deprecated, so that they are not.
    pub(super) fn preferred(&self) -> bool {
        self.usable() && !self.flags.contains(AddressFlags::Deprecated)
    }
}

/// A netlink connection to the kernel, reconnected after it was lost.
pub(super) struct Netlink {
    connection: Mutex<(Handle, JoinHandle<()>)>,
    /// The kernel serves one dump at a time for each connection.
    dump: tokio::sync::Mutex<()>,
}

fn connect() -> io::Result<(Handle, JoinHandle<()>)> {
    // Strict checking: the kernel itself filters a dump by interface.
    let (mut connection, handle, _events) = new_connection_with_strict_check()?;
    // Without these, an acknowledgement and the end of the connection look the same.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    Ok((handle, tokio::spawn(connection)))
}

impl Netlink {
    pub(super) fn new() -> io::Result<Netlink> {
        Ok(Netlink { connection: Mutex::new(connect()?), dump: tokio::sync::Mutex::new(()) })
    }

    fn handle(&self) -> Result<Handle, Failure> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.1.is_finished() {
            *connection = connect().map_err(|error| Failure::Unknown(error.to_string()))?;
        }
        Ok(connection.0.clone())
    }

    /// Sends a request. Returns the replies, and whether the dump was interrupted by a change and may be inconsistent.
    async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Failure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut responses = self.handle()?.request(request).map_err(|_| Failure::lost())?;
        let collect = async {
            let (mut replies, mut interrupted) = (Vec::new(), false);
            while let Some(response) = responses.next().await {
                interrupted |= response.header.flags & NLM_F_DUMP_INTR != 0;
                let code = match response.payload {
                    NetlinkPayload::InnerMessage(message) => {
                        replies.push(message);
                        continue;
                    }
                    NetlinkPayload::Done(done) => done.code,
                    NetlinkPayload::Error(error) => error.raw_code(),
                    NetlinkPayload::Overrun(_) => {
                        return Err(Failure::Unknown("the kernel's answer was lost".to_owned()));
                    }
                    _ => continue,
                };
                return match code {
                    0 => Ok((replies, interrupted)),
                    code => Err(Failure::Refused(Errno::from_raw(code.saturating_neg()))),
                };
            }
            Err(Failure::lost())
        };
        let timed_out =
            |_| Failure::Unknown(format!("the kernel did not answer within {} s", REQUEST_TIMEOUT.as_secs()));
        timeout(REQUEST_TIMEOUT, collect).await.map_err(timed_out)?
    }

    /// An interface by name; `None` if there is no such interface.
    pub(super) async fn interface(&self, name: &str) -> Result<Option<Interface>, Failure> {
        if name.is_empty() || name.len() > INTERFACE_NAME_MAX {
            return Ok(None);
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let replies = match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK).await {
            Ok((replies, _)) => replies,
            Err(Failure::Refused(Errno::ENODEV)) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let link = replies.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        match link {
            Some(link) => Ok(Some(Interface::of(&link))),
            None => Err(Failure::Unknown("the kernel's answer does not describe an interface".to_owned())),
        }
    }

    /// The addresses of an interface, of the family of `like`. Empty if the interface no longer exists.
    pub(super) async fn addresses(&self, index: u32, like: IpAddr) -> Result<Vec<Present>, Failure> {
        let mut message = AddressMessage::default();
        message.header.family = family(like);
        message.header.index = index;
        let _one_at_a_time = self.dump.lock().await;
        for _ in 0..DUMP_ATTEMPTS {
            let message = RouteNetlinkMessage::GetAddress(message.clone());
            match self.request(message, NLM_F_DUMP).await {
                Ok((_, true)) => {}
                Ok((replies, false)) => {
                    return Ok(replies.iter().filter_map(|message| present(message, index)).collect());
                }
                Err(Failure::Refused(Errno::ENODEV)) => return Ok(Vec::new()),
                // The dump of a cancelled request is still being sent; no event reports its end.
                Err(Failure::Refused(Errno::EBUSY)) => sleep(BUSY_RETRY).await,
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unknown(format!("its addresses changed during each of {DUMP_ATTEMPTS} attempts to list them")))
    }

    /// Adds an address, or replaces its lifetime: `valid` seconds from now.
    ///
    /// The prefix has full length (/32, /128). With a shorter one, IPv4 addresses of one subnet depend on each other:
    /// the first is the primary address; the others are secondary, have no routes, and are removed with the primary
    /// (unless promote_secondaries is set). A floating address that was added before the host's own would cut the host
    /// off, and its removal would take the host's address with it, or other floating addresses.
    pub(super) async fn add_address(&self, interface: &Interface, ip: IpAddr, valid: u32) -> Result<(), Failure> {
        let mut message = address(interface.index, ip, full_prefix(ip));
        // No route, and no duplicate address detection by the kernel, which would take seconds.
        let flags = match ip {
            IpAddr::V4(_) => AddressFlags::Noprefixroute,
            IpAddr::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
        };
        message.attributes.push(AddressAttribute::Flags(flags));
        // Preferred lifetime 0 (deprecated): the host's own connections use its own address, and outlive this one.
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = valid;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        if interface.loopback {
            // Not a source address on other interfaces.
            message.header.scope = AddressScope::Host;
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await.map(drop)
    }

    /// Whether a packet for `ip` that arrives on an interface would be for this host.
    pub(super) async fn delivers(&self, index: u32, ip: IpAddr) -> Result<bool, Failure> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = full_prefix(ip);
        message.attributes = vec![RouteAttribute::Destination(ip.into()), RouteAttribute::Iif(index)];
        let is_local = |reply: &RouteNetlinkMessage| match reply {
            RouteNetlinkMessage::NewRoute(route) => route.header.kind == RouteType::Local,
            _ => false,
        };
        match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK).await {
            Ok((replies, _)) => Ok(replies.iter().any(is_local)),
            Err(Failure::Refused(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENODEV)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Removes an address. Idempotent: succeeds if the address or the interface is absent.
    pub(super) async fn remove_address(&self, interface: &Interface, ip: IpAddr, prefix: u8) -> Result<(), Failure> {
        let message = RouteNetlinkMessage::DelAddress(address(interface.index, ip, prefix));
        match self.request(message, NLM_F_ACK).await {
            Ok(_) | Err(Failure::Refused(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

impl Interface {
    fn of(link: &LinkMessage) -> Interface {
        let address = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => <[u8; 6]>::try_from(address.as_slice()).ok(),
            _ => None,
        });
        Interface {
            index: link.header.index,
            up: link.header.flags.contains(LinkFlags::Up),
            carrier: link.header.flags.contains(LinkFlags::LowerUp),
            loopback: link.header.flags.contains(LinkFlags::Loopback),
            mac: address.filter(|_| link.header.link_layer_type == LinkLayerType::Ether).map(Mac),
        }
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The full prefix length of the address family.
pub(super) fn full_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn address(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn present(message: &RouteNetlinkMessage, index: u32) -> Option<Present> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index {
        return None;
    }
    // On a point-to-point interface, IFA_LOCAL is ours and IFA_ADDRESS is the peer's.
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let address =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    let flags =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Flags(f) = a { Some(*f) } else { None });
    let flags = flags.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()));
    Some(Present { ip: local.or(address)?, prefix: message.header.prefix_len, flags })
}

/// Opens a socket that is subscribed to link events.
fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

/// Spawns a task that notifies `changes` of every link event, and when events may have been lost. The events are not
/// parsed: subscribers read the state. Runs until it is aborted.
pub(super) fn watch_links(changes: watch::Sender<()>) -> io::Result<JoinHandle<()>> {
    let mut socket = subscribe()?;
    Ok(tokio::spawn(async move {
        let mut event = Vec::with_capacity(64);
        loop {
            event.clear();
            let received = socket.recv(&mut event).await;
            changes.send_replace(());
            let Err(error) = received else { continue };
            // ENOBUFS: events were lost; subscribers have just been notified.
            if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOBUFS | Errno::EINTR)) {
                continue;
            }
            tracing::warn!(%error, "cannot watch links; retrying");
            loop {
                sleep(WATCH_RETRY).await;
                if let Ok(new) = subscribe() {
                    socket = new;
                    break;
                }
            }
            changes.send_replace(());
        }
    }))
}
