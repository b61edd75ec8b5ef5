//! Guests that somebody has moved, or made, with libvirt directly.

use crate::support::{Cluster, Guest};
use drover_lab::{Domain, Service};
use serde_json::Value;

const LIBVIRT: [&str; 4] = ["virsh", "-q", "-c", "qemu:///system"];

impl Cluster {
    pub(crate) fn virsh(&self, node: &str, arguments: &[&str]) -> String {
        let result = self.node(node).exec(&[&LIBVIRT[..], arguments].concat());
        result.unwrap_or_else(|e| panic!("virsh {}: {e}\n{}", arguments.join(" "), self.logs()))
    }

    /// The epoch of a VM's claim, and that of its domain's mark, live or in its definition.
    fn epochs(&self, node: &str, vm: &str, inactive: bool) -> (u64, u64) {
        let flags: &[&str] = if inactive { &["--inactive"] } else { &[] };
        let xml = self.virsh(node, &[&["dumpxml", vm], flags].concat());
        let mark = xml.split("drover:domain:1\" epoch=\"").nth(1).and_then(|rest| rest.split('"').next());
        let mark = mark.unwrap_or_else(|| panic!("no mark: {xml}")).parse().unwrap();
        (self.vm(node, vm)["claim"]["epoch"].as_u64().unwrap(), mark)
    }

    /// Waits until a VM is held by a node, and its domain has the claim's mark, live and in its definition.
    pub(crate) fn settled_on(&self, node: &str, vm: &str) {
        let there = |shown: &Value| shown["claim"]["node"] == node && shown["run_state"] == "running";
        self.vm_until(node, vm, &format!("is held by {node}"), there);
        let marked = || {
            let ((claim, live), (_, defined)) = (self.epochs(node, vm, false), self.epochs(node, vm, true));
            (claim == live && claim == defined).then_some(())
        };
        self.until("its domain has the claim's mark", marked);
    }
}

#[test]
fn an_administrators_own_migration_takes_the_vm_along() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    let before = cluster.vm("hv1", "web")["claim"]["epoch"].as_u64().unwrap();
    let uri = |node: &str| format!("qemu+tcp://{node}/system");
    cluster.virsh("hv1", &["migrate", "--live", "--persistent", "--undefinesource", "web", &uri("hv2")]);
    cluster.settled_on("hv2", "web");
    web.wait_alive_on("hv2");
    // No second guest was started.
    cluster.vm_until("hv1", "web", "is at hv2 under one more grant", |vm| {
        vm["state"] == "start"
            && vm["node"] == "hv2"
            && vm["last_node"] == "hv1"
            && vm["claim"]["epoch"].as_u64() == Some(before + 2)
    });

    // Its definition stays at the source, and none is made at the target; the source's daemon is not there.
    cluster.node("hv2").kill(Service::Drover).unwrap();
    cluster.virsh("hv2", &["migrate", "--live", "web", &uri("hv1")]);
    cluster.node("hv2").start_drover().unwrap();
    cluster.settled_on("hv1", "web");
    web.wait_alive_on("hv1");
    // Drover moves it as any other.
    cluster.drover("hv1", &["vm", "move", "web", "--to", "hv2", "--wait"]);
    web.wait_alive_on("hv2");

    // Its definition is removed while it runs: it gets it back, so that its end is seen.
    cluster.virsh("hv2", &["undefine", "web"]);
    let persistent = || cluster.virsh("hv2", &["dominfo", "web"]).contains("Persistent:     yes").then_some(());
    cluster.until("its definition is back", persistent);
    cluster.settled_on("hv2", "web");
    web.wait_alive_on("hv2");

    // Removed from libvirt while the daemon is away: nobody starts a second one unasked.
    cluster.node("hv2").kill(Service::Drover).unwrap();
    cluster.virsh("hv2", &["undefine", "web"]);
    cluster.virsh("hv2", &["destroy", "web"]);
    cluster.node("hv2").start_drover().unwrap();
    let failed = cluster.vm_until("hv1", "web", "has failed", |vm| vm["state"] == "fail");
    assert!(failed["failed_reason"].as_str().unwrap().contains("vanished from hv2"), "{failed}");
    cluster.drover("hv1", &["vm", "start", "web", "--wait"]);
    web.wait_rebooted_on("hv2");
}

