//! The XML that a node passes to its hypervisor: the stored definition with a few edits for this node and this start.
//! It is never stored.

use super::{BadXml, Written, children, document, edit, kept, written};
use crate::vm::{Epoch, Generation};
use roxmltree::Node;
use serde::{Deserialize, Serialize};

/// The XML namespace of [`Mark`].
const NAMESPACE: &str = "urn:drover:domain:1";

/// Drover's mark in a domain's `<metadata>`: the epoch of its claim, and the definition that it was started from. A
/// restarted daemon adopts the domains with a mark; a domain without one is not Drover's. A migrating guest carries the
/// *next* epoch, which the target takes when the guest has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The epoch of the claim under which it was started.
    pub epoch: Epoch,
    /// The definition that it was started from.
    pub generation: Generation,
}

impl Mark {
    /// The mark of a domain that was not Drover's, when it is taken over: no grant has this epoch.
    pub const IMPORTED: Mark = Mark { epoch: Epoch(0), generation: Generation(0) };

    /// Reads the mark of a domain's XML.
    pub fn read(xml: &str) -> Option<Mark> {
        // libvirt's XML is longer than what is accepted from users, so Drover's limits do not apply.
        let document = roxmltree::Document::parse(xml).ok()?;
        let root = document.root_element();
        let mark = children(root, "metadata").flat_map(|m| m.children()).find(is_mark)?;
        let number = |name| mark.attribute(name)?.parse::<u64>().ok();
        Some(Mark { epoch: Epoch(number("epoch")?), generation: Generation(number("generation")?) })
    }

    /// Replaces the mark in the XML by this one; `None` if there is none. What else is noted with it stays.
    pub fn rewrite(&self, xml: &str) -> Option<String> {
        let document = roxmltree::Document::parse(xml).ok()?;
        let root = document.root_element();
        let old = children(root, "metadata").flat_map(|m| m.children()).find(is_mark)?;
        let value = |name| old.attribute_node(name).map(|attribute| attribute.range_value());
        let epoch = (value("epoch")?, self.epoch.to_string());
        Some(edit::apply(xml, vec![epoch, (value("generation")?, self.generation.0.to_string())]))
    }

    /// The element with those disks, its prefix and its namespace, as libvirt takes them to set the mark of a domain.
    pub fn metadata(&self, disks: &Written) -> (String, &'static str, &'static str) {
        (self.spelled("", "", disks), "drover", NAMESPACE)
    }

    /// The mark with the disks that the domain is started with.
    fn element(&self, disks: &Written) -> String {
        self.spelled("drover:", &format!(" xmlns:drover='{NAMESPACE}'"), disks)
    }

    fn spelled(&self, prefix: &str, namespace: &str, disks: &Written) -> String {
        let Mark { epoch, generation: Generation(generation) } = self;
        let disk = |(dev, source): (&String, &String)| {
            format!("<{prefix}disk dev='{}' source='{}'/>", edit::escape(dev), edit::escape(source))
        };
        let disks: String = disks.iter().map(disk).collect();
        format!("<{prefix}vm{namespace} epoch='{epoch}' generation='{generation}'>{disks}</{prefix}vm>")
    }
}

/// The disks that a domain with a mark was started with; none if a version of Drover started it that did not note them.
pub fn started_with(xml: &str) -> Written {
    let Ok(document) = roxmltree::Document::parse(xml) else { return Written::new() };
    let marks = children(document.root_element(), "metadata").flat_map(|m| m.children()).filter(is_mark);
    let disks = marks.flat_map(|mark| mark.children()).filter(|n| n.has_tag_name((NAMESPACE, "disk")));
    disks.filter_map(|n| Some((n.attribute("dev")?.to_owned(), n.attribute("source")?.to_owned()))).collect()
}

pub(super) fn is_mark(node: &Node<'_, '_>) -> bool {
    node.is_element() && node.tag_name().namespace() == Some(NAMESPACE) && node.tag_name().name() == "vm"
}

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainType {
    /// By the CPU, through `/dev/kvm`.
    Kvm,
    /// By QEMU's emulation (TCG): works on any machine, but slowly.
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

/// Edits for this node and this start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective<'a> {
    /// Replaces the type in the definition, whose author cannot know each node's CPUs.
    pub domain_type: DomainType,
    /// The mark.
    pub mark: Mark,
    /// File for the output of the first serial port, replacing any log in the definition.
    pub console_log: Option<&'a str>,
    /// The file of the firmware's variables, if the definition names none: libvirt would name it after the VM, whose
    /// name can change and be reused by another VM.
    pub nvram: Option<&'a str>,
}

