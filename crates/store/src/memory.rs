//! The store in memory: many sessions on one tree in one process, with the faults of a real one on demand.
//!
//! Made for simulation: everything runs on tokio's (virtual) clock, and all chance comes from one seed. What can go
//! wrong is what can go wrong with ZooKeeper: calls take time, an answer is lost before or after the call was done, a
//! session is cut off, the server expires it while its owner cannot know, and on reconnection watches say only that
//! anything may have changed.

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

/// How long a call waits for a connection before it is given up as unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How calls go wrong. The default: at once, and never.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// How long a call takes, each way, in milliseconds.
    pub latency_ms: Range<u64>,
    /// Of 1000 calls, how many get no answer (half of them were done all the same).
    pub lost_per_mille: u64,
}

/// The shared side: what a ZooKeeper ensemble would be.
#[derive(Clone)]
pub struct MemoryCluster {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Rung when the next expiry may have moved.
    expiry: Notify,
}

struct Inner {
    local: Local,
    links: BTreeMap<SessionId, Link>,
    weather: Weather,
    dice: Dice,
}

/// The server's side of a session.
struct Link {
    /// Since when the server has not heard of it.
    silent_since: Option<Instant>,
    timeout: Duration,
}

impl Inner {
    fn latency(&mut self) -> Duration {
        self.dice.millis(&self.weather.latency_ms)
    }

    /// Ends a session on the server: its ephemeral records go, and whoever watches them hears of it.
    fn expire(&mut self, session: SessionId) {
        if self.links.remove(&session).is_none() {
            return;
        }
        let gone = self.local.tree.ephemerals(Some(session));
        let ops = gone.into_iter().map(|path| Op::Delete(path, None)).collect();
        let _ = self.change(ops, session);
    }

    fn change(
        &mut self,
        ops: Vec<Op>,
        session: SessionId,
    ) -> std::result::Result<Vec<RecordPath>, (usize, StoreError)> {
        let applied = self.local.tree.apply(ops, session)?;
        let links = &self.links;
        self.local.wake(&applied.touched, |s| links.get(&s).is_none_or(|link| link.silent_since.is_some()));
        Ok(applied.paths)
    }
}

impl Default for MemoryCluster {
    fn default() -> Self {
        Self::new(0)
    }
}

impl MemoryCluster {
    /// An empty one, whose chance comes from `seed`.
    pub fn new(seed: u64) -> MemoryCluster {
        let inner = Inner {
            local: Local::new(Tree::new()),
            links: BTreeMap::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
        };
        MemoryCluster { shared: Arc::new(Shared { inner: Mutex::new(inner), expiry: Notify::new() }) }
    }

    /// How calls go wrong from now on.
    pub fn set_weather(&self, weather: Weather) {
        lock(&self.shared.inner).weather = weather;
    }

    /// A new session, which the server ends when it hears nothing of it for `session_timeout`.
    pub fn session(&self, session_timeout: Duration) -> MemoryStore {
        let mut inner = lock(&self.shared.inner);
        let id = inner.local.new_session();
        inner.links.insert(id, Link { silent_since: None, timeout: session_timeout });
        let (state, _) = watch::channel(Session { generation: 1, state: SessionState::Connected });
        let client = Client { id, closed: false };
        MemoryStore {
            shared: self.shared.clone(),
            client: Arc::new(Mutex::new(client)),
            state: Arc::new(state),
            session_timeout,
        }
    }

