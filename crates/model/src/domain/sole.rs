//! What only one VM may have: a MAC address, a VNC port, a disk that its guest writes to.

use super::{children, devices::Devices, named::plain, text};
use roxmltree::Node;
use std::{collections::BTreeSet, fmt, path::Path, sync::Arc};

/// A thing that only one VM may have. Two spellings of the same thing are equal. Names are shared: a view has each of
/// them twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sole {
    /// The MAC address of an interface.
    Mac([u8; 6]),
    /// A port of the VNC server that the definition names. Of one node: another node has its own.
    Vnc(u16),
    /// A file or a block device, by its path. Of one node, unless nodes share it.
    Path(Arc<str>),
    /// A disk on the network: its protocol and name.
    Remote(Arc<str>),
}

impl fmt::Display for Sole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sole::Mac(m) => {
                let [a, b, c, d, e, g] = m;
                write!(f, "MAC address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Sole::Vnc(port) => write!(f, "VNC port {port}"),
            Sole::Path(path) => write!(f, "disk {path}"),
            Sole::Remote(name) => write!(f, "disk {name}"),
        }
    }
}

/// What only the VM with these devices may have, sorted.
pub(super) fn of(devices: Node<'_, '_>, read: &Devices) -> Vec<Sole> {
    let macs = read.networks.iter().filter_map(|network| mac(&network.mac)).map(Sole::Mac);
    let own = read.disks.iter().filter(|disk| !disk.read_only && !disk.shareable && !disk.name.is_empty());
    let disks = own.filter_map(|disk| match disk.kind.as_str() {
        "file" | "block" => Some(Sole::Path(plain(Path::new(disk.name.as_str())).display().to_string().into())),
        // Names of other protocols mean something only together with a server.
        "rbd" | "iscsi" | "gluster" => Some(Sole::Remote(format!("{}:{}", disk.kind, disk.name).into())),
        _ => None,
    });
    // libvirt ignores the port of a server with autoport, and chooses one if it is missing, 0 or -1.
    let vnc = children(devices, "graphics").filter(|graphics| graphics.attribute("type") == Some("vnc"));
    let vnc = vnc.filter(|graphics| graphics.attribute("autoport") != Some("yes"));
    let ports = vnc.filter_map(|graphics| text::number(graphics.attribute("port")?));
    let ports = ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).map(Sole::Vnc);
    let all: BTreeSet<Sole> = macs.chain(disks).chain(ports).collect();
    all.into_iter().collect()
}

/// A MAC address: six numbers of one or two hexadecimal digits (libvirt 9.0.0, `virMacAddrParse`).
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0; 6];
    let mut parts = text.trim_start().split(':');
    for byte in &mut out {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(devices: &str) -> String {
        let devices = Devices::read(&format!("<domain><devices>{devices}</devices></domain>"));
        devices.soles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_only_one_vm_may_have() {
        for (xml, is) in [
            ("<interface type='user'><mac address='52:54:00:AB:0:1'/></interface>", "MAC address 52:54:00:ab:00:01"),
            ("<interface type='user'><mac address='52:54:00:AB:0'/></interface>", ""),
            ("<interface type='user'><mac address='52:54:00:AB:0:1:2'/></interface>", ""),
            ("<interface type='user'/>", ""),
            ("<graphics type='vnc' port='5901' autoport='no'/>", "VNC port 5901"),
            ("<graphics type='vnc' port='5901'/>", "VNC port 5901"),
            ("<graphics type='vnc' port='5901' autoport='yes'/>", ""),
            ("<graphics type='vnc' port='-1'/><graphics type='vnc'/><graphics type='spice' port='5901'/>", ""),
            ("<disk type='file'><source file='/d//a/./b/../c'/></disk>", "disk /d/a/c"),
            ("<disk type='block'><source dev='/dev/vg/a'/></disk>", "disk /dev/vg/a"),
            ("<disk type='network'><source protocol='rbd' name='p/a'/></disk>", "disk rbd:p/a"),
            ("<disk type='network'><source protocol='nbd' name='a'/></disk>", ""),
            ("<disk type='file'><source file='/d'/><shareable/></disk>", ""),
            ("<disk type='file'><source file='/d'/><readonly/></disk>", ""),
            ("<disk type='file' device='cdrom'><source file='/d'/></disk><disk type='file' device='cdrom'/>", ""),
        ] {
            assert_eq!(read(xml), is, "{xml}");
        }
    }
}
