//! What is asked of the kernel about interfaces and addresses (rtnetlink(7)). Each question has a deadline and an
//! answer: an end of the connection is not taken for consent.

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

/// How long the kernel may take to answer. It does so in microseconds, unless something else holds its lock for all of
/// networking.
const ANSWER: Duration = Duration::from_secs(5);
/// How soon a list is asked for again when the kernel is busy with another.
const BUSY: Duration = Duration::from_millis(2);
/// How often a list is asked for that changes while the kernel tells it.
const TRIES: usize = 10;
/// The pause before links are watched again, when that has ended.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest name of an interface (`IFNAMSIZ` in linux/if.h, without the zero at the end).
const NAME: usize = 15;

/// An address is valid without end (`INFINITY_LIFE_TIME` in linux' net/addrconf.h).
pub(super) const FOREVER: u32 = u32::MAX;

/// Why the kernel's answer is not the one that is wanted.
#[derive(Debug)]
pub(super) enum Failure {
    /// It refused, and has done nothing.
    Refused(Errno),
    /// It did not answer; it may have done it, or may do it later.
    Unknown(String),
}

impl Failure {
    fn lost() -> Failure {
        Failure::Unknown("the connection to the kernel was lost".to_owned())
    }
}

/// What the kernel tells of an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    /// Its address on an Ethernet; `None`: it is on none.
    pub(super) mac: Option<Mac>,
}

/// An address that is on an interface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    flags: AddressFlags,
}

impl Present {
    /// Others can reach the machine by it: it has not yet to be found free, nor was it found taken.
    pub(super) fn usable(&self) -> bool {
        !self.flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
    }

    /// The machine may speak from it. It shall not from one that floats.
    pub(super) fn preferred(&self) -> bool {
        self.usable() && !self.flags.contains(AddressFlags::Deprecated)
    }
}

/// A connection to the kernel, made anew when it was lost.
pub(super) struct Netlink {
    connection: Mutex<(Handle, JoinHandle<()>)>,
    /// The kernel makes one list at a time for a connection.
    listing: tokio::sync::Mutex<()>,
}

fn connect() -> io::Result<(Handle, JoinHandle<()>)> {
    // Strict: the kernel itself lists only the interface that is asked for.
    let (mut connection, handle, _nothing) = new_connection_with_strict_check()?;
    // By default an answer "done" and the end of the connection look the same.
    connection.set_forward_ack(true);
    connection.set_forward_done(true);
    Ok((handle, tokio::spawn(connection)))
}

impl Netlink {
    pub(super) fn new() -> io::Result<Netlink> {
        Ok(Netlink { connection: Mutex::new(connect()?), listing: tokio::sync::Mutex::new(()) })
    }

