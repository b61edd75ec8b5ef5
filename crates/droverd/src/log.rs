//! The daemon's log: to standard error (and so the journal), and to the file that `drover node log` shows.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Maximum size of the file in bytes; it is then rotated to `NAME.1`.
const FILE_MAX: u64 = 16 << 20;

/// Writes each line to both places.
#[derive(Clone)]
struct Tee {
    file: Arc<Mutex<LogFile>>,
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { path: path.to_owned(), file, size })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size + line.len() as u64 > FILE_MAX {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *self = LogFile::open(&self.path)?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }
}

impl Write for Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Errors are ignored: a log that cannot be written must not stop the daemon, and there is no place to log it.
        io::stderr().write_all(line).ok();
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line).ok();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Tee {
    type Writer = Tee;
    fn make_writer(&'a self) -> Tee {
        self.clone()
    }
}

/// Starts logging, at level `info` unless the environment variable `DROVER_LOG` has a filter (in the syntax of
/// tracing's `EnvFilter`).
pub(crate) fn start(file: &Path) -> io::Result<()> {
    let tee = Tee { file: Arc::new(Mutex::new(LogFile::open(file)?)) };
    let filter =
        EnvFilter::try_from_env("DROVER_LOG").unwrap_or_else(|_| EnvFilter::new("info,zookeeper_client=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(tee).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_rotated_at_its_maximum_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("droverd.log");
        let mut log = LogFile::open(&path).unwrap();
        log.size = FILE_MAX - 2;
        log.write(b"old\n").unwrap();
        log.write(b"new\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old\nnew\n");
        assert!(path.with_extension("log.1").exists());
    }
}
