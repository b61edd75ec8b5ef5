//! A domain that is in a hypervisor already, and is to become a VM.

use super::{BadXml, child_text, children, document, edit, effective::is_mark, kept};
use crate::vm::RunState;
use roxmltree::Document;
use uuid::Uuid;

/// A domain of a node's hypervisor, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name in the hypervisor.
    pub name: String,
    /// What it is started from the next time.
    pub xml: String,
    /// What runs now; `None`: it is off.
    pub live: Option<String>,
    /// Its run state.
    pub run: RunState,
    /// Whether it has a definition: otherwise nothing is left of it when it ends.
    pub persistent: bool,
    /// Whether it is being migrated to another machine.
    pub sending: bool,
    /// Whether the hypervisor starts it when the machine boots.
    pub autostart: bool,
    /// Whether its memory is saved in a file (`virsh managedsave`).
    pub saved: bool,
    /// How many snapshots the hypervisor has notes of.
    pub snapshots: u32,
    /// How many checkpoints it has notes of.
    pub checkpoints: u32,
}

impl Candidate {
    /// A persistent domain that is off, of which libvirt keeps nothing else.
    pub fn off(uuid: Uuid, name: impl Into<String>, xml: String) -> Candidate {
        Candidate {
            uuid,
            name: name.into(),
            xml,
            live: None,
            run: RunState::Off,
            persistent: true,
            sending: false,
            autostart: false,
            saved: false,
            snapshots: 0,
            checkpoints: 0,
        }
    }

    /// The same domain, running.
    #[must_use]
    pub fn running(self) -> Candidate {
        Candidate { live: Some(self.xml.clone()), run: RunState::Running, ..self }
    }

    /// The definition of the VM that it becomes: its own, without a mark of Drover's, and with the file of its
    /// firmware's variables.
    ///
    /// libvirt names that file by the domain's name, in 9.0.0 (`qemuFirmwareFillDomain`) only at the start if it
    /// chooses the firmware itself. Drover would name it by the UUID, and the guest would lose what is in it.
    ///
    /// # Errors
    /// The XML is not within the limits.
    pub fn definition(&self) -> Result<String, BadXml> {
        let document = document(&self.xml)?;
        let root = document.root_element();
        let marks = children(root, "metadata").flat_map(|metadata| metadata.children()).filter(is_mark);
        let mut edits: Vec<_> = marks.map(|mark| (mark.range(), String::new())).collect();
        if let Some(kept::Nvram::Unnamed(element)) = kept::nvram(root) {
            let file = self.nvram_now().unwrap_or_else(|| kept::default_nvram_file(&self.name));
            edits.extend(kept::name_nvram(&self.xml, root, element, &file));
        }
        Ok(edit::apply(&self.xml, edits))
    }

    /// The file of the running guest's firmware variables.
    fn nvram_now(&self) -> Option<String> {
        let document = Document::parse(self.live.as_deref()?).ok()?;
        let os = children(document.root_element(), "os").next()?;
        let element = children(os, "nvram").next()?;
        let source = children(element, "source").next().and_then(|source| source.attribute("file").map(str::to_owned));
        source.or_else(|| child_text(os, "nvram")).filter(|file| !file.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Definition, Mark, devices::Devices};

    const UUID: &str = "00000000-0000-0000-0000-000000000007";

    fn candidate(os: &str, live_os: Option<&str>) -> Candidate {
        let xml = |os: &str| {
            format!(
                "<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><metadata><x:y xmlns:x='urn:x'/>\
                 <d:vm xmlns:d='urn:drover:domain:1' epoch='9' generation='2'/></metadata>\
                 <memory unit='MiB'>64</memory><vcpu>1</vcpu>{os}</domain>"
            )
        };
        Candidate { live: live_os.map(xml), ..Candidate::off(UUID.parse().unwrap(), "web", xml(os)) }
    }

    #[test]
    fn the_mark_goes_and_the_rest_stays() {
        let candidate = candidate("<os><type>hvm</type></os>", None);
        let xml = candidate.definition().unwrap();
        assert_eq!((Mark::read(&xml), xml.contains("x:y")), (None, true), "{xml}");
        assert_eq!(Definition::parse(&xml, Uuid::nil()).unwrap().uuid, candidate.uuid);
    }

    #[test]
    fn the_firmwares_variables_keep_their_file() {
        let efi = "<os firmware='efi'><type>hvm</type></os>";
        let live = "<os firmware='efi'><type>hvm</type><nvram template='/t'>/elsewhere/web.fd</nvram></os>";
        let source = "<os firmware='efi'><type>hvm</type><nvram type='file'><source file='/s/web.fd'/></nvram></os>";
        let named = "<os firmware='efi'><type>hvm</type><nvram>/own.fd</nvram></os>";
        for (os, live, file) in [
            (efi, None, Some("/var/lib/libvirt/qemu/nvram/web_VARS.fd")),
            (efi, Some(live), Some("/elsewhere/web.fd")),
            (efi, Some(source), Some("/s/web.fd")),
            (efi, Some(efi), Some("/var/lib/libvirt/qemu/nvram/web_VARS.fd")),
            (named, Some(live), Some("/own.fd")),
            ("<os><type>hvm</type></os>", None, None),
        ] {
            let devices = Devices::read(&candidate(os, live).definition().unwrap());
            assert_eq!(devices.nvram.as_deref(), file, "{os} {live:?}");
            assert!(devices.kept.is_empty(), "nothing is named by Drover");
        }
    }
}
