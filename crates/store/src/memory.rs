//! In-memory store for simulation: many sessions on one tree in one process, with fault injection.
//!
//! It runs on tokio's (virtual) clock, and all its randomness comes from one seed. The faults are those of ZooKeeper:
//! latency, requests and answers that are lost, disconnects, sessions that expire on the server before their owner can
//! know, watches that report after a reconnect only that anything may have changed, and servers that are behind the
//! others. A session at such a server reads what was, and its watches are silent. Its writes take effect, but neither
//! they nor a `sync` are answered before the server has caught up (ZooKeeper 3.8: a server answers when it has applied
//! the write itself; refusals are transactions as well).

use crate::{
    CreateMode, Op, Record, Result, Session, SessionState, Store, StoreError, Version, Watch,
    local::{self, Local},
    subtree,
    tree::{SessionId, Tree},
    types::lock,
};
use async_trait::async_trait;
use drover_model::{Dice, RecordPath};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// Timeout for a call without a connection or an answer; its outcome is then unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Latency and faults of calls. Default: no latency, no faults.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Latency of a call in each direction, in milliseconds.
    pub latency_ms: Range<u64>,
    /// How many of 1000 calls get no answer; half of these take effect all the same.
    pub lost_per_mille: u64,
}

/// The server's side, in place of a ZooKeeper ensemble.
#[derive(Clone)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Notified when the time of the next session expiry may have changed.
    expiry: Notify,
    /// Notified when a server has caught up.
    caught_up: Notify,
}

struct Inner {
    local: Local,
    sessions: BTreeMap<SessionId, ServerSession>,
    weather: Weather,
    dice: Dice,
    /// How many calls were made.
    calls: u64,
    observer: Option<Observer>,
}

/// Called with each record that changes, and its new state (`None`: it was deleted), while the store is locked: it must
/// not call the store.
pub type Observer = Box<dyn Fn(&RecordPath, Option<&Record>) + Send>;

/// The session of changes that are made outside of all sessions ([`MemoryCluster::apply`]).
const NOBODY: SessionId = 0;

/// The server's side of a session.
struct ServerSession {
    /// When the client was disconnected; `None` while it is connected.
    disconnected_since: Option<Instant>,
    timeout: Duration,
    /// What its server knows, while that is behind.
    behind: Option<Tree>,
}

impl ServerSession {
    fn new(timeout: Duration) -> ServerSession {
        ServerSession { disconnected_since: None, timeout, behind: None }
    }

    /// Whether its watches are silent.
    fn is_silent(&self) -> bool {
        self.disconnected_since.is_some() || self.behind.is_some()
    }
}

impl Inner {
    fn latency(&mut self) -> Duration {
        self.dice.millis(&self.weather.latency_ms)
    }

    /// Ends a session on the server: deletes its ephemeral records and notifies their watches.
    fn expire(&mut self, session: SessionId) {
        if self.sessions.remove(&session).is_none() {
            return;
        }
        let ephemerals = self.local.tree.ephemerals(Some(session));
        let ops = ephemerals.into_iter().map(|path| Op::Delete(path, None)).collect();
        let _ = self.change(ops, session);
    }

    fn change(
        &mut self,
        ops: Vec<Op>,
        session: SessionId,
    ) -> std::result::Result<Vec<RecordPath>, (usize, StoreError)> {
        let applied = self.local.tree.apply(ops, session)?;
        let sessions = &self.sessions;
        self.local.wake(&applied.changed, |id| sessions.get(&id).is_none_or(ServerSession::is_silent));
        if let Some(observer) = &self.observer {
            applied.changed.iter().for_each(|path| observer(path, self.local.tree.get(path).as_ref()));
        }
        Ok(applied.paths)
    }

    /// What a session's server knows.
    fn known_to(&self, session: SessionId) -> &Tree {
        self.sessions.get(&session).and_then(|session| session.behind.as_ref()).unwrap_or(&self.local.tree)
    }

    fn is_behind(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.behind.is_some())
    }
}

impl Default for MemoryCluster {
    fn default() -> Self {
        Self::new(0)
    }
}

impl MemoryCluster {
    /// An empty store whose randomness comes from `seed`.
    pub fn new(seed: u64) -> MemoryCluster {
        let inner = Inner {
            local: Local::new(Tree::new()),
            sessions: BTreeMap::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            calls: 0,
            observer: None,
        };
        MemoryCluster {
            shared: Arc::new(Shared { inner: Mutex::new(inner), expiry: Notify::new(), caught_up: Notify::new() }),
        }
    }

    /// Sets latency and faults of subsequent calls.
    pub fn set_weather(&self, weather: Weather) {
        lock(&self.shared.inner).weather = weather;
    }

