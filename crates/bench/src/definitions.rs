//! The VMs that fill a cluster: realistic definitions of 2 KiB, with two disks on Ceph and two network interfaces.

use drover_lab::{Domain, guest::Guest};
use std::path::Path;

/// The guest image, with its paths in the nodes.
pub(crate) fn guest() -> Guest {
    Guest::at(Path::new("/srv/shared/guest"))
}

/// The name of the `n`th VM.
pub(crate) fn name(n: usize) -> String {
    format!("name-{n:04}")
}

/// The bridges of the VMs' interfaces. A node without them refuses the VMs.
pub(crate) const BRIDGES: [&str; 2] = ["vmbr100", "vmbr101"];

/// The domain XML of the `n`th VM for a node without the bridges: one that uses the network of this machine, which is
/// left as it is.
pub(crate) fn xml_without_bridges(n: usize) -> String {
    xml(n).replace("<interface type='bridge'>", "<interface type='user'>")
}

/// The domain XML of the `n`th VM.
pub(crate) fn xml(n: usize) -> String {
    let name = name(n);
    let xml = Domain { memory: 1024, ..Domain::new(&name) }.xml(&guest());
    let description = format!("  <description>{name}, one of many; behind the load balancer</description>\n  <memory ");
    let devices = format!("{}  </devices>", devices(&name, n));
    xml.replacen("  <memory ", &description, 1).replacen("</devices>", devices.trim_start(), 1)
}

const CONTROLLERS: &str = "    <controller type='scsi' index='0' model='virtio-scsi'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
";

fn devices(name: &str, n: usize) -> String {
    let disk = |volume: &str, target: &str| {
        format!(
            "    <disk type='network' device='disk'>
      <driver name='qemu' discard='unmap'/>
      <auth username='libvirt'>
        <secret type='ceph' uuid='4f0c2e7a-96d3-4a57-8b0e-2f0c8c1d7a11'/>
      </auth>
      <source protocol='rbd' name='vms/{name}_{volume}'>
        <host name='10.0.1.1' port='6789'/>
        <host name='10.0.1.2' port='6789'/>
        <host name='10.0.1.3' port='6789'/>
      </source>
      <target dev='{target}' bus='scsi'/>
    </disk>
"
        )
    };
    let interface = |bridge: &str, network: u8| {
        let (high, low) = (n / 256 % 256, n % 256);
        format!(
            "    <interface type='bridge'>
      <mac address='52:54:00:{network:02x}:{high:02x}:{low:02x}'/>
      <source bridge='{bridge}'/>
      <model type='virtio'/>
    </interface>
"
        )
    };
    let [front, back] = BRIDGES;
    [CONTROLLERS, &disk("root", "sda"), &disk("data", "sdb"), &interface(front, 1), &interface(back, 2)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Definition, domain::devices::Devices};
    use uuid::Uuid;

    #[test]
    fn definitions_have_two_kibibytes_and_all_devices() {
        let xml = xml(500);
        assert!((1950..2150).contains(&xml.len()), "{}: {xml}", xml.len());
        let definition = Definition::parse(&xml, Uuid::from_u128(1)).unwrap();
        assert_eq!(definition.name.as_str(), "name-0500");
        let devices = Devices::read(&xml);
        assert_eq!((devices.disks.len(), devices.networks.len()), (2, 2));
        assert_eq!(devices.networks[0].mac, "52:54:00:01:01:f4");
        assert_eq!(devices.disks[1].name, "vms/name-0500_data");
        assert!(definition.description.starts_with("name-0500"));
        assert!(devices.networks.iter().map(|network| network.source.as_str()).eq(BRIDGES));
        let without = Devices::read(&xml_without_bridges(500)).networks;
        assert!(without.len() == 2 && without.iter().all(|network| network.kind == "user"));
    }
}
