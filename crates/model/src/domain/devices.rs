//! The rest of a definition, read for people: what `vm info` shows. Nothing is decided by it, so what is odd is shown
//! as it is.

use super::{child_text, children, effective};
use roxmltree::{Document, Node};
use serde::{Deserialize, Serialize};

/// What a definition has, for people. Field names are those of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Devices {
    /// `<os><type>`: `hvm`.
    #[serde(rename = "type")]
    pub os_type: String,
    /// `x86_64`.
    pub arch: String,
    /// `pc-q35-7.2`.
    pub machine: String,
    /// The QEMU binary, where the definition names one.
    pub emulator: String,
    /// The type of the first serial port or console: `pty`. Empty: it has none.
    pub console: String,
    /// `sockets/cores/threads`, or `dies` ones too, as users know it; empty: not set.
    pub vcpu_topology: String,
    /// Names of the elements of `<features>`.
    pub features: Vec<String>,
    /// How its processor is to look: `host-passthrough`, `host-model`, `custom`; empty: not said.
    #[serde(default)]
    pub cpu_mode: String,
    /// Files that QEMU opens when the guest starts: disks, a kernel.
    #[serde(skip)]
    pub files: Vec<String>,
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
    pub kind: String,
    /// Path, or pool and volume.
    pub name: String,
    /// Target device: `vda`.
    pub dev: String,
    /// `virtio`, `scsi`, ...
    pub bus: String,
    /// Whether the guest only reads it, as a CD.
    #[serde(default)]
    pub read_only: bool,
    /// How the host caches it: `none`, `writeback`; empty: the hypervisor's default.
    #[serde(default)]
    pub cache: String,
}

impl Disk {
    /// Whether nothing of it is in a host's cache while the guest runs, so that another host sees what was written.
    pub fn is_uncached(&self) -> bool {
        self.read_only || matches!(self.cache.as_str(), "none" | "directsync")
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// `bridge`, `user`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Hardware address; empty: the hypervisor chooses one.
    pub mac: String,
    /// Bridge or device that it is connected to.
    pub source: String,
    /// Model: `virtio`.
    pub model: String,
}

/// A controller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controller {
    /// `scsi`, `usb`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Model: `virtio-scsi`.
    pub model: String,
}

fn attribute(node: Option<Node<'_, '_>>, name: &str) -> String {
    node.and_then(|n| n.attribute(name)).unwrap_or("").to_owned()
}

fn first<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

impl Devices {
    /// Reads them; all empty when the text is no XML.
    pub fn read(xml: &str) -> Devices {
        let Ok(document) = Document::parse(xml) else { return Devices::default() };
        let root = document.root_element();
        let os_type = first(root, "os").and_then(|os| first(os, "type"));
        let mut out = Devices {
            os_type: os_type.and_then(|t| t.text()).unwrap_or("").trim().to_owned(),
            arch: attribute(os_type, "arch"),
            machine: attribute(os_type, "machine"),
            console: attribute(effective::console(root), "type"),
            vcpu_topology: first(root, "cpu").and_then(|c| first(c, "topology")).map(topology).unwrap_or_default(),
            features: first(root, "features")
                .map(|f| f.children().filter(Node::is_element).map(|n| n.tag_name().name().to_owned()).collect())
                .unwrap_or_default(),
            cpu_mode: attribute(first(root, "cpu"), "mode"),
            ..Devices::default()
        };
        if let Some(os) = first(root, "os") {
            let named = ["kernel", "initrd", "dtb"].iter().filter_map(|name| child_text(os, name));
            out.files.extend(named.map(str::to_owned));
        }
        if let Some(devices) = first(root, "devices") {
            out.emulator = child_text(devices, "emulator").unwrap_or("").to_owned();
            out.disks = children(devices, "disk").map(disk).collect();
            let files = out.disks.iter().filter(|d| d.kind == "file" && !d.name.is_empty());
            out.files.extend(files.map(|d| d.name.clone()));
            out.networks = children(devices, "interface").map(interface).collect();
            out.controllers = children(devices, "controller")
                .map(|c| Controller { kind: attribute(Some(c), "type"), model: attribute(Some(c), "model") })
                .collect();
        }
        out
    }
}

fn topology(node: Node<'_, '_>) -> String {
    let parts = ["sockets", "dies", "cores", "threads"].iter().filter_map(|p| node.attribute(*p));
    parts.collect::<Vec<_>>().join("/")
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
             <interface type='bridge'><mac address='52:54:00:0:0:1'/><source bridge='br1'/><model type='virtio'/></interface>
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
}
