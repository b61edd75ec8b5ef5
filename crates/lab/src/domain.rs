//! The libvirt domain XML of a lab's guest, as an administrator would write it.

use crate::guest::Guest;

/// A guest to be.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID; none: Drover makes one up.
    pub uuid: Option<String>,
    /// In MiB; the guest needs 80.
    pub memory: u64,
    /// More for its kernel's command line; see [`crate::guest`].
    pub options: String,
}

impl Domain {
    /// A guest of 96 MiB.
    pub fn new(name: &str) -> Domain {
        Domain { name: name.to_owned(), uuid: None, memory: 96, options: String::new() }
    }

    /// With more on its kernel's command line.
    pub fn with(self, options: &str) -> Domain {
        Domain { options: options.to_owned(), ..self }
    }

    /// The XML. The small code cache keeps QEMU's emulator from taking a gigabyte for itself.
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
