//! Shelves: the decoded records of each kind, by key. The list of all kinds is here; a new kind is a type with its
//! [`RecordKind`] and one row.

use crate::{
    bmc::BmcRecord,
    cluster::{ClusterConfig, Fault, Layout, Token},
    departed::Departed,
    fence::Fence,
    name::NodeName,
    node::{NodeRecord, NodeSession, NodeStatus, RemovedNode},
    path::RecordPath,
    primary::{Lease, Primary},
    record::{Kept, Only, RecordKind, Stored, Unreadable, Version},
    vm::{Arrival, Claim, NameEntry, VmRecord, VmStatus},
    watchdog::Promise,
};
use imbl::OrdMap;
use std::{collections::BTreeSet, ops::Deref, sync::Arc};
use uuid::Uuid;

/// The records of one kind.
#[derive(Debug, Clone)]
pub struct Shelf<T: RecordKind> {
    records: OrdMap<T::Key, Kept<T>>,
    unreadable: OrdMap<T::Key, Arc<Unreadable>>,
}

impl<T: RecordKind> Default for Shelf<T> {
    fn default() -> Self {
        Shelf { records: OrdMap::new(), unreadable: OrdMap::new() }
    }
}

impl<T: RecordKind> Deref for Shelf<T> {
    type Target = OrdMap<T::Key, Kept<T>>;
    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

impl<T: RecordKind> Shelf<T> {
    /// Why the record with this key cannot be read, if so. What was salvaged from it is on the shelf.
    pub fn problem(&self, key: &T::Key) -> Option<&Arc<Unreadable>> {
        self.unreadable.get(key)
    }

    /// Updates the shelf with a record; `None`: it does not exist. Returns why it cannot be read, if so.
    fn put(&mut self, key: &T::Key, data: Option<(&[u8], Version)>) -> Option<Arc<Unreadable>> {
        self.unreadable.remove(key);
        let Some((data, version)) = data else {
            self.records.remove(key);
            return None;
        };
        match Stored::<T>::decode(data, version) {
            Ok(stored) => {
                self.records.insert(key.clone(), stored.into());
                None
            }
            Err(problem) => {
                let problem = Arc::new(problem);
                let after = self.records.get(key).and_then(|last| last.value.salvage_after(&problem.document));
                match after.or_else(|| T::salvage(key, &problem.document)) {
                    Some(value) => self.records.insert(key.clone(), Stored::new(value, version).into()),
                    None => self.records.remove(key),
                };
                self.unreadable.insert(key.clone(), problem.clone());
                Some(problem)
            }
        }
    }

    pub(crate) fn set(&mut self, key: T::Key, record: Option<Kept<T>>) {
        match record {
            Some(record) => self.records.insert(key, record),
            None => self.records.remove(&key),
        };
    }
}

impl<T: RecordKind<Key = Only>> Shelf<T> {
    /// The record of a kind with one record only.
    pub fn only(&self) -> Option<&Kept<T>> {
        self.records.get(&Only)
    }
}

/// A kind with a shelf.
pub trait Shelved: RecordKind {
    /// Its shelf.
    fn shelf(shelves: &Shelves) -> &Shelf<Self>;
    #[doc(hidden)]
    fn shelf_mut(shelves: &mut Shelves) -> &mut Shelf<Self>;
}

/// The object that a record belongs to, which must be joined again when the record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Belongs {
    /// A VM.
    Vm(Uuid),
    /// A node.
    Node(NodeName),
    /// No other object.
    Alone,
}

macro_rules! kinds {
    (
        shelved { $($field:ident: $kind:ty => $belongs:ident),* $(,)? }
        others { $($other:ty),* $(,)? }
    ) => {
        /// The records of a cluster, by kind.
        #[derive(Debug, Clone, Default)]
        pub struct Shelves {
            $($field: Shelf<$kind>,)*
        }

        $(impl Shelved for $kind {
            fn shelf(shelves: &Shelves) -> &Shelf<Self> {
                &shelves.$field
            }
            fn shelf_mut(shelves: &mut Shelves) -> &mut Shelf<Self> {
                &mut shelves.$field
            }
        })*

        impl Shelves {
            /// Updates the record's shelf. Returns what the record belongs to, and why it cannot be read, if so;
            /// `None`: its kind has no shelf.
            pub(crate) fn put(
                &mut self,
                path: &RecordPath,
                data: Option<(&[u8], Version)>,
            ) -> Option<(Belongs, Option<Arc<Unreadable>>)> {
                $(if let Some(key) = <$kind>::key(path) {
                    let problem = self.$field.put(&key, data);
                    return Some((kinds!(@belongs $belongs key), problem));
                })*
                None
            }
        }

        /// All kinds: the paths of their records ([`RecordKind::AT`]), and their layout versions
        /// ([`RecordKind::SCHEMA`]).
        pub const KINDS: &[(&str, u32)] = &[
            $((<$kind>::AT, <$kind>::SCHEMA),)*
            $((<$other>::AT, <$other>::SCHEMA),)*
        ];
    };
    (@belongs Vm $key:ident) => { Belongs::Vm($key) };
    (@belongs Node $key:ident) => { Belongs::Node($key) };
    (@belongs Alone $key:ident) => {{ let _ = $key; Belongs::Alone }};
}

