//! The ZooKeeper back end against real servers: conformance suite, disconnects, session expiry, a killed leader.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod support;

use drover_lab::Ensemble;
use drover_model::RecordPath;
use drover_store::{
    CreateMode, SessionState, Store, StoreError, Version, Wakeup, Watch, conformance,
    zookeeper::{Options, ZooKeeperStore},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{Mode, Proxy};
use tokio::time::{Instant, timeout};

/// Timeout for expected events.
const TIMEOUT: Duration = Duration::from_secs(30);
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);
/// Twenty ticks.
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(10);

fn path(text: &str) -> RecordPath {
    RecordPath::new(text).unwrap()
}

fn connect(servers: Vec<String>) -> ZooKeeperStore {
    connect_for(SESSION_TIMEOUT, servers)
}

fn connect_for(session_timeout: Duration, servers: Vec<String>) -> ZooKeeperStore {
    ZooKeeperStore::start(Options { servers, session_timeout, root: path("/drover-test") }).unwrap()
}

/// Waits for a session state; returns the session's generation.
async fn state(store: &ZooKeeperStore, wanted: SessionState) -> u64 {
    let mut session = store.session();
    let reached = timeout(TIMEOUT, session.wait_for(|s| s.state == wanted)).await;
    reached.unwrap_or_else(|_| panic!("not {wanted:?} in time")).unwrap().generation
}

/// Waits for a notification that includes this path.
async fn notified_of(watch: &mut Watch, wanted: &str) {
    loop {
        match timeout(TIMEOUT, watch.next()).await.unwrap_or_else(|_| panic!("no notification of {wanted}")).unwrap() {
            Wakeup::Everything => return,
            Wakeup::Paths(paths) if paths.contains(&path(wanted)) => return,
            Wakeup::Paths(_) => {}
        }
    }
}

#[tokio::test]
async fn zookeeper_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ensemble::start(folder.path(), 1).unwrap();
    let session = || async { Arc::new(connect(server.addresses())) as Arc<dyn Store> };
    conformance::all(session).await.unwrap();
}

#[tokio::test]
async fn a_short_disconnect_keeps_the_session_and_its_watches() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ensemble::start(folder.path(), 1).unwrap();
    let proxy = Proxy::to(server.addresses().remove(0)).await;
    // The longest that the server grants: a busy machine takes its time to connect again.
    let cut = connect_for(SESSION_TIMEOUT_MAX, vec![proxy.address.to_string()]);
    let other = connect(server.addresses());
    assert_eq!(state(&cut, SessionState::Connected).await, 1);
    cut.create(&path("/here"), vec![], CreateMode::Ephemeral).await.unwrap();
    let mut watch = cut.watch(&path("/")).await.unwrap();
    assert_eq!(watch.next().await, Some(Wakeup::Everything));

    proxy.set(Mode::Cut);
    state(&cut, SessionState::Disconnected).await;
    other.create(&path("/meanwhile"), b"1".to_vec(), CreateMode::Persistent).await.unwrap();
    proxy.set(Mode::Forward);

    assert_eq!(state(&cut, SessionState::Connected).await, 1, "the same session");
    notified_of(&mut watch, "/meanwhile").await;
    assert!(cut.get(&path("/meanwhile")).await.unwrap().is_some());
    assert!(other.get(&path("/here")).await.unwrap().is_some(), "its ephemeral records stay");
    // The watch was registered again: it reports later changes, too.
    other.set(&path("/meanwhile"), b"2".to_vec(), Version(0)).await.unwrap();
    notified_of(&mut watch, "/meanwhile").await;
}

