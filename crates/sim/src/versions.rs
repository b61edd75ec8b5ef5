//! A cluster of two versions: a layer between an agent and the store. It converts the records of newer daemons to the
//! newer layout ([`crate::layout`]), and checks what old daemons do with such records.

use crate::{
    invariants::Judge,
    layout::{self, CHILD, Care, Kind},
};
use async_trait::async_trait;
use drover_model::{Dice, NodeRecord, RecordKind, RecordPath, VmRecord};
use drover_store::{CreateMode, Op, Record, Result, Session, Store, Version, Watch, memory::MemoryCluster};
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, time::Instant};

/// How long a record stays foreign, in milliseconds: then the newer daemon no longer needs the foreign value.
const FOREIGN_MS: Range<u64> = 200..15_000;

/// State shared by all newer daemons of a run. Clones share it.
#[derive(Clone)]
pub(crate) struct Newer {
    state: Arc<Mutex<State>>,
    cluster: MemoryCluster,
    judge: Judge,
}

struct State {
    dice: Dice,
    /// Number of records that they wrote.
    serial: u64,
    /// Records with a foreign value, and until when they have it.
    foreign: Vec<(Instant, RecordPath)>,
    /// Whether they no longer use foreign values.
    calm: bool,
}

impl Newer {
    pub(crate) fn new(seed: u64, cluster: MemoryCluster, judge: Judge) -> Newer {
        let state = State { dice: Dice::new(seed), serial: 0, foreign: Vec::new(), calm: false };
        Newer { state: Arc::new(Mutex::new(state)), cluster, judge }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Converts a record that a newer daemon writes.
    fn write(&self, path: &RecordPath, data: Vec<u8>, always: bool) -> Vec<u8> {
        let Some(kind) = layout::kind_of(path) else { return data };
        let mut state = self.lock();
        let State { dice, serial, foreign, calm } = &mut *state;
        *serial += 1;
        let per_mille = match (*calm, always) {
            (true, _) => 0,
            (false, true) => 1000,
            (false, false) => kind.foreign_per_mille,
        };
        let (data, is_foreign) = kind.newer(&data, *serial, dice, per_mille);
        if is_foreign {
            foreign.push((Instant::now() + dice.millis(&FOREIGN_MS), path.clone()));
            drop(state);
            self.judge.note(&format!("a newer daemon writes {path} in words of its own"), |t| t.foreign += 1);
        }
        data
    }

    /// Some newer daemon puts a foreign value into a record.
    pub(crate) fn speak(&self, path: &RecordPath) {
        let Some(record) = self.cluster.peek(path) else { return };
        let data = self.write(path, layout::understood(path, &record.data).into_owned(), true);
        self.change(Op::Set(path.clone(), data, record.version));
    }

    /// A newer daemon creates a record of an unknown kind below another, and one below that.
    pub(crate) fn bear(&self, path: &RecordPath) {
        let Ok(child) = path.join(CHILD) else { return };
        self.change(Op::Create(child.clone(), b"{\"later\":[1]}".to_vec(), CreateMode::Persistent));
        if let Ok(deeper) = child.join(CHILD) {
            self.change(Op::Create(deeper, Vec::new(), CreateMode::Persistent));
        }
    }

    /// Replaces the foreign values whose time is over.
    pub(crate) fn pass(&self) {
        let now = Instant::now();
        let due: Vec<_> = self.lock().foreign.extract_if(.., |(at, _)| *at <= now).collect();
        due.into_iter().for_each(|(_, path)| self.translate(&path));
    }

    /// Replaces all foreign values, and uses no more of them.
    pub(crate) fn calm(&self) {
        self.lock().calm = true;
        let all = std::mem::take(&mut self.lock().foreign);
        all.into_iter().for_each(|(_, path)| self.translate(&path));
    }

    fn translate(&self, path: &RecordPath) {
        let Some(record) = self.cluster.peek(path) else { return };
        if let Some(data) = layout::in_plain_words(&record.data) {
            self.judge.note(&format!("{path} is in plain words again"), |_| ());
            self.change(Op::Set(path.clone(), data, record.version));
        }
    }

    /// Applies a change. A refusal is harmless: the record exists already, or is gone.
    fn change(&self, op: Op) {
        if let Err(error) = self.cluster.apply(vec![op]) {
            tracing::trace!(%error, "nothing to do for a newer daemon");
        }
    }
}

/// The store as seen by a daemon of either version.
pub(crate) struct Versioned {
    truth: Arc<dyn Store>,
    newer: Newer,
    /// The daemon's node.
    who: String,
    is_newer: bool,
}

impl Versioned {
    pub(crate) fn new(truth: Arc<dyn Store>, newer: Newer, who: String, is_newer: bool) -> Versioned {
        Versioned { truth, newer, who, is_newer }
    }

