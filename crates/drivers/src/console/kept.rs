//! The console logs that a node keeps: the trait [`ConsoleLogs`], its implementation on a folder, and a fake.

use super::rotation;
use async_trait::async_trait;
use drover_model::ConsoleLog;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use uuid::Uuid;
#[cfg(any(test, feature = "testing"))]
use {
    std::sync::{Arc, Mutex, MutexGuard, PoisonError},
    tokio::time::Instant,
};

/// The console logs on this node.
#[async_trait]
pub trait ConsoleLogs: Send + Sync + 'static {
    /// All of them.
    ///
    /// # Errors
    /// If they cannot be listed.
    async fn list(&self) -> io::Result<Vec<ConsoleLog>>;

    /// Deletes a VM's, with its rotated files. One that is absent counts as deleted.
    ///
    /// # Errors
    /// If a file cannot be deleted.
    async fn delete(&self, vm: Uuid) -> io::Result<()>;
}

/// The folder of the console logs: `UUID.log`, and `UUID.log.N`. Other files in it are left alone.
#[derive(Debug, Clone)]
pub struct LogFolder {
    folder: PathBuf,
}

impl LogFolder {
    /// The logs in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> LogFolder {
        LogFolder { folder: folder.into() }
    }
}

#[async_trait]
impl ConsoleLogs for LogFolder {
    async fn list(&self) -> io::Result<Vec<ConsoleLog>> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || list(&folder)).await.map_err(io::Error::other)?
    }

    async fn delete(&self, vm: Uuid) -> io::Result<()> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || delete(&folder, vm)).await.map_err(io::Error::other)?
    }
}

fn list(folder: &Path) -> io::Result<Vec<ConsoleLog>> {
    let now = SystemTime::now();
    let mut logs = BTreeMap::new();
    for (vm, path) in files(folder)? {
        let modified = match path.symlink_metadata() {
            Ok(metadata) => metadata.modified()?,
            // It has just been rotated, or deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // Written in the future: the clock was set back. It is quiet from now on.
        let quiet = now.duration_since(modified).unwrap_or(Duration::ZERO);
        logs.entry(vm).and_modify(|least: &mut Duration| *least = quiet.min(*least)).or_insert(quiet);
    }
    Ok(logs.into_iter().map(|(vm, quiet)| ConsoleLog { vm, quiet }).collect())
}

fn delete(folder: &Path, vm: Uuid) -> io::Result<()> {
    for (_, path) in files(folder)?.into_iter().filter(|(owner, _)| *owner == vm) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// The files of logs in a folder, with their VMs.
fn files(folder: &Path) -> io::Result<Vec<(Uuid, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let owner = name.split_once(".log").filter(|(_, number)| rotation::is_number(number));
        // Only as Drover writes it: another spelling is somebody else's file.
        let owner = owner.and_then(|(uuid, _)| Uuid::parse_str(uuid).ok().filter(|vm| vm.to_string() == uuid));
        found.extend(owner.map(|vm| (vm, path)));
    }
    Ok(found)
}

/// Logs without files, for simulation and tests. Clones are the same logs.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Default)]
pub struct FakeLogs(Arc<Mutex<BTreeMap<Uuid, (Instant, Duration)>>>);

#[cfg(any(test, feature = "testing"))]
impl FakeLogs {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<Uuid, (Instant, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A VM has a log, which has been quiet for so long.
    pub fn put(&self, vm: Uuid, quiet: Duration) {
        self.logs().insert(vm, (Instant::now(), quiet));
    }

    /// Whether there is a VM's log.
    pub fn has(&self, vm: &Uuid) -> bool {
        self.logs().contains_key(vm)
    }
}

#[cfg(any(test, feature = "testing"))]
#[async_trait]
impl ConsoleLogs for FakeLogs {
    async fn list(&self) -> io::Result<Vec<ConsoleLog>> {
        let quiet =
            |(vm, (at, quiet)): (&Uuid, &(Instant, Duration))| ConsoleLog { vm: *vm, quiet: *quiet + at.elapsed() };
        Ok(self.logs().iter().map(quiet).collect())
    }

    async fn delete(&self, vm: Uuid) -> io::Result<()> {
        self.logs().remove(&vm);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[tokio::test]
    async fn a_log_is_all_its_files_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Uuid::from_u128(0xa1), Uuid::from_u128(0xa2));
        let hours = |n: u64| Duration::from_secs(3600 * n);
        let file = |name: String, age: Duration| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        file(format!("{one}.log"), hours(2));
        file(format!("{one}.log.0"), hours(5));
        file(format!("{one}.log.31"), hours(9));
        file(format!("{two}.log.0"), hours(3));
        let others = [
            format!("{}.log", one.simple()),
            format!("{}.log", one.to_string().to_uppercase()),
            format!("{one}.log.gz"),
            format!("{one}.log.0.gz"),
            format!("{one}.logs"),
            format!("{one}.log."),
            "droverd.log".to_owned(),
        ];
        others.iter().for_each(|name| file(name.clone(), hours(1)));
        let logs = LogFolder::new(folder.path());
        let found = logs.list().await.unwrap();
        assert_eq!(found.iter().map(|log| log.vm).collect::<Vec<_>>(), [one, two]);
        assert!(found[0].quiet >= hours(2) && found[0].quiet < hours(3), "{found:?}");
        assert!(found[1].quiet >= hours(3) && found[1].quiet < hours(4), "{found:?}");

        logs.delete(one).await.unwrap();
        logs.delete(one).await.unwrap();
        assert_eq!(logs.list().await.unwrap().iter().map(|log| log.vm).collect::<Vec<_>>(), [two]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len() + 1);
    }
}
