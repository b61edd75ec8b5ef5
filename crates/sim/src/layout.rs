//! Records as a future version of Drover might write them.
//!
//! The newer version is today's, but for the layout: its records have a layout number that is one higher, a member
//! [`LATER`] in the record and in the objects in it, and sometimes a value that only it knows in place of another.
//! Such a record is *foreign* to today's version, which cannot decode it. What the word stands for is in the member
//! [`MEANS`], so that the newer version reads all of it ([`understood`]).

use drover_model::{
    Arrival, BmcRecord, Claim, ClusterConfig, Departed, Dice, Fault, Fence, Lease, NodeRecord, NodeSession, NodeStatus,
    Primary, Promise, RecordKind, RecordPath, RemovedNode, Stored, Token, Version, VmRecord, VmStatus,
};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A member that only the newer version knows: a number that changes with each of its writes.
pub(crate) const LATER: &str = "later";
/// The name of its records below those of VMs and nodes, and of the records below these.
pub(crate) const CHILD: &str = "later";
/// The position of a foreign value, and the current value that it replaces.
const MEANS: &str = "means";

/// What a daemon of today's version may do with a record of the newer version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// It keeps unknown members, and does not touch a record that it cannot read.
    Keeps,
    /// The same, but the node that reports with it may replace one that it cannot read.
    Reports,
    /// Its node writes it from scratch each time.
    FromNothing,
}

/// A kind of record in the newer version.
pub(crate) struct Kind {
    pub(crate) at: &'static str,
    schema: u32,
    pub(crate) care: Care,
    /// Nested objects that get [`LATER`] too.
    inside: &'static [&'static str],
    /// Foreign values: position and value.
    words: &'static [(&'static str, &'static str)],
    /// How many of 1000 writes by a newer daemon have one.
    pub(crate) foreign_per_mille: u64,
    is_at: fn(&RecordPath) -> bool,
    reads: fn(&[u8]) -> bool,
    rewritten: fn(&[u8]) -> Option<Vec<u8>>,
    salvaged: fn(&RecordPath, &[u8]) -> Option<Vec<u8>>,
}

/// Instead of a value: adds a member to the current one.
const MORE: &str = "";

const fn kind<T: RecordKind>(
    foreign_per_mille: u64,
    care: Care,
    inside: &'static [&'static str],
    words: &'static [(&'static str, &'static str)],
) -> Kind {
    fn is_at<T: RecordKind>(path: &RecordPath) -> bool {
        T::key(path).is_some()
    }
    fn reads<T: RecordKind>(data: &[u8]) -> bool {
        Stored::<T>::decode(data, Version::NEW).is_ok()
    }
    fn rewritten<T: RecordKind>(data: &[u8]) -> Option<Vec<u8>> {
        serde_json::to_vec(&serde_json::from_slice::<T>(data).ok()?).ok()
    }
    fn salvaged<T: RecordKind>(path: &RecordPath, data: &[u8]) -> Option<Vec<u8>> {
        let document = serde_json::from_slice(data).ok()?;
        serde_json::to_vec(&T::salvage(&T::key(path)?, &document)?).ok()
    }
    Kind {
        at: T::AT,
        schema: T::SCHEMA,
        care,
        inside,
        words,
        foreign_per_mille,
        is_at: is_at::<T>,
        reads: reads::<T>,
        rewritten: rewritten::<T>,
        salvaged: salvaged::<T>,
    }
}

