//! The daemon's one configuration file. Everything has a default: with no file at all, the node is a complete cluster
//! of one.

mod network;

use drover_agent::PrimaryOptions;
use drover_drivers::hypervisor::probe::Setting;
use drover_model::{Bytes, NodeName, RecordPath, Role};
use network::Networks;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the file is looked for.
pub(crate) const DEFAULT_PATH: &str = "/etc/drover/drover.toml";
/// Where the API listens, unless configured.
pub(crate) const API_PORT: u16 = 7370;

/// Sections and their keys, for the nearest known name of a misspelt one. A test holds it against the types below.
const KNOWN: &[(&str, &[&str])] = &[
    ("node", &["name", "role", "address", "memory"]),
    ("store", &["zookeeper", "session_timeout", "root"]),
    ("api", &["listen", "follow_primary"]),
    ("primary", &["lease"]),
    ("network", &["upstream", "cluster", "storage", "metadata"]),
    ("hypervisor", &["uri", "domain_type", "probe_kernel", "migration_uri"]),
    ("paths", &["state", "logs", "disks", "shared"]),
];

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration file {}: {why}", file.display())]
pub(crate) struct BadConfig {
    file: PathBuf,
    why: String,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) api: Api,
    pub(crate) primary: Primary,
    pub(crate) network: Networks,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) paths: Paths,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Node {
    /// Its name; the host name, if not given.
    pub(crate) name: Option<NodeName>,
    /// `coordinator` or `hypervisor`.
    pub(crate) role: Role,
    /// Its address on the cluster network.
    pub(crate) address: IpAddr,
    /// The memory that it offers, `4096MiB`; all of the machine's, if not given.
    #[serde(deserialize_with = "size")]
    pub(crate) memory: Option<Bytes>,
}

impl Default for Node {
    fn default() -> Node {
        Node { name: None, role: Role::Coordinator, address: IpAddr::from([127, 0, 0, 1]), memory: None }
    }
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Members of the ZooKeeper ensemble, `address:port`. None: the embedded store, and a cluster of one node.
    pub(crate) zookeeper: Vec<String>,
    /// After so long without a sign of life a node counts as dead.
    #[serde(deserialize_with = "time")]
    pub(crate) session_timeout: Duration,
    /// The ZooKeeper record under which everything is.
    pub(crate) root: RecordPath,
}

impl Default for Store {
    fn default() -> Store {
        let root = RecordPath::root().join("drover").unwrap_or_else(|_| RecordPath::root());
        Store { zookeeper: Vec::new(), session_timeout: Duration::from_secs(8), root }
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Api {
    /// Where it listens. None: on this machine's own address, and in a cluster on the node's address too.
    pub(crate) listen: Vec<SocketAddr>,
    /// Whether the primary also listens on the floating addresses.
    pub(crate) follow_primary: bool,
}

impl Default for Api {
    fn default() -> Api {
        Api { listen: Vec::new(), follow_primary: true }
    }
}

/// `[primary]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Primary {
    /// So long after its last sign of life a primary has let go of everything, and another may take its place. The same
    /// on all coordinators.
    #[serde(deserialize_with = "lease")]
    pub(crate) lease: Duration,
}

impl Default for Primary {
    fn default() -> Primary {
        Primary { lease: Duration::from_secs(4) }
    }
}

/// `[hypervisor]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hypervisor {
    /// libvirt's URI.
    pub(crate) uri: String,
    /// `auto`, `kvm`, `qemu`.
    pub(crate) domain_type: Setting,
    /// The kernel that KVM is tried with; the newest in /boot, if not given.
    pub(crate) probe_kernel: Option<PathBuf>,
    /// The libvirt URI by which other nodes send guests here; `qemu+tcp://ADDRESS/system`, if not given.
    pub(crate) migration_uri: Option<String>,
}

impl Default for Hypervisor {
    fn default() -> Hypervisor {
        Hypervisor {
            uri: "qemu:///system".to_owned(),
            domain_type: Setting::Auto,
            probe_kernel: None,
            migration_uri: None,
        }
    }
}

