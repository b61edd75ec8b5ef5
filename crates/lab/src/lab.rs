//! A lab as a whole: its folder, its nodes, bringing it up and taking it down.

use crate::{
    fabric::{Cut, Fabric, Net},
    guest::{self, Guest},
    node::{Node, Service},
    process,
    tools::{Attempt, LabError, Result, check_machine},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How many members the ZooKeeper ensemble has at most.
const MEMBERS: usize = 3;

/// What a lab's nodes are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A cluster with networks of its own and ZooKeeper.
    Cluster,
    /// One node without any configuration, on the host's network, so that its API is reached from the host.
    Alone,
}

/// What a lab is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// See [`Shape`].
    pub shape: Shape,
    /// How many nodes; 1 to 9.
    pub nodes: usize,
    /// Whether `droverd` is started.
    pub daemon: bool,
}

impl Spec {
    /// A cluster of so many nodes.
    pub fn cluster(nodes: usize) -> Spec {
        Spec { shape: Shape::Cluster, nodes, daemon: true }
    }

    /// One node without configuration.
    pub fn alone() -> Spec {
        Spec { shape: Shape::Alone, nodes: 1, daemon: true }
    }

    /// The addresses of ZooKeeper's members.
    pub(crate) fn members(&self) -> impl Iterator<Item = (usize, String)> + use<> {
        let members = if self.shape == Shape::Cluster { self.nodes.min(MEMBERS) } else { 0 };
        (1..=members).map(|i| (i, Net::Cluster.address(i)))
    }

    /// The configuration of the `index`th node's daemon; none at all for a node alone.
    pub(crate) fn config_of(&self, index: usize) -> Option<String> {
        if self.shape == Shape::Alone {
            return None;
        }
        let address = Net::Cluster.address(index);
        let members: Vec<String> = self.members().map(|(_, a)| format!("\"{a}:2181\"")).collect();
        let networks: Vec<String> = Net::ALL.iter().enumerate().map(|(i, net)| section(*net, i)).collect();
        let common = format!(
            "# All nodes of the lab share one machine, so each offers a part of its memory.\n[node]\nname = \"hv{index}\"\nrole = \"coordinator\"\naddress = \"{address}\"\nmemory = \"4096MiB\"\n\n[store]\nzookeeper = [{}]\nsession_timeout = \"4s\"\n\n[paths]\nshared = [\"/srv/shared\"]\n",
            members.join(", ")
        );
        Some(common + &networks.concat())
    }
}

/// What the configuration says of a network.
fn section(net: Net, interface: usize) -> String {
    let floating: Vec<String> = net.floating().iter().map(|address| format!("\"{address}\"")).collect();
    let gateway = if net == Net::Upstream { "gateway = \"203.0.113.254\"\n" } else { "" };
    format!("\n[network.{net}]\ninterface = \"eth{interface}\"\nfloating = [{}]\n{gateway}", floating.join(", "))
}

/// Hears what a lab is doing, a line at a time.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// A lab. Unless [`Lab::keep`] is called, dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    spec: Spec,
    fabric: Fabric,
    id: String,
    kept: bool,
}

