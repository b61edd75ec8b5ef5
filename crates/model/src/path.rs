//! Typed paths of records.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// The absolute path of a record: `/` or `/a/b`, without empty, `.` or `..` parts, control characters or a trailing
/// slash (the rules of ZooKeeper).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordPath(Arc<str>);

/// An invalid record path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a valid record path: accepted are / and /a/b, without empty, '.' or '..' parts or control characters"
)]
pub struct BadPath(String);

impl RecordPath {
    /// The root of the tree.
    pub fn root() -> Self {
        RecordPath("/".into())
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
        if good { Ok(RecordPath(path.into())) } else { Err(bad()) }
    }

    /// The record `name` below this one. `name` must be one part; anything else is an error.
    pub fn join(&self, name: &str) -> Result<Self, BadPath> {
        if name.contains('/') {
            return Err(BadPath(name.to_owned()));
        }
        Self::new(&if &*self.0 == "/" { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// The path of a record of the kind with this pattern: `*` stands for the key.
    pub(crate) fn from_pattern(pattern: &str, key: &impl fmt::Display) -> Self {
        match pattern.split_once('*') {
            Some((before, after)) => RecordPath(format!("{before}{key}{after}").into()),
            None => RecordPath(pattern.into()),
        }
    }

    /// The part matched by `*` if the path matches the pattern; empty if there is no `*` in the pattern.
    pub(crate) fn match_pattern(&self, pattern: &str) -> Option<&str> {
        match pattern.split_once('*') {
            Some((before, after)) => {
                let key = self.0.strip_prefix(before)?.strip_suffix(after)?;
                (!key.is_empty() && !key.contains('/')).then_some(key)
            }
            None => (&*self.0 == pattern).then_some(""),
        }
    }

    /// The parent; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if &*self.0 == "/" {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) | None => Some(Self::root()),
            Some(at) => Some(RecordPath(self.0[..at].into())),
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
        &*other.0 == "/"
            || self.0 == other.0
            || (self.0.starts_with(&*other.0) && self.0.as_bytes().get(other.0.len()) == Some(&b'/'))
    }

    /// The path after its ancestor (or itself) `from` was renamed to `to`; `None` if it is not within `from`.
    pub fn rebase(&self, from: &RecordPath, to: &RecordPath) -> Option<RecordPath> {
        if !self.is_within(from) {
            return None;
        }
        let rest = if &*from.0 == "/" { &*self.0 } else { &self.0[from.0.len()..] };
        Some(RecordPath(match (&*to.0, rest) {
            (to, "" | "/") => to.into(),
            ("/", rest) => rest.into(),
            (to, rest) => format!("{to}{rest}").into(),
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
        p.as_str().to_owned()
    }
}

/// Paths that are not records of a kind ([`crate::RecordKind::AT`] has those).
pub mod layout {
    use super::RecordPath;

    fn at(path: &str) -> RecordPath {
        RecordPath(path.into())
    }

    /// Parent of the leases of the primary's protocol.
    pub fn leases() -> RecordPath {
        at("/primary/leases")
    }
    /// The lock that is held during a handoff of the primary's role.
    pub fn primary_lock() -> RecordPath {
        at("/locks/primary")
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
