//! The modules of this crate use each other in one direction only: each can be read when one has read what it uses.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Modules by their paths (`vm::moving`), with their text without comments and unit tests.
fn modules(folder: &Path, above: &str, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let name = if above.is_empty() { stem.clone() } else { format!("{above}::{stem}") };
        if stem == "tests" || stem == "testing" || stem == "lib" {
            continue;
        } else if path.is_dir() {
            modules(&path, &name, out);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            out.insert(name, lines.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths of a `use` tree: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let (mut depth, mut part, mut parts) = (1, String::new(), vec![]);
    for c in rest.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        part.push(c);
    }
    parts.push(part);
    let inner = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    inner.flat_map(expand).map(|path| format!("{}{path}", head.trim())).collect()
}

/// What a module's text names, as written: in `use`, and in place.
fn named(text: &str) -> Vec<String> {
    let uses = text.split(';').filter_map(|statement| statement.rsplit_once("use ").map(|(_, tree)| tree));
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let in_place = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    // What a brace follows is the head of a tree.
    let in_place = in_place.filter(|word| !word.ends_with(':'));
    uses.flat_map(expand).chain(in_place.map(str::to_owned)).collect()
}

/// The module that a path leads into, as seen from another.
fn resolve(from: &str, path: &str, all: &BTreeMap<String, String>) -> Option<String> {
    let parent = from.rsplit_once("::").map_or("", |(parent, _)| parent);
    let absolute = match path.split_once("::") {
        Some(("crate", rest)) => rest.to_owned(),
        Some(("super", rest)) => format!("{parent}::{rest}"),
        Some(("self", rest)) => format!("{from}::{rest}"),
        _ => format!("{from}::{path}"),
    };
    let mut prefix = absolute.trim_start_matches("::");
    loop {
        if all.contains_key(prefix) {
            return (prefix != from).then(|| prefix.to_owned());
        }
        prefix = prefix.rsplit_once("::")?.0;
    }
}

#[test]
fn no_module_uses_one_that_uses_it() {
    let mut all = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut all);
    let mut left: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in &all {
        left.insert(name, named(text).iter().filter_map(|path| resolve(name, path, &all)).collect());
    }
    assert!(left.len() > 15 && left[&"moves::turn".to_owned()].contains("moves::target"), "{left:#?}");
    // Who uses nobody that is left is at the bottom, and is taken away.
    loop {
        let bottom: Vec<&String> = left.iter().filter(|(_, uses)| uses.is_empty()).map(|(name, _)| *name).collect();
        if bottom.is_empty() {
            break;
        }
        left.retain(|name, _| !bottom.contains(name));
        left.values_mut().for_each(|uses| uses.retain(|used| !bottom.contains(&used)));
    }
    assert!(left.is_empty(), "these use each other in a circle, or something that does: {left:#?}");
}