/// FNV-1a: a lab's id comes from its folder, so that whoever knows the folder finds everything of it.
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
        Lab { folder, spec, fabric: Fabric { prefix: format!("dl-{id}") }, id, kept: true }
    }

    /// The lab in a folder, as it was brought up.
    pub fn open(folder: &Path) -> Result<Lab> {
        let no_lab = || format!("there is no lab in {}", folder.display());
        let folder = fs::canonicalize(folder).attempt(no_lab)?;
        let text = fs::read_to_string(folder.join("lab.json")).attempt(no_lab)?;
        let spec = serde_json::from_str(&text).attempt(|| format!("{}/lab.json", folder.display()))?;
        Ok(Lab::new(folder, spec))
    }

    /// Brings a lab up in a folder: what runs already stays, what is missing is started. The programs under test are
    /// taken from beside `program`, the `drover-lab` executable.
    pub fn up(folder: &Path, spec: Spec, program: &Path, progress: Progress<'_>) -> Result<Lab> {
        check_machine()?;
        if !(1..=9).contains(&spec.nodes) {
            return Err(LabError::new("a lab has 1 to 9 nodes", spec.nodes));
        }
        fs::create_dir_all(folder).attempt(|| format!("cannot make {}", folder.display()))?;
        let folder = fs::canonicalize(folder).attempt(|| format!("cannot find {}", folder.display()))?;
        let there = Lab::open(&folder).ok();
        if let Some(there) = &there
            && there.spec != spec
        {
            return Err(LabError::new("there is another kind of lab here already", format!("{:?}", there.spec)));
        }
        let text = serde_json::to_string_pretty(&spec).attempt(|| "the lab's description".to_owned())?;
        fs::write(folder.join("lab.json"), text).attempt(|| format!("cannot write to {}", folder.display()))?;
        let mut lab = Lab::new(folder, spec);
        // What was there before stays, whatever becomes of this.
        lab.kept = there.is_some();
        let program = fs::canonicalize(program).attempt(|| format!("cannot find {}", program.display()))?;
        let target = program.parent().unwrap_or(Path::new("/")).to_owned();
        let link = lab.folder.join("programs");
        // There may be no old one.
        fs::remove_file(&link).ok();
        std::os::unix::fs::symlink(&target, &link).attempt(|| format!("cannot make {}", link.display()))?;

        progress("guest image");
        let guest = guest::build(&guest::cache(&program))?;
        guest.copy_to(&lab.shared().join("guest"))?;
        if lab.spec.shape == Shape::Cluster {
            progress("networks");
            lab.fabric.up()?;
        }
        let nodes = lab.nodes();
        for node in &nodes {
            progress(&format!("{} boots", node.name()));
            node.boot()?;
        }
        for node in &nodes {
            for service in node.services().into_iter().filter(|s| *s != Service::Drover) {
                node.start_if_down(service)?;
            }
        }
        // The daemons together: the first of them waits for the ensemble.
        let down = nodes.iter().filter(|n| n.services().contains(&Service::Drover) && n.pid(Service::Drover).is_none());
        let launches = down.map(|node| Ok((node.name(), node.launch_drover()?))).collect::<Result<Vec<_>>>()?;
        for (name, launch) in launches {
            progress(&format!("waiting for {name}"));
            launch.wait()?;
        }
        nodes.iter().try_for_each(Node::wait_libvirt)?;
        drop(nodes);
        Ok(lab)
    }

    /// Lets the lab stay when this value is dropped.
    pub fn keep(mut self) -> Lab {
        self.kept = true;
        self
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that every node sees as `/srv/shared`.
    pub fn shared(&self) -> PathBuf {
        self.folder.join("shared")
    }

    /// The guest image, by the paths that nodes see.
    pub fn guest(&self) -> Guest {
        Guest::at(Path::new("/srv/shared/guest"))
    }

    /// What it was brought up as.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The nodes, on or off.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        (1..=self.spec.nodes).map(|index| Node::new(self, index)).collect()
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        self.nodes().into_iter().find(|node| node.name() == name).ok_or_else(|| {
            let names: Vec<String> = self.nodes().iter().map(|node| node.name().to_owned()).collect();
            LabError::new(format!("there is no node {name:?}"), format!("this lab has {}", names.join(", ")))
        })
    }

    /// Cuts a node's link.
    pub fn cut(&self, node: &str, net: Net, how: Cut) -> Result<()> {
        self.node(node)?;
        self.fabric.cut(node, net, how)
    }

    /// Takes cuts back.
    pub fn heal(&self, node: &str, net: Net) -> Result<()> {
        self.node(node)?;
        self.fabric.heal(node, net)
    }

    /// A command on the upstream network's client.
    pub fn client(&self, argv: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.fabric.netns("client")]).args(argv);
        command.env(process::MARK, format!("{}/client", self.id));
        command
    }

    /// The node whose ZooKeeper leads the ensemble, if there is one now.
    pub fn zookeeper_leader(&self) -> Option<String> {
        let nodes = self.nodes();
        nodes.iter().find(|node| node.zookeeper_mode().as_deref() == Some("leader")).map(|node| node.name().to_owned())
    }

    /// Takes the lab in a folder down: its processes, network namespaces and files, of whatever is there. A folder
    /// without a lab is fine.
    pub fn remove(folder: &Path) -> Result<()> {
        let Ok(folder) = fs::canonicalize(folder) else { return Ok(()) };
        let made = ["lab.json", "nodes", "shared"].iter().any(|name| folder.join(name).exists());
        let empty = fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_none());
        if !made && !empty {
            return Err(LabError::new(format!("{} is no lab's folder", folder.display()), "it is left alone"));
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

    /// Waits until something is seen that gives no event, with a deadline.
    pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            if let Some(seen) = look() {
                return Ok(seen);
            }
            if std::time::Instant::now() > deadline {
                return Err(LabError::new(what, format!("not seen in {} s", patience.as_secs_f32())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = Lab::remove(&self.folder)
        {
            eprintln!("the lab cannot be taken down: {error}");
        }
    }
}

impl Node<'_> {
    /// What is to run on the node, in the order of its start.
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