#[test]
fn a_running_vm_without_a_record_is_adopted_when_it_is_defined() {
    let cluster = Cluster::up(2);
    let mut web = Guest::up(&cluster, "hv1", &Domain::new("web"), &[]);
    let qemu = cluster.qemu("hv1", "web");
    let xml = cluster.drover("hv1", &["vm", "dump", "web"]);
    // The store is lost: another part of it is used.
    for node in cluster.lab.nodes() {
        node.stop(Service::Drover).unwrap();
    }
    for node in cluster.lab.nodes() {
        let lose = "sed -i 's/^\\[store\\]$/[store]\\nroot = \"\\/new\"/' /etc/drover/drover.toml";
        node.exec(&["sh", "-c", lose]).unwrap();
        node.start_drover().unwrap();
    }
    cluster.daemon_until("hv2", "hv1", "run");
    std::fs::write(cluster.lab.shared().join("again.xml"), &xml).unwrap();
    let define = |arguments: &[&str]| {
        cluster.try_drover("hv2", &[&["vm", "define", "/srv/shared/again.xml"], arguments].concat())
    };
    let refused = || Some(define(&["--node", "hv2"])).filter(|result| result.err.contains("--adopt"));
    let refused = cluster.until("it says where the VM runs", refused);
    assert!(refused.code != 0 && refused.err.contains("runs on node hv1"), "{refused:?}");
    assert_ne!(define(&["--node", "hv2", "--adopt"]).code, 0);
    let adopted = define(&["--adopt"]);
    assert_eq!(adopted.code, 0, "{adopted:?}");
    cluster.settled_on("hv1", "web");
    web.wait_alive_on("hv1");
    assert_eq!(cluster.qemu("hv1", "web"), qemu);
    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2", "--wait"]);
    web.wait_alive_on("hv2");
}

#[test]
fn a_domain_that_is_not_drovers_is_named_when_it_is_in_the_way_and_is_not_touched() {
    let cluster = Cluster::up(2);
    // libvirt takes the type as it is, and the lab's machines need not have KVM.
    let xml = |domain: &Domain| domain.xml(&cluster.lab.guest()).replace("'kvm'", "'qemu'");
    let theirs = Domain { uuid: Some("11111111-2222-4333-8444-000000000001".to_owned()), ..Domain::new("theirs") };
    let other = Domain { uuid: Some("11111111-2222-4333-8444-000000000002".to_owned()), ..Domain::new("theirs") };
    let renamed = Domain { name: "ours".to_owned(), ..theirs.clone() };
    let file = |name: &str, domain: &Domain| {
        std::fs::write(cluster.lab.shared().join(name), xml(domain)).unwrap();
        format!("/srv/shared/{name}")
    };
    // Before its daemon starts, so that the daemon's first report has it.
    let foreign = file("theirs.xml", &theirs);
    cluster.node("hv1").stop(Service::Drover).unwrap();
    cluster.daemon_until("hv2", "hv1", "stop");
    cluster.virsh("hv1", &["define", &foreign]);
    cluster.node("hv1").start_drover().unwrap();
    cluster.daemon_until("hv2", "hv1", "run");
    let (same_name, same_uuid) = (file("name.xml", &other), file("uuid.xml", &renamed));
    let refused = |file: &str, node: &str, why: &str| {
        let result = cluster.try_drover("hv2", &["vm", "define", file, "--node", node]);
        assert!(result.code != 0 && result.err.contains(why), "{result:?}\n{}", cluster.logs());
    };
    refused(&same_name, "hv1", "hv1 has another domain named theirs (UUID 11111111-2222-4333-8444-000000000001)");
    refused(&same_uuid, "hv2", "node hv1 has a domain with UUID 11111111-2222-4333-8444-000000000001");
    // libvirt's names are of one machine.
    cluster.drover("hv2", &["vm", "define", &same_name, "--node", "hv2"]);

    // One that comes later is named when the VM is to start, which goes on when it is out of the way.
    cluster.define("hv1", &Domain::new("late"), &["--node", "hv1"]);
    let in_the_way = file("late.xml", &Domain::new("late"));
    cluster.virsh("hv1", &["define", &in_the_way]);
    cluster.drover("hv1", &["vm", "start", "late"]);
    let named = |vm: &Value| vm["doing"].as_str().is_some_and(|doing| doing.contains("another domain named late"));
    cluster.vm_until("hv1", "late", "says what is in the way", named);
    cluster.virsh("hv1", &["undefine", "late"]);
    cluster.vm_until("hv1", "late", "is started", |vm| vm["run_state"] == "running");
    assert!(cluster.virsh("hv1", &["list", "--all", "--name"]).contains("theirs"), "it is left as it was");
}
