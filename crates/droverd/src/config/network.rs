//! `[network]`: the physical networks of this node, and the primary's floating addresses on them.

use drover_agent::WatchedLink;
use drover_model::{Cidr, FloatingAddress};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{collections::BTreeSet, net::IpAddr};

/// Maximum length of an interface name in bytes (`IFNAMSIZ` in linux/if.h, without the terminating zero).
const INTERFACE_MAX: usize = 15;

/// `[network]`
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "expected a section: [network]")]
pub(crate) struct Networks {
    /// The network to the outside.
    pub(crate) upstream: Network,
    /// The network between the nodes.
    pub(crate) cluster: Network,
    /// The network for storage traffic.
    pub(crate) storage: Network,
    /// Whether the primary has 169.254.169.254, the address of the metadata service for guests. Default: if any
    /// floating address is configured.
    pub(crate) metadata: Option<bool>,
}

/// `[network.upstream]`, `[network.cluster]` or `[network.storage]`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "expected a section, such as [network.upstream]")]
pub(crate) struct Network {
    /// This node's interface on the network.
    #[serde(deserialize_with = "interface")]
    pub(crate) interface: Option<String>,
    /// The primary's floating addresses on the network. Must be the same on all coordinators.
    #[serde(deserialize_with = "cidrs")]
    pub(crate) floating: Vec<Cidr>,
    /// A gateway that must be reachable. A primary that cannot reach it hands its role to a coordinator that can.
    pub(crate) gateway: Option<IpAddr>,
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if (1..=INTERFACE_MAX).contains(&name.len()) && name.chars().all(good) && name != "." && name != ".." {
        return Ok(Some(name));
    }
    Err(D::Error::custom(format!(
        "{name:?} is not a valid interface name; accepted are names such as \"eth1\" and \"bond0.100\""
    )))
}

fn cidrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
}

impl Networks {
    fn all(&self) -> [(&'static str, &Network); 3] {
        [("upstream", &self.upstream), ("cluster", &self.cluster), ("storage", &self.storage)]
    }

    /// Checks that the networks are consistent. `own` is this node's address.
    pub(super) fn check(&self, own: IpAddr) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (name, network) in self.all() {
            if network.interface.is_none() && (!network.floating.is_empty() || network.gateway.is_some()) {
                let what = if network.floating.is_empty() { "a gateway" } else { "floating addresses" };
                return Err(format!("network.{name} has {what}, but no interface; add interface = \"...\""));
            }
            for Cidr { ip, .. } in &network.floating {
                if *ip == own {
                    return Err(format!("network.{name}.floating has {ip}, which is this node's own address"));
                }
                if !seen.insert(*ip) {
                    return Err(format!("network.{name}.floating has {ip}, which is a floating address already"));
                }
            }
        }
        match self.all().into_iter().find_map(|(name, n)| Some((name, n.gateway.filter(|g| seen.contains(g))?))) {
            Some((name, gateway)) => Err(format!("network.{name}.gateway is {gateway}, which is a floating address")),
            None => Ok(()),
        }
    }

    /// The floating addresses, in the order in which they are brought up.
    pub(super) fn floating(&self) -> Vec<FloatingAddress> {
        let mut all: Vec<FloatingAddress> = self.configured().collect();
        if self.metadata.unwrap_or(!all.is_empty()) {
            all.push(FloatingAddress::metadata());
        }
        all
    }

    fn configured(&self) -> impl Iterator<Item = FloatingAddress> + '_ {
        self.all().into_iter().flat_map(|(name, network)| {
            let interface = network.interface.clone().unwrap_or_default();
            network.floating.iter().map(move |address| FloatingAddress {
                address: *address,
                interface: interface.clone(),
                network: name.to_owned(),
            })
        })
    }

    /// The floating addresses at which other hosts reach the primary.
    pub(crate) fn reachable(&self) -> Vec<IpAddr> {
        self.configured().map(|floating| floating.address.ip).collect()
    }

    /// The networks with floating addresses, whose links and gateways the primary watches.
    pub(super) fn watched(&self) -> Vec<WatchedLink> {
        let with = self.all().into_iter().filter(|(_, network)| !network.floating.is_empty());
        let watched = with.filter_map(|(name, network)| {
            Some(WatchedLink { name: name.to_owned(), interface: network.interface.clone()?, gateway: network.gateway })
        });
        watched.collect()
    }
}
