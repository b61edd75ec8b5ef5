//! Log files of this node that people read: consoles of guests, and the daemon's own. The last lines, and what comes
//! after.
//!
//! virtlogd rotates a console's file (it renames it and begins a new one), and others may truncate it; a reader that
//! follows goes on with whatever has the file's name then.

use bytes::Bytes;
use inotify::{Inotify, WatchMask};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// The most that is read for the last lines, in bytes.
pub const TAIL_MAX: u64 = 4 << 20;
/// How much is handed on at once.
const CHUNK: usize = 64 << 10;

/// The end of a file, and where it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tail {
    /// The last lines. What is not UTF-8 is replaced.
    pub text: String,
    /// The file's length when they were read.
    pub end: u64,
    /// Which file it was (its inode number).
    pub file: u64,
}

/// The last `lines` lines of a file, at most [`TAIL_MAX`] bytes. A file that is not there (yet) is empty.
///
/// # Errors
/// What the operating system says.
pub fn tail(path: &Path, lines: usize) -> io::Result<Tail> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Tail::default()),
        opened => opened?,
    };
    let metadata = file.metadata()?;
    let end = metadata.len();
    let mut begin = end;
    let mut data = Vec::new();
    // One more line end than lines: the one before the first.
    while begin > 0 && end - begin < TAIL_MAX && newlines(&data) <= lines {
        let size = begin.min(CHUNK as u64);
        begin -= size;
        file.seek(SeekFrom::Start(begin))?;
        let mut chunk = vec![0; usize::try_from(size).unwrap_or(CHUNK)];
        file.read_exact(&mut chunk)?;
        chunk.extend_from_slice(&data);
        data = chunk;
    }
    Ok(Tail { text: last_lines(&data, lines), end, file: metadata.ino() })
}

fn newlines(data: &[u8]) -> usize {
    data.iter().filter(|b| **b == b'\n').count()
}

fn last_lines(data: &[u8], lines: usize) -> String {
    if lines == 0 {
        return String::new();
    }
    let body = data.strip_suffix(b"\n").unwrap_or(data);
    let start = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    String::from_utf8_lossy(data.get(start..).unwrap_or(&[])).into_owned()
}

/// What is written to a file after `from`, as it comes, until the receiver is dropped. The file may not be there yet.
///
/// # Errors
/// When its folder cannot be watched.
pub fn follow(path: &Path, from: &Tail) -> io::Result<mpsc::Receiver<Bytes>> {
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let inotify = Inotify::init()?;
    // The folder tells of writes to the file in it and of new files of its name alike.
    let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
    inotify.watches().add(&folder, mask)?;
    let events = inotify.into_event_stream(vec![0; 4096])?;
    let (send, receive) = mpsc::channel(16);
    let reader = Reader { path: path.to_owned(), at: from.end, file: from.file, open: None };
    tokio::spawn(reader.run(events, send));
    Ok(receive)
}

struct Reader {
    path: PathBuf,
    at: u64,
    file: u64,
    open: Option<File>,
}

impl Reader {
    async fn run(mut self, mut events: inotify::EventStream<Vec<u8>>, send: mpsc::Sender<Bytes>) {
        use futures_util::StreamExt;
        let name = self.path.file_name().map(ToOwned::to_owned);
        loop {
            // Everything that is there now, then wait for more.
            loop {
                match self.read() {
                    Ok(chunk) if chunk.is_empty() => break,
                    Ok(chunk) => {
                        if send.send(Bytes::from(chunk)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::debug!(file = %self.path.display(), %error, "cannot follow a log");
                        return;
                    }
                }
            }
            loop {
                tokio::select! {
                    biased;
                    () = send.closed() => return,
                    event = events.next() => match event {
                        Some(Ok(event)) if event.name.is_none() || event.name == name => break,
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return,
                    },
                }
            }
        }
    }

    /// The next piece of the file that has the name now; empty: nothing new.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if self.open.is_none() {
                match File::open(&self.path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    opened => {
                        let file = opened?;
                        let inode = file.metadata()?.ino();
                        if inode != self.file {
                            (self.file, self.at) = (inode, 0);
                        }
                        self.open = Some(file);
                    }
                }
            }
            let Some(file) = &mut self.open else { return Ok(Vec::new()) };
            if file.metadata()?.len() < self.at {
                self.at = 0;
            }
            file.seek(SeekFrom::Start(self.at))?;
            let mut chunk = vec![0; CHUNK];
            let size = file.read(&mut chunk)?;
            if size > 0 {
                self.at += size as u64;
                chunk.truncate(size);
                return Ok(chunk);
            }
            // At the end: is it still the file of that name?
            match std::fs::metadata(&self.path) {
                Ok(metadata) if metadata.ino() != self.file => self.open = None,
                _ => return Ok(Vec::new()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, time::Duration};

    #[test]
    fn the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        assert_eq!(tail(&file, 3).unwrap(), Tail::default());
        for (content, lines, expected) in [
            ("", 2, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\nb\n", 0, ""),
        ] {
            fs::write(&file, content).unwrap();
            assert_eq!(tail(&file, lines).unwrap().text, expected, "{content:?}");
        }
        fs::write(&file, b"x\n\xff\xfe\n").unwrap();
        assert_eq!(tail(&file, 1).unwrap().text, "\u{fffd}\u{fffd}\n");
        let long = "0123456789\n".repeat(50_000);
        fs::write(&file, &long).unwrap();
        assert_eq!(tail(&file, 20_000).unwrap().text, "0123456789\n".repeat(20_000));
    }

    async fn next(receiver: &mut mpsc::Receiver<Bytes>, wanted: &str) {
        let mut got = String::new();
        while got.len() < wanted.len() {
            let more = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await.expect("nothing came");
            got.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
        }
        assert_eq!(got, wanted);
    }

    #[tokio::test]
    async fn follows_through_birth_truncation_and_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut follow = follow(&path, &tail(&path, 1).unwrap()).unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(b"born\n").unwrap();
        next(&mut follow, "born\n").await;
        file.set_len(0).unwrap();
        fs::write(&path, "new\n").unwrap();
        next(&mut follow, "new\n").await;
        fs::rename(&path, folder.path().join("log.0")).unwrap();
        fs::write(&path, "rotated, and longer than before\n").unwrap();
        next(&mut follow, "rotated, and longer than before\n").await;
        drop(follow);
    }
}
