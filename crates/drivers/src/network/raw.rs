//! Sockets that send and receive whole Ethernet frames on one interface (packet(7)). They need CAP_NET_RAW.

use super::packet::{ADVERTISEMENT, ETHERTYPE_IPV6, ICMPV6, SOLICITATION};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, bind, recvfrom},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::{
    io,
    net::{Ipv6Addr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    runtime::Handle,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

/// Longer than any packet about addresses; what is longer is cut.
const FRAME: usize = 1514;
/// How often a frame is tried when the interface's queue is full, and the pause in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// How a frame came (`PACKET_HOST`, `PACKET_BROADCAST`, `PACKET_MULTICAST` in linux/if_packet.h). Left out are frames
/// to others, among them those of VLANs that this machine has no interface for: their addresses are another network's.
const FOR_US: [u8; 3] = [0, 1, 2];

/// A packet socket. The kernel waits for all of its processors when one is bound to a protocol or closed
/// (`synchronize_net`), which takes tens of milliseconds; so that is done on a thread that may wait.
struct Packets(Option<AsyncFd<Socket>>);

impl Packets {
    fn new(socket: Socket) -> io::Result<Packets> {
        // What is to replace it, `register`, is unsafe: a type might hand out another descriptor each time. This one
        // owns its only one.
        #[allow(deprecated)]
        let socket = AsyncFd::new(socket)?;
        Ok(Packets(Some(socket)))
    }

    fn get(&self) -> io::Result<&AsyncFd<Socket>> {
        self.0.as_ref().ok_or_else(|| Errno::EBADF.into())
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        if let (Some(socket), Ok(runtime)) = (self.0.take().map(AsyncFd::into_inner), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(socket));
        }
    }
}

/// A socket of one interface: bound to one protocol, or for sending only.
pub(super) struct Raw {
    socket: Packets,
    index: u32,
    /// Keeps this machine in a multicast group.
    _member: Option<UdpSocket>,
}

impl Raw {
    /// Frames of this protocol that come in on the interface, from now on. Those that we send are not among them.
    pub(super) async fn open(index: u32, ethertype: u16) -> io::Result<Raw> {
        let socket = spawn_blocking(move || bound(index, Some(ethertype))).await.map_err(io::Error::other)??;
        Ok(Raw { socket: Packets::new(socket)?, index, _member: None })
    }

    /// Hears nothing. To be kept for the next time: it is made at once, but closed slowly.
    pub(super) fn sender(index: u32) -> io::Result<Raw> {
        Ok(Raw { socket: Packets::new(bound(index, None)?)?, index, _member: None })
    }

    /// Hears what is said to a multicast group, too: network cards and switches keep it from those who are not members.
    pub(super) fn join(&mut self, group: Ipv6Addr) {
        let join = || {
            let member = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            member.join_multicast_v6(&group, self.index)?;
            Ok(member)
        };
        match join() {
            Ok(member) => self._member = Some(member),
            Err::<_, io::Error>(error) => {
                tracing::debug!(%group, %error, "cannot join a multicast group; it may go unheard")
            }
        }
    }

    /// Sends a whole frame.
    pub(super) async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut tries = 0;
        loop {
            let mut ready = self.socket.get()?.writable().await?;
            match ready.try_io(|socket| socket.get_ref().send(frame)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) && tries < TRIES => {
                    tries += 1;
                    sleep(PAUSE).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    async fn receive<'a>(&self, buffer: &'a mut [u8; FRAME]) -> io::Result<&'a [u8]> {
        loop {
            let mut ready = self.socket.get()?.readable().await?;
            let got = ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.get_ref().as_raw_fd(), buffer)?));
            match got {
                Ok(Ok((length, from))) => {
                    // Between its making and its binding, the socket heard all interfaces.
                    let ours = |from: LinkAddr| {
                        u32::try_from(from.ifindex()) == Ok(self.index) && FOR_US.contains(&from.pkttype())
                    };
                    if from.is_some_and(ours) {
                        return Ok(buffer.get(..length).unwrap_or_default());
                    }
                }
                // Frames were lost; more will come.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// Sends `question` so many times, `gap` apart, and listens until `heard` makes something of a frame, or until
    /// `patience` is over.
    pub(super) async fn ask<T: Send>(
        &self,
        question: &[u8],
        times: u32,
        gap: Duration,
        patience: Duration,
        heard: impl Fn(&[u8]) -> Option<T> + Send,
    ) -> io::Result<Option<T>> {
        let start = Instant::now();
        let end = start + patience;
        let mut asked = 0;
        let mut buffer = [0; FRAME];
        loop {
            let next = if asked < times { (start + gap * asked).min(end) } else { end };
            if asked < times && Instant::now() >= next {
                match timeout_at(end.max(Instant::now() + PAUSE), self.send(question)).await {
                    Ok(sent) => sent?,
                    Err(_) => return Err(Errno::ENOBUFS.into()),
                }
                asked += 1;
                continue;
            }
            // Looked at here, and not only by the timeout, which is asked last: there may be always something to hear.
            if Instant::now() >= end {
                return Ok(None);
            }
            if let Ok(frame) = timeout_at(next, self.receive(&mut buffer)).await
                && let Some(answer) = heard(frame?)
            {
                return Ok(Some(answer));
            }
        }
    }
}

/// A socket that is bound to an interface; without a protocol, nothing comes in.
fn bound(index: u32, ethertype: Option<u16>) -> io::Result<Socket> {
    // The only way to the address of an interface that needs no unsafe code.
    let of_interface = |address: LinkAddr| (u32::try_from(address.ifindex()) == Ok(index)).then_some(address);
    let link = getifaddrs()?
        .find_map(|entry| entry.address.as_ref().and_then(|a| a.as_link_addr()).copied().and_then(of_interface))
        .ok_or(Errno::ENODEV)?;
    // The kernel takes the protocol in network byte order.
    let protocol = ethertype.map(|ethertype| Protocol::from(i32::from(ethertype.to_be())));
    let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), protocol)?;
    if ethertype == Some(ETHERTYPE_IPV6) {
        socket.attach_filter(&discovery_only())?;
    }
    bind(socket.as_raw_fd(), &link)?;
    Ok(socket)
}

/// Lets only neighbour discovery through, for where much IPv6 flows the socket's queue would otherwise be full of it,
/// and the answer be lost. In the kernel's classic filter language (linux/bpf_common.h); where a filter's program ends
/// without a return, the kernel refuses it.
fn discovery_only() -> [SockFilter; 7] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // Behind the Ethernet header (14 bytes): the next header in IPv6's own (byte 6), and the type, which is the first
    // byte behind that (40 bytes).
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 14 + 6),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, ICMPV6.into()),
        SockFilter::new(LOAD_BYTE, 0, 0, 14 + 40),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, SOLICITATION.into()),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, ADVERTISEMENT.into()),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
