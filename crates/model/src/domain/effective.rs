//! The XML that a node really gives to its hypervisor: the stored definition with a few edits that belong to this node
//! and this start. It is never stored.

use super::{BadXml, children, document, edit};
use crate::vm::{Epoch, Generation};
use roxmltree::Node;
use serde::{Deserialize, Serialize};

/// The XML namespace of [`Mark`].
const NAMESPACE: &str = "urn:drover:domain:1";

/// What a domain of ours carries in its `<metadata>`: under which grant it is here, and from which definition it was
/// started. A daemon that starts anew adopts the domains that it finds by it, and one that has none is not ours. A
/// guest that migrates carries its *next* grant, which the target takes when the guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The epoch of the claim under which it was started.
    pub epoch: Epoch,
    /// The definition that it was started from.
    pub generation: Generation,
}

impl Mark {
    /// Finds the mark in a domain's XML.
    pub fn read(xml: &str) -> Option<Mark> {
        // What comes from libvirt is longer than what we accept from users, so our limits do not apply.
        let document = roxmltree::Document::parse(xml).ok()?;
        let root = document.root_element();
        let mark = children(root, "metadata").flat_map(|m| m.children()).find(is_mark)?;
        let number = |name| mark.attribute(name)?.parse::<u64>().ok();
        Some(Mark { epoch: Epoch(number("epoch")?), generation: Generation(number("generation")?) })
    }

    /// The same XML with this mark in place of the one that it carries; `None`: it carries none.
    pub fn rewrite(&self, xml: &str) -> Option<String> {
        let document = roxmltree::Document::parse(xml).ok()?;
        let root = document.root_element();
        let old = children(root, "metadata").flat_map(|m| m.children()).find(is_mark)?;
        Some(edit::apply(xml, vec![(old.range(), self.element())]))
    }

    fn element(&self) -> String {
        format!("<drover:vm xmlns:drover='{NAMESPACE}' epoch='{}' generation='{}'/>", self.epoch, self.generation.0)
    }
}

fn is_mark(node: &Node<'_, '_>) -> bool {
    node.is_element() && node.tag_name().namespace() == Some(NAMESPACE) && node.tag_name().name() == "vm"
}

/// Who executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainType {
    /// The processor, through `/dev/kvm`.
    Kvm,
    /// QEMU's translator (TCG): any machine can, slowly.
    Qemu,
}

impl DomainType {
    /// As the domain XML spells it.
    pub fn word(self) -> &'static str {
        match self {
            DomainType::Kvm => "kvm",
            DomainType::Qemu => "qemu",
        }
    }
}

/// What belongs to this node and this start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective<'a> {
    /// Written over the type that the definition names: the author can't know each node's processors.
    pub domain_type: DomainType,
    /// The grant.
    pub mark: Mark,
    /// Where the first serial port's output goes, in place of any log that the definition names.
    pub console_log: Option<&'a str>,
}

impl Effective<'_> {
    /// The definition with those edits. Under TCG, a `<cpu>` that asks for the host's own model is left out: only KVM
    /// can give it.
    pub fn render(&self, xml: &str) -> Result<String, BadXml> {
        let document = document(xml)?;
        let root = document.root_element();
        let mut edits = Vec::new();

        match root.attribute_node("type") {
            Some(attribute) => edits.push((attribute.range_value(), self.domain_type.word().to_owned())),
            None => {
                // Right behind `<domain`, whatever prefix it is spelled with.
                let start = root.range().start;
                let name = xml[start..].find(|c: char| c.is_whitespace() || c == '/' || c == '>').unwrap_or(0);
                edits.push((start + name..start + name, format!(" type='{}'", self.domain_type.word())));
            }
        }

        let stale = children(root, "metadata").flat_map(|m| m.children()).filter(is_mark);
        edits.extend(stale.map(|n| (n.range(), String::new())));
        match children(root, "metadata").next() {
            Some(metadata) => edits.push(edit::append(xml, metadata, &self.mark.element())),
            None => edits.push(edit::append(xml, root, &format!("<metadata>{}</metadata>", self.mark.element()))),
        }

        if let (Some(file), Some(port)) = (self.console_log, console(root)) {
            edits.extend(children(port, "log").map(|n| (n.range(), String::new())));
            let log = format!("<log file='{}' append='on'/>", edit::escape(file));
            edits.push(edit::append(xml, port, &log));
        }

        if self.domain_type == DomainType::Qemu {
            let of_host = |n: &Node<'_, '_>| matches!(n.attribute("mode"), Some("host-passthrough" | "host-model"));
            edits.extend(children(root, "cpu").filter(of_host).map(|n| (n.range(), String::new())));
        }
        Ok(edit::apply(xml, edits))
    }
}

