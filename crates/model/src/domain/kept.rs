//! State that libvirt keeps of a domain in its own files on the domain's node, outside the definition.
//!
//! In libvirt 9.0.0 these are:
//!
//! | what | where, below `/var/lib/libvirt` | by | goes with a live migration |
//! |---|---|---|---|
//! | the state of an emulated TPM | `swtpm/<uuid>` | UUID | yes |
//! | the firmware's variables (NVRAM) | `qemu/nvram/<name>_VARS.fd`, if the definition names no file | name | yes |
//! | memory that was saved (`virsh managedsave`) | `qemu/save/<name>.save` | name | - |
//! | what is known of snapshots and checkpoints | `qemu/snapshot/<name>`, `qemu/checkpoint/<name>` | name | - |
//!
//! A name can change and be reused by another VM, so Drover names the file of the NVRAM itself, by the UUID
//! ([`nvram_file`], [`super::Effective::nvram`]).

use super::{child_text, children, edit};
use roxmltree::Node;
use std::{fmt, ops::Range};
use uuid::Uuid;

/// State of a VM that libvirt keeps on the VM's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeptState {
    /// The state of an emulated TPM.
    Tpm,
    /// The firmware's variables, in a file that the definition does not name.
    Nvram,
}

impl fmt::Display for KeptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeptState::Tpm => "the state of its emulated TPM",
            KeptState::Nvram => "its firmware's variables (NVRAM)",
        })
    }
}

/// The file of a VM's NVRAM, if its definition names none: in libvirt's own folder, but named by the VM's UUID.
pub fn nvram_file(uuid: &Uuid) -> String {
    format!("/var/lib/libvirt/qemu/nvram/{uuid}_VARS.fd")
}

/// The file of a domain's NVRAM that libvirt uses if the definition names none.
pub(super) fn default_nvram_file(name: &str) -> String {
    format!("/var/lib/libvirt/qemu/nvram/{name}_VARS.fd")
}

/// The edit that names the file of the NVRAM in a definition; `element`: that without a file, if there is one.
pub(super) fn name_nvram(
    xml: &str,
    root: Node<'_, '_>,
    element: Option<Node<'_, '_>>,
    file: &str,
) -> Option<(Range<usize>, String)> {
    let file = edit::escape(file);
    match (element, children(root, "os").next()) {
        (Some(element), _) if element.has_children() => Some((edit::inner(xml, element), file)),
        (Some(element), _) => Some(edit::append(xml, element, &file)),
        (None, Some(os)) => Some(edit::append(xml, os, &format!("<nvram>{file}</nvram>"))),
        (None, None) => None,
    }
}

/// The location of the firmware's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Nvram<'a, 'i> {
    /// In a file or elsewhere, as given in the definition. The file's path, if it is a file.
    Named(Option<String>),
    /// In libvirt's default location; the `<nvram>` element without a file, if there is one.
    Unnamed(Option<Node<'a, 'i>>),
}

/// The location of the firmware's variables; `None`: the firmware has none.
pub(super) fn nvram<'a, 'i>(root: Node<'a, 'i>) -> Option<Nvram<'a, 'i>> {
    let os = children(root, "os").next()?;
    let loader = children(os, "loader").next();
    let says = |name: &str| loader.and_then(|l| l.attribute(name));
    let chosen = os.attribute("firmware") == Some("efi");
    let given = says("type") == Some("pflash") && says("readonly") == Some("yes");
    if !(chosen || given) || says("stateless") == Some("yes") {
        return None;
    }
    let Some(element) = children(os, "nvram").next() else { return Some(Nvram::Unnamed(None)) };
    if let Some(source) = children(element, "source").next() {
        return Some(Nvram::Named(source.attribute("file").map(str::to_owned)));
    }
    Some(match child_text(os, "nvram").filter(|path| !path.is_empty()) {
        Some(path) => Nvram::Named(Some(path)),
        None => Nvram::Unnamed(Some(element)),
    })
}

/// Whether the domain has a TPM whose state libvirt keeps.
pub(super) fn has_tpm(root: Node<'_, '_>) -> bool {
    let devices = children(root, "devices").next();
    let mut tpms = devices.into_iter().flat_map(|d| children(d, "tpm")).flat_map(|tpm| children(tpm, "backend"));
    tpms.any(|backend| backend.attribute("type") == Some("emulator"))
}
