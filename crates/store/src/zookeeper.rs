//! The store of a cluster: ZooKeeper, through the `zookeeper-client` crate.
//!
//! The session runs on a thread of its own, so that nothing slow in the daemon can delay its heartbeats. That thread
//! also keeps *one* recursive watch on the whole tree, and distributes its events to our watches. What the crate and
//! ZooKeeper leave to us:
//!
//! * Persistent watches are lost on a reconnect (version 0.11.2 of the crate), and ZooKeeper does not replay what
//!   happened meanwhile in any case (`DataTree.setWatches` of 3.8.0 compares `mzxid` and `pzxid` for watches that fire
//!   once, and only puts persistent ones back): after each reconnect the watch is added again, and each of our watches
//!   is notified that anything may have changed.
//! * Session expiry is noticed late (7/5 of the timeout); then a new session is opened at once, with the next
//!   generation.
//! * Anything but an answer of the server is [`StoreError::Unknown`]: the request may have been executed.

use crate::{
    CreateMode, Found, Op, Record, Result, Session, SessionState, Store, StoreError, Version, Wakeup, Watch, local,
    many, subtree,
    tree::DATA_MAX,
    types::{Waker, lock},
};
use async_trait::async_trait;
use drover_model::RecordPath;
use std::{
    collections::BTreeSet,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use zookeeper_client as zk;

/// Minimum connection timeout for one member of the ensemble; otherwise it is an eighth of the session timeout. A
/// member without power does not answer, and only after the timeout is the next one tried.
const CONNECT_LEAST: Duration = Duration::from_millis(500);
/// The first pause between attempts to open a session; doubles up to [`CONNECT_PAUSE_MAX`].
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const CONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Timeout for the server's answer when a session is closed.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// How to reach the ensemble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The members: `address:port`.
    pub servers: Vec<String>,
    /// The session timeout. The ensemble limits it to 2 to 20 of its ticks.
    pub session_timeout: Duration,
    /// The record under which all of ours are; created if it is missing.
    pub root: RecordPath,
}

/// A session with a ZooKeeper ensemble; reopened when it expires.
pub struct ZooKeeperStore {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    client: watch::Sender<Option<zk::Client>>,
    session: watch::Sender<Session>,
    watches: Mutex<Vec<(RecordPath, Waker)>>,
    closing: watch::Sender<bool>,
    /// Whether the session's thread has ended.
    ended: watch::Sender<bool>,
}

impl ZooKeeperStore {
    /// Starts the session's thread and returns at once: the ensemble may become available later. Until then calls wait,
    /// and fail as unknown at their deadline.
    ///
    /// # Errors
    /// When no server is given, or the thread cannot be started.
    pub fn start(options: Options) -> Result<ZooKeeperStore> {
        if options.servers.is_empty() {
            return Err(StoreError::Broken("no ZooKeeper server is configured".to_owned()));
        }
        let shared = Arc::new(Shared {
            options,
            client: watch::channel(None).0,
            session: watch::channel(Session { generation: 0, state: SessionState::Disconnected }).0,
            watches: Mutex::new(Vec::new()),
            closing: watch::channel(false).0,
            ended: watch::channel(false).0,
        });
        let thread = shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| StoreError::Broken(format!("cannot create a runtime for ZooKeeper: {e}")))?;
        std::thread::Builder::new()
            .name("zookeeper".to_owned())
            .spawn(move || {
                runtime.block_on(thread.keep_session());
                thread.ended.send_replace(true);
            })
            .map_err(|e| StoreError::Broken(format!("cannot start a thread for ZooKeeper: {e}")))?;
        Ok(ZooKeeperStore { shared })
    }

    /// Makes a call in the current session; waits for one if there is none.
    async fn call<T, F: Future<Output = Result<T>>>(&self, what: &str, act: impl FnOnce(zk::Client) -> F) -> Result<T> {
        let unknown = |why: &str| StoreError::Unknown { what: what.to_owned(), why: why.to_owned() };
        let work = async {
            let mut session = self.shared.session.subscribe();
            let state = session.wait_for(|s| s.state != SessionState::Disconnected).await.map(|s| s.state);
            if !matches!(state, Ok(SessionState::Connected)) {
                return Err(StoreError::Closed);
            }
            let client = self.shared.client.borrow().clone();
            act(client.ok_or_else(|| unknown("no session"))?).await
        };
        match timeout(self.shared.options.session_timeout, work).await {
            Ok(answer) => answer,
            Err(_) => Err(unknown("no answer by the deadline")),
        }
    }
}

