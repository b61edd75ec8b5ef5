//! The daemon's configuration file (TOML). Every key has a default: without a file, the node is a complete cluster of
//! one node.

mod fence;
mod network;
mod watchdog;

use drover_agent::PrimaryOptions;
use drover_drivers::hypervisor::probe::Setting;
use drover_model::{Bytes, NodeName, RecordPath, Role};
use fence::Fence;
use network::Networks;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use watchdog::Watchdog;

/// Default path of the file.
pub(crate) const DEFAULT_PATH: &str = "/etc/drover/drover.toml";
/// Default port of the API.
pub(crate) const API_PORT: u16 = 7370;

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
    pub(crate) fence: Fence,
    pub(crate) watchdog: Watchdog,
    pub(crate) hypervisor: Hypervisor,
    pub(crate) paths: Paths,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "expected a section: [node]")]
pub(crate) struct Node {
    /// Node name. Default: the host name.
    pub(crate) name: Option<NodeName>,
    /// `coordinator` or `hypervisor`.
    pub(crate) role: Role,
    /// This node's address on the cluster network.
    pub(crate) address: IpAddr,
    /// Memory for guests, such as `4096MiB`. Default: all memory of the host.
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
#[serde(deny_unknown_fields, default, expecting = "expected a section: [store]")]
pub(crate) struct Store {
    /// Members of the ZooKeeper ensemble, `address:port`. If empty: the embedded store, for a cluster of one node.
    pub(crate) zookeeper: Vec<String>,
    /// ZooKeeper session timeout. A node whose session expires counts as dead.
    #[serde(deserialize_with = "duration")]
    pub(crate) session_timeout: Duration,
    /// The ZooKeeper path below which all records are.
    pub(crate) root: RecordPath,
}

impl Default for Store {
    fn default() -> Store {
        let root = RecordPath::root().join("drover").unwrap_or_else(|_| RecordPath::root());
        Store { zookeeper: Vec::new(), session_timeout: Duration::from_secs(5), root }
    }
}

/// `[api]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "expected a section: [api]")]
pub(crate) struct Api {
    /// Addresses to listen on. If empty: 127.0.0.1, and in a cluster also the node's address.
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
#[serde(deny_unknown_fields, default, expecting = "expected a section: [primary]")]
pub(crate) struct Primary {
    /// Term of the primary's lease: so long after the last renewal, the primary has released everything and another
    /// coordinator may take over. Must be the same on all coordinators.
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
#[serde(deny_unknown_fields, default, expecting = "expected a section: [hypervisor]")]
pub(crate) struct Hypervisor {
    /// libvirt's URI.
    pub(crate) uri: String,
    /// `auto`, `kvm`, `qemu`.
    pub(crate) domain_type: Setting,
    /// The kernel that is booted to test KVM. Default: the newest in /boot.
    pub(crate) probe_kernel: Option<PathBuf>,
    /// libvirt URI of this node for incoming migrations. Default: `qemu+tcp://ADDRESS/system`.
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
#[serde(deny_unknown_fields, default, expecting = "expected a section: [paths]")]
pub(crate) struct Paths {
    /// Folder of the daemon's own files, such as the embedded store and the token.
    pub(crate) state: PathBuf,
    /// Folder of logs: the daemon's, and the guests' consoles.
    pub(crate) logs: PathBuf,
    /// Folder of VM disks that Drover owns.
    pub(crate) disks: PathBuf,
    /// Folders that are shared with other nodes under the same path, for example by NFS. A VM can move only if all its
    /// files are in such folders (or if it has none).
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

/// The lease: at least 3 s, because the kernel counts address lifetimes in whole seconds; at most 60 s, because an
/// outage of the primary lasts that long.
fn lease<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let lease = duration(deserializer)?;
    if (Duration::from_secs(3)..=Duration::from_secs(60)).contains(&lease) {
        return Ok(lease);
    }
    Err(D::Error::custom(format!("{} s is not a valid lease; accepted are \"3s\" to \"60s\"", lease.as_secs_f32())))
}

/// A duration such as `2500ms` or `8s`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = drover_model::units::duration(text.trim());
    duration.filter(|d| (Duration::from_secs(1)..=Duration::from_secs(120)).contains(d)).ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} is not a valid duration; accepted are \"1s\" to \"120s\", also in milliseconds: \"2500ms\""
        ))
    })
}