    fn written(&self, path: &RecordPath, data: Vec<u8>) -> Vec<u8> {
        if self.is_newer { self.newer.write(path, data, false) } else { data }
    }

    /// Checks a change by an old daemon, even if the store will refuse it: the version in it shows that the daemon has
    /// read the record.
    fn check(&self, ops: &[Op]) {
        if self.is_newer {
            return;
        }
        let goes = |path: &RecordPath| ops.iter().any(|op| matches!(op, Op::Delete(..)) && op.path() == path);
        for op in ops {
            let path = op.path();
            let Some(before) = self.newer.cluster.peek(path) else { continue };
            let expected = match op {
                Op::Set(_, _, version) => Some(*version),
                Op::Delete(_, version) => *version,
                Op::Check(..) | Op::Create(..) => continue,
            };
            if expected.is_some_and(|version| version != before.version) {
                continue;
            }
            let Some(kind) = layout::kind_of(path) else {
                if is_child(path) && !above(path).is_some_and(|above| goes(&above)) {
                    self.violated(&format!("touches {path}, of a kind that it does not know"));
                }
                continue;
            };
            match op {
                Op::Set(_, after, _) => self.check_set(kind, path, &before.data, after),
                // Reports may be deleted, and so may the records of a VM that is deleted as a whole.
                _ if kind.care != Care::Keeps || kind.reads(&before.data) => {}
                _ if kind.at == drover_model::Fault::AT && ops.len() > 1 => {}
                _ => self.violated(&format!("deletes {path}, which it cannot read")),
            }
        }
    }

    fn check_set(&self, kind: &Kind, path: &RecordPath, before: &[u8], after: &[u8]) {
        let readable = kind.reads(before);
        if !kind.reads(after) {
            self.violated(&format!("writes {path} so that it cannot be read: {}", String::from_utf8_lossy(after)));
        }
        match kind.care {
            Care::FromNothing => {}
            Care::Reports if !readable => {}
            Care::Keeps if !readable => self.violated(&format!("writes over {path}, which it cannot read")),
            Care::Keeps | Care::Reports => {
                if let Some(lost) = layout::lost(kind, before, after) {
                    self.violated(&format!("rewrites {path} and loses what it does not know: {lost}"));
                }
            }
        }
    }

    fn violated(&self, what: &str) {
        self.newer.judge.violated(format!("{}, an old daemon, {what}", self.who));
    }

    fn read(&self, path: &RecordPath, record: Option<Record>) -> Option<Record> {
        match self.is_newer {
            true => record.map(|r| Record { data: layout::understood(path, &r.data).into_owned(), ..r }),
            false => record,
        }
    }
}

/// Whether a record is of a kind that only the newer version has.
fn is_child(path: &RecordPath) -> bool {
    above(path).is_some_and(|above| above != *path) && layout::kind_of(path).is_none()
}

/// The record of the VM or node that a record is, or is below.
fn above(path: &RecordPath) -> Option<RecordPath> {
    let mut at = Some(path.clone());
    while let Some(path) = at {
        if VmRecord::key(&path).is_some() || NodeRecord::key(&path).is_some() {
            return Some(path);
        }
        at = path.parent();
    }
    None
}

#[async_trait]
impl Store for Versioned {
    async fn get(&self, path: &RecordPath) -> Result<Option<Record>> {
        Ok(self.read(path, self.truth.get(path).await?))
    }
    async fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        self.truth.children(path).await
    }
    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> Result<RecordPath> {
        self.truth.create(path, self.written(path, data), mode).await
    }
    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> Result<Version> {
        self.check(&[Op::Set(path.clone(), data.clone(), expected)]);
        self.truth.set(path, self.written(path, data), expected).await
    }
    async fn delete(&self, path: &RecordPath, expected: Option<Version>) -> Result<()> {
        self.check(&[Op::Delete(path.clone(), expected)]);
        self.truth.delete(path, expected).await
    }
    async fn multi(&self, ops: Vec<Op>) -> Result<()> {
        self.check(&ops);
        let written = |op| match op {
            Op::Create(path, data, mode) => Op::Create(path.clone(), self.written(&path, data), mode),
            Op::Set(path, data, version) => Op::Set(path.clone(), self.written(&path, data), version),
            op => op,
        };
        self.truth.multi(ops.into_iter().map(written).collect()).await
    }
    async fn sync(&self) -> Result<()> {
        self.truth.sync().await
    }
    async fn watch(&self, path: &RecordPath) -> Result<Watch> {
        self.truth.watch(path).await
    }
    fn session(&self) -> watch::Receiver<Session> {
        self.truth.session()
    }
    async fn close(&self) {
        self.truth.close().await;
    }
    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> Result<()> {
        self.truth.rename(from, to).await
    }
}
