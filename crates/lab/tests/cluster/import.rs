//! Domains that somebody made with libvirt directly, and that are brought under Drover.

use crate::support::{Cluster, CommandResult, Guest};
use drover_lab::Domain;
use serde_json::Value;

const WEB: &str = "11111111-2222-4333-8444-00000000000a";
const DB: &str = "11111111-2222-4333-8444-00000000000b";

impl Cluster {
    /// A domain of a node's libvirt, with more before a place in its definition.
    fn virsh_define(&self, node: &str, domain: &Domain, anchor: &str, more: &str) {
        // libvirt takes the type as it is, and the lab's machines need not have KVM.
        let xml = domain.xml(&self.lab.guest()).replace("'kvm'", "'qemu'");
        let xml = xml.replacen(anchor, &format!("{more}{anchor}"), 1);
        std::fs::write(self.lab.shared().join("theirs.xml"), xml).unwrap();
        self.virsh(node, &["define", "/srv/shared/theirs.xml"]);
    }

    fn import(&self, at: &str, domain: &str, more: &[&str]) -> CommandResult {
        self.try_drover(at, &[&["-f", "json", "vm", "import", "hv1", domain], more].concat())
    }

    /// It is refused with that advice, and no record is made.
    fn not_imported(&self, domain: &str, advice: &str) {
        for more in [&["--dry-run"][..], &[]] {
            let refused = self.import("hv2", domain, more);
            assert!(refused.code != 0 && refused.err.contains(advice), "{refused:?}\n{}", self.logs());
        }
        assert_eq!(self.try_drover("hv2", &["vm", "info", domain]).code, 3);
    }
}

fn domain(name: &str, uuid: &str) -> Domain {
    Domain { uuid: Some(uuid.to_owned()), ..Domain::new(name) }
}

/// A qcow2 disk in the shared folder.
fn disk(cluster: &Cluster, name: &str) -> String {
    let file = format!("/srv/shared/{name}.qcow2");
    cluster.node("hv1").exec(&["qemu-img", "create", "-q", "-f", "qcow2", &file, "16M"]).unwrap();
    format!(
        "<disk type='file'><driver name='qemu' type='qcow2' cache='none'/><source file='{file}'/>\
         <target dev='vda' bus='virtio'/></disk>"
    )
}

#[test]
fn a_guest_that_libvirt_runs_is_taken_over_without_interruption_and_moves_live() {
    let cluster = Cluster::up(2);
    // It writes its console where Drover's guests do, so that this test sees whether it lives.
    let console = format!("<log file='/var/log/drover/consoles/{WEB}.log' append='on'/></serial>");
    cluster.virsh_define("hv1", &domain("web", WEB), "<serial", &disk(&cluster, "web"));
    let xml = cluster.virsh("hv1", &["dumpxml", "--inactive", "web"]);
    std::fs::write(cluster.lab.shared().join("theirs.xml"), xml.replacen("</serial>", &console, 1)).unwrap();
    cluster.virsh("hv1", &["define", "/srv/shared/theirs.xml"]);
    cluster.virsh("hv1", &["autostart", "web"]);
    cluster.virsh("hv1", &["start", "web"]);
    let qemu = cluster.qemu("hv1", "web");

    // What would be lost is named.
    cluster.virsh("hv1", &["checkpoint-create-as", "web", "one"]);
    cluster.not_imported("web", "notes of 1 checkpoint of domain web");
    cluster.virsh("hv1", &["checkpoint-delete", "web", "one"]);

    // Asked of another node than the one that has it.
    let plan = cluster.json("hv2", &["vm", "import", "hv1", "web", "--dry-run"]);
    assert_eq!((&plan["state"], &plan["disks"]["vda"]), (&"start".into(), &"/srv/shared/web.qcow2".into()), "{plan}");
    let said = |what: &str| plan["changes"].as_array().unwrap().iter().any(|c| c.as_str().unwrap().contains(what));
    assert!(said("metadata") && said("autostart"), "{plan}");
    let hv2 = plan["nodes"].as_array().unwrap().iter().find(|node| node["node"] == "hv2").unwrap();
    assert_eq!(hv2["fits"], true, "its disk is shared: {plan}");
    assert_eq!(cluster.json("hv1", &["vm", "list"]), Value::Array(vec![]));
    assert!(cluster.virsh("hv1", &["dominfo", "web"]).contains("Autostart:      enable"));

    let taken = cluster.import("hv2", "web", &["--wait"]);
    assert_eq!(taken.code, 0, "{taken:?}\n{}", cluster.logs());
    cluster.settled_on("hv1", "web");
    assert_eq!(cluster.qemu("hv1", "web"), qemu);
    assert!(cluster.virsh("hv1", &["dominfo", "web"]).contains("Autostart:      disable"));
    let mut web = Guest::of(&cluster, "hv1", "web");
    assert!(cluster.import("hv1", "web", &[]).out.contains("is VM web already"));

    cluster.drover("hv2", &["vm", "migrate", "web", "--to", "hv2", "--live", "--wait"]);
    web.wait_alive_on("hv2");
    cluster.drover("hv2", &["vm", "unmigrate", "web", "--wait"]);
    web.wait_alive_on("hv1");
    cluster.drover("hv2", &["vm", "restart", "web", "--timeout", "1", "--wait"]);
    web.wait_rebooted_on("hv1");
}

