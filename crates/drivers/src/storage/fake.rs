//! Fake disks for simulation and tests: every file exists under the path that names it, and is only noted when it is
//! removed. (Real files would bring real time into the simulation.)

use super::{Disks, Removed};
use async_trait::async_trait;
use drover_model::image::{FileAt, Image, Looked};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::sleep;

/// Called with each file at the moment at which it is removed.
pub type Observer = Box<dyn Fn(&Path) + Send>;

/// [`Disks`] without files. Clones are the same disks.
#[derive(Clone, Default)]
pub struct FakeDisks {
    removed: Arc<Mutex<Vec<PathBuf>>>,
    observer: Arc<Mutex<Option<Observer>>>,
    look_takes: Arc<Mutex<Duration>>,
}

impl FakeDisks {
    /// From now on, a look takes this long.
    pub fn set_look_takes(&self, time: Duration) {
        *self.look_takes.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// Calls `observer` at every removal from now on.
    pub fn observe(&self, observer: Observer) {
        *self.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
    }

    /// The files that were removed.
    pub fn removed(&self) -> Vec<PathBuf> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Disks for FakeDisks {
    async fn look(&self, own: Vec<PathBuf>, named: Vec<PathBuf>) -> Looked {
        let takes = *self.look_takes.lock().unwrap_or_else(PoisonError::into_inner);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        let images = |paths: Vec<PathBuf>| {
            let image =
                |path: PathBuf| Image { files: vec![FileAt { path: path.clone(), inode: None }], path, problem: None };
            paths.into_iter().map(image).collect()
        };
        Looked { own: images(own), named: images(named), ..Looked::default() }
    }

    async fn remove(&self, files: Vec<PathBuf>) -> Vec<Removed> {
        if let Some(observer) = &*self.observer.lock().unwrap_or_else(PoisonError::into_inner) {
            files.iter().for_each(|file| observer(file));
        }
        self.removed.lock().unwrap_or_else(PoisonError::into_inner).extend(files.iter().cloned());
        files.into_iter().map(|file| (file, Ok(()))).collect()
    }
}