impl Effective<'_> {
    /// Applies the edits to the definition. Under TCG, a `<cpu>` with the host's model is removed, because it needs
    /// KVM.
    pub fn render(&self, xml: &str) -> Result<String, BadXml> {
        let document = document(xml)?;
        let root = document.root_element();
        let mut edits = Vec::new();

        match root.attribute_node("type") {
            Some(attribute) => edits.push((attribute.range_value(), self.domain_type.word().to_owned())),
            None => {
                // Directly after `<domain`, whatever its prefix is.
                let start = root.range().start;
                let name = xml[start..].find(|c: char| c.is_whitespace() || c == '/' || c == '>').unwrap_or(0);
                edits.push((start + name..start + name, format!(" type='{}'", self.domain_type.word())));
            }
        }

        let stale = children(root, "metadata").flat_map(|m| m.children()).filter(is_mark);
        edits.extend(stale.map(|n| (n.range(), String::new())));
        let mark = self.mark.element(&written::of_domain(root));
        match children(root, "metadata").next() {
            Some(metadata) => edits.push(edit::append(xml, metadata, &mark)),
            None => edits.push(edit::append(xml, root, &format!("<metadata>{mark}</metadata>"))),
        }

        if let (Some(file), Some(port)) = (self.console_log, console(root)) {
            edits.extend(children(port, "log").map(|n| (n.range(), String::new())));
            let log = format!("<log file='{}' append='on'/>", edit::escape(file));
            edits.push(edit::append(xml, port, &log));
        }

        if let (Some(file), Some(kept::Nvram::Unnamed(element))) = (self.nvram, kept::nvram(root)) {
            edits.extend(kept::name_nvram(xml, root, element, file));
        }

        if self.domain_type == DomainType::Qemu {
            let of_host = |n: &Node<'_, '_>| matches!(n.attribute("mode"), Some("host-passthrough" | "host-model"));
            edits.extend(children(root, "cpu").filter(of_host).map(|n| (n.range(), String::new())));
        }
        Ok(edit::apply(xml, edits))
    }
}

/// The definition without the scripts of its interfaces, which libvirt 9.0.0 runs already when it checks a definition.
pub fn without_scripts(xml: &str) -> Result<String, BadXml> {
    // As in [`Mark::read`]: it may be longer than what users may give.
    let document = roxmltree::Document::parse(xml).map_err(|error| BadXml::Malformed(error.to_string()))?;
    let devices = children(document.root_element(), "devices");
    let scripts = devices.flat_map(|d| children(d, "interface")).flat_map(|i| children(i, "script"));
    Ok(edit::apply(xml, scripts.map(|script| (script.range(), String::new())).collect()))
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
        Effective { domain_type, mark: MARK, console_log: Some("/log/it's.log"), nvram: Some("/vars/1.fd") }
            .render(xml)
            .unwrap()
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
    fn the_mark_remembers_the_disks_of_the_start() {
        let xml = "<domain><devices><disk><source file='/d/it&apos;s'/><target dev='vda'/></disk></devices></domain>";
        let disks = Written::from([("vda".to_owned(), "/d/it's".to_owned())]);
        let out = render(xml, DomainType::Kvm);
        assert_eq!(started_with(&out), disks, "{out}");
        // A guest that moves takes them along, whatever it writes to by then.
        let next = Mark { epoch: Epoch(60), generation: Generation(2) };
        let moved = next.rewrite(&out.replace("<source file='/d/it&apos;s'/>", "<source file='/snap'/>")).unwrap();
        assert_eq!((Mark::read(&moved), started_with(&moved)), (Some(next), disks.clone()), "{moved}");
        // One that is marked anew, too. libvirt puts the namespace on the elements.
        let (element, _, namespace) = next.metadata(&disks);
        let marked = element.replacen("<vm", &format!("<vm xmlns='{namespace}'"), 1);
        let marked = format!("<domain><metadata>{marked}</metadata></domain>");
        assert_eq!((Mark::read(&marked), started_with(&marked)), (Some(next), disks), "{marked}");
        assert_eq!(started_with(xml), Written::new());
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
    fn the_file_of_the_firmwares_variables_belongs_to_one_vm() {
        let pflash = "<loader readonly='yes' type='pflash'>/OVMF_CODE.fd</loader>";
        for (os, becomes) in [
            ("<os firmware='efi'/>".to_owned(), "<os firmware='efi'><nvram>/vars/1.fd</nvram></os>".to_owned()),
            (format!("<os>{pflash}</os>"), format!("<os>{pflash}<nvram>/vars/1.fd</nvram></os>")),
            (
                format!("<os>{pflash}<nvram template='/VARS.fd'/></os>"),
                format!("<os>{pflash}<nvram template='/VARS.fd'>/vars/1.fd</nvram></os>"),
            ),
            (
                format!("<os>{pflash}<nvram template='/VARS.fd'> </nvram></os>"),
                format!("<os>{pflash}<nvram template='/VARS.fd'>/vars/1.fd</nvram></os>"),
            ),
        ] {
            let out = render(&format!("<domain type='kvm'><name>a</name>{os}</domain>"), DomainType::Kvm);
            assert!(out.contains(&becomes), "{os}: {out}");
        }
        // A given file is kept, and a firmware without variables gets none.
        for os in [
            format!("<os>{pflash}<nvram>/own.fd</nvram></os>"),
            format!("<os>{pflash}<nvram type='file'><source file='/own.fd'/></nvram></os>"),
            "<os firmware='efi'><loader stateless='yes'/></os>".to_owned(),
            "<os firmware='bios'/>".to_owned(),
            "<os><loader type='rom'>/bios.bin</loader></os>".to_owned(),
        ] {
            let out = render(&format!("<domain type='kvm'><name>a</name>{os}</domain>"), DomainType::Kvm);
            assert!(out.contains(&os), "{os}: {out}");
        }
    }

    #[test]
    fn no_script_of_an_interface_is_left() {
        let script = "<script path='/bin/evil'/>";
        let xml =
            |script| format!("<domain><script/><devices><interface><mac/>{script}</interface></devices></domain>");
        assert_eq!(without_scripts(&xml(script)), Ok(xml("")));
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
