//! The libvirt domain XML of a guest, as an administrator would write it.

use crate::guest::Guest;

/// Parameters of a guest's domain XML.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Name of the VM.
    pub name: String,
    /// UUID; if `None`, Drover generates one.
    pub uuid: Option<String>,
    /// Memory in MiB; the guest needs 80.
    pub memory: u64,
    /// Options for the guest's kernel command line; see [`crate::guest`].
    pub options: String,
}

impl Domain {
    /// A guest with 96 MiB and no options.
    pub fn new(name: &str) -> Domain {
        Domain { name: name.to_owned(), uuid: None, memory: 96, options: String::new() }
    }

    /// The same with options for the kernel command line.
    pub fn with(self, options: &str) -> Domain {
        Domain { options: options.to_owned(), ..self }
    }

    /// The domain XML. `tb-cache` is small because QEMU's emulator (TCG) otherwise takes up to a gigabyte for its cache
    /// of translated code.
    pub fn xml(&self, guest: &Guest) -> String {
        let uuid = self.uuid.as_ref().map(|uuid| format!("\n  <uuid>{uuid}</uuid>")).unwrap_or_default();
        format!(
            "<domain type='kvm'>
  <name>{name}</name>{uuid}
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet hn={name} {options}</cmdline>
  </os>
  <features>
    <acpi/>
    <tcg><tb-cache unit='MiB'>32</tb-cache></tcg>
  </features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <serial type='pty'/>
    <memballoon model='none'/>
  </devices>
</domain>
",
            name = self.name,
            memory = self.memory,
            kernel = guest.kernel.display(),
            initrd = guest.initrd.display(),
            options = self.options.trim(),
        )
    }
}
