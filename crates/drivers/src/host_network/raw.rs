//! Packet sockets: send and receive Ethernet frames on one interface (packet(7)). They need CAP_NET_RAW.

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

/// Size of the receive buffer in bytes: an Ethernet frame. Longer frames are truncated; ARP and neighbour discovery are
/// much shorter.
const FRAME_MAX: usize = 1514;
/// Retries of a send when the interface's queue is full, and the delay between them.
const SEND_RETRIES: u32 = 5;
const SEND_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Packet types that are received: `PACKET_HOST`, `PACKET_BROADCAST`, `PACKET_MULTICAST` (linux/if_packet.h). Frames to
/// other hosts are ignored, among them those of VLANs that have no interface here: their addresses belong to another
/// network.
const RECEIVED: [u8; 3] = [0, 1, 2];

/// A packet socket that is closed on a blocking thread: in binding it to a protocol and in closing it, the kernel waits
/// for all CPUs (`synchronize_net`), which takes tens of milliseconds.
struct PacketSocket(Option<AsyncFd<Socket>>);

impl PacketSocket {
    fn new(socket: Socket) -> io::Result<PacketSocket> {
        // Its replacement, `register`, is unsafe: a type might return another descriptor each time. `Socket` owns
        // exactly one.
        #[allow(deprecated)]
        let socket = AsyncFd::new(socket)?;
        Ok(PacketSocket(Some(socket)))
    }

    fn get(&self) -> io::Result<&AsyncFd<Socket>> {
        self.0.as_ref().ok_or_else(|| Errno::EBADF.into())
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        if let (Some(socket), Ok(runtime)) = (self.0.take().map(AsyncFd::into_inner), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(socket));
        }
    }
}

/// A packet socket on one interface: bound to one protocol, or for sending only.
pub(super) struct Raw {
    socket: PacketSocket,
    index: u32,
    /// Keeps this host in a multicast group.
    _member: Option<UdpSocket>,
}

impl Raw {
    /// Receives frames of this protocol on the interface, from now on. Frames sent by this host are not among them.
    pub(super) async fn open(index: u32, ethertype: u16) -> io::Result<Raw> {
        let socket = spawn_blocking(move || bound(index, Some(ethertype))).await.map_err(io::Error::other)??;
        Ok(Raw { socket: PacketSocket::new(socket)?, index, _member: None })
    }

    /// Only sends. Worth keeping for the next time: opening one is fast, closing it is slow.
    pub(super) fn sender(index: u32) -> io::Result<Raw> {
        Ok(Raw { socket: PacketSocket::new(bound(index, None)?)?, index, _member: None })
    }

    /// Index of its interface.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Joins a multicast group: network cards and switches do not deliver its frames to non-members.
    pub(super) fn join(&mut self, group: Ipv6Addr) {
        let join = || {
            let member = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            member.join_multicast_v6(&group, self.index)?;
            Ok(member)
        };
        match join() {
            Ok(member) => self._member = Some(member),
            Err::<_, io::Error>(error) => {
                tracing::debug!(%group, %error, "cannot join a multicast group; its packets may not be received")
            }
        }
    }

    /// Sends one frame.
    pub(super) async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut retries = 0;
        loop {
            let mut ready = self.socket.get()?.writable().await?;
            match ready.try_io(|socket| socket.get_ref().send(frame)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) && retries < SEND_RETRIES => {
                    retries += 1;
                    sleep(SEND_RETRY_DELAY).await;
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    async fn receive<'a>(&self, buffer: &'a mut [u8; FRAME_MAX]) -> io::Result<&'a [u8]> {
        loop {
            let mut ready = self.socket.get()?.readable().await?;
            let received = ready.try_io(|socket| Ok(recvfrom::<LinkAddr>(socket.get_ref().as_raw_fd(), buffer)?));
            match received {
                Ok(Ok((length, from))) => {
                    // Between socket() and bind(), the socket received from all interfaces.
                    let ours = |from: LinkAddr| {
                        u32::try_from(from.ifindex()) == Ok(self.index) && RECEIVED.contains(&from.pkttype())
                    };
                    if from.is_some_and(ours) {
                        return Ok(buffer.get(..length).unwrap_or_default());
                    }
                }
                // Frames were lost: continue with the next.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// Sends `request` `times` times, `interval` apart, and receives until `accept` returns `Some` for a frame. `None`
    /// if that did not happen within `timeout`.
    pub(super) async fn exchange<T: Send>(
        &self,
        request: &[u8],
        times: u32,
        interval: Duration,
        timeout: Duration,
        accept: impl Fn(&[u8]) -> Option<T> + Send,
    ) -> io::Result<Option<T>> {
        let start = Instant::now();
        let deadline = start + timeout;
        let mut sent = 0;
        let mut buffer = [0; FRAME_MAX];
        loop {
            let next = if sent < times { (start + interval * sent).min(deadline) } else { deadline };
            if sent < times && Instant::now() >= next {
                match timeout_at(deadline.max(Instant::now() + SEND_RETRY_DELAY), self.send(request)).await {
                    Ok(result) => result?,
                    Err(_) => return Err(Errno::ENOBUFS.into()),
                }
                sent += 1;
                continue;
            }
            // `timeout_at` polls its timer last, so that it would not end a steady stream of frames.
            if Instant::now() >= deadline {
                return Ok(None);
            }
            if let Ok(frame) = timeout_at(next, self.receive(&mut buffer)).await
                && let Some(answer) = accept(frame?)
            {
                return Ok(Some(answer));
            }
        }
    }
}

/// Opens a socket bound to an interface. Without a protocol, it receives nothing.
fn bound(index: u32, ethertype: Option<u16>) -> io::Result<Socket> {
    // The only way to get a link-layer address for bind() without unsafe code.
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

/// A filter that accepts only neighbour discovery: with much other IPv6 traffic, the socket's queue would be full and
/// the answer lost. In classic BPF (linux/bpf_common.h); the kernel refuses a program that ends without a return.
fn discovery_only() -> [SockFilter; 7] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // After the Ethernet header (14 bytes): the next header field of the IPv6 header (byte 6), and the ICMPv6 type, the
    // first byte after the IPv6 header (40 bytes).
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
