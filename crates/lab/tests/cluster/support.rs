//! A lab for one test, and the words of its stories.

use drover_lab::{Domain, Lab, Node, Spec};
use serde_json::Value;
use std::{path::Path, process::Output, time::Duration};

/// Whatever is waited for comes sooner.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster that vanishes with this value.
pub(crate) struct Cluster {
    pub(crate) lab: Lab,
    _folder: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Cluster {
    pub(crate) fn up(nodes: usize) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_drover-lab"));
        for needed in ["droverd", "drover"] {
            let file = program.with_file_name(needed);
            assert!(file.exists(), "{} is not built: run 'cargo build --workspace' first", file.display());
        }
        let lab = Lab::up(folder.path(), Spec::cluster(nodes), program, &|_| ()).unwrap();
        Cluster { lab, _folder: folder }
    }

    pub(crate) fn node(&self, name: &str) -> Node<'_> {
        self.lab.node(name).unwrap()
    }

    /// `drover` on a node, whatever it says.
    pub(crate) fn say(&self, node: &str, arguments: &[&str]) -> Said {
        self.node(node).output(&[&["drover"], arguments].concat()).unwrap().into()
    }

    /// `drover` on a node, which must work.
    pub(crate) fn drover(&self, node: &str, arguments: &[&str]) -> String {
        let said = self.say(node, arguments);
        assert_eq!(said.code, 0, "drover {}: {said:?}\n{}", arguments.join(" "), self.logs());
        said.out
    }

    pub(crate) fn json(&self, node: &str, arguments: &[&str]) -> Value {
        let text = self.drover(node, &[&["-f", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    pub(crate) fn vm(&self, node: &str, name: &str) -> Value {
        self.json(node, &["vm", "info", name])
    }

    /// Waits until a VM is as it should be, as a node sees it.
    pub(crate) fn vm_until(&self, node: &str, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let said = self.say(node, &["-f", "json", "vm", "info", name]);
            serde_json::from_str::<Value>(&said.out).ok().filter(|vm| is(vm))
        };
        Lab::until(&format!("{name}: {what}"), PATIENCE, look)
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.say(node, &["vm", "info", name]).out, self.logs()))
    }

    /// Defines a VM at a node; it may come to be assigned to another.
    pub(crate) fn define(&self, at: &str, domain: &Domain, arguments: &[&str]) {
        self.define_xml(at, &domain.xml(&self.lab.guest()), arguments);
    }

    pub(crate) fn define_xml(&self, at: &str, xml: &str, arguments: &[&str]) {
        std::fs::write(self.lab.shared().join("new.xml"), xml).unwrap();
        self.drover(at, &[&["vm", "define", "/srv/shared/new.xml"], arguments].concat());
    }

    /// The node of a VM.
    pub(crate) fn home(&self, vm: &str) -> String {
        self.vm("hv1", vm)["node"].as_str().unwrap().to_owned()
    }

    /// The UUIDs of the domains that run on a node, by libvirt's own word.
    pub(crate) fn running(&self, node: &str) -> Vec<String> {
        let list = self.node(node).exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--uuid"]).unwrap();
        list.split_whitespace().map(str::to_owned).collect()
    }

    /// The nodes on which a VM runs, by libvirt's own word.
    pub(crate) fn runs_on(&self, vm: &str) -> Vec<String> {
        let uuid = self.vm("hv1", vm)["uuid"].as_str().unwrap().to_owned();
        let on = self.lab.nodes().into_iter().filter(|n| n.is_on()).map(|n| n.name().to_owned());
        on.filter(|node| self.running(node).contains(&uuid)).collect()
    }

    /// Waits until a console says something; returns all of it.
    pub(crate) fn console_until(&self, node: &str, vm: &str, says: &str) -> String {
        let look = || Some(self.say(node, &["vm", "log", vm, "-n", "100000"]).out).filter(|log| log.contains(says));
        Lab::until(&format!("{vm}'s console never says {says:?}"), PATIENCE, look)
            .unwrap_or_else(|e| panic!("{e}\n{}", self.logs()))
    }

    /// The nodes whose libvirt knows a domain, whether it runs or not.
    pub(crate) fn known_on(&self, uuid: &str) -> Vec<String> {
        let on = self.lab.nodes().into_iter().filter(Node::is_on);
        let all = |node: &Node<'_>| node.exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--uuid"]);
        on.filter(|node| all(node).unwrap().contains(uuid)).map(|node| node.name().to_owned()).collect()
    }

    /// Lets a VM be sent with so many MiB a second at most.
    pub(crate) fn speed(&self, node: &str, vm: &str, mib: u32) {
        let set = ["virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", vm, &mib.to_string()];
        self.node(node).exec(&set).unwrap();
    }

    /// Waits until a daemon is seen in a state by another node.
    pub(crate) fn daemon_until(&self, at: &str, node: &str, wanted: &str) {
        self.node_until(at, node, &format!("its daemon is in state {wanted}"), |info| info["daemon_state"] == wanted);
    }

    /// Waits until a node is as it should be, as another one sees it.
    pub(crate) fn node_until(&self, at: &str, node: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let said = self.say(at, &["-f", "json", "node", "info", node]);
            serde_json::from_str::<Value>(&said.out).ok().filter(|info| is(info))
        };
        Lab::until(&format!("{node}: {what}"), PATIENCE, look)
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.say(at, &["node", "info", node]).out, self.logs()))
    }

    /// Waits until every node sees every node there for work.
    pub(crate) fn all_well(&self) {
        for at in self.lab.nodes() {
            for node in self.lab.nodes() {
                self.node_until(at.name(), node.name(), "is well", |n| {
                    n["daemon_state"] == "run" && n["hypervisor_problem"] == ""
                });
            }
        }
    }

    /// The guest's process on its node.
    pub(crate) fn qemu(&self, node: &str, vm: &str) -> String {
        self.node(node).exec(&["cat", &format!("/run/libvirt/qemu/{vm}.pid")]).unwrap().trim().to_owned()
    }

    /// The daemons' last words, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let of = |node: Node<'_>| {
            format!("--- {}\n{}", node.name(), if node.is_on() { node.drover_log(25) } else { "off".to_owned() })
        };
        self.lab.nodes().into_iter().map(of).collect::<Vec<_>>().join("\n")
    }
}

