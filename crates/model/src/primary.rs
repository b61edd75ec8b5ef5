//! The records of the primary's role: which coordinator has the cluster's floating addresses and services, and handoffs
//! to another one.
//!
//! There are two kinds of record. [`Primary`] has the holder of the role and the state of a handoff. A [`Lease`] exists
//! for each node that may have something up; that node renews it periodically, and until the term has passed since the
//! last renewal no other node may assume that it has taken everything down.

use crate::{
    name::NodeName,
    record::{Only, RecordKind, Writer},
    vm::Epoch,
    words::words,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    time::Duration,
};

/// The layout version of this module's records.
pub const PRIMARY_SCHEMA: u32 = 1;

/// `/primary`: the primary coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Primary {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Incremented with every change of the holder.
    pub epoch: Epoch,
    /// The node that has the role.
    pub holder: Option<NodeName>,
    /// Every node that may have a primary service up. Each has a [`Lease`], which is created and deleted together with
    /// its name here. A name is removed by that node itself when it has taken everything down, or by another one when
    /// its lease has been silent for its whole term.
    pub suspects: BTreeSet<NodeName>,
    /// A handoff under way.
    #[serde(default)]
    pub handoff: Option<Handoff>,
    /// The last failed handoff, until the next request.
    #[serde(default)]
    pub failed: Option<FailedHandoff>,
}

impl Primary {
    /// The initial record, without a holder.
    pub fn vacant() -> Primary {
        Primary {
            schema: PRIMARY_SCHEMA,
            epoch: Epoch(0),
            holder: None,
            suspects: BTreeSet::new(),
            handoff: None,
            failed: None,
        }
    }

    /// Whether this node has the role.
    pub fn is_held_by(&self, node: &NodeName) -> bool {
        self.holder.as_ref() == Some(node)
    }

    /// The candidate of a handoff under way.
    pub fn candidate(&self) -> Option<&NodeName> {
        self.handoff.as_ref().map(|h| &h.to)
    }

    /// The phase of a handoff under way.
    pub fn phase(&self) -> Option<Phase> {
        self.handoff.as_ref().map(|h| h.phase)
    }
}

impl RecordKind for Primary {
    type Key = Only;
    const AT: &'static str = "/primary";
    const SCHEMA: u32 = PRIMARY_SCHEMA;
    const WRITER: Writer = Writer::Coordinators;
}

impl RecordKind for Lease {
    type Key = NodeName;
    const AT: &'static str = "/primary/leases/*";
    const SCHEMA: u32 = PRIMARY_SCHEMA;
    const WRITER: Writer = Writer::Coordinators;

    /// The lease's existence and its term. If the term cannot be read the lease never expires, because it is unknown
    /// here when its node has taken everything down.
    fn salvage(_: &NodeName, document: &serde_json::Value) -> Option<Lease> {
        let number = |field: &str| document.get(field).and_then(serde_json::Value::as_u64);
        Some(Lease {
            schema: PRIMARY_SCHEMA,
            epoch: Epoch(number("epoch").unwrap_or(0)),
            term_ms: number("term_ms").unwrap_or(u64::MAX),
            beat: number("beat").unwrap_or(0),
        })
    }
}

/// A handoff of the role to another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handoff {
    /// The candidate.
    pub to: NodeName,
    /// The present phase.
    pub phase: Phase,
    /// Why it is being reverted; empty if it is not.
    #[serde(default)]
    pub why: String,
}

/// The phases of a handoff, in order. In each, one side acts and the other one waits; writing the next phase says that
/// it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The candidate takes the lock, and gets a lease.
    Lock,
    /// The holder stops its exclusive services.
    Stop,
    /// The candidate brings the addresses up and announces them. The holder still has them.
    Take,
    /// The holder takes the addresses down.
    Drop,
    /// The candidate announces again, starts the services, and becomes the holder.
    Start,
    /// It failed before the holder took anything down for good: the candidate takes down what it brought up.
    Back,
}
words!(Phase, "phase", Lock = "lock", Stop = "stop", Take = "take", Drop = "drop", Start = "start", Back = "back");

