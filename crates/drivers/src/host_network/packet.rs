//! Encodes and parses ARP (RFC 826, RFC 5227) and IPv6 neighbour discovery (RFC 4861) in Ethernet frames. No I/O.
//! Received frames are untrusted: they may be malformed or truncated.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An Ethernet (MAC) address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac(pub(super) [u8; 6]);

impl Mac {
    const BROADCAST: Mac = Mac([0xff; 6]);
    const NONE: Mac = Mac([0; 6]);

    /// The Ethernet address of an IPv6 multicast address (RFC 2464, section 7).
    fn multicast(ip: Ipv6Addr) -> Mac {
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

/// EtherType of ARP (RFC 826).
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6 (RFC 2464, section 3).
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Next-header value of ICMPv6 (RFC 4443, section 1).
pub(super) const ICMPV6: u8 = 58;
/// ICMPv6 types of neighbour discovery (RFC 4861, sections 4.3 and 4.4).
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;

/// `ff02::1`, all nodes of the link (RFC 4291, section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Hop limit of every neighbour discovery message; proves that no router forwarded it (RFC 4861, section 7.1).
const HOP_LIMIT: u8 = 255;
/// Override flag: the advertisement replaces a cached link-layer address (RFC 4861, section 4.4).
const OVERRIDE: u8 = 0x20;
/// Types of the link-layer address options (RFC 4861, section 4.6.1).
const SOURCE_OPTION: u8 = 1;
const TARGET_OPTION: u8 = 2;

/// Length of an Ethernet header in bytes: two addresses and the EtherType.
const ETHERNET_HEADER: usize = 14;
/// Length of an IPv6 header in bytes (RFC 8200, section 3).
const IPV6_HEADER: usize = 40;

/// Operation of an ARP packet (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Reply,
}

/// The fields of an ARP packet that we use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arp {
    pub(super) op: Op,
    pub(super) sender_mac: Mac,
    pub(super) sender: Ipv4Addr,
}

/// The fields of a neighbour discovery message that we use.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// A request for the owner of `target`. From the unspecified address (`::`) it is duplicate address detection.
    Solicitation { mac: Mac, source: Ipv6Addr, target: Ipv6Addr },
    /// A statement that `target` is at `mac`.
    Advertisement { mac: Mac, target: Ipv6Addr },
}

fn ethernet_header(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    [to.0.as_slice(), &from.0, &ethertype.to_be_bytes()].concat()
}

fn arp(op: Op, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet_header(Mac::BROADCAST, sender.0, ETHERTYPE_ARP);
    // Hardware type Ethernet, protocol type IPv4; address lengths 6 and 4.
    frame.extend([0, 1, 8, 0, 6, 4]);
    let op: u16 = match op {
        Op::Request => 1,
        Op::Reply => 2,
    };
    frame.extend(op.to_be_bytes());
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.octets());
    }
    frame
}

/// A broadcast request for `target`. With the sender `0.0.0.0` it is a probe, which updates no ARP cache (RFC 5227,
/// section 2.1.1).
pub(super) fn arp_request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    arp(Op::Request, (mac, sender), (Mac::NONE, target))
}

/// Gratuitous ARP that `ip` is at `mac`: a request (RFC 5227, section 2.3) and a reply, since some hosts accept only
/// one of them. In the reply the target fields equal the sender's (RFC 5944, section 4.6).
pub(super) fn arp_announcements(mac: Mac, ip: Ipv4Addr) -> [Vec<u8>; 2] {
    [arp(Op::Request, (mac, ip), (Mac::NONE, ip)), arp(Op::Reply, (mac, ip), (mac, ip))]
}

/// The solicited-node multicast address (RFC 4291, section 2.7.1).
pub(super) fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// A neighbour solicitation for `target`. From `::` it is duplicate address detection (RFC 4862, section 5.4.2).
pub(super) fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    // From `::`, the option must be absent (RFC 4861, section 4.3).
    let option = (!source.is_unspecified()).then_some(SOURCE_OPTION);
    discovery(SOLICITATION, 0, (mac, source), solicited_node(target), target, option)
}

