//! Conformance suite for back ends: checks each guarantee of [`Store`].
//!
//! A back end's test calls [`all`] with a function that opens a new session on the same store, which is empty at first.

use crate::{CreateMode, Op, Store, StoreError, Version, Wakeup, lock};
use drover_model::RecordPath;
use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// Timeout for expected events, on any back end.
const TIMEOUT: Duration = Duration::from_secs(20);

fn path(text: &str) -> RecordPath {
    RecordPath::new(text).unwrap_or_else(|_| RecordPath::root())
}

macro_rules! ensure {
    ($case:expr, $condition:expr $(, $($detail:tt)+)?) => {
        if !$condition {
            return Err(format!("{}: expected {}{}", $case, stringify!($condition), ensure!(@ $($($detail)+)?)));
        }
    };
    (@) => { String::new() };
    (@ $($detail:tt)+) => { format!(" ({})", format!($($detail)+)) };
}

type Case = Result<(), String>;

fn failed<E: std::fmt::Display>(case: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{case}: {error}")
}

/// Runs all cases until one fails.
///
/// # Errors
/// The name of the failed case, and what was expected.
pub async fn all<F, Fut>(session: F) -> Result<(), String>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Store>>,
{
    let (one, two) = (session().await, session().await);
    create_read_replace_delete(&*one).await?;
    parents_must_exist_and_children_block_deletion(&*one).await?;
    sequence_numbers_increase(&*one).await?;
    changes_of_the_children_are_counted(&*one).await?;
    transactions_are_atomic(&*one).await?;
    too_much_data_is_refused(&*one).await?;
    other_sessions_see_a_change_after_sync(&*one, &*two).await?;
    batched_reads_return_what_single_ones_do(&*one).await?;
    rename_moves_the_whole_subtree(&*one).await?;
    watches_notify_of_changes_below_them(&*one, &*two).await?;
    ephemeral_records_end_with_their_session(&*one, session().await).await?;
    locks_are_exclusive(&one, &two).await?;
    a_lock_is_released_when_its_session_ends(&one, session().await).await?;
    one.close().await;
    let closed = one.get(&path("/c")).await;
    ensure!("closing", closed == Err(StoreError::Closed), "{closed:?}");
    two.close().await;
    Ok(())
}

async fn create_read_replace_delete(store: &dyn Store) -> Case {
    let case = "create, read, replace, delete";
    let (a, err) = (path("/a"), failed(case));
    ensure!(case, store.get(&a).await.map_err(&err)?.is_none());
    ensure!(case, store.create(&a, b"1".to_vec(), CreateMode::Persistent).await.map_err(&err)? == a);
    let again = store.create(&a, vec![], CreateMode::Persistent).await;
    ensure!(case, again == Err(StoreError::Exists(a.clone())), "{again:?}");
    let first = store.get(&a).await.map_err(&err)?.ok_or("gone")?;
    ensure!(case, first.data == b"1" && first.version == Version(0));
    ensure!(case, store.set(&a, b"2".to_vec(), Version(0)).await.map_err(&err)? == Version(1));
    let stale = store.set(&a, b"3".to_vec(), Version(0)).await;
    ensure!(case, stale == Err(StoreError::Conflict(a.clone())), "{stale:?}");
    let second = store.get(&a).await.map_err(&err)?.ok_or("gone")?;
    ensure!(case, second.data == b"2" && second.version == Version(1) && second.revision > first.revision);
    let stale = store.delete(&a, Some(Version(0))).await;
    ensure!(case, stale == Err(StoreError::Conflict(a.clone())), "{stale:?}");
    store.delete(&a, Some(Version(1))).await.map_err(&err)?;
    ensure!(case, store.get(&a).await.map_err(&err)?.is_none());
    for gone in [store.delete(&a, None).await, store.set(&a, vec![], Version(0)).await.map(|_| ())] {
        ensure!(case, gone == Err(StoreError::NotFound(a.clone())), "{gone:?}");
    }
    store.create(&a, b"4".to_vec(), CreateMode::Persistent).await.map_err(&err)?;
    let reborn = store.get(&a).await.map_err(&err)?.ok_or("gone")?;
    ensure!(case, reborn.version == Version(0) && reborn.revision > second.revision);
    store.delete(&a, None).await.map_err(&err)
}

