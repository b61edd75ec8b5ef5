//! The store of a cluster of one node: a tree in memory, with every change on disk before it is acknowledged.
//!
//! Records are rows of one redb database (`store.redb`); each store transaction is one durable database transaction.
//! Reads are served from the tree. The database's lock keeps a second process from opening the same folder.

use crate::{
    CreateMode, Op, Record, Result, Session, SessionState, Store, StoreError, Version, Watch,
    local::{self, Local},
    subtree,
    tree::{Node, SessionId, Tree},
    types::lock,
};
use async_trait::async_trait;
use drover_model::RecordPath;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::sync::watch;

/// Row: version, revision, owning session (0 if none), next sequence number, data.
type Row = (i64, i64, u64, u64, &'static [u8]);

/// Table of records by path.
const RECORDS: TableDefinition<'_, &str, Row> = TableDefinition::new("records");

/// Size of the database's cache in bytes; small, because reads are served from the tree.
const CACHE_SIZE: usize = 1 << 20;

/// Name of the database file.
const FILE: &str = "store.redb";

/// A session on the embedded store. [`EmbeddedStore::another_session`] opens more in the same process.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    id: SessionId,
    state: watch::Sender<Session>,
}

struct Shared {
    file: PathBuf,
    database: Database,
    local: Mutex<Local>,
    /// Held during a whole change, so that changes have the same order on disk and in the tree.
    writing: Mutex<()>,
}

impl EmbeddedStore {
    /// Opens the store in a folder, which is created if necessary. Deletes ephemeral records of earlier processes.
    ///
    /// # Errors
    /// [`StoreError::Broken`], with the file's name, if another process has it open or it cannot be read.
    pub fn open(folder: &Path) -> Result<EmbeddedStore> {
        let file = folder.join(FILE);
        let broken = |what: &str, why: String| StoreError::Broken(format!("{what} {}: {why}", file.display()));
        std::fs::create_dir_all(folder).map_err(|e| broken("cannot create the folder of", e.to_string()))?;
        let database = Database::builder().set_cache_size(CACHE_SIZE).create(&file).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => {
                broken("cannot open", "another process has it open; is a droverd running already?".to_owned())
            }
            error => broken("cannot open", error.to_string()),
        })?;
        let tree = load(&database).map_err(|why| broken("cannot read", why))?;
        if !tree.is_complete() {
            return Err(broken("cannot use", "records without parents; the file is corrupt".to_owned()));
        }
        let shared = Arc::new(Shared { file, database, local: Mutex::new(Local::new(tree)), writing: Mutex::new(()) });
        let stale = lock(&shared.local).tree.ephemerals(None);
        if !stale.is_empty() {
            let ops = stale.into_iter().map(|path| Op::Delete(path, None)).collect();
            local::several(shared.change(ops, 0)?)?;
        }
        Ok(Self::session_on(shared))
    }

    /// Opens another session on the same store.
    #[must_use]
    pub fn another_session(&self) -> EmbeddedStore {
        Self::session_on(self.shared.clone())
    }

    fn session_on(shared: Arc<Shared>) -> EmbeddedStore {
        let id = lock(&shared.local).new_session();
        let state = watch::channel(Session { generation: 1, state: SessionState::Connected }).0;
        EmbeddedStore { shared, id, state }
    }

    fn ensure_open(&self) -> Result<()> {
        match self.state.borrow().state {
            SessionState::Closed => Err(StoreError::Closed),
            _ => Ok(()),
        }
    }

    async fn change(&self, ops: Vec<Op>) -> Result<std::result::Result<Vec<RecordPath>, (usize, StoreError)>> {
        self.ensure_open()?;
        let (shared, id, what) = (self.shared.clone(), self.id, local::describe(&ops));
        let task = tokio::task::spawn_blocking(move || shared.change(ops, id));
        match task.await {
            Ok(outcome) => outcome.map(|result| result.map(|applied| applied.paths)),
            Err(error) => Err(StoreError::Unknown { what, why: error.to_string() }),
        }
    }
}

