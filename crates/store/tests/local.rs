//! The back ends that need no server: conformance suite, restart, session expiry.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use drover_model::RecordPath;
use drover_store::{
    CreateMode, Store, StoreError, Version, conformance, embedded::EmbeddedStore, lock, memory::MemoryCluster,
    memory::Weather,
};
use std::{sync::Arc, time::Duration};

fn path(text: &str) -> RecordPath {
    RecordPath::new(text).unwrap()
}

#[tokio::test]
async fn memory_conforms() {
    let cluster = MemoryCluster::default();
    let session = || async { Arc::new(cluster.session(Duration::from_secs(4))) as Arc<dyn Store> };
    conformance::all(session).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn memory_conforms_with_latency() {
    let cluster = MemoryCluster::new(7);
    cluster.set_weather(Weather { latency_ms: 1..20, lost_per_mille: 0 });
    let session = || async { Arc::new(cluster.session(Duration::from_secs(4))) as Arc<dyn Store> };
    conformance::all(session).await.unwrap();
}

#[tokio::test]
async fn embedded_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let session = || async { Arc::new(store.another_session()) as Arc<dyn Store> };
    conformance::all(session).await.unwrap();
}

#[tokio::test]
async fn embedded_store_keeps_all_but_ephemeral_records_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = EmbeddedStore::open(folder.path()).unwrap();
        store.create(&path("/a"), b"1".to_vec(), CreateMode::Persistent).await.unwrap();
        store.set(&path("/a"), b"2".to_vec(), Version(0)).await.unwrap();
        store.create(&path("/a/s-"), vec![], CreateMode::PersistentSequential).await.unwrap();
        store.create(&path("/a/e"), vec![], CreateMode::Ephemeral).await.unwrap();
        let second = EmbeddedStore::open(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(second.contains("store.redb") && second.contains("another process"), "{second}");
    }
    let store = EmbeddedStore::open(folder.path()).unwrap();
    let a = store.get(&path("/a")).await.unwrap().unwrap();
    assert_eq!((a.data.as_slice(), a.version), (&b"2"[..], Version(1)));
    assert_eq!(store.children(&path("/a")).await.unwrap(), ["s-0000000000"]);
    let next = store.create(&path("/a/s-"), vec![], CreateMode::PersistentSequential).await.unwrap();
    assert_eq!(next, path("/a/s-0000000001"), "numbers are not reused, even after a restart");
}

#[test]
fn error_for_a_corrupt_file_names_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.redb"), b"this is not a database, but it is long enough to look at")
        .unwrap();
    let error = EmbeddedStore::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Broken(why) if why.contains("store.redb")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_session_expires_and_is_replaced_on_reconnect() {
    let cluster = MemoryCluster::default();
    let server = cluster.clone();
    tokio::spawn(async move { server.run().await });
    let (one, two) = (cluster.session(Duration::from_secs(4)), cluster.session(Duration::from_secs(4)));
    one.create(&path("/e"), vec![], CreateMode::Ephemeral).await.unwrap();
    let mut watch = two.watch(&path("/e")).await.unwrap();
    watch.next().await;

    one.cut();
    assert!(matches!(one.get(&path("/e")).await, Err(StoreError::Unknown { .. })));
    tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("watches are notified of the expiry");
    assert_eq!(two.get(&path("/e")).await.unwrap(), None);
    one.heal();
    assert_eq!(one.session().borrow().generation, 2);

    one.create(&path("/e"), vec![], CreateMode::Ephemeral).await.unwrap();
    one.cut();
    tokio::time::advance(Duration::from_secs(3)).await;
    one.heal();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(one.session().borrow().generation, 2, "reconnected in time, it is the same session");
    assert!(two.get(&path("/e")).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_gave_up_leaves_nothing_although_nothing_answered_then() {
    let cluster = MemoryCluster::new(3);
    let store = || Arc::new(cluster.session(Duration::from_secs(4))) as Arc<dyn Store>;
    let (one, two) = (store(), store());
    one.create(&path("/lock"), vec![], CreateMode::Persistent).await.unwrap();
    let after = |s| tokio::time::Instant::now() + Duration::from_secs(s);
    let held = lock::acquire(&one, &path("/lock"), "one", after(9)).await.unwrap();
    let waiting = tokio::spawn({
        let two = two.clone();
        async move { lock::acquire(&two, &path("/lock"), "two", after(5)).await.map(|_| ()) }
    });
    while one.children(&path("/lock")).await.unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    // From before its deadline until long after.
    cluster.set_weather(Weather { lost_per_mille: 1000, ..Weather::default() });
    assert!(waiting.await.unwrap().is_err());
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.set_weather(Weather::default());
    held.release().await.unwrap();
    let next = lock::acquire(&one, &path("/lock"), "one", after(60)).await;
    assert!(next.is_ok(), "the waiter that gave up blocks the lock");
}

#[tokio::test(start_paused = true)]
async fn a_lock_whose_release_is_dropped_is_released_all_the_same() {
    let cluster = MemoryCluster::new(3);
    let session = cluster.session(Duration::from_secs(4));
    let one = Arc::new(session.clone()) as Arc<dyn Store>;
    one.create(&path("/lock"), vec![], CreateMode::Persistent).await.unwrap();
    let after = |s| tokio::time::Instant::now() + Duration::from_secs(s);
    let held = lock::acquire(&one, &path("/lock"), "one", after(9)).await.unwrap();
    session.cut();
    let release = held.release();
    assert!(tokio::time::timeout(Duration::from_secs(1), release).await.is_err());
    session.heal();
    let next = lock::acquire(&one, &path("/lock"), "one", after(60)).await;
    assert!(next.is_ok(), "the lock that was being released is held for ever");
}

#[tokio::test(start_paused = true)]
async fn a_session_at_a_server_that_is_behind_reads_what_was_and_gets_no_answer_to_writes() {
    let cluster = MemoryCluster::new(1);
    let (writer, reader) = (cluster.session(Duration::from_secs(4)), cluster.session(Duration::from_secs(4)));
    writer.create(&path("/a"), b"1".to_vec(), CreateMode::Persistent).await.unwrap();
    let mut watch = reader.watch(&path("/a")).await.unwrap();
    watch.next().await.expect("the first one");
    let data = async || reader.get(&path("/a")).await.unwrap().unwrap().data.to_vec();

    reader.fall_behind();
    writer.set(&path("/a"), b"2".to_vec(), Version(0)).await.unwrap();
    assert_eq!(data().await, b"1");
    assert!(tokio::time::timeout(Duration::from_secs(60), watch.next()).await.is_err(), "its watches are silent");
    assert!(matches!(reader.sync().await, Err(StoreError::Unknown { .. })));
    let written = reader.set(&path("/a"), b"3".to_vec(), Version(1)).await;
    assert!(matches!(written, Err(StoreError::Unknown { .. })), "{written:?}");
    assert_eq!(writer.get(&path("/a")).await.unwrap().unwrap().data.to_vec(), b"3", "it has taken effect");
    assert_eq!(data().await, b"1");

    let (synced, ()) = tokio::join!(biased; reader.sync(), async { reader.catch_up() });
    synced.unwrap();
    assert_eq!(data().await, b"3");
    tokio::time::timeout(Duration::from_secs(60), watch.next())
        .await
        .expect("its watches report what they have missed");
}
