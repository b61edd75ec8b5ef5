//! The files of a node's history: a line of JSON for each event. When the newer file is full, it replaces the older
//! one, so that both together have their bound.

use drover_model::wire::Event;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Size of one of the two files, in bytes.
pub(super) const FILE_MAX: u64 = 512 << 10;
/// Lines of one of the two files.
pub(super) const LINES_MAX: usize = 2048;
/// Events that wait to be written. More than that are not written.
const QUEUE: usize = 256;
/// Stack of the thread, in bytes.
const STACK: usize = 256 << 10;

const NEWER: &str = "events.jsonl";
const OLDER: &str = "events.old.jsonl";

/// The files.
pub(super) struct Journal {
    newer: PathBuf,
    older: PathBuf,
    queue: SyncSender<Arc<Event>>,
    /// Events were lost because the queue was full, which was logged.
    full: AtomicBool,
}

impl Journal {
    /// Opens the files, and starts the thread that writes. Returns the number of the last event too, 0 without any.
    pub(super) fn open(folder: &Path) -> io::Result<(Journal, u64)> {
        let (newer, older) = (folder.join(NEWER), folder.join(OLDER));
        let mut last = 0;
        for file in [&older, &newer] {
            read(file, |event| last = last.max(event.seq))?;
        }
        let (queue, events) = sync_channel(QUEUE);
        let mut writer = Writer::open(newer.clone(), older.clone())?;
        let run = move || writer.run(&events);
        thread::Builder::new().name("events".to_owned()).stack_size(STACK).spawn(run)?;
        Ok((Journal { newer, older, queue, full: AtomicBool::new(false) }, last))
    }

    /// Has an event written.
    pub(super) fn append(&self, event: &Arc<Event>) {
        let lost = self.queue.try_send(event.clone()).is_err();
        if lost && !self.full.swap(lost, Ordering::Relaxed) {
            tracing::warn!(file = %self.newer.display(), "events come faster than they can be written; some are lost");
        }
    }

    /// All events in the files, in no particular order. What cannot be read is left out.
    pub(super) fn read(&self, mut each: impl FnMut(&Event)) {
        // The newer file first: it may become the older one meanwhile, and is then read twice, and not missed.
        for file in [&self.newer, &self.older] {
            if let Err(error) = read(file, &mut each) {
                tracing::debug!(file = %file.display(), %error, "cannot read events");
            }
        }
    }
}

/// The events of a file. Other lines are skipped: after a crash, the last one may be only a part.
fn read(file: &Path, mut each: impl FnMut(&Event)) -> io::Result<()> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).for_each(|e| each(&e));
    Ok(())
}

pub(super) struct Writer {
    newer: PathBuf,
    older: PathBuf,
    file: File,
    size: u64,
    lines: usize,
    /// The file may end within a line.
    torn: bool,
    /// The last write failed, which was logged.
    failing: bool,
}

impl Writer {
    pub(super) fn open(newer: PathBuf, older: PathBuf) -> io::Result<Writer> {
        let bytes = fs::read(&newer).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        })?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let (size, torn) = (bytes.len() as u64, bytes.last().is_some_and(|last| *last != b'\n'));
        Ok(Writer { file: appended(&newer)?, newer, older, size, lines, torn, failing: false })
    }

    fn run(&mut self, events: &Receiver<Arc<Event>>) {
        while let Ok(event) = events.recv() {
            let outcome = self.write(&event);
            if let Err(error) = &outcome
                && !self.failing
            {
                tracing::warn!(file = %self.newer.display(), %error, "cannot write events; they are in memory only");
            }
            self.failing = outcome.is_err();
        }
    }

    pub(super) fn write(&mut self, event: &Event) -> io::Result<()> {
        if self.size >= FILE_MAX || self.lines >= LINES_MAX {
            fs::rename(&self.newer, &self.older).or_else(|error| match error.kind() {
                // Somebody deleted it.
                ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            self.file = appended(&self.newer)?;
            (self.size, self.lines, self.torn) = (0, 0, false);
        }
        let mut line = if self.torn { b"\n".to_vec() } else { Vec::new() };
        serde_json::to_writer(&mut line, event)?;
        line.push(b'\n');
        // In one call, so that what a crash leaves is a part of a line at most.
        self.torn = true;
        self.file.write_all(&line)?;
        self.torn = false;
        self.size += line.len() as u64;
        self.lines += 1;
        Ok(())
    }
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_full_disk_the_next_line_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let [newer, older] = [NEWER, OLDER].map(|name| folder.path().join(name));
        let mut writer = Writer::open(newer.clone(), older).unwrap();
        let event = |seq| Event { seq, ..Event::default() };
        writer.write(&event(1)).unwrap();
        // A part of the second line was written.
        fs::write(&newer, [fs::read(&newer).unwrap(), b"{\"seq\":2".to_vec()].concat()).unwrap();
        let file = std::mem::replace(&mut writer.file, OpenOptions::new().append(true).open("/dev/full").unwrap());
        assert_eq!(writer.write(&event(2)).unwrap_err().kind(), ErrorKind::StorageFull);
        writer.file = file;
        writer.write(&event(3)).unwrap();
        let mut found = Vec::new();
        read(&newer, |event| found.push(event.seq)).unwrap();
        assert_eq!(found, [1, 3]);
    }
}
