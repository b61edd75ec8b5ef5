//! One inotify instance for all followers of logs: a user has 128 instances by default
//! (`fs.inotify.max_user_instances`), and all daemons that run as root share them.
//!
//! Folders are watched, not files: that reports writes to a file as well as a new file of its name. A folder is watched
//! while somebody follows a file in it.

use super::{EMFILE, ENOSPC, LogError};
use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::{sync::mpsc, task::AbortHandle};

/// Notifies followers of changes of their files. Cheap to clone; all clones share one inotify instance, which exists
/// from the first follower on.
#[derive(Debug, Clone, Default)]
pub struct Watcher(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    instance: Option<Instance>,
    folders: HashMap<WatchDescriptor, Places>,
    /// The number of the next follower.
    next: u64,
}

/// The followers in a folder: the name of the file, and how to wake the follower.
type Places = BTreeMap<u64, (OsString, mpsc::Sender<()>)>;

struct Instance {
    watches: Watches,
    dispatcher: AbortHandle,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Instance")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.dispatcher.abort();
    }
}

/// A follower's place. Its folder is watched no longer when the last place in it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    watcher: Watcher,
    folder: WatchDescriptor,
    number: u64,
    woken: mpsc::Receiver<()>,
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a file, which need not exist; its folder must.
    pub(super) fn watch(&self, path: &Path) -> Result<Place, LogError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let mut state = self.state();
        let mut watches = match &state.instance {
            Some(instance) => instance.watches.clone(),
            None => {
                let instance = self.start().map_err(|error| match error.raw_os_error() {
                    Some(EMFILE) => LogError::Limit {
                        what: "inotify instances or open files",
                        raise: "the sysctl fs.inotify.max_user_instances or LimitNOFILE of the service droverd",
                    },
                    _ => LogError::of_file(error),
                })?;
                state.instance.insert(instance).watches.clone()
            }
        };
        let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
        // A folder that is watched already gives the same descriptor.
        let folder = watches.add(path.parent().unwrap_or(Path::new("/")), mask);
        let folder = folder.map_err(|error| match error.raw_os_error() {
            Some(ENOSPC) => {
                LogError::Limit { what: "inotify watches", raise: "the sysctl fs.inotify.max_user_watches" }
            }
            _ => LogError::of_file(error),
        })?;
        // Room for one: a follower that has not looked yet need not be told twice.
        let (wake, woken) = mpsc::channel(1);
        let number = state.next;
        state.next += 1;
        state.folders.entry(folder.clone()).or_default().insert(number, (name, wake));
        Ok(Place { watcher: self.clone(), folder, number, woken })
    }

    /// How many followers there are.
    #[cfg(test)]
    pub(super) fn followers(&self) -> usize {
        self.state().folders.values().map(BTreeMap::len).sum()
    }

    fn start(&self) -> io::Result<Instance> {
        let inotify = Inotify::init()?;
        let watches = inotify.watches();
        let events = inotify.into_event_stream(vec![0; 4096])?;
        let dispatcher = tokio::spawn(dispatch(events, Ends(Arc::downgrade(&self.0)))).abort_handle();
        Ok(Instance { watches, dispatcher })
    }
}

impl Place {
    /// Waits until the file may have changed; `None`: it can be watched no longer.
    pub(super) async fn changed(&mut self) -> Option<()> {
        self.woken.recv().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.watcher.state();
        let Some(places) = state.folders.get_mut(&self.folder) else { return };
        places.remove(&self.number);
        if places.is_empty() {
            state.folders.remove(&self.folder);
            if let Some(instance) = &state.instance {
                // It fails if the folder is gone, and the watch with it.
                instance.watches.clone().remove(self.folder.clone()).ok();
            }
        }
    }
}

/// Ends all followers, and lets the next one begin with a new instance, however the dispatcher ends.
struct Ends(Weak<Mutex<State>>);

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(state) = self.0.upgrade() {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let (instance, folders) = (state.instance.take(), std::mem::take(&mut state.folders));
            drop(state);
            drop((instance, folders));
        }
    }
}

/// Passes events on to the followers.
async fn dispatch(mut events: EventStream<Vec<u8>>, ends: Ends) {
    while let Some(event) = events.next().await {
        match (event, ends.0.upgrade()) {
            (Ok(event), Some(state)) => state.lock().unwrap_or_else(PoisonError::into_inner).pass_on(&event),
            (Err(error), Some(_)) => {
                tracing::warn!(%error, "cannot watch log files any more");
                return;
            }
            (_, None) => return,
        }
    }
}

impl State {
    fn pass_on(&mut self, event: &EventOwned) {
        let name = event.name.as_deref();
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            // Events were lost: everybody looks.
            self.folders.values().for_each(|places| wake(places, None));
        } else if event.mask.contains(EventMask::IGNORED) {
            // The folder is gone. A watch that was removed has no followers any more.
            self.folders.remove(&event.wd);
        } else if let Some(places) = self.folders.get(&event.wd) {
            wake(places, name);
        }
    }
}

/// Wakes the followers of a name, or all.
fn wake(places: &Places, name: Option<&OsStr>) {
    for (_, wake) in places.values().filter(|(its, _)| name.is_none_or(|name| its == name)) {
        // If it is full, the follower is about to look.
        wake.try_send(()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::MetadataExt, time::Duration};

    #[tokio::test]
    async fn followers_share_an_instance_and_give_their_place_back() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let watcher = Watcher::default();
        // More than the default limit of instances.
        let mut places: Vec<Place> = (0..300)
            .map(|n| watcher.watch(&if n % 2 == 0 { one.path() } else { two.path() }.join("log")).unwrap())
            .collect();
        let other = watcher.watch(&one.path().join("other")).unwrap();
        assert_eq!((watched(one.path()), watched(two.path())), (1, 1));
        fs::write(one.path().join("log"), "x").unwrap();
        for place in places.iter_mut().step_by(2) {
            let woken = tokio::time::timeout(Duration::from_secs(10), place.changed()).await;
            woken.expect("an event within 10 s").unwrap();
        }
        places.truncate(1);
        assert_eq!((watched(one.path()), watched(two.path())), (1, 0));
        drop((places, other));
        assert_eq!(watched(one.path()), 0);
        let mut again = watcher.watch(&two.path().join("log")).unwrap();
        drop(two);
        let ended = tokio::time::timeout(Duration::from_secs(10), again.changed()).await;
        assert_eq!(ended.expect("the folder is gone"), None);
    }

    /// Watches that this process has on a folder, in all its inotify instances, according to the kernel.
    fn watched(folder: &Path) -> usize {
        let inode = format!(" ino:{:x} ", fs::metadata(folder).unwrap().ino());
        let instances = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        let texts = instances.filter_map(|entry| fs::read_to_string(entry.path()).ok());
        texts.map(|text| text.lines().filter(|line| line.starts_with("inotify") && line.contains(&inode)).count()).sum()
    }
}
