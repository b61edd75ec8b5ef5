//! A lab as a whole: its folder, its nodes, up and down.
//!
//! The folder has `lab.json` (the [`Spec`]), `nodes/hvN` (each node's disk), `shared` (`/srv/shared` in all nodes) and
//! `programs` (a link to the folder of the programs under test).

use crate::{
    fabric::{Cut, Fabric, Net},
    guest::{self, Guest},
    node::{Node, Service},
    process,
    tools::{Attempt, LabError, Result, check_host},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Maximum number of members in the ZooKeeper ensemble.
const MEMBERS_MAX: usize = 3;

/// The kind of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A cluster with its own networks and ZooKeeper.
    Cluster,
    /// One node without configuration on the host's network, so that its API can be reached from the host.
    Alone,
}

/// Description of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// See [`Shape`].
    pub shape: Shape,
    /// Number of nodes, 1 to 9.
    pub nodes: usize,
    /// Whether [`Lab::up`] starts `droverd`.
    pub daemon: bool,
}

impl Spec {
    /// A cluster of `nodes` nodes with `droverd`.
    pub fn cluster(nodes: usize) -> Spec {
        Spec { shape: Shape::Cluster, nodes, daemon: true }
    }

    /// One node without configuration, with `droverd`.
    pub fn alone() -> Spec {
        Spec { shape: Shape::Alone, nodes: 1, daemon: true }
    }

    /// The ZooKeeper members: index of the node, and its address.
    pub(crate) fn members(&self) -> impl Iterator<Item = (usize, String)> + use<> {
        let members = if self.shape == Shape::Cluster { self.nodes.min(MEMBERS_MAX) } else { 0 };
        (1..=members).map(|i| (i, Net::Cluster.address(i)))
    }

    /// The configuration file of a node's `droverd`; `None` in [`Shape::Alone`].
    pub(crate) fn config_of(&self, index: usize) -> Option<String> {
        if self.shape == Shape::Alone {
            return None;
        }
        let address = Net::Cluster.address(index);
        let members: Vec<String> = self.members().map(|(_, a)| format!("\"{a}:2181\"")).collect();
        let networks: Vec<String> = Net::ALL.iter().enumerate().map(|(i, net)| section(*net, i)).collect();
        let common = format!(
            "# All nodes of the lab share one machine, so each offers only a part of its memory.\n[node]\n\
             name = \"hv{index}\"\nrole = \"coordinator\"\naddress = \"{address}\"\nmemory = \"4096MiB\"\n\n[store]\n\
             zookeeper = [{}]\n\n[paths]\nshared = [\"/srv/shared\"]\n",
            members.join(", ")
        );
        Some(common + &networks.concat())
    }
}

/// The section of the configuration file for a network.
fn section(net: Net, interface: usize) -> String {
    let floating: Vec<String> = net.floating().iter().map(|address| format!("\"{address}\"")).collect();
    let gateway = if net == Net::Upstream { "gateway = \"203.0.113.254\"\n" } else { "" };
    format!("\n[network.{net}]\ninterface = \"eth{interface}\"\nfloating = [{}]\n{gateway}", floating.join(", "))
}

/// Called with each step that a lab takes, for progress output.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// A lab. Dropping a value from [`Lab::up`] takes down a lab that it created, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    spec: Spec,
    fabric: Fabric,
    id: String,
    keep: bool,
}

/// A lab's id: a hash (FNV-1a) of its folder, so that all its namespaces and processes can be found from the folder.
fn id_of(folder: &Path) -> String {
    let hash =
        folder.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    format!("{:06x}", hash & 0xff_ffff)
}

impl Lab {
    fn new(folder: PathBuf, spec: Spec) -> Lab {
        let id = id_of(&folder);
        Lab { folder, spec, fabric: Fabric { prefix: format!("dl-{id}") }, id, keep: true }
    }