impl Drop for ZooKeeperStore {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
    }
}

impl Shared {
    /// Opens sessions, one after the other, until closed.
    async fn keep_session(&self) {
        let mut closing = self.closing.subscribe();
        let mut pause = CONNECT_PAUSE;
        loop {
            let attempt = tokio::select! {
                biased;
                _ = closing.wait_for(|c| *c) => break,
                attempt = self.connect() => attempt,
            };
            match attempt {
                Ok((client, watcher)) => {
                    pause = CONNECT_PAUSE;
                    if self.use_session(client, watcher, &mut closing).await {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, servers = ?self.options.servers, "cannot open a session with ZooKeeper yet");
                    tokio::select! {
                        biased;
                        _ = closing.wait_for(|c| *c) => break,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(CONNECT_PAUSE_MAX);
                }
            }
        }
        self.session.send_modify(|s| s.state = SessionState::Closed);
        lock(&self.watches).clear();
    }

    async fn connect(&self) -> std::result::Result<(zk::Client, zk::PersistentWatcher), zk::Error> {
        let timeout = self.options.session_timeout;
        let client = zk::Client::connector()
            .with_session_timeout(timeout)
            .with_connection_timeout((timeout / 8).max(CONNECT_LEAST))
            .with_server_version(3, 8, 0)
            .connect(&self.options.servers.join(","))
            .await?;
        let root = self.options.root.as_str();
        let client = if root == "/" {
            client
        } else {
            client.mkdir(root, &zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())).await?;
            client.chroot(root.to_owned()).map_err(|_| zk::Error::UnexpectedError(format!("bad root {root}")))?
        };
        let watcher = client.watch("/", zk::AddWatchMode::PersistentRecursive).await?;
        Ok((client, watcher))
    }

    /// Serves one session until it ends. Returns whether we are closing.
    async fn use_session(
        &self,
        client: zk::Client,
        mut watcher: zk::PersistentWatcher,
        closing: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut states = client.state_watcher();
        self.client.send_replace(Some(client.clone()));
        self.session.send_modify(|s| *s = Session { generation: s.generation + 1, state: SessionState::Connected });
        tracing::info!(session = %client.session_id(), timeout = ?client.session_timeout(), "connected to ZooKeeper");
        self.wake_all();
        let mut connected = true;
        loop {
            tokio::select! {
                biased;
                _ = closing.wait_for(|c| *c) => {
                    self.client.send_replace(None);
                    self.session.send_modify(|s| s.state = SessionState::Closed);
                    // The session is closed when the last handle is dropped; this thread must live until then.
                    drop((client, watcher));
                    let goodbye = async { while !states.changed().await.is_terminated() {} };
                    // If the server does not answer, the session expires.
                    timeout(CLOSE_WAIT, goodbye).await.ok();
                    return true;
                }
                state = states.changed() => match state {
                    zk::SessionState::SyncConnected => {
                        match client.watch("/", zk::AddWatchMode::PersistentRecursive).await {
                            Ok(new) => watcher = new,
                            Err(error) => {
                                tracing::debug!(%error, "cannot watch ZooKeeper now");
                                continue;
                            }
                        }
                        connected = true;
                        tracing::info!("connected to ZooKeeper again, in the same session");
                        // In this order, so that nobody takes an old state for current.
                        self.wake_all();
                        self.session.send_modify(|s| s.state = SessionState::Connected);
                    }
                    state if state.is_terminated() => {
                        tracing::warn!(%state, "the session with ZooKeeper has ended");
                        self.client.send_replace(None);
                        self.session.send_modify(|s| s.state = SessionState::Disconnected);
                        return false;
                    }
                    _ => {
                        if std::mem::take(&mut connected) {
                            tracing::warn!("lost the connection to ZooKeeper");
                        }
                        self.session.send_modify(|s| s.state = SessionState::Disconnected);
                    }
                },
                event = watcher.changed(), if connected => {
                    if event.path.is_empty() {
                        // A change of the session's state, which the other branch receives too; until it does, there
                        // are no events here.
                        connected = false;
                    } else {
                        self.wake(&event.path);
                    }
                }
            }
        }
    }

    fn wake(&self, path: &str) {
        let Ok(path) = RecordPath::new(path) else { return };
        lock(&self.watches).retain(|(root, waker)| {
            if path.is_within(root) {
                waker.wake(Wakeup::Paths(BTreeSet::from([path.clone()])))
            } else {
                waker.is_watched()
            }
        });
    }

