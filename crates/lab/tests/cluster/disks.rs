//! Which files go with a VM, and which are kept for others.

use crate::support::Cluster;
use drover_lab::Domain;

/// Drover's folder of disks, on each node.
const FOLDER: &str = "/var/lib/drover/disks";

/// A disk with a file in that folder, or elsewhere.
fn disk(file: &str, kind: &str, dev: &str) -> String {
    let share = if kind == "raw" { "<shareable/>" } else { "" };
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='{kind}'/><source file='{file}'/>\
         <target dev='{dev}' bus='virtio'/>{share}</disk>"
    )
}

fn with(cluster: &Cluster, name: &str, disks: &str) -> String {
    Domain::new(name).xml(&cluster.lab.guest()).replace("<devices>", &format!("<devices>{disks}"))
}

/// VM `web` is removed while other VMs need its disks in every way, and one that nobody needs.
fn removal(run: bool) {
    let mut own = vec!["spelled", "linked", "base", "cloned", "foreign", "late", "own"];
    if !run {
        // QEMU lets nobody write to a backing file that it has open.
        own.push("standing");
    }
    let cluster = Cluster::up(3);
    let node = cluster.node("hv1");
    let disks: String = own
        .iter()
        .zip('a'..)
        .map(|(name, letter)| {
            node.exec(&["truncate", "-s", "1M", &format!("{FOLDER}/{name}.img")]).unwrap();
            disk(&format!("{FOLDER}/{name}.img"), "raw", &format!("vd{letter}"))
        })
        .collect();
    let sh = |script: &str| node.exec(&["sh", "-c", &format!("cd {FOLDER} && {script}")]).unwrap();
    sh(&format!("ln -s {FOLDER}/linked.img /srv/shared/link.img"));
    // Relative to the image, as `qemu-img` leaves them.
    sh("qemu-img create -q -f qcow2 -F raw -b base.img top.qcow2");
    sh("mkdir images && qemu-img create -q -f qcow2 -F raw -b ../cloned.img images/clone.qcow2");
    if !run {
        sh("qemu-img create -q -f qcow2 -F raw -b $PWD/standing.img /srv/shared/standing.qcow2");
    }
    // Domains that are not Drover's: one writes to a disk, one has it as its backing file.
    let strangers = [
        ("stranger", disk(&format!("{FOLDER}/foreign.img"), "raw", "vda")),
        ("neighbour", disk("/srv/shared/standing.qcow2", "qcow2", "vda")),
    ];
    for (name, disks) in strangers.into_iter().take(if run { 1 } else { 2 }) {
        let file = cluster.lab.shared().join("stranger.xml");
        // Without KVM as with it.
        let xml = with(&cluster, name, &disks).replace("<domain type='kvm'>", "<domain type='qemu'>");
        std::fs::write(file, xml).unwrap();
        node.exec(&["virsh", "-q", "-c", "qemu:///system", "create", "/srv/shared/stranger.xml"]).unwrap();
    }
    let web = ["--node", "hv1", "--start", "--wait"];
    cluster.define_xml("hv1", &with(&cluster, "web", &disks), if run { &web } else { &web[..2] });
    if run {
        cluster.console_until("hv1", "web", "disk=2");
    }
    let other = |at: &str, name: &str, on: &str, file: &str, kind: &str| {
        cluster.define_xml(at, &with(&cluster, name, &disk(file, kind, "vda")), &["--node", on]);
    };
    other("hv1", "speller", "hv1", "/var/lib//drover/disks/./images/../spelled.img", "raw");
    other("hv2", "linker", "hv1", "/srv/shared/link.img", "raw");
    other("hv2", "stacker", "hv1", &format!("{FOLDER}/top.qcow2"), "qcow2");
    // A moment before, through another node, and on a node that cannot have the file.
    other("hv3", "latest", "hv2", &format!("{FOLDER}/late.img"), "raw");
    let removed = cluster.try_drover("hv1", &["vm", "remove", "web", "--yes"]);
    assert_eq!(removed.code, 0, "{removed:?}\n{}", cluster.logs());

    assert_eq!(cluster.try_drover("hv1", &["vm", "info", "web"]).code, 3);
    let log = node.exec(&["grep", "-a", "disk", "/var/log/droverd.out"]).unwrap();
    let left = sh("ls");
    let left: Vec<&str> = left.split_whitespace().collect();
    for name in &own {
        assert_eq!(left.contains(&format!("{name}.img").as_str()), *name != "own", "{name}: {left:?}\n{log}");
    }
    for (name, why) in [
        ("spelled", "VM speller needs it"),
        ("linked", "VM linker needs it"),
        ("base", "VM stacker needs it"),
        ("cloned", "image /var/lib/drover/disks/images/clone.qcow2 needs it"),
        ("foreign", "a running QEMU has it open"),
        ("standing", "a running QEMU has it open"),
        ("late", "VM latest needs it"),
    ] {
        if !own.contains(&name) {
            continue;
        }
        let told = |line: &str| line.contains("kept a disk") && line.contains(name) && line.contains(why);
        assert!(log.lines().any(told), "{name}: {why}\n{log}");
    }
    // What the node that was asked knows already, which the last one may not be part of.
    assert!(removed.err.contains("spelled.img is kept: VM speller"), "{removed:?}");
    // Who has needed it last takes it along.
    cluster.drover("hv2", &["vm", "remove", "speller", "--yes"]);
    let gone = || (!sh("ls").contains("spelled.img")).then_some(());
    cluster.until("the last VM's disk goes with it", gone);
}

#[test]
fn a_disk_that_somebody_needs_outlives_a_vm_that_is_off() {
    removal(false);
}

#[test]
fn a_disk_that_somebody_needs_outlives_a_vm_that_runs() {
    removal(true);
}
