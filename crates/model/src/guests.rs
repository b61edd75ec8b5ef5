//! The guests that a node's hypervisor can run: architectures, machine types, and the emulators that are there.
//!
//! libvirt (9.0.0) names one emulator for each architecture in its capabilities, and that one's machine types. A
//! definition may name another program, and then libvirt asks that one.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The guests that a node can run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Guests {
    /// What libvirt offers. Architectures with the same emulator and machine types are one entry.
    pub offers: Vec<Offer>,
    /// All emulators in the folders of those that libvirt offers, by their [usual names](is_usual).
    pub emulators: Vec<String>,
}

/// What one emulator is offered for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offer {
    /// Architectures: `x86_64`.
    pub archs: Vec<String>,
    /// The program.
    pub emulator: String,
    /// Machine types, with their short names: `pc-q35-7.2`, `q35`.
    pub machines: Vec<String>,
}

/// Whether a file is named as emulators are: `qemu-system-x86_64`, `qemu-kvm`, `kvm`.
pub fn is_usual(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("qemu-system-") || matches!(name, "qemu-kvm" | "kvm")
}

impl Guests {
    /// Whether the emulator is there. `None`: that is not known, because nobody has looked in its folder, or for its
    /// name.
    pub fn has_emulator(&self, emulator: &str) -> Option<bool> {
        let path = Path::new(emulator);
        let offered = |folder: Option<&Path>| self.offers.iter().any(|o| Path::new(&o.emulator).parent() == folder);
        match self.emulators.iter().chain(self.offers.iter().map(|offer| &offer.emulator)).any(|has| has == emulator) {
            true => Some(true),
            false => (is_usual(path) && offered(path.parent())).then_some(false),
        }
    }

    /// What is offered for an architecture.
    pub fn of_arch(&self, arch: &str) -> Option<&Offer> {
        self.offers.iter().find(|offer| offer.archs.iter().any(|a| a == arch))
    }
}
