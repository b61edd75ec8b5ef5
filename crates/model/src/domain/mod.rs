//! libvirt domain XML: parsed once for the facts that Drover needs, edited in place, otherwise kept as its author wrote
//! it.
//!
//! The text is authoritative: elements unknown to Drover are preserved, because edits replace single ranges of the text
//! (`edit`) and nothing is ever generated from a parsed tree. [`Definition`] is the validated text with the few facts
//! that decisions need; [`devices`] reads further details for users. Values are read as libvirt reads them (`text`),
//! and what a guest demands is what QEMU will get (`demand`).

mod bound;
mod demand;
pub mod devices;
mod edit;
mod effective;
mod import;
mod kept;
mod named;
mod sole;
mod text;
mod written;

pub use demand::{MEMORY_MAX, MEMORY_MIN, VCPUS_MAX, demand};
pub use effective::{DomainType, Effective, Mark, started_with, without_scripts};
pub use import::Candidate;
pub use kept::{KeptState, nvram_file};
pub use named::{Named, named, paths_in, plain};
pub use sole::Sole;
pub use written::{Written, written};

use crate::{
    name::{BadName, VmName},
    vm::Demand,
};
use roxmltree::{Document, Node};
use text::child_text;
use uuid::Uuid;

/// Maximum size of a domain XML, in bytes. A record stays under 64 KiB, with space for the other fields and for JSON's
/// escapes; real definitions have 2 to 10 KiB.
pub const XML_MAX: usize = 48 * 1024;

/// Maximum depth of nested elements. Real definitions reach 8; XML parsers recurse.
const DEPTH_MAX: usize = 64;

/// Why a domain XML is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadXml {
    /// Too long.
    #[error("xml: {0} bytes are too many: at most {XML_MAX} are accepted, with name and UUID in it")]
    TooLong(usize),
    /// Nested too deeply.
    #[error("xml: elements are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Not well-formed, or with a DTD (entities are not accepted).
    #[error("xml: not well-formed: {0}")]
    Malformed(String),
    /// Not a domain.
    #[error("xml: the root element is <{0}>; a libvirt <domain> is expected")]
    NotADomain(String),
    /// A required element is missing or occurs twice.
    #[error("xml: <domain> must have one <{0}>, and has {1}")]
    Count(&'static str, usize),
    /// It does not say how much memory the VM has.
    #[error("xml: <domain> needs its memory, in <memory> or in NUMA cells")]
    NoMemory,
    /// An element's or attribute's value is not accepted.
    #[error("xml: {what} is {value:?}: {accepted}")]
    Value {
        /// The element or attribute.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        accepted: String,
    },
    /// The name is not accepted.
    #[error("xml: {0}")]
    Name(#[from] BadName),
}

/// A validated domain XML, with the facts that decisions need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The text, with name and UUID in it.
    pub xml: String,
    /// `<name>`.
    pub name: VmName,
    /// `<uuid>`.
    pub uuid: Uuid,
    /// Memory and virtual CPUs.
    pub demand: Demand,
    /// `<description>`, or empty.
    pub description: String,
}

impl Definition {
    /// Validates a text from a user. A missing `<uuid>` is filled in with `fresh`; everything else that is missing or
    /// wrong is an error that says what and what is accepted.
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
        // Not trimmed: libvirt would not, and would name the domain otherwise.
        let name = text::string(sole(root, "name")?.ok_or(BadXml::Count("name", 0))?);
        let name = VmName::new(&name)?;
        let demand = Demand { memory: demand::memory(root)?, vcpus: demand::vcpus(root)? };
        let description = child_text(root, "description").unwrap_or_default();
        let given = sole(root, "uuid")?;
        let (uuid, xml) = match given.map(text::string).filter(|text| !text.is_empty()) {
            None => {
                let after_name = children(root, "name").next().map_or(0, |n| n.range().end);
                let place = given.map_or(after_name..after_name, |empty| empty.range());
                let xml = edit::apply(xml, vec![(place, format!("<uuid>{fresh}</uuid>"))]);
                // What is stored, and read again at each start, must be within the limit too.
                within_limit(&xml)?;
                (fresh, xml)
            }
            Some(text) => {
                let uuid = text::uuid(&text).ok_or_else(|| BadXml::Value {
                    what: "<uuid>",
                    value: text.chars().take(80).collect(),
                    accepted: "accepted is the form 01234567-89ab-cdef-0123-456789abcdef".to_owned(),
                })?;
                (uuid, xml.to_owned())
            }
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

    /// Renames the definition: one range of the text changes.
    pub fn renamed(&self, name: &VmName) -> Result<Definition, BadXml> {
        let document = document(&self.xml)?;
        let element = children(document.root_element(), "name").next().ok_or(BadXml::Count("name", 0))?;
        let xml = edit::apply(&self.xml, vec![(edit::inner(&self.xml, element), name.to_string())]);
        Definition::parse(&xml, self.uuid)
    }
}

fn within_limit(xml: &str) -> Result<(), BadXml> {
    if xml.len() > XML_MAX { Err(BadXml::TooLong(xml.len())) } else { Ok(()) }
}

/// The name in a domain's XML.
pub fn name_of(xml: &str) -> Option<String> {
    let document = Document::parse(xml).ok()?;
    child_text(document.root_element(), "name")
}

/// Parses a text as a `<domain>` document within the limits.
fn document(xml: &str) -> Result<Document<'_>, BadXml> {
    within_limit(xml)?;
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

/// Whether elements are nested deeper than the limit. A rough count of tags, before any parser recurses into them; tags
/// in comments and CDATA are counted too, which does not matter for real definitions.
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
    // A name without a namespace would match elements of all namespaces.
    node.children().filter(move |n| n.has_tag_name(name) && n.tag_name().namespace().is_none())
}

