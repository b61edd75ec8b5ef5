//! Memory and virtual CPUs that a definition demands: what QEMU gets, by the rules of libvirt 9.0.0.
//!
//! **Memory** (`virDomainDefPostParseMemory`, and `qemuDomainAlignMemorySizes` at the start):
//!
//! * With NUMA cells (`<cpu><numa><cell memory=...>`) it is the sum of the cells and of the memory devices
//!   (`<devices><memory><target><size>`), whatever `<memory>` says, which may then be missing.
//! * Else it is `<memory>`, which includes the memory devices.
//! * Each cell, or else the memory that is there at the start, is rounded up to 1 MiB, and each device to 2 MiB (other
//!   sizes on POWER only).
//! * `<currentMemory>` does not matter: a guest need not give memory back. `<maxMemory>` is only a limit.
//!
//! **Virtual CPUs** (`virDomainVcpuParse`) are the number in `<vcpu>`, also of those that are off at the start, or one
//! without `<vcpu>`. A topology does not change that: libvirt refuses one with another number of CPUs.

use super::{BadXml, children, document, sole, text};
use crate::{units::Bytes, vm::Demand};
use roxmltree::Node;

/// Maximum number of virtual CPUs of a VM: QEMU 7.2's largest `pc-q35` machine has 288, later ones 4096.
pub const VCPUS_MAX: u32 = 4096;

/// Minimum memory of a VM: no firmware runs with less.
pub const MEMORY_MIN: Bytes = Bytes::mib(1);

/// Maximum memory of a VM: the limit of 52 physical address bits.
pub const MEMORY_MAX: Bytes = Bytes(1 << 52);

/// Resources required by a stored definition; zero if the text cannot be read (it was validated when it was stored).
pub fn demand(xml: &str) -> Demand {
    let Ok(document) = document(xml) else { return Demand::default() };
    let root = document.root_element();
    Demand { memory: memory(root).unwrap_or_default(), vcpus: vcpus(root).unwrap_or_default() }
}

/// Memory that QEMU gets.
pub(super) fn memory(root: Node<'_, '_>) -> Result<Bytes, BadXml> {
    let stated = match sole(root, "memory")? {
        Some(node) => sized(["<memory>", "the unit of <memory>"], Some(&text::string(node)), node.attribute("unit"))?,
        None => None,
    };
    let numa = children(root, "cpu").filter_map(|cpu| children(cpu, "numa").next());
    let cells = numa.flat_map(|numa| children(numa, "cell")).map(|cell| {
        let (what, unit) = ("the memory of a NUMA <cell>", cell.attribute("unit"));
        needed(what, sized([what, "the unit of a NUMA <cell>"], cell.attribute("memory"), unit)?)
    });
    let cells = cells.collect::<Result<Vec<u64>, BadXml>>()?;
    let devices = children(root, "devices").flat_map(|devices| children(devices, "memory")).map(|device| {
        let size = children(device, "target").next().and_then(|target| children(target, "size").next());
        let (what, unit) = ("the <size> of a <memory> device", size.and_then(|size| size.attribute("unit")));
        let size = sized([what, "the unit of a <memory> device's <size>"], size.map(text::string).as_deref(), unit)?;
        needed(what, size)
    });
    let devices = devices.collect::<Result<Vec<u64>, BadXml>>()?;

    let bad = |value: String, accepted: String| BadXml::Value { what: "the memory of the VM", value, accepted };
    let range = || format!("accepted is from {MEMORY_MIN} to {MEMORY_MAX}");
    let sum = |sizes: &[u64]| sizes.iter().try_fold(0u64, |sum, size| sum.checked_add(*size));
    let too_much = || bad("too large".to_owned(), range());
    let (in_cells, in_devices) = (sum(&cells).ok_or_else(too_much)?, sum(&devices).ok_or_else(too_much)?);
    let at_start = match (in_cells, stated) {
        (0, None) => return Err(BadXml::NoMemory),
        (0, Some(stated)) => vec![stated.checked_sub(in_devices).ok_or_else(|| {
            bad(Bytes(stated).to_string(), format!("the memory devices in it have more: {}", Bytes(in_devices)))
        })?],
        _ => cells,
    };
    let total = sum(&at_start).and_then(|sum| sum.checked_add(in_devices)).ok_or_else(too_much)?;
    if sum(&at_start).is_none_or(|sum| sum == 0) || Bytes(total) < MEMORY_MIN || Bytes(total) > MEMORY_MAX {
        return Err(bad(format!("{total} bytes"), range()));
    }
    let rounded = |sizes: &[u64], to: u64| sizes.iter().map(|size| Bytes(size.next_multiple_of(to))).sum::<Bytes>();
    Ok(rounded(&at_start, 1 << 20).saturating_add(rounded(&devices, 2 << 20)))
}

