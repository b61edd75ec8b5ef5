//! A lab for one test, with helpers for commands, waits and assertions.

use drover_lab::{Domain, Lab, Node, Spec};
use serde_json::Value;
use std::{path::Path, process::Output, time::Duration};

/// Timeout for expected events. Long, because a busy machine is many times slower, and nothing waits for it in vain.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// A cluster that is taken down when this value is dropped.
pub(crate) struct Cluster {
    pub(crate) lab: Lab,
    _folder: tempfile::TempDir,
}

/// How often a VM, as shown by a node, was granted to a node.
pub(crate) fn grants(vm: &Value) -> u64 {
    let epoch = |which: &str| vm["claim"][which].as_u64().unwrap_or(0);
    epoch("epoch") - epoch("born")
}

/// Exit code and output of a command.
#[derive(Debug)]
pub(crate) struct CommandResult {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for CommandResult {
    fn from(output: Output) -> CommandResult {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CommandResult { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
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
        let cluster = Cluster { lab, _folder: folder };
        // A daemon is ready as soon as it knows itself.
        cluster.wait_healthy();
        cluster
    }

    /// Waits until a condition holds. What happens on one node is seen at another one a moment later, whatever was
    /// waited for there.
    pub(crate) fn until<T>(&self, what: &str, check: impl FnMut() -> Option<T>) -> T {
        Lab::until(what, TIMEOUT, check).unwrap_or_else(|e| panic!("{e}\n{}", self.logs()))
    }

    pub(crate) fn node(&self, name: &str) -> Node<'_> {
        self.lab.node(name).unwrap()
    }

    /// Runs `drover` on a node.
    pub(crate) fn try_drover(&self, node: &str, arguments: &[&str]) -> CommandResult {
        self.node(node).output(&[&["drover"], arguments].concat()).unwrap().into()
    }

    /// Runs `drover` on a node, which must succeed, and returns its output.
    pub(crate) fn drover(&self, node: &str, arguments: &[&str]) -> String {
        let result = self.try_drover(node, arguments);
        assert_eq!(result.code, 0, "drover {}: {result:?}\n{}", arguments.join(" "), self.logs());
        result.out
    }