/// The only child with that name, if there is one.
fn sole<'a, 'i>(root: Node<'a, 'i>, name: &'static str) -> Result<Option<Node<'a, 'i>>, BadXml> {
    let mut found = children(root, name);
    let first = found.next();
    match found.count() {
        0 => Ok(first),
        more => Err(BadXml::Count(name, more + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;

    pub(super) const SMALL: &str = "<?xml version='1.0'?>\n<!-- mine -->\n<domain type='kvm' xmlns:q='urn:q'>\n  \
    <name>web</name>\n  <uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid>\n  <memory unit='MiB'>512</memory>\n  <vcpu \
    placement='static'>2</vcpu>\n  <q:odd thing=\"1\"/>\n</domain>\n";

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
        const OWN: &str = "<uuid>00000000-0000-0000-0000-000000000007</uuid>";
        for place in ["", "<uuid/>", "<uuid><!-- none --></uuid>"] {
            let without = SMALL.replace("<uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid>", place);
            let d = Definition::parse(&without, Uuid::from_u128(7)).unwrap();
            assert_eq!(d.uuid, Uuid::from_u128(7));
            assert_eq!(d.xml.replace(OWN, place), without);
        }
    }

    #[test]
    fn the_limit_counts_what_is_stored() {
        let without = SMALL.replace("\n  <uuid>0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d</uuid>", "");
        let uuid = format!("<uuid>{}</uuid>", Uuid::from_u128(7));
        let of_size = |size: usize| format!("{without}{}", " ".repeat(size - without.len()));
        let fits = Definition::parse(&of_size(XML_MAX - uuid.len()), Uuid::from_u128(7)).unwrap();
        assert_eq!(fits.xml.len(), XML_MAX);
        // What is stored is read again: to start it, and to change it.
        assert_eq!(Definition::parse(&fits.xml, Uuid::from_u128(8)).unwrap(), fits);
        for size in [XML_MAX - uuid.len() + 1, XML_MAX] {
            let error = refused(&of_size(size));
            assert!(error.contains(&format!("{} bytes are too many", size + uuid.len())), "{error}");
        }
        assert!(matches!(fits.renamed(&VmName::new("longer").unwrap()), Err(BadXml::TooLong(_))));
    }

    #[test]
    fn renaming_changes_the_name_only() {
        let d = Definition::parse(&SMALL.replace("mine", "web is mine"), Uuid::from_u128(7)).unwrap();
        let r = d.renamed(&VmName::new("db").unwrap()).unwrap();
        assert_eq!(r.name.as_str(), "db");
        assert_eq!(r.xml, d.xml.replace("<name>web</name>", "<name>db</name>"));
    }

    #[test]
    fn errors_say_what_where_and_what_is_accepted() {
        let bomb = "<!DOCTYPE d [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;\">]><domain><name>&b;</name></domain>";
        let many = SMALL.replace("<vcpu placement='static'>2</vcpu>", "<vcpu>1</vcpu><vcpu>2</vcpu>");
        for (xml, says) in [
            (String::new(), "not well-formed"),
            ("<domain>".to_owned(), "not well-formed"),
            ("<network/>".to_owned(), "<network>; a libvirt <domain>"),
            (bomb.to_owned(), "not well-formed: XML with DTD"),
            (SMALL.replace("<name>web</name>", ""), "one <name>, and has 0"),
            (SMALL.replace("<name>web</name>", "<x:name xmlns:x='urn:x'>web</x:name>"), "one <name>, and has 0"),
            (SMALL.replace("<domain ", "<domain xmlns='urn:x' "), "one <name>, and has 0"),
            (SMALL.replace(">web<", "> web<"), "VM name \" web\" is not accepted"),
            (SMALL.replace("web", "a/b"), "VM name \"a/b\" is not accepted"),
            (SMALL.replace("0f6a1d2c", "zzzz"), "<uuid> is \"zzzz-"),
            (SMALL.replace("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", &Uuid::nil().to_string()), "nil UUID"),
            (SMALL.replace("512", "-1"), "<memory> is \"-1\""),
            (SMALL.replace("512", "0"), "from 1 MiB"),
            (SMALL.replace(">2<", ">0<"), "<vcpu> is \"0\""),
            (many, "one <vcpu>, and has 2"),
            (SMALL.replace("type='kvm'", "type='xen'"), "accepted are kvm and qemu"),
            ("<a>".repeat(5000), "nested more than"),
            (format!("<domain>{}</domain>", " ".repeat(XML_MAX)), "too many"),
        ] {
            let error = refused(&xml);
            assert!(error.contains(says), "{error}");
        }
    }
}