kinds! {
    shelved {
        config: ClusterConfig => Alone,
        primary: Primary => Alone,
        nodes: NodeRecord => Node,
        node_statuses: NodeStatus => Node,
        sessions: NodeSession => Node,
        vms: VmRecord => Vm,
        vm_statuses: VmStatus => Vm,
        claims: Claim => Vm,
        arrivals: Arrival => Vm,
        tokens: Token => Alone,
        faults: Fault => Alone,
        bmcs: BmcRecord => Alone,
        fences: Fence => Alone,
    }
    // Read only where they are needed.
    others { Layout, NameEntry, Lease, Departed, RemovedNode, Promise }
}

impl Shelves {
    /// The shelf of a kind.
    pub fn of<T: Shelved>(&self) -> &Shelf<T> {
        T::shelf(self)
    }
}

/// The records of locks have no content: only their owner matters.
const LOCKS: &str = "/locks/primary/*";

/// The records without content that are parents of the others, parents first: they must exist before any other.
pub fn skeleton() -> Vec<RecordPath> {
    let mut folders = BTreeSet::new();
    for pattern in KINDS.iter().map(|(at, _)| at).chain([&LOCKS]) {
        let fixed = pattern.split('*').next().unwrap_or_default();
        for (at, _) in fixed.match_indices('/').skip(1) {
            folders.insert(&fixed[..at]);
        }
    }
    // An ancestor is a prefix, so it is sorted first.
    let folders = folders.into_iter().filter(|folder| KINDS.iter().all(|(at, _)| at != folder));
    folders.filter_map(|folder| RecordPath::new(folder).ok()).collect()
}

/// Whether a record has no children, as far as this version knows: its kind has no other kind below it.
pub fn is_leaf(path: &RecordPath) -> bool {
    let of = |(pattern, _): &&(&str, u32)| path.match_pattern(pattern).is_some();
    let is_below = |other: &str, pattern: &str| other.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('/'));
    KINDS.iter().find(of).is_some_and(|(pattern, _)| !KINDS.iter().any(|(other, _)| is_below(other, pattern)))
}

/// Kinds without a shelf: the view does not need them.
pub fn unshelved() -> Vec<RecordPath> {
    [NameEntry::AT, Lease::AT, RemovedNode::AT, Promise::AT, LOCKS]
        .iter()
        .filter_map(|pattern| RecordPath::new(pattern.strip_suffix("/*")?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_in_the_skeleton_after_its_own() {
        let skeleton: Vec<String> = skeleton().iter().map(ToString::to_string).collect();
        let wanted = "/faults /fences /locks /locks/primary /names /names/vms /nodes /primary/leases /removed /tokens \
                      /vms /watchdogs";
        assert_eq!(skeleton.join(" "), wanted);
    }

    #[test]
    fn leaves_are_the_kinds_without_children() {
        let uuid = Uuid::from_u128(1);
        let leaf = |path: String| is_leaf(&RecordPath::new(&path).unwrap());
        let below = ["status", "claim", "arrival"].map(|part| leaf(format!("/vms/{uuid}/{part}")));
        assert_eq!(below, [true; 3]);
        assert!(leaf("/config".to_owned()) && leaf("/tokens/x".to_owned()) && leaf("/nodes/a/session".to_owned()));
        for path in [format!("/vms/{uuid}"), "/nodes/a".to_owned(), "/vms".to_owned(), "/primary".to_owned()] {
            assert!(!leaf(path.clone()), "{path}");
        }
        let unshelved: Vec<String> = unshelved().iter().map(ToString::to_string).collect();
        assert_eq!(unshelved, ["/names/vms", "/primary/leases", "/removed", "/watchdogs", "/locks/primary"]);
    }

    #[test]
    fn a_config_that_cannot_be_read_keeps_its_last_good_value() {
        let mut shelf = Shelf::<ClusterConfig>::default();
        let config = ClusterConfig { maintenance: true, ..ClusterConfig::default() };
        assert_eq!(shelf.put(&Only, Some((&serde_json::to_vec(&config).unwrap(), Version(1)))), None);
        assert!(shelf.put(&Only, Some((b"{\"schema\":9,\"maintenance\":\"sometimes\"}", Version(2)))).is_some());
        assert!(shelf.only().unwrap().value.maintenance && shelf.problem(&Only).is_some());
        // A change that is made meanwhile, in known words, applies.
        let meanwhile = br#"{"schema":9,"maintenance":"sometimes",
            "limits":{"per_source":1,"per_target":1,"cluster":3},"stall":{}}"#;
        assert!(shelf.put(&Only, Some((meanwhile, Version(2)))).is_some());
        let kept = &shelf.only().unwrap().value;
        assert_eq!((kept.maintenance, kept.limits.cluster, kept.stall), (true, 3, config.stall));
        let over = br#"{"schema":9,"maintenance":false,"stall":{}}"#;
        assert!(shelf.put(&Only, Some((over, Version(2)))).is_some() && !shelf.only().unwrap().value.maintenance);
        shelf.put(&Only, None);
        assert!(shelf.only().is_none() && shelf.problem(&Only).is_none());
        // A daemon that has just started has no last value: the readable parts apply.
        let newer = br#"{"schema":9,"maintenance":"sometimes",
            "limits":{"per_source":1,"per_target":1,"cluster":1},"stall":{}}"#;
        assert!(shelf.put(&Only, Some((newer, Version(3)))).is_some());
        let config = &shelf.only().unwrap().value;
        assert_eq!((config.maintenance, config.limits.cluster), (true, 1));
    }
}
