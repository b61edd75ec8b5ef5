//! libvirt domain XML: read once into what Drover needs, edited in place, otherwise left as its author wrote it.
//!
//! The text is the truth: elements that Drover does not know survive untouched, because edits replace single ranges of
//! the text (`edit`) and nothing is ever written anew from a parsed tree. [`Definition`] is the checked text with the
//! few facts that decisions need; [`devices`] reads the rest for people.

pub mod devices;
mod edit;
mod effective;

pub use effective::{DomainType, Effective, Mark};

use crate::{
    name::{BadName, VmName},
    units::Bytes,
    vm::Demand,
};
use roxmltree::{Document, Node};
use uuid::Uuid;

/// The longest domain XML that is accepted, in bytes. A record stays under 64 KiB, with room for the other fields and
/// for JSON's escapes; real definitions are of 2 to 10 KiB.
pub const XML_MAX: usize = 48 * 1024;

/// The most virtual CPUs that one VM may have: QEMU 7.2's largest `pc-q35` machine has 288, later ones 4096.
pub const VCPUS_MAX: u32 = 4096;

/// The least memory that a VM may have: below it no firmware runs.
pub const MEMORY_MIN: Bytes = Bytes::mib(1);

/// The most memory that a VM may have: the limit of 52 physical address bits.
pub const MEMORY_MAX: Bytes = Bytes(1 << 52);

/// How deep elements may be nested. Real definitions reach 8; parsers of XML recurse.
const DEPTH_MAX: usize = 64;

/// Why a domain XML is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadXml {
    /// Too long.
    #[error("xml: {0} bytes are too many: at most {XML_MAX} are accepted")]
    TooLong(usize),
    /// Nested too deeply.
    #[error("xml: elements are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Not well-formed, or with a DTD (entities are not accepted).
    #[error("xml: not well-formed: {0}")]
    Malformed(String),
    /// Another document.
    #[error("xml: the root element is <{0}>; a libvirt <domain> is expected")]
    NotADomain(String),
    /// A required element is missing or occurs twice.
    #[error("xml: <domain> must have exactly one <{0}>, and has {1}")]
    Count(&'static str, usize),
    /// An element's or attribute's value is not accepted.
    #[error("xml: {what} is {value:?}: {accepted}")]
    Value {
        /// The element or attribute.
        what: &'static str,
        /// What it is.
        value: String,
        /// What is accepted.
        accepted: String,
    },
    /// The name is not accepted.
    #[error("xml: {0}")]
    Name(#[from] BadName),
}

/// A domain XML that was checked, with the facts that decisions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The text, with name and UUID in it.
    pub xml: String,
    /// `<name>`.
    pub name: VmName,
    /// `<uuid>`.
    pub uuid: Uuid,
    /// `<memory>` and `<vcpu>`.
    pub demand: Demand,
    /// `<description>`, or empty.
    pub description: String,
}

impl Definition {
    /// Checks a text that somebody gave us. A missing `<uuid>` is filled in with `fresh`; everything else that is
    /// missing or wrong is an error that says what and what is accepted.
    pub fn parse(xml: &str, fresh: Uuid) -> Result<Definition, BadXml> {
        let document = document(xml)?;
        let root = document.root_element();
        if let Some(kind) = root.attribute("type")
            && kind != "kvm"
            && kind != "qemu"
        {
            return Err(BadXml::Value {
                what: "the type of <domain>",
                value: kind.to_owned(),
                accepted: "accepted are kvm and qemu".to_owned(),
            });
        }
        let name = VmName::new(only(root, "name")?)?;
        let demand = Demand { memory: memory(root)?, vcpus: vcpus(root)? };
        let description = child_text(root, "description").unwrap_or_default().to_owned();
        let found = children(root, "uuid").count();
        let (uuid, xml) = match found {
            0 => {
                let element = format!("<uuid>{fresh}</uuid>");
                let name = children(root, "name").next().map_or(0, |n| n.range().end);
                (fresh, edit::apply(xml, vec![(name..name, element)]))
            }
            1 => {
                let text = only(root, "uuid")?;
                let uuid = Uuid::parse_str(text).map_err(|_| BadXml::Value {
                    what: "<uuid>",
                    value: text.chars().take(80).collect(),
                    accepted: "accepted is the form 01234567-89ab-cdef-0123-456789abcdef".to_owned(),
                })?;
                (uuid, xml.to_owned())
            }
            many => return Err(BadXml::Count("uuid", many)),
        };
        if uuid.is_nil() {
            return Err(BadXml::Value {
                what: "<uuid>",
                value: uuid.to_string(),
                accepted: "the nil UUID is not accepted".to_owned(),
            });
        }
        Ok(Definition { xml, name, uuid, demand, description })
    }

