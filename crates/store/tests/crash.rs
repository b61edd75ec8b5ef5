//! The embedded back end whose process is killed during writes: no acknowledged write is lost, and transactions are
//! atomic.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

use drover_model::RecordPath;
use drover_store::{CreateMode, Op, Store, Version, embedded::EmbeddedStore};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

/// Environment variable with the folder for the child process that writes and is killed.
const FOLDER: &str = "DROVER_TEST_CRASH_FOLDER";
/// Number of acknowledged writes before the process is killed.
const WRITES: i64 = 40;

fn path(text: &str) -> RecordPath {
    RecordPath::new(text).unwrap()
}

fn main() {
    // Test runners list the tests first.
    if env::args().any(|argument| argument == "--list") {
        if !env::args().any(|argument| argument == "--ignored") {
            println!("no_acknowledged_write_is_lost_by_a_kill: test");
        }
        return;
    }
    match env::var(FOLDER) {
        Ok(folder) => write_for_ever(&folder),
        Err(_) => {
            for round in 0..5 {
                kill_during_writes(round);
            }
            println!("test no_acknowledged_write_is_lost_by_a_kill ... ok");
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Writes two records in one transaction, again and again, and prints each acknowledged version.
fn write_for_ever(folder: &str) {
    block_on(async {
        let store = EmbeddedStore::open(folder.as_ref()).unwrap();
        for p in ["/a", "/b"] {
            if store.get(&path(p)).await.unwrap().is_none() {
                store.create(&path(p), b"0".to_vec(), CreateMode::Persistent).await.unwrap();
            }
        }
        let mut version = store.get(&path("/a")).await.unwrap().unwrap().version;
        loop {
            let data = (version.0 + 1).to_string().into_bytes();
            let ops = ["/a", "/b"].map(|p| Op::Set(path(p), data.clone(), version));
            store.multi(ops.to_vec()).await.unwrap();
            version = Version(version.0 + 1);
            println!("{}", version.0);
            std::io::stdout().flush().unwrap();
        }
    });
}

fn kill_during_writes(round: i64) {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        Command::new(env::current_exe().unwrap()).env(FOLDER, folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut acknowledged = 0;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        acknowledged = line.parse().unwrap();
        if acknowledged == WRITES + round {
            // Lines that still come were acknowledged, too; a later write may have taken effect or not.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged >= WRITES + round);
    block_on(async {
        let store = EmbeddedStore::open(folder.path()).unwrap();
        let (a, b) = (store.get(&path("/a")).await.unwrap().unwrap(), store.get(&path("/b")).await.unwrap().unwrap());
        assert!(a.version.0 >= acknowledged, "version {acknowledged} was acknowledged, {} is stored", a.version.0);
        assert_eq!((a.version, &a.data), (b.version, &b.data), "both or none");
        assert_eq!(a.data, a.version.0.to_string().into_bytes());
    });
}
