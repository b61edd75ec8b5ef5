//! Disk files in Drover's own folder.

use super::{Disks, Removed, look};
use async_trait::async_trait;
use drover_model::image::Looked;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The folder of Drover's disk files. A file outside it, also if reached through a symbolic link, is not Drover's.
#[derive(Debug, Clone)]
pub struct DiskFolder {
    folder: PathBuf,
}

impl DiskFolder {
    /// Manages the disk files in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> DiskFolder {
        DiskFolder { folder: folder.into() }
    }
}

#[async_trait]
impl Disks for DiskFolder {
    async fn look(&self, own: Vec<PathBuf>, named: Vec<PathBuf>) -> Looked {
        look::look(self.folder.clone(), own, named).await
    }

    async fn remove(&self, files: Vec<PathBuf>) -> Vec<Removed> {
        let folder = self.folder.clone();
        let requested = files.clone();
        let task = tokio::task::spawn_blocking(move || {
            files.into_iter().map(|file| (file.clone(), remove_one(&folder, &file))).collect()
        });
        task.await.unwrap_or_else(|error| {
            requested.into_iter().map(|file| (file, Err(io::Error::other(error.to_string())))).collect()
        })
    }
}

fn remove_one(folder: &Path, file: &Path) -> io::Result<()> {
    let foreign = || {
        let reason = format!("it is not in {}; Drover deletes only files there", folder.display());
        io::Error::new(io::ErrorKind::PermissionDenied, reason)
    };
    let (Some(parent), Some(name)) = (file.parent(), file.file_name()) else { return Err(foreign()) };
    // Symbolic links in the parent are resolved, the file itself is not: deleting a link deletes the link.
    let parent = match (parent.canonicalize(), folder.canonicalize()) {
        (Ok(parent), Ok(folder)) if parent.starts_with(&folder) => parent,
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => return Err(foreign()),
    };
    match std::fs::remove_file(parent.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_files_inside_the_folder_are_deleted() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mine, other) = (ours.path().join("a.img"), theirs.path().join("b.img"));
        std::fs::write(&mine, b"x").unwrap();
        std::fs::write(&other, b"x").unwrap();
        std::os::unix::fs::symlink(theirs.path(), ours.path().join("link")).unwrap();
        let linked = ours.path().join("link/b.img");
        let dotted = ours.path().join("..").join(theirs.path().file_name().unwrap()).join("b.img");
        let files = vec![mine.clone(), mine.clone(), other.clone(), linked, dotted];
        let outcome: Vec<bool> =
            DiskFolder::new(ours.path()).remove(files).await.into_iter().map(|(_, r)| r.is_ok()).collect();
        assert_eq!(outcome, [true, true, false, false, false]);
        assert!(!mine.exists() && other.exists());
    }
}
