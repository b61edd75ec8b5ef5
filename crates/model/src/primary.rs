//! Who holds the cluster's floating addresses and services, and how they pass from one coordinator to another.
//!
//! Two kinds of record. [`Primary`] says who has the role, and how far a handoff is. A [`Lease`] exists for each node
//! that may have something up; that node rewrites it all the time, and for as long as the last rewriting is young
//! nobody else may think that it has let go.

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

/// `/primary`: who is the primary coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Primary {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Raised with every change of the holder.
    pub epoch: Epoch,
    /// The node that has the role.
    pub holder: Option<NodeName>,
    /// Every node that may have a primary service up. Each has a [`Lease`], which is made and deleted together with its
    /// name here. A name goes by that node's own hand when it has let go of everything, or by another's when its lease
    /// has been silent for its whole term.
    pub suspects: BTreeSet<NodeName>,
    /// The role is passing to another node.
    #[serde(default)]
    pub handoff: Option<Handoff>,
    /// The last handoff that came to nothing, until the next one is asked for.
    #[serde(default)]
    pub failed: Option<FailedHandoff>,
}

impl Primary {
    /// Nobody had it yet.
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

    /// The node that is to have the role next, if one is.
    pub fn candidate(&self) -> Option<&NodeName> {
        self.handoff.as_ref().map(|h| &h.to)
    }

    /// How far the handoff is.
    pub fn phase(&self) -> Option<Phase> {
        self.handoff.as_ref().map(|h| h.phase)
    }
}

impl RecordKind for Primary {
    type Key = Only;
    const AT: &'static str = "/primary";
    const SCHEMA: u32 = PRIMARY_SCHEMA;
    const WRITER: Writer = Writer::Coordinators;
    fn schema(&self) -> u32 {
        self.schema
    }
}

impl RecordKind for Lease {
    type Key = NodeName;
    const AT: &'static str = "/primary/leases/*";
    const SCHEMA: u32 = PRIMARY_SCHEMA;
    const WRITER: Writer = Writer::Coordinators;
    fn schema(&self) -> u32 {
        self.schema
    }
}

/// The role passes from the holder to another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handoff {
    /// The candidate.
    pub to: NodeName,
    /// How far it is.
    pub phase: Phase,
    /// Why it is being taken back; empty unless it is.
    #[serde(default)]
    pub why: String,
}

/// The steps of a handoff, in order. In each, one side has something to do, the other waits for it; writing the next
/// one says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The candidate takes the lock, and gets a lease.
    Lock,
    /// The holder stops the services of which there may be only one.
    Stop,
    /// The candidate brings the addresses up and announces them. The holder still has them.
    Take,
    /// The holder lets go of the addresses.
    Drop,
    /// The candidate announces again, starts the services, and becomes the holder.
    Start,
    /// It failed before the holder let go: the candidate takes down what it brought up.
    Back,
}
words!(Phase, "phase", Lock = "lock", Stop = "stop", Take = "take", Drop = "drop", Start = "start", Back = "back");

/// A handoff that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FailedHandoff {
    /// The candidate.
    pub to: NodeName,
    /// Why.
    pub why: String,
}

/// `/primary/leases/<node>`: this node may have a primary service up, and lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// Under which epoch it was made.
    pub epoch: Epoch,
    /// After so long without a rewriting, in milliseconds, everything that the node had up is gone: that is the node's
    /// promise, and its kernel's.
    pub term_ms: u64,
    /// Counts the rewritings.
    pub beat: u64,
}

impl Lease {
    /// The promise.
    pub fn term(&self) -> Duration {
        Duration::from_millis(self.term_ms)
    }
}

/// An address that one node has at a time, and the interface on which it has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FloatingAddress {
    /// The address and its network.
    pub address: Cidr,
    /// The interface.
    pub interface: String,
    /// What administrators call that network: `upstream`, `cluster`, `storage`.
    pub network: String,
}

impl FloatingAddress {
    /// Where guests ask for their metadata; an address of the machine itself, which no network hears of.
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

/// An address with the length of its network's prefix: `192.0.2.7/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address.
    pub ip: IpAddr,
    /// At most 32 or 128.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// What is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address with a prefix length that a host can have; accepted is, for instance, \"192.0.2.7/24\"")]
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
