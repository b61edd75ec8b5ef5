//! Fake hypervisor for simulation, with latency, hanging calls, lost events, and guests that stop by themselves.
//!
//! A [`FakeMachine`] is the node's hardware and libvirtd: it outlives the daemon. A [`FakeHypervisor`] is one daemon's
//! connection to it. Calls of a daemon that crashed may still take effect, as with a real hypervisor: `create` is
//! *define*, then *start*; at a crash the phase under way is completed, and no later one.
//!
//! Everything runs on tokio's (virtual) clock, and takes its random numbers from one seed.

mod calls;
mod connection;
mod domain;
mod foreign;
mod guests;
mod migrate;
mod weather;

pub use connection::FakeHypervisor;
pub use weather::Weather;

use super::{Connection, Event};
use domain::{FakeDomain, Inner};
use drover_model::{Dice, RunState, domain::Mark};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use uuid::Uuid;

/// Timeout of a caller; the call itself may take longer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Called, synchronously, when a domain came into memory (true) or left it (false).
pub type Observer = Box<dyn Fn(Uuid, Mark, bool) + Send>;

/// Called, synchronously, when a domain was destroyed that had memory of a guest which executes elsewhere.
pub type OnTorn = Box<dyn Fn(Uuid, Mark) + Send>;

/// Called, synchronously, when a copy of a guest begins to execute although the guest has gone on elsewhere since the
/// copy was made.
pub type OnStale = Box<dyn Fn(Uuid, Mark) + Send>;

/// Called, synchronously, when a domain's state outside its definition was deleted.
pub type OnErased = Box<dyn Fn(Uuid) + Send>;

/// One node's hardware.
#[derive(Clone)]
pub struct FakeMachine {
    inner: Arc<Mutex<Inner>>,
    events: broadcast::Sender<Event>,
    network: FakeNetwork,
}

/// The machines that can send guests to each other, by the URIs of their hypervisors.
#[derive(Clone, Default)]
pub struct FakeNetwork {
    machines: Arc<Mutex<BTreeMap<String, FakeMachine>>>,
}

impl FakeNetwork {
    /// Puts a machine on the network, under a URI.
    pub fn plug(&self, uri: &str, machine: &FakeMachine) -> FakeMachine {
        let machine = FakeMachine { network: self.clone(), ..machine.clone() };
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).insert(uri.to_owned(), machine.clone());
        machine
    }

    pub(super) fn find(&self, uri: &str) -> Option<FakeMachine> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).get(uri).cloned()
    }
}

impl FakeMachine {
    /// A machine without domains, whose chance comes from `seed`.
    pub fn new(seed: u64) -> FakeMachine {
        let inner = Inner {
            domains: BTreeMap::new(),
            foreign: BTreeMap::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            life: 0,
            calls: BTreeMap::new(),
            observer: None,
            kept: BTreeSet::new(),
            on_erased: None,
            on_torn: None,
            on_stale: None,
            halved: BTreeSet::new(),
        };
        FakeMachine {
            inner: Arc::new(Mutex::new(inner)),
            events: broadcast::channel(256).0,
            network: FakeNetwork::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How calls and guests behave from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Sets the observer of domains that come into memory or leave it.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Sets the observer of deleted state.
    pub fn observe_erased(&self, observer: OnErased) {
        self.lock().on_erased = Some(observer);
    }

    /// Sets the observer of guests that lose memory which is still here.
    pub fn observe_torn(&self, observer: OnTorn) {
        self.lock().on_torn = Some(observer);
    }

    /// Sets the observer of copies that execute although their guests have gone on.
    pub fn observe_stale(&self, observer: OnStale) {
        self.lock().on_stale = Some(observer);
    }

    /// Whether something is kept of a domain outside its definition.
    pub fn keeps(&self, uuid: Uuid) -> bool {
        self.lock().kept.contains(&uuid)
    }

    /// A daemon's connection.
    pub fn connect(&self) -> FakeHypervisor {
        FakeHypervisor {
            machine: self.clone(),
            lanes: Arc::default(),
            overtaking: true,
            pausing: true,
            daemon: watch::channel(true).0,
            connection: watch::channel(Connection::Up).0,
            offline: Mutex::new(vec![(None, Some(Instant::now()))]),
        }
    }

    /// The domains in memory: the truth.
    pub fn running(&self) -> Vec<(Uuid, Mark)> {
        let inner = self.lock();
        inner.domains.iter().filter(|(_, d)| d.run != RunState::Off).map(|(uuid, d)| (*uuid, d.mark)).collect()
    }

    /// Every definition, whether in memory or not.
    pub fn defined(&self) -> Vec<Uuid> {
        self.lock().domains.keys().copied().collect()
    }

    fn send_event(&self, uuid: Uuid) {
        let lost = {
            let mut inner = self.lock();
            let chance = inner.weather.lost_event_per_mille;
            inner.dice.per_mille(chance)
        };
        if !lost {
            // It fails when nobody listens.
            self.events.send(Event::Domain(uuid)).ok();
        }
    }
}

#[cfg(test)]
mod tests;
