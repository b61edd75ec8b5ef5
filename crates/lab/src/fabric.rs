//! The networks that connect the nodes: bridges in a separate network namespace, the "switch", invisible on the host.
//!
//! ```text
//!   hv1            hv2            hv3           client
//!    │eth0 eth1 eth2 │ ...          │ ...           │eth0
//!  ──┴───┼────┼──────┴──────────────┴────  cluster  │  10.0.0.0/24
//!  ──────┴────┼─────────────────────────── upstream ┴  203.0.113.0/24
//!  ───────────┴─────────────────────────── storage     10.0.1.0/24
//! ```

use crate::tools::{LabError, Result, run, run_with};
use std::{fmt, str::FromStr};

/// A network of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Between the nodes, 10.0.0.0/24.
    Cluster,
    /// To the users, 203.0.113.0/24 and 2001:db8:5::/64. A client in it has 203.0.113.100 and 2001:db8:5::100.
    Upstream,
    /// For storage traffic, 10.0.1.0/24.
    Storage,
}

impl Net {
    /// All networks, in the order of the nodes' interfaces eth0, eth1, eth2.
    pub const ALL: [Net; 3] = [Net::Cluster, Net::Upstream, Net::Storage];

    /// Name of the network and of its bridge.
    pub fn name(self) -> &'static str {
        match self {
            Net::Cluster => "cluster",
            Net::Upstream => "upstream",
            Net::Storage => "storage",
        }
    }

    /// The primary's floating addresses in the network.
    pub fn floating(self) -> &'static [&'static str] {
        match self {
            Net::Cluster => &["10.0.0.200/24"],
            Net::Upstream => &["203.0.113.200/24", "2001:db8:5::200/64"],
            Net::Storage => &["10.0.1.200/24"],
        }
    }

    /// The IPv4 address of a node in the network.
    pub fn address(self, index: usize) -> String {
        match self {
            Net::Cluster => format!("10.0.0.{index}"),
            Net::Upstream => format!("203.0.113.{}", 10 + index),
            Net::Storage => format!("10.0.1.{index}"),
        }
    }
}

