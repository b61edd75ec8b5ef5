//! A watcher beside a running lab: it sees, from outside, whether a guest runs twice, stops, or is started anew without
//! need, and whether a floating address is on two nodes. The rules are in [`judge`].

mod judge;
mod sample;

use crate::{
    fabric::Net,
    lab::Lab,
    tools::{LabError, Result},
};
use judge::Judge;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The pause between two samples.
const PERIOD: Duration = Duration::from_millis(100);
/// The address of the metadata service, which the primary has beside those of [`Net::floating`].
const METADATA: &str = "169.254.169.254";
/// A guest is idle, but not for so long.
const LATELY: Duration = Duration::from_secs(5);

/// A watcher; it ends when this value is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    guests: BTreeMap<String, String>,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    judge: Mutex<Judge>,
    sampled: Condvar,
}

impl Shared {
    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Watches a lab, and guests by name with their UUIDs. They may not run yet.
    ///
    /// # Errors
    /// If the lab cannot be opened.
    pub fn start(lab: &Lab, guests: &BTreeMap<String, String>) -> Result<Watch> {
        let lab = Lab::open(lab.folder())?;
        let names = guests.iter().map(|(name, uuid)| (uuid.clone(), name.clone())).collect();
        let shared = Arc::new(Shared { judge: Mutex::new(Judge::new(names)), sampled: Condvar::new() });
        let addresses = floating()?;
        let (end, ended) = mpsc::channel();
        let uuids: BTreeSet<String> = guests.values().cloned().collect();
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            while ended.recv_timeout(PERIOD) == Err(mpsc::RecvTimeoutError::Timeout) {
                let sample = sample::sample(&lab, start.elapsed(), &uuids, &addresses);
                theirs.judge().see(sample);
                theirs.sampled.notify_all();
            }
        });
        Ok(Watch { shared, guests: guests.clone(), end: Some(end), thread: Some(thread) })
    }

    /// From now on, guests that are or come on these nodes may stop and be started anew, and these guests may stand
    /// still for longer. Replaces what was spared before. No guest may ever run twice.
    pub fn spare<'a>(&self, nodes: impl IntoIterator<Item = &'a str>, guests: impl IntoIterator<Item = &'a str>) {
        let nodes = nodes.into_iter().map(str::to_owned).collect();
        self.shared.judge().spare(nodes, guests.into_iter().map(str::to_owned).collect());
    }

    /// What was seen that must not be.
    pub fn violations(&self) -> Vec<String> {
        self.shared.judge().violations.clone()
    }

    /// The longest time for which a floating address was on two nodes.
    pub fn longest_shared(&self) -> Duration {
        self.shared.judge().longest_shared
    }

    /// The floating addresses that are not on exactly one node.
    pub fn not_on_one_node(&self) -> Vec<IpAddr> {
        self.shared.judge().not_on_one_node.clone()
    }

    /// Waits, but not longer than until something is seen that must not be.
    pub fn wait(&self, time: Duration) {
        let judge = self.shared.judge();
        // A thread that panicked has said so.
        drop(self.shared.sampled.wait_timeout_while(judge, time, |judge| judge.violations.is_empty()));
    }

    /// The nodes on which a guest has executed lately.
    pub fn executed_on(&self, guest: &str) -> Vec<String> {
        let judge = self.shared.judge();
        let since = judge.now().saturating_sub(LATELY);
        self.guests.get(guest).map(|uuid| judge.executed_on(uuid, since)).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // It has said why.
            thread.join().ok();
        }
    }
}

/// All floating addresses of the lab.
fn floating() -> Result<Vec<IpAddr>> {
    let configured = Net::ALL.iter().flat_map(|net| net.floating()).copied();
    configured
        .chain([METADATA])
        .map(|text| {
            let address = text.split('/').next().unwrap_or_default();
            address.parse().map_err(|error| LabError::new(format!("{text:?} is not an address"), error))
        })
        .collect()
}