/// A size such as `4096MiB` or `64GiB`.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = |unit: &str| text.strip_suffix(unit).and_then(|n| n.trim().parse::<u64>().ok());
    let mib = number("MiB").or_else(|| number("GiB").and_then(|n| n.checked_mul(1024)));
    let bytes = mib.filter(|mib| (1..=1 << 32).contains(mib)).map(Bytes::mib);
    bytes.map(Some).ok_or_else(|| {
        D::Error::custom(format!("{text:?} is not a valid size; accepted are \"4096MiB\" and \"64GiB\""))
    })
}

impl Config {
    /// Reads the configuration from a file; with `None`, from the default one if it exists.
    pub(crate) fn load(path: Option<&Path>) -> Result<Config, BadConfig> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(file) {
            Ok(text) => Config::parse(&text).map_err(|why| BadConfig { file: file.to_owned(), why }),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(BadConfig { file: file.to_owned(), why: error.to_string() }),
        }
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| with_hint(&error))?;
        let address = config.node.address;
        if config.is_clustered() && (address.is_loopback() || address.is_unspecified()) {
            return Err(format!(
                "node.address is {address}, which other nodes cannot reach; in a cluster it must be this node's \
                 address on the cluster network"
            ));
        }
        if let Some(folder) =
            config.paths.shared.iter().find(|p| !p.is_absolute() || p.components().any(|c| c.as_os_str() == ".."))
        {
            return Err(format!("paths.shared has {}; accepted are absolute paths without '..'", folder.display()));
        }
        config.network.check(address)?;
        config.fence.check()?;
        config.watchdog.check()?;
        Ok(config)
    }

    /// What this node needs for the role of the primary.
    pub(crate) fn primary_options(&self) -> PrimaryOptions {
        let term = self.is_clustered().then_some(self.primary.lease);
        PrimaryOptions { addresses: self.network.floating(), networks: self.network.watched(), term }
    }

    /// Whether this node is a member of a cluster with a shared store.
    pub(crate) fn is_clustered(&self) -> bool {
        !self.store.zookeeper.is_empty()
    }

    /// libvirt URI of this node for incoming migrations.
    pub(crate) fn migration_uri(&self) -> String {
        self.hypervisor.migration_uri.clone().unwrap_or_else(|| match self.node.address {
            IpAddr::V4(address) => format!("qemu+tcp://{address}/system"),
            IpAddr::V6(address) => format!("qemu+tcp://[{address}]/system"),
        })
    }

    /// Addresses that the API listens on.
    pub(crate) fn listen(&self) -> Vec<SocketAddr> {
        if !self.api.listen.is_empty() {
            return self.api.listen.clone();
        }
        let local = SocketAddr::from(([127, 0, 0, 1], API_PORT));
        let own = SocketAddr::new(self.node.address, API_PORT);
        if self.is_clustered() && own != local { vec![own, local] } else { vec![local] }
    }

    /// Addresses that the API listens on only while this node is the primary: the floating addresses that
    /// [`Config::listen`] does not cover.
    pub(crate) fn floating_listen(&self) -> Vec<SocketAddr> {
        if !self.api.follow_primary {
            return Vec::new();
        }
        let port = self.peer_address().port();
        let always = self.listen();
        let covers = |listen: &SocketAddr, ip: &IpAddr| {
            let wildcard = listen.ip().is_unspecified() && (listen.is_ipv6() || ip.is_ipv4());
            listen.port() == port && (wildcard || listen.ip() == *ip)
        };
        let reachable = self.network.reachable().into_iter();
        let floating = reachable.filter(|ip| !always.iter().any(|listen| covers(listen, ip)));
        floating.map(|ip| SocketAddr::new(ip, port)).collect()
    }

    /// Address at which other daemons reach this node's API.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        let listen = self.listen();
        let own = listen.iter().find(|a| a.ip() == self.node.address).or_else(|| listen.first());
        let port = own.map_or(API_PORT, SocketAddr::port);
        SocketAddr::new(self.node.address, port)
    }
}

