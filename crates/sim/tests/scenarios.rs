//! Every scenario in `scenarios` does what it expects, and its story equals the file beside it.
//!
//! ```sh
//! cargo test -p drover-sim --test scenarios                    # says where a story differs
//! UPDATE_SCRIPTS=1 cargo test -p drover-sim --test scenarios   # writes the stories as they are now; read them
//! ```
#![allow(clippy::unwrap_used, reason = "tests end by panicking")]

use drover_sim::scenario::play;
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The scenarios below a folder, in order.
fn scenarios(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(scenarios(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "txt") {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// What is wrong with a scenario.
fn check(file: &str, path: &Path, update: bool) -> Vec<String> {
    let played = match play(file, &fs::read_to_string(path).unwrap()) {
        Ok(played) => played,
        Err(why) => return vec![why],
    };
    let mut wrong: Vec<String> = played.failures.iter().map(|failure| format!("{file}: {failure}")).collect();
    let beside = path.with_extension("story");
    let told = fs::read_to_string(&beside).unwrap_or_default();
    if told != played.story && update {
        fs::write(&beside, &played.story).unwrap();
    } else if told != played.story {
        let same = told.lines().zip(played.story.lines()).take_while(|(old, new)| old == new).count();
        let line = |text: &str| text.lines().nth(same).unwrap_or("(the end)").to_owned();
        let (old, new) = (line(&told), line(&played.story));
        wrong.push(format!("{}:{}:\n- {old}\n+ {new}", beside.display(), same + 1));
    }
    wrong
}

#[test]
fn every_scenario_holds_and_its_story_is_the_file_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let (files, next, wrong) = (scenarios(&folder), AtomicUsize::new(0), Mutex::new(Vec::new()));
    assert!(files.len() >= 40, "there are {} scenarios", files.len());
    let update = env::var_os("UPDATE_SCRIPTS").is_some();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let file = path.strip_prefix(&folder).unwrap().display().to_string();
                    wrong.lock().unwrap().extend(check(&file, path, update));
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} scenarios:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

#[test]
fn a_story_is_the_same_every_time() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/power/one-node.txt");
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(play("one", &text).unwrap(), play("one", &text).unwrap());
}