async fn parents_must_exist_and_children_block_deletion(store: &dyn Store) -> Case {
    let case = "parents and children";
    let err = failed(case);
    let orphan = store.create(&path("/no/child"), vec![], CreateMode::Persistent).await;
    ensure!(case, orphan == Err(StoreError::NoParent(path("/no/child"))), "{orphan:?}");
    for p in ["/t", "/t/b", "/t/a", "/t/a/x"] {
        store.create(&path(p), vec![], CreateMode::Persistent).await.map_err(&err)?;
    }
    ensure!(case, store.children(&path("/t")).await.map_err(&err)? == ["a", "b"]);
    ensure!(case, store.children(&path("/t/b")).await.map_err(&err)?.is_empty());
    let nothing = store.children(&path("/none")).await;
    ensure!(case, nothing == Err(StoreError::NotFound(path("/none"))), "{nothing:?}");
    let full = store.delete(&path("/t/a"), None).await;
    ensure!(case, full == Err(StoreError::NotEmpty(path("/t/a"))), "{full:?}");
    store.create(&path("/t/e"), vec![], CreateMode::Ephemeral).await.map_err(&err)?;
    let below = store.create(&path("/t/e/x"), vec![], CreateMode::Persistent).await;
    ensure!(case, below == Err(StoreError::NoParent(path("/t/e/x"))), "{below:?}");
    for p in ["/t/e", "/t/a/x", "/t/a", "/t/b", "/t"] {
        store.delete(&path(p), None).await.map_err(&err)?;
    }
    Ok(())
}