    /// Opens the lab in a folder. Dropping the value leaves it up.
    ///
    /// # Errors
    /// If there is no lab in the folder.
    pub fn open(folder: &Path) -> Result<Lab> {
        let no_lab = || format!("there is no lab in {}", folder.display());
        let folder = fs::canonicalize(folder).attempt(no_lab)?;
        let text = fs::read_to_string(folder.join("lab.json")).attempt(no_lab)?;
        let spec = serde_json::from_str(&text).attempt(|| format!("{}/lab.json", folder.display()))?;
        Ok(Lab::new(folder, spec))
    }

    /// Brings a lab up in a folder. Idempotent: starts only what does not run. The programs under test are taken from
    /// the folder of `program`, the `drover-lab` executable.
    ///
    /// # Errors
    /// If the host lacks something, the folder has a lab of another kind, or a step fails.
    pub fn up(folder: &Path, spec: Spec, program: &Path, progress: Progress<'_>) -> Result<Lab> {
        check_host()?;
        if !(1..=9).contains(&spec.nodes) {
            let why = format!("{} is not a valid number", spec.nodes);
            return Err(LabError::new("a lab has 1 to 9 nodes", why));
        }
        fs::create_dir_all(folder).attempt(|| format!("cannot create {}", folder.display()))?;
        let folder = fs::canonicalize(folder).attempt(|| format!("cannot find {}", folder.display()))?;
        let existing = Lab::open(&folder).ok();
        if let Some(existing) = &existing
            && existing.spec != spec
        {
            let what = format!("{} has a lab of another kind; take it down first", folder.display());
            return Err(LabError::new(what, format!("{:?}", existing.spec)));
        }
        let text = serde_json::to_string_pretty(&spec).attempt(|| "cannot encode lab.json".to_owned())?;
        fs::write(folder.join("lab.json"), text).attempt(|| format!("cannot write to {}", folder.display()))?;
        let mut lab = Lab::new(folder, spec);
        // A lab that existed before is not taken down if this fails.
        lab.keep = existing.is_some();
        let program = fs::canonicalize(program).attempt(|| format!("cannot find {}", program.display()))?;
        let target = program.parent().unwrap_or(Path::new("/")).to_owned();
        let link = lab.folder.join("programs");
        // It may not exist.
        fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(&target, &link).attempt(|| format!("cannot create {}", link.display()))?;

        progress("building the guest image");
        let guest = guest::build(&guest::cache(&program))?;
        guest.copy_to(&lab.shared().join("guest"))?;
        if lab.spec.shape == Shape::Cluster {
            progress("setting up networks");
            lab.fabric.up()?;
        }
        let nodes = lab.nodes();
        for node in &nodes {
            progress(&format!("booting {}", node.name()));
            node.boot()?;
        }
        drop(nodes);
        lab.start_services(progress)?;
        Ok(lab)
    }

    /// Starts all services that do not run, on nodes that are on, and waits until they are ready.
    pub(crate) fn start_services(&self, progress: Progress<'_>) -> Result<()> {
        let nodes = self.nodes();
        for node in &nodes {
            for service in node.services().into_iter().filter(|s| *s != Service::Drover) {
                node.start_if_down(service)?;
            }
        }
        // All daemons at once, because a daemon is ready only when the ensemble serves.
        let down = nodes.iter().filter(|n| n.services().contains(&Service::Drover) && n.pid(Service::Drover).is_none());
        let launches = down.map(|node| Ok((node.name(), node.launch_drover()?))).collect::<Result<Vec<_>>>()?;
        for (name, launch) in launches {
            progress(&format!("waiting for droverd on {name}"));
            launch.wait()?;
        }
        nodes.iter().try_for_each(Node::wait_libvirt)
    }

    /// Leaves the lab up when this value is dropped.
    pub fn keep(mut self) -> Lab {
        self.keep = true;
        self
    }

    /// The lab's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that every node sees as `/srv/shared`.
    pub fn shared(&self) -> PathBuf {
        self.folder.join("shared")
    }