/// The device whose output is the VM's console log: the first serial port, or else the first console.
pub(super) fn console<'a, 'i>(root: Node<'a, 'i>) -> Option<Node<'a, 'i>> {
    let devices = children(root, "devices").next()?;
    children(devices, "serial").next().or_else(|| children(devices, "console").next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { epoch: Epoch(5), generation: Generation(2) };

    fn render(xml: &str, domain_type: DomainType) -> String {
        Effective { domain_type, mark: MARK, console_log: Some("/log/it's.log") }.render(xml).unwrap()
    }

    #[test]
    fn marks_and_finds_the_mark_again() {
        for xml in [
            "<domain type='kvm'><name>a</name></domain>",
            "<domain><name>a</name><metadata/></domain>",
            "<domain><name>a</name><metadata><x:y xmlns:x='urn:x'/></metadata></domain>",
            "<domain><metadata><d:vm xmlns:d='urn:drover:domain:1' epoch='1' generation='1'/></metadata></domain>",
        ] {
            assert_eq!(Mark::read(xml).filter(|m| *m == MARK), None);
            let out = render(xml, DomainType::Kvm);
            assert_eq!(Mark::read(&out), Some(MARK), "{out}");
            assert_eq!(out.matches(NAMESPACE).count(), 1, "{out}");
            assert_eq!(xml.contains("x:y"), out.contains("x:y"), "{out}");
        }
    }

    #[test]
    fn sets_the_type_and_drops_a_host_cpu_only_where_it_cannot_work() {
        let xml = "<domain type='kvm'><name>a</name><cpu mode='host-model'/></domain>";
        let (kvm, tcg) = (render(xml, DomainType::Kvm), render(xml, DomainType::Qemu));
        assert!(kvm.starts_with("<domain type='kvm'>") && kvm.contains("host-model"), "{kvm}");
        assert!(tcg.starts_with("<domain type='qemu'>") && !tcg.contains("host-model"), "{tcg}");
        assert!(render("<domain><cpu mode='custom'/></domain>", DomainType::Qemu).contains("custom"));
        assert!(render("<domain><name>a</name></domain>", DomainType::Qemu).starts_with("<domain type='qemu'><name>"));
    }

    #[test]
    fn the_console_goes_to_our_file() {
        for (xml, logs) in [
            ("<domain><devices><serial type='pty'/></devices></domain>", 1),
            ("<domain><devices><serial type='pty'><log file='/theirs'/></serial></devices></domain>", 1),
            ("<domain><devices><serial type='pty'/><serial type='pty'/><console/></devices></domain>", 1),
            ("<domain><devices><console type='pty'></console></devices></domain>", 1),
            ("<domain><devices/></domain>", 0),
        ] {
            let out = render(xml, DomainType::Kvm);
            assert_eq!(out.matches("<log file='/log/it&apos;s.log' append='on'/>").count(), logs, "{out}");
            assert!(!out.contains("theirs"), "{out}");
            roxmltree::Document::parse(&out).unwrap();
        }
    }
}
