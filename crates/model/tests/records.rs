//! Fixtures of records: every kind, in each layout, and as a later version might write it. A file is
//! `records/<kind>/<schema>-<what>.json`; `minimal` lacks the fields with a default, `unreadable` cannot be decoded.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

use drover_model::{
    Arrival, BmcRecord, Claim, ClusterConfig, ClusterView, Departed, Dice, Fault, Fence, NameEntry, NodeName,
    NodeRecord, NodeSession, NodeState, NodeStatus, Only, Primary, RecordKind, RemovedNode, Stored, Token, Version,
    VmRecord, VmState, VmStatus, cluster::Layout, primary::Lease, shelf::KINDS, watchdog::Promise,
};
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};
use uuid::Uuid;

fn folder(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/records").join(kind)
}

/// The files of a kind: schema, what, content.
fn files(kind: &str) -> Vec<(u32, String, Vec<u8>)> {
    let mut out: Vec<(u32, String, Vec<u8>)> = fs::read_dir(folder(kind))
        .unwrap_or_else(|error| panic!("kind {kind} has no fixtures: {error}"))
        .map(|entry| {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let (schema, what) = stem.split_once('-').unwrap();
            (schema.parse().unwrap(), what.to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    out.sort();
    out
}

/// Whether `whole` contains everything in `part`.
fn says(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| whole.get(name).is_some_and(|has| says(has, value)))
        }
        _ => whole == part,
    }
}

/// Pieces with a meaning, for mutations.
const WORDS: &[&str] =
    &["{", "}", "null", "\"schema\":2", "\"schema\":1", "[]", "1e999", "-1", "18446744073709551615", "\"", "\u{fffd}"];

