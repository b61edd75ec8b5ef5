//! The life of a VM in a cluster of three.

use crate::support::Cluster;
use drover_lab::Domain;
use std::fs;

#[test]
fn a_vm_is_defined_anywhere_and_runs_where_it_is_assigned() {
    let cluster = Cluster::up(3);
    // One on each node: the emptiest is chosen each time.
    for (at, name) in [("hv1", "one"), ("hv2", "two"), ("hv3", "three")] {
        cluster.define(at, &Domain::new(name), &[]);
        cluster.drover(at, &["vm", "start", name, "--wait"]);
    }
    let mut homes: Vec<String> = ["one", "two", "three"].map(|vm| cluster.home(vm)).to_vec();
    for (vm, home) in ["one", "two", "three"].iter().zip(&homes) {
        assert_eq!(cluster.runs_on(vm), std::slice::from_ref(home), "{vm}");
        // Its console is asked of its node by whatever node is asked.
        for node in ["hv1", "hv2", "hv3"] {
            cluster.console_until(node, vm, "BOOTED");
        }
    }
    homes.sort();
    assert_eq!(homes, ["hv1", "hv2", "hv3"]);
    let list = cluster.drover("hv2", &["vm", "list"]);
    assert_eq!(list.lines().filter(|line| line.contains("running")).count(), 3, "{list}");
    let names = cluster.drover("hv3", &["-f", "raw", "vm", "list", "^t", "--state", "start"]);
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["three", "two"]);

    // One guest is asked to power off and does, one is restarted, one has its power cut.
    cluster.drover("hv1", &["vm", "shutdown", "one", "--wait"]);
    assert!(cluster.console_until("hv2", "one", "ACPI POWER BUTTON").contains("BOOTED"));
    let before = cluster.vm("hv1", "two")["claim"]["epoch"].as_u64().unwrap();
    cluster.drover("hv3", &["vm", "restart", "two", "--wait"]);
    assert_eq!(cluster.vm("hv1", "two")["claim"]["epoch"].as_u64().unwrap(), before + 1);
    cluster.drover("hv2", &["vm", "stop", "three", "--yes", "--wait"]);
    assert_eq!(["one", "two", "three"].map(|vm| cluster.runs_on(vm).len()), [0, 1, 0]);

    // Off, it can be renamed, disabled, and forgotten.
    cluster.drover("hv1", &["vm", "rename", "one", "uno"]);
    assert_eq!(cluster.say("hv2", &["vm", "info", "one"]).code, 3);
    let said = cluster.say("hv1", &["vm", "rename", "two", "dos"]);
    assert_eq!(said.code, 1, "a running one cannot: {said:?}");
    cluster.drover("hv2", &["vm", "disable", "three", "--wait"]);
    // Another node may hear of it a moment later.
    cluster.vm_until("hv1", "three", "is disabled", |vm| vm["state"] == "disable");
    cluster.drover("hv3", &["vm", "undefine", "two", "--yes"]);
    let said = cluster.say("hv1", &["vm", "info", "two"]);
    assert_eq!(said.code, 3, "{said:?}");
    for node in ["hv1", "hv2", "hv3"] {
        let defined = cluster.node(node).exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all"]).unwrap();
        assert_eq!(defined.trim(), "", "nothing is left behind on {node}");
    }
}

#[test]
fn a_definition_is_changed_and_nobody_is_overwritten() {
    let cluster = Cluster::up(2);
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    let uuid = cluster.vm("hv1", "web")["uuid"].as_str().unwrap().to_owned();
    let file = |name: &str, memory: u64| {
        let domain = Domain { uuid: Some(uuid.clone()), memory, ..Domain::new("web") };
        fs::write(cluster.lab.shared().join(name), domain.xml(&cluster.lab.guest())).unwrap();
        format!("/srv/shared/{name}")
    };
    // It holds from the next start, or now.
    let said = cluster.say("hv2", &["vm", "modify", "web", &file("a.xml", 100), "--yes"]);
    assert!(said.code == 0 && said.err.contains("+  <memory unit='MiB'>100</memory>"), "the change is shown: {said:?}");
    cluster
        .vm_until("hv1", "web", "has a change that waits", |vm| vm["pending_changes"] == true && vm["memory"] == 100);
    cluster.drover("hv1", &["vm", "modify", "web", &file("b.xml", 104), "--yes", "--restart"]);
    cluster.vm_until("hv2", "web", "runs its new definition", |vm| {
        vm["pending_changes"] == false && vm["memory"] == 104 && vm["run_state"] == "running"
    });
    let home = cluster.home("web");
    let live = cluster.node(&home).exec(&["virsh", "-c", "qemu:///system", "dumpxml", "web"]).unwrap();
    assert!(live.contains(&format!("<memory unit='KiB'>{}</memory>", 104 * 1024)), "{live}");

    // While one administrator has the definition in an editor, another changes it.
    let editor = format!(
        "#!/bin/sh\nunset EDITOR\ndrover vm modify web {} --yes >/dev/null 2>&1 || exit 9\nsed -i s/104/120/ \"$1\"\n",
        file("c.xml", 112)
    );
    let script = cluster.lab.shared().join("editor");
    fs::write(&script, editor).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = cluster
        .node("hv2")
        .output(&["env", "EDITOR=/srv/shared/editor", "drover", "vm", "modify", "web", "--yes"])
        .unwrap();
    let said = crate::support::Said::from(said);
    assert!(said.code == 4 && said.err.contains("changed by somebody else"), "{said:?}");
    assert_eq!(cluster.vm("hv2", "web")["memory"], 112, "the first one's change is there");
}

#[test]
fn a_removed_vm_takes_its_own_disks_along_and_no_others() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    for file in ["/var/lib/drover/disks/web.img", "/srv/shared/other.img"] {
        node.exec(&["truncate", "-s", "1M", file]).unwrap();
    }
    let disk = |file: &str, dev: &str| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{file}'/><target dev='{dev}' bus='virtio'/></disk>"
        )
    };
    let disks = disk("/var/lib/drover/disks/web.img", "vda") + &disk("/srv/shared/other.img", "vdb");
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("<devices>", &format!("<devices>{disks}"));
    cluster.define_xml("hv1", &xml, &["--start", "--wait"]);
    // The guest really writes to it.
    cluster.console_until("hv1", "web", "disk=2");
    assert!(cluster.drover("hv1", &["vm", "info", "web"]).contains("/srv/shared/other.img"));
    cluster.drover("hv1", &["vm", "remove", "web", "--yes"]);
    assert_eq!(cluster.running("hv1"), Vec::<String>::new());
    assert!(node.exec(&["test", "-e", "/var/lib/drover/disks/web.img"]).is_err(), "its disk is gone");
    assert!(node.exec(&["test", "-e", "/srv/shared/other.img"]).is_ok(), "somebody else's is not");
    // The name and UUID are free again.
    cluster.define_xml("hv1", &Domain::new("web").xml(&cluster.lab.guest()), &[]);
}