    /// Ends sessions that were silent for too long, until dropped. Without it, no session ever expires.
    pub async fn run(&self) {
        loop {
            let next = {
                let mut inner = lock(&self.shared.inner);
                let now = Instant::now();
                let deadlines: Vec<(SessionId, Instant)> = inner
                    .links
                    .iter()
                    .filter_map(|(id, link)| Some((*id, link.silent_since? + link.timeout)))
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

    /// One record's data, as the server has it at this moment.
    pub fn peek(&self, path: &RecordPath) -> Option<Vec<u8>> {
        lock(&self.shared.inner).local.tree.node(path).map(|n| n.data.to_vec())
    }

    /// Every record, for a test that nothing (or what) changed.
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

/// One session. Clones are the same session.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    client: Arc<Mutex<Client>>,
    state: Arc<watch::Sender<Session>>,
    session_timeout: Duration,
}

impl MemoryStore {
    /// Cuts this session's connection. The server will expire it unless it is healed in time.
    pub fn cut(&self) {
        let id = lock(&self.client).id;
        if let Some(link) = lock(&self.shared.inner).links.get_mut(&id) {
            link.silent_since.get_or_insert(Instant::now());
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

    /// Restores the connection: the same session, if the server still has it, or a new one.
    pub fn heal(&self) {
        let mut client = lock(&self.client);
        if client.closed {
            return;
        }
        let mut inner = lock(&self.shared.inner);
        let alive = match inner.links.get_mut(&client.id) {
            Some(link) => {
                link.silent_since = None;
                true
            }
            None => false,
        };
        let next = if alive { client.id } else { inner.local.new_session() };
        if !alive {
            inner.links.insert(next, Link { silent_since: None, timeout: self.session_timeout });
        }
        inner.local.wake_all(client.id, next);
        client.id = next;
        drop(inner);
        self.state.send_modify(|session| {
            session.generation += u64::from(!alive);
            session.state = SessionState::Connected;
        });
        self.shared.expiry.notify_one();
    }

    /// Leaves the session behind as a crashed process does: nothing is said to the server, which will expire it.
    pub fn abandon(&self) {
        self.cut();
        let mut client = lock(&self.client);
        client.closed = true;
        lock(&self.shared.inner).local.drop_watches(client.id);
        self.state.send_modify(|session| session.state = SessionState::Closed);
    }

    /// Waits for a connection and does the call on it, with the weather's faults.
    async fn call<T>(&self, what: &str, act: impl FnOnce(&mut Inner, SessionId) -> Result<T>) -> Result<T> {
        let unknown = |why: &str| Err(StoreError::Unknown { what: what.to_owned(), why: why.to_owned() });
        let (before, after, dice, early) = {
            let mut inner = lock(&self.shared.inner);
            (inner.latency(), inner.latency(), inner.dice.roll(2000), inner.dice.roll(2) == 0)
        };
        let lost = dice < 2 * lock(&self.shared.inner).weather.lost_per_mille;
        let done_all_the_same = dice % 2 == 0;
        // A call whose future is dropped may or may not have been done: half of them are done first and take their time
        // afterwards.
        if !early {
            pause(before).await;
        }
        let mut state = self.state.subscribe();
        match timeout(CALL_TIMEOUT, state.wait_for(|s| s.state != SessionState::Disconnected)).await {
            Err(_) | Ok(Err(_)) => return unknown("no connection"),
            Ok(Ok(_)) => {}
        }
        if lost && !done_all_the_same {
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
            _ => unknown("the connection was lost before the answer came"),
        }
    }

    async fn change(&self, ops: Vec<Op>) -> Result<std::result::Result<Vec<RecordPath>, (usize, StoreError)>> {
        let what = local::describe(&ops);
        self.call(&what, |inner, id| Ok(inner.change(ops, id))).await
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
        self.call(&format!("read {path}"), |inner, _| Ok(inner.local.tree.get(path))).await
    }

    async fn children(&self, path: &RecordPath) -> Result<Vec<String>> {
        self.call(&format!("list {path}"), |inner, _| inner.local.tree.children(path)).await
    }

    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> Result<RecordPath> {
        let paths = local::single(self.change(vec![Op::Create(path.clone(), data, mode)]).await?)?;
        paths.into_iter().next().ok_or_else(|| StoreError::Broken("a creation without a path".to_owned()))
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
        self.call("synchronise", |_, _| Ok(())).await
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
