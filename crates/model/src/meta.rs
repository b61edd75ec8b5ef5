//! VM metadata set by administrators: where a VM may run, how and in which order it is moved.

use crate::{name::NodeName, words::words};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Default maximum downtime of a guest in a live migration, in milliseconds.
pub const MAX_DOWNTIME_MS: u32 = 300;
/// Limit of the maximum downtime, in milliseconds: libvirt and QEMU accept up to 2,000,000, which is not useful.
pub const MAX_DOWNTIME_MAX_MS: u32 = 60_000;
/// Priorities range from the negative of this value to this value.
pub const PRIORITY_MAX: i32 = 1000;
/// Maximum number of tags of a VM.
pub const TAGS_MAX: usize = 64;

/// Criterion for the choice of a VM's node, among those that can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// The most memory left that is not promised to running VMs.
    #[default]
    Mem,
    /// The most memory left if all assigned VMs ran.
    Memprov,
    /// The lowest load.
    Load,
    /// The fewest virtual CPUs in use.
    Vcpus,
    /// The fewest VMs.
    Vms,
}
words!(Selector, "node selector", Mem = "mem", Memprov = "memprov", Load = "load", Vcpus = "vcpus", Vms = "vms");

/// How a running VM may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationMethod {
    /// Live; if that fails, it is shut down and started on the other node.
    #[default]
    None,
    /// Live or not at all.
    Live,
    /// It is shut down and started on the other node.
    Shutdown,
}
words!(MigrationMethod, "migration method", None = "none", Live = "live", Shutdown = "shutdown");

/// VM metadata set by administrators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmMeta {
    /// The nodes that it may run on; empty: all.
    pub node_limit: BTreeSet<NodeName>,
    /// How its node is chosen; `None`: the cluster's default.
    pub selector: Option<Selector>,
    /// Start it when its node becomes ready. Set by a flush that had to shut it down; cleared by the start.
    pub autostart: bool,
    /// How it may be moved.
    pub method: MigrationMethod,
    /// Maximum downtime in a live migration, in milliseconds.
    pub max_downtime_ms: u32,
    /// VMs with a higher priority are moved and started first. 0 by default.
    pub priority: i32,
    /// While its guest is paused by an I/O error, try now and then to let it run on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resume_after_io_error: bool,
    /// Its tags; `true`: protected from removal.
    pub tags: BTreeMap<String, bool>,
}

impl Default for VmMeta {
    fn default() -> VmMeta {
        VmMeta {
            node_limit: BTreeSet::new(),
            selector: None,
            autostart: false,
            method: MigrationMethod::None,
            max_downtime_ms: MAX_DOWNTIME_MS,
            priority: 0,
            resume_after_io_error: false,
            tags: BTreeMap::new(),
        }
    }
}

impl VmMeta {
    /// Whether the node limit allows a node.
    pub fn allows(&self, node: &NodeName) -> bool {
        self.node_limit.is_empty() || self.node_limit.contains(node)
    }
}

/// A change of metadata; `None`: unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaChange {
    /// See [`VmMeta::node_limit`].
    pub node_limit: Option<BTreeSet<NodeName>>,
    /// See [`VmMeta::selector`]; `Some(None)`: the cluster's default.
    pub selector: Option<Option<Selector>>,
    /// See [`VmMeta::autostart`].
    pub autostart: Option<bool>,
    /// See [`VmMeta::method`].
    pub method: Option<MigrationMethod>,
    /// See [`VmMeta::max_downtime_ms`].
    pub max_downtime_ms: Option<u32>,
    /// See [`VmMeta::priority`].
    pub priority: Option<i32>,
    /// See [`VmMeta::resume_after_io_error`].
    pub resume_after_io_error: Option<bool>,
    /// The profile that it was built from.
    pub profile: Option<String>,
    /// Tags to add; `true`: protected.
    pub add_tags: BTreeMap<String, bool>,
    /// Tags to remove.
    pub remove_tags: BTreeSet<String>,
}

/// A refused change of metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {given:?} is not accepted: {accepted}")]
pub struct BadMeta {
    /// The field.
    pub field: &'static str,
    /// The given value.
    pub given: String,
    /// What is accepted.
    pub accepted: String,
}

