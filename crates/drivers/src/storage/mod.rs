//! Disk files of VMs on this node: the trait [`Disks`], its implementation on files, and a fake.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod files;
mod look;

use async_trait::async_trait;
use drover_model::image::Looked;
use std::{io, path::PathBuf};

/// A file, and whether it could be removed.
pub type Removed = (PathBuf, io::Result<()>);

/// The disk files on this node that Drover owns.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Looks at the files `own`, which may be deleted, and at those that could need one of them: `named`, and all in
    /// Drover's folder. Has a deadline; what could not be found out is said.
    async fn look(&self, own: Vec<PathBuf>, named: Vec<PathBuf>) -> Looked;

    /// Deletes files and returns the outcome of each. A file that Drover does not own is refused with
    /// `PermissionDenied`. Idempotent: a file that is absent counts as removed.
    async fn remove(&self, files: Vec<PathBuf>) -> Vec<Removed>;
}
