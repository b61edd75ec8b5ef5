//! The bytes of what is said on a link about addresses: ARP (RFC 826, RFC 5227) and IPv6's neighbour discovery (RFC
//! 4861), in Ethernet frames. No input or output here. What is read comes from the network: it may be anything, and
//! anything may be missing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl Mac {
    const BROADCAST: Mac = Mac([0xff; 6]);
    const NONE: Mac = Mac([0; 6]);

    /// Where IPv6 packets to a multicast address go on an Ethernet (RFC 2464, section 7).
    fn of_multicast(ip: Ipv6Addr) -> Mac {
        let [.., a, b, c, d] = ip.octets();
        Mac([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The protocol of ARP in an Ethernet frame (RFC 826).
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
/// The protocol of IPv6 in an Ethernet frame (RFC 2464, section 3).
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The next header of ICMPv6 (RFC 4443, section 1).
pub(super) const ICMPV6: u8 = 58;
/// The types of neighbour discovery (RFC 4861, sections 4.3 and 4.4).
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;

/// `ff02::1`, all nodes of the link (RFC 4291, section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// What every message of neighbour discovery has, which shows that no router has passed it on (RFC 4861, section 7.1).
const HOP_LIMIT: u8 = 255;
/// The advertisement shall replace what is known of the address (RFC 4861, section 4.4).
const OVERRIDE: u8 = 0x20;
/// Options that hold a link-layer address (RFC 4861, section 4.6.1).
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;

/// Where a frame's payload begins, behind two addresses and the protocol.
const ETHERNET: usize = 14;
/// The length of an IPv6 header (RFC 8200, section 3).
const IPV6: usize = 40;

/// What an ARP packet is (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Reply,
}

/// What is of interest in an ARP packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) op: Op,
    pub(super) sender_mac: Mac,
    pub(super) sender: Ipv4Addr,
}

/// What is of interest in a message of neighbour discovery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// Somebody asks for the target. From no address (`::`): wants to have it, and asks whether it is free.
    Solicitation { mac: Mac, source: Ipv6Addr, target: Ipv6Addr },
    /// Somebody says that the target is his.
    Advertisement { mac: Mac, target: Ipv6Addr },
}

fn ethernet(to: Mac, from: Mac, protocol: u16) -> Vec<u8> {
    [to.0.as_slice(), &from.0, &protocol.to_be_bytes()].concat()
}

fn arp(op: Op, from: (Mac, Ipv4Addr), about: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(Mac::BROADCAST, from.0, ETHERTYPE_ARP);
    // Hardware: Ethernet, 6 bytes of address; protocol: IPv4, 4 bytes of address.
    frame.extend([0, 1, 8, 0, 6, 4]);
    let op: u16 = match op {
        Op::Request => 1,
        Op::Reply => 2,
    };
    frame.extend(op.to_be_bytes());
    for (mac, ip) in [from, about] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
    frame
}

/// Asks everybody for `target`. From `0.0.0.0` it is a probe, which changes nobody's table (RFC 5227, section 2.1.1).
pub(super) fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(Op::Request, (mac, sender), (Mac::NONE, target))
}

/// Tells everybody that `ip` is at `mac`: both as a request (RFC 5227, section 2.3) and as a reply, since there are
/// hosts that heed only the one or the other. In the reply the target is the sender, too (RFC 5944, section 4.6).
pub(super) fn arp_announcements(mac: Mac, ip: Ipv4Addr) -> [Vec<u8>; 2] {
    [arp(Op::Request, (mac, ip), (Mac::NONE, ip)), arp(Op::Reply, (mac, ip), (mac, ip))]
}

/// The multicast group of all who may have an address (RFC 4291, section 2.7.1).
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// Asks for `target`. From `::` it asks whether the address is free (RFC 4862, section 5.4.2).
pub(super) fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    // Nobody can answer to `::`, so it must not say where that is.
    let option = (!source.is_unspecified()).then_some(SOURCE_OPTION);
    discovery(SOLICITATION, 0, (mac, source), solicited_node(target), target, option)
}