    /// The same definition under another name: one range of the text changes.
    pub fn renamed(&self, name: &VmName) -> Result<Definition, BadXml> {
        let document = document(&self.xml)?;
        let element = children(document.root_element(), "name").next().ok_or(BadXml::Count("name", 0))?;
        let xml = edit::apply(&self.xml, vec![(edit::inner(&self.xml, element), name.to_string())]);
        Definition::parse(&xml, self.uuid)
    }
}

/// What a stored definition asks of its node; zero where the text cannot be read (it was checked when it was stored).
pub fn demand(xml: &str) -> Demand {
    let Ok(document) = document(xml) else { return Demand::default() };
    let root = document.root_element();
    Demand { memory: memory(root).unwrap_or_default(), vcpus: vcpus(root).unwrap_or_default() }
}

/// Parses a text as a `<domain>` document within our limits.
fn document(xml: &str) -> Result<Document<'_>, BadXml> {
    if xml.len() > XML_MAX {
        return Err(BadXml::TooLong(xml.len()));
    }
    if too_deep(xml) {
        return Err(BadXml::TooDeep);
    }
    // DTDs are refused by default, and entities with them.
    let document = Document::parse(xml).map_err(|e| BadXml::Malformed(e.to_string()))?;
    let root = document.root_element().tag_name().name();
    if root != "domain" {
        return Err(BadXml::NotADomain(root.chars().take(80).collect()));
    }
    Ok(document)
}

/// Whether elements are nested deeper than the limit. Counts tags roughly, before any parser recurses into them; what
/// is in comments and CDATA is counted too, which no real definition minds.
fn too_deep(xml: &str) -> bool {
    let (mut depth, bytes) = (0usize, xml.as_bytes());
    for (at, _) in xml.match_indices('<') {
        match bytes.get(at + 1) {
            Some(b'/') => depth = depth.saturating_sub(1),
            Some(b'!' | b'?') | None => {}
            Some(_) => {
                let end = xml[at..].find('>').map_or(bytes.len(), |e| at + e);
                if bytes.get(end.wrapping_sub(1)) != Some(&b'/') {
                    depth += 1;
                }
                if depth > DEPTH_MAX {
                    return true;
                }
            }
        }
    }
    false
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |n| n.has_tag_name(name))
}

fn child_text<'a>(node: Node<'a, '_>, name: &'static str) -> Option<&'a str> {
    children(node, name).next().and_then(|n| n.text()).map(str::trim)
}

/// The text of the one child of that name.
fn only<'a>(root: Node<'a, '_>, name: &'static str) -> Result<&'a str, BadXml> {
    let mut found = children(root, name);
    let first = found.next().ok_or(BadXml::Count(name, 0))?;
    match found.count() {
        0 => Ok(first.text().unwrap_or("").trim()),
        more => Err(BadXml::Count(name, more + 1)),
    }
}

/// `<memory>` in bytes. Units as libvirt has them (formatdomain, "Memory Allocation"): KiB when none is given.
fn memory(root: Node<'_, '_>) -> Result<Bytes, BadXml> {
    let text = only(root, "memory")?;
    let unit = children(root, "memory").next().and_then(|n| n.attribute("unit")).unwrap_or("KiB");
    let factor: u64 = match unit {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        other => {
            return Err(BadXml::Value {
                what: "the unit of <memory>",
                value: other.chars().take(80).collect(),
                accepted: "accepted are b, KB, KiB, MB, MiB, GB, GiB, TB, TiB".to_owned(),
            });
        }
    };
    let bad = || BadXml::Value {
        what: "<memory>",
        value: text.chars().take(80).collect(),
        accepted: format!("accepted is a whole number, from {MEMORY_MIN} to {MEMORY_MAX}"),
    };
    let bytes = text.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Bytes).ok_or_else(bad)?;
    if bytes < MEMORY_MIN || bytes > MEMORY_MAX { Err(bad()) } else { Ok(bytes) }
}

