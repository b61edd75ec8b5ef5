//! Definitions that libvirt would not start, and what libvirt says of them.

use crate::support::Cluster;
use drover_lab::Domain;
use std::os::unix::fs::PermissionsExt;

const UUID: &str = "0a7c7b2e-5f52-4c58-9d8e-0f2a4b6c8d10";

#[test]
fn libvirt_checks_a_definition_before_it_is_stored() {
    let cluster = Cluster::up(2);
    let good = Domain { uuid: Some(UUID.to_owned()), ..Domain::new("web") }.xml(&cluster.lab.guest());
    let old = good.replace("pc-i440fx-7.2", "pc-i440fx-99.0");
    let odd = good.replace("<devices>", "<devices><disk type='file'><target dev='vda' bus='none-such'/></disk>");
    let define = |at: &str, xml: &str, arguments: &[&str]| {
        std::fs::write(cluster.lab.shared().join("new.xml"), xml).unwrap();
        cluster.try_drover(at, &[&["vm", "define", "/srv/shared/new.xml", "--node", "hv1"], arguments].concat())
    };
    let known = |node: &str| {
        cluster.node(node).exec(&["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"]).unwrap()
    };
    for at in ["hv1", "hv2"] {
        for (xml, words) in [(&old, "pc-i440fx-99.0"), (&odd, "none-such")] {
            let result = define(at, xml, &[]);
            assert_ne!(result.code, 0, "{at}: {result:?}");
            assert!(result.err.contains("does not accept") && result.err.contains(words), "{at}: {result:?}");
            assert!(result.err.contains("--no-check"), "{result:?}");
            assert_ne!(cluster.try_drover(at, &["vm", "info", "web"]).code, 0, "it is in the store");
            assert_eq!(known(at).trim(), "", "it is in libvirt");
        }
    }

    // Where no node is named, one is chosen that can run it: none can.
    let lacking = [
        ("pc-i440fx-99.0", old.clone()),
        ("aarch64", good.replace("x86_64", "aarch64")),
        ("/usr/bin/qemu-kvm", good.replace("<devices>", "<devices><emulator>/usr/bin/qemu-kvm</emulator>")),
    ];
    for (words, xml) in lacking {
        std::fs::write(cluster.lab.shared().join("new.xml"), xml).unwrap();
        let result = cluster.try_drover("hv1", &["vm", "define", "/srv/shared/new.xml"]);
        assert_ne!(result.code, 0, "{words}: {result:?}");
        let of_node = |node: &str| {
            let said = result.err.split_once(&format!("{node}: "));
            said.is_some_and(|(_, said)| said.contains("has no") && said.contains(words))
        };
        assert!(of_node("hv1") && of_node("hv2"), "{words}: {result:?}");
    }

    // What libvirt would make at a start is not made, and no script is run.
    let script = cluster.lab.shared().join("script");
    std::fs::write(&script, "#!/bin/sh\ntouch /srv/shared/was-run\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let full = good.replace("<os>", "<os firmware='efi'>").replace("pc-i440fx-7.2", "pc-q35-7.2").replace(
        "<devices>",
        "<devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
         <disk type='file'><source file='/srv/shared/absent.img'/><target dev='vda' bus='virtio'/></disk>
         <interface type='ethernet'><script path='/srv/shared/script'/><model type='virtio'/></interface>
         <interface type='user'><model type='virtio'/></interface>
         <graphics type='vnc' autoport='yes'/>",
    );
    let result = define("hv1", &full, &[]);
    assert_eq!(result.code, 0, "{result:?}\n{}", cluster.logs());
    assert!(!format!("{result:?}").contains("not checked"), "{result:?}");
    assert!(!cluster.lab.shared().join("was-run").exists(), "the script was run");
    let exists = |what: &str| cluster.node("hv1").exec(&["test", "-e", what]).is_ok();
    assert!(!exists(&format!("/var/lib/libvirt/swtpm/{UUID}")), "a TPM was made");
    assert!(!exists(&format!("/var/lib/libvirt/qemu/nvram/{UUID}_VARS.fd")), "NVRAM was made");
    let links = cluster.node("hv1").exec(&["ip", "-o", "link"]).unwrap();
    assert!(!links.contains("vnet"), "{links}");
    assert_eq!(known("hv1").trim(), "");
    cluster.drover("hv1", &["vm", "undefine", "web", "--yes"]);

    // It is defined and changed all the same, if so wished.
    let result = define("hv2", &old, &["--no-check"]);
    assert_eq!(result.code, 0, "{result:?}");
    let modify = |xml: &str, arguments: &[&str]| {
        std::fs::write(cluster.lab.shared().join("new.xml"), xml).unwrap();
        cluster.try_drover("hv2", &[&["vm", "modify", "web", "/srv/shared/new.xml", "--yes"], arguments].concat())
    };
    assert_eq!(modify(&good, &[]).code, 0);
    let result = modify(&odd, &[]);
    assert!(result.code != 0 && result.err.contains("none-such"), "{result:?}");
    assert!(!cluster.drover("hv1", &["vm", "dump", "web"]).contains("none-such"));
    assert_eq!(modify(&odd, &["--no-check"]).code, 0);
    cluster.drover("hv1", &["vm", "undefine", "web", "--yes"]);

    // A libvirtd that hangs holds nobody up.
    let pid = cluster.node("hv1").exec(&["pidof", "libvirtd"]).unwrap();
    cluster.node("hv1").exec(&["kill", "-STOP", pid.trim()]).unwrap();
    let begun = std::time::Instant::now();
    let result = define("hv1", &good, &[]);
    cluster.node("hv1").exec(&["kill", "-CONT", pid.trim()]).unwrap();
    assert_eq!(result.code, 0, "{result:?}");
    assert!(format!("{result:?}").contains("not checked by a hypervisor"), "{result:?}");
    assert!(begun.elapsed().as_secs() < 40, "{:?}", begun.elapsed());
}
