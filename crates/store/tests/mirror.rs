//! A copy of the store becomes what the store is, whatever is lost on the way.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use drover_model::{Dice, RecordPath};
use drover_store::{
    CreateMode, Op, Record, Store,
    memory::{MemoryCluster, MemoryStore, Weather},
    mirror::{Mirror, Sink},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::sleep;

const TIMEOUT: Duration = Duration::from_secs(4);

fn path(text: &str) -> RecordPath {
    RecordPath::new(text).unwrap()
}

/// What the mirror has handed on.
#[derive(Clone, Default)]
struct Copy {
    records: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// How many records were handed on.
    count: Arc<Mutex<usize>>,
}

impl Sink for Copy {
    fn replace_all(&mut self, records: Vec<(RecordPath, Record)>) {
        *self.count.lock().unwrap() += records.len();
        *self.records.lock().unwrap() = records.into_iter().map(|(path, r)| (path.to_string(), r.data)).collect();
    }

    fn apply(&mut self, changes: Vec<(RecordPath, Option<Record>)>) {
        *self.count.lock().unwrap() += changes.len();
        let mut records = self.records.lock().unwrap();
        for (path, record) in changes {
            match record {
                Some(record) => records.insert(path.to_string(), record.data),
                None => records.remove(path.as_str()),
            };
        }
    }
}

/// Below `/vms/*` there are records that have none below them.
fn is_leaf(path: &RecordPath) -> bool {
    path.parts().count() == 3
}

/// Some records come, change and go.
async fn change(store: &MemoryStore, dice: &mut Dice) {
    let vm = format!("/vms/{}", dice.roll(4));
    let part = format!("{vm}/{}", dice.roll(2));
    let data = dice.roll(1_000_000).to_string().into_bytes();
    let make = |at: &str| Op::Create(path(at), data.clone(), CreateMode::Persistent);
    let ops = match dice.roll(8) {
        0 => vec![make(&vm)],
        1 => vec![make(&vm), make(&part)],
        2 | 3 => vec![make(&part)],
        4 => vec![Op::Delete(path(&part), None)],
        5 => vec![Op::Delete(path(&part), None), Op::Delete(path(&vm), None)],
        6 => vec![Op::Delete(path(&part), None), make(&part)],
        _ => {
            let at = path(if dice.roll(2) == 0 { &vm } else { &part });
            let Ok(Some(old)) = store.get(&at).await else { return };
            vec![Op::Set(at, data, old.version)]
        }
    };
    // Refused where it does not fit what there is.
    store.multi(ops).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_copy_catches_up_whatever_was_missed() {
    for seed in 0..600 {
        let mut dice = Dice::new(seed);
        let cluster = MemoryCluster::new(seed);
        let (writer, reader) = (cluster.session(TIMEOUT), cluster.session(TIMEOUT));
        for at in ["/vms", "/left", "/left/out"] {
            writer.create(&path(at), vec![], CreateMode::Persistent).await.unwrap();
        }
        cluster.set_weather(Weather { latency_ms: 0..6, lost_per_mille: 5 });
        let copy = Copy::default();
        let mirror = Mirror::new(Arc::new(reader.clone()), RecordPath::root(), copy.clone());
        let mirror = mirror.without(path("/left/out")).with_leaves(is_leaf).in_turn("a");
        let freshness = mirror.freshness();
        let running = tokio::spawn(mirror.run());
        for _ in 0..4 + dice.roll(30) {
            let mut other = Dice::new(dice.any());
            tokio::join!(change(&writer, &mut dice), change(&writer, &mut other));
            match dice.roll(12) {
                0 => reader.cut(),
                1 | 2 => reader.heal(),
                _ => {}
            }
        }
        // In the middle of taking in the last change.
        sleep(Duration::from_millis(dice.roll(12))).await;
        reader.cut();
        reader.heal();
        sleep(Duration::from_secs(60)).await;
        let mut there = cluster.dump();
        there.remove("/left/out");
        assert_eq!(*copy.records.lock().unwrap(), there, "seed {seed}");
        assert!(freshness.borrow().is_current(), "seed {seed}");
        running.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_different_is_handed_on_after_a_lost_connection() {
    let cluster = MemoryCluster::new(1);
    let (writer, reader) = (cluster.session(TIMEOUT), cluster.session(TIMEOUT));
    writer.create(&path("/vms"), vec![], CreateMode::Persistent).await.unwrap();
    for n in 0..200 {
        for at in [format!("/vms/{n}"), format!("/vms/{n}/claim")] {
            writer.create(&path(&at), vec![], CreateMode::Persistent).await.unwrap();
        }
    }
    let copy = Copy::default();
    let mirror = Mirror::new(Arc::new(reader.clone()), RecordPath::root(), copy.clone()).with_leaves(is_leaf);
    let mut freshness = mirror.freshness();
    let _running = tokio::spawn(mirror.run());
    freshness.wait_for(|f| f.is_current()).await.unwrap();
    let loaded = std::mem::take(&mut *copy.count.lock().unwrap());
    assert_eq!(loaded, 402);

    cluster.set_weather(Weather { latency_ms: 5..6, lost_per_mille: 0 });
    reader.cut();
    writer.create(&path("/vms/7/status"), vec![], CreateMode::Persistent).await.unwrap();
    writer.delete(&path("/vms/8/claim"), None).await.unwrap();
    reader.heal();
    freshness.wait_for(|f| !f.is_current()).await.unwrap();
    assert!(freshness.borrow().is_loaded(), "what it was is still there");
    freshness.wait_for(|f| f.is_current()).await.unwrap();
    assert_eq!(*copy.count.lock().unwrap(), 2);
    assert!(copy.records.lock().unwrap().contains_key("/vms/7/status"));
    assert!(!copy.records.lock().unwrap().contains_key("/vms/8/claim"));
}