/// An unsolicited neighbour advertisement that `ip` is at `mac` (RFC 4861, section 7.2.6).
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
        // Length 1, in units of 8 bytes.
        message.extend([option, 1]);
        message.extend(mac.0);
    }
    let checksum = checksum(source, to, &message);
    message.splice(2..4, checksum.to_be_bytes());

    let mut frame = ethernet_header(Mac::multicast(to), mac, ETHERTYPE_IPV6);
    // 24 or 32 bytes.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes();
    frame.extend([0x60, 0, 0, 0, length[0], length[1], ICMPV6, HOP_LIMIT]);
    frame.extend(source.octets());
    frame.extend(to.octets());
    frame.extend(message);
    frame
}

/// The checksum of an ICMPv6 message whose checksum field is zero, with its pseudo-header (RFC 4443, section 2.3; RFC
/// 8200, section 8.1).
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

/// `N` bytes at an offset; `None` if the packet is shorter.
fn bytes<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn payload(frame: &[u8], ethertype: u16) -> Option<&[u8]> {
    (bytes(frame, 12)? == ethertype.to_be_bytes()).then(|| frame.get(ETHERNET_HEADER..))?
}

/// Parses an ARP packet for IPv4 over Ethernet; `None` if the frame is not one.
pub(super) fn parse_arp(frame: &[u8]) -> Option<Arp> {
    let arp = payload(frame, ETHERTYPE_ARP)?;
    if bytes(arp, 0)? != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let op = match u16::from_be_bytes(bytes(arp, 6)?) {
        1 => Op::Request,
        2 => Op::Reply,
        _ => return None,
    };
    // A packet without its last field is truncated.
    let _target: [u8; 4] = bytes(arp, 24)?;
    Some(Arp { op, sender_mac: Mac(bytes(arp, 8)?), sender: Ipv4Addr::from(bytes::<4>(arp, 14)?) })
}

