use super::{
    file::{FILE_MAX, LINES_MAX, Writer},
    *,
};
use std::{fs, io::Write, thread, time::Duration, time::Instant};

fn me() -> NodeName {
    NodeName::new("hv1").unwrap()
}

fn tell(events: &Events, what: &str) {
    events.tell(&me(), WallTime(50), Entry::of_cluster(EventKind::Primary, what));
}

fn texts(page: &Page) -> Vec<&str> {
    page.events.iter().map(|event| event.what.as_str()).collect()
}

fn after(seq: u64) -> Cursor {
    Cursor { since: 0, nodes: BTreeMap::from([("hv1".to_owned(), seq)]) }
}

/// Waits until the thread has written so many lines.
fn written(folder: &Path, lines: usize) {
    let (file, deadline) = (folder.join("events.jsonl"), Instant::now() + Duration::from_secs(10));
    while fs::read(&file).unwrap().iter().filter(|byte| **byte == b'\n').count() < lines {
        assert!(Instant::now() < deadline, "{lines} lines were not written");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn events_survive_a_restart_with_a_torn_line_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::open(folder.path(), WallTime(100));
    tell(&events, "one");
    tell(&events, "two");
    written(folder.path(), 2);
    drop(events);
    // The daemon was killed in the middle of a line.
    let mut file = fs::OpenOptions::new().append(true).open(folder.path().join("events.jsonl")).unwrap();
    file.write_all(b"{\"node\":\"hv1\",\"seq\":102,\"wh").unwrap();
    // The clock was set back meanwhile.
    let events = Events::open(folder.path(), WallTime(7));
    tell(&events, "three");
    written(folder.path(), 4);
    let page = events.page("hv1", None, 10, |_| true);
    assert_eq!(texts(&page), ["one", "two", "three"]);
    let numbers: Vec<u64> = page.events.iter().map(|event| event.seq).collect();
    assert_eq!((numbers, page.last), (vec![100, 101, 102], 102));
    drop(events);
    // What was told and lost with the power has a number below the time.
    let events = Events::open(folder.path(), WallTime(5000));
    tell(&events, "four");
    let page = events.page("hv1", Some(&after(102)), 10, |_| true);
    assert_eq!((texts(&page), page.last), (vec!["four"], 5000));
}

#[test]
fn pages_follow_each_other_without_a_gap_or_a_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let events = Events::open(folder.path(), WallTime(1));
    // More than are in memory.
    for n in 0..2 * RECENT {
        tell(&events, &n.to_string());
        // The queue is bounded.
        if n % 64 == 0 {
            written(folder.path(), n);
        }
    }
    written(folder.path(), 2 * RECENT);
    let (mut at, mut all) = (0, Vec::new());
    loop {
        let page = events.page("hv1", Some(&after(at)), 50, |event| event.seq % 3 != 0);
        if page.events.is_empty() {
            assert_eq!(page.last, 2 * RECENT as u64, "also what is not wanted is behind it");
            break;
        }
        assert!(page.events.len() <= 50);
        all.extend(page.events.iter().map(|event| event.seq));
        at = page.last;
    }
    let wanted: Vec<u64> = (1..=2 * RECENT as u64).filter(|seq| seq % 3 != 0).collect();
    assert_eq!(all, wanted);
    let page = events.page("hv1", None, 3, |_| true);
    assert_eq!(texts(&page), ["253", "254", "255"], "the newest");
    let since = |since| Cursor { since, nodes: BTreeMap::new() };
    assert_eq!(events.page("hv1", Some(&since(51)), 3, |_| true).events, [], "all are older");
    assert_eq!(texts(&events.page("hv1", Some(&since(50)), 2, |_| true)), ["0", "1"]);
}

#[test]
fn files_are_bounded_by_lines_and_by_size() {
    let folder = tempfile::tempdir().unwrap();
    let [newer, older] = ["events.jsonl", "events.old.jsonl"].map(|name| folder.path().join(name));
    let lines = |path: &Path| fs::read(path).unwrap().iter().filter(|byte| **byte == b'\n').count();
    let mut writer = Writer::open(newer.clone(), older.clone()).unwrap();
    for seq in 0..2 * LINES_MAX as u64 + 10 {
        writer.write(&Event { seq, ..Event::default() }).unwrap();
    }
    assert_eq!((lines(&older), lines(&newer)), (LINES_MAX, 10));
    // A daemon that starts anew counts what is there.
    let mut writer = Writer::open(newer.clone(), older.clone()).unwrap();
    for _ in 10..=LINES_MAX {
        writer.write(&Event::default()).unwrap();
    }
    assert_eq!((lines(&older), lines(&newer)), (LINES_MAX, 1));
    let long = Event { what: "x".repeat(1000), ..Event::default() };
    for _ in 0..1500 {
        writer.write(&long).unwrap();
    }
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(size(&older) < FILE_MAX + 2000 && size(&newer) < FILE_MAX + 2000 && size(&older) > FILE_MAX / 2);
}

#[test]
fn files_that_cannot_be_used_do_not_keep_a_daemon_from_its_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("events.jsonl")).unwrap();
    let events = Events::open(folder.path(), WallTime(100));
    tell(&events, "one");
    let page = events.page("hv1", None, 10, |_| true);
    assert_eq!((texts(&page), page.last), (vec!["one"], 100));
}
