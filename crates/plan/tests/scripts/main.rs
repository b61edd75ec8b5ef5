//! Golden tests of plans: each `*.txt` beside this file has a cluster, orders to it, and Drover's output for each. They
//! are run here with plan's own functions, and the output must equal the file. `README.md` describes the format.
//!
//! ```sh
//! cargo test -p drover-plan --test scripts                    # a difference is shown as one
//! UPDATE_SCRIPTS=1 cargo test -p drover-plan --test scripts   # writes what is said now; read it before it is
//! committed
//! ```
//!
//! [`world`] is what nodes do with their VMs, around plan's decisions; [`words`] reads what a node or a VM is;
//! [`orders`] carries out one order and prints what comes of it. [`properties`] has what holds in any cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod orders;
mod properties;
#[path = "../../src/testing.rs"]
mod testing;
mod words;
mod world;

use std::{env, fs, path::PathBuf};
use world::World;

/// Indentation of output; everything else is the script.
const SAID: &str = "  ";

/// The script with its present output.
fn run(file: &str, script: &str) -> String {
    let (mut world, mut out) = (World::default(), String::new());
    for (n, line) in (1..).zip(script.lines()) {
        if line.starts_with(SAID) {
            continue;
        }
        out += &format!("{line}\n");
        let wrong = |why: String| panic!("{file}:{n}: {why}: {line}");
        match line.split_once(' ') {
            Some((">", order)) => match orders::carry_out(&mut world, order) {
                Ok(said) => said.iter().for_each(|said| out += &format!("{SAID}{said}\n")),
                Err(why) => wrong(why),
            },
            Some(("node" | "vm" | "limits" | "selector", _)) => {
                words::declare(&mut world, line).unwrap_or_else(wrong);
            }
            Some(("#", _)) => {}
            _ if line.is_empty() || line == "#" => {}
            _ => wrong("this is not a comment, a declaration or an order".to_owned()),
        }
    }
    out
}

/// The lines of both, those that only one has with `-` (the file) or `+` (now).
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // How many lines the rests from here have in common.
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let same = old[i] == new[j];
            common[i][j] = if same { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < old.len() || j < new.len() {
        let (sign, line) = if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
            (' ', old[i - 1])
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ('-', old[i - 1])
        } else {
            j += 1;
            ('+', new[j - 1])
        };
        out += &format!("{sign} {line}\n");
    }
    out
}

#[test]
fn the_output_equals_the_scripts() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    assert!(files.len() >= 15, "{files:?}");
    let mut wrong = String::new();
    for path in files {
        let file = path.file_name().unwrap().to_str().unwrap();
        let (script, again) = (fs::read_to_string(&path).unwrap(), env::var_os("UPDATE_SCRIPTS").is_some());
        let said = run(file, &script);
        if said == script {
            continue;
        }
        if again {
            fs::write(&path, &said).unwrap();
        } else {
            wrong += &format!("\n{file}:\n{}", difference(&script, &said));
        }
    }
    assert!(wrong.is_empty(), "scripts differ (- the file, + now):\n{wrong}");
}

#[test]
fn a_difference_shows_both_sides() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), "  a\n- b\n+ x\n  c\n+ d\n");
}