/// `[paths]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Paths {
    /// The daemon's own files: the embedded store, its token.
    pub(crate) state: PathBuf,
    /// Logs: the daemon's, and the guests' consoles.
    pub(crate) logs: PathBuf,
    /// Disk files of VMs.
    pub(crate) disks: PathBuf,
    /// Folders that other nodes have too, with the same content under the same name: of a file server, say. Only VMs
    /// whose files are all in such folders (or that have none) can move.
    pub(crate) shared: Vec<PathBuf>,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths {
            state: "/var/lib/drover".into(),
            logs: "/var/log/drover".into(),
            disks: "/var/lib/drover/disks".into(),
            shared: Vec::new(),
        }
    }
}

/// As a time, within what the kernel's whole seconds leave of it and what an outage may last.
fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let lease = time(deserializer)?;
    if (Duration::from_secs(3)..=Duration::from_secs(60)).contains(&lease) {
        return Ok(lease);
    }
    Err(D::Error::custom(format!("{} s is no length of a lease; accepted are \"3s\" to \"60s\"", lease.as_secs_f32())))
}

/// `500ms`, `8s`.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = drover_model::units::duration(text.trim());
    time.filter(|t| (Duration::from_secs(1)..=Duration::from_secs(120)).contains(t)).ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} is no time; accepted are \"1s\" to \"120s\", also in milliseconds: \"2500ms\""
        ))
    })
}

/// `4096MiB`, `64GiB`.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = |unit: &str| text.strip_suffix(unit).and_then(|n| n.trim().parse::<u64>().ok());
    let mib = number("MiB").or_else(|| number("GiB").and_then(|n| n.checked_mul(1024)));
    let bytes = mib.filter(|mib| (1..=1 << 32).contains(mib)).map(Bytes::mib);
    bytes
        .map(Some)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no size; accepted are \"4096MiB\" and \"64GiB\"")))
}

impl Config {
    /// Reads a file. `None`: the default one, if there is one.
    pub(crate) fn load(path: Option<&Path>) -> Result<Config, BadConfig> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(file) {
            Ok(text) => Config::parse(&text).map_err(|why| BadConfig { file: file.to_owned(), why }),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(BadConfig { file: file.to_owned(), why: error.to_string() }),
        }
    }

    fn parse(text: &str) -> Result<Config, String> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string().trim().to_owned())?;
        let sections: Vec<&str> = KNOWN.iter().map(|(section, _)| *section).collect();
        for (section, value) in &table {
            let Some((_, keys)) = KNOWN.iter().find(|(known, _)| known == section) else {
                return Err(unknown("section", section, &sections));
            };
            let Some(value) = value.as_table() else { return Err(format!("{section} must be a section: [{section}]")) };
            known(section, value, keys)?;
            if section == "network" {
                for (name, value) in value {
                    value.as_table().map_or(Ok(()), |table| known(&format!("network.{name}"), table, network::KEYS))?;
                }
            }
        }
        let config: Config = toml::from_str(text).map_err(|e| e.to_string().trim().to_owned())?;
        let address = config.node.address;
        if config.is_clustered() && (address.is_loopback() || address.is_unspecified()) {
            return Err(format!(
                "node.address is {address}, where no other node can reach this one: in a cluster it must be this node's address on the cluster network"
            ));
        }
        if let Some(folder) =
            config.paths.shared.iter().find(|p| !p.is_absolute() || p.components().any(|c| c.as_os_str() == ".."))
        {
            return Err(format!("paths.shared has {}: accepted are absolute paths without '..'", folder.display()));
        }
        config.network.check(address)?;
        Ok(config)
    }

    /// What this node has up as the primary.
    pub(crate) fn primary_options(&self) -> PrimaryOptions {
        let term = self.is_clustered().then_some(self.primary.lease);
        PrimaryOptions { addresses: self.network.floating(), networks: self.network.watched(), term }
    }

    /// Whether this node shares a store with others.
    pub(crate) fn is_clustered(&self) -> bool {
        !self.store.zookeeper.is_empty()
    }

    /// The libvirt URI by which other nodes send guests here.
    pub(crate) fn migration_uri(&self) -> String {
        self.hypervisor.migration_uri.clone().unwrap_or_else(|| match self.node.address {
            IpAddr::V4(address) => format!("qemu+tcp://{address}/system"),
            IpAddr::V6(address) => format!("qemu+tcp://[{address}]/system"),
        })
    }

    /// Where the API listens.
    pub(crate) fn listen(&self) -> Vec<SocketAddr> {
        if !self.api.listen.is_empty() {
            return self.api.listen.clone();
        }
        let local = SocketAddr::from(([127, 0, 0, 1], API_PORT));
        let own = SocketAddr::new(self.node.address, API_PORT);
        if self.is_clustered() && own != local { vec![own, local] } else { vec![local] }
    }

    /// Where the API listens as long as this node is the primary: the floating addresses, but for those that are
    /// listened on anyway.
    pub(crate) fn floating_listen(&self) -> Vec<SocketAddr> {
        if !self.api.follow_primary {
            return Vec::new();
        }
        let port = self.peer_address().port();
        let anyway = self.listen();
        let covers = |at: &SocketAddr, ip: &IpAddr| {
            let wild = at.ip().is_unspecified() && (at.is_ipv6() || ip.is_ipv4());
            at.port() == port && (wild || at.ip() == *ip)
        };
        let reachable = self.network.reachable().into_iter();
        let own = reachable.filter(|ip| !anyway.iter().any(|at| covers(at, ip)));
        own.map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// Where the other daemons reach the API.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        let listen = self.listen();
        let own = listen.iter().find(|a| a.ip() == self.node.address).or_else(|| listen.first());
        let port = own.map_or(API_PORT, SocketAddr::port);
        SocketAddr::new(self.node.address, port)
    }
}