/// A size, if there is any text.
fn sized(names: [&'static str; 2], text: Option<&str>, unit: Option<&str>) -> Result<Option<u64>, BadXml> {
    text.filter(|text| !text.is_empty()).map(|text| text::size(names, text, unit)).transpose()
}

fn needed(what: &'static str, size: Option<u64>) -> Result<u64, BadXml> {
    let missing = || BadXml::Value { what, value: String::new(), accepted: "a size is needed".to_owned() };
    size.ok_or_else(missing)
}

/// The number of virtual CPUs.
pub(super) fn vcpus(root: Node<'_, '_>) -> Result<u32, BadXml> {
    let Some(node) = sole(root, "vcpu")? else { return Ok(1) };
    let text = text::string(node);
    match text::number(&text).and_then(|n| u32::try_from(n).ok()) {
        Some(n) if (1..=VCPUS_MAX).contains(&n) => Ok(n),
        _ => Err(BadXml::Value {
            what: "<vcpu>",
            value: text.chars().take(80).collect(),
            accepted: format!("accepted is a whole number from 1 to {VCPUS_MAX}, without white space after it"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::Document;

    const CELLS: &str =
        "<cpu><numa><cell id='0' cpus='0' memory='512' unit='MiB'/><cell memory='262144'/></numa></cpu>";
    const DIMM: &str = "<devices><memory model='dimm'><target><size unit='MiB'>128</size></target></memory></devices>";
    const ODD: &str = "<devices><memory model='dimm'><target><size>1</size></target></memory></devices>";

    fn read<T>(xml: &str, what: impl Fn(Node<'_, '_>) -> Result<T, BadXml>) -> Result<T, String> {
        let xml = format!("<domain>{xml}</domain>");
        what(Document::parse(&xml).unwrap().root_element()).map_err(|error| error.to_string())
    }

    #[test]
    fn memory_is_what_qemu_gets() {
        let mib = |n| Ok(Bytes::mib(n));
        for (xml, is) in [
            ("<memory>2048</memory>".to_owned(), mib(2)),
            ("<memory unit='gib'>1</memory>".to_owned(), mib(1024)),
            ("<memory unit='GB'>1</memory>".to_owned(), mib(954)),
            ("<memory>\n 20<!-- not much -->48</memory>".to_owned(), mib(2)),
            ("<x:memory xmlns:x='urn:x'>1</x:memory><memory>2048</memory>".to_owned(), mib(2)),
            ("<memory>1025</memory>".to_owned(), mib(2)),
            ("<memory>2048</memory><currentMemory>1024</currentMemory><maxMemory>1</maxMemory>".to_owned(), mib(2)),
            (CELLS.to_owned(), mib(768)),
            (format!("<memory/>{CELLS}"), mib(768)),
            (format!("<memory unit='GiB'>8</memory>{CELLS}"), mib(768)),
            (format!("{CELLS}{DIMM}"), mib(896)),
            (format!("<memory unit='MiB'>512</memory>{DIMM}"), mib(512)),
            (format!("<memory unit='MiB'>512</memory>{ODD}"), mib(514)),
        ] {
            assert_eq!(read(&xml, memory), is, "{xml}");
        }
        for (xml, says) in [
            (String::new(), "needs its memory"),
            ("<memory/>".to_owned(), "needs its memory"),
            (format!("<memory/>{DIMM}"), "needs its memory"),
            ("<memory>0</memory>".to_owned(), "from 1 MiB"),
            ("<memory>512</memory>".to_owned(), "from 1 MiB"),
            ("<memory unit='EiB'>7</memory>".to_owned(), "to 4294967296 MiB"),
            ("<memory unit='EiB'>99</memory>".to_owned(), "<memory> is \"99\""),
            ("<memory>2048 </memory>".to_owned(), "without white space after it"),
            ("<memory unit='parsec'>1</memory>".to_owned(), "the unit of <memory> is \"parsec\""),
            (format!("<memory>x</memory>{CELLS}"), "<memory> is \"x\""),
            ("<cpu><numa><cell/></numa></cpu>".to_owned(), "the memory of a NUMA <cell> is \"\": a size is needed"),
            ("<memory>2048</memory><memory>2048</memory>".to_owned(), "one <memory>, and has 2"),
            (format!("<memory unit='MiB'>64</memory>{DIMM}"), "devices in it have more: 128 MiB"),
            (format!("<memory unit='MiB'>128</memory>{DIMM}"), "from 1 MiB"),
            ("<memory>2048</memory><devices><memory/></devices>".to_owned(), "<size> of a <memory> device is \"\""),
        ] {
            let error = read(&xml, memory).unwrap_err();
            assert!(error.contains(says), "{xml}: {error}");
        }
    }

    #[test]
    fn vcpus_are_those_of_the_element_or_one() {
        for (xml, is) in [
            ("", Some(1)),
            ("<cpu><topology sockets='2' cores='1' threads='1'/></cpu>", Some(1)),
            ("<vcpu current='1'>4</vcpu>", Some(4)),
            ("<vcpu>\n  +<!-- x -->4</vcpu>", Some(4)),
            ("<x:vcpu xmlns:x='urn:x'>3</x:vcpu>", Some(1)),
            ("<vcpu/>", None),
            ("<vcpu>0</vcpu>", None),
            ("<vcpu>-1</vcpu>", None),
            ("<vcpu>4\n</vcpu>", None),
            ("<vcpu>4097</vcpu>", None),
            ("<vcpu>1</vcpu><vcpu>2</vcpu>", None),
        ] {
            assert_eq!(read(xml, vcpus).ok(), is, "{xml}");
        }
    }
}