    /// Opens a session, which expires after it was disconnected for `session_timeout`.
    pub fn session(&self, session_timeout: Duration) -> MemoryStore {
        let mut inner = lock(&self.shared.inner);
        let id = inner.local.new_session();
        inner.sessions.insert(id, ServerSession::new(session_timeout));
        let (state, _) = watch::channel(Session { generation: 1, state: SessionState::Connected });
        let client = Client { id, closed: false };
        MemoryStore {
            shared: self.shared.clone(),
            client: Arc::new(Mutex::new(client)),
            state: Arc::new(state),
            session_timeout,
        }
    }

    /// Expires disconnected sessions, until it is dropped. Sessions do not expire unless it runs.
    pub async fn run(&self) {
        loop {
            let next = {
                let mut inner = lock(&self.shared.inner);
                let now = Instant::now();
                let deadlines: Vec<(SessionId, Instant)> = inner
                    .sessions
                    .iter()
                    .filter_map(|(id, session)| Some((*id, session.disconnected_since? + session.timeout)))
                    .collect();
                for (id, at) in &deadlines {
                    if *at <= now {
                        inner.expire(*id);
                    }
                }
                deadlines.into_iter().map(|(_, at)| at).filter(|at| *at > now).min()
            };
            tokio::select! {
                biased;
                () = self.shared.expiry.notified() => {}
                () = async {
                    match next {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// Number of calls that all sessions have made so far.
    pub fn calls(&self) -> u64 {
        lock(&self.shared.inner).calls
    }

    /// Calls `observer` at every change from now on.
    pub fn observe(&self, observer: Observer) {
        lock(&self.shared.inner).observer = Some(observer);
    }

    /// A record's current state on the server, without latency or faults. For checks in tests.
    pub fn peek(&self, path: &RecordPath) -> Option<Record> {
        lock(&self.shared.inner).local.tree.get(path)
    }

    /// Applies a transaction at once, without latency or faults.
    ///
    /// # Errors
    /// As [`Store::multi`].
    pub fn apply(&self, ops: Vec<Op>) -> Result<()> {
        let changed = lock(&self.shared.inner).change(ops, NOBODY);
        changed.map(|_| ()).or_else(|refused| local::several(Err(refused)).map(|_| ()))
    }

    /// Every record is lost, as when the disks of all servers are. Nobody is told: all sessions are to be abandoned.
    pub fn lose_all(&self) {
        lock(&self.shared.inner).local.tree = Tree::new();
    }

    /// All records with their data, by path. For checks in tests.
    pub fn dump(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = lock(&self.shared.inner);
        let mut out = BTreeMap::new();
        let mut todo = vec![RecordPath::root()];
        while let Some(path) = todo.pop() {
            let children = inner.local.tree.children(&path).unwrap_or_default();
            todo.extend(children.iter().filter_map(|name| path.join(name).ok()));
            out.insert(path.to_string(), inner.local.tree.node(&path).map(|n| n.data.to_vec()).unwrap_or_default());
        }
        out
    }
}

/// The client's side of a session.
struct Client {
    id: SessionId,
    closed: bool,
}

/// A session on a [`MemoryCluster`]. Clones are the same session.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    client: Arc<Mutex<Client>>,
    state: Arc<watch::Sender<Session>>,
    session_timeout: Duration,
}

impl MemoryStore {
    /// Disconnects this session. It expires on the server unless [`MemoryStore::heal`] comes within its timeout.
    pub fn cut(&self) {
        let id = lock(&self.client).id;
        if let Some(session) = lock(&self.shared.inner).sessions.get_mut(&id) {
            session.disconnected_since.get_or_insert(Instant::now());
        }
        self.state.send_if_modified(|session| {
            let was = session.state;
            if was == SessionState::Connected {
                session.state = SessionState::Disconnected;
            }
            was == SessionState::Connected
        });
        self.shared.expiry.notify_one();
    }

    /// Reconnects: to the same session if it has not expired, else with a new one.
    pub fn heal(&self) {
        let mut client = lock(&self.client);
        if client.closed {
            return;
        }
        let mut inner = lock(&self.shared.inner);
        let alive = match inner.sessions.get_mut(&client.id) {
            Some(session) => {
                session.disconnected_since = None;
                // Its next server is another one.
                session.behind = None;
                true
            }
            None => false,
        };
        let next = if alive { client.id } else { inner.local.new_session() };
        if !alive {
            inner.sessions.insert(next, ServerSession::new(self.session_timeout));
        }
        inner.local.wake_all(client.id, next);
        client.id = next;
        drop(inner);
        self.shared.caught_up.notify_waiters();
        self.state.send_modify(|session| {
            session.generation += u64::from(!alive);
            session.state = SessionState::Connected;
        });
        self.shared.expiry.notify_one();
    }

    /// This session's server falls behind the others: what they do from now on is unknown to it.
    pub fn fall_behind(&self) {
        let id = lock(&self.client).id;
        let mut inner = lock(&self.shared.inner);
        let now = inner.known_to(id).clone();
        if let Some(session) = inner.sessions.get_mut(&id) {
            session.behind = Some(now);
        }
    }

    /// This session's server is up to date again.
    pub fn catch_up(&self) {
        let id = lock(&self.client).id;
        let mut inner = lock(&self.shared.inner);
        if inner.sessions.get_mut(&id).is_some_and(|session| session.behind.take().is_some()) {
            inner.local.wake_all(id, id);
            self.shared.caught_up.notify_waiters();
        }
    }

    /// Abandons the session as a crashed process does: without a message to the server, where it will expire.
    pub fn abandon(&self) {
        self.cut();
        let mut client = lock(&self.client);
        client.closed = true;
        lock(&self.shared.inner).local.drop_watches(client.id);
        self.state.send_modify(|session| session.state = SessionState::Closed);
    }

    /// Waits for a connection and executes the call, with latency and faults.
    async fn call<T>(&self, what: &str, act: impl FnOnce(&mut Inner, SessionId) -> Result<T>) -> Result<T> {
        let unknown = |why: &str| Err(StoreError::Unknown { what: what.to_owned(), why: why.to_owned() });
        let (before, after, dice, early) = {
            let mut inner = lock(&self.shared.inner);
            inner.calls += 1;
            (inner.latency(), inner.latency(), inner.dice.roll(2000), inner.dice.roll(2) == 0)
        };
        let lost = dice < 2 * lock(&self.shared.inner).weather.lost_per_mille;
        let takes_effect = dice % 2 == 0;
        // A cancelled call may or may not take effect: half of the calls are executed first and wait afterwards.
        if !early {
            pause(before).await;
        }
        let mut state = self.state.subscribe();
        match timeout(CALL_TIMEOUT, state.wait_for(|s| s.state != SessionState::Disconnected)).await {
            Err(_) | Ok(Err(_)) => return unknown("no connection"),
            Ok(Ok(_)) => {}
        }
        if lost && !takes_effect {
            pause(CALL_TIMEOUT).await;
            return unknown("the request was lost");
        }
        let answer = {
            let client = lock(&self.client);
            if client.closed {
                return Err(StoreError::Closed);
            }
            act(&mut lock(&self.shared.inner), client.id)
        };
        if lost {
            pause(CALL_TIMEOUT).await;
            return unknown("the answer was lost");
        }
        pause(if early { before + after } else { after }).await;
        match self.state.borrow().state {
            SessionState::Connected => answer,
            _ => unknown("the connection was lost before the answer arrived"),
        }
    }

    /// Waits until this session's server is up to date.
    async fn current(&self, what: &str) -> Result<()> {
        let caught_up = async {
            loop {
                let notified = self.shared.caught_up.notified();
                let id = lock(&self.client).id;
                if !lock(&self.shared.inner).is_behind(id) {
                    return;
                }
                notified.await;
            }
        };
        let late = |_| StoreError::Unknown { what: what.to_owned(), why: "the server is behind".to_owned() };
        timeout(CALL_TIMEOUT, caught_up).await.map_err(late)
    }

    async fn change(&self, ops: Vec<Op>) -> Result<std::result::Result<Vec<RecordPath>, (usize, StoreError)>> {
        let what = local::describe(&ops);
        let changed = self.call(&what, |inner, id| Ok(inner.change(ops, id))).await?;
        self.current(&what).await?;
        Ok(changed)
    }
}

async fn pause(time: Duration) {
    if time > Duration::ZERO {
        sleep(time).await;
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, path: &RecordPath) -> Result<Option<Record>> {
        self.call(&format!("read {path}"), |inner, id| Ok(inner.known_to(id).get(path))).await
    }

    async fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        self.call(&format!("list {path}"), |inner, id| inner.known_to(id).children(path)).await
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
        self.call("synchronise", |_, _| Ok(())).await?;
        self.current("synchronise").await
    }

    async fn watch(&self, path: &RecordPath) -> Result<Watch> {
        let client = lock(&self.client);
        if client.closed {
            return Err(StoreError::Closed);
        }
        let (waker, watch) = Watch::new();
        lock(&self.shared.inner).local.add_watch(client.id, path, waker);
        Ok(watch)
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.state.subscribe()
    }

    async fn close(&self) {
        let mut client = lock(&self.client);
        client.closed = true;
        let mut inner = lock(&self.shared.inner);
        inner.expire(client.id);
        inner.local.drop_watches(client.id);
        drop(inner);
        self.state.send_modify(|session| session.state = SessionState::Closed);
    }

    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> Result<()> {
        subtree::rename(self, from, to).await
    }
}
