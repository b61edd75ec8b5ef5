//! Where records live: typed paths, and the layout of the whole tree in one place.

use crate::name::{NodeName, VmName};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The absolute path of a record: `/` or `/a/b`, without empty, `.` or `..` parts, control characters or a trailing slash
/// (the rules of ZooKeeper).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordPath(String);

/// A text that is no record path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no record path: accepted are / and /a/b, without empty, '.' or '..' parts or control characters")]
pub struct BadPath(String);

impl RecordPath {
    /// The root of the tree.
    pub fn root() -> Self {
        RecordPath("/".to_owned())
    }

    /// Checks and wraps a path.
    pub fn new(path: &str) -> Result<Self, BadPath> {
        let bad = || BadPath(path.chars().take(200).collect());
        if path == "/" {
            return Ok(Self::root());
        }
        let rest = path.strip_prefix('/').ok_or_else(bad)?;
        let good = rest
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control));
        if good { Ok(RecordPath(path.to_owned())) } else { Err(bad()) }
    }

    /// The record `name` below this one. `name` must be one part; anything else is an error.
    pub fn join(&self, name: &str) -> Result<Self, BadPath> {
        if name.contains('/') {
            return Err(BadPath(name.to_owned()));
        }
        Self::new(&if self.0 == "/" { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// For names that are known to be good parts (checked names, UUIDs, constants).
    fn child(&self, name: impl fmt::Display) -> Self {
        RecordPath(if self.0 == "/" { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// The record above; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0 == "/" {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(at) => Some(RecordPath(self.0[..at].to_owned())),
        }
    }

    /// The last part; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The parts, from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|p| !p.is_empty())
    }

    /// Whether `self` is `other` or below it.
    pub fn is_within(&self, other: &RecordPath) -> bool {
        other.0 == "/"
            || self.0 == other.0
            || (self.0.starts_with(&other.0) && self.0.as_bytes().get(other.0.len()) == Some(&b'/'))
    }

    /// The same record after its ancestor (or itself) `from` became `to`; `None` when it is not within `from`.
    pub fn rebase(&self, from: &RecordPath, to: &RecordPath) -> Option<RecordPath> {
        if !self.is_within(from) {
            return None;
        }
        let rest = if from.0 == "/" { self.0.as_str() } else { &self.0[from.0.len()..] };
        Some(RecordPath(match (to.0.as_str(), rest) {
            (to, "" | "/") => to.to_owned(),
            ("/", rest) => rest.to_owned(),
            (to, rest) => format!("{to}{rest}"),
        }))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RecordPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RecordPath {
    type Err = BadPath;
    fn from_str(s: &str) -> Result<Self, BadPath> {
        Self::new(s)
    }
}

impl TryFrom<String> for RecordPath {
    type Error = BadPath;
    fn try_from(s: String) -> Result<Self, BadPath> {
        Self::new(&s)
    }
}

impl From<RecordPath> for String {
    fn from(p: RecordPath) -> String {
        p.0
    }
}

/// The layout of the tree: which record is where. Nothing else in the code spells a path.
pub mod layout {
    use super::*;

    fn top(name: &'static str) -> RecordPath {
        RecordPath::root().child(name)
    }

    /// The version of this layout.
    pub fn schema() -> RecordPath {
        top("schema")
    }
    /// What holds for the whole cluster.
    pub fn config() -> RecordPath {
        top("config")
    }
    /// Parent of the nodes.
    pub fn nodes() -> RecordPath {
        top("nodes")
    }
    /// A node's configuration and its domain state.
    pub fn node(name: &NodeName) -> RecordPath {
        nodes().child(name)
    }
    /// What a node reports of itself.
    pub fn node_status(name: &NodeName) -> RecordPath {
        node(name).child("status")
    }
    /// Ephemeral: the node's daemon is alive.
    pub fn node_session(name: &NodeName) -> RecordPath {
        node(name).child("session")
    }
    /// Parent of the VMs.
    pub fn vms() -> RecordPath {
        top("vms")
    }
    /// A VM's definition, metadata and wanted state.
    pub fn vm(uuid: &Uuid) -> RecordPath {
        vms().child(uuid)
    }
    /// What the node that holds the VM reports of it.
    pub fn vm_status(uuid: &Uuid) -> RecordPath {
        vm(uuid).child("status")
    }
    /// Which node may run the VM.
    pub fn vm_claim(uuid: &Uuid) -> RecordPath {
        vm(uuid).child("claim")
    }
    /// What the node says to which the VM is to go.
    pub fn vm_arrival(uuid: &Uuid) -> RecordPath {
        vm(uuid).child("arrival")
    }
    /// Parent of the indexes of unique names.
    pub fn names() -> RecordPath {
        top("names")
    }
    /// Parent of the names of VMs.
    pub fn vm_names() -> RecordPath {
        names().child("vms")
    }
    /// Holds the UUID of the VM of this name.
    pub fn vm_name(name: &VmName) -> RecordPath {
        vm_names().child(name)
    }
    /// Parent of the API's tokens (their hashes).
    pub fn tokens() -> RecordPath {
        top("tokens")
    }
    /// One token's hash, by its name.
    pub fn token(name: &str) -> RecordPath {
        tokens().child(name)
    }
    /// Parent of the faults.
    pub fn faults() -> RecordPath {
        top("faults")
    }
    /// One fault.
    pub fn fault(id: &str) -> RecordPath {
        faults().child(id)
    }
    /// Who is the primary coordinator.
    pub fn primary() -> RecordPath {
        top("primary")
    }
    /// Parent of the leases of those that may have a primary service up.
    pub fn leases() -> RecordPath {
        primary().child("leases")
    }
    /// A node's lease.
    pub fn lease(name: &NodeName) -> RecordPath {
        leases().child(name)
    }
    /// Parent of the locks.
    pub fn locks() -> RecordPath {
        top("locks")
    }
    /// The lock of whoever needs the primary to stay where it is (shared), and of a handoff (exclusive).
    pub fn primary_lock() -> RecordPath {
        locks().child("primary")
    }

    /// The records without content that must exist before any other, parents first. ([`primary`] has content, and exists before these.)
    pub fn skeleton() -> Vec<RecordPath> {
        vec![nodes(), vms(), names(), vm_names(), tokens(), faults(), leases(), locks(), primary_lock()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_what_zookeeper_accepts() {
        for good in ["/", "/a", "/a/b-c.d", "/a/b c"] {
            assert_eq!(RecordPath::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a", "//", "/a/", "/a//b", "/a/./b", "/a/../b", "/..", "/a\nb", "/\0"] {
            assert!(RecordPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn family() {
        let p = RecordPath::new("/vms/x/claim").unwrap();
        assert_eq!(p.parent().unwrap().as_str(), "/vms/x");
        assert_eq!(RecordPath::new("/a").unwrap().parent().unwrap(), RecordPath::root());
        assert_eq!(RecordPath::root().parent(), None);
        assert_eq!(p.name(), "claim");
        assert!(p.is_within(&RecordPath::new("/vms").unwrap()));
        assert!(p.is_within(&RecordPath::root()));
        assert!(!RecordPath::new("/vmsx").unwrap().is_within(&RecordPath::new("/vms").unwrap()));
        assert!(RecordPath::root().join("a/b").is_err());
    }

    #[test]
    fn rebase_moves_a_subtree() {
        let (a, b) = (RecordPath::new("/a").unwrap(), RecordPath::new("/x/b").unwrap());
        let at = |s: &str| RecordPath::new(s).unwrap().rebase(&a, &b).map(String::from);
        assert_eq!(at("/a").as_deref(), Some("/x/b"));
        assert_eq!(at("/a/c/d").as_deref(), Some("/x/b/c/d"));
        assert_eq!(at("/ab"), None);
    }
}
