//! Follows a log: what is appended is sent on, over rotations and truncations.

use super::{CHUNK, LogError, Part, Tail, Watcher, read_at, watcher::Place};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};
use tokio::{sync::mpsc, task::spawn_blocking};

impl Watcher {
    /// Follows a log from where `tail` ended: data is sent as it is appended, until the receiver is dropped. The log
    /// need not exist yet. The channel also ends if it cannot be read any more.
    ///
    /// # Errors
    /// If the log's folder cannot be watched.
    pub fn follow(&self, path: &Path, tail: Tail) -> Result<mpsc::Receiver<Bytes>, LogError> {
        let place = self.watch(path)?;
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(run(Reader::new(path, tail), place, send));
        Ok(receive)
    }
}

async fn run(mut reader: Reader, mut place: Place, send: mpsc::Sender<Bytes>) {
    loop {
        // Send everything up to the end of the log, then wait for an event.
        loop {
            let read = spawn_blocking(move || {
                let chunk = reader.next();
                (reader, chunk)
            });
            let Ok((returned, chunk)) = read.await else { return };
            reader = returned;
            match chunk {
                Ok(chunk) if chunk.is_empty() => break,
                Ok(chunk) => {
                    if send.send(Bytes::from(chunk)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(file = %reader.path.display(), %error, "cannot follow a log");
                    return;
                }
            }
        }
        tokio::select! {
            biased;
            () = send.closed() => return,
            changed = place.changed() => if changed.is_none() { return },
        }
    }
}

/// Reads a log on from a position.
struct Reader {
    path: PathBuf,
    /// The file that is read; `None`: the one that will have the name.
    part: Option<Part>,
    /// Position in it, in bytes.
    at: u64,
    /// The files that came after it.
    next: VecDeque<Part>,
}

impl Reader {
    fn new(path: &Path, tail: Tail) -> Reader {
        Reader { path: path.to_owned(), part: tail.newest, at: tail.end, next: VecDeque::new() }
    }

    /// The next chunk; empty at the end of the log.
    fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let Some(part) = &self.part else {
                self.at = 0;
                self.part = match self.next.pop_front() {
                    Some(next) => Some(next),
                    None => Part::current(&self.path)?,
                };
                if self.part.is_none() {
                    return Ok(Vec::new());
                }
                continue;
            };
            // Truncated: read it from its beginning.
            if part.file.metadata()?.len() < self.at {
                self.at = 0;
            }
            let chunk = read_at(part, self.at, CHUNK)?;
            if !chunk.is_empty() {
                self.at += chunk.len() as u64;
                return Ok(chunk);
            }
            if !self.next.is_empty() {
                self.part = None;
            } else if part.is_replaced(&self.path)? {
                // Read it once more before its successors: it may have been written to after the read above and before
                // it was replaced, and not since.
                self.next = part.successors(&self.path)?.into();
                if self.next.is_empty() {
                    return Ok(Vec::new());
                }
            } else {
                return Ok(Vec::new());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tail, *};
    use std::{
        fs::{self, File},
        io::Write,
        time::Duration,
    };

    async fn expect(receiver: &mut mpsc::Receiver<Bytes>, wanted: &str) {
        let mut got = String::new();
        while got.len() < wanted.len() {
            let more =
                tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await.expect("no data within 10 s");
            got.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
        }
        assert_eq!(got, wanted);
    }

    #[tokio::test]
    async fn follow_survives_creation_truncation_and_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut follow = Watcher::default().follow(&path, tail(&path, 1).unwrap()).unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(b"created\n").unwrap();
        expect(&mut follow, "created\n").await;
        file.set_len(0).unwrap();
        fs::write(&path, "new\n").unwrap();
        expect(&mut follow, "new\n").await;
        fs::rename(&path, folder.path().join("log.0")).unwrap();
        fs::write(&path, "rotated, and longer than before\n").unwrap();
        expect(&mut follow, "rotated, and longer than before\n").await;
        drop(follow);
    }

    /// As virtlogd does it, keeping three old files.
    fn rotate(path: &Path) {
        let name = |n: i32| path.with_file_name(if n < 0 { "log".to_owned() } else { format!("log.{n}") });
        for n in (-1..2).rev() {
            fs::rename(name(n), name(n + 1)).ok();
        }
        File::create(path).unwrap();
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn rest(reader: &mut Reader) -> String {
        let chunks = std::iter::from_fn(|| Some(reader.next().unwrap()).filter(|chunk| !chunk.is_empty()));
        String::from_utf8(chunks.flatten().collect()).unwrap()
    }

    #[test]
    fn nothing_is_lost_when_files_are_rotated_between_two_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for (rotations, begin) in [(0, ""), (1, ""), (2, ""), (3, ""), (1, "old 1\n"), (3, "old 1\nold 2\n")] {
            begin.lines().for_each(|line| {
                append(&path, &format!("{line}\n"));
                rotate(&path);
            });
            append(&path, "read\n");
            let mut reader = Reader::new(&path, tail(&path, 1).unwrap());
            let mut expected = String::new();
            for n in 0..rotations {
                append(&path, &format!("before rotation {n}\n"));
                expected += &format!("before rotation {n}\n");
                rotate(&path);
            }
            append(&path, "the newest\n");
            expected += "the newest\n";
            assert_eq!(rest(&mut reader), expected, "{rotations} rotations after {begin:?}");
            append(&path, "more\n");
            assert_eq!(rest(&mut reader), "more\n");
            fs::read_dir(folder.path()).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn a_file_that_was_deleted_is_read_to_its_end_and_older_ones_are_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, "oldest\n");
        rotate(&path);
        let old = File::open(folder.path().join("log.0")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        append(&path, "read\n");
        let mut reader = Reader::new(&path, tail(&path, 1).unwrap());
        append(&path, "before the deletion\n");
        fs::remove_file(&path).unwrap();
        assert_eq!(rest(&mut reader), "before the deletion\n");
        append(&path, "after it\n");
        assert_eq!(rest(&mut reader), "after it\n");
        // More rotations than old files are kept: what is still there is read.
        for n in 0..5 {
            rotate(&path);
            append(&path, &format!("{n}\n"));
        }
        assert_eq!(rest(&mut reader), "1\n2\n3\n4\n");
    }

    #[tokio::test]
    async fn a_follower_ends_with_its_receiver() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let watcher = Watcher::default();
        let followers: Vec<_> = (0..300).map(|_| watcher.follow(&path, tail(&path, 1).unwrap()).unwrap()).collect();
        assert_eq!(watcher.followers(), 300);
        drop(followers);
        let none = async {
            while watcher.followers() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), none).await.expect("places are given back within 10 s");
    }
}