#[test]
fn a_domain_that_is_off_becomes_a_vm_and_keeps_what_is_its_own() {
    let cluster = Cluster::up(2);
    let hv1 = cluster.node("hv1");
    let tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>";
    let db = Domain { memory: 256, ..domain("db", DB) };
    cluster.virsh_define("hv1", &db, "<serial", &format!("{tpm}{}", disk(&cluster, "db")));
    let xml = cluster.virsh("hv1", &["dumpxml", "--inactive", "db"]);
    std::fs::write(cluster.lab.shared().join("theirs.xml"), xml.replacen("<os>", "<os firmware='efi'>", 1)).unwrap();
    cluster.virsh("hv1", &["define", "/srv/shared/theirs.xml"]);
    // libvirt makes what it keeps at the first start.
    cluster.virsh("hv1", &["start", "db"]);
    cluster.virsh("hv1", &["destroy", "db"]);
    let nvram = "/var/lib/libvirt/qemu/nvram/db_VARS.fd";
    let marked = format!("/var/lib/libvirt/swtpm/{DB}/marked");
    let over = "dd bs=1 conv=notrunc status=none";
    let mark = format!("touch {marked} && echo marked | {over} of={nvram} seek=$(($(stat -c %s {nvram}) - 7))");
    hv1.exec(&["sh", "-c", &mark]).unwrap();
    let kept = |after: &str| {
        assert!(hv1.exec(&["test", "-e", &marked]).is_ok(), "the TPM's state is lost after {after}");
        let end = hv1.exec(&["tail", "-c", "7", nvram]);
        assert!(end.is_ok_and(|end| end == "marked\n"), "the NVRAM is lost after {after}\n{}", cluster.logs());
    };

    let taken = cluster.import("hv2", "db", &["--wait"]);
    assert_eq!(taken.code, 0, "{taken:?}\n{}", cluster.logs());
    cluster.until("its definition is in the record only", || {
        cluster.known_on(DB).is_ok_and(|on| on.is_empty()).then_some(())
    });
    cluster.vm_until("hv2", "db", "is off", |vm| vm["state"] == "stop" && vm["claim"]["node"] == "");
    kept("the import");
    // What it owns is on its node, also before it has run under Drover.
    let moved = cluster.try_drover("hv2", &["vm", "move", "db", "--to", "hv2"]);
    assert!(moved.code != 0 && moved.err.contains("the state of its emulated TPM"), "{moved:?}");
    cluster.drover("hv2", &["vm", "start", "db", "--wait"]);
    assert!(cluster.virsh("hv1", &["dumpxml", "db"]).contains(nvram));
    cluster.drover("hv2", &["vm", "stop", "db", "--yes", "--wait"]);
    kept("a start and a stop");

    // What would be lost is named.
    let old = domain("old", "11111111-2222-4333-8444-00000000000c");
    cluster.virsh_define("hv1", &old, "<serial", &disk(&cluster, "old"));
    cluster.virsh("hv1", &["snapshot-create-as", "old", "one"]);
    cluster.not_imported("old", "notes of 1 snapshot of domain old");
    cluster.virsh("hv1", &["snapshot-delete", "old", "one", "--metadata"]);
    cluster.virsh("hv1", &["start", "old"]);
    cluster.virsh("hv1", &["managedsave", "old"]);
    cluster.not_imported("old", "virsh managedsave-remove");
    cluster.virsh("hv1", &["managedsave-remove", "old"]);
    // Its name is another VM's by now.
    cluster.define("hv2", &Domain::new("taken"), &["--node", "hv2"]);
    cluster.virsh("hv1", &["domrename", "old", "taken"]);
    let refused = cluster.import("hv2", "taken", &[]);
    assert!(refused.code != 0 && refused.err.contains("virsh domrename"), "{refused:?}");
    cluster.virsh("hv1", &["domrename", "taken", "old"]);
    assert_eq!(cluster.import("hv2", "old", &["--wait"]).code, 0);
}
