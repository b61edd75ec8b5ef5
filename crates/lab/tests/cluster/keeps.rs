//! What belongs to a guest and is kept by libvirt outside its definition.

use crate::support::Cluster;
use drover_lab::Domain;

/// A guest with an emulated TPM, firmware with variables, and files of this test's beside what is kept, which go when
/// that goes.
struct Owner<'a> {
    cluster: &'a Cluster,
    uuid: &'static str,
}

impl<'a> Owner<'a> {
    fn define(cluster: &'a Cluster, name: &str, uuid: &'static str, arguments: &[&str]) -> Owner<'a> {
        let domain = Domain { uuid: Some(uuid.to_owned()), memory: 256, ..Domain::new(name) };
        let tpm = "<devices><tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>";
        let xml = domain.xml(&cluster.lab.guest()).replace("<devices>", tpm).replace("<os>", "<os firmware='efi'>");
        cluster.define_xml("hv1", &xml, &[&["--node", "hv1"], arguments].concat());
        Owner { cluster, uuid }
    }

    fn tpm(&self) -> String {
        format!("/var/lib/libvirt/swtpm/{}", self.uuid)
    }

    fn nvram(&self) -> String {
        format!("/var/lib/libvirt/qemu/nvram/{}_VARS.fd", self.uuid)
    }

    fn has(&self, node: &str, file: &str) -> bool {
        self.cluster.node(node).exec(&["test", "-e", file]).is_ok()
    }

    /// Marks what is kept on a node, so that it is known again.
    fn mark(&self, node: &str) {
        let over = "dd bs=1 conv=notrunc status=none";
        let (tpm, nvram) = (self.tpm(), self.nvram());
        let script =
            format!("touch {tpm}/marked && echo marked | {over} of={nvram} seek=$(($(stat -c %s {nvram}) - 7))");
        self.cluster.node(node).exec(&["sh", "-c", &script]).unwrap();
    }

    /// What was marked is still there.
    fn keeps(&self, node: &str, after: &str) {
        let logs = || self.cluster.logs();
        assert!(self.has(node, &format!("{}/marked", self.tpm())), "the TPM's state is lost after {after}\n{}", logs());
        let nvram = self.cluster.node(node).exec(&["tail", "-c", "7", &self.nvram()]);
        assert!(nvram.is_ok_and(|end| end == "marked\n"), "the NVRAM is lost after {after}\n{}", logs());
    }
}

#[test]
fn what_a_guest_owns_outlives_everything_but_its_removal() {
    const UUID: &str = "6c1a8ad4-7e19-4b53-b0a0-2f6a4e0d7a11";
    let cluster = Cluster::up(2);
    let drover = |arguments: &[&str]| cluster.drover("hv1", arguments);
    // One that has never run is moved as any other.
    let web = Owner::define(&cluster, "web", UUID, &[]);
    drover(&["vm", "move", "web", "--to", "hv2", "--wait"]);
    drover(&["vm", "move", "web", "--to", "hv1", "--wait"]);

    drover(&["vm", "start", "web", "--wait"]);
    drover(&["vm", "stop", "web", "--yes", "--wait"]);
    // While it is off, or the mark would be written over.
    web.mark("hv1");
    drover(&["vm", "start", "web", "--wait"]);
    drover(&["vm", "restart", "web", "--timeout", "1", "--wait"]);
    drover(&["vm", "stop", "web", "--yes", "--wait"]);
    web.keeps("hv1", "a start, a restart and a stop");
    drover(&["vm", "rename", "web", "shop"]);
    drover(&["vm", "start", "shop", "--wait"]);
    let qemu = cluster.qemu("hv1", "shop");
    cluster.node("hv1").exec(&["kill", "-9", &qemu]).unwrap();
    cluster.vm_until("hv1", "shop", "is started again", |vm| vm["crashes"] == 1 && vm["run_state"] == "running");
    drover(&["vm", "stop", "shop", "--yes", "--wait"]);
    web.keeps("hv1", "another name and a crash");
    assert_eq!(cluster.known_on(UUID), Ok(Vec::new()));

    // It cannot come along while the guest is off.
    let result = cluster.try_drover("hv1", &["vm", "move", "shop", "--to", "hv2"]);
    assert!(result.code == 1 && result.err.contains("emulated TPM"), "{result:?}");
    let explained = drover(&["vm", "explain", "shop"]);
    assert!(explained.contains("emulated TPM"), "{explained}");
    // While the guest runs it does, and comes back.
    drover(&["vm", "start", "shop", "--wait"]);
    let result = cluster.try_drover("hv1", &["vm", "move", "shop", "--to", "hv2", "--wait"]);
    assert_eq!((result.code, cluster.node_of("shop").as_str()), (0, "hv2"), "{result:?}\n{}", cluster.logs());
    assert!(web.has("hv2", &web.tpm()) && web.has("hv2", &web.nvram()), "{}", cluster.logs());
    // The order ends when the guest runs at the target; the source clears up after that.
    let left = || (!web.has("hv1", &web.tpm())).then_some(());
    cluster.until("the source keeps no copy", left);
    drover(&["vm", "stop", "shop", "--yes", "--wait"]);
    web.mark("hv2");

    // Undefined, and defined again.
    drover(&["vm", "undefine", "shop", "--yes"]);
    cluster.forgotten_until("hv1", "shop");
    web.keeps("hv2", "undefine");
    Owner::define(&cluster, "web", UUID, &[]);
    drover(&["vm", "move", "web", "--to", "hv2", "--wait"]);
    drover(&["vm", "start", "web", "--wait"]);
    drover(&["vm", "stop", "web", "--yes", "--wait"]);
    web.keeps("hv2", "a new definition");
    drover(&["vm", "remove", "web", "--yes"]);
    let gone = || (!web.has("hv2", &web.tpm()) && !web.has("hv2", &web.nvram())).then_some(());
    cluster.until("what it kept goes with it", gone);
}