async fn changes_of_the_children_are_counted(store: &dyn Store) -> Case {
    let case = "the counter of the records below one";
    let err = failed(case);
    let below = async || match store.get(&path("/b")).await {
        Ok(record) => Ok(record.map(|record| record.below)),
        Err(error) => Err(format!("{case}: {error}")),
    };
    store.create(&path("/b"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    let made = below().await?;
    store.create(&path("/b/x"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    let one = below().await?;
    ensure!(case, one > made, "{one:?} after {made:?}: a record was made");
    store.set(&path("/b/x"), vec![1], Version(0)).await.map_err(&err)?;
    store.set(&path("/b"), vec![1], Version(0)).await.map_err(&err)?;
    store.create(&path("/b/x/y"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    let refused = vec![Op::Create(path("/b/z"), vec![], CreateMode::Persistent), Op::Check(path("/b"), Version(7))];
    ensure!(case, store.multi(refused).await.is_err());
    let same = below().await?;
    ensure!(case, same == one, "{same:?} after {one:?}: no record was made or deleted");
    let numbered = store.create(&path("/b/e"), vec![], CreateMode::EphemeralSequential).await.map_err(&err)?;
    let two = below().await?;
    ensure!(case, two > one, "{two:?} after {one:?}: after a refused one");
    store.delete(&path("/b/x/y"), None).await.map_err(&err)?;
    store.delete(&path("/b/x"), None).await.map_err(&err)?;
    let three = below().await?;
    ensure!(case, three > two, "{three:?} after {two:?}: a record was deleted");
    store.delete(&numbered, None).await.map_err(&err)?;
    store.delete(&path("/b"), None).await.map_err(&err)?;
    store.create(&path("/b"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    let four = below().await?;
    ensure!(case, four > three, "{four:?} after {three:?}: made anew");
    store.delete(&path("/b"), None).await.map_err(&err)
}

async fn sequence_numbers_increase(store: &dyn Store) -> Case {
    let case = "sequential names";
    let err = failed(case);
    store.create(&path("/s"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    let mut names = Vec::new();
    for mode in [CreateMode::PersistentSequential, CreateMode::EphemeralSequential, CreateMode::PersistentSequential] {
        let created = store.create(&path("/s/n-"), vec![], mode).await.map_err(&err)?;
        let number = created.as_str().strip_prefix("/s/n-").unwrap_or("").to_owned();
        ensure!(case, number.len() == 10 && number.chars().all(|c| c.is_ascii_digit()), "{created}");
        names.push(created);
    }
    ensure!(case, names.is_sorted() && names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
    store.delete(&names[2], None).await.map_err(&err)?;
    let next = store.create(&path("/s/n-"), vec![], CreateMode::PersistentSequential).await.map_err(&err)?;
    ensure!(case, next > names[2], "a number is never reused");
    for p in [&names[0], &names[1], &next, &path("/s")] {
        store.delete(p, None).await.map_err(&err)?;
    }
    Ok(())
}

async fn transactions_are_atomic(store: &dyn Store) -> Case {
    let case = "multi";
    let err = failed(case);
    let create = |p: &str| Op::Create(path(p), b"x".to_vec(), CreateMode::Persistent);
    store.multi(vec![create("/m"), create("/m/a"), create("/m/b")]).await.map_err(&err)?;
    let v0 = Version(0);
    for (ops, index, cause) in [
        (vec![create("/m/c"), Op::Check(path("/m/a"), Version(7))], 1, StoreError::Conflict(path("/m/a"))),
        (vec![Op::Set(path("/m/a"), vec![], v0), create("/m/b")], 1, StoreError::Exists(path("/m/b"))),
        (vec![Op::Delete(path("/m/a"), None), Op::Delete(path("/m/z"), None)], 1, StoreError::NotFound(path("/m/z"))),
        (vec![Op::Delete(path("/m"), None), create("/n")], 0, StoreError::NotEmpty(path("/m"))),
    ] {
        let refused = store.multi(ops).await;
        let expected = Err(StoreError::Refused { index, cause: Box::new(cause) });
        ensure!(case, refused == expected, "{refused:?} instead of {expected:?}");
    }
    ensure!(
        case,
        store.children(&path("/m")).await.map_err(&err)? == ["a", "b"],
        "a refused transaction has no effect"
    );
    let a = store.get(&path("/m/a")).await.map_err(&err)?.ok_or("gone")?;
    ensure!(case, a.version == v0 && a.data == b"x");
    store.multi(vec![]).await.map_err(&err)?;
    let ops = vec![
        Op::Check(path("/m/a"), v0),
        Op::Set(path("/m/b"), b"y".to_vec(), v0),
        Op::Delete(path("/m/a"), Some(v0)),
        Op::Delete(path("/m/b"), Some(Version(1))),
        Op::Delete(path("/m"), None),
    ];
    store.multi(ops).await.map_err(&err)?;
    ensure!(case, store.get(&path("/m")).await.map_err(&err)?.is_none());
    Ok(())
}

async fn too_much_data_is_refused(store: &dyn Store) -> Case {
    let case = "too much data";
    let huge = vec![b'x'; crate::tree::DATA_MAX + 1];
    let refused = store.create(&path("/huge"), huge, CreateMode::Persistent).await;
    ensure!(case, matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
    let big = vec![b'x'; 60 * 1024];
    store.create(&path("/big"), big, CreateMode::Persistent).await.map_err(failed(case))?;
    store.delete(&path("/big"), None).await.map_err(failed(case))
}

async fn other_sessions_see_a_change_after_sync(one: &dyn Store, two: &dyn Store) -> Case {
    let case = "two sessions";
    let (p, err) = (path("/shared"), failed(case));
    one.create(&p, b"1".to_vec(), CreateMode::Persistent).await.map_err(&err)?;
    two.sync().await.map_err(&err)?;
    let seen = two.get(&p).await.map_err(&err)?.ok_or("not seen after a sync")?;
    two.set(&p, b"2".to_vec(), seen.version).await.map_err(&err)?;
    let stale = one.set(&p, b"3".to_vec(), seen.version).await;
    ensure!(case, stale == Err(StoreError::Conflict(p.clone())), "{stale:?}");
    one.delete(&p, None).await.map_err(&err)
}

async fn batched_reads_return_what_single_ones_do(store: &dyn Store) -> Case {
    let case = "batched reads";
    let err = failed(case);
    for (at, data) in [("/many", "0"), ("/many/b", "b"), ("/many/a", "a")] {
        store.create(&path(at), data.into(), CreateMode::Persistent).await.map_err(&err)?;
    }
    let wanted = [("/many", true), ("/many/gone", true), ("/many/a", false), ("/many/b", true), ("/many", false)];
    let found = store.read_many(&wanted.map(|(at, below)| (path(at), below))).await.map_err(&err)?;
    let results: Vec<String> = found
        .iter()
        .map(|(record, names)| {
            let data = record.as_ref().map_or("-".into(), |record| String::from_utf8_lossy(&record.data));
            format!("{data}:{}", names.join(","))
        })
        .collect();
    ensure!(case, results == ["0:a,b", "-:", "a:", "b:", "0:"], "{results:?}");
    let single = store.get(&path("/many/a")).await.map_err(&err)?;
    ensure!(case, found[2].0 == single, "{:?} is not {single:?}", found[2].0);
    ensure!(case, store.read_many(&[]).await == Ok(Vec::new()), "an empty batch");
    for at in ["/many/a", "/many/b", "/many"] {
        store.delete(&path(at), None).await.map_err(&err)?;
    }
    Ok(())
}

async fn rename_moves_the_whole_subtree(store: &dyn Store) -> Case {
    let case = "rename";
    let err = failed(case);
    for (p, data) in [("/r", "r"), ("/r/a", "a"), ("/r/a/b", "b"), ("/r2", "other")] {
        store.create(&path(p), data.as_bytes().to_vec(), CreateMode::Persistent).await.map_err(&err)?;
    }
    let taken = store.rename(&path("/r"), &path("/r2")).await;
    ensure!(case, taken == Err(StoreError::Exists(path("/r2"))), "{taken:?}");
    let inside = store.rename(&path("/r"), &path("/r/a/b/c")).await;
    ensure!(case, matches!(inside, Err(StoreError::NoParent(_))), "{inside:?}");
    let missing = store.rename(&path("/none"), &path("/r3")).await;
    ensure!(case, missing == Err(StoreError::NotFound(path("/none"))), "{missing:?}");
    ensure!(case, store.get(&path("/r/a/b")).await.map_err(&err)?.is_some(), "a refused rename moves nothing");
    store.rename(&path("/r"), &path("/r2/moved")).await.map_err(&err)?;
    for (p, data) in [("/r2/moved", "r"), ("/r2/moved/a", "a"), ("/r2/moved/a/b", "b")] {
        let record = store.get(&path(p)).await.map_err(&err)?.ok_or(p)?;
        ensure!(case, record.data == data.as_bytes());
    }
    ensure!(case, store.get(&path("/r")).await.map_err(&err)?.is_none());
    for p in ["/r2/moved/a/b", "/r2/moved/a", "/r2/moved", "/r2"] {
        store.delete(&path(p), None).await.map_err(&err)?;
    }
    Ok(())
}

/// Collects notifications until they named all of the paths (or everything).
async fn notified_of(watch: &mut crate::Watch, wanted: &[&str]) -> Result<(), String> {
    let mut missing: BTreeSet<RecordPath> = wanted.iter().map(|p| path(p)).collect();
    while !missing.is_empty() {
        match timeout(TIMEOUT, watch.next()).await {
            Ok(Some(Wakeup::Everything)) => return Ok(()),
            Ok(Some(Wakeup::Paths(paths))) => missing.retain(|p| !paths.contains(p)),
            Ok(None) => return Err("the watch ended".to_owned()),
            Err(_) => return Err(format!("no notification of {missing:?}")),
        }
    }
    Ok(())
}

async fn watches_notify_of_changes_below_them(one: &dyn Store, two: &dyn Store) -> Case {
    let case = "watches";
    let err = failed(case);
    one.create(&path("/w"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    let mut watch = two.watch(&path("/w")).await.map_err(&err)?;
    let first = timeout(TIMEOUT, watch.next()).await.map_err(|_| "no first notification")?;
    ensure!(case, first == Some(Wakeup::Everything), "{first:?}");
    one.create(&path("/w/a"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    one.create(&path("/w/a/b"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    notified_of(&mut watch, &["/w/a", "/w/a/b"]).await.map_err(|e| format!("{case}: {e}"))?;
    // Cancelling a wait loses nothing: notifications are kept until the next call.
    let none = timeout(Duration::from_millis(1), watch.next()).await;
    ensure!(case, none.is_err(), "{none:?}");
    one.set(&path("/w/a"), b"1".to_vec(), Version(0)).await.map_err(&err)?;
    one.delete(&path("/w/a/b"), None).await.map_err(&err)?;
    notified_of(&mut watch, &["/w/a", "/w/a/b"]).await.map_err(|e| format!("{case}: {e}"))?;
    // Changes elsewhere do not notify: the next notification is of the later change of /w/a.
    one.create(&path("/wx"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    one.delete(&path("/wx"), None).await.map_err(&err)?;
    one.delete(&path("/w/a"), None).await.map_err(&err)?;
    let next = timeout(TIMEOUT, watch.next()).await.map_err(|_| format!("{case}: no notification"))?;
    ensure!(case, next == Some(Wakeup::Paths(BTreeSet::from([path("/w/a")]))), "{next:?}");
    one.delete(&path("/w"), None).await.map_err(&err)
}

async fn ephemeral_records_end_with_their_session(store: &dyn Store, other: Arc<dyn Store>) -> Case {
    let case = "ephemeral records";
    let err = failed(case);
    let mut watch = store.watch(&path("/e")).await.map_err(&err)?;
    other.create(&path("/e"), b"here".to_vec(), CreateMode::Ephemeral).await.map_err(&err)?;
    other.create(&path("/c"), vec![], CreateMode::Persistent).await.map_err(&err)?;
    store.sync().await.map_err(&err)?;
    ensure!(case, store.get(&path("/e")).await.map_err(&err)?.is_some());
    other.close().await;
    loop {
        if store.get(&path("/e")).await.map_err(&err)?.is_none() {
            break;
        }
        timeout(TIMEOUT, watch.next()).await.map_err(|_| format!("{case}: the record still exists"))?;
    }
    ensure!(case, store.get(&path("/c")).await.map_err(&err)?.is_some(), "persistent records stay");
    store.delete(&path("/c"), None).await.map_err(&err)
}

async fn locks_are_exclusive(one: &Arc<dyn Store>, two: &Arc<dyn Store>) -> Case {
    let case = "locks";
    let (p, err) = (path("/lock"), failed(case));
    one.create(&p, vec![], CreateMode::Persistent).await.map_err(&err)?;
    let later = || Instant::now() + TIMEOUT;
    let soon = || Instant::now() + Duration::from_millis(300);

    let first = lock::acquire(one, &p, "first", later()).await.map_err(&err)?;
    let early = lock::acquire(two, &p, "second", soon()).await;
    ensure!(case, early.is_err(), "two sessions hold it");
    let (second, released) = tokio::join!(lock::acquire(two, &p, "second", later()), async { first.release().await });
    released.map_err(&err)?;
    let second = second.map_err(&err)?;
    let early = lock::acquire(one, &p, "third", soon()).await;
    ensure!(case, early.is_err(), "two sessions hold it");
    // Dropping a guard releases the lock, too.
    let (next, ()) = tokio::join!(lock::acquire(one, &p, "third", later()), async { drop(second) });
    next.map_err(&err)?.release().await.map_err(&err)?;
    let mut watch = one.watch(&p).await.map_err(&err)?;
    while !one.children(&p).await.map_err(&err)?.is_empty() {
        timeout(TIMEOUT, watch.next()).await.map_err(|_| format!("{case}: records of waiters are left"))?;
    }
    one.delete(&p, None).await.map_err(&err)
}

async fn a_lock_is_released_when_its_session_ends(store: &Arc<dyn Store>, other: Arc<dyn Store>) -> Case {
    let case = "a lock whose holder's session ends";
    let (p, err) = (path("/lock"), failed(case));
    store.create(&p, vec![], CreateMode::Persistent).await.map_err(&err)?;
    let later = || Instant::now() + TIMEOUT;
    let held = lock::acquire(&other, &p, "other", later()).await.map_err(&err)?;
    ensure!(case, held.is_held(), "the holder does not have it");
    let (acquired, ()) = tokio::join!(lock::acquire(store, &p, "next", later()), other.close());
    ensure!(case, !held.is_held(), "the holder believes that it still has it");
    timeout(TIMEOUT, held.lost()).await.map_err(|_| format!("{case}: the holder is not notified"))?;
    acquired.map_err(&err)?.release().await.map_err(&err)?;
    store.delete(&p, None).await.map_err(&err)
}