    /// Like [`Cluster::drover`], with the format JSON.
    pub(crate) fn json(&self, node: &str, arguments: &[&str]) -> Value {
        let text = self.drover(node, &[&["-f", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// A VM as shown by a node.
    pub(crate) fn vm(&self, node: &str, name: &str) -> Value {
        self.json(node, &["vm", "info", name])
    }

    /// Waits until a VM, as shown by a node, meets a condition.
    pub(crate) fn vm_until(&self, node: &str, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.json_until(node, &["vm", "info", name], &format!("{name}: {what}"), is)
    }

    /// Waits until the output of a command meets a condition.
    pub(crate) fn json_until(&self, at: &str, arguments: &[&str], what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let json = [&["-f", "json"], arguments].concat();
        let check = || serde_json::from_str(&self.try_drover(at, &json).out).ok().filter(|shown| is(shown));
        let failed = |e| panic!("{e}\n{:?}\n{}", self.try_drover(at, arguments), self.logs());
        Lab::until(what, TIMEOUT, check).unwrap_or_else(failed)
    }

    /// Waits until a node knows no VM of this name.
    pub(crate) fn forgotten_until(&self, at: &str, name: &str) {
        let unknown = || (self.try_drover(at, &["vm", "info", name]).code == 3).then_some(());
        self.until(&format!("{at} knows no VM {name}"), unknown);
    }

    /// Defines a VM with a command on a node. Unless the arguments name a node for it, it may be assigned to any.
    pub(crate) fn define(&self, at: &str, domain: &Domain, arguments: &[&str]) {
        self.define_xml(at, &domain.xml(&self.lab.guest()), arguments);
    }

    /// Like [`Cluster::define`], from a domain XML.
    pub(crate) fn define_xml(&self, at: &str, xml: &str, arguments: &[&str]) {
        std::fs::write(self.lab.shared().join("new.xml"), xml).unwrap();
        self.drover(at, &[&["vm", "define", "/srv/shared/new.xml"], arguments].concat());
    }

    /// The node that a VM is assigned to.
    pub(crate) fn node_of(&self, vm: &str) -> String {
        self.vm("hv1", vm)["node"].as_str().unwrap().to_owned()
    }

    /// UUIDs of the running domains on a node, according to libvirt.
    pub(crate) fn running(&self, node: &str) -> Vec<String> {
        let list = self.node(node).exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--uuid"]).unwrap();
        list.split_whitespace().map(str::to_owned).collect()
    }

    /// The nodes on which a VM runs, according to libvirt.
    pub(crate) fn running_on(&self, vm: &str) -> Vec<String> {
        let uuid = self.vm("hv1", vm)["uuid"].as_str().unwrap().to_owned();
        let on = self.lab.nodes().into_iter().filter(|n| n.is_on()).map(|n| n.name().to_owned());
        on.filter(|node| self.running(node).contains(&uuid)).collect()
    }

    /// Waits until a VM runs on these nodes and no others, according to libvirt.
    pub(crate) fn running_on_until(&self, vm: &str, nodes: &[&str]) {
        self.until(&format!("{vm} runs on {nodes:?} only"), || (self.running_on(vm) == nodes).then_some(()));
    }

    /// Waits until no domain runs on a node.
    pub(crate) fn empty_until(&self, node: &str) {
        self.until(&format!("nothing runs on {node}"), || self.running(node).is_empty().then_some(()));
    }

    /// Waits until a VM's console log contains a text; returns the log.
    pub(crate) fn console_until(&self, node: &str, vm: &str, text: &str) -> String {
        let log = || self.try_drover(node, &["vm", "log", vm, "-n", "100000"]).out;
        self.until(&format!("{vm}: console contains {text:?}"), || Some(log()).filter(|log| log.contains(text)))
    }

    /// The nodes whose libvirt has a domain, running or not; an error if a libvirtd does not answer.
    pub(crate) fn known_on(&self, uuid: &str) -> Result<Vec<String>, String> {
        let mut known = Vec::new();
        for node in self.lab.nodes().into_iter().filter(Node::is_on) {
            let all = node.exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--uuid"]);
            if all.map_err(|e| e.to_string())?.contains(uuid) {
                known.push(node.name().to_owned());
            }
        }
        Ok(known)
    }

    /// Limits the bandwidth of a VM's migration, in MiB/s.
    pub(crate) fn set_migration_speed(&self, node: &str, vm: &str, mib: u32) {
        let set = ["virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", vm, &mib.to_string()];
        self.node(node).exec(&set).unwrap();
    }

    /// Waits until the node `at` shows the daemon of `node` in a state.
    pub(crate) fn daemon_until(&self, at: &str, node: &str, state: &str) {
        self.node_until(at, node, &format!("its daemon is in state {state}"), |info| info["daemon_state"] == state);
    }

    /// Stops all processes of a node, or lets them go on: its kernel still answers on the network.
    pub(crate) fn freeze(&self, node: &str, frozen: bool) {
        // But for the first one, this shell, and what has started the shell and waits for it.
        let stop = "for of in /proc/[0-9]*; do of=${of#/proc/}
                    case $of in 1|$$|$PPID) ;; *) kill -STOP $of 2>/dev/null ;; esac
                    done; true";
        let signal = if frozen { stop } else { "kill -CONT -1" };
        self.node(node).exec(&["sh", "-c", signal]).unwrap();
    }

    /// Waits until `node`, as shown by the node `at`, meets a condition.
    pub(crate) fn node_until(&self, at: &str, node: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.json_until(at, &["node", "info", node], &format!("{node}: {what}"), is)
    }

    /// Waits until every node shows every node as healthy, as far as it was reported. (That a libvirtd was killed may
    /// not have been.)
    pub(crate) fn wait_healthy(&self) {
        for at in self.lab.nodes() {
            for node in self.lab.nodes() {
                self.node_until(at.name(), node.name(), "is healthy", |n| {
                    n["daemon_state"] == "run" && n["hypervisor_problem"] == "" && n["cpu_count"].as_u64() > Some(0)
                });
            }
        }
    }

    /// PID of a guest's QEMU process, in its node's namespace.
    pub(crate) fn qemu(&self, node: &str, vm: &str) -> String {
        self.node(node).exec(&["cat", &format!("/run/libvirt/qemu/{vm}.pid")]).unwrap().trim().to_owned()
    }

    /// The ends of all daemons' logs, for the message of a failed test.
    pub(crate) fn logs(&self) -> String {
        let log = |node: Node<'_>| {
            format!("--- {}\n{}", node.name(), if node.is_on() { node.drover_log(25) } else { "off".to_owned() })
        };
        self.lab.nodes().into_iter().map(log).collect::<Vec<_>>().join("\n")
    }
}

/// A guest that is followed by the heartbeats on its console, wherever it moves.
pub(crate) struct Guest<'a> {
    cluster: &'a Cluster,
    pub(crate) name: String,
    uuid: String,
    /// How many times it has booted so far.
    boots: usize,
    /// Its last heartbeat seen.
    heartbeat: u64,
}

impl<'a> Guest<'a> {
    /// Defines a guest on a node, starts it, and waits for its heartbeat.
    pub(crate) fn up(cluster: &'a Cluster, node: &str, domain: &Domain, arguments: &[&str]) -> Guest<'a> {
        let at = ["--node", node, "--start", "--wait"];
        cluster.define(node, domain, &[&at, arguments].concat());
        Guest::of(cluster, node, &domain.name)
    }

    /// A guest that runs on a node; waits for its heartbeat.
    pub(crate) fn of(cluster: &'a Cluster, node: &str, name: &str) -> Guest<'a> {
        let uuid = cluster.vm(node, name)["uuid"].as_str().unwrap().to_owned();
        let mut guest = Guest { cluster, name: name.to_owned(), uuid, boots: 0, heartbeat: 0 };
        guest.wait_heartbeat(node);
        guest.boots = guest.count_boots();
        guest
    }

    /// A node's log of the guest's console, which has only what it wrote while it ran there.
    fn console(&self, node: &Node<'_>) -> String {
        let file = node.folder().join(format!("var/log/drover/consoles/{}.log", self.uuid));
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }

    fn count_boots(&self) -> usize {
        self.cluster.lab.nodes().iter().map(|node| self.console(node).matches("BOOTED").count()).sum()
    }

    /// The last heartbeat in a node's log of the console; 0 if there is none.
    fn last_heartbeat(&self, node: &str) -> u64 {
        let console = self.console(&self.cluster.node(node));
        // The last line may be incomplete.
        let complete = console.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let heartbeats =
            complete.lines().rev().filter_map(|line| line.strip_prefix("HB ")?.split(' ').next()?.parse().ok());
        heartbeats.into_iter().next().unwrap_or(0)
    }

    /// Waits for a new heartbeat on a node.
    pub(crate) fn wait_heartbeat(&mut self, node: &str) {
        let check = || Some(self.last_heartbeat(node)).filter(|heartbeat| *heartbeat > self.heartbeat);
        let what = format!("{}: a heartbeat after {} on {node}", self.name, self.heartbeat);
        self.heartbeat = Lab::until(&what, TIMEOUT, check)
            .unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.console(&self.cluster.node(node)), self.cluster.logs()));
    }

