//! Keeps a copy of a subtree in memory current: one watch, and reads of what it names.

use crate::{Record, Result, Store, StoreError, Wakeup};
use drover_model::RecordPath;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How many records are read by one request when everything is read: enough to save most of the requests, few enough
/// for an answer of a moderate size.
const BATCH: usize = 32;
/// How many such requests, or reads of single records, are under way at once: enough to fill the way to the store, few
/// enough for its queue.
const IN_FLIGHT: usize = 4;
/// See [`IN_FLIGHT`].
const SINGLE_IN_FLIGHT: usize = 64;
/// Everything is read anew at most so much later than it could be, by those who come last ([`Mirror::in_turn`]).
const SPREAD_MAX: Duration = Duration::from_secs(4);
/// How many records one may have for each millisecond that it waits at most.
const SPREAD_RECORDS: u64 = 10;
/// How soon a failed read is tried again, if no wake-up comes before.
const RETRY: Duration = Duration::from_millis(500);

/// Takes the copies.
pub trait Sink: Send {
    /// This is everything: the first load.
    fn replace_all(&mut self, records: Vec<(RecordPath, Record)>);
    /// These records are so now; `None`: they do not exist.
    fn apply(&mut self, changes: Vec<(RecordPath, Option<Record>)>);
}

/// How far the copy can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    loads: u64,
}

impl Freshness {
    /// Whether everything was read at least once.
    pub fn is_loaded(&self) -> bool {
        self.loads > 0
    }
}

/// Feeds a [`Sink`].
pub struct Mirror<S> {
    store: Arc<dyn Store>,
    root: RecordPath,
    sink: S,
    /// The revision of each record that the sink has: an older read never replaces a newer one.
    have: BTreeMap<RecordPath, i64>,
    /// What is at these and below is left out.
    without: Vec<RecordPath>,
    /// Below which there is nothing.
    is_leaf: fn(&RecordPath) -> bool,
    /// When this one reads everything anew, among all who do: from 0 (at once) to 1000 (last).
    turn: u64,
    freshness: watch::Sender<Freshness>,
}

impl<S: Sink> Mirror<S> {
    /// Of everything at `root` and below.
    pub fn new(store: Arc<dyn Store>, root: RecordPath, sink: S) -> Mirror<S> {
        let freshness = watch::channel(Freshness::default()).0;
        Mirror { store, root, sink, have: BTreeMap::new(), without: Vec::new(), is_leaf: |_| false, turn: 0, freshness }
    }

    /// Leaves out a subtree: it is neither read, nor does a change in it wake anybody.
    #[must_use]
    pub fn without(mut self, subtree: RecordPath) -> Mirror<S> {
        self.without.push(subtree);
        self
    }

    /// Says below which records there is nothing, so that it is not asked for.
    #[must_use]
    pub fn with_leaves(self, is_leaf: fn(&RecordPath) -> bool) -> Mirror<S> {
        Mirror { is_leaf, ..self }
    }

    /// Has its own moment, by its name, when everything is read anew after a connection was lost: an ensemble that
    /// comes back is not asked for everything by everybody at once. The more there is, the longer they are spread over.
    /// The first load does not wait.
    #[must_use]
    pub fn in_turn(self, name: &str) -> Mirror<S> {
        // FNV-1a: the same in each run, and near names are far apart.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Mirror { turn: (hash >> 16) % 1001, ..self }
    }

    fn is_left_out(&self, path: &RecordPath) -> bool {
        self.without.iter().any(|subtree| path.is_within(subtree))
    }

    /// How long it waits for its turn to read everything anew.
    fn waits(&self) -> Duration {
        let records = u64::try_from(self.have.len()).unwrap_or(u64::MAX);
        let spread = Duration::from_millis(records / SPREAD_RECORDS).min(SPREAD_MAX);
        spread.mul_f64(self.turn as f64 / 1000.0)
    }

    /// Tells when the first load is done.
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
                tokio::time::sleep(self.waits()).await;
            }
            // Until it is read: later wake-ups are folded in, a failure is tried again.
            while let Err(error) = self.read(&wakeup).await {
                if error == StoreError::Closed {
                    return;
                }
                tracing::debug!(%error, "cannot read the store now");
                tokio::select! {
                    biased;
                    more = watch.next() => match more {
                        Some(more) => wakeup.merge(more),
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
                // What others wrote while we could not hear of it must be in what we read.
                self.store.sync().await?;
                let records = self.read_all().await?;
                self.take_all(records);
                self.freshness.send_modify(|f| f.loads += 1);
            }
            Wakeup::Paths(paths) => {
                let mut reads = FuturesOrdered::new();
                let mut changes = Vec::with_capacity(paths.len());
                let mut paths = paths.iter().filter(|path| !self.is_left_out(path));
                loop {
                    while reads.len() < SINGLE_IN_FLIGHT
                        && let Some(path) = paths.next()
                    {
                        let store = &self.store;
                        reads.push_back(async move { (path, store.get(path).await) });
                    }
                    let Some((path, record)) = reads.next().await else { break };
                    let record = record?;
                    let is_old = |r: &Record| self.have.get(path).is_some_and(|have| *have >= r.revision);
                    if !record.as_ref().is_some_and(is_old) {
                        changes.push((path.clone(), record));
                    }
                }
                // Only now that all of them were read: what a failed pass had read is read again by the next.
                for (path, record) in &changes {
                    match record {
                        Some(record) => self.have.insert(path.clone(), record.revision),
                        None => self.have.remove(path),
                    };
                }
                if !changes.is_empty() {
                    self.sink.apply(changes);
                }
            }
        }
        Ok(())
    }

    /// Hands on everything that was read: as it is the first time, and what is different after that. After a lost
    /// connection that is little, and whoever looks at the copy need not look at all of it again.
    fn take_all(&mut self, records: Vec<(RecordPath, Record)>) {
        let now: BTreeMap<RecordPath, i64> =
            records.iter().map(|(path, record)| (path.clone(), record.revision)).collect();
        let before = std::mem::replace(&mut self.have, now);
        if !self.freshness.borrow().is_loaded() {
            return self.sink.replace_all(records);
        }
        // A revision is never used twice: a record that was deleted and made again has another one.
        let is_new = |path: &RecordPath, record: &Record| before.get(path) != Some(&record.revision);
        let gone = before.keys().filter(|path| !self.have.contains_key(*path)).map(|path| (path.clone(), None));
        let mut changes: Vec<(RecordPath, Option<Record>)> = gone.collect();
        changes.extend(records.into_iter().filter(|(path, record)| is_new(path, record)).map(|(p, r)| (p, Some(r))));
        if !changes.is_empty() {
            self.sink.apply(changes);
        }
    }

    /// Walks the whole subtree, many records by one request. Records that vanish meanwhile are left out: the watch
    /// tells of them.
    async fn read_all(&self) -> Result<Vec<(RecordPath, Record)>> {
        let mut todo = vec![self.root.clone()];
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
                for name in names {
                    let child = path.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?;
                    if !self.is_left_out(&child) {
                        todo.push(child);
                    }
                }
                out.extend(record.map(|record| (path, record)));
            }
        }
    }
}