fn vcpus(root: Node<'_, '_>) -> Result<u32, BadXml> {
    let text = only(root, "vcpu")?;
    match text.parse::<u32>() {
        Ok(n) if (1..=VCPUS_MAX).contains(&n) => Ok(n),
        _ => Err(BadXml::Value {
            what: "<vcpu>",
            value: text.chars().take(80).collect(),
            accepted: format!("accepted is a whole number from 1 to {VCPUS_MAX}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const SMALL: &str = "<?xml version='1.0'?>\n<!-- mine -->\n<domain type='kvm' xmlns:q='urn:q'>\n  <name>web</name>\n  <uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid>\n  <memory unit='MiB'>512</memory>\n  <vcpu placement='static'>2</vcpu>\n  <q:odd thing=\"1\"/>\n</domain>\n";

    fn refused(xml: &str) -> String {
        Definition::parse(xml, Uuid::from_u128(7)).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_decisions_need() {
        let d = Definition::parse(SMALL, Uuid::from_u128(7)).unwrap();
        assert_eq!((d.name.as_str(), d.demand.memory, d.demand.vcpus), ("web", Bytes::mib(512), 2));
        assert_eq!(d.uuid.to_string(), "0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d");
        assert_eq!(d.xml, SMALL, "a complete text is kept to the letter");
        assert_eq!(demand(SMALL), d.demand);
    }

    #[test]
    fn fills_in_a_missing_uuid_and_touches_nothing_else() {
        let without = SMALL.replace("\n  <uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid>", "");
        let d = Definition::parse(&without, Uuid::from_u128(7)).unwrap();
        assert_eq!(d.uuid, Uuid::from_u128(7));
        assert_eq!(d.xml.replace("<uuid>00000000-0000-0000-0000-000000000007</uuid>", ""), without);
    }

    #[test]
    fn renaming_changes_the_name_alone() {
        let d = Definition::parse(&SMALL.replace("mine", "web is mine"), Uuid::from_u128(7)).unwrap();
        let r = d.renamed(&VmName::new("db").unwrap()).unwrap();
        assert_eq!(r.name.as_str(), "db");
        assert_eq!(r.xml, d.xml.replace("<name>web</name>", "<name>db</name>"));
    }

    #[test]
    fn memory_units_are_libvirts() {
        for (unit, n, bytes) in [
            ("", "2048", 2048 << 10),
            (" unit='b'", "1048576", 1 << 20),
            (" unit='KB'", "2000", 2_000_000),
            (" unit='M'", "3", 3 << 20),
            (" unit='GB'", "1", 1_000_000_000),
            (" unit='GiB'", "1", 1 << 30),
        ] {
            let xml = SMALL.replace("<memory unit='MiB'>512", &format!("<memory{unit}>{n}"));
            assert_eq!(Definition::parse(&xml, Uuid::nil()).unwrap().demand.memory, Bytes(bytes), "{unit}");
        }
    }

    #[test]
    fn refuses_with_what_where_and_what_is_accepted() {
        let bomb = "<!DOCTYPE d [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><domain><name>&b;</name></domain>";
        let many = SMALL.replace("<vcpu placement='static'>2</vcpu>", "<vcpu>1</vcpu><vcpu>2</vcpu>");
        for (xml, says) in [
            (String::new(), "not well-formed"),
            ("<domain>".to_owned(), "not well-formed"),
            ("<network/>".to_owned(), "<network>; a libvirt <domain>"),
            (bomb.to_owned(), "not well-formed: XML with DTD"),
            (SMALL.replace("<name>web</name>", ""), "exactly one <name>, and has 0"),
            (SMALL.replace("web", "a/b"), "VM name \"a/b\" is not accepted"),
            (SMALL.replace("0f6a1d2c", "zzzz"), "<uuid> is \"zzzz-"),
            (SMALL.replace("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", &Uuid::nil().to_string()), "nil UUID"),
            (SMALL.replace("512", "-1"), "<memory> is \"-1\""),
            (SMALL.replace("512", "0"), "from 1 MiB"),
            (SMALL.replace("512", "99999999999999999999"), "<memory> is"),
            (SMALL.replace("unit='MiB'", "unit='parsec'"), "the unit of <memory> is \"parsec\""),
            (SMALL.replace(">2<", ">0<"), "<vcpu> is \"0\""),
            (many, "exactly one <vcpu>, and has 2"),
            (SMALL.replace("type='kvm'", "type='xen'"), "accepted are kvm and qemu"),
            ("<a>".repeat(5000), "nested more than"),
            (format!("<domain>{}</domain>", " ".repeat(XML_MAX)), "too many"),
        ] {
            let error = refused(&xml);
            assert!(error.contains(says), "{error}");
        }
    }
}