/// Tells everybody that `ip` is at `mac`, unasked (RFC 4861, section 7.2.6).
pub(super) fn advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    discovery(ADVERTISEMENT, OVERRIDE, (mac, ip), ALL_NODES, ip, Some(TARGET_OPTION))
}

fn discovery(
    kind: u8,
    flags: u8,
    (mac, source): (Mac, Ipv6Addr),
    to: Ipv6Addr,
    target: Ipv6Addr,
    option: Option<u8>,
) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some(option) = option {
        // Its length, in units of 8 bytes, is 1.
        message.extend([option, 1]);
        message.extend(mac.0);
    }
    let checksum = checksum(source, to, &message);
    message.splice(2..4, checksum.to_be_bytes());

    let mut frame = ethernet(Mac::of_multicast(to), mac, ETHERTYPE_IPV6);
    // A message has 24 or 32 bytes.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    frame.extend([0x60, 0, 0, 0, length[0], length[1], ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

/// The checksum of an ICMPv6 message whose own field for it is zero: over a pseudo-header, too (RFC 4443, section 2.3;
/// RFC 8200, section 8.1).
fn checksum(source: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let pseudo = [source.octets().as_slice(), &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let words = pseudo.chunks(2).chain(message.chunks(2));
    let mut sum: u32 = words
        .map(|word| {
            let byte = |at| word.get(at).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([byte(0), byte(1)]))
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// `N` bytes from `at` on, if the packet has them.
fn bytes<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn payload(frame: &[u8], protocol: u16) -> Option<&[u8]> {
    (bytes(frame, 12)? == protocol.to_be_bytes()).then(|| frame.get(ETHERNET..))?
}

/// An ARP packet of IPv4 on an Ethernet; `None`: the frame is something else.
pub(super) fn read_arp(frame: &[u8]) -> Option<Arp> {
    let arp = payload(frame, ETHERTYPE_ARP)?;
    if bytes(arp, 0)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let op = match u16::from_be_bytes(bytes(arp, 6)?) {
        1 => Op::Request,
        2 => Op::Reply,
        _ => return None,
    };
    // The last field must be there, too.
    let _target: [u8; 4] = bytes(arp, 24)?;
    Some(Arp { op, sender_mac: Mac(bytes(arp, 8)?), sender: Ipv4Addr::from(bytes::<4>(arp, 14)?) })
}

/// A message of neighbour discovery; `None`: the frame is something else. The checksum is not looked at: a damaged
/// message may make an address look taken for once, and none that is right is missed for a checksum that a network card
/// was to fill in.
pub(super) fn read_discovery(frame: &[u8]) -> Option<Discovery> {
    let ip = payload(frame, ETHERTYPE_IPV6)?;
    let [next, hops] = bytes(ip, 6)?;
    if next != ICMPV6 || hops != HOP_LIMIT {
        return None;
    }
    let source = Ipv6Addr::from(bytes::<16>(ip, 8)?);
    let icmp = ip.get(IPV6..)?;
    let [kind, code] = bytes(icmp, 0)?;
    let target = Ipv6Addr::from(bytes::<16>(icmp, 8)?);
    let sender = Mac(bytes(frame, 6)?);
    match (kind, code) {
        (SOLICITATION, 0) => Some(Discovery::Solicitation { mac: sender, source, target }),
        (ADVERTISEMENT, 0) => {
            let mac = option(icmp.get(24..)?, TARGET_OPTION).unwrap_or(sender);
            Some(Discovery::Advertisement { mac, target })
        }
        _ => None,
    }
}

/// The link-layer address in an option of this type.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    loop {
        let [kind, length] = bytes(options, 0)?;
        if kind == wanted && length == 1 {
            return bytes(options, 2).map(Mac);
        }
        // An option without a length would keep us here for ever (RFC 4861, section 4.6: such a packet is discarded).
        options = options.get(usize::from(length).checked_mul(8).filter(|&n| n > 0)?..)?;
    }
}

/// Who answers in `frame` that `ip` is his: he told, or has been asked.
pub(super) fn answers(frame: &[u8], ip: IpAddr) -> Option<Mac> {
    match ip {
        IpAddr::V4(ip) => {
            read_arp(frame).filter(|arp| arp.op == Op::Reply && arp.sender == ip).map(|arp| arp.sender_mac)
        }
        IpAddr::V6(ip) => match read_discovery(frame)? {
            Discovery::Advertisement { mac, target } if target == ip => Some(mac),
            _ => None,
        },
    }
}

/// Who has `ip` according to `frame` (or, with IPv6, is about to have it); `None`: it says nothing of that, or `own`
/// said it.
pub(super) fn claims(frame: &[u8], ip: IpAddr, own: Mac) -> Option<Mac> {
    let mac = match ip {
        IpAddr::V4(ip) => {
            // Who probes for it, too, does not have it: another node may look whether it is taken.
            read_arp(frame).filter(|arp| arp.sender == ip).map(|arp| arp.sender_mac)
        }
        IpAddr::V6(ip) => match read_discovery(frame)? {
            Discovery::Advertisement { mac, target } => (target == ip).then_some(mac),
            // Who asks from an address is a neighbour that looks for its owner (RFC 4862, section 5.4.3).
            Discovery::Solicitation { mac, source, target } => (source.is_unspecified() && target == ip).then_some(mac),
        },
    };
    mac.filter(|&mac| mac != own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);
    const FLOAT4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const FLOAT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The figure of RFC 826 in bytes: hardware 1, protocol 0x0800, lengths 6 and 4, the operation, sender, target.
    #[test]
    fn an_arp_request_and_a_probe_are_as_the_rfcs_have_them() {
        let request = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0000201 000000000000 c0000207";
        assert_eq!(arp_request(MAC, Ipv4Addr::new(192, 0, 2, 1), FLOAT4), hex(request));
        let probe = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 00000000 000000000000 c0000207";
        assert_eq!(arp_request(MAC, Ipv4Addr::UNSPECIFIED, FLOAT4), hex(probe));
    }

    #[test]
    fn an_announcement_is_a_request_and_a_reply_with_the_same_sender_and_target() {
        let request = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0000207 000000000000 c0000207";
        let reply = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0002 02000000000a c0000207 02000000000a c0000207";
        assert_eq!(arp_announcements(MAC, FLOAT4), [hex(request), hex(reply)]);
    }

    #[test]
    fn a_solicitation_is_as_the_rfc_has_it() {
        // From nobody: 24 bytes, no option.
        let probe = "3333ff123456 02000000000a 86dd 60000000 0018 3a ff \
                     00000000000000000000000000000000 ff0200000000000000000001ff123456 \
                     87 00 e41e 00000000 20010db8000000000000000000123456";
        // From a neighbour: 32 bytes, and where he is.
        let asked = "3333ff123456 02000000000a 86dd 60000000 0020 3a ff \
                     fe800000000000000000000000000001 ff0200000000000000000001ff123456 \
                     87 00 e289 00000000 20010db8000000000000000000123456 01 01 02000000000a";
        assert_eq!(solicitation(MAC, Ipv6Addr::UNSPECIFIED, FLOAT6), hex(probe));
        assert_eq!(solicitation(MAC, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), FLOAT6), hex(asked));
    }

    #[test]
    fn an_unsolicited_advertisement_is_as_the_rfc_has_it() {
        let frame = "333300000001 02000000000a 86dd 60000000 0020 3a ff \
                     20010db8000000000000000000123456 ff020000000000000000000000000001 \
                     88 00 9053 20000000 20010db8000000000000000000123456 02 01 02000000000a";
        assert_eq!(advertisement(MAC, FLOAT6), hex(frame));
    }

    #[test]
    fn who_has_an_address_is_read_from_what_others_say() {
        let [request, reply] = arp_announcements(OTHER, FLOAT4);
        let ip = IpAddr::V4(FLOAT4);
        for frame in [&request, &reply] {
            assert_eq!(claims(frame, ip, MAC), Some(OTHER));
            assert_eq!(claims(frame, ip, OTHER), None, "we said it ourselves");
            assert_eq!(claims(frame, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8)), MAC), None, "another address");
        }
        for sender in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 1)] {
            assert_eq!(claims(&arp_request(OTHER, sender, FLOAT4), ip, MAC), None, "he only asks");
        }
        assert_eq!((answers(&reply, ip), answers(&request, ip)), (Some(OTHER), None));

        let (told, ip) = (advertisement(OTHER, FLOAT6), IpAddr::V6(FLOAT6));
        assert_eq!(
            (claims(&told, ip, MAC), claims(&told, ip, OTHER), answers(&told, ip)),
            (Some(OTHER), None, Some(OTHER))
        );
        assert_eq!(claims(&told, "2001:db8::1".parse().unwrap(), MAC), None);
        let wanted = solicitation(OTHER, Ipv6Addr::UNSPECIFIED, FLOAT6);
        assert_eq!((claims(&wanted, ip, MAC), answers(&wanted, ip)), (Some(OTHER), None));
        assert_eq!(claims(&solicitation(OTHER, FLOAT6, FLOAT6), ip, MAC), None, "he only asks");
    }

    #[test]
    fn the_address_is_the_options_and_without_one_the_frames() {
        let mut frame = advertisement(OTHER, FLOAT6);
        frame.splice(6..12, MAC.0);
        assert_eq!(answers(&frame, IpAddr::V6(FLOAT6)), Some(OTHER));
        // Behind an option that is not known.
        frame.splice(78..78, [14, 1, 1, 2, 3, 4, 5, 6]);
        assert_eq!(answers(&frame, IpAddr::V6(FLOAT6)), Some(OTHER));
        frame.truncate(78);
        assert_eq!(answers(&frame, IpAddr::V6(FLOAT6)), Some(MAC));
        frame.extend([14, 0, 1, 2, 3, 4, 5, 6, 2, 1]);
        assert_eq!(answers(&frame, IpAddr::V6(FLOAT6)), Some(MAC), "an option of no length");
    }

    #[test]
    fn a_message_that_came_through_a_router_is_none() {
        let mut frame = advertisement(OTHER, FLOAT6);
        frame[21] = 254;
        assert_eq!(read_discovery(&frame), None);
    }

    #[test]
    fn whatever_comes_is_read_or_refused() {
        let [_, reply] = arp_announcements(OTHER, FLOAT4);
        let frames = [reply, advertisement(OTHER, FLOAT6), solicitation(OTHER, Ipv6Addr::UNSPECIFIED, FLOAT6)];
        for frame in &frames {
            for length in 0..frame.len() {
                let cut = &frame[..length];
                let read = (read_arp(cut), read_discovery(cut));
                // Only an advertisement can do without its last part, the option.
                assert!(read.0.is_none() && (read.1.is_none() || length >= 78), "{length}");
            }
            for at in 0..frame.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bad = frame.clone();
                    bad[at] = value;
                    let _ = (claims(&bad, IpAddr::V4(FLOAT4), MAC), claims(&bad, IpAddr::V6(FLOAT6), MAC));
                }
            }
        }
    }

    #[test]
    fn an_address_is_written_as_usual() {
        assert_eq!(Mac([0, 1, 0xab, 0xcd, 0xef, 0xff]).to_string(), "00:01:ab:cd:ef:ff");
    }

    /// What comes from the wire is anybody's.
    #[test]
    fn almost_a_packet_is_read_or_not() {
        let [request, reply] = arp_announcements(OTHER, FLOAT4);
        let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let frames = [request, reply, solicitation(OTHER, neighbour, FLOAT6), advertisement(OTHER, FLOAT6)];
        let (mut dice, mut read) = (drover_model::Dice::new(3), 0);
        for n in 0..40_000 {
            let frame = dice.mutate(&frames[n % frames.len()], &["\u{1}", "\u{0}\u{0}", "\u{2}\u{1}", "\u{7f}"]);
            for ip in [IpAddr::V4(FLOAT4), IpAddr::V6(FLOAT6)] {
                read += usize::from(answers(&frame, ip).is_some() || claims(&frame, ip, MAC).is_some());
            }
        }
        assert!(read > 1000, "only {read} were read: the mutations are too wild to say much");
    }
}
