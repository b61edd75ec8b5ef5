//! The tree of records as a pure data structure, with ZooKeeper's rules for creating, replacing and deleting.
//!
//! The in-memory and the embedded back end both use it; they differ in who shares it and where it is stored.

use crate::{CreateMode, Op, Record, Result, StoreError, Version};
use drover_model::RecordPath;
use imbl::{OrdMap, OrdSet};
use std::{collections::BTreeSet, sync::Arc};

/// Identifies a session within one tree. Never reused.
pub(crate) type SessionId = u64;

/// Maximum data of one record or one transaction, in bytes: ZooKeeper's `jute.maxbuffer` (1 MiB) less room for paths
/// and headers.
pub(crate) const DATA_MAX: usize = 1_000_000;

/// A record in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Shared, so that cloning the tree is cheap.
    pub(crate) data: Arc<Vec<u8>>,
    pub(crate) version: i64,
    pub(crate) revision: i64,
    /// See [`Record::below`]. Not kept on disk: it is compared only within one process.
    pub(crate) below: i64,
    /// The session that owns an ephemeral record.
    pub(crate) owner: Option<SessionId>,
    /// The sequence number of its next sequential child.
    pub(crate) sequence: u64,
}

/// All records. A clone shares its nodes with the original: a change can be made on a clone and discarded.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    nodes: OrdMap<RecordPath, Node>,
    children: OrdMap<RecordPath, OrdSet<Arc<str>>>,
    revision: i64,
}

/// The effect of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// The record of each operation; for a sequential one, with its number.
    pub(crate) paths: Vec<RecordPath>,
    /// All changed records, including the parents of sequential ones, whose counter was incremented.
    pub(crate) changed: BTreeSet<RecordPath>,
}

impl Tree {
    /// A tree with only the root.
    pub(crate) fn new() -> Tree {
        let root = Node { data: Arc::default(), version: 0, revision: 0, below: 0, owner: None, sequence: 0 };
        Tree { nodes: OrdMap::unit(RecordPath::root(), root), children: OrdMap::new(), revision: 0 }
    }

    /// Inserts a record that was read from disk. The order of records does not matter.
    pub(crate) fn restore(&mut self, path: RecordPath, node: Node) {
        self.revision = self.revision.max(node.revision);
        self.insert(path, node);
    }

    /// Whether every record's parent exists.
    pub(crate) fn is_complete(&self) -> bool {
        self.nodes.keys().all(|path| path.parent().is_none_or(|parent| self.nodes.contains_key(&parent)))
    }

    pub(crate) fn node(&self, path: &RecordPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn get(&self, path: &RecordPath) -> Option<Record> {
        let node = self.nodes.get(path)?;
        Some(Record {
            data: node.data.to_vec(),
            version: Version(node.version),
            revision: node.revision,
            below: node.below,
        })
    }

    pub(crate) fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        if !self.nodes.contains_key(path) {
            return Err(StoreError::NotFound(path.clone()));
        }
        Ok(self.children.get(path).map(|c| c.iter().map(|name| name.to_string()).collect()).unwrap_or_default())
    }

    /// The ephemeral records of a session; of all sessions if `None`.
    pub(crate) fn ephemerals(&self, session: Option<SessionId>) -> Vec<RecordPath> {
        let owned = |node: &Node| node.owner.is_some() && (session.is_none() || node.owner == session);
        self.nodes.iter().filter(|(_, node)| owned(node)).map(|(path, _)| path.clone()).collect()
    }

    /// Applies a transaction. If an operation fails, none takes effect, and the error has its index.
    pub(crate) fn apply(
        &mut self,
        ops: Vec<Op>,
        session: SessionId,
    ) -> std::result::Result<Applied, (usize, StoreError)> {
        let size: usize = ops.iter().map(data_len).sum();
        if size > DATA_MAX {
            let what = ops.first().map(|op| op.path().to_string()).unwrap_or_default();
            return Err((0, StoreError::TooLarge { what, size, limit: DATA_MAX }));
        }
        let before = self.clone();
        let mut applied = Applied::default();
        let revision = self.revision + 1;
        for (index, op) in ops.into_iter().enumerate() {
            if let Err(error) = self.apply_one(op, session, revision, &mut applied) {
                *self = before;
                return Err((index, error));
            }
        }
        if !applied.changed.is_empty() {
            self.revision = revision;
        }
        Ok(applied)
    }

    fn apply_one(&mut self, op: Op, session: SessionId, revision: i64, applied: &mut Applied) -> Result<()> {
        let mut path = op.path().clone();
        match op {
            Op::Check(_, version) => {
                self.expect(&path, Some(version))?;
                applied.paths.push(path);
                return Ok(());
            }
            Op::Create(_, data, mode) => {
                let parent = path.parent().ok_or_else(|| StoreError::Exists(path.clone()))?;
                let parent_node = self.nodes.get(&parent).filter(|n| n.owner.is_none());
                let mut parent_node = parent_node.ok_or_else(|| StoreError::NoParent(path.clone()))?.clone();
                if matches!(mode, CreateMode::PersistentSequential | CreateMode::EphemeralSequential) {
                    let name = format!("{}{:010}", path.name(), parent_node.sequence);
                    path = parent.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?;
                    parent_node.sequence += 1;
                    applied.changed.insert(parent.clone());
                }
                if self.nodes.contains_key(&path) {
                    return Err(StoreError::Exists(path));
                }
                parent_node.below = revision;
                self.nodes.insert(parent, parent_node);
                let ephemeral = matches!(mode, CreateMode::Ephemeral | CreateMode::EphemeralSequential);
                let owner = ephemeral.then_some(session);
                let data = Arc::new(data);
                self.insert(path.clone(), Node { data, version: 0, revision, below: revision, owner, sequence: 0 });
            }
            Op::Set(_, data, version) => {
                let old = self.expect(&path, Some(version))?.clone();
                let new = Node { data: Arc::new(data), version: old.version + 1, revision, ..old };
                self.insert(path.clone(), new);
            }
            Op::Delete(_, version) => {
                self.expect(&path, version)?;
                if self.children.get(&path).is_some_and(|c| !c.is_empty()) || path.parent().is_none() {
                    return Err(StoreError::NotEmpty(path));
                }
                self.remove(&path);
                if let Some(parent_node) = path.parent().and_then(|parent| self.nodes.get_mut(&parent)) {
                    parent_node.below = revision;
                }
            }
        }
        applied.changed.insert(path.clone());
        applied.paths.push(path);
        Ok(())
    }

    fn expect(&self, path: &RecordPath, version: Option<Version>) -> Result<&Node> {
        let node = self.nodes.get(path).ok_or_else(|| StoreError::NotFound(path.clone()))?;
        match version {
            Some(Version(version)) if version != node.version => Err(StoreError::Conflict(path.clone())),
            _ => Ok(node),
        }
    }

    fn insert(&mut self, path: RecordPath, node: Node) {
        if let Some(parent) = path.parent() {
            self.children.entry(parent).or_default().insert(path.name().into());
        }
        self.nodes.insert(path, node);
    }

    fn remove(&mut self, path: &RecordPath) {
        self.nodes.remove(path);
        if let Some(parent) = path.parent()
            && let Some(siblings) = self.children.get_mut(&parent)
        {
            siblings.remove(path.name());
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
    }
}

fn data_len(op: &Op) -> usize {
    match op {
        Op::Create(_, data, _) | Op::Set(_, data, _) => data.len(),
        Op::Check(..) | Op::Delete(..) => 0,
    }
}
