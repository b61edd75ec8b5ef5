//! What a definition takes from its node, so that the VM cannot be started just anywhere: files, devices of the host,
//! and what other processes of the node offer.
//!
//! The elements in which libvirt 9.0.0 refers to things of the host:
//!
//! | what | becomes |
//! |---|---|
//! | `<disk>` of type file, block, dir, with `<backingStore>`, `<mirror>`; memory devices with a file; `<filesystem>`; kernel, initrd, device tree; ACPI tables, fw_cfg files, certificates of a smartcard; lockspaces of leases; paths in arguments for QEMU | a file: it must be in a shared folder |
//! | firmware and its templates, option ROMs | a file, unless below `/usr`, where each node has its packages |
//! | `<hostdev>` (PCI, USB, SCSI, mdev, capabilities), `<interface>` of type hostdev or vdpa, `<disk>` of type nvme, vhostuser, vhostvdpa, an evdev or passthrough `<input>`, a passthrough TPM, a smartcard of the host, an RNG's device, character devices of type dev, sound cards, render nodes, SGX memory | bound |
//! | `<shmem>`, sockets that somebody else serves (character devices, virtiofs, TPM, SCSI reservations), pipes, volumes of storage pools | bound |
//!
//! Bound is what the node has, and another node is not known to have. Not looked at: libvirt's networks, devices below
//! macvtap interfaces, vhost-user interfaces, huge pages and NUMA nodes of the host, libvirt's secrets.

use super::{child_text, children, named::paths_in};
use roxmltree::Node;
use std::path::Path;

/// What a definition takes from its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Taken {
    /// Files, folders and block devices that must have the same content wherever it is started.
    pub(super) files: Vec<String>,
    /// What its node has, and another is not known to have; for users.
    pub(super) bound: Vec<String>,
    /// Why libvirt 9.0.0 and QEMU 7.2 do not migrate it while it runs, although it could be started elsewhere; for
    /// users.
    pub(super) not_live: Option<String>,
}

/// Devices that every Linux has.
const EVERYWHERE: [&str; 4] = ["/dev/random", "/dev/urandom", "/dev/null", "/dev/zero"];

impl Taken {
    pub(super) fn of(root: Node<'_, '_>) -> Taken {
        let mut taken = Taken::default();
        for os in children(root, "os") {
            let named = ["kernel", "initrd", "dtb"].iter().filter_map(|name| child_text(os, name));
            taken.files.extend(named);
            taken.package(child_text(os, "loader"));
            for nvram in children(os, "nvram") {
                taken.package(attribute(nvram, "template"));
            }
            for table in children(os, "acpi").flat_map(|acpi| children(acpi, "table")) {
                taken.file(table.text());
            }
        }
        for entry in children(root, "sysinfo").flat_map(|sysinfo| children(sysinfo, "entry")) {
            taken.file(entry.attribute("file"));
        }
        for device in children(root, "devices").flat_map(|devices| devices.children()).filter(Node::is_element) {
            taken.device(device);
        }
        // `<qemu:commandline>`
        let arguments = root.descendants().filter(|n| n.tag_name().name() == "arg");
        for path in arguments.filter_map(|n| n.attribute("value")).flat_map(paths_in) {
            if !EVERYWHERE.iter().any(|everywhere| path == Path::new(everywhere)) {
                taken.package(path.to_str().map(str::to_owned));
            }
        }
        taken
    }

    fn file(&mut self, path: Option<&str>) {
        self.files.extend(path.map(str::trim).filter(|path| !path.is_empty()).map(str::to_owned));
    }

    /// A file that a package of the distribution installs on each node, or that an administrator has put somewhere.
    fn package(&mut self, path: Option<String>) {
        self.file(path.as_deref().filter(|path| !Path::new(path).starts_with("/usr")));
    }

    fn bind(&mut self, what: impl Into<String>) {
        self.bound.push(what.into());
    }

