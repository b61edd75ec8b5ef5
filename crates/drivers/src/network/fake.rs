//! Addresses that only pretend, for simulation: a machine's kernel, which outlives the daemon, and a daemon's
//! connection to it.
//!
//! The kernel takes an address away when its time is up, on tokio's (virtual) clock, and tells an observer of every
//! address that comes and goes at that very moment. A call takes its time before it has its effect, so a daemon that is
//! stopped or dies in between has it half done.

use super::{Link, Network, NetworkError};
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

/// Hears of an address that came (`true`) or went.
pub type Observer = Box<dyn Fn(&FloatingAddress, bool) + Send>;

/// How calls go wrong. The default: at once, and never.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// How long a call takes before it has its effect, in milliseconds.
    pub latency_ms: Range<u64>,
    /// Of 1000 calls, how many fail without any effect.
    pub fail_per_mille: u64,
}

struct Kernel {
    addresses: BTreeMap<FloatingAddress, Held>,
    observer: Option<Observer>,
    weather: Weather,
    dice: Dice,
    holds: u64,
    carrier: bool,
}

/// An address that is there.
#[derive(Debug, Clone, Copy)]
struct Held {
    until: Option<Instant>,
    /// Which call put it there: a timer of an earlier one does nothing.
    by: u64,
}

/// A machine's kernel. Clones are the same one.
#[derive(Clone)]
pub struct FakeKernel {
    kernel: Arc<Mutex<Kernel>>,
    bell: watch::Sender<()>,
}

impl FakeKernel {
    /// One without addresses, whose chance comes from `seed`.
    pub fn new(seed: u64) -> FakeKernel {
        let kernel = Kernel {
            addresses: BTreeMap::new(),
            observer: None,
            weather: Weather::default(),
            dice: Dice::new(seed),
            holds: 0,
            carrier: true,
        };
        FakeKernel { kernel: Arc::new(Mutex::new(kernel)), bell: watch::channel(()).0 }
    }

    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who hears of addresses that come and go.
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// How calls go wrong from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// The cable of every interface is pulled out, or put back.
    pub fn set_carrier(&self, carrier: bool) {
        self.lock().carrier = carrier;
        self.bell.send_replace(());
    }

    /// The power is cut: no address is left.
    pub fn power_off(&self) {
        let gone: Vec<FloatingAddress> = self.lock().addresses.keys().cloned().collect();
        for address in gone {
            self.remove(&address);
        }
    }

    /// The addresses that are there now.
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

    fn put(&self, address: &FloatingAddress, until: Option<Instant>) {
        let by = {
            let mut kernel = self.lock();
            kernel.holds += 1;
            let by = kernel.holds;
            let old = kernel.addresses.get(address).copied();
            let until = match (old.and_then(|h| h.until), until) {
                (Some(old), Some(new)) => Some(old.max(new)),
                (_, new) => new,
            };
            kernel.addresses.insert(address.clone(), Held { until, by });
            if old.is_none()
                && let Some(observer) = &kernel.observer
            {
                observer(address, true);
            }
            (until, by)
        };
        if let (Some(until), by) = by {
            let (kernel, address) = (self.clone(), address.clone());
            tokio::spawn(async move {
                sleep_until(until).await;
                let due = kernel.lock().addresses.get(&address).is_some_and(|held| held.by == by);
                if due {
                    kernel.remove(&address);
                }
            });
        }
    }

    async fn call(&self, what: &str, address: &FloatingAddress) -> Result<(), NetworkError> {
        let (latency, fails) = {
            let kernel = &mut *self.lock();
            (kernel.dice.millis(&kernel.weather.latency_ms), kernel.dice.per_mille(kernel.weather.fail_per_mille))
        };
        if latency > Duration::ZERO {
            sleep(latency).await;
        }
        if fails {
            let what = format!("{what} {address}");
            return Err(NetworkError { what, why: "the simulation will have it so".to_owned() });
        }
        Ok(())
    }
}

#[async_trait]
impl Network for FakeKernel {
    async fn hold(&self, address: &FloatingAddress, until: Option<Instant>) -> Result<(), NetworkError> {
        self.call("hold", address).await?;
        if until.is_some_and(|until| until <= Instant::now()) {
            let what = format!("hold {address}");
            return Err(NetworkError { what, why: "its time is over".to_owned() });
        }
        self.put(address, until);
        Ok(())
    }

    async fn release(&self, address: &FloatingAddress) -> Result<(), NetworkError> {
        self.call("release", address).await?;
        self.remove(address);
        Ok(())
    }

    async fn holds(&self, address: &FloatingAddress) -> Result<bool, NetworkError> {
        self.call("look for", address).await?;
        Ok(self.lock().addresses.contains_key(address))
    }

    async fn announce(&self, address: &FloatingAddress) -> Result<(), NetworkError> {
        self.call("announce", address).await
    }

    async fn probe(&self, address: &FloatingAddress, _patience: Duration) -> Result<Option<String>, NetworkError> {
        self.call("probe for", address).await?;
        Ok(None)
    }

    async fn reaches(&self, _: &str, _: IpAddr, patience: Duration) -> Result<bool, NetworkError> {
        let carrier = self.lock().carrier;
        if !carrier {
            sleep(patience).await;
        }
        Ok(carrier)
    }

    async fn link(&self, _interface: &str) -> Result<Option<Link>, NetworkError> {
        Ok(Some(Link { up: true, carrier: self.lock().carrier }))
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_kernel_takes_an_address_away_in_time_and_says_so() {
        let kernel = FakeKernel::new(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        kernel.observe(Box::new(move |_, came| told.lock().unwrap().push(came)));
        let address = FloatingAddress::metadata();
        let start = Instant::now();
        kernel.hold(&address, Some(start + Duration::from_secs(4))).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        kernel.hold(&address, Some(start + Duration::from_secs(6))).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(kernel.holds(&address).await.unwrap(), "it was prolonged");
        sleep(Duration::from_secs(2)).await;
        assert!(!kernel.holds(&address).await.unwrap());
        assert!(kernel.hold(&address, Some(start)).await.is_err(), "too late");
        kernel.hold(&address, None).await.unwrap();
        kernel.release(&address).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [true, false, true, false]);
    }
}