/// Whether a text is a valid tag: safe on a command line and in a query.
fn is_tag(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

impl MetaChange {
    /// The metadata after the change.
    ///
    /// # Errors
    /// The first part of the change that is not accepted; nothing has been changed.
    pub fn apply(&self, meta: &VmMeta) -> Result<VmMeta, BadMeta> {
        let bad = |field, given: &dyn fmt::Display, accepted: String| {
            let given = given.to_string().chars().take(80).collect();
            Err(BadMeta { field, given, accepted })
        };
        let mut next = meta.clone();
        if let Some(limit) = &self.node_limit {
            next.node_limit.clone_from(limit);
        }
        next.selector = self.selector.unwrap_or(next.selector);
        next.autostart = self.autostart.unwrap_or(next.autostart);
        next.resume_after_io_error = self.resume_after_io_error.unwrap_or(next.resume_after_io_error);
        next.method = self.method.unwrap_or(next.method);
        match self.max_downtime_ms {
            Some(ms) if !(1..=MAX_DOWNTIME_MAX_MS).contains(&ms) => {
                return bad("migration_max_downtime", &ms, format!("accepted are 1 to {MAX_DOWNTIME_MAX_MS} ms"));
            }
            given => next.max_downtime_ms = given.unwrap_or(next.max_downtime_ms),
        }
        match self.priority {
            Some(p) if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&p) => {
                return bad("priority", &p, format!("accepted are -{PRIORITY_MAX} to {PRIORITY_MAX}"));
            }
            given => next.priority = given.unwrap_or(next.priority),
        }
        for tag in &self.remove_tags {
            match next.tags.get(tag) {
                Some(true) => return bad("tag", tag, "it is protected, and cannot be removed".to_owned()),
                Some(false) => {
                    next.tags.remove(tag);
                }
                None => return bad("tag", tag, "the VM has no such tag".to_owned()),
            }
        }
        for (tag, protected) in &self.add_tags {
            if !is_tag(tag) {
                let accepted =
                    "accepted are letters, digits, '-', '_', '.' and ':'; at most 63, a letter or digit first";
                return bad("tag", tag, accepted.to_owned());
            }
            next.tags.insert(tag.clone(), *protected);
        }
        if next.tags.len() > TAGS_MAX {
            return bad("tag", &next.tags.len(), format!("a VM may have {TAGS_MAX} tags at most"));
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_not_given_are_unchanged() {
        let full = VmMeta {
            node_limit: [NodeName::new("a").unwrap()].into(),
            selector: Some(Selector::Vms),
            autostart: true,
            method: MigrationMethod::Live,
            max_downtime_ms: 50,
            priority: 7,
            resume_after_io_error: true,
            tags: [("x".to_owned(), true), ("y".to_owned(), false)].into(),
        };
        assert_eq!(MetaChange::default().apply(&full).unwrap(), full);
        let change = MetaChange { selector: Some(None), remove_tags: ["y".to_owned()].into(), ..Default::default() };
        let next = change.apply(&full).unwrap();
        assert_eq!((next.selector, next.tags.len(), next.priority), (None, 1, 7));
    }

    #[test]
    fn bad_metadata_is_refused_with_what_is_accepted() {
        let tagged = VmMeta { tags: [("x".to_owned(), true)].into(), ..Default::default() };
        let tag = |t: &str| MetaChange { add_tags: [(t.to_owned(), false)].into(), ..Default::default() };
        for (change, says) in [
            (MetaChange { max_downtime_ms: Some(0), ..Default::default() }, "accepted are 1 to"),
            (MetaChange { priority: Some(1001), ..Default::default() }, "-1000 to 1000"),
            (MetaChange { remove_tags: ["x".to_owned()].into(), ..Default::default() }, "it is protected"),
            (MetaChange { remove_tags: ["z".to_owned()].into(), ..Default::default() }, "no such tag"),
            (tag(""), "accepted are letters"),
            (tag("a b"), "accepted are letters"),
            (tag("-a"), "accepted are letters"),
            (tag("a\n"), "accepted are letters"),
        ] {
            let error = change.apply(&tagged).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!("warm".parse::<Selector>().unwrap_err().to_string().contains("mem, memprov, load, vcpus, vms"));
    }
}
