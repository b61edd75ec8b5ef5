//! The disks that a guest writes to, by what the host knows them by: to see whether it still writes to those that it
//! was started with.
//!
//! Tools give a running guest other disks. An external snapshot puts a new image above the present one (`virsh
//! snapshot-create-as --disk-only`), `virsh blockcopy --pivot` goes on with a copy, `virsh blockcommit --pivot` goes
//! back to a lower image. libvirt 9.0.0 (`qemuSnapshotDiskUpdateSource`,
//! `qemuBlockJobProcessEventCompletedActiveCommit`) changes the running domain's XML and that of its next start, and
//! sends no event for a snapshot.

use super::{children, plain};
use roxmltree::{Document, Node};
use std::{collections::BTreeMap, path::Path};

/// What holds the data of each disk that is written to, by the disk's name in the guest (`vda`). A path, without `//`,
/// `.` and `..`; or `rbd:pool/image`, `volume:pool/name`.
pub type Written = BTreeMap<String, String>;

/// The disks that a definition, or a running domain's XML, lets the guest write to. Those that begin anew at each start
/// (`<transient/>`) are left out, and media that can be changed.
pub fn written(xml: &str) -> Written {
    Document::parse(xml).map(|document| of_domain(document.root_element())).unwrap_or_default()
}

pub(super) fn of_domain(root: Node<'_, '_>) -> Written {
    let disks = children(root, "devices").flat_map(|devices| children(devices, "disk"));
    disks.filter(keeps).filter_map(|disk| Some((target(disk)?, source(disk)))).collect()
}

/// Whether what the guest writes to a disk is meant to last.
fn keeps(disk: &Node<'_, '_>) -> bool {
    let has = |name| children(*disk, name).next().is_some();
    !matches!(disk.attribute("device"), Some("cdrom" | "floppy")) && !has("readonly") && !has("transient")
}

fn target(disk: Node<'_, '_>) -> Option<String> {
    let dev = children(disk, "target").next()?.attribute("dev")?;
    (!dev.is_empty()).then(|| dev.to_owned())
}

fn source(disk: Node<'_, '_>) -> String {
    let Some(source) = children(disk, "source").next() else { return String::new() };
    let of = |name| source.attribute(name).filter(|value| !value.is_empty());
    if let Some(path) = ["file", "dev", "dir"].into_iter().find_map(of) {
        return plain(Path::new(path)).to_string_lossy().into_owned();
    }
    match (of("protocol"), of("pool")) {
        (Some(protocol), _) => format!("{protocol}:{}", of("name").unwrap_or_default()),
        (None, Some(pool)) => format!("volume:{pool}/{}", of("volume").unwrap_or_default()),
        // An NVMe device, a vhost-user socket: no tool puts an image above it under the same type.
        (None, None) => format!("{}:", disk.attribute("type").unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_that_keep_what_is_written_to_them_count() {
        let xml = "<domain><devices>
            <disk type='file'><source file='//d/./a'/><target dev='vda'/></disk>
            <disk type='block'><source dev='/dev/sdx'/><target dev='vdb'/></disk>
            <disk type='network'><source protocol='rbd' name='p/i'/><target dev='vdc'/></disk>
            <disk type='volume'><source pool='p' volume='v'/><target dev='vdd'/></disk>
            <disk type='file'><source file='/d/t'/><target dev='vde'/><transient/></disk>
            <disk type='file'><source file='/d/r'/><target dev='vdf'/><readonly/></disk>
            <disk type='file' device='cdrom'><source file='/d/c'/><target dev='sda'/></disk>
            <disk type='file' device='floppy'><source file='/d/f'/><target dev='fda'/></disk>
            <disk type='file' device='lun'><target dev='sdb'/></disk>
            <disk type='nvme'><source type='pci' namespace='1'/><target dev='vdg'/></disk></devices></domain>";
        let found: Vec<(String, String)> = written(xml).into_iter().collect();
        let is = |dev: &str, source: &str| (dev.to_owned(), source.to_owned());
        assert_eq!(
            found,
            [
                is("sdb", ""),
                is("vda", "/d/a"),
                is("vdb", "/dev/sdx"),
                is("vdc", "rbd:p/i"),
                is("vdd", "volume:p/v"),
                is("vdg", "nvme:"),
            ]
        );
        assert_eq!(written("<"), Written::new());
    }
}
