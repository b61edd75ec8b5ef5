//! Which files belong to a VM alone.

use drover_model::{ClusterView, VmRecord, domain::devices::Devices};
use std::{collections::BTreeSet, path::PathBuf};

/// The disk files that may be deleted with a VM: those that its guest writes to and that no other VM names.
pub fn go_with(view: &ClusterView, vm: &VmRecord) -> Vec<PathBuf> {
    let others = view.vms.values().filter(|other| other.record.value.uuid != vm.uuid);
    let named: BTreeSet<&str> = others.flat_map(|other| other.devices.disks.iter().map(|d| d.name.as_str())).collect();
    let own = Devices::read(&vm.xml).disks.into_iter().filter(|d| d.kind == "file" && !d.read_only);
    own.filter(|d| !named.contains(d.name.as_str())).map(|d| PathBuf::from(d.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit;
    use drover_model::{Definition, RecordKind, RecordPath, Version};
    use uuid::Uuid;

    fn vm(n: u128, disks: &str) -> VmRecord {
        let xml = format!(
            "<domain><name>vm{n}</name><memory>65536</memory><vcpu>1</vcpu><devices>{disks}</devices></domain>"
        );
        admit::define(&Definition::parse(&xml, Uuid::from_u128(n)).unwrap(), None)
    }

    #[test]
    fn what_others_name_and_what_is_only_read_stays() {
        let own = vm(
            1,
            "<disk type='file'><source file='/d/own'/></disk><disk type='file'><source file='/d/shared'/></disk>\
             <disk type='file' device='cdrom'><source file='/d/cd'/></disk><disk type='file'><source file='/d/ro'/><readonly/></disk>\
             <disk type='network'><source protocol='rbd' name='p/own'/></disk>",
        );
        let mut view = ClusterView::default();
        for record in [&own, &vm(2, "<disk type='file'><source file='/d/shared'/></disk>")] {
            let path: RecordPath = VmRecord::path(&record.uuid);
            view.apply(&path, Some((&serde_json::to_vec(record).unwrap(), Version(0))));
        }
        assert_eq!(go_with(&view, &own), [PathBuf::from("/d/own")]);
    }
}