    /// Waits until only this node has the domain and its heartbeats continue there, and asserts that it is still the
    /// same guest: it has not booted again.
    pub(crate) fn wait_alive_on(&mut self, node: &str) {
        self.wait_only_on(&[node]);
        self.wait_heartbeat(node);
        assert_eq!(self.count_boots(), self.boots, "{} has booted again\n{}", self.name, self.cluster.logs());
    }

    /// Waits until these nodes and no others have the domain.
    pub(crate) fn wait_only_on(&self, nodes: &[&str]) {
        let check = || self.cluster.known_on(&self.uuid).is_ok_and(|on| on == nodes).then_some(());
        Lab::until(&format!("{} is on {nodes:?} only", self.name), TIMEOUT, check)
            .unwrap_or_else(|e| panic!("{e}, but on {:?}\n{}", self.cluster.known_on(&self.uuid), self.cluster.logs()));
    }

    /// Waits until it has booted exactly once more, and has a heartbeat on this node.
    pub(crate) fn wait_rebooted_on(&mut self, node: &str) {
        self.wait_only_on(&[node]);
        let boots = self.boots + 1;
        Lab::until(&format!("{} boots on {node}", self.name), TIMEOUT, || (self.count_boots() >= boots).then_some(()))
            .unwrap_or_else(|e| panic!("{e}\n{}", self.cluster.logs()));
        assert_eq!(self.count_boots(), boots);
        (self.boots, self.heartbeat) = (boots, 0);
        self.wait_heartbeat(node);
    }

    /// Slows its migration to 1 MiB/s, so that a test can act while it is under way.
    pub(crate) fn throttle(&self, node: &str) {
        self.cluster.set_migration_speed(node, &self.name, 1);
    }

    /// Waits until its migration has transferred some memory.
    pub(crate) fn wait_sending(&self, at: &str) {
        self.cluster.vm_until(at, &self.name, "is migrating", |vm| vm["migration"]["sent"].as_u64() > Some(0));
    }
}
