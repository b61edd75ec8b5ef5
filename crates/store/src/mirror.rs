//! Keeps an in-memory copy of a subtree current, with one watch, and reads of what it names.
//!
//! After a lost connection anything may have changed, and the store does not say what. Then every record of the copy is
//! read and compared; the names below a record are listed only where [`Record::below`] says that they may have changed
//! since they were last listed.

use crate::{Found, Record, Result, Store, StoreError, Wakeup};
use drover_model::RecordPath;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Batch size for reading everything: large enough to save most of the requests, small enough for an answer of moderate
/// size.
const BATCH: usize = 64;
/// Maximum number of concurrent batches: enough to use the connection to the store, few enough for its queue.
const IN_FLIGHT: usize = 4;
/// Maximum delay before everything is read again ([`Mirror::in_turn`]).
const SPREAD_MAX: Duration = Duration::from_secs(4);
/// Records per millisecond of that maximum delay.
const SPREAD_RECORDS: u64 = 10;
/// Pause before a failed read is retried, unless a notification comes first.
const RETRY: Duration = Duration::from_millis(500);

/// Receives the records.
pub trait Sink: Send {
    /// The first load: all records.
    fn replace_all(&mut self, records: Vec<(RecordPath, Record)>);
    /// These records changed; `None`: deleted.
    fn apply(&mut self, changes: Vec<(RecordPath, Option<Record>)>);
}

/// Whether the copy is complete and current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    loads: u64,
    current: bool,
}

impl Freshness {
    /// Whether everything was read at least once.
    pub fn is_loaded(&self) -> bool {
        self.loads > 0
    }

    /// Whether no change is known to be missing: false from when anything may have changed until everything was
    /// compared.
    pub fn is_current(&self) -> bool {
        self.current
    }
}

/// The state of a record in the sink.
#[derive(Debug, Clone, Copy)]
struct Have {
    /// An older read never replaces a newer one.
    revision: i64,
    /// [`Record::below`] when the names below were last listed, and all of those records read with it; `None`: never.
    /// It is not taken from any other read: the notification of a record below may have been lost with the connection,
    /// after a read that knew of it.
    listed: Option<i64>,
}

/// Changed records; `None`: deleted.
type Changes = Vec<(RecordPath, Option<Record>)>;

/// Keeps a [`Sink`] up to date.
pub struct Mirror<S> {
    store: Arc<dyn Store>,
    root: RecordPath,
    sink: S,
    have: BTreeMap<RecordPath, Have>,
    /// Subtrees that are left out.
    without: Vec<RecordPath>,
    /// Which records have no children.
    is_leaf: fn(&RecordPath) -> bool,
    /// Position in the order in which mirrors read everything again: from 0 (at once) to 1000 (last).
    turn: u64,
    freshness: watch::Sender<Freshness>,
}

impl<S: Sink> Mirror<S> {
    /// A mirror of `root` and everything below.
    pub fn new(store: Arc<dyn Store>, root: RecordPath, sink: S) -> Mirror<S> {
        let freshness = watch::channel(Freshness::default()).0;
        Mirror { store, root, sink, have: BTreeMap::new(), without: Vec::new(), is_leaf: |_| false, turn: 0, freshness }
    }

    /// Leaves out a subtree: it is not read, and changes in it do not notify.
    #[must_use]
    pub fn without(mut self, subtree: RecordPath) -> Mirror<S> {
        self.without.push(subtree);
        self
    }

    /// Sets which records have no children, so that these are not listed.
    #[must_use]
    pub fn with_leaves(self, is_leaf: fn(&RecordPath) -> bool) -> Mirror<S> {
        Mirror { is_leaf, ..self }
    }

    /// Staggers, by name, the time at which everything is read again after a lost connection, so that not every node
    /// asks a recovering ensemble for everything at once. The more records, the longer the spread. The first load does
    /// not wait.
    #[must_use]
    pub fn in_turn(self, name: &str) -> Mirror<S> {
        // FNV-1a: the same in each run, and similar names are spread.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Mirror { turn: (hash >> 16) % 1001, ..self }
    }

    fn is_left_out(&self, path: &RecordPath) -> bool {
        self.without.iter().any(|subtree| path.is_within(subtree))
    }

