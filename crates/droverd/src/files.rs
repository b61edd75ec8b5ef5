//! The daemon's own files: folders, the lock that keeps two daemons apart, the machine's id, this node's token.

use crate::config::Paths;
use drover_agent::tokens;
use drover_drivers::host;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// The file with this node's token, for the administrator on this machine.
pub(crate) const TOKEN_FILE: &str = "admin.token";

/// What the daemon has on disk.
pub(crate) struct Own {
    /// Logs of the guests' consoles.
    pub(crate) consoles: PathBuf,
    /// The machine's id.
    pub(crate) machine: String,
    /// This node's token.
    pub(crate) token: String,
    /// Held as long as the daemon runs; the kernel lets it go however the daemon ends.
    _lock: File,
}

impl Own {
    /// Makes what is missing.
    pub(crate) fn prepare(paths: &Paths) -> Result<Own, String> {
        let consoles = paths.logs.join("consoles");
        for (folder, mode) in [(&paths.state, 0o711), (&paths.logs, 0o755), (&consoles, 0o755), (&paths.disks, 0o711)] {
            let made = DirBuilder::new().recursive(true).mode(mode).create(folder);
            made.map_err(|e| format!("cannot make the folder {}: {e}", folder.display()))?;
        }
        let lock = take_lock(&paths.state.join("lock"))?;
        let machine = match host::machine_id() {
            Some(id) => id,
            None => kept(&paths.state.join("machine-id"), 0o644, || Ok(Uuid::new_v4().simple().to_string()))?,
        };
        let token = kept(&paths.state.join(TOKEN_FILE), 0o600, tokens::mint)?;
        Ok(Own { consoles, machine, token, _lock: lock })
    }
}

/// How long a predecessor that was killed may take to be gone.
const ENDING: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const AGAIN: Duration = Duration::from_millis(10);

fn take_lock(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    let deadline = Instant::now() + ENDING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // One that was killed holds it until the last of its threads is gone, of which no event tells.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(AGAIN),
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another droverd holds {}; is one running already?", path.display()));
            }
            Err(TryLockError::Error(e)) => return Err(format!("cannot lock {}: {e}", path.display())),
        }
    }
}

/// A line that is made once and then kept in a file.
fn kept(path: &Path, mode: u32, make: impl Fn() -> io::Result<String>) -> Result<String, String> {
    let text = |e: io::Error| format!("{}: {e}", path.display());
    if let Ok(old) = fs::read_to_string(path)
        && !old.trim().is_empty()
    {
        return Ok(old.trim().to_owned());
    }
    let new = make().map_err(text)?;
    // Beside it, then in its place: a crash leaves the whole line or none.
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft).map_err(text)?;
    file.write_all(format!("{new}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(text)?;
    fs::rename(&draft, path).map_err(text)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_daemon_is_refused_and_the_token_stays_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            state: folder.path().join("state"),
            logs: folder.path().join("logs"),
            disks: folder.path().join("disks"),
            shared: Vec::new(),
        };
        let first = Own::prepare(&paths).unwrap();
        let refused = Own::prepare(&paths).map(|_| ()).unwrap_err();
        assert!(refused.contains("another droverd"), "{refused}");
        let token = first.token.clone();
        drop(first);
        assert_eq!(Own::prepare(&paths).unwrap().token, token);
        let mode = fs::metadata(paths.state.join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
