//! Disk files in the one folder that is Drover's own.

use super::{Disks, Removed};
use async_trait::async_trait;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The folder. A file elsewhere (also by way of a symbolic link) is somebody else's.
#[derive(Debug, Clone)]
pub struct DiskFolder {
    folder: PathBuf,
}

impl DiskFolder {
    /// Disks in that folder.
    pub fn new(folder: impl Into<PathBuf>) -> DiskFolder {
        DiskFolder { folder: folder.into() }
    }
}

#[async_trait]
impl Disks for DiskFolder {
    async fn remove(&self, files: Vec<PathBuf>) -> Vec<Removed> {
        let folder = self.folder.clone();
        let unfinished: Vec<PathBuf> = files.clone();
        let work = tokio::task::spawn_blocking(move || {
            files.into_iter().map(|file| (file.clone(), remove_one(&folder, &file))).collect()
        });
        work.await.unwrap_or_else(|error| {
            unfinished.into_iter().map(|file| (file, Err(io::Error::other(error.to_string())))).collect()
        })
    }
}

fn remove_one(folder: &Path, file: &Path) -> io::Result<()> {
    let foreign = || {
        let why = format!("it is not in {}, so it is not Drover's to delete", folder.display());
        io::Error::new(io::ErrorKind::PermissionDenied, why)
    };
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else { return Err(foreign()) };
    // The parent is resolved, the file itself is not: deleting a link deletes the link.
    let parent = match (parent.canonicalize(), folder.canonicalize()) {
        (Ok(parent), Ok(folder)) if parent.starts_with(&folder) => parent,
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => return Err(foreign()),
    };
    match std::fs::remove_file(parent.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn deletes_only_inside() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mine, other) = (ours.path().join("a.img"), theirs.path().join("b.img"));
        std::fs::write(&mine, b"x").unwrap();
        std::fs::write(&other, b"x").unwrap();
        std::os::unix::fs::symlink(theirs.path(), ours.path().join("link")).unwrap();
        let crooked = ours.path().join("link/b.img");
        let dotted = ours.path().join("..").join(theirs.path().file_name().unwrap()).join("b.img");
        let files = vec![mine.clone(), mine.clone(), other.clone(), crooked, dotted];
        let outcome: Vec<bool> =
            DiskFolder::new(ours.path()).remove(files).await.into_iter().map(|(_, r)| r.is_ok()).collect();
        assert_eq!(outcome, [true, true, false, false, false]);
        assert!(!mine.exists() && other.exists());
    }
}
