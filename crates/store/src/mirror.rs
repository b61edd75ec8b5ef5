//! Keeps a copy of a subtree in memory current: one watch, and reads of what it names.

use crate::{Record, Result, Store, StoreError, Wakeup};
use drover_model::RecordPath;
use futures_util::stream::{FuturesOrdered, StreamExt};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How many reads are under way at once when everything is read: enough to fill the way to the store, few enough for its queue.
const IN_FLIGHT: usize = 64;
/// How often one of them is sent when no answer comes.
const TRIES: usize = 4;
/// How soon a failed read is tried again, if no wake-up comes before.
const RETRY: Duration = Duration::from_millis(500);

/// Takes the copies.
pub trait Sink: Send {
    /// This is everything, and replaces whatever was there.
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
    /// What is below this is left out.
    without: Option<RecordPath>,
    freshness: watch::Sender<Freshness>,
}

/// A read among many, tried again by itself when no answer comes: one lost answer must not cost all the others.
async fn again<T, F: Future<Output = Result<T>>>(read: impl Fn() -> F) -> Result<T> {
    for _ in 1..TRIES {
        match read().await {
            Err(StoreError::Unknown { .. }) => {}
            answer => return answer,
        }
    }
    read().await
}

impl<S: Sink> Mirror<S> {
    /// Of everything at `root` and below.
    pub fn new(store: Arc<dyn Store>, root: RecordPath, sink: S) -> Mirror<S> {
        let freshness = watch::channel(Freshness::default()).0;
        Mirror { store, root, sink, have: BTreeMap::new(), without: None, freshness }
    }

    /// Leaves out a subtree: it is neither read, nor does a change in it wake anybody.
    #[must_use]
    pub fn without(self, subtree: RecordPath) -> Mirror<S> {
        Mirror { without: Some(subtree), ..self }
    }

    fn is_left_out(&self, path: &RecordPath) -> bool {
        self.without.as_ref().is_some_and(|subtree| path.is_within(subtree))
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
                self.have = records.iter().map(|(path, record)| (path.clone(), record.revision)).collect();
                self.sink.replace_all(records);
                self.freshness.send_modify(|f| f.loads += 1);
            }
            Wakeup::Paths(paths) => {
                let mut reads = FuturesOrdered::new();
                let mut changes = Vec::with_capacity(paths.len());
                let mut paths = paths.iter().filter(|path| !self.is_left_out(path));
                loop {
                    while reads.len() < IN_FLIGHT
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

    /// Walks the whole subtree, level by level, many reads at a time. Records that vanish meanwhile are left out: the watch tells of them.
    async fn read_all(&self) -> Result<Vec<(RecordPath, Record)>> {
        let mut todo = vec![self.root.clone()];
        let mut reads = FuturesOrdered::new();
        let mut out = Vec::new();
        loop {
            while reads.len() < IN_FLIGHT
                && let Some(path) = todo.pop()
            {
                reads.push_back(async move {
                    let (record, children) =
                        tokio::join!(again(|| self.store.get(&path)), again(|| self.store.children(&path)));
                    (path, record, children)
                });
            }
            let Some((path, record, children)) = reads.next().await else { return Ok(out) };
            match children {
                Ok(names) => {
                    for name in names {
                        let child = path.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?;
                        if !self.is_left_out(&child) {
                            todo.push(child);
                        }
                    }
                }
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            if let Some(record) = record? {
                out.push((path, record));
            }
        }
    }
}