fn known(section: &str, table: &toml::Table, keys: &[&str]) -> Result<(), String> {
    match table.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(unknown(&format!("key in [{section}]"), key, keys)),
        None => Ok(()),
    }
}

fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (strsim::osa_distance(given, k), *k)).min();
    let hint = nearest.filter(|(d, _)| *d <= 3).map(|(_, k)| format!(" (did you mean {k}?)")).unwrap_or_default();
    format!("unknown {what}: {given:?}{hint}; known are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "
        [node]
        name = 'hv1'
        role = 'hypervisor'
        address = '10.0.0.1'
        memory = '4GiB'
        [store]
        zookeeper = ['10.0.0.1:2181', '10.0.0.2:2181']
        session_timeout = '4s'
        root = '/other'
        [api]
        listen = ['10.0.0.1:7371']
        follow_primary = false
        [primary]
        lease = '5s'
        [network]
        metadata = false
        [network.upstream]
        interface = 'eth1'
        floating = ['203.0.113.50/24', '2001:db8::50/64']
        gateway = '203.0.113.1'
        [network.cluster]
        interface = 'eth0'
        floating = ['10.0.0.50/24']
        [network.storage]
        interface = 'eth2'
        [hypervisor]
        uri = 'test:///default'
        domain_type = 'kvm'
        probe_kernel = '/k'
        migration_uri = 'qemu+ssh://10.0.0.1/system'
        [paths]
        state = '/s'
        logs = '/l'
        disks = '/d'
        shared = ['/srv/shared']";

    #[test]
    fn every_known_key_is_one_and_is_read() {
        let config = Config::parse(FULL).unwrap();
        assert_eq!(config.node.memory, Some(Bytes::mib(4096)));
        assert_eq!(config.store.session_timeout, Duration::from_secs(4));
        assert_eq!(config.peer_address().to_string(), "10.0.0.1:7371");
        assert_eq!(config.migration_uri(), "qemu+ssh://10.0.0.1/system");
        assert_eq!(config.floating_listen(), []);
        let options = config.primary_options();
        let shown: Vec<String> = options.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "upstream address 203.0.113.50/24 on eth1",
                "upstream address 2001:db8::50/64 on eth1",
                "cluster address 10.0.0.50/24 on eth0"
            ]
        );
        assert_eq!((options.networks.len(), options.term), (2, Some(Duration::from_secs(5))));
        let table: toml::Table = FULL.parse().unwrap();
        for (section, keys) in KNOWN {
            let given: Vec<&str> = table[*section].as_table().unwrap().keys().map(String::as_str).collect();
            assert_eq!(given.len(), keys.len(), "{section}");
        }
    }

    #[test]
    fn nothing_is_a_cluster_of_one() {
        let config = Config::parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.listen(), ["127.0.0.1:7370".parse::<SocketAddr>().unwrap()]);
        let clustered = Config::parse("[node]\naddress='10.0.0.9'\n[store]\nzookeeper=['a:1']").unwrap();
        assert_eq!(clustered.listen().len(), 2);
        assert_eq!(clustered.migration_uri(), "qemu+tcp://10.0.0.9/system");
    }

    #[test]
    fn the_api_follows_the_primary_to_where_it_does_not_listen_anyway() {
        let floating = |listen: &str| {
            let text = "[network.upstream]\ninterface='e'\nfloating=['192.0.2.7/24','2001:db8::7/64']\n[api]\nlisten=";
            Config::parse(&format!("{text}[{listen}]"))
                .unwrap()
                .floating_listen()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(floating("'127.0.0.1:7000'"), ["192.0.2.7:7000", "[2001:db8::7]:7000"]);
        assert_eq!(floating("'0.0.0.0:7000'"), ["[2001:db8::7]:7000"]);
        assert_eq!(floating("'[::]:7000'"), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("[store]\nzookeeper=['a:1']", "node.address is 127.0.0.1, where no other node can reach this one"),
            ("[paths]\nshared=['srv']", "paths.shared has srv: accepted are absolute paths"),
            ("[paths]\nshared=['/srv/../etc']", "paths.shared has /srv/../etc"),
            ("[nod]\n", "unknown section: \"nod\" (did you mean node?)"),
            (
                "[store]\nsession_timeuot='4s'",
                "unknown key in [store]: \"session_timeuot\" (did you mean session_timeout?)",
            ),
            ("[store]\nsession_timeout='soon'", "\"soon\" is no time"),
            ("[store]\nsession_timeout='1h'", "no time"),
            ("[primary]\nlease='2s'", "2 s is no length of a lease; accepted are \"3s\" to \"60s\""),
            ("[network.upsteam]\n", "unknown key in [network]: \"upsteam\" (did you mean upstream?)"),
            ("[network.upstream]\nfloat=[]", "unknown key in [network.upstream]: \"float\""),
            (
                "[network.upstream]\nfloating=['192.0.2.1/24']",
                "network.upstream has floating addresses, but no interface",
            ),
            ("[network.upstream]\ninterface='a/b'", "\"a/b\" is no name of an interface"),
            (
                "[network.upstream]\ninterface='e'\nfloating=['192.0.2.1']",
                "\"192.0.2.1\" is no address with a prefix length",
            ),
            (
                "[network.upstream]\ninterface='e'\nfloating=['192.0.2.1/24']\n[network.cluster]\ninterface='f'\nfloating=['192.0.2.1/24']",
                "network.cluster.floating has 192.0.2.1, which is a floating address already",
            ),
            (
                "[node]\naddress='192.0.2.1'\n[network.cluster]\ninterface='f'\nfloating=['192.0.2.1/24']",
                "network.cluster.floating has 192.0.2.1, which is this node's own address",
            ),
            (
                "[network.upstream]\ninterface='e'\nfloating=['192.0.2.1/24']\ngateway='192.0.2.1'",
                "network.upstream.gateway is 192.0.2.1, which is a floating address",
            ),
            ("[node]\nname='a/b'", "node name \"a/b\" is not accepted"),
            ("[node]\nmemory='lots'", "no size"),
            ("[node]\nrole='boss'", "boss"),
            ("node = 1", "must be a section"),
            ("[", "TOML parse error"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
