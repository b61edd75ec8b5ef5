//! The files that a definition names, in whatever element: before a disk is deleted, each of them counts.
//!
//! libvirt 9.0.0 takes the name of a file in dozens of places (`<source>` of a disk, of its `<backingStore>` and its
//! `<mirror>`; `<nvram>`, `<loader>`, `<kernel>`; memory devices, `<filesystem>`, arguments for QEMU, ...), and later
//! versions in more. So every attribute and every text is searched for paths, except in the parts that are for people.

use super::document;
use roxmltree::Node;
use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

/// Parts of `<domain>` that libvirt does not read.
const FOR_PEOPLE: [&str; 3] = ["title", "description", "metadata"];

/// What a definition names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Named {
    /// A file, or anything else with this path.
    File(PathBuf),
    /// A folder that the guest sees: everything in it.
    Tree(PathBuf),
    /// A volume of a libvirt storage pool. Drover does not know where it is; in a pool of files its name is the file's.
    Volume(String),
}

/// All that a definition names; `None`: the text cannot be read.
pub fn named(xml: &str) -> Option<BTreeSet<Named>> {
    let document = document(xml).ok()?;
    let root = document.root_element();
    let read = root.children().filter(|n| !FOR_PEOPLE.contains(&n.tag_name().name()));
    Some(read.flat_map(|part| part.descendants()).flat_map(of_node).collect())
}

fn of_node(node: Node<'_, '_>) -> Vec<Named> {
    let mut out = Vec::new();
    let shared = node.ancestors().any(|n| n.has_tag_name("filesystem"));
    if node.is_text() {
        out.extend(paths_in(node.text().unwrap_or("")).into_iter().map(Named::File));
    }
    for attribute in node.attributes() {
        let tree = shared || attribute.name() == "dir";
        let paths = paths_in(attribute.value()).into_iter();
        out.extend(paths.map(|path| if tree { Named::Tree(path) } else { Named::File(path) }));
        if attribute.name() == "volume" {
            out.push(Named::Volume(attribute.value().to_owned()));
        }
    }
    out
}

/// The absolute paths in a value: the value itself, or parts of it, as in `json:{"file": "/d/a"}` or `file=/d/a,id=x`.
pub fn paths_in(value: &str) -> Vec<PathBuf> {
    let whole = value.trim();
    let parts = whole.split(|c: char| c.is_whitespace() || "=,:;\"'{}[]".contains(c));
    let found = parts.chain([whole]).filter(|part| part.starts_with('/'));
    let found: BTreeSet<PathBuf> = found.map(|path| plain(Path::new(path))).collect();
    found.into_iter().collect()
}

/// The path without `//`, `.` and `..`, as far as that can be told without looking at the node's links.
pub fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_wherever_they_are_named() {
        let disk = |inner: &str| format!("<devices><disk type='file'>{inner}</disk></devices>");
        for (part, wanted) in [
            (disk("<source file='/d/a'/>"), Named::File("/d/a".into())),
            (disk("<source file='//d/./x/../a'/>"), Named::File("/d/a".into())),
            (disk("<source file='/d/a b, c'/>"), Named::File("/d/a b, c".into())),
            (disk("<source file='/x'/><backingStore><source file='/d/a'/></backingStore>"), Named::File("/d/a".into())),
            (disk("<mirror file='/d/a'/>"), Named::File("/d/a".into())),
            (disk("<source dir='/d'/>"), Named::Tree("/d".into())),
            (disk("<source pool='p' volume='a'/>"), Named::Volume("a".to_owned())),
            ("<os><nvram>/d/a</nvram></os>".to_owned(), Named::File("/d/a".into())),
            ("<os><kernel> /d/a\n</kernel></os>".to_owned(), Named::File("/d/a".into())),
            (
                "<devices><memory model='nvdimm'><source><path>/d/a</path></source></memory></devices>".to_owned(),
                Named::File("/d/a".into()),
            ),
            (
                "<devices><filesystem><source dir='/d/x/..'/></filesystem></devices>".to_owned(),
                Named::Tree("/d".into()),
            ),
            (
                "<q:commandline xmlns:q='q'><q:arg value='file=/d/a,if=virtio'/></q:commandline>".to_owned(),
                Named::File("/d/a".into()),
            ),
            (disk("<source file='json:{\"filename\": \"/d/a\"}'/>"), Named::File("/d/a".into())),
        ] {
            let found = named(&format!("<domain>{part}</domain>")).unwrap();
            assert!(found.contains(&wanted), "{part}: {found:?}");
        }
    }

    #[test]
    fn what_is_for_people_names_nothing() {
        let xml = "<domain><description>on /d/a</description><metadata><x>/d/a</x></metadata><!-- /d/a --></domain>";
        assert_eq!(named(xml), Some(BTreeSet::new()));
        assert_eq!(named("<domain>"), None);
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (path, is) in [
            ("/a/b", "/a/b"),
            ("//a///b/", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/", "/"),
        ] {
            assert_eq!(plain(Path::new(path)), Path::new(is), "{path}");
        }
    }
}
