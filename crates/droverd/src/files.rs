//! The daemon's own files: folders, the lock against a second daemon, the machine id, this node's token.

use crate::config::Paths;
use drover_agent::{ClusterKey, tokens};
use drover_drivers::host;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Name of the file with this node's token, for the administrator on this host.
pub(crate) const TOKEN_FILE: &str = "admin.token";

/// The daemon's files, locked against other daemons.
pub(crate) struct OwnFiles {
    /// Folder of the guests' console logs.
    pub(crate) consoles: PathBuf,
    /// The machine-id(5) of the host, or a generated one.
    pub(crate) machine: String,
    /// This node's token.
    pub(crate) token: String,
    /// Held while the daemon runs; the kernel releases it however the daemon ends.
    _lock: File,
}

impl OwnFiles {
    /// Creates what is missing, and takes the lock.
    pub(crate) fn prepare(paths: &Paths) -> Result<OwnFiles, String> {
        let consoles = paths.logs.join("consoles");
        for (folder, mode) in [(&paths.state, 0o711), (&paths.logs, 0o755), (&consoles, 0o755), (&paths.disks, 0o711)] {
            let created = DirBuilder::new().recursive(true).mode(mode).create(folder);
            created.map_err(|e| format!("cannot create the folder {}: {e}", folder.display()))?;
        }
        let lock = take_lock(&paths.state.join("lock"))?;
        let machine = match host::machine_id() {
            Some(id) => id,
            None => load_or_create(&paths.state.join("machine-id"), 0o644, || Ok(Uuid::new_v4().simple().to_string()))?,
        };
        let token = load_or_create(&paths.state.join(TOKEN_FILE), 0o600, tokens::mint)?;
        Ok(OwnFiles { consoles, machine, token, _lock: lock })
    }
}

/// Timeout for the lock to be released by a predecessor that was killed.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Delay between attempts to take the lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

fn take_lock(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|e| format!("cannot open {}: {e}", path.display()))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A killed process holds the lock until its last thread has ended, for which there is no event.
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another droverd is running: it holds the lock {}", path.display()));
            }
            Err(TryLockError::Error(e)) => return Err(format!("cannot lock {}: {e}", path.display())),
        }
    }
}

/// Reads a one-line value from a file; if there is none yet, creates the value and stores it.
fn load_or_create(path: &Path, mode: u32, create: impl Fn() -> io::Result<String>) -> Result<String, String> {
    let text = |e: io::Error| format!("cannot create {}: {e}", path.display());
    if let Ok(old) = fs::read_to_string(path)
        && !old.trim().is_empty()
    {
        return Ok(old.trim().to_owned());
    }
    let new = create().map_err(text)?;
    // Written to a temporary file and renamed: after a crash the file is complete or absent.
    let temporary = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let mut file = file.map_err(text)?;
    file.write_all(format!("{new}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(text)?;
    fs::rename(&temporary, path).map_err(text)?;
    Ok(new)
}

/// Makes a new cluster key in a file that only its owner reads.
///
/// # Errors
/// If the file exists: the key in it may be in use.
pub(crate) fn new_cluster_key(path: &Path) -> Result<(), String> {
    let text = |e: io::Error| format!("cannot create the cluster key {}: {e}", path.display());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(text)?;
    let key = ClusterKey::mint().map_err(text)?;
    file.write_all(format!("{key}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(text)?;
    println!("There is a new cluster key in {}. Copy the file to all other nodes, with mode 600.", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn second_daemon_is_refused_and_token_is_persistent_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            state: folder.path().join("state"),
            logs: folder.path().join("logs"),
            disks: folder.path().join("disks"),
            shared: Vec::new(),
        };
        let first = OwnFiles::prepare(&paths).unwrap();
        let refused = OwnFiles::prepare(&paths).map(|_| ()).unwrap_err();
        assert!(refused.contains("another droverd"), "{refused}");
        let token = first.token.clone();
        drop(first);
        assert_eq!(OwnFiles::prepare(&paths).unwrap().token, token);
        let mode = fs::metadata(paths.state.join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
