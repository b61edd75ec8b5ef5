//! What a kind of record is, and how the bytes of one are read and written.
//!
//! A kind is a type that implements [`RecordKind`]: its key, its place in the tree, its layout version, who writes it.
//! The tree's skeleton and the view's shelves are made from these ([`crate::shelf`]).
//!
//! Daemons of two versions run side by side while a cluster is upgraded. So:
//!
//! * Every change of a layout since the first release raises the kind's [`RecordKind::SCHEMA`].
//! * A record of a later layout that can be decoded all the same is used. What this version does not know of it is kept
//!   ([`Stored::extra`]) and written back by [`Stored::replaced_by`].
//! * One that cannot be decoded is [`Unreadable`]. It is not used and not written, and what it still tells
//!   ([`RecordKind::salvage`]) counts.

use crate::path::RecordPath;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::Arc,
};

/// How often a record's data was replaced since the record was created; 0 for a new one. Named by the write that
/// replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub i64);

impl Version {
    /// The version of a record that was just created.
    pub const NEW: Version = Version(0);

    /// The version that one replacement makes of this one: all stores count by one (ZooKeeper: `dataVersion`).
    #[must_use]
    pub fn next(self) -> Version {
        Version(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who writes the records of a kind. (Readers are all daemons.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Whoever takes a request, and the node that completes it.
    Requests,
    /// The one node that the record is about, or that holds what it is about.
    Node,
    /// The coordinators, by the protocol of the primary.
    Coordinators,
}

/// A kind of record.
pub trait RecordKind: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// What tells one record of the kind from another: the part of the path that is `*` in [`RecordKind::AT`].
    type Key: Clone + Ord + fmt::Display + FromStr + fmt::Debug + Send + Sync;

    /// Where the records are, with one `*` for the key: `/vms/*/claim`. Without `*` there is one record, and the key is
    /// [`Only`].
    const AT: &'static str;
    /// The layout version that this daemon writes.
    const SCHEMA: u32;
    /// Who writes it.
    const WRITER: Writer;
    /// Whether the last one that could be read is used while the present one cannot be read.
    const KEEPS_LAST: bool = false;

    /// Members of which every part must be known: a record of a later layout that says more in one of them is
    /// unreadable. For what is a choice of one thing among several: what is unknown of one choice must not stick to the
    /// next.
    const WHOLE: &'static [&'static str] = &[];

    /// The layout version that the record says it has. Kinds without one never change.
    fn schema(&self) -> u32 {
        Self::SCHEMA
    }

    /// What a record still tells that cannot be decoded as a whole; `None`: nothing that may be used.
    fn salvage(_key: &Self::Key, _document: &Value) -> Option<Self> {
        None
    }

    /// The record's path.
    fn path(key: &Self::Key) -> RecordPath {
        RecordPath::from_pattern(Self::AT, key)
    }

    /// The key of the record at that path, if it is of this kind.
    fn key(path: &RecordPath) -> Option<Self::Key> {
        path.match_pattern(Self::AT)?.parse().ok()
    }
}

/// The key of a kind of which there is one record only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Only;

impl fmt::Display for Only {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl FromStr for Only {
    type Err = std::convert::Infallible;
    fn from_str(_: &str) -> Result<Self, Self::Err> {
        Ok(Only)
    }
}

/// A decoded record and what is needed to replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// What it says.
    pub value: T,
    /// Its version in the store.
    pub version: Version,
    /// What a later version of Drover wrote in it that this one does not know.
    pub extra: Option<Arc<Extra>>,
}

impl<T> Stored<T> {
    /// A record without anything unknown.
    pub fn new(value: T, version: Version) -> Stored<T> {
        Stored { value, version, extra: None }
    }
}

impl<T> Deref for Stored<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Stored<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: RecordKind> Stored<T> {
    /// Decodes a record.
    ///
    /// # Errors
    /// [`Unreadable`]: why it cannot be decoded.
    pub fn decode(data: &[u8], version: Version) -> Result<Stored<T>, Unreadable> {
        match serde_json::from_slice::<T>(data) {
            Ok(value) if value.schema() <= T::SCHEMA => Ok(Stored::new(value, version)),
            Ok(value) => {
                let extra = unknown(data, &value).filter(|extra| !extra.is_empty()).map(Arc::new);
                if let Some(part) = extra.as_ref().and_then(|extra| extra.inside_of(T::WHOLE)) {
                    let document = serde_json::from_slice(data).unwrap_or_default();
                    let newer = Some((value.schema(), T::SCHEMA));
                    let why = format!("it says more in {part:?} than is known");
                    return Err(Unreadable { version, newer, why, document });
                }
                Ok(Stored { value, version, extra })
            }
            Err(error) => {
                let document: Value = serde_json::from_slice(data).unwrap_or_default();
                let schema = document.get("schema").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
                let newer = schema.filter(|schema| *schema > T::SCHEMA).map(|schema| (schema, T::SCHEMA));
                Err(Unreadable { version, newer, why: error.to_string(), document })
            }
        }
    }