/// Parses a neighbour discovery message; `None` if the frame is not one. The checksum is not verified: it may be left
/// to the network card to fill in, and the worst that a corrupt message can do is make an address look used once.
pub(super) fn parse_discovery(frame: &[u8]) -> Option<Discovery> {
    let ip = payload(frame, ETHERTYPE_IPV6)?;
    let [next, hops] = bytes(ip, 6)?;
    if next != ICMPV6 || hops != HOP_LIMIT {
        return None;
    }
    let source = Ipv6Addr::from(bytes::<16>(ip, 8)?);
    let icmp = ip.get(IPV6_HEADER..)?;
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

/// The link-layer address in the first option of this type.
fn option(mut options: &[u8], wanted: u8) -> Option<Mac> {
    loop {
        let [kind, length] = bytes(options, 0)?;
        if kind == wanted && length == 1 {
            return bytes(options, 2).map(Mac);
        }
        // A length of 0 would loop for ever (RFC 4861, section 4.6: such a packet is discarded).
        options = options.get(usize::from(length).checked_mul(8).filter(|&n| n > 0)?..)?;
    }
}

/// The host that answers for `ip` in `frame`, with an ARP reply or an advertisement.
pub(super) fn answered_by(frame: &[u8], ip: IpAddr) -> Option<Mac> {
    match ip {
        IpAddr::V4(ip) => {
            parse_arp(frame).filter(|arp| arp.op == Op::Reply && arp.sender == ip).map(|arp| arp.sender_mac)
        }
        IpAddr::V6(ip) => match parse_discovery(frame)? {
            Discovery::Advertisement { mac, target } if target == ip => Some(mac),
            _ => None,
        },
    }
}

/// The host that uses `ip` according to `frame` (or, with IPv6, is about to). `None` if the frame does not say so, or
/// comes from `own`.
pub(super) fn claimed_by(frame: &[u8], ip: IpAddr, own: Mac) -> Option<Mac> {
    let mac = match ip {
        IpAddr::V4(ip) => {
            // The sender of a probe for `ip` does not have it: another node may check whether it is used.
            parse_arp(frame).filter(|arp| arp.sender == ip).map(|arp| arp.sender_mac)
        }
        IpAddr::V6(ip) => match parse_discovery(frame)? {
            Discovery::Advertisement { mac, target } => (target == ip).then_some(mac),
            // A solicitation from an address is address resolution by a neighbour (RFC 4862, section 5.4.3).
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

    /// RFC 826: hardware type 1, protocol type 0x0800, lengths 6 and 4, operation, sender, target.
    #[test]
    fn arp_requests_and_probes_are_encoded_as_in_the_rfcs() {
        let request = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0000201 000000000000 c0000207";
        assert_eq!(arp_request(MAC, Ipv4Addr::new(192, 0, 2, 1), FLOAT4), hex(request));
        let probe = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 00000000 000000000000 c0000207";
        assert_eq!(arp_request(MAC, Ipv4Addr::UNSPECIFIED, FLOAT4), hex(probe));
    }

    #[test]
    fn arp_announcements_have_the_same_sender_and_target() {
        let request = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a c0000207 000000000000 c0000207";
        let reply = "ffffffffffff 02000000000a 0806 0001 0800 06 04 0002 02000000000a c0000207 02000000000a c0000207";
        assert_eq!(arp_announcements(MAC, FLOAT4), [hex(request), hex(reply)]);
    }

    #[test]
    fn solicitations_are_encoded_as_in_the_rfc() {
        // From the unspecified address: 24 bytes, no option.
        let probe = "3333ff123456 02000000000a 86dd 60000000 0018 3a ff \
                     00000000000000000000000000000000 ff0200000000000000000001ff123456 \
                     87 00 e41e 00000000 20010db8000000000000000000123456";
        // From an address: 32 bytes, with the source link-layer address.
        let resolution = "3333ff123456 02000000000a 86dd 60000000 0020 3a ff \
                     fe800000000000000000000000000001 ff0200000000000000000001ff123456 \
                     87 00 e289 00000000 20010db8000000000000000000123456 01 01 02000000000a";
        assert_eq!(solicitation(MAC, Ipv6Addr::UNSPECIFIED, FLOAT6), hex(probe));
        assert_eq!(solicitation(MAC, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), FLOAT6), hex(resolution));
    }

    #[test]
    fn unsolicited_advertisements_are_encoded_as_in_the_rfc() {
        let frame = "333300000001 02000000000a 86dd 60000000 0020 3a ff \
                     20010db8000000000000000000123456 ff020000000000000000000000000001 \
                     88 00 9053 20000000 20010db8000000000000000000123456 02 01 02000000000a";
        assert_eq!(advertisement(MAC, FLOAT6), hex(frame));
    }

    #[test]
    fn owner_of_an_address_is_read_from_announcements_and_not_from_requests() {
        let [request, reply] = arp_announcements(OTHER, FLOAT4);
        let ip = IpAddr::V4(FLOAT4);
        for frame in [&request, &reply] {
            assert_eq!(claimed_by(frame, ip, MAC), Some(OTHER));
            assert_eq!(claimed_by(frame, ip, OTHER), None, "our own announcement");
            assert_eq!(claimed_by(frame, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8)), MAC), None, "another address");
        }
        for sender in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 1)] {
            assert_eq!(claimed_by(&arp_request(OTHER, sender, FLOAT4), ip, MAC), None, "only a request");
        }
        assert_eq!((answered_by(&reply, ip), answered_by(&request, ip)), (Some(OTHER), None));

        let (advertised, ip) = (advertisement(OTHER, FLOAT6), IpAddr::V6(FLOAT6));
        assert_eq!(
            (claimed_by(&advertised, ip, MAC), claimed_by(&advertised, ip, OTHER), answered_by(&advertised, ip)),
            (Some(OTHER), None, Some(OTHER))
        );
        assert_eq!(claimed_by(&advertised, "2001:db8::1".parse().unwrap(), MAC), None);
        let probe = solicitation(OTHER, Ipv6Addr::UNSPECIFIED, FLOAT6);
        assert_eq!((claimed_by(&probe, ip, MAC), answered_by(&probe, ip)), (Some(OTHER), None));
        assert_eq!(claimed_by(&solicitation(OTHER, FLOAT6, FLOAT6), ip, MAC), None, "only a request");
    }

    #[test]
    fn link_layer_address_is_that_of_the_option_else_of_the_frame() {
        let mut frame = advertisement(OTHER, FLOAT6);
        frame.splice(6..12, MAC.0);
        assert_eq!(answered_by(&frame, IpAddr::V6(FLOAT6)), Some(OTHER));
        // After an unknown option.
        frame.splice(78..78, [14, 1, 1, 2, 3, 4, 5, 6]);
        assert_eq!(answered_by(&frame, IpAddr::V6(FLOAT6)), Some(OTHER));
        frame.truncate(78);
        assert_eq!(answered_by(&frame, IpAddr::V6(FLOAT6)), Some(MAC));
        frame.extend([14, 0, 1, 2, 3, 4, 5, 6, 2, 1]);
        assert_eq!(answered_by(&frame, IpAddr::V6(FLOAT6)), Some(MAC), "an option of length 0");
    }

    #[test]
    fn a_message_that_was_forwarded_is_ignored() {
        let mut frame = advertisement(OTHER, FLOAT6);
        frame[21] = 254;
        assert_eq!(parse_discovery(&frame), None);
    }

    #[test]
    fn truncated_and_corrupt_frames_do_no_harm() {
        let [_, reply] = arp_announcements(OTHER, FLOAT4);
        let frames = [reply, advertisement(OTHER, FLOAT6), solicitation(OTHER, Ipv6Addr::UNSPECIFIED, FLOAT6)];
        for frame in &frames {
            for length in 0..frame.len() {
                let cut = &frame[..length];
                let (arp, discovery) = (parse_arp(cut), parse_discovery(cut));
                // Only an advertisement is valid without its last part, the option.
                assert!(arp.is_none() && (discovery.is_none() || length >= 78), "{length}");
            }
            for at in 0..frame.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bad = frame.clone();
                    bad[at] = value;
                    let _ = (claimed_by(&bad, IpAddr::V4(FLOAT4), MAC), claimed_by(&bad, IpAddr::V6(FLOAT6), MAC));
                }
            }
        }
    }

    #[test]
    fn mac_addresses_are_written_with_colons() {
        assert_eq!(Mac([0, 1, 0xab, 0xcd, 0xef, 0xff]).to_string(), "00:01:ab:cd:ef:ff");
    }

    #[test]
    fn mutated_frames_are_parsed_without_panic() {
        let [request, reply] = arp_announcements(OTHER, FLOAT4);
        let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let frames = [request, reply, solicitation(OTHER, neighbour, FLOAT6), advertisement(OTHER, FLOAT6)];
        let (mut dice, mut parsed) = (drover_model::Dice::new(3), 0);
        for n in 0..40_000 {
            let frame = dice.mutate(&frames[n % frames.len()], &["\u{1}", "\u{0}\u{0}", "\u{2}\u{1}", "\u{7f}"]);
            for ip in [IpAddr::V4(FLOAT4), IpAddr::V6(FLOAT6)] {
                parsed += usize::from(answered_by(&frame, ip).is_some() || claimed_by(&frame, ip, MAC).is_some());
            }
        }
        assert!(parsed > 1000, "only {parsed} frames were parsed: the mutations are too wild to be a test");
    }
}
