//! The tree of records as a pure value: ZooKeeper's rules for creating, replacing and deleting, without its network.
//!
//! The in-memory and the embedded back end are both this tree; what differs is who shares it and where it is kept.

use crate::{CreateMode, Op, Record, Result, StoreError, Version};
use drover_model::RecordPath;
use imbl::{OrdMap, OrdSet};
use std::{collections::BTreeSet, sync::Arc};

/// Names a session within one tree. Never used again.
pub(crate) type SessionId = u64;

/// The most data that one record, or one atomic change, may carry: ZooKeeper's `jute.maxbuffer` (1 MiB) less room for
/// paths and headers.
pub(crate) const DATA_MAX: usize = 1_000_000;

/// One record with its place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Shared, so that a copy of the whole tree is cheap.
    pub(crate) data: Arc<Vec<u8>>,
    pub(crate) version: i64,
    pub(crate) revision: i64,
    /// The session that an ephemeral record lives with.
    pub(crate) owner: Option<SessionId>,
    /// How many sequential children were made below it.
    pub(crate) sequence: u64,
}

/// All records. A copy shares everything with the original, so that a change can be made on a copy and thrown away.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    nodes: OrdMap<RecordPath, Node>,
    children: OrdMap<RecordPath, OrdSet<Arc<str>>>,
    revision: i64,
}

/// What an atomic change did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Applied {
    /// The record that each operation was about, with the number appended that a sequential one got.
    pub(crate) paths: Vec<RecordPath>,
    /// Every record that is different now (parents of sequential ones, whose counter rose, included).
    pub(crate) touched: BTreeSet<RecordPath>,
}

impl Tree {
    /// With nothing but the root.
    pub(crate) fn new() -> Tree {
        let root = Node { data: Arc::default(), version: 0, revision: 0, owner: None, sequence: 0 };
        Tree { nodes: OrdMap::unit(RecordPath::root(), root), children: OrdMap::new(), revision: 0 }
    }

    /// Puts back a record that was kept. Records may come in any order.
    pub(crate) fn restore(&mut self, path: RecordPath, node: Node) {
        self.revision = self.revision.max(node.revision);
        self.put(path, node);
    }

    /// Whether every record has its parent.
    pub(crate) fn is_whole(&self) -> bool {
        self.nodes.keys().all(|path| path.parent().is_none_or(|parent| self.nodes.contains_key(&parent)))
    }

    pub(crate) fn node(&self, path: &RecordPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(crate) fn get(&self, path: &RecordPath) -> Option<Record> {
        let node = self.nodes.get(path)?;
        Some(Record { data: node.data.to_vec(), version: Version(node.version), revision: node.revision })
    }

    pub(crate) fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        if !self.nodes.contains_key(path) {
            return Err(StoreError::NotFound(path.clone()));
        }
        Ok(self.children.get(path).map(|c| c.iter().map(|name| name.to_string()).collect()).unwrap_or_default())
    }

    /// Every record that a session's end takes with it.
    pub(crate) fn ephemerals(&self, session: Option<SessionId>) -> Vec<RecordPath> {
        let of = |node: &Node| node.owner.is_some() && (session.is_none() || node.owner == session);
        self.nodes.iter().filter(|(_, node)| of(node)).map(|(path, _)| path.clone()).collect()
    }

    /// All of the operations, or none: then the index of the refused one and why.
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
        let mut undo: Vec<(RecordPath, Option<Node>)> = Vec::new();
        let mut applied = Applied::default();
        let revision = self.revision + 1;
        for (index, op) in ops.into_iter().enumerate() {
            if let Err(error) = self.one(op, session, revision, &mut undo, &mut applied) {
                for (path, node) in undo.into_iter().rev() {
                    match node {
                        Some(node) => self.put(path, node),
                        None => self.take(&path),
                    }
                }
                return Err((index, error));
            }
        }
        if !undo.is_empty() {
            self.revision = revision;
        }
        Ok(applied)
    }

    fn one(
        &mut self,
        op: Op,
        session: SessionId,
        revision: i64,
        undo: &mut Vec<(RecordPath, Option<Node>)>,
        applied: &mut Applied,
    ) -> Result<()> {
        let mut path = op.path().clone();
        match op {
            Op::Check(_, version) => {
                self.expect(&path, Some(version))?;
                applied.paths.push(path);
                return Ok(());
            }
            Op::Create(_, data, mode) => {
                let parent = path.parent().ok_or_else(|| StoreError::Exists(path.clone()))?;
                let above = self.nodes.get(&parent).filter(|n| n.owner.is_none());
                let mut above = above.ok_or_else(|| StoreError::NoParent(path.clone()))?.clone();
                if matches!(mode, CreateMode::PersistentSequential | CreateMode::EphemeralSequential) {
                    let name = format!("{}{:010}", path.name(), above.sequence);
                    path = parent.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?;
                    undo.push((parent.clone(), Some(above.clone())));
                    above.sequence += 1;
                    self.put(parent.clone(), above);
                    applied.touched.insert(parent);
                }
                if self.nodes.contains_key(&path) {
                    return Err(StoreError::Exists(path));
                }
                let ephemeral = matches!(mode, CreateMode::Ephemeral | CreateMode::EphemeralSequential);
                undo.push((path.clone(), None));
                let owner = ephemeral.then_some(session);
                self.put(path.clone(), Node { data: Arc::new(data), version: 0, revision, owner, sequence: 0 });
            }
            Op::Set(_, data, version) => {
                let old = self.expect(&path, Some(version))?.clone();
                let new = Node { data: Arc::new(data), version: old.version + 1, revision, ..old.clone() };
                undo.push((path.clone(), Some(old)));
                self.put(path.clone(), new);
            }
            Op::Delete(_, version) => {
                let old = self.expect(&path, version)?.clone();
                if self.children.get(&path).is_some_and(|c| !c.is_empty()) || path.parent().is_none() {
                    return Err(StoreError::NotEmpty(path));
                }
                undo.push((path.clone(), Some(old)));
                self.take(&path);
            }
        }
        applied.touched.insert(path.clone());
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

    fn put(&mut self, path: RecordPath, node: Node) {
        if let Some(parent) = path.parent() {
            self.children.entry(parent).or_default().insert(path.name().into());
        }
        self.nodes.insert(path, node);
    }

    fn take(&mut self, path: &RecordPath) {
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