fn load(database: &Database) -> std::result::Result<Tree, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut tree = Tree::new();
    let read = database.begin_read().map_err(|e| text(&e))?;
    let table = match read.open_table(RECORDS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(tree),
        Err(error) => return Err(text(&error)),
    };
    for row in table.iter().map_err(|e| text(&e))? {
        let (path, node) = row.map_err(|e| text(&e))?;
        let path = RecordPath::new(path.value()).map_err(|e| text(&e))?;
        let (version, revision, owner, sequence, data) = node.value();
        let owner = (owner != 0).then_some(owner);
        tree.restore(path, Node { data: Arc::new(data.to_vec()), version, revision, below: revision, owner, sequence });
    }
    Ok(tree)
}

impl Shared {
    /// Applies a transaction to a clone of the tree, commits it to disk, and only then makes it visible.
    fn change(
        &self,
        ops: Vec<Op>,
        session: SessionId,
    ) -> Result<std::result::Result<crate::tree::Applied, (usize, StoreError)>> {
        let _order = lock(&self.writing);
        let mut next = lock(&self.local).tree.clone();
        let applied = match next.apply(ops, session) {
            Ok(applied) => applied,
            Err(refused) => return Ok(Err(refused)),
        };
        self.save(&next, &applied.changed).map_err(|why| {
            // A failed commit may be on disk or not, while the tree in memory continues without it.
            StoreError::Unknown { what: format!("write {}", self.file.display()), why }
        })?;
        let mut local = lock(&self.local);
        local.tree = next;
        local.wake(&applied.changed, |_| false);
        Ok(Ok(applied))
    }

    fn save(&self, tree: &Tree, changed: &BTreeSet<RecordPath>) -> std::result::Result<(), String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let write = self.database.begin_write().map_err(|e| text(&e))?;
        {
            let mut table = write.open_table(RECORDS).map_err(|e| text(&e))?;
            for path in changed {
                match tree.node(path) {
                    Some(node) => {
                        let Node { data, version, revision, owner, sequence, below: _ } = node;
                        let row = (*version, *revision, owner.unwrap_or(0), *sequence, data.as_slice());
                        table.insert(path.as_str(), row).map_err(|e| text(&e))?;
                    }
                    None => {
                        table.remove(path.as_str()).map_err(|e| text(&e))?;
                    }
                }
            }
        }
        write.commit().map_err(|e| text(&e))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, path: &RecordPath) -> Result<Option<Record>> {
        self.ensure_open()?;
        Ok(lock(&self.shared.local).tree.get(path))
    }

    async fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        self.ensure_open()?;
        lock(&self.shared.local).tree.children(path)
    }

    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> Result<RecordPath> {
        let paths = local::single(self.change(vec![Op::Create(path.clone(), data, mode)]).await?)?;
        paths.into_iter().next().ok_or_else(|| StoreError::Broken("a created record has no path".to_owned()))
    }

    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> Result<Version> {
        local::single(self.change(vec![Op::Set(path.clone(), data, expected)]).await?)?;
        Ok(Version(expected.0 + 1))
    }

    async fn delete(&self, path: &RecordPath, expected: Option<Version>) -> Result<()> {
        local::single(self.change(vec![Op::Delete(path.clone(), expected)]).await?).map(|_| ())
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<()> {
        match self.change(ops).await? {
            Ok(_) => Ok(()),
            Err(refused) => local::several(Err(refused)).map(|_| ()),
        }
    }

    async fn sync(&self) -> Result<()> {
        self.ensure_open()
    }

    async fn watch(&self, path: &RecordPath) -> Result<Watch> {
        self.ensure_open()?;
        let (waker, watch) = Watch::new();
        lock(&self.shared.local).add_watch(self.id, path, waker);
        Ok(watch)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.state.subscribe()
    }

    async fn close(&self) {
        let ephemerals = lock(&self.shared.local).tree.ephemerals(Some(self.id));
        if !ephemerals.is_empty() {
            let ops = ephemerals.into_iter().map(|path| Op::Delete(path, None)).collect();
            if let Err(error) = self.change(ops).await {
                tracing::warn!(%error, "cannot delete ephemeral records; they stay until the next start");
            }
        }
        lock(&self.shared.local).drop_watches(self.id);
        self.state.send_modify(|session| session.state = SessionState::Closed);
    }

    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> Result<()> {
        subtree::rename(self, from, to).await
    }
}
