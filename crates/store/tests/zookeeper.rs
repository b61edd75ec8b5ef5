//! The ZooKeeper back end against real servers: the conformance suite, cut connections, ended sessions, a leader that
//! is killed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod support;

use drover_lab::Ensemble;
use drover_model::RecordPath;
use drover_store::{
    CreateMode, SessionState, Store, StoreError, Version, Wakeup, Watch, conformance,
    zookeeper::{Options, ZooKeeperStore},
};
use std::{sync::Arc, time::Duration};
use support::{Proxy, Wire};
use tokio::time::{Instant, timeout};

/// Whatever is waited for here comes sooner.
const PATIENCE: Duration = Duration::from_secs(30);
const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

fn path(text: &str) -> RecordPath {
    RecordPath::new(text).unwrap()
}

fn connect(servers: Vec<String>) -> ZooKeeperStore {
    let options = Options { servers, session_timeout: SESSION_TIMEOUT, root: path("/drover-test") };
    ZooKeeperStore::start(options).unwrap()
}

async fn state(store: &ZooKeeperStore, wanted: SessionState) -> u64 {
    let mut session = store.session();
    let reached = timeout(PATIENCE, session.wait_for(|s| s.state == wanted)).await;
    reached.unwrap_or_else(|_| panic!("never {wanted:?}")).unwrap().generation
}

/// Waits for a wake-up that is about this path.
async fn woken(watch: &mut Watch, wanted: &str) {
    loop {
        match timeout(PATIENCE, watch.next()).await.unwrap_or_else(|_| panic!("never woken for {wanted}")).unwrap() {
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
async fn a_short_cut_keeps_the_session_and_loses_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ensemble::start(folder.path(), 1).unwrap();
    let proxy = Proxy::to(server.addresses().remove(0)).await;
    let (cut, other) = (connect(vec![proxy.address.to_string()]), connect(server.addresses()));
    assert_eq!(state(&cut, SessionState::Connected).await, 1);
    cut.create(&path("/here"), vec![], CreateMode::Ephemeral).await.unwrap();
    let mut watch = cut.watch(&path("/")).await.unwrap();
    assert_eq!(watch.next().await, Some(Wakeup::Everything));

    proxy.set(Wire::Cut);
    state(&cut, SessionState::Disconnected).await;
    other.create(&path("/meanwhile"), b"1".to_vec(), CreateMode::Persistent).await.unwrap();
    proxy.set(Wire::Whole);

    assert_eq!(state(&cut, SessionState::Connected).await, 1, "the same session");
    woken(&mut watch, "/meanwhile").await;
    assert!(cut.get(&path("/meanwhile")).await.unwrap().is_some());
    assert!(other.get(&path("/here")).await.unwrap().is_some(), "its ephemeral records stay");
    // The watch was added again: what happens from now on is heard too.
    other.set(&path("/meanwhile"), b"2".to_vec(), Version(0)).await.unwrap();
    woken(&mut watch, "/meanwhile").await;
}

#[tokio::test]
async fn after_a_long_silence_there_is_a_new_session() {
    let folder = tempfile::tempdir().unwrap();
    let server = Ensemble::start(folder.path(), 1).unwrap();
    let proxy = Proxy::to(server.addresses().remove(0)).await;
    let (cut, other) = (connect(vec![proxy.address.to_string()]), connect(server.addresses()));
    state(&cut, SessionState::Connected).await;
    cut.create(&path("/here"), vec![], CreateMode::Ephemeral).await.unwrap();
    let mut mine = cut.watch(&path("/")).await.unwrap();
    let mut theirs = other.watch(&path("/here")).await.unwrap();
    theirs.next().await;

    proxy.set(Wire::Silent);
    let start = Instant::now();
    let blind = cut.set(&path("/here"), b"x".to_vec(), Version(0)).await;
    assert!(matches!(blind, Err(StoreError::Unknown { .. })), "a silent server's answer is not known: {blind:?}");
    assert!(start.elapsed() < SESSION_TIMEOUT * 2, "and nobody waits for it for ever");
    woken(&mut theirs, "/here").await;
    assert_eq!(other.get(&path("/here")).await.unwrap(), None, "the server has ended the session");

    proxy.set(Wire::Whole);
    let mut session = cut.session();
    let next = session.wait_for(|s| s.generation == 2 && s.state == SessionState::Connected);
    timeout(PATIENCE, next).await.expect("a new session").unwrap();
    woken(&mut mine, "/").await;
    cut.create(&path("/here"), vec![], CreateMode::Ephemeral).await.unwrap();
    woken(&mut theirs, "/here").await;
    other.create(&path("/later"), vec![], CreateMode::Persistent).await.unwrap();
    woken(&mut mine, "/later").await;
}

/// Counts up by compare-and-set; an answer that is not definite is looked up. Returns how many increments are known to
/// be done.
async fn count_up(store: ZooKeeperStore, writer: u8, rounds: usize) -> usize {
    let (mut done, counter) = (0, path("/counter"));
    while done < rounds {
        // Each write names its writer and round, so that an unknown outcome can be told from the record.
        let Ok(Some(record)) = store.get(&counter).await else { continue };
        let mut log = record.data.clone();
        let entry = [writer, u8::try_from(done % 256).unwrap()];
        log.extend_from_slice(&entry);
        match store.set(&counter, log, record.version).await {
            Ok(_) => done += 1,
            Err(error) if error.is_definite() => {}
            Err(_) => loop {
                // A read of the same session, after a sync, tells.
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
    let writers = [1, 2].map(|writer| tokio::spawn(count_up(connect(ensemble.addresses()), writer, 300)));
    // In the middle of it, twice.
    for _ in 0..2 {
        woken(&mut watch, "/counter").await;
        let leader = ensemble.wait_serving().unwrap();
        ensemble.kill_member(leader).unwrap();
        ensemble.wait_serving().unwrap();
        ensemble.start_member(leader).unwrap();
        while timeout(PATIENCE, watch.next()).await.expect("the writers go on") == Some(Wakeup::Everything) {}
    }
    for writer in writers {
        assert_eq!(timeout(PATIENCE * 2, writer).await.expect("the writers end").unwrap(), 300);
    }
    // Every watch hears of the last state, through whatever reconnects there were.
    loop {
        observer.sync().await.unwrap();
        let record = observer.get(&path("/counter")).await.unwrap().unwrap();
        if record.data.len() == 2 * 600 {
            assert_eq!(record.version, Version(600), "each write was done once");
            break;
        }
        woken(&mut watch, "/counter").await;
    }
}