    fn handle(&self) -> Result<Handle, Failure> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.1.is_finished() {
            *connection = connect().map_err(|error| Failure::Unknown(error.to_string()))?;
        }
        Ok(connection.0.clone())
    }

    /// Everything that the kernel answers, and whether that may be a mix of before and after a change.
    async fn ask(
        &self,
        question: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Failure> {
        let mut question = NetlinkMessage::from(question);
        question.header.flags = NLM_F_REQUEST | flags;
        let mut answers = self.handle()?.request(question).map_err(|_| Failure::lost())?;
        let gather = async {
            let (mut told, mut mixed) = (Vec::new(), false);
            while let Some(answer) = answers.next().await {
                mixed |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                let code = match answer.payload {
                    NetlinkPayload::InnerMessage(message) => {
                        told.push(message);
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
                    0 => Ok((told, mixed)),
                    code => Err(Failure::Refused(Errno::from_raw(code.saturating_neg()))),
                };
            }
            Err(Failure::lost())
        };
        let late = |_| Failure::Unknown(format!("the kernel did not answer within {} s", ANSWER.as_secs()));
        timeout(ANSWER, gather).await.map_err(late)?
    }

    /// An interface; `None`: there is none of this name.
    pub(super) async fn interface(&self, name: &str) -> Result<Option<Interface>, Failure> {
        if name.is_empty() || name.len() > NAME {
            return Ok(None);
        }
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let told = match self.ask(RouteNetlinkMessage::GetLink(question), NLM_F_ACK).await {
            Ok((told, _)) => told,
            Err(Failure::Refused(Errno::ENODEV)) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let link = told.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        });
        match link {
            Some(link) => Ok(Some(Interface::of(&link))),
            None => Err(Failure::Unknown("the kernel answered something else".to_owned())),
        }
    }

    /// The addresses of an interface. None, if there is no such interface any more.
    pub(super) async fn addresses(&self, index: u32, like: IpAddr) -> Result<Vec<Present>, Failure> {
        let mut question = AddressMessage::default();
        question.header.family = family(like);
        question.header.index = index;
        let _one_at_a_time = self.listing.lock().await;
        for _ in 0..TRIES {
            let question = RouteNetlinkMessage::GetAddress(question.clone());
            match self.ask(question, NLM_F_DUMP).await {
                Ok((_, true)) => {}
                Ok((told, false)) => return Ok(told.iter().filter_map(|message| present(message, index)).collect()),
                Err(Failure::Refused(Errno::ENODEV)) => return Ok(Vec::new()),
                // One that nobody waits for any more is being read out; no event tells when that is done.
                Err(Failure::Refused(Errno::EBUSY)) => sleep(BUSY).await,
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Unknown("its addresses change all the time".to_owned()))
    }

    /// Puts an address on an interface, or changes for how many seconds from now it stays there.
    ///
    /// It is alone in its network (/32, /128). With a shorter prefix, IPv4 addresses of one network hang together: the
    /// first is the primary one, the others are secondary, have no routes, and go when the primary goes (unless
    /// promote_secondaries is set). So if an address that floats came before the machine's own, it would cut the
    /// machine off, and take its address away when it floats on; or other addresses that float.
    pub(super) async fn put(&self, interface: &Interface, ip: IpAddr, valid: u32) -> Result<(), Failure> {
        let mut question = address(interface.index, ip, whole(ip));
        // It floats: it brings no route, and the network is not asked whether it is free, which would take seconds.
        let flags = match ip {
            IpAddr::V4(_) => AddressFlags::Noprefixroute,
            IpAddr::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
        };
        question.attributes.push(AddressAttribute::Flags(flags));
        // Never preferred: the machine's own connections begin at its own address, and outlive this one.
        let mut life = CacheInfo::default();
        life.ifa_valid = valid;
        question.attributes.push(AddressAttribute::CacheInfo(life));
        if interface.loopback {
            // Not to be used for speaking on other interfaces.
            question.header.scope = AddressScope::Host;
        }
        let question = RouteNetlinkMessage::NewAddress(question);
        self.ask(question, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE).await.map(drop)
    }

    /// Takes an address away. It is fine if it is not there.
    pub(super) async fn take(&self, interface: &Interface, ip: IpAddr, prefix: u8) -> Result<(), Failure> {
        let question = RouteNetlinkMessage::DelAddress(address(interface.index, ip, prefix));
        match self.ask(question, NLM_F_ACK).await {
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

/// The length of a prefix with which an address is alone in its network.
pub(super) fn whole(ip: IpAddr) -> u8 {
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
    // Where there are both, the other one is the far end's.
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let plain =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    let flags =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Flags(f) = a { Some(*f) } else { None });
    let flags = flags.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()));
    Some(Present { ip: local.or(plain)?, prefix: message.header.prefix_len, flags })
}

fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

/// Rings whenever the kernel tells that a link changed, and when what it told may have been missed. What changed is not
/// read: who hears the bell looks. Ends when the task is aborted.
pub(super) fn watch_links(bell: watch::Sender<()>) -> io::Result<JoinHandle<()>> {
    let mut socket = listen()?;
    Ok(tokio::spawn(async move {
        let mut event = Vec::with_capacity(64);
        loop {
            event.clear();
            let heard = socket.recv(&mut event).await;
            bell.send_replace(());
            let Err(error) = heard else { continue };
            // Too many at once (ENOBUFS): some are lost, and the bell has been rung for them.
            if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOBUFS | Errno::EINTR)) {
                continue;
            }
            tracing::warn!(%error, "links cannot be watched; this is tried again");
            loop {
                sleep(PAUSE).await;
                if let Ok(new) = listen() {
                    socket = new;
                    break;
                }
            }
            bell.send_replace(());
        }
    }))
}
