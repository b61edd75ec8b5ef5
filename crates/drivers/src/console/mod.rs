//! Reads log files of this node: the last lines, and following what is appended (`tail -F`). For guests' consoles and
//! the daemon's own log.
//!
//! A log is more than one file: virtlogd rotates a console's (`rotation`), and others may truncate it. The last lines
//! are read on in the rotated files, and a follower reads an old file to its end before it goes on with the next one
//! (`follow`). All followers of a daemon share one inotify instance (`watcher`). The logs of deleted VMs are deleted
//! after a while (`kept`).

mod follow;
mod kept;
mod rotation;
mod watcher;

#[cfg(any(test, feature = "testing"))]
pub use kept::FakeLogs;
pub use kept::{ConsoleLogs, LogFolder};
pub use watcher::Watcher;

use rotation::Part;
use std::{io, os::unix::fs::FileExt, path::Path};

/// Maximum that [`tail`] reads from the end of a log, in bytes; it may exceed this by one chunk.
pub const TAIL_MAX: u64 = 4 << 20;
/// Size of one read, in bytes.
const CHUNK: usize = 64 << 10;

/// Why a log cannot be read or followed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A limit of the operating system is reached.
    #[error("this node has reached the limit of its {what}: end other followers of logs, or raise {raise}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The setting that limits it.
        raise: &'static str,
    },
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl LogError {
    /// For a file that could not be opened or read.
    fn of_file(error: io::Error) -> LogError {
        match error.raw_os_error() {
            Some(EMFILE) => LogError::Limit { what: "open files", raise: "LimitNOFILE of the service droverd" },
            Some(ENFILE) => LogError::Limit { what: "open files of all processes", raise: "the sysctl fs.file-max" },
            _ => LogError::Failed(error),
        }
    }
}

// errno.h of Linux.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// The last lines of a log, and the position to follow it from.
#[derive(Debug, Default)]
pub struct Tail {
    /// The last lines, as they are in the log.
    pub data: Vec<u8>,
    /// The file that was the newest, open: even if it is rotated before somebody follows it, nothing of it is lost.
    newest: Option<Part>,
    /// Its length when the lines were read, in bytes.
    end: u64,
}

impl Tail {
    /// The last lines. Invalid UTF-8 is replaced by U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }
}

/// The last `lines` lines of a log, at most [`TAIL_MAX`] bytes, from its rotated files too. A log that does not exist
/// (yet) counts as empty.
///
/// # Errors
/// If a file cannot be opened or read.
pub fn tail(path: &Path, lines: usize) -> Result<Tail, LogError> {
    let mut tail = Tail::default();
    // From the last chunk to the first.
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let (mut newlines, mut size) = (0, 0);
    for part in rotation::newest_first(path) {
        let part = part.map_err(LogError::of_file)?;
        let mut begin = part.file.metadata()?.len();
        if tail.newest.is_none() {
            tail.end = begin;
        }
        // One more newline than lines: the one before the first line.
        while begin > 0 && size < TAIL_MAX && newlines <= lines {
            let wanted = begin.min(CHUNK as u64);
            begin -= wanted;
            let chunk = read_at(&part, begin, usize::try_from(wanted).unwrap_or(CHUNK))?;
            newlines += chunk.iter().filter(|byte| **byte == b'\n').count();
            size += wanted;
            chunks.push(chunk);
        }
        if tail.newest.is_none() {
            tail.newest = Some(part);
        }
        if size >= TAIL_MAX || newlines > lines {
            break;
        }
    }
    chunks.reverse();
    tail.data = last_lines(chunks.concat(), lines);
    Ok(tail)
}

/// Reads `wanted` bytes; fewer if the file is truncated meanwhile.
fn read_at(part: &Part, begin: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; wanted];
    let mut filled = 0;
    while let Some(rest) = chunk.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match part.file.read_at(rest, begin + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}

fn last_lines(mut data: Vec<u8>, lines: usize) -> Vec<u8> {
    if lines == 0 {
        return Vec::new();
    }
    let body = data.strip_suffix(b"\n").unwrap_or(&data);
    let start = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(lines - 1).map_or(0, |(at, _)| at + 1);
    data.drain(..start);
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn tail_returns_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        assert_eq!(tail(&file, 3).unwrap().text(), "");
        for (content, lines, expected) in [
            ("", 2, ""),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\nb\n", 0, ""),
        ] {
            fs::write(&file, content).unwrap();
            assert_eq!(tail(&file, lines).unwrap().text(), expected, "{content:?}");
        }
        fs::write(&file, b"x\n\xff\xfe\n").unwrap();
        assert_eq!(tail(&file, 1).unwrap().text(), "\u{fffd}\u{fffd}\n");
        let long = "0123456789\n".repeat(50_000);
        fs::write(&file, &long).unwrap();
        assert_eq!(tail(&file, 20_000).unwrap().text(), "0123456789\n".repeat(20_000));
    }

    #[test]
    fn tail_reads_on_in_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        // The number 1 is missing, as in the middle of a rotation. A line may be in two files.
        for (name, content) in [("log", "f\ng\n"), ("log.0", "d\ne"), ("log.2", "b\nc\n"), ("log.3", "a\n")] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        for (lines, expected) in
            [(1, "g\n"), (2, "ef\ng\n"), (3, "d\nef\ng\n"), (4, "c\nd\nef\ng\n"), (9, "a\nb\nc\nd\nef\ng\n")]
        {
            assert_eq!(tail(&file, lines).unwrap().text(), expected, "{lines} lines");
        }
        // In the middle of a rotation there may be no file of the name itself.
        fs::remove_file(&file).unwrap();
        assert_eq!(tail(&file, 1).unwrap().text(), "e");
        // A file that is there under two names is read once.
        fs::hard_link(folder.path().join("log.0"), &file).unwrap();
        assert_eq!(tail(&file, 2).unwrap().text(), "d\ne");
        // The limit counts all files.
        for number in 0..4 {
            fs::write(folder.path().join(format!("log.{number}")), "0123456789\n".repeat(200_000)).unwrap();
        }
        let read = tail(&file, usize::MAX).unwrap().data.len() as u64;
        assert!((TAIL_MAX..=TAIL_MAX + CHUNK as u64).contains(&read), "{read}");
    }
}