    /// The delay before everything is read again.
    fn delay(&self) -> Duration {
        let records = u64::try_from(self.have.len()).unwrap_or(u64::MAX);
        let spread = Duration::from_millis(records / SPREAD_RECORDS).min(SPREAD_MAX);
        spread.mul_f64(self.turn as f64 / 1000.0)
    }

    /// Notifies of changes of the freshness.
    pub fn freshness(&self) -> watch::Receiver<Freshness> {
        self.freshness.subscribe()
    }

    /// Runs until the store handle is closed, or until dropped.
    pub async fn run(mut self) {
        let mut watch = loop {
            match self.store.watch(&self.root).await {
                Ok(watch) => break watch,
                Err(StoreError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, root = %self.root, "cannot watch the store yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        while let Some(mut wakeup) = watch.next().await {
            if wakeup == Wakeup::Everything {
                self.freshness.send_modify(|f| f.current = false);
                tokio::time::sleep(self.delay()).await;
            }
            // Retry until the read succeeds; later notifications are merged.
            while let Err(error) = self.read(&wakeup).await {
                if error == StoreError::Closed {
                    return;
                }
                tracing::debug!(%error, "cannot read the store now");
                tokio::select! {
                    biased;
                    more = watch.next() => match more {
                        Some(more) => {
                            wakeup.merge(more);
                            if wakeup == Wakeup::Everything {
                                self.freshness.send_modify(|f| f.current = false);
                            }
                        }
                        None => return,
                    },
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    async fn read(&mut self, wakeup: &Wakeup) -> Result<()> {
        match wakeup {
            Wakeup::Everything => {
                // What was written while we were disconnected must be in what is read.
                self.store.sync().await?;
                if self.freshness.borrow().is_loaded() {
                    self.compare().await?;
                } else {
                    let records = self.read_below(vec![self.root.clone()]).await?;
                    self.have = records.iter().map(|(path, record)| (path.clone(), Have::read(record))).collect();
                    self.sink.replace_all(records);
                }
                self.freshness.send_modify(|f| *f = Freshness { loads: f.loads + 1, current: true });
            }
            Wakeup::Paths(paths) => {
                let wanted = paths.iter().filter(|path| !self.is_left_out(path));
                let wanted: Vec<_> = wanted.map(|path| (path.clone(), false)).collect();
                let mut batches = wanted.chunks(BATCH);
                let mut reads = FuturesOrdered::new();
                let mut changes = Vec::with_capacity(wanted.len());
                loop {
                    while reads.len() < IN_FLIGHT
                        && let Some(batch) = batches.next()
                    {
                        let this = &*self;
                        reads.push_back(async move { (batch, this.read_each(batch).await) });
                    }
                    let Some((batch, found)) = reads.next().await else { break };
                    for ((path, _), (record, _)) in batch.iter().zip(found?) {
                        let is_old = |r: &Record| self.have.get(path).is_some_and(|have| have.revision >= r.revision);
                        if !record.as_ref().is_some_and(is_old) {
                            changes.push((path.clone(), record));
                        }
                    }
                }
                drop(reads);
                // Only after all reads: the next pass repeats those of a failed one.
                self.take(changes);
            }
        }
        Ok(())
    }

    /// Reads records in one request. The busier the cluster is, the more have changed since the last one, and the less
    /// each costs.
    async fn read_each(&self, wanted: &[(RecordPath, bool)]) -> Result<Vec<Found>> {
        match wanted {
            [(path, _)] => Ok(vec![(self.store.get(path).await?, Vec::new())]),
            wanted => self.store.read_many(wanted).await,
        }
    }

    /// Passes changes on to the sink.
    fn take(&mut self, changes: Changes) {
        for (path, record) in &changes {
            match record {
                Some(record) => {
                    let have = self.have.entry(path.clone()).or_insert(Have { revision: 0, listed: None });
                    have.revision = record.revision;
                }
                None => {
                    self.have.remove(path);
                }
            }
        }
        if !changes.is_empty() {
            self.sink.apply(changes);
        }
    }

    /// Reads all records of the sink, and new ones, and passes on the differences only, so that readers of the copy
    /// need not process all of it again.
    async fn compare(&mut self) -> Result<()> {
        let mut changes = Changes::new();
        let mut known: Vec<RecordPath> = self.have.keys().cloned().collect();
        if !self.have.contains_key(&self.root) {
            known.push(self.root.clone());
        }
        // Records whose children may have changed.
        let mut suspects = Vec::new();
        let mut known = known.chunks(BATCH);
        let mut reads = FuturesUnordered::new();
        loop {
            while reads.len() < IN_FLIGHT
                && let Some(batch) = known.next()
            {
                let wanted: Vec<_> = batch.iter().map(|path| (path.clone(), false)).collect();
                let store = &self.store;
                reads.push(async move { (batch, store.read_many(&wanted).await) });
            }
            let Some((batch, found)) = reads.next().await else { break };
            for (path, (record, _)) in batch.iter().zip(found?) {
                let have = self.have.get(path);
                let Some(record) = record else {
                    changes.extend(have.map(|_| (path.clone(), None)));
                    continue;
                };
                if !(self.is_leaf)(path) && have.and_then(|have| have.listed) != Some(record.below) {
                    suspects.push(path.clone());
                }
                // A revision is never reused: a record that was deleted and created again has another one.
                if have.is_none_or(|have| have.revision != record.revision) {
                    changes.push((path.clone(), Some(record)));
                }
            }
        }
        drop(reads);
        let listed = self.list(suspects).await?;
        // A record that was missing a moment ago and exists again is new too.
        let gone: BTreeSet<&RecordPath> = changes.iter().filter(|(_, r)| r.is_none()).map(|(path, _)| path).collect();
        let is_new = |path: &&RecordPath| !self.have.contains_key(*path) || gone.contains(path);
        let new = listed.iter().flat_map(|(_, _, names)| names).filter(is_new);
        let new = self.read_below(new.cloned().collect()).await?;
        let read: Vec<_> = new.iter().map(|(path, record)| (path.clone(), Have::read(record))).collect();
        changes.extend(new.into_iter().map(|(path, record)| (path, Some(record))));
        // Only after everything was read.
        self.take(changes);
        self.have.extend(read);
        for (path, below, _) in listed {
            if let Some(have) = self.have.get_mut(&path) {
                have.listed = Some(below);
            }
        }
        Ok(())
    }

    /// Lists the children of records: each with its [`Record::below`], and the paths that are not left out.
    async fn list(&self, paths: Vec<RecordPath>) -> Result<Vec<(RecordPath, i64, Vec<RecordPath>)>> {
        let mut out = Vec::with_capacity(paths.len());
        for batch in paths.chunks(BATCH) {
            let wanted: Vec<_> = batch.iter().map(|path| (path.clone(), true)).collect();
            for (path, (record, names)) in batch.iter().zip(self.store.read_many(&wanted).await?) {
                if let Some(record) = record {
                    out.push((path.clone(), record.below, self.children(path, names)?));
                }
            }
        }
        Ok(out)
    }

    /// The paths of the children that are not left out.
    fn children(&self, path: &RecordPath, names: Vec<String>) -> Result<Vec<RecordPath>> {
        let child = |name: String| path.join(&name).map_err(|e| StoreError::Broken(e.to_string()));
        let left_out = |child: &Result<RecordPath>| child.as_ref().is_ok_and(|child| self.is_left_out(child));
        names.into_iter().map(child).filter(|child| !left_out(child)).collect()
    }

    /// Reads records and everything below them, in batches. Records that vanish meanwhile are left out: the watch
    /// notifies of them.
    async fn read_below(&self, mut todo: Vec<RecordPath>) -> Result<Vec<(RecordPath, Record)>> {
        let mut reads = FuturesUnordered::new();
        let mut out = Vec::new();
        loop {
            while reads.len() < IN_FLIGHT && !todo.is_empty() {
                let batch = todo.split_off(todo.len().saturating_sub(BATCH));
                let wanted: Vec<_> = batch.into_iter().map(|path| (path.clone(), !(self.is_leaf)(&path))).collect();
                reads.push(async move {
                    let found = self.store.read_many(&wanted).await;
                    (wanted, found)
                });
            }
            let Some((wanted, found)) = reads.next().await else { return Ok(out) };
            for ((path, _), (record, names)) in wanted.into_iter().zip(found?) {
                todo.extend(self.children(&path, names)?);
                out.extend(record.map(|record| (path, record)));
            }
        }
    }
}

impl Have {
    /// For a record that was read with everything below it.
    fn read(record: &Record) -> Have {
        Have { revision: record.revision, listed: Some(record.below) }
    }
}
