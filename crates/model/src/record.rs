//! Kinds of records, and the encoding of a record.
//!
//! A kind is a type that implements [`RecordKind`]: its key, its path, its layout version, its writer. The skeleton of
//! the tree and the view's shelves are derived from these ([`crate::shelf`]).
//!
//! Daemons of two versions run side by side during a rolling upgrade. So:
//!
//! * Every change of a layout since the first release increments the kind's [`RecordKind::SCHEMA`].
//! * A record of a later layout that can still be decoded is used. Members unknown to this version are kept
//!   ([`Stored::extra`]) and written back by [`Stored::replaced_by`].
//! * One that cannot be decoded is [`Unreadable`]. It is never written, and only what can be salvaged from it
//!   ([`RecordKind::salvage`]) is used.

use crate::{operation::Operation, path::RecordPath};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut},
    str::FromStr,
    sync::Arc,
};

/// Number of times that a record's data was replaced since its creation; 0 for a new one. A replacement is a
/// compare-and-set on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub i64);

impl Version {
    /// The version of a newly created record.
    pub const NEW: Version = Version(0);

    /// The version after one replacement: all stores increment it by one (ZooKeeper: `dataVersion`).
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

/// The writer of the records of a kind. (All daemons read them.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Any daemon that handles a request, and the node that completes it.
    Requests,
    /// The one node that the record is about, or that holds the VM that it is about.
    Node,
    /// The coordinators, by the primary's protocol.
    Coordinators,
}

/// A kind of record.
pub trait RecordKind: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Identifies a record of the kind: the part of the path that is `*` in [`RecordKind::AT`].
    type Key: Clone + Ord + fmt::Display + FromStr + fmt::Debug + Send + Sync;

    /// Path of the records, with one `*` for the key: `/vms/*/claim`. Without `*` there is one record only, and the key
    /// is [`Only`].
    const AT: &'static str;
    /// The layout version that this daemon writes: the member `schema` of each record. Kinds without it never change.
    const SCHEMA: u32;
    /// Who writes it.
    const WRITER: Writer;
    /// Members that must be fully known: a record of a later layout with unknown parts in one of them is unreadable.
    /// For members that are one of several alternatives: an unknown part of one alternative must not be carried over to
    /// the next.
    const WHOLE: &'static [&'static str] = &[];

    /// Salvages a record that cannot be decoded as a whole; `None`: nothing in it may be used.
    fn salvage(_key: &Self::Key, _document: &Value) -> Option<Self> {
        None
    }

    /// The same if the last readable record, `self`, is known and still applies; `None`: it does not apply.
    fn salvage_after(&self, _document: &Value) -> Option<Self> {
        None
    }

    /// Its field for the operation that changed it last; `None`: it has no such field.
    fn operation(&mut self) -> Option<&mut Option<Operation>> {
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

/// The key of a kind with one record only.
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

/// A decoded record, with what is needed to replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The decoded value.
    pub value: T,
    /// Its version in the store.
    pub version: Version,
    /// Its layout version, if that is later than this daemon's.
    pub later: Option<u32>,
    /// Members written by a later version of Drover that are unknown to this one.
    pub extra: Option<Arc<Extra>>,
}

impl<T> Stored<T> {
    /// A record without unknown members.
    pub fn new(value: T, version: Version) -> Stored<T> {
        Stored { value, version, later: None, extra: None }
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
    /// [`Unreadable`], with the reason.
    pub fn decode(data: &[u8], version: Version) -> Result<Stored<T>, Unreadable> {
        let later = layout_of(data).filter(|layout| *layout > T::SCHEMA);
        let unreadable = |why| {
            let document = serde_json::from_slice(data).unwrap_or_default();
            Unreadable { version, newer: later.map(|later| (later, T::SCHEMA)), why, document }
        };
        let value: T = serde_json::from_slice(data).map_err(|error| unreadable(error.to_string()))?;
        if later.is_none() {
            return Ok(Stored::new(value, version));
        }
        let extra = unknown(data, &value).filter(|extra| !extra.is_empty()).map(Arc::new);
        match extra.as_ref().and_then(|extra| extra.inside_of(T::WHOLE)) {
            Some(part) => Err(unreadable(format!("it has unknown members in {part:?}"))),
            None => Ok(Stored { value, version, later, extra }),
        }
    }

    /// Encodes the replacement of this record: the new value, plus the unknown members of the old one. A later layout
    /// version is kept, so that the next replacement looks for unknown members as well.
    ///
    /// # Errors
    /// The value cannot be encoded as JSON: a defect of its type.
    pub fn replaced_by(&self, value: &T) -> Result<Vec<u8>, serde_json::Error> {
        let Some(later) = self.later else { return serde_json::to_vec(value) };
        let mut document = serde_json::to_value(value)?;
        if let Some(schema) = document.get_mut("schema") {
            *schema = later.into();
        }
        if let Some(extra) = &self.extra {
            extra.add_to(&mut document);
        }
        serde_json::to_vec(&document)
    }
}

/// The layout version of an encoded record. The one place that reads it, for all kinds.
fn layout_of(data: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
    }
    serde_json::from_slice(data).ok().map(|Head { schema }| schema)
}

/// The members of a document that are not in the known value.
fn unknown<T: Serialize>(data: &[u8], known: &T) -> Option<Extra> {
    let document: Value = serde_json::from_slice(data).ok()?;
    match (document, serde_json::to_value(known).ok()?) {
        (Value::Object(document), Value::Object(known)) => Some(Extra::beyond(document, &known)),
        _ => None,
    }
}

/// Members of an object that are unknown to this version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// Unknown members of the object itself.
    members: Map<String, Value>,
    /// Unknown members of its known member objects; they are dropped together with these.
    inside: BTreeMap<String, Extra>,
}

impl Extra {
    /// The first of these members that has unknown members inside.
    fn inside_of(&self, members: &[&'static str]) -> Option<&'static str> {
        members.iter().copied().find(|member| self.inside.contains_key(*member))
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.inside.is_empty()
    }

    /// The members that `known` lacks. A known member that was omitted as its default counts as unknown here, which is
    /// harmless: it is written back unchanged, unless it has another value by then.
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

    /// Adds them to an object with new values.
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
    /// The layout version in the record, and the one known to this daemon, if that is the reason.
    pub newer: Option<(u32, u32)>,
    /// The decoder's error.
    pub why: String,
    /// The record's content, if it is JSON.
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

/// A shared, copy-on-write record.
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
    fn unknown_members_survive_a_replacement() {
        let text = r#"{"schema":2,"name":"a","colour":"red","inner":{"known":1,"deep":{"x":[1]}},
            "other":{"known":7,"deep":1},"list":[{}]}"#;
        let old = decode(text).unwrap();
        assert_eq!((old.value.inner.known, old.version), (1, Version(3)));
        let inner = Inner { known: 2, optional: Some(5) };
        // Created anew, as reports are: it has the layout version of this daemon.
        let new = Sample { schema: 1, name: "b".to_owned(), inner, other: None };
        let written: Value = serde_json::from_slice(&old.replaced_by(&new).unwrap()).unwrap();
        // Unknown members inside of a removed one are removed with it.
        let wanted =
            r#"{"schema":2,"name":"b","colour":"red","inner":{"known":2,"optional":5,"deep":{"x":[1]}},"list":[{}]}"#;
        assert_eq!(written, serde_json::from_str::<Value>(wanted).unwrap());
    }

    #[test]
    fn a_record_of_this_version_has_no_unknown_members() {
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