/// A guest that is to live on, wherever it is.
pub(crate) struct Guest<'a> {
    cluster: &'a Cluster,
    pub(crate) name: String,
    uuid: String,
    boots: usize,
    beat: u64,
}

impl<'a> Guest<'a> {
    /// Defines a guest on a node, starts it, and waits until it is up.
    pub(crate) fn up(cluster: &'a Cluster, node: &str, domain: &Domain, arguments: &[&str]) -> Guest<'a> {
        let at = ["--node", node, "--start", "--wait"];
        cluster.define(node, domain, &[&at, arguments].concat());
        Guest::of(cluster, node, &domain.name)
    }

    /// A guest that runs on a node, as soon as it is up.
    pub(crate) fn of(cluster: &'a Cluster, node: &str, name: &str) -> Guest<'a> {
        let uuid = cluster.vm(node, name)["uuid"].as_str().unwrap().to_owned();
        let mut guest = Guest { cluster, name: name.to_owned(), uuid, boots: 0, beat: 0 };
        guest.goes_on(node);
        guest.boots = guest.count_boots();
        guest
    }

    /// What a node wrote down of its console: not of what it was before it came there.
    fn console(&self, node: &Node<'_>) -> String {
        let file = node.folder().join(format!("var/log/drover/consoles/{}.log", self.uuid));
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    fn count_boots(&self) -> usize {
        self.cluster.lab.nodes().iter().map(|node| self.console(node).matches("BOOTED").count()).sum()
    }

    /// The last sign of life on a node's console.
    fn last_beat(&self, node: &str) -> u64 {
        let console = self.console(&self.cluster.node(node));
        // The last line may be half written.
        let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let beats = whole.lines().rev().filter_map(|line| line.strip_prefix("HB ")?.split(' ').next()?.parse().ok());
        beats.into_iter().next().unwrap_or(0)
    }

    fn goes_on(&mut self, node: &str) {
        let look = || Some(self.last_beat(node)).filter(|beat| *beat > self.beat);
        let what = format!("{} goes on after {} on {node}", self.name, self.beat);
        self.beat = Lab::until(&what, PATIENCE, look)
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.console(&self.cluster.node(node)), self.cluster.logs()));
    }

    /// Waits until only this node knows it, and it goes on living there: it is the same guest, which has not booted
    /// again.
    pub(crate) fn lives_on(&mut self, node: &str) {
        self.is_only_on(&[node]);
        self.goes_on(node);
        assert_eq!(self.count_boots(), self.boots, "{} has booted again\n{}", self.name, self.cluster.logs());
    }

    /// Waits until these nodes and no others know it.
    pub(crate) fn is_only_on(&self, nodes: &[&str]) {
        let look = || (self.cluster.known_on(&self.uuid) == nodes).then_some(());
        Lab::until(&format!("{} is on {nodes:?} only", self.name), PATIENCE, look)
            .unwrap_or_else(|e| panic!("{e}, but on {:?}\n{}", self.cluster.known_on(&self.uuid), self.cluster.logs()));
    }

    /// It has booted once more, and is up on this node.
    pub(crate) fn has_rebooted_on(&mut self, node: &str) {
        self.is_only_on(&[node]);
        let boots = self.boots + 1;
        Lab::until(&format!("{} boots on {node}", self.name), PATIENCE, || (self.count_boots() >= boots).then_some(()))
            .unwrap_or_else(|e| panic!("{e}\n{}", self.cluster.logs()));
        assert_eq!(self.count_boots(), boots);
        (self.boots, self.beat) = (boots, 0);
        self.goes_on(node);
    }

    /// Sends it so slowly from now on that there is time for something else.
    pub(crate) fn slowly(&self, node: &str) {
        self.cluster.speed(node, &self.name, 1);
    }

    /// Waits until some of it is sent.
    pub(crate) fn is_being_sent(&self, at: &str) {
        self.cluster.vm_until(at, &self.name, "is being sent", |vm| vm["migration"]["sent"].as_u64() > Some(0));
    }
}
