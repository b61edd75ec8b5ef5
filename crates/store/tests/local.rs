//! The conformance suite on the back ends that need no server.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use drover_model::RecordPath;
use drover_store::{
    CreateMode, Store, StoreError, Version, conformance, embedded::EmbeddedStore, memory::MemoryCluster,
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
async fn memory_conforms_when_calls_take_time() {
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
async fn embedded_keeps_everything_but_ephemerals() {
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
    assert_eq!(next, path("/a/s-0000000001"), "numbers are not given twice, not even over a restart");
}

#[test]
fn a_damaged_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.redb"), b"this is no database, but it is long enough to look at").unwrap();
    let error = EmbeddedStore::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, StoreError::Broken(why) if why.contains("store.redb")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_session_expires_on_the_server_and_is_replaced_on_return() {
    let cluster = MemoryCluster::default();
    let server = cluster.clone();
    tokio::spawn(async move { server.run().await });
    let (one, two) = (cluster.session(Duration::from_secs(4)), cluster.session(Duration::from_secs(4)));
    one.create(&path("/e"), vec![], CreateMode::Ephemeral).await.unwrap();
    let mut watch = two.watch(&path("/e")).await.unwrap();
    watch.next().await;

    one.cut();
    assert!(matches!(one.get(&path("/e")).await, Err(StoreError::Unknown { .. })));
    tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("the expiry wakes its watchers");
    assert_eq!(two.get(&path("/e")).await.unwrap(), None);
    one.heal();
    assert_eq!(one.session().borrow().generation, 2);

    one.create(&path("/e"), vec![], CreateMode::Ephemeral).await.unwrap();
    one.cut();
    tokio::time::advance(Duration::from_secs(3)).await;
    one.heal();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(one.session().borrow().generation, 2, "healed in time, it is the same session");
    assert!(two.get(&path("/e")).await.unwrap().is_some());
}
