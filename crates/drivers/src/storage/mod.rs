//! Where disks are: a small trait, files behind it, and a fake that has none.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod files;

use async_trait::async_trait;
use std::{io, path::PathBuf};

/// A file, and what became of it.
pub type Removed = (PathBuf, io::Result<()>);

/// The disks that are Drover's own on this node.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Deletes those of the files that are Drover's own, and says of each what became of it. Somebody else's is
    /// refused; one that is gone already is fine.
    async fn remove(&self, files: Vec<PathBuf>) -> Vec<Removed>;
}