    /// The guest image, with its paths in the nodes.
    pub fn guest(&self) -> Guest {
        Guest::at(Path::new("/srv/shared/guest"))
    }

    /// The lab's description.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// All nodes, on or off.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        (1..=self.spec.nodes).map(|index| Node::new(self, index)).collect()
    }

    /// A node by name.
    ///
    /// # Errors
    /// If there is no such node; lists the nodes.
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        self.nodes().into_iter().find(|node| node.name() == name).ok_or_else(|| {
            let names: Vec<String> = self.nodes().iter().map(|node| node.name().to_owned()).collect();
            LabError::new(format!("there is no node {name:?}"), format!("this lab has {}", names.join(", ")))
        })
    }

    /// Cuts a node's link to a network. Replaces an earlier cut.
    pub fn cut(&self, node: &str, net: Net, how: Cut) -> Result<()> {
        self.node(node)?;
        self.fabric.cut(node, net, how)
    }

    /// Undoes the cut of a node's link to a network.
    pub fn heal(&self, node: &str, net: Net) -> Result<()> {
        self.node(node)?;
        self.fabric.heal(node, net)
    }

    /// A command on the client in the upstream network; see [`Net::Upstream`].
    pub fn client(&self, argv: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.fabric.netns("client")]).args(argv);
        command.env(process::MARK, format!("{}/client", self.id));
        command
    }

    /// Name of the node whose ZooKeeper member is the leader, if there is one.
    pub fn zookeeper_leader(&self) -> Option<String> {
        let nodes = self.nodes();
        nodes.iter().find(|node| node.zookeeper_mode().as_deref() == Some("leader")).map(|node| node.name().to_owned())
    }

    /// Takes the lab in a folder down: kills its processes, deletes its network namespaces and the folder. Idempotent:
    /// succeeds if the folder is absent or empty. Works on the remains of a lab, too.
    ///
    /// # Errors
    /// If the folder is not that of a lab (it is then left alone), or something cannot be removed.
    pub fn remove(folder: &Path) -> Result<()> {
        let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
        let has_lab = ["lab.json", "nodes", "shared"].iter().any(|name| folder.join(name).exists());
        let empty = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none());
        if !has_lab && !empty {
            let what = format!("{} is not the folder of a lab", folder.display());
            return Err(LabError::new(what, "nothing was removed"));
        }
        let lab = Lab::new(folder, Spec { shape: Shape::Cluster, nodes: 9, daemon: false });
        for node in lab.nodes() {
            lab.fabric.unplug_node(node.name());
        }
        for process in process::marked(&format!("{}/", lab.id)) {
            process.kill()?;
        }
        for netns in lab.fabric.existing()? {
            crate::tools::run(&["ip", "netns", "delete", &netns])?;
        }
        fs::remove_dir_all(&lab.folder).attempt(|| format!("cannot remove {}", lab.folder.display()))
    }

    /// Polls every 50 ms until `check` returns `Some`. For conditions that have no event to wait for.
    ///
    /// # Errors
    /// After `timeout`; `what` names what was waited for, or what is missing.
    pub fn until<T>(what: &str, timeout: Duration, mut check: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = std::time::Instant::now() + timeout;
        loop {
            if let Some(value) = check() {
                return Ok(value);
            }
            if std::time::Instant::now() > deadline {
                return Err(LabError::new(what, format!("timed out after {} s", timeout.as_secs_f32())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = Lab::remove(&self.folder)
        {
            eprintln!("cannot take the lab down: {error}");
        }
    }
}

impl Node<'_> {
    /// The services of the node, in the order in which they are started.
    pub(crate) fn services(&self) -> Vec<Service> {
        let spec = self.lab().spec();
        let mut services = vec![Service::Libvirt];
        if spec.members().any(|(member, _)| member == self.index()) {
            services.push(Service::ZooKeeper);
        }
        if spec.daemon {
            services.push(Service::Drover);
        }
        services
    }
}