#[tokio::test]
async fn an_expired_session_is_replaced_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ensemble::start(folder.path(), 1).unwrap();
    let proxy = Proxy::to(server.addresses().remove(0)).await;
    let (cut, other) = (connect(vec![proxy.address.to_string()]), connect(server.addresses()));
    state(&cut, SessionState::Connected).await;
    cut.create(&path("/here"), vec![], CreateMode::Ephemeral).await.unwrap();
    let mut mine = cut.watch(&path("/")).await.unwrap();
    let mut theirs = other.watch(&path("/here")).await.unwrap();
    theirs.next().await;

    proxy.set(Mode::Stall);
    let start = Instant::now();
    let unanswered = cut.set(&path("/here"), b"x".to_vec(), Version(0)).await;
    assert!(matches!(unanswered, Err(StoreError::Unknown { .. })), "without an answer: {unanswered:?}");
    assert!(start.elapsed() < SESSION_TIMEOUT * 2, "the call has a timeout");
    // The creation may be notified of once more. Without the end of the session there is no further notification.
    while other.get(&path("/here")).await.unwrap().is_some() {
        notified_of(&mut theirs, "/here").await;
    }

    proxy.set(Mode::Forward);
    let mut session = cut.session();
    let next = session.wait_for(|s| s.generation == 2 && s.state == SessionState::Connected);
    timeout(TIMEOUT, next).await.expect("a new session").unwrap();
    notified_of(&mut mine, "/").await;
    cut.create(&path("/here"), vec![], CreateMode::Ephemeral).await.unwrap();
    notified_of(&mut theirs, "/here").await;
    other.create(&path("/later"), vec![], CreateMode::Persistent).await.unwrap();
    notified_of(&mut mine, "/later").await;
}

/// Increments a counter by compare-and-set until told to stop, and looks up unknown outcomes. Returns the number of
/// increments known to have taken effect.
async fn count_up(store: ZooKeeperStore, writer: u8, stop: Arc<AtomicBool>) -> usize {
    let (mut done, counter) = (0, path("/counter"));
    while !stop.load(Ordering::Relaxed) {
        // Each write appends its writer and round, so that an unknown outcome can be looked up.
        let Ok(Some(record)) = store.get(&counter).await else { continue };
        let mut log = record.data.clone();
        let entry = [writer, u8::try_from(done % 256).unwrap()];
        log.extend_from_slice(&entry);
        match store.set(&counter, log, record.version).await {
            Ok(_) => done += 1,
            Err(error) if error.is_definite() => {}
            Err(_) => loop {
                // A read after a sync shows whether the write took effect.
                if store.sync().await.is_err() {
                    continue;
                }
                let Ok(Some(record)) = store.get(&counter).await else { continue };
                let mine = record.data.chunks(2).filter(|e| e[0] == writer).count();
                assert!(mine == done || mine == done + 1, "{mine} of {done}");
                done = mine;
                break;
            },
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_with_the_leader() {
    let folder = tempfile::tempdir().unwrap();
    let mut ensemble = Ensemble::start(folder.path(), 3).unwrap();
    let observer = connect(ensemble.addresses());
    observer.create(&path("/counter"), vec![], CreateMode::Persistent).await.unwrap();
    let mut watch = observer.watch(&path("/counter")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [1, 2].map(|writer| tokio::spawn(count_up(connect(ensemble.addresses()), writer, stop.clone())));
    // Kill the leader during the writes, twice.
    for _ in 0..2 {
        notified_of(&mut watch, "/counter").await;
        let leader = ensemble.wait_serving().unwrap();
        ensemble.kill_member(leader).unwrap();
        ensemble.wait_serving().unwrap();
        ensemble.start_member(leader).unwrap();
        while timeout(TIMEOUT, watch.next()).await.expect("the writers continue") == Some(Wakeup::Everything) {}
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for writer in writers {
        done += timeout(TIMEOUT * 2, writer).await.expect("the writers finish").unwrap();
    }
    // The watch reports the last change, through all reconnects.
    loop {
        observer.sync().await.unwrap();
        let record = observer.get(&path("/counter")).await.unwrap().unwrap();
        if record.data.len() == 2 * done {
            assert_eq!(record.version, Version(done.try_into().unwrap()), "each write took effect once");
            break;
        }
        notified_of(&mut watch, "/counter").await;
    }
}
