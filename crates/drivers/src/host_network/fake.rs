//! Fake network for simulation: one host's kernel, which outlives the daemon.
//!
//! The fake kernel removes an address when its lifetime ends, on tokio's (virtual) clock, and notifies an observer of
//! every address added or removed, synchronously. A call takes effect after its latency, so that a daemon can be
//! stopped or killed before a call has had its effect.

use super::{HostNetwork, HostNetworkError, Link};
use async_trait::async_trait;
use drover_model::{Dice, FloatingAddress};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

/// Called when an address was added (`true`) or removed (`false`).
pub type Observer = Box<dyn Fn(&FloatingAddress, bool) + Send>;

/// Latency and failures of calls. Default: no latency, no failures.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Latency of a call before it takes effect, in milliseconds.
    pub latency_ms: Range<u64>,
    /// How many of 1000 calls fail, without effect.
    pub fail_per_mille: u64,
}

struct Kernel {
    addresses: BTreeMap<FloatingAddress, Held>,
    observer: Option<Observer>,
    weather: Weather,
    dice: Dice,
    /// How many times an address was added or extended.
    holds: u64,
    carrier: bool,
}

/// An address on its interface.
#[derive(Debug, Clone, Copy)]
struct Held {
    until: Option<Instant>,
    /// Number of the call that set `until`: the timer of an earlier call does nothing.
    call: u64,
}

/// The fake kernel of one host. Clones share its state.
#[derive(Clone)]
pub struct FakeHostNetwork {
    kernel: Arc<Mutex<Kernel>>,
    link_changes: watch::Sender<()>,
}

impl FakeHostNetwork {
    /// A kernel without addresses; its randomness comes from `seed`.
    pub fn new(seed: u64) -> FakeHostNetwork {
        let kernel = Kernel {
            addresses: BTreeMap::new(),
            observer: None,
            weather: Weather::default(),
            dice: Dice::new(seed),
            holds: 0,
            carrier: true,
        };
        FakeHostNetwork { kernel: Arc::new(Mutex::new(kernel)), link_changes: watch::channel(()).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the observer of added and removed addresses.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Sets latency and failures of subsequent calls.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Sets the carrier of every interface.
    pub fn set_carrier(&self, carrier: bool) {
        self.lock().carrier = carrier;
        self.link_changes.send_replace(());
    }

    /// Simulates a power cut: removes all addresses.
    pub fn power_off(&self) {
        for address in self.addresses() {
            self.remove(&address);
        }
    }

    /// The addresses present now.
    pub fn addresses(&self) -> Vec<FloatingAddress> {
        self.lock().addresses.keys().cloned().collect()
    }

    fn remove(&self, address: &FloatingAddress) {
        let mut kernel = self.lock();
        if kernel.addresses.remove(address).is_some()
            && let Some(observer) = &kernel.observer
        {
            observer(address, false);
        }
    }

    fn add(&self, address: &FloatingAddress, until: Option<Instant>) {
        let Held { until, call } = {
            let mut kernel = self.lock();
            kernel.holds += 1;
            let old = kernel.addresses.get(address).copied();
            let until = match (old.and_then(|h| h.until), until) {
                (Some(old), Some(new)) => Some(old.max(new)),
                (_, new) => new,
            };
            let held = Held { until, call: kernel.holds };
            kernel.addresses.insert(address.clone(), held);
            if old.is_none()
                && let Some(observer) = &kernel.observer
            {
                observer(address, true);
            }
            held
        };
        if let Some(until) = until {
            let (kernel, address) = (self.clone(), address.clone());
            tokio::spawn(async move {
                sleep_until(until).await;
                let due = kernel.lock().addresses.get(&address).is_some_and(|held| held.call == call);
                if due {
                    kernel.remove(&address);
                }
            });
        }
    }

    /// Simulates the latency of a call, and its failure.
    async fn call(&self, verb: &str, address: &FloatingAddress) -> Result<(), HostNetworkError> {
        let (latency, fails) = {
            let kernel = &mut *self.lock();
            (kernel.dice.millis(&kernel.weather.latency_ms), kernel.dice.per_mille(kernel.weather.fail_per_mille))
        };
        if latency > Duration::ZERO {
            sleep(latency).await;
        }
        if fails {
            let operation = format!("{verb} {address}");
            return Err(HostNetworkError { operation, reason: "simulated failure".to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl HostNetwork for FakeHostNetwork {
    async fn hold(&self, address: &FloatingAddress, until: Option<Instant>) -> Result<(), HostNetworkError> {
        self.call("add", address).await?;
        if until.is_some_and(|until| until <= Instant::now()) {
            let operation = format!("add {address}");
            return Err(HostNetworkError { operation, reason: "its lifetime is over".to_owned() });
        }
        self.add(address, until);
        Ok(())
    }

    async fn release(&self, address: &FloatingAddress) -> Result<(), HostNetworkError> {
        self.call("remove", address).await?;
        self.remove(address);
        Ok(())
    }

    async fn holds(&self, address: &FloatingAddress) -> Result<bool, HostNetworkError> {
        self.call("look up", address).await?;
        Ok(self.lock().addresses.contains_key(address))
    }

    async fn announce(&self, address: &FloatingAddress) -> Result<(), HostNetworkError> {
        self.call("announce", address).await
    }

    async fn probe(&self, address: &FloatingAddress, _timeout: Duration) -> Result<Option<String>, HostNetworkError> {
        self.call("probe for", address).await?;
        Ok(None)
    }

    async fn reaches(&self, _: &str, _: IpAddr, timeout: Duration) -> Result<bool, HostNetworkError> {
        let carrier = self.lock().carrier;
        if !carrier {
            sleep(timeout).await;
        }
        Ok(carrier)
    }

    async fn link(&self, _interface: &str) -> Result<Option<Link>, HostNetworkError> {
        Ok(Some(Link { up: true, carrier: self.lock().carrier }))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.link_changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn addresses_expire_in_time_and_the_observer_is_notified() {
        let kernel = FakeHostNetwork::new(1);
        let observed = Arc::new(Mutex::new(Vec::new()));
        let events = observed.clone();
        kernel.observe(Box::new(move |_, added| events.lock().unwrap().push(added)));
        let address = FloatingAddress::metadata();
        let start = Instant::now();
        kernel.hold(&address, Some(start + Duration::from_secs(4))).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        kernel.hold(&address, Some(start + Duration::from_secs(6))).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(kernel.holds(&address).await.unwrap(), "its lifetime was extended");
        sleep(Duration::from_secs(2)).await;
        assert!(!kernel.holds(&address).await.unwrap());
        assert!(kernel.hold(&address, Some(start)).await.is_err(), "too late");
        kernel.hold(&address, None).await.unwrap();
        kernel.release(&address).await.unwrap();
        assert_eq!(*observed.lock().unwrap(), [true, false, true, false]);
    }
}
