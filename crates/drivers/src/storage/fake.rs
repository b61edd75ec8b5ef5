//! Disks that only pretend, for simulation: every file is gone already. (Real files would bring real time into it.)

use super::{Disks, Removed};
use async_trait::async_trait;
use std::path::PathBuf;

/// No disks.
#[derive(Debug, Clone, Copy, Default)]
pub struct FakeDisks;

#[async_trait]
impl Disks for FakeDisks {
    async fn remove(&self, files: Vec<PathBuf>) -> Vec<Removed> {
        files.into_iter().map(|file| (file, Ok(()))).collect()
    }
}
