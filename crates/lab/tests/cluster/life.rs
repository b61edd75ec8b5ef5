//! The life cycle of VMs: define, start, shut down, modify, rename, remove.

use crate::support::Cluster;
use drover_lab::Domain;
use std::fs;

#[test]
fn commands_work_on_any_node_and_a_vm_runs_on_the_one_that_it_is_assigned_to() {
    let cluster = Cluster::up(3);
    // Each goes to the node with the most free memory, so one to each node.
    for (at, name) in [("hv1", "one"), ("hv2", "two"), ("hv3", "three")] {
        cluster.define(at, &Domain::new(name), &[]);
        cluster.drover(at, &["vm", "start", name, "--wait"]);
        for node in ["hv1", "hv2", "hv3"] {
            cluster.vm_until(node, name, "runs", |vm| vm["run_state"] == "running");
        }
    }
    let mut nodes: Vec<String> = ["one", "two", "three"].map(|vm| cluster.node_of(vm)).to_vec();
    for (vm, assigned) in ["one", "two", "three"].iter().zip(&nodes) {
        assert_eq!(cluster.running_on(vm), std::slice::from_ref(assigned), "{vm}");
        // Any node forwards a request for the console to the VM's node.
        for node in ["hv1", "hv2", "hv3"] {
            cluster.console_until(node, vm, "BOOTED");
        }
    }
    nodes.sort();
    assert_eq!(nodes, ["hv1", "hv2", "hv3"]);
    let list = cluster.drover("hv2", &["vm", "list"]);
    assert_eq!(list.lines().filter(|line| line.contains("running")).count(), 3, "{list}");
    let names = cluster.drover("hv3", &["-f", "raw", "vm", "list", "^t", "--state", "start"]);
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["three", "two"]);

    // Shut down the first, restart the second, stop the third.
    cluster.drover("hv1", &["vm", "shutdown", "one", "--wait"]);
    assert!(cluster.console_until("hv2", "one", "ACPI POWER BUTTON").contains("BOOTED"));
    let before = cluster.vm("hv1", "two")["claim"]["epoch"].as_u64().unwrap();
    cluster.drover("hv3", &["vm", "restart", "two", "--wait"]);
    cluster.vm_until("hv1", "two", "has one more grant", |vm| vm["claim"]["epoch"].as_u64() == Some(before + 1));
    cluster.drover("hv2", &["vm", "stop", "three", "--yes", "--wait"]);
    assert_eq!(["one", "two", "three"].map(|vm| cluster.running_on(vm).len()), [0, 1, 0]);

    // VMs that are off can be renamed and disabled.
    cluster.drover("hv1", &["vm", "rename", "one", "uno"]);
    cluster.forgotten_until("hv2", "one");
    let result = cluster.try_drover("hv1", &["vm", "rename", "two", "dos"]);
    assert_eq!(result.code, 1, "a running VM cannot be renamed: {result:?}");
    cluster.drover("hv2", &["vm", "disable", "three", "--wait"]);
    cluster.vm_until("hv1", "three", "is disabled", |vm| vm["state"] == "disable");
    cluster.drover("hv3", &["vm", "undefine", "two", "--yes"]);
    cluster.forgotten_until("hv1", "two");
    for node in ["hv1", "hv2", "hv3"] {
        let defined = cluster.node(node).exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all"]).unwrap();
        assert_eq!(defined.trim(), "", "no domain is left on {node}");
    }
}

#[test]
fn modify_changes_the_definition_and_detects_a_concurrent_change() {
    let cluster = Cluster::up(2);
    cluster.define("hv1", &Domain::new("web"), &["--start", "--wait"]);
    let uuid = cluster.vm("hv1", "web")["uuid"].as_str().unwrap().to_owned();
    let file = |name: &str, memory: u64| {
        let domain = Domain { uuid: Some(uuid.clone()), memory, ..Domain::new("web") };
        fs::write(cluster.lab.shared().join(name), domain.xml(&cluster.lab.guest())).unwrap();
        format!("/srv/shared/{name}")
    };
    // A change takes effect at the next start, or at once with --restart.
    let result = cluster.try_drover("hv2", &["vm", "modify", "web", &file("a.xml", 100), "--yes"]);
    assert!(
        result.code == 0 && result.err.contains("+  <memory unit='MiB'>100</memory>"),
        "the change is shown: {result:?}"
    );
    cluster.vm_until("hv1", "web", "has a pending change", |vm| vm["pending_changes"] == true && vm["memory"] == 100);
    cluster.drover("hv1", &["vm", "modify", "web", &file("b.xml", 104), "--yes", "--restart"]);
    cluster.vm_until("hv2", "web", "runs with its new definition", |vm| {
        vm["pending_changes"] == false && vm["memory"] == 104 && vm["run_state"] == "running"
    });
    let live =
        cluster.node(&cluster.node_of("web")).exec(&["virsh", "-c", "qemu:///system", "dumpxml", "web"]).unwrap();
    assert!(live.contains(&format!("<memory unit='KiB'>{}</memory>", 104 * 1024)), "{live}");

    // Another administrator changes the definition while this one has it in an editor.
    let editor = format!(
        "#!/bin/sh\nunset EDITOR\ndrover vm modify web {} --yes >/dev/null 2>&1 || exit 9\nsed -i s/104/120/ \"$1\"\n",
        file("c.xml", 112)
    );
    let script = cluster.lab.shared().join("editor");
    fs::write(&script, editor).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let result = cluster
        .node("hv2")
        .output(&["env", "EDITOR=/srv/shared/editor", "drover", "vm", "modify", "web", "--yes"])
        .unwrap();
    let result = crate::support::CommandResult::from(result);
    assert!(result.code == 4 && result.err.contains("changed by somebody else"), "{result:?}");
    assert_eq!(cluster.vm("hv2", "web")["memory"], 112, "the other change is kept");
}

#[test]
fn remove_deletes_only_disks_that_drover_owns() {
    let cluster = Cluster::up(1);
    let node = cluster.node("hv1");
    for file in ["/var/lib/drover/disks/web.img", "/srv/shared/other.img"] {
        node.exec(&["truncate", "-s", "1M", file]).unwrap();
    }
    let disk = |file: &str, dev: &str| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{file}'/><target \
             dev='{dev}' bus='virtio'/></disk>"
        )
    };
    let disks = disk("/var/lib/drover/disks/web.img", "vda") + &disk("/srv/shared/other.img", "vdb");
    let xml = Domain::new("web").xml(&cluster.lab.guest()).replace("<devices>", &format!("<devices>{disks}"));
    cluster.define_xml("hv1", &xml, &["--start", "--wait"]);
    // The guest writes to its disk.
    cluster.console_until("hv1", "web", "disk=2");
    assert!(cluster.drover("hv1", &["vm", "info", "web"]).contains("/srv/shared/other.img"));
    cluster.drover("hv1", &["vm", "remove", "web", "--yes"]);
    assert_eq!(cluster.running("hv1"), Vec::<String>::new());
    assert!(node.exec(&["test", "-e", "/var/lib/drover/disks/web.img"]).is_err(), "its own disk is deleted");
    assert!(node.exec(&["test", "-e", "/srv/shared/other.img"]).is_ok(), "a file elsewhere is not");
    // The name and UUID are free again.
    cluster.define_xml("hv1", &Domain::new("web").xml(&cluster.lab.guest()), &[]);
}