    /// The bytes that replace this record: the new value, and what is unknown in the old one. A later layout stays a
    /// later one, for what is unknown must be looked for again by the next who replaces it.
    ///
    /// # Errors
    /// The value cannot be written as JSON: a defect of its type.
    pub fn replaced_by(&self, value: &T) -> Result<Vec<u8>, serde_json::Error> {
        if self.value.schema() <= T::SCHEMA {
            return serde_json::to_vec(value);
        }
        let mut document = serde_json::to_value(value)?;
        if let Some(schema) = document.get_mut("schema") {
            *schema = self.value.schema().into();
        }
        if let Some(extra) = &self.extra {
            extra.add_to(&mut document);
        }
        serde_json::to_vec(&document)
    }
}

/// What a document says beyond what is known of it.
fn unknown<T: Serialize>(data: &[u8], known: &T) -> Option<Extra> {
    let document: Value = serde_json::from_slice(data).ok()?;
    match (document, serde_json::to_value(known).ok()?) {
        (Value::Object(document), Value::Object(known)) => Some(Extra::beyond(document, &known)),
        _ => None,
    }
}

/// The members of an object that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// Those of the object itself.
    members: Map<String, Value>,
    /// Those of the objects in it that are known. They go with these.
    inside: BTreeMap<String, Extra>,
}

impl Extra {
    /// The first of these members that has something unknown inside.
    fn inside_of(&self, members: &[&'static str]) -> Option<&'static str> {
        members.iter().copied().find(|member| self.inside.contains_key(*member))
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.inside.is_empty()
    }

    /// The members that `known` lacks. One that is known but was left out as its default counts as unknown here, which
    /// does no harm: it is written again as it was, unless it has another value by then.
    fn beyond(object: Map<String, Value>, known: &Map<String, Value>) -> Extra {
        let mut extra = Extra::default();
        for (name, value) in object {
            match (value, known.get(&name)) {
                (Value::Object(value), Some(Value::Object(known))) => {
                    let inner = Extra::beyond(value, known);
                    if !inner.is_empty() {
                        extra.inside.insert(name, inner);
                    }
                }
                (value, None) => {
                    extra.members.insert(name, value);
                }
                (_, Some(_)) => {}
            }
        }
        extra
    }

    /// Adds them to an object that has new values by now.
    fn add_to(&self, document: &mut Value) {
        let Value::Object(object) = document else { return };
        for (name, value) in &self.members {
            object.entry(name).or_insert_with(|| value.clone());
        }
        for (name, extra) in &self.inside {
            if let Some(inner) = object.get_mut(name) {
                extra.add_to(inner);
            }
        }
    }
}

/// A record that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its version in the store.
    pub version: Version,
    /// The layout that it says it has, and the one that this daemon knows, if that is why.
    pub newer: Option<(u32, u32)>,
    /// What the decoder says.
    pub why: String,
    /// What is there, as far as it is JSON.
    pub document: Value,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.newer {
            Some((found, known)) => write!(
                f,
                "unreadable, written by a newer version (layout {found}; this daemon, {}, knows {known}): upgrade it",
                env!("CARGO_PKG_VERSION")
            ),
            None => write!(f, "unreadable: {}", self.why),
        }
    }
}