    fn wake_all(&self) {
        lock(&self.watches).retain(|(_, waker)| waker.wake(Wakeup::Everything));
    }
}

fn mode(mode: CreateMode) -> zk::CreateOptions<'static> {
    let mode = match mode {
        CreateMode::Persistent => zk::CreateMode::Persistent,
        CreateMode::Ephemeral => zk::CreateMode::Ephemeral,
        CreateMode::PersistentSequential => zk::CreateMode::PersistentSequential,
        CreateMode::EphemeralSequential => zk::CreateMode::EphemeralSequential,
    };
    mode.with_acls(zk::Acls::anyone_all())
}

fn record(data: Vec<u8>, stat: &zk::Stat) -> Record {
    Record { data, version: Version(stat.version.into()), revision: stat.mzxid, below: stat.pzxid }
}

/// ZooKeeper's type of a version. One out of its range matches no record.
fn version(version: Version) -> i32 {
    i32::try_from(version.0).unwrap_or(i32::MAX)
}

/// The error for a server's answer, or for a missing one.
fn refusal(what: &str, op: &Op, error: zk::Error) -> StoreError {
    let path = op.path().clone();
    match error {
        zk::Error::NoNode if matches!(op, Op::Create(..)) => StoreError::NoParent(path),
        zk::Error::NoNode => StoreError::NotFound(path),
        zk::Error::NodeExists => StoreError::Exists(path),
        zk::Error::BadVersion => StoreError::Conflict(path),
        zk::Error::NotEmpty => StoreError::NotEmpty(path),
        zk::Error::NoChildrenForEphemerals => StoreError::NoParent(path),
        error @ (zk::Error::BadArguments(_) | zk::Error::NoAuth | zk::Error::InvalidAcl | zk::Error::Unimplemented) => {
            StoreError::Broken(format!("ZooKeeper refused to {what}: {error}"))
        }
        error => StoreError::Unknown { what: what.to_owned(), why: error.to_string() },
    }
}