/// A failed handoff.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FailedHandoff {
    /// The candidate.
    pub to: NodeName,
    /// Why.
    pub why: String,
}

/// `/primary/leases/<node>`: this node may have a primary service up, and is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The epoch of its creation.
    pub epoch: Epoch,
    /// Term, in milliseconds. This long after the last renewal everything that the node had up is gone: guaranteed by
    /// the node, and by its kernel.
    pub term_ms: u64,
    /// Number of renewals.
    pub beat: u64,
}

impl Lease {
    /// The term.
    pub fn term(&self) -> Duration {
        Duration::from_millis(self.term_ms)
    }
}

/// An address that one node has at a time, with its interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FloatingAddress {
    /// The address and its network.
    pub address: Cidr,
    /// The interface.
    pub interface: String,
    /// Name of that network for administrators: `upstream`, `cluster`, `storage`.
    pub network: String,
}

impl FloatingAddress {
    /// Address of the guests' metadata service; local to the machine, and not announced on any network.
    pub fn metadata() -> FloatingAddress {
        let address = Cidr { ip: IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), prefix: 32 };
        FloatingAddress { address, interface: "lo".to_owned(), network: "metadata".to_owned() }
    }
}

impl fmt::Display for FloatingAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} address {} on {}", self.network, self.address, self.interface)
    }
}

/// An address with its prefix length: `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// Prefix length, at most 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// An invalid [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid address with a prefix length that a host can have; accepted is, for instance, \
     \"192.0.2.7/24\""
)]
pub struct BadCidr(String);

impl FromStr for Cidr {
    type Err = BadCidr;
    fn from_str(text: &str) -> Result<Cidr, BadCidr> {
        let bad = || BadCidr(text.chars().take(80).collect());
        let (ip, prefix) = text.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let plain = prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| plain).ok_or_else(bad)?;
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        let good = (1..=if ip.is_ipv4() { 32 } else { 128 }).contains(&prefix);
        if !good || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
            return Err(bad());
        }
        Ok(Cidr { ip, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_refused() {
        for good in ["192.0.2.7/24", "203.0.113.50/32", "2001:db8::1/64"] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        for bad in
            ["192.0.2.7", "192.0.2.7/33", "192.0.2.7/0", "0.0.0.0/8", "224.0.0.1/4", "127.0.0.1/8", "::/64", "::1/128"]
                .into_iter()
                .chain(["192.0.2.7/+1", "192.0.2.7/", "/24", "x/24", "255.255.255.255/32"])
        {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lease_with_an_unreadable_term_never_expires() {
        let lease = |text: &str| Lease::salvage(&NodeName::new("hv1").unwrap(), &serde_json::from_str(text).unwrap());
        let known = lease(r#"{"schema":2,"epoch":"3b","term_ms":4000,"beat":7}"#).unwrap();
        assert_eq!((known.term(), known.beat), (Duration::from_secs(4), 7));
        let unknown = lease(r#"{"schema":2,"epoch":3,"term_ms":{"s":4}}"#).unwrap();
        assert_eq!((unknown.term_ms, unknown.epoch), (u64::MAX, Epoch(3)));
    }

    #[test]
    fn a_record_is_read_back() {
        let mut primary = Primary::vacant();
        let node = NodeName::new("hv1").unwrap();
        primary.handoff = Some(Handoff { to: node.clone(), phase: Phase::Take, why: String::new() });
        let text = serde_json::to_string(&primary).unwrap();
        assert!(text.contains(r#""phase":"take""#), "{text}");
        assert_eq!(serde_json::from_str::<Primary>(&text).unwrap(), primary);
        assert_eq!((primary.candidate(), primary.phase()), (Some(&node), Some(Phase::Take)));
    }
}