/// The parser's message, which names the line; for an unknown key, with the nearest known one.
fn with_hint(error: &toml::de::Error) -> String {
    let message = error.to_string();
    // serde's message: "unknown field `a`, expected one of `b`, `c`".
    let mut quoted = error.message().split('`').skip(1).step_by(2);
    let nearest = quoted.next().filter(|_| error.message().starts_with("unknown field")).and_then(|given| {
        let known = quoted.map(|known| (strsim::osa_distance(given, known), known));
        known.min().filter(|(distance, _)| *distance <= 3)
    });
    match nearest {
        Some((_, known)) => format!("{}; did you mean {known}?", message.trim()),
        None => message.trim().to_owned(),
    }
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
        [fence]
        key_file = '/k'
        [fence.ipmi]
        address = '10.0.0.101'
        port = 6230
        user = 'drover'
        password_file = '/p'
        [watchdog]
        device = '/dev/watchdog1'
        timeout = '20s'
        software = true
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
    fn every_key_is_read() {
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
        let watchdog = config.watchdog.driver(true).unwrap();
        assert_eq!((watchdog.name().as_str(), watchdog.asked()), ("/dev/watchdog1", Duration::from_secs(20)));
        assert!(config.watchdog.driver(false).is_none(), "nobody would count on it");
    }

    #[test]
    fn default_is_a_cluster_of_one_node() {
        let config = Config::parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.listen(), ["127.0.0.1:7370".parse::<SocketAddr>().unwrap()]);
        let clustered = Config::parse("[node]\naddress='10.0.0.9'\n[store]\nzookeeper=['a:1']").unwrap();
        assert_eq!(clustered.listen().len(), 2);
        assert_eq!(clustered.migration_uri(), "qemu+tcp://10.0.0.9/system");
    }

    #[test]
    fn api_follows_the_primary_to_addresses_that_it_does_not_already_listen_on() {
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
    fn errors_name_the_key_and_what_is_accepted() {
        for (text, says) in [
            ("[store]\nzookeeper=['a:1']", "node.address is 127.0.0.1, which other nodes cannot reach"),
            ("[paths]\nshared=['srv']", "paths.shared has srv; accepted are absolute paths"),
            ("[paths]\nshared=['/srv/../etc']", "paths.shared has /srv/../etc"),
            ("[nod]\n", "unknown field `nod`, expected one of `node`, `store`"),
            ("[nod]\n", "; did you mean node?"),
            ("[store]\nsession_timeuot='4s'", "2 | session_timeuot='4s'"),
            ("[store]\nsession_timeuot='4s'", "; did you mean session_timeout?"),
            ("[store]\nsession_timeout='soon'", "\"soon\" is not a valid duration"),
            ("[store]\nsession_timeout='1h'", "\"1h\" is not a valid duration"),
            ("[primary]\nlease='2s'", "2 s is not a valid lease; accepted are \"3s\" to \"60s\""),
            ("[network.upsteam]\n", "; did you mean upstream?"),
            ("[network.upstream]\nfloat=[]", "unknown field `float`, expected one of `interface`"),
            (
                "[network.upstream]\nfloating=['192.0.2.1/24']",
                "network.upstream has floating addresses, but no interface",
            ),
            ("[network.upstream]\ninterface='a/b'", "\"a/b\" is not a valid interface name"),
            (
                "[network.upstream]\ninterface='e'\nfloating=['192.0.2.1']",
                "\"192.0.2.1\" is not a valid address with a prefix length",
            ),
            (
                "[network.upstream]\ninterface='e'\nfloating=['192.0.2.1/24']\n[network.cluster]\ninterface='f'\n\
                 floating=['192.0.2.1/24']",
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
            ("[watchdog]\ndevice='watchdog'", "watchdog.device is watchdog; accepted are absolute paths"),
            ("[watchdog]\ntimeout='4s'", "watchdog.timeout is 4 s; accepted are whole seconds, \"5s\" to \"60s\""),
            ("[watchdog]\ntimeout='10500ms'", "watchdog.timeout is 10.5 s; accepted are whole seconds"),
            ("[node]\nmemory='lots'", "not a valid size"),
            ("[node]\nrole='boss'", "boss"),
            ("node = 1", "expected a section: [node]"),
            ("[", "TOML parse error"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