fn fits(ops: &[Op]) -> Result<()> {
    let size = ops.iter().map(|op| match op {
        Op::Create(_, data, _) | Op::Set(_, data, _) => data.len(),
        Op::Check(..) | Op::Delete(..) => 0,
    });
    match size.sum() {
        size if size > DATA_MAX => {
            let what = ops.first().map(|op| op.path().to_string()).unwrap_or_default();
            Err(StoreError::TooLarge { what, size, limit: DATA_MAX })
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Store for ZooKeeperStore {
    async fn get(&self, path: &RecordPath) -> Result<Option<Record>> {
        let what = format!("read {path}");
        self.call(&what, async |client| match client.get_data(path.as_str()).await {
            Ok((data, stat)) => Ok(Some(record(data, &stat))),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(refusal(&what, &Op::Check(path.clone(), Version(0)), error)),
        })
        .await
    }

    async fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        let what = format!("list {path}");
        self.call(&what, async |client| match client.list_children(path.as_str()).await {
            Ok(mut names) => {
                names.sort();
                Ok(names)
            }
            Err(error) => Err(refusal(&what, &Op::Check(path.clone(), Version(0)), error)),
        })
        .await
    }

    /// One request for all (ZooKeeper 3.6 and later: `multiRead`, in which each read has its own result).
    async fn read_many(&self, wanted: &[(RecordPath, bool)]) -> Result<Vec<Found>> {
        let Some((first, _)) = wanted.first() else { return Ok(Vec::new()) };
        let what = format!("read {first} and {} more", wanted.len() - 1);
        let refused = |error| refusal(&what, &Op::Check(first.clone(), Version(0)), error);
        let one_request = || {
            self.call(&what, async |client| {
                let mut reader = client.new_multi_reader();
                for (path, below) in wanted {
                    reader.add_get_data(path.as_str()).map_err(refused)?;
                    if *below {
                        reader.add_get_children(path.as_str()).map_err(refused)?;
                    }
                }
                reader.commit().await.map_err(refused)
            })
        };
        let mut answers = many::retry(one_request).await?.into_iter();
        let short = || StoreError::Broken(format!("ZooKeeper's answer to {what} is short"));
        let mut found = Vec::with_capacity(wanted.len());
        for (_, below) in wanted {
            let record = match answers.next().ok_or_else(short)? {
                zk::MultiReadResult::Data { data, stat } => Some(record(data, &stat)),
                zk::MultiReadResult::Error { err: zk::Error::NoNode } => None,
                zk::MultiReadResult::Error { err } => return Err(refused(err)),
                _ => return Err(short()),
            };
            let names = match below.then(|| answers.next().ok_or_else(short)).transpose()? {
                Some(zk::MultiReadResult::Children { mut children }) => {
                    children.sort();
                    children
                }
                Some(zk::MultiReadResult::Error { err: zk::Error::NoNode }) | None => Vec::new(),
                Some(zk::MultiReadResult::Error { err }) => return Err(refused(err)),
                Some(_) => return Err(short()),
            };
            found.push((record, names));
        }
        Ok(found)
    }

    async fn create(&self, path: &RecordPath, data: Vec<u8>, create: CreateMode) -> Result<RecordPath> {
        let op = Op::Create(path.clone(), data, create);
        fits(std::slice::from_ref(&op))?;
        let what = format!("create {path}");
        let Op::Create(_, data, _) = &op else { return Err(StoreError::Broken(what)) };
        self.call(&what, async |client| match client.create(path.as_str(), data, &mode(create)).await {
            Ok((_, sequence)) => match create {
                CreateMode::Persistent | CreateMode::Ephemeral => Ok(path.clone()),
                CreateMode::PersistentSequential | CreateMode::EphemeralSequential => {
                    RecordPath::new(&format!("{path}{sequence}")).map_err(|e| StoreError::Broken(e.to_string()))
                }
            },
            Err(error) => Err(refusal(&what, &op, error)),
        })
        .await
    }

    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> Result<Version> {
        let op = Op::Set(path.clone(), data, expected);
        fits(std::slice::from_ref(&op))?;
        let what = format!("set {path}");
        let Op::Set(_, data, _) = &op else { return Err(StoreError::Broken(what)) };
        self.call(&what, async |client| match client.set_data(path.as_str(), data, Some(version(expected))).await {
            Ok(stat) => Ok(Version(stat.version.into())),
            Err(error) => Err(refusal(&what, &op, error)),
        })
        .await
    }

    async fn delete(&self, path: &RecordPath, expected: Option<Version>) -> Result<()> {
        let op = Op::Delete(path.clone(), expected);
        let what = format!("delete {path}");
        self.call(&what, async |client| {
            let deleted = client.delete(path.as_str(), expected.map(version)).await;
            deleted.map_err(|error| refusal(&what, &op, error))
        })
        .await
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<()> {
        fits(&ops)?;
        let what = local::describe(&ops);
        self.call(&what, async |client| {
            let mut writer = client.new_multi_writer();
            for (index, op) in ops.iter().enumerate() {
                let added = match op {
                    Op::Check(path, v) => writer.add_check_version(path.as_str(), version(*v)),
                    Op::Create(path, data, create) => writer.add_create(path.as_str(), data, &mode(*create)),
                    Op::Set(path, data, v) => writer.add_set_data(path.as_str(), data, Some(version(*v))),
                    Op::Delete(path, v) => writer.add_delete(path.as_str(), v.map(version)),
                };
                let refused = |e| StoreError::Refused { index, cause: Box::new(refusal(&what, op, e)) };
                added.map_err(refused)?;
            }
            match writer.commit().await {
                Ok(_) => Ok(()),
                Err(zk::MultiWriteError::OperationFailed { index, source }) => match ops.get(index) {
                    Some(op) => Err(StoreError::Refused { index, cause: Box::new(refusal(&what, op, source)) }),
                    None => Err(StoreError::Broken(format!("ZooKeeper refused step {index} of {}", ops.len()))),
                },
                Err(zk::MultiWriteError::RequestFailed { source }) => {
                    let root = Op::Check(RecordPath::root(), Version(0));
                    Err(refusal(&what, ops.first().unwrap_or(&root), source))
                }
            }
        })
        .await
    }

    async fn sync(&self) -> Result<()> {
        self.call("synchronise", async |client| {
            let synced = client.sync("/").await;
            synced.map_err(|error| StoreError::Unknown { what: "synchronise".to_owned(), why: error.to_string() })
        })
        .await
    }

    async fn watch(&self, path: &RecordPath) -> Result<Watch> {
        if *self.shared.closing.borrow() {
            return Err(StoreError::Closed);
        }
        let (waker, watch) = Watch::new();
        lock(&self.shared.watches).push((path.clone(), waker));
        Ok(watch)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.shared.session.subscribe()
    }

    async fn close(&self) {
        self.shared.closing.send_replace(true);
        let mut ended = self.shared.ended.subscribe();
        // An error means that the sender is gone, which has the same result.
        ended.wait_for(|ended| *ended).await.ok();
    }

    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> Result<()> {
        subtree::rename(self, from, to).await
    }
}