    fn device(&mut self, device: Node<'_, '_>) {
        let kind = device.attribute("type").unwrap_or_default();
        let source =
            |name: &str| children(device, "source").find_map(|source| source.attribute(name)).map(str::to_owned);
        for rom in children(device, "rom") {
            self.package(attribute(rom, "file"));
        }
        match device.tag_name().name() {
            "disk" => self.disk(device),
            "filesystem" => {
                let tag = children(device, "target").find_map(|target| target.attribute("dir")).unwrap_or_default();
                self.file(source("dir").as_deref());
                if let Some(socket) = source("socket") {
                    self.bind(format!("the file system server at {socket}"));
                }
                // QEMU 7.2 blocks it for 9p, libvirt 9.0.0 for virtiofs.
                self.not_live = Some(format!("a folder of the host is passed through to the guest ({tag})"));
            }
            "hostdev" => self.hostdev(device),
            "interface" if matches!(kind, "hostdev" | "vdpa") => {
                self.bind(format!("a network device of the host ({kind})"));
            }
            "input" if matches!(kind, "passthrough" | "evdev") => {
                let at = source("evdev").or_else(|| source("dev")).unwrap_or_default();
                self.bind(format!("the host's input device {at}"));
            }
            "shmem" => {
                self.bind(format!("the shared memory {}", device.attribute("name").unwrap_or_default()));
            }
            "memory" => {
                for source in children(device, "source") {
                    self.file(child_text(source, "path").as_deref());
                }
                if device.attribute("model") == Some("sgx-epc") {
                    self.bind("SGX memory of the host");
                }
            }
            "lease" => {
                for target in children(device, "target") {
                    self.file(target.attribute("path"));
                }
            }
            "tpm" | "rng" => {
                for backend in children(device, "backend") {
                    self.backend(device.tag_name().name(), backend);
                }
            }
            "smartcard" => match device.attribute("mode") {
                Some("host") => self.bind("a smartcard of the host"),
                Some("host-certificates") => self.file(child_text(device, "database").as_deref()),
                _ => self.character_device(device, kind),
            },
            "serial" | "parallel" | "console" | "channel" | "redirdev" => self.character_device(device, kind),
            "audio" if matches!(kind, "alsa" | "oss") => self.bind("a sound card of the host"),
            "graphics" => {
                for gl in children(device, "gl") {
                    if let Some(node) = gl.attribute("rendernode") {
                        self.bind(format!("the host's render node {node}"));
                    }
                }
            }
            _ => {}
        }
    }

    fn disk(&mut self, disk: Node<'_, '_>) {
        match disk.attribute("type") {
            Some(kind @ ("nvme" | "vhostuser" | "vhostvdpa")) => self.bind(format!("a disk of the host ({kind})")),
            Some("volume") => {
                let source = children(disk, "source").next();
                let of = |name| source.and_then(|source| source.attribute(name)).unwrap_or_default();
                self.bind(format!("volume {} of the host's storage pool {}", of("volume"), of("pool")));
            }
            _ => {}
        }
        // Its own, and those of its backing files and its mirror, also one with nothing in it.
        for source in disk.descendants().filter(|n| n.has_tag_name("source")) {
            if source.parent_element().is_some_and(|parent| parent.has_tag_name("reservations")) {
                if let Some(path) = source.attribute("path") {
                    self.bind(format!("the server of SCSI reservations at {path}"));
                }
                continue;
            }
            for name in ["file", "dev", "dir"] {
                self.file(source.attribute(name));
            }
        }
        for host in disk.descendants().filter(|n| n.has_tag_name("host")) {
            if let Some(socket) = host.attribute("socket") {
                self.bind(format!("the disk server at {socket}"));
            }
        }
    }

    fn hostdev(&mut self, device: Node<'_, '_>) {
        let kind = device.attribute("type").unwrap_or_default();
        let of_network = children(device, "source").any(|source| source.attribute("protocol") == Some("iscsi"));
        if !of_network {
            self.bind(format!("a device of the host ({kind})"));
        }
    }

    fn backend(&mut self, of: &str, backend: Node<'_, '_>) {
        let kind = backend.attribute("type").unwrap_or_default();
        let device = children(backend, "device").find_map(|device| device.attribute("path"));
        match (of, kind, backend.attribute("model")) {
            ("tpm", "passthrough", _) => self.bind(format!("the host's TPM {}", device.unwrap_or("/dev/tpm0"))),
            ("tpm", "external", _) => self.bind("the server of its TPM"),
            ("rng", _, Some("random")) => {
                let path = backend.text().map_or("/dev/urandom", str::trim);
                if !path.is_empty() && !EVERYWHERE.contains(&path) {
                    self.bind(format!("the host's random number generator {path}"));
                }
            }
            ("rng", _, Some("egd")) => self.character_device(backend, kind),
            _ => {}
        }
    }

    /// A device whose other end is on the host. What QEMU makes there itself (a pty, a file for output, a socket that
    /// it listens on) it makes anywhere.
    fn character_device(&mut self, device: Node<'_, '_>, kind: &str) {
        for source in children(device, "source") {
            let path = source.attribute("path").unwrap_or_default();
            let connects = source.attribute("mode") == Some("connect");
            match kind {
                "dev" if !EVERYWHERE.contains(&path) => self.bind(format!("the host's device {path}")),
                "pipe" => self.bind(format!("the host's pipe {path}")),
                "unix" if connects => self.bind(format!("whoever listens at {path} on the host")),
                _ => {}
            }
        }
    }
}

fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    node.attribute(name).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(xml: &str) -> Taken {
        let xml = format!("<domain xmlns:q='q'>{xml}</domain>");
        Taken::of(roxmltree::Document::parse(&xml).unwrap().root_element())
    }

    #[test]
    fn files_must_be_where_it_is_started() {
        let disk = |kind: &str, inner: &str| format!("<devices><disk type='{kind}'>{inner}</disk></devices>");
        for (xml, files) in [
            (disk("file", "<source file='/d/a'/>"), vec!["/d/a"]),
            (disk("block", "<source dev='/dev/vg/a'/>"), vec!["/dev/vg/a"]),
            (disk("dir", "<source dir='/d'/>"), vec!["/d"]),
            (
                disk("file", "<source file='/d/a'/><backingStore type='file'><source file='/d/b'/></backingStore>"),
                vec!["/d/a", "/d/b"],
            ),
            (disk("network", "<source protocol='rbd' name='p/a'/>"), vec![]),
            ("<os><kernel>/k</kernel><initrd>/i</initrd><dtb>/t</dtb></os>".to_owned(), vec!["/k", "/i", "/t"]),
            ("<os><loader>/usr/share/OVMF/OVMF_CODE.fd</loader></os>".to_owned(), vec![]),
            (
                "<os><loader>/opt/CODE.fd</loader><nvram template='/opt/V.fd'/></os>".to_owned(),
                vec!["/opt/CODE.fd", "/opt/V.fd"],
            ),
            ("<os><acpi><table type='slic'>/slic</table></acpi></os>".to_owned(), vec!["/slic"]),
            (
                "<sysinfo type='fwcfg'><entry name='x' file='/f'/><entry name='y'>v</entry></sysinfo>".to_owned(),
                vec!["/f"],
            ),
            (
                "<devices><memory model='nvdimm'><source><path>/pmem</path></source></memory></devices>".to_owned(),
                vec!["/pmem"],
            ),
            (
                "<devices><interface type='bridge'><rom file='/opt/rom'/></interface></devices>".to_owned(),
                vec!["/opt/rom"],
            ),
            ("<devices><lease><target path='/l'/></lease></devices>".to_owned(), vec!["/l"]),
            (
                "<q:commandline><q:arg value='-drive'/><q:arg value='file=/d/x,if=virtio'/></q:commandline>".to_owned(),
                vec!["/d/x"],
            ),
        ] {
            assert_eq!(taken(&xml).files, files, "{xml}");
            assert_eq!(taken(&xml).bound, Vec::<String>::new(), "{xml}");
        }
    }

    #[test]
    fn what_a_node_has_binds_a_vm_to_it() {
        for (device, bound) in [
            (
                "<hostdev mode='subsystem' type='pci'><source><address domain='0'/></source></hostdev>",
                "a device of the host (pci)",
            ),
            (
                "<hostdev mode='subsystem' type='usb'><source><vendor id='1'/></source></hostdev>",
                "a device of the host (usb)",
            ),
            ("<hostdev mode='subsystem' type='mdev'/>", "a device of the host (mdev)"),
            ("<hostdev mode='capabilities' type='storage'/>", "a device of the host (storage)"),
            ("<hostdev mode='subsystem' type='scsi'><source protocol='iscsi' name='iqn'/></hostdev>", ""),
            ("<interface type='hostdev'/>", "a network device of the host (hostdev)"),
            ("<interface type='bridge'><source bridge='br0'/></interface><interface type='user'/>", ""),
            ("<disk type='nvme'><source type='pci'/></disk>", "a disk of the host (nvme)"),
            ("<disk type='volume'><source pool='p' volume='v'/></disk>", "volume v of the host's storage pool p"),
            ("<input type='evdev'><source dev='/dev/input/e1'/></input>", "the host's input device /dev/input/e1"),
            ("<input type='tablet' bus='usb'/>", ""),
            ("<shmem name='s'/>", "the shared memory s"),
            ("<tpm><backend type='passthrough'><device path='/dev/tpm1'/></backend></tpm>", "the host's TPM /dev/tpm1"),
            ("<tpm><backend type='emulator'/></tpm>", ""),
            (
                "<rng><backend model='random'>/dev/hwrng</backend></rng>",
                "the host's random number generator /dev/hwrng",
            ),
            ("<rng><backend model='random'>/dev/urandom</backend></rng><rng><backend model='builtin'/></rng>", ""),
            ("<smartcard mode='host'/>", "a smartcard of the host"),
            ("<smartcard mode='passthrough' type='spicevmc'/>", ""),
            ("<serial type='dev'><source path='/dev/ttyS0'/></serial>", "the host's device /dev/ttyS0"),
            ("<serial type='unix'><source mode='connect' path='/s'/></serial>", "whoever listens at /s on the host"),
            ("<channel type='unix'><source mode='bind' path='/s'/></channel><serial type='pty'/>", ""),
            ("<parallel type='pipe'><source path='/p'/></parallel>", "the host's pipe /p"),
            ("<audio id='1' type='alsa'/>", "a sound card of the host"),
            ("<graphics type='spice'><gl rendernode='/dev/dri/r'/></graphics>", "the host's render node /dev/dri/r"),
            ("<memory model='sgx-epc'/>", "SGX memory of the host"),
        ] {
            assert_eq!(taken(&format!("<devices>{device}</devices>")).bound.join(", "), bound, "{device}");
        }
    }

    #[test]
    fn a_folder_of_the_host_keeps_a_guest_from_being_migrated() {
        let taken =
            taken("<devices><filesystem type='mount'><source dir='/d'/><target dir='tag'/></filesystem></devices>");
        assert_eq!((taken.files, taken.bound.len(), taken.not_live.is_some()), (vec!["/d".to_owned()], 0, true));
    }
}
