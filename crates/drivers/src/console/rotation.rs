//! The files of a log: `NAME` is the newest, then come `NAME.0`, `NAME.1` and so on.
//!
//! virtlogd (libvirt 9.0.0, `virrotatingfile.c`) begins a new file at 2 MiB and keeps 3 old ones, if its configuration
//! does not say otherwise. It renames the old ones first, from the oldest to the newest, then `NAME`, and creates
//! `NAME` last: meanwhile a number, or `NAME` itself, may be missing. It writes nothing to a file that has been
//! renamed. It splits a line over two files if the line is longer than 80 bytes.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Maximum number of old files: virtlogd's (`VIR_MAX_MAX_BACKUP`).
const OLD_MAX: usize = 32;

/// One file of a log, open.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: File,
    /// Device and inode: they tell it from all others while it is open.
    id: (u64, u64),
    /// Whether it had the log's own name when it was opened.
    current: bool,
}

impl Part {
    /// Opens a file; `None`: there is none of that name.
    fn open(path: &Path, current: bool) -> io::Result<Option<Part>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        Ok(Some(Part { file, id: (metadata.dev(), metadata.ino()), current }))
    }

    /// Opens the file that has the log's name now.
    pub(super) fn current(path: &Path) -> io::Result<Option<Part>> {
        Part::open(path, true)
    }

    /// Whether the log's name belongs to another file now. During a rotation it belongs to none.
    pub(super) fn is_replaced(&self, path: &Path) -> io::Result<bool> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok((metadata.dev(), metadata.ino()) != self.id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The files that came after this one, from the oldest to the newest. This one may be gone.
    pub(super) fn successors(&self, path: &Path) -> io::Result<Vec<Part>> {
        let mut newer = Vec::new();
        let mut found = false;
        for part in newest_first(path) {
            let part = part?;
            if part.id == self.id {
                found = true;
                break;
            }
            newer.push(part);
        }
        if !found {
            // So many files came after it that it was deleted, or somebody deleted it. Old files that were written to
            // before it are not its successors.
            let last_written = modified(&self.file)?;
            newer.retain(|part| part.current || modified(&part.file).is_ok_and(|at| at >= last_written));
        }
        newer.reverse();
        Ok(newer)
    }
}

/// Whether this is what the name of a log's file may have after the log's name: nothing, or the number of an old file.
pub(super) fn is_number(rest: &str) -> bool {
    let number = rest.strip_prefix('.').and_then(|number| number.parse().ok());
    rest.is_empty() || number.is_some_and(|number: usize| number < OLD_MAX && rest == format!(".{number}"))
}

fn modified(file: &File) -> io::Result<SystemTime> {
    file.metadata()?.modified()
}

/// The files of a log, each once. A file only ever moves on to names that come later here, so a rotation meanwhile may
/// show one twice, and hides none.
pub(super) fn newest_first(path: &Path) -> impl Iterator<Item = io::Result<Part>> {
    let old = |number: usize| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let names = std::iter::once((path.to_owned(), true)).chain((0..OLD_MAX).map(move |number| (old(number), false)));
    let mut seen = BTreeSet::new();
    names
        .filter_map(|(name, current)| Part::open(&name, current).transpose())
        .filter(move |part| part.as_ref().map_or(true, |part| seen.insert(part.id)))
}
