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