/// All kinds with a layout number.
static KINDS: [Kind; 17] = [
    kind::<VmRecord>(
        120,
        Care::Keeps,
        &["meta"],
        &[
            ("/state", r#"{"is":"hibernate","until":7}"#),
            ("/state", MORE),
            ("/meta/method", r#""storage""#),
            ("/generation", r#"{"a":1}"#),
        ],
    ),
    kind::<Claim>(60, Care::Keeps, &[], &[("/node", r#"{"first":1}"#), ("/epoch", r#""1.5""#)]),
    kind::<VmStatus>(40, Care::Reports, &["progress", "move_failure"], &[("/run", r#""hibernated""#)]),
    kind::<Arrival>(100, Care::Reports, &[], &[("/refused", r#"{"why":"noisy"}"#), ("/of", r#""any""#)]),
    kind::<NodeRecord>(150, Care::Keeps, &[], &[("/domain_state", r#""evict""#), ("/role", r#""witness""#)]),
    kind::<NodeStatus>(40, Care::FromNothing, &["drain"], &[("/daemon", r#""resting""#), ("/domain_type", r#""xen""#)]),
    kind::<BmcRecord>(100, Care::FromNothing, &[], &[("/sealed", r#"{"with":"another"}"#)]),
    kind::<NodeSession>(150, Care::FromNothing, &[], &[("/started", r#"{"boot":3}"#)]),
    kind::<ClusterConfig>(
        250,
        Care::Keeps,
        &["limits"],
        &[("/maintenance", r#""weekly""#), ("/stall", r#""pause""#), ("/limits/cluster", r#"{"per_rack":2}"#)],
    ),
    kind::<Primary>(
        30,
        Care::Keeps,
        &["handoff", "failed"],
        &[("/handoff/phase", r#""warm""#), ("/epoch", r#""2.1""#)],
    ),
    kind::<Lease>(5, Care::FromNothing, &[], &[("/term_ms", r#"{"s":4}"#), ("/epoch", r#""2.1""#)]),
    // Always readable: without it no daemon of today's version defines or deletes VMs, until a newer one writes it
    // again.
    kind::<Departed>(0, Care::Keeps, &[], &[]),
    kind::<RemovedNode>(100, Care::Keeps, &[], &[("/at", r#"{"boot":3}"#)]),
    kind::<Fence>(100, Care::Keeps, &[], &[("/phase", r#""quarantined""#), ("/evidence", r#"[{"kind":"storage"}]"#)]),
    kind::<Promise>(5, Care::FromNothing, &[], &[("/gone_after_ms", r#"{"s":56}"#)]),
    kind::<Token>(100, Care::Keeps, &[], &[("/role", r#""auditor""#)]),
    kind::<Fault>(100, Care::Keeps, &[], &[("/message", r#"{"id":12,"of":"vm"}"#)]),
];

/// The kind of the record at a path, if that has a layout number.
pub(crate) fn kind_of(path: &RecordPath) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| (kind.is_at)(path))
}

fn object(data: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(data) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    }
}

fn bytes(document: Map<String, Value>) -> Vec<u8> {
    // Serializing a JSON value cannot fail.
    serde_json::to_vec(&Value::Object(document)).unwrap_or_default()
}

impl Kind {
    /// Whether today's version can decode it.
    pub(crate) fn reads(&self, data: &[u8]) -> bool {
        (self.reads)(data)
    }

    /// The record as today's version would write it without keeping unknown members.
    pub(crate) fn rewritten(&self, data: &[u8]) -> Option<Vec<u8>> {
        (self.rewritten)(data)
    }

    /// What can be salvaged of the record, as a whole record.
    pub(crate) fn salvaged(&self, path: &RecordPath, data: &[u8]) -> Option<Vec<u8>> {
        (self.salvaged)(path, data)
    }

    /// The record as the newer version writes it; foreign in `per_mille` of 1000 cases, if the kind has a foreign
    /// value. Returns whether it is.
    pub(crate) fn newer(&self, data: &[u8], serial: u64, dice: &mut Dice, per_mille: u64) -> (Vec<u8>, bool) {
        let Some(mut document) = object(data) else { return (data.to_vec(), false) };
        document.insert("schema".to_owned(), (self.schema + 1).into());
        document.insert(LATER.to_owned(), serial.into());
        for name in self.inside {
            if let Some(Value::Object(inner)) = document.get_mut(*name) {
                inner.insert(LATER.to_owned(), serial.into());
            }
        }
        let foreign = dice.per_mille(per_mille)
            && dice.pick(self.words).is_some_and(|(at, word)| self.say(&mut document, at, word));
        (bytes(document), foreign)
    }

    /// Sets a foreign value. Returns whether its position exists.
    fn say(&self, document: &mut Map<String, Value>, at: &str, word: &str) -> bool {
        let mut whole = Value::Object(std::mem::take(document));
        let was = whole.pointer_mut(at).map(|value| {
            let was = value.clone();
            match (serde_json::from_str(word), &mut *value) {
                (Ok(word), _) => *value = word,
                (Err(_), Value::Object(inner)) => drop(inner.insert(LATER.to_owned(), true.into())),
                _ => {}
            }
            was
        });
        let Value::Object(mut whole) = whole else { return false };
        let said = was.map(|was| whole.insert(MEANS.to_owned(), json!({"at": at, "is": was}))).is_some();
        *document = whole;
        said
    }
}

/// The record without its foreign value; `None` if it has none.
pub(crate) fn in_plain_words(data: &[u8]) -> Option<Vec<u8>> {
    let mut document = object(data)?;
    let means = document.remove(MEANS)?;
    let mut whole = Value::Object(document);
    let (at, is) = (means.get("at")?.as_str()?, means.get("is")?);
    *whole.pointer_mut(at)? = is.clone();
    serde_json::to_vec(&whole).ok()
}

/// A record of the newer version, translated to today's layout.
pub(crate) fn understood<'a>(path: &RecordPath, data: &'a [u8]) -> Cow<'a, [u8]> {
    let Some(kind) = kind_of(path) else { return data.into() };
    let plain = in_plain_words(data).map_or(Cow::Borrowed(data), Cow::Owned);
    let Some(mut document) = object(&plain) else { return plain };
    if document.get("schema").and_then(Value::as_u64).is_none_or(|schema| schema <= kind.schema.into()) {
        return plain;
    }
    document.insert("schema".to_owned(), kind.schema.into());
    document.remove(LATER);
    for name in kind.inside {
        if let Some(Value::Object(inner)) = document.get_mut(*name) {
            inner.remove(LATER);
        }
    }
    bytes(document).into()
}

/// What the rewriting of a record by an old daemon would lose: the layout number, or a member.
pub(crate) fn lost(kind: &Kind, before: &[u8], after: &[u8]) -> Option<String> {
    let (before, after) = (object(before)?, object(after)?);
    let schema = |document: &Map<String, Value>| document.get("schema").and_then(Value::as_u64);
    if schema(&after) < schema(&before) {
        return Some(format!("layout {:?} became {:?}", schema(&before), schema(&after)));
    }
    let differs = |before: &Map<String, Value>, after: &Map<String, Value>| before.get(LATER) != after.get(LATER);
    if differs(&before, &after) {
        return Some(format!("{LATER:?} is gone"));
    }
    let inside = |name: &&&str| match (before.get(**name), after.get(**name)) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => differs(before, after),
        // If the object was deleted, so was its content.
        _ => false,
    };
    kind.inside.iter().find(inside).map(|name| format!("{LATER:?} in {name:?} is gone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Only, shelf};

    #[test]
    fn all_kinds_with_a_layout_number_are_covered() {
        let here: Vec<&str> = KINDS.iter().map(|kind| kind.at).collect();
        let others = shelf::KINDS.iter().map(|(at, _)| *at).filter(|at| !here.contains(at)).collect::<Vec<_>>();
        assert_eq!(others, ["/schema", "/names/vms/*"]);
    }

    /// Today's version cannot read foreign values, and can read records with additional members.
    #[test]
    fn newer_records_round_trip_and_losses_are_detected() {
        let path = ClusterConfig::path(&Only);
        let today = serde_json::to_vec(&ClusterConfig::default()).unwrap();
        let kind = kind_of(&path).unwrap();
        let mut dice = Dice::new(1);
        let mut foreign = 0;
        for serial in 0..100 {
            let (data, is_foreign) = kind.newer(&today, serial, &mut dice, kind.foreign_per_mille);
            foreign += u64::from(is_foreign);
            assert_eq!(kind.reads(&data), !is_foreign, "{}", String::from_utf8_lossy(&data));
            let back: Value = serde_json::from_slice(&understood(&path, &data)).unwrap();
            assert_eq!(back, serde_json::from_slice::<Value>(&today).unwrap());
            assert_eq!(lost(kind, &data, &data), None);
            assert!(lost(kind, &data, &today).is_some());
        }
        assert!((10..50).contains(&foreign), "{foreign}");
    }
}
