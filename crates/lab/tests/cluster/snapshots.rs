//! Disks of running guests that somebody replaces, as backup tools do: nothing boots an older disk.

use crate::support::{Cluster, Guest, TIMEOUT};
use drover_lab::{Domain, Lab};
use serde_json::Value;

/// The disk of the guest's definition, and what is made of it.
const BASE: &str = "/srv/shared/web.qcow2";
const SNAP: &str = "/srv/shared/web.snap";

impl Cluster {
    fn virsh_on(&self, node: &str, arguments: &[&str]) -> String {
        self.node(node).exec(&[&["virsh", "-q", "-c", "qemu:///system"], arguments].concat()).unwrap()
    }

    /// A guest with a qcow2 disk in the shared folder.
    fn with_disk(&self, name: &str) -> Guest<'_> {
        let hv1 = self.node("hv1");
        hv1.exec(&["qemu-img", "create", "-q", "-f", "qcow2", BASE, "16M"]).unwrap();
        let disk = format!(
            "<disk type='file'><driver name='qemu' type='qcow2' cache='none'/><source file='{BASE}'/>\
             <target dev='vda' bus='virtio'/></disk>"
        );
        let xml = Domain::new(name).xml(&self.lab.guest()).replace("<devices>", &format!("<devices>{disk}"));
        self.define_xml("hv1", &xml, &["--node", "hv1", "--start", "--wait"]);
        Guest::of(self, "hv1", name)
    }

    fn snapshot(&self, node: &str, name: &str) {
        let disk = format!("vda,file={SNAP}");
        let order = ["snapshot-create-as", name, "--disk-only", "--atomic", "--no-metadata", "--diskspec", &disk];
        self.virsh_on(node, &order);
    }

    fn noticed(&self, name: &str) -> Value {
        self.vm_until("hv1", name, "its disk was replaced", |vm| vm["older_disks"] != "")
    }

    fn faults_about_disks(&self) -> usize {
        let faults = self.json("hv1", &["fault", "list"]);
        let messages = faults.as_array().unwrap().iter().map(|fault| fault["message"].to_string());
        messages.filter(|message| message.contains(SNAP) && message.contains(BASE)).count()
    }

    fn fault_until(&self, count: usize) {
        Lab::until("the fault", TIMEOUT, || (self.faults_about_disks() == count).then_some(()))
            .unwrap_or_else(|e| panic!("{e}: {}\n{}", self.drover("hv1", &["fault", "list"]), self.logs()));
    }

    /// What the running guest's QEMU has as its disk.
    fn boots(&self, node: &str, name: &str, file: &str) {
        let disks = self.virsh_on(node, &["domblklist", name]);
        assert!(disks.contains(file), "{disks}");
    }
}

#[test]
fn a_guest_with_an_external_snapshot_is_not_started_from_the_older_disk() {
    let cluster = Cluster::up(2);
    let drover = |arguments: &[&str]| cluster.drover("hv1", arguments);
    let refused = |order: &[&str]| {
        let result = cluster.try_drover("hv1", order);
        let both = format!("disk vda is {SNAP}, and the definition has {BASE}");
        assert!(result.code != 0 && result.err.contains(&both), "{order:?}: {result:?}\n{}", cluster.logs());
    };
    let fails = |after: &str| {
        let vm = cluster.vm_until("hv1", "web", after, |vm| vm["state"] == "fail" && vm["claim"]["node"] == "");
        assert!(vm["failed_reason"].as_str().unwrap().contains("older data"), "{vm}");
        assert_eq!(cluster.running_on("web"), Vec::<String>::new(), "{after}");
        refused(&["vm", "start", "web"]);
    };
    let web = cluster.with_disk("web");

    // A backup: a snapshot, and its end. Nobody is told of either.
    cluster.snapshot("hv1", "web");
    let seen = cluster.noticed("web");
    assert_eq!(seen["replaced_disks"][0]["live"], SNAP, "{seen}");
    cluster.fault_until(1);
    assert!(cluster.try_drover("hv1", &["vm", "explain", "web"]).err.contains("cannot be started again"));
    refused(&["vm", "restart", "web"]);
    cluster.virsh_on("hv1", &["blockcommit", "web", "vda", "--active", "--pivot", "--wait"]);
    cluster.vm_until("hv1", "web", "its disk is back", |vm| vm["older_disks"] == "");
    cluster.fault_until(0);
    drover(&["vm", "restart", "web", "--timeout", "1", "--wait"]);
    cluster.boots("hv1", "web", BASE);

    // It moves live with its snapshot, and is not moved cold.
    cluster.node("hv1").exec(&["rm", SNAP]).unwrap();
    cluster.snapshot("hv1", "web");
    cluster.noticed("web");
    drover(&["vm", "move", "web", "--to", "hv2", "--wait"]);
    cluster.boots("hv2", "web", SNAP);
    let there = cluster.noticed("web");
    assert_eq!((&there["replaced_disks"][0]["defined"], &there["node"]), (&BASE.into(), &"hv2".into()), "{there}");
    drover(&["vm", "meta", "web", "--method", "shutdown"]);
    refused(&["vm", "move", "web", "--to", "hv1"]);
    drover(&["vm", "meta", "web", "--method", "none"]);
    drover(&["vm", "move", "web", "--to", "hv1", "--wait"]);
    web.wait_only_on(&["hv1"]);

    // It crashes, and stays off: also after a restart of the daemon, whose domain is forgotten by then.
    let qemu = cluster.qemu("hv1", "web");
    cluster.node("hv1").exec(&["kill", "-9", &qemu]).unwrap();
    fails("it has crashed");
    cluster.node("hv1").kill(drover_lab::Service::Drover).unwrap();
    cluster.node("hv1").start_drover().unwrap();
    cluster.wait_healthy();
    refused(&["vm", "start", "web"]);
    cluster.fault_until(2);

    // With the newest image in the definition it starts, and that is what it has.
    let file = cluster.lab.shared().join("newest.xml");
    std::fs::write(file, drover(&["vm", "dump", "web"]).replace(BASE, SNAP)).unwrap();
    drover(&["vm", "modify", "web", "/srv/shared/newest.xml", "--yes"]);
    drover(&["vm", "start", "web", "--wait"]);
    cluster.boots("hv1", "web", SNAP);
    cluster.fault_until(0);
}

#[test]
fn a_snapshot_that_drover_has_not_seen_yet_counts_after_the_nodes_crash() {
    let cluster = Cluster::up(1);
    let _web = cluster.with_disk("web");
    // The daemon is away, and so the domain's definition is all that tells.
    cluster.node("hv1").kill(drover_lab::Service::Drover).unwrap();
    cluster.snapshot("hv1", "web");
    cluster.node("hv1").power_off().unwrap();
    cluster.node("hv1").power_on().unwrap();
    cluster.wait_healthy();
    let vm = cluster.vm_until("hv1", "web", "it is not started", |vm| vm["state"] == "fail");
    assert!(vm["failed_reason"].as_str().unwrap().contains(SNAP), "{vm}");
    assert_eq!(cluster.running_on("web"), Vec::<String>::new());
    // Somebody decides for the older one.
    cluster.drover("hv1", &["vm", "start", "web", "--force", "--wait"]);
    cluster.boots("hv1", "web", BASE);
    cluster.vm_until("hv1", "web", "nothing is older", |vm| vm["older_disks"] == "");
    cluster.drover("hv1", &["vm", "restart", "web", "--timeout", "1", "--wait"]);
}
