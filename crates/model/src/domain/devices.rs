//! Details of a definition for users: what `vm info` shows. Invalid values are shown as they are.

use super::{KeptState, Sole, bound::Taken, child_text, children, effective, kept, sole};
use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Details of a definition, for users. Field names are those of the HTTP API. A view has these of every VM of the
/// cluster, so short words (nearly all are) are kept without an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Devices {
    /// `<os><type>`: `hvm`.
    #[serde(rename = "type")]
    pub os_type: SmolStr,
    /// `x86_64`.
    pub arch: SmolStr,
    /// `pc-q35-7.2`.
    pub machine: SmolStr,
    /// The QEMU binary, if the definition names one.
    pub emulator: SmolStr,
    /// The type of the first serial port or console: `pty`. Empty: there is none.
    pub console: SmolStr,
    /// `sockets/cores/threads`, or with `dies` too, as users know it; empty: not set.
    pub vcpu_topology: SmolStr,
    /// Names of the elements of `<features>`.
    pub features: Vec<SmolStr>,
    /// CPU mode: `host-passthrough`, `host-model`, `custom`; empty: not set.
    #[serde(default)]
    pub cpu_mode: SmolStr,
    /// Files, folders and block devices that must have the same content wherever it is started: disks, a kernel.
    #[serde(skip)]
    pub files: Vec<String>,
    /// What its node has, and another node is not known to have: devices of the host, servers on it; for users.
    #[serde(skip)]
    pub bound: Vec<String>,
    /// Why it is not migrated while it runs, although it could be started elsewhere; for users.
    #[serde(skip)]
    pub not_live: Option<String>,
    /// State that libvirt keeps of it on its node, in files that the definition does not name.
    #[serde(skip)]
    pub kept: Vec<KeptState>,
    /// The file of the firmware's variables, if the definition names one. It need not exist on the target of a live
    /// migration, which transfers the variables.
    #[serde(skip)]
    pub nvram: Option<String>,
    /// What only one VM may have, sorted.
    #[serde(skip)]
    pub soles: Vec<Sole>,
    /// Disks, in the definition's order.
    pub disks: Vec<Disk>,
    /// Interfaces, in the definition's order.
    pub networks: Vec<Interface>,
    /// Controllers, in the definition's order.
    pub controllers: Vec<Controller>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Disk {
    /// `file`, `block`, `rbd`, ...
    #[serde(rename = "type")]
    pub kind: SmolStr,
    /// Path, or pool and volume.
    pub name: SmolStr,
    /// Target device: `vda`.
    pub dev: SmolStr,
    /// `virtio`, `scsi`, ...
    pub bus: SmolStr,
    /// Whether it is read-only, as a CD.
    #[serde(default)]
    pub read_only: bool,
    /// Whether its definition lets several guests use it at once.
    #[serde(default)]
    pub shareable: bool,
    /// Cache mode: `none`, `writeback`; empty: the hypervisor's default.
    #[serde(default)]
    pub cache: SmolStr,
}