/// A record that is shared by those who read it, and copied by who changes it.
#[derive(Debug)]
pub struct Kept<T>(Arc<Stored<T>>);

impl<T> Kept<T> {
    /// Whether both are the same copy of the record.
    pub fn is_same(&self, other: &Kept<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Kept(self.0.clone())
    }
}

impl<T> From<Stored<T>> for Kept<T> {
    fn from(stored: Stored<T>) -> Self {
        Kept(Arc::new(stored))
    }
}

impl<T> Deref for Kept<T> {
    type Target = Stored<T>;
    fn deref(&self) -> &Stored<T> {
        &self.0
    }
}

impl<T: Clone> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut Stored<T> {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || *self.0 == *other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Inner {
        known: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        optional: Option<u32>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Sample {
        schema: u32,
        name: String,
        inner: Inner,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        other: Option<Inner>,
    }

    impl RecordKind for Sample {
        type Key = String;
        const AT: &'static str = "/samples/*/part";
        const SCHEMA: u32 = 1;
        const WRITER: Writer = Writer::Requests;
        fn schema(&self) -> u32 {
            self.schema
        }
    }

    fn decode(text: &str) -> Result<Stored<Sample>, Unreadable> {
        Stored::decode(text.as_bytes(), Version(3))
    }

    #[test]
    fn a_path_is_its_kind_and_its_key() {
        let path = Sample::path(&"a b".to_owned());
        assert_eq!((path.as_str(), Sample::key(&path).as_deref()), ("/samples/a b/part", Some("a b")));
        for other in ["/samples/x", "/samples/x/part/y", "/other/x/part", "/samples/x/parts"] {
            assert_eq!(Sample::key(&RecordPath::new(other).unwrap()), None, "{other}");
        }
    }

    #[test]
    fn what_is_unknown_survives_a_rewriting() {
        let text = r#"{"schema":2,"name":"a","colour":"red","inner":{"known":1,"deep":{"x":[1]}},"other":{"known":7,"deep":1},"list":[{}]}"#;
        let old = decode(text).unwrap();
        assert_eq!((old.value.inner.known, old.version), (1, Version(3)));
        let inner = Inner { known: 2, optional: Some(5) };
        // Made from scratch, as reports are: it says the layout that this version knows.
        let new = Sample { schema: 1, name: "b".to_owned(), inner, other: None };
        let written: Value = serde_json::from_slice(&old.replaced_by(&new).unwrap()).unwrap();
        // What was inside of something goes with it.
        let wanted =
            r#"{"schema":2,"name":"b","colour":"red","inner":{"known":2,"optional":5,"deep":{"x":[1]}},"list":[{}]}"#;
        assert_eq!(written, serde_json::from_str::<Value>(wanted).unwrap());
    }

    #[test]
    fn what_this_version_wrote_itself_has_nothing_unknown() {
        let old = decode(r#"{"schema":1,"name":"a","inner":{"known":1}}"#).unwrap();
        assert_eq!(old.extra, None);
    }

    #[test]
    fn an_unreadable_record_says_why() {
        let newer = decode(r#"{"schema":2,"name":"a","inner":"gone"}"#).unwrap_err();
        assert_eq!(newer.newer, Some((2, 1)));
        assert!(newer.to_string().starts_with("unreadable, written by a newer version (layout 2; "), "{newer}");
        let broken = decode("{").unwrap_err();
        assert_eq!((broken.newer, broken.document.clone()), (None, Value::Null));
        assert!(broken.to_string().starts_with("unreadable: EOF"), "{broken}");
    }
}