/// Number of mutations of each fixture.
fn mutations() -> u64 {
    std::env::var("DROVER_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

/// A mutated record is read, and the same after it was written back; or it is unreadable, and can be salvaged. Returns
/// how many were read.
fn mutate<T: RecordKind>(file: &str, data: &[u8]) -> u64 {
    let key = ["0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d", "hv1"].iter().find_map(|key| key.parse::<T::Key>().ok());
    let (mut dice, mut read) = (Dice::new(2), 0);
    for _ in 0..mutations() {
        let bytes = dice.mutate(data, WORDS);
        match Stored::<T>::decode(&bytes, Version(1)) {
            Ok(stored) => {
                let written = stored.replaced_by(&stored.value).unwrap_or_default();
                let again = Stored::<T>::decode(&written, Version(1)).map(|again| again.value);
                assert_eq!(again.as_ref(), Ok(&stored.value), "{file}: {}", String::from_utf8_lossy(&bytes));
                read += 1;
            }
            Err(unreadable) => {
                assert!(unreadable.to_string().starts_with("unreadable"), "{file}: {unreadable}");
                key.as_ref().and_then(|key| T::salvage(key, &unreadable.document));
            }
        }
    }
    read
}

/// Checks the files of a kind, and mutations of them. Returns the pattern of its paths.
fn check<T: RecordKind>(kind: &str) -> &'static str {
    let mut schemas = BTreeSet::new();
    for (schema, what, data) in files(kind) {
        let file = format!("{kind}/{schema}-{what}");
        let document: Value = serde_json::from_slice(&data).unwrap();
        assert!(document.get("schema").is_none_or(|said| *said == schema), "{file} says another schema");
        schemas.insert(schema);
        let read = mutate::<T>(&file, &data);
        let some = read > 0 || what.starts_with("unreadable");
        assert!(some, "only {read} mutations of {file} were read: they are too wild to say much");
        match Stored::<T>::decode(&data, Version(3)) {
            Ok(stored) => {
                assert!(!what.starts_with("unreadable"), "{file} is readable");
                let written = stored.replaced_by(&stored.value).unwrap();
                let again: Value = serde_json::from_slice(&written).unwrap();
                assert!(says(&again, &document), "{file} became {again}");
                assert!(what == "minimal" || again == document, "{file} became {again}");
                assert_eq!(Stored::<T>::decode(&written, Version(3)).unwrap().value, stored.value, "{file}");
                assert_eq!(stored.extra.is_some(), what.starts_with("unknown-fields"), "{file}");
            }
            Err(problem) => {
                assert!(what.starts_with("unreadable"), "{file} is {problem}");
                assert_eq!(problem.newer, Some((schema, T::SCHEMA)), "{file}");
                let wanted = format!("written by a newer version (layout {schema}; ");
                assert!(problem.to_string().contains(&wanted), "{file}: {problem}");
            }
        }
    }
    assert!(schemas.contains(&T::SCHEMA), "kind {kind} has no fixture of its present layout, {}", T::SCHEMA);
    T::AT
}

#[test]
fn every_kind_in_every_layout_is_read_and_written_back_also_when_it_is_mutated() {
    let checked = BTreeSet::from([
        check::<ClusterConfig>("config"),
        check::<Primary>("primary"),
        check::<Lease>("lease"),
        check::<NodeRecord>("node"),
        check::<NodeStatus>("node-status"),
        check::<NodeSession>("session"),
        check::<VmRecord>("vm"),
        check::<VmStatus>("vm-status"),
        check::<Claim>("claim"),
        check::<Arrival>("arrival"),
        check::<NameEntry>("name"),
        check::<Token>("token"),
        check::<Fault>("fault"),
        check::<Layout>("layout"),
        check::<Departed>("departed"),
        check::<RemovedNode>("removed"),
        check::<BmcRecord>("bmc"),
        check::<Fence>("fence"),
        check::<Promise>("watchdog"),
    ]);
    let kinds: BTreeSet<&str> = KINDS.iter().map(|(at, _)| *at).collect();
    assert_eq!(checked, kinds, "every kind needs fixtures and a row here");
}

fn document(file: &str) -> Vec<u8> {
    fs::read(folder(file).with_extension("json")).unwrap()
}

#[test]
fn unreadable_records_are_salvaged() {
    let uuid = Uuid::parse_str("0f6a1d2c-5b7e-4a3f-9c8d-1e2f3a4b5c6d").unwrap();
    let name = |name| NodeName::new(name).unwrap();
    let (hv1, hv2) = (name("hv1"), name("hv2"));
    let mut view = ClusterView::default();
    let mut put = |path, file| view.apply(&path, Some((&document(file), Version(1))));
    put(VmRecord::path(&uuid), "vm/2-unreadable-state");
    put(Claim::path(&uuid), "claim/2-unreadable-node");
    put(VmStatus::path(&uuid), "vm-status/2-unreadable-run");
    put(NodeRecord::path(&hv1), "node/2-unreadable-domain-state");
    put(NodeSession::path(&hv1), "session/2-unreadable-started");
    put(ClusterConfig::path(&Only), "config/1-full");
    put(ClusterConfig::path(&Only), "config/2-unreadable-stall");

    let vm = view.vm("web").unwrap();
    let record = &vm.record.value;
    assert_eq!(
        (&record.state, &record.node, &record.last_node),
        (&VmState::Unreadable, &Some(hv2.clone()), &Some(hv1.clone()))
    );
    assert!(vm.is_held_by(&hv2) && !vm.is_free());
    assert!(vm.status.as_ref().is_some_and(|status| status.value.unknown && status.value.run.is_none()));
    assert_eq!((view.usage(&hv2).promised_vms, view.usage(&hv2).promised_vcpus), (1, 2));
    let node = view.nodes.get(&hv1).unwrap();
    assert_eq!((node.record.value.domain_state, &*node.record.value.machine), (NodeState::Flushed, "8c1e"));
    assert_eq!(node.session.as_ref().map(|session| session.value.instance), Some(uuid));
    assert!(view.config.maintenance, "the last good one");
    assert_eq!(view.broken.len(), 6);
}