impl Disk {
    /// Whether the host's cache has none of its data while the guest runs, so that another host sees all writes.
    pub fn is_uncached(&self) -> bool {
        self.read_only || matches!(self.cache.as_str(), "none" | "directsync")
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// `bridge`, `user`, ...
    #[serde(rename = "type")]
    pub kind: SmolStr,
    /// MAC address; empty: the hypervisor chooses one.
    pub mac: SmolStr,
    /// Bridge or device that it is connected to.
    pub source: SmolStr,
    /// Model: `virtio`.
    pub model: SmolStr,
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controller {
    /// `scsi`, `usb`, ...
    #[serde(rename = "type")]
    pub kind: SmolStr,
    /// Model: `virtio-scsi`.
    pub model: SmolStr,
}

fn attribute(node: Option<Node<'_, '_>>, name: &str) -> SmolStr {
    node.and_then(|n| n.attribute(name)).unwrap_or("").into()
}

fn first<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

impl Devices {
    /// Reads them; all empty if the text is not valid XML.
    pub fn read(xml: &str) -> Devices {
        let Ok(document) = Document::parse(xml) else { return Devices::default() };
        let root = document.root_element();
        let os_type = first(root, "os").and_then(|os| first(os, "type"));
        let mut out = Devices {
            os_type: first(root, "os").and_then(|os| child_text(os, "type")).unwrap_or_default().into(),
            arch: attribute(os_type, "arch"),
            machine: attribute(os_type, "machine"),
            console: attribute(effective::console(root), "type"),
            vcpu_topology: first(root, "cpu").and_then(|c| first(c, "topology")).map(topology).unwrap_or_default(),
            features: first(root, "features")
                .map(|f| f.children().filter(Node::is_element).map(|n| n.tag_name().name().into()).collect())
                .unwrap_or_default(),
            cpu_mode: attribute(first(root, "cpu"), "mode"),
            ..Devices::default()
        };
        Taken { files: out.files, bound: out.bound, not_live: out.not_live } = Taken::of(root);
        out.kept.extend(kept::has_tpm(root).then_some(KeptState::Tpm));
        match kept::nvram(root) {
            Some(kept::Nvram::Unnamed(_)) => out.kept.push(KeptState::Nvram),
            Some(kept::Nvram::Named(file)) => out.nvram = file,
            None => {}
        }
        if let Some(devices) = first(root, "devices") {
            out.emulator = child_text(devices, "emulator").unwrap_or_default().into();
            out.disks = children(devices, "disk").map(disk).collect();
            out.networks = children(devices, "interface").map(interface).collect();
            out.controllers = children(devices, "controller")
                .map(|c| Controller { kind: attribute(Some(c), "type"), model: attribute(Some(c), "model") })
                .collect();
            out.soles = sole::of(devices, &out);
        }
        // A view has these of every VM of the cluster, and most lists are shorter than what a list grows to at first.
        out.disks.shrink_to_fit();
        out.networks.shrink_to_fit();
        out.controllers.shrink_to_fit();
        out.features.shrink_to_fit();
        out.soles.shrink_to_fit();
        out
    }
}

fn topology(node: Node<'_, '_>) -> SmolStr {
    let parts = ["sockets", "dies", "cores", "threads"].iter().filter_map(|p| node.attribute(*p));
    parts.collect::<Vec<_>>().join("/").into()
}

fn disk(node: Node<'_, '_>) -> Disk {
    let (source, target) = (first(node, "source"), first(node, "target"));
    let kind = attribute(Some(node), "type");
    Disk {
        kind: if kind == "network" { attribute(source, "protocol") } else { kind },
        name: ["file", "dev", "name", "dir", "volume"]
            .iter()
            .map(|a| attribute(source, a))
            .find(|v| !v.is_empty())
            .unwrap_or_default(),
        dev: attribute(target, "dev"),
        bus: attribute(target, "bus"),
        cache: attribute(first(node, "driver"), "cache"),
        read_only: node.attribute("device") == Some("cdrom") || first(node, "readonly").is_some(),
        shareable: first(node, "shareable").is_some(),
    }
}

fn interface(node: Node<'_, '_>) -> Interface {
    let source = first(node, "source");
    Interface {
        kind: attribute(Some(node), "type"),
        mac: attribute(first(node, "mac"), "address"),
        source: ["bridge", "dev", "network"]
            .iter()
            .map(|a| attribute(source, a))
            .find(|v| !v.is_empty())
            .unwrap_or_default(),
        model: attribute(first(node, "model"), "type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_usual_definition() {
        let d = Devices::read(
            "<domain><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><features><acpi/><apic/></features>
             <cpu><topology sockets='1' cores='2' threads='1'/></cpu><devices><emulator>/usr/bin/qemu</emulator>
             <disk type='network'><source protocol='rbd' name='vms/a'/><target dev='sda' bus='scsi'/></disk>
             <disk type='file'><source file='/d'/><target dev='vda' bus='virtio'/></disk>
             <interface type='bridge'><mac address='52:54:00:0:0:1'/><source bridge='br1'/>
             <model type='virtio'/></interface>
             <controller type='scsi' model='virtio-scsi'/><serial type='pty'/></devices></domain>",
        );
        assert_eq!((d.os_type.as_str(), d.machine.as_str(), d.console.as_str()), ("hvm", "pc-q35-7.2", "pty"));
        assert_eq!(d.vcpu_topology, "1/2/1");
        assert_eq!(d.features, ["acpi", "apic"]);
        assert_eq!((d.disks[0].kind.as_str(), d.disks[0].name.as_str()), ("rbd", "vms/a"));
        assert_eq!((d.disks[1].name.as_str(), d.disks[1].dev.as_str()), ("/d", "vda"));
        assert_eq!(d.networks[0].source, "br1");
        assert_eq!(d.controllers[0].model, "virtio-scsi");
        assert_eq!(Devices::read("<"), Devices::default());
    }

    #[test]
    fn detects_state_that_libvirt_keeps() {
        use KeptState::{Nvram, Tpm};
        let tpm = |backend: &str| format!("<devices><tpm model='tpm-crb'>{backend}</tpm></devices>");
        for (xml, kept, nvram) in [
            (tpm("<backend type='emulator' version='2.0'/>"), vec![Tpm], None),
            (tpm("<backend type='passthrough'><device path='/dev/tpm0'/></backend>"), vec![], None),
            (format!("<os firmware='efi'/>{}", tpm("<backend type='emulator'/>")), vec![Tpm, Nvram], None),
            ("<os><loader type='pflash' readonly='yes'>/c</loader></os>".to_owned(), vec![Nvram], None),
            ("<os firmware='efi'><nvram>/own.fd</nvram></os>".to_owned(), vec![], Some("/own.fd")),
            ("<os><type>hvm</type></os>".to_owned(), vec![], None),
        ] {
            let found = Devices::read(&format!("<domain>{xml}</domain>"));
            assert_eq!((found.kept, found.nvram.as_deref()), (kept, nvram), "{xml}");
        }
    }
}