impl FromStr for Net {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Net, String> {
        let found = Net::ALL.into_iter().find(|net| net.name() == text);
        found.ok_or_else(|| format!("{text:?} is not a network of the lab; accepted are cluster, upstream, storage"))
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a node's link is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The switch drops all packets, while the node sees a link that is up.
    Silent,
    /// The link goes down; the node sees no carrier.
    Carrier,
    /// The switch drops packets to the node.
    In,
    /// The switch drops packets from the node.
    Out,
    /// The switch drops packets to and from ZooKeeper's ports of the node and of the others.
    Store,
    /// The switch drops this percentage of packets, in both directions.
    Loss(u8),
}

impl FromStr for Cut {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Cut, String> {
        let loss = |t: &str| t.strip_prefix("loss:")?.parse().ok().filter(|p| (1..=100).contains(p));
        match text {
            "silent" => Ok(Cut::Silent),
            "carrier" => Ok(Cut::Carrier),
            "in" => Ok(Cut::In),
            "out" => Ok(Cut::Out),
            "store" => Ok(Cut::Store),
            _ => loss(text).map(Cut::Loss).ok_or_else(|| {
                format!("{text:?} is not a valid cut; accepted are silent, carrier, in, out, store, loss:1 to loss:100")
            }),
        }
    }
}

/// The networks of one lab.
#[derive(Debug, Clone)]
pub(crate) struct Fabric {
    /// Prefix of the names of the lab's network namespaces.
    pub(crate) prefix: String,
}

impl Fabric {
    /// Name of the network namespace of a part of the lab: a node, `switch` or `client`.
    pub(crate) fn netns(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    fn switch(&self) -> String {
        self.netns("switch")
    }

    /// All existing network namespaces of this lab, also those left by a crash.
    pub(crate) fn existing(&self) -> Result<Vec<String>> {
        let all = run(&["ip", "netns", "list"])?;
        let names = all.lines().filter_map(|line| line.split_whitespace().next());
        Ok(names.filter(|name| name.starts_with(&format!("{}-", self.prefix))).map(str::to_owned).collect())
    }

    fn has(&self, netns: &str) -> Result<bool> {
        Ok(self.existing()?.iter().any(|name| name == netns))
    }

    /// Creates the bridges and the client. Idempotent.
    pub(crate) fn up(&self) -> Result<()> {
        let (switch, client) = (self.switch(), self.netns("client"));
        if !self.has(&switch)? {
            run(&["ip", "netns", "add", &switch])?;
        }
        for (i, net) in Net::ALL.into_iter().enumerate() {
            if run(&["ip", "-n", &switch, "link", "show", net.name()]).is_err() {
                // Without an address of its own it has that of a port, and another one when a node is unplugged: then
                // it is silent until the others' ARP caches have noticed.
                let address = format!("02:00:00:00:00:{:02x}", i + 1);
                let bridge = ["type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"];
                run(&[&["ip", "-n", &switch, "link", "add", net.name(), "address", &address][..], &bridge].concat())?;
            }
            run(&["ip", "-n", &switch, "link", "set", net.name(), "up"])?;
        }
        // The upstream router, and the host of the nodes' management controllers (node K's is 10.0.0.100+K).
        run(&["ip", "-n", &switch, "address", "replace", "203.0.113.254/24", "dev", "upstream"])?;
        run(&["ip", "-n", &switch, "address", "replace", "10.0.0.254/24", "dev", "cluster"])?;
        if !self.has(&client)? {
            run(&["ip", "netns", "add", &client])?;
            run(&["ip", "-n", &client, "link", "set", "lo", "up"])?;
            self.plug(&client, "client-upstream", "eth0", Net::Upstream)?;
            run(&["ip", "-n", &client, "address", "add", "203.0.113.100/24", "dev", "eth0"])?;
            run(&["ip", "-n", &client, "address", "add", "2001:db8:5::100/64", "dev", "eth0", "nodad"])?;
        }
        Ok(())
    }

    fn plug(&self, netns: &str, port: &str, interface: &str, net: Net) -> Result<()> {
        let switch = self.switch();
        // A port left from before, if there is one.
        run(&["ip", "-n", &switch, "link", "delete", port]).ok();
        run(&["ip", "-n", &switch, "link", "add", port, "type", "veth", "peer", "name", interface, "netns", netns])?;
        run(&["ip", "-n", &switch, "link", "set", port, "master", net.name(), "up"])?;
        run(&["ip", "-n", netns, "link", "set", interface, "up"]).map(|_| ())
    }

    /// Creates a node's network namespace, with its links and addresses.
    pub(crate) fn plug_node(&self, node: &str, index: usize) -> Result<()> {
        let netns = self.netns(node);
        if self.has(&netns)? {
            run(&["ip", "netns", "delete", &netns])?;
        }
        run(&["ip", "netns", "add", &netns])?;
        run(&["ip", "-n", &netns, "link", "set", "lo", "up"])?;
        for (i, net) in Net::ALL.into_iter().enumerate() {
            let interface = format!("eth{i}");
            self.plug(&netns, &port(node, net), &interface, net)?;
            let address = format!("{}/24", net.address(index));
            run(&["ip", "-n", &netns, "address", "add", &address, "dev", &interface])?;
        }
        let ipv6 = format!("2001:db8:5::{}/64", 10 + index);
        run(&["ip", "-n", &netns, "address", "add", &ipv6, "dev", "eth1", "nodad"])?;
        // No forwarding: a node would forward packets for a floating address that it gave away, which would hide a
        // missing announcement.
        run(&["ip", "netns", "exec", &netns, "sysctl", "-qw", "net.ipv4.ip_forward=0"])?;
        run(&["ip", "-n", &netns, "route", "add", "default", "via", "203.0.113.254"]).map(|_| ())
    }

    /// Removes a node's links, so that no packets of its dying processes leave it.
    pub(crate) fn unplug_node(&self, node: &str) {
        for net in Net::ALL {
            // It may be absent.
            run(&["ip", "-n", &self.switch(), "link", "delete", &port(node, net)]).ok();
        }
    }

    /// Removes a node's network namespace, whose kernel would still answer for the node's addresses.
    pub(crate) fn remove_node(&self, node: &str) -> Result<()> {
        let netns = self.netns(node);
        if self.has(&netns)? {
            run(&["ip", "netns", "delete", &netns])?;
        }
        Ok(())
    }

    /// Cuts a node's link to a network. Replaces an earlier cut.
    pub(crate) fn cut(&self, node: &str, net: Net, how: Cut) -> Result<()> {
        self.heal(node, net)?;
        let (switch, port) = (self.switch(), port(node, net));
        let from = |verdict: &str| format!("iifname \"{port}\" {verdict}\n");
        let to = |verdict: &str| format!("oifname \"{port}\" {verdict}\n");
        // Frames between two ports pass the forward hook; those from and to the switch's own addresses pass output and
        // input.
        let (inwards, outwards) = match how {
            Cut::Carrier => {
                return run(&["ip", "-n", &switch, "link", "set", &port, "down"]).map(|_| ());
            }
            Cut::Silent => (to("drop"), from("drop")),
            Cut::In => (to("drop"), String::new()),
            Cut::Out => (String::new(), from("drop")),
            Cut::Store => {
                let ports = "{ 2181, 2888, 3888 }";
                // In either direction: it may have connected, or been connected to.
                let rules = |rule: &dyn Fn(&str) -> String| {
                    ["dport", "sport"].map(|which| rule(&format!("tcp {which} {ports} drop"))).concat()
                };
                (rules(&to), rules(&from))
            }
            Cut::Loss(percent) => {
                let chance = format!("numgen random mod 100 < {percent} drop");
                (to(&chance), from(&chance))
            }
        };
        let table = table(node, net);
        let rules = format!(
            "table bridge {table} {{
             chain forwarded {{ type filter hook forward priority 0; {inwards} {outwards} }}
             chain received {{ type filter hook input priority 0; {outwards} }}
             chain sent {{ type filter hook output priority 0; {inwards} }}
             }}"
        );
        run_with(&["ip", "netns", "exec", &switch, "nft", "-f", "-"], Some(&rules)).map(|_| ())
    }

    /// Undoes a cut. Idempotent.
    pub(crate) fn heal(&self, node: &str, net: Net) -> Result<()> {
        let (switch, table) = (self.switch(), table(node, net));
        let link = run(&["ip", "-n", &switch, "link", "set", &port(node, net), "up"]);
        link.map_err(|e| LabError::new(format!("{node} has no link to {net}; is it on?"), e))?;
        // Fails if there is no cut.
        run(&["ip", "netns", "exec", &switch, "nft", "delete", "table", "bridge", &table]).ok();
        Ok(())
    }
}

fn port(node: &str, net: Net) -> String {
    // One letter, because an interface name has at most 15 characters.
    let letter = match net {
        Net::Cluster => "c",
        Net::Upstream => "u",
        Net::Storage => "s",
    };
    format!("{node}-{letter}")
}

fn table(node: &str, net: Net) -> String {
    format!("cut_{node}_{net}")
}
