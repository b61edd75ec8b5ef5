//! libvirt's capabilities: the guests that it can run.

use drover_model::{
    Guests,
    guests::{Offer, is_usual},
};
use roxmltree::{Document, Node};
use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, path::Path};

/// The domain types and the guests. Nothing, if the text is not libvirt's.
pub(super) fn read(xml: &str) -> (Vec<String>, Option<Guests>) {
    let Ok(document) = Document::parse(xml) else { return (Vec::new(), None) };
    let types = document.descendants().filter(|n| n.has_tag_name("domain")).filter_map(|n| n.attribute("type"));
    let types: BTreeSet<String> = types.map(str::to_owned).collect();
    let mut offers: Vec<Offer> = Vec::new();
    for arch in document.descendants().filter(|n| n.has_tag_name("arch") && n.attribute("name").is_some()) {
        let Some(name) = arch.attribute("name") else { continue };
        // Those of a `<domain>` in it are of that type of execution only, and count too.
        let texts = |tag: &'static str| arch.descendants().filter(move |n| n.has_tag_name(tag)).filter_map(text);
        let Some(emulator) = texts("emulator").next() else { continue };
        let machines: BTreeSet<String> = texts("machine").collect();
        let machines: Vec<String> = machines.into_iter().collect();
        match offers.iter_mut().find(|offer| offer.emulator == emulator && offer.machines == machines) {
            Some(offer) => offer.archs.push(name.to_owned()),
            None => offers.push(Offer { archs: vec![name.to_owned()], emulator, machines }),
        }
    }
    let folders: BTreeSet<&Path> = offers.iter().filter_map(|offer| Path::new(&offer.emulator).parent()).collect();
    let emulators = folders.into_iter().flat_map(emulators_in).collect();
    (types.into_iter().collect(), Some(Guests { offers, emulators }))
}

fn text(node: Node<'_, '_>) -> Option<String> {
    node.text().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The emulators in a folder, sorted. (One that cannot be read has none that libvirt could start.)
fn emulators_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let usual = entries.map(|entry| entry.path()).filter(|path| is_usual(path));
    let program = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    usual.filter(|path| program(path)).filter_map(|path| path.to_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_guests_of_a_machine_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        for (name, mode) in [("qemu-system-x86_64", 0o755), ("kvm", 0o755), ("qemu-kvm", 0o644), ("qemu-img", 0o755)] {
            fs::write(at(name), "").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let guest = |arch: &str| {
            format!(
                "<guest><os_type>hvm</os_type><arch name='{arch}'><wordsize>64</wordsize>
                 <emulator>{}</emulator><machine maxCpus='288'>pc-q35-7.2</machine>
                 <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine><domain type='qemu'/><domain type='kvm'/>
                 </arch></guest>",
                at("qemu-system-x86_64")
            )
        };
        let xml = format!(
            "<capabilities><host><cpu><arch>x86_64</arch></cpu></host>{}{}</capabilities>",
            guest("i686"),
            guest("x86_64")
        );
        let (types, guests) = read(&xml);
        let guests = guests.unwrap();
        assert_eq!(types, ["kvm", "qemu"]);
        assert_eq!(guests.offers.len(), 1);
        assert_eq!(guests.offers[0].archs, ["i686", "x86_64"]);
        assert_eq!(guests.offers[0].machines, ["pc-q35-7.2", "q35"]);
        assert_eq!(guests.emulators, [at("kvm"), at("qemu-system-x86_64")]);
        assert_eq!(guests.has_emulator(&at("kvm")), Some(true));
        assert_eq!(guests.has_emulator(&at("qemu-kvm")), Some(false));
        assert_eq!(guests.has_emulator(&at("my-own")), None);
        assert_eq!(guests.has_emulator("/opt/qemu-system-x86_64"), None);
        assert_eq!(read("<"), (Vec::new(), None));
    }
}
