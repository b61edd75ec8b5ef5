//! Fake power for simulation and tests: BMCs by address, each with the machine that it really controls, and what is
//! wrong with it. What a machine does when its power changes is up to an observer.
//!
//! A call takes effect at the end of its latency, on tokio's (virtual) clock: a dropped call has none.

use super::{CALL_TIMEOUT, Power, PowerError};
use async_trait::async_trait;
use drover_model::{Bmc, BmcAccess, PowerState};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Called with a machine's name and its new state at the moment at which its power changes.
pub type Observer = Box<dyn Fn(&str, PowerState) + Send>;

/// What is wrong with a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// It does not answer.
    Dead,
    /// It has its power from its machine: it answers only while that is on.
    DiesWithMachine,
    /// It refuses the password.
    Credentials,
    /// It accepts orders and does nothing; the state that it reads is true.
    AcceptsOnly,
    /// It accepts orders and does nothing, and reads the state that was ordered.
    Lies,
    /// It answers in words that say nothing.
    Nonsense,
    /// It says that it failed if the machine is in the wanted state already.
    RefusesAlready,
}

/// A fake BMC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FakeBmc {
    /// Name of the machine that it really controls, which its owner may have mixed up.
    pub machine: String,
    /// What is wrong with it.
    pub trouble: Trouble,
    /// Latency of an answer.
    pub latency: Duration,
    /// From an accepted order until the power really changes.
    pub delay: Duration,
    /// What was ordered last.
    pub ordered: Option<PowerState>,
}

#[derive(Default)]
struct World {
    bmcs: BTreeMap<String, FakeBmc>,
    machines: BTreeMap<String, PowerState>,
    observer: Option<Observer>,
    calls: u64,
}

impl World {
    fn machine(&self, bmc: &FakeBmc) -> PowerState {
        self.machines.get(&bmc.machine).copied().unwrap_or(PowerState::On)
    }

    fn set(&mut self, machine: &str, state: PowerState) {
        let before = self.machines.insert(machine.to_owned(), state).unwrap_or(PowerState::On);
        if let Some(observer) = self.observer.as_ref().filter(|_| before != state) {
            observer(machine, state);
        }
    }
}

/// [`Power`] over fake BMCs. Clones are the same BMCs. A machine that was never named is on.
#[derive(Clone, Default)]
pub struct FakePower {
    world: Arc<Mutex<World>>,
}

/// The access of the fake BMC at this address.
pub fn at(address: &str) -> BmcAccess {
    BmcAccess::Ipmi { address: address.to_owned(), port: drover_model::bmc::IPMI_PORT, user: "admin".to_owned() }
}

impl FakePower {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds or replaces the BMC at this address (see [`at`]).
    pub fn put(&self, address: &str, bmc: FakeBmc) {
        self.lock().bmcs.insert(address.to_owned(), bmc);
    }

    /// Changes the BMC at this address, if there is one.
    pub fn change(&self, address: &str, change: impl FnOnce(&mut FakeBmc)) {
        if let Some(bmc) = self.lock().bmcs.get_mut(address) {
            change(bmc);
        }
    }

    /// Calls `observer` whenever the power of a machine changes by a BMC or by [`FakePower::set_machine`].
    pub fn observe(&self, observer: Observer) {
        self.lock().observer = Some(observer);
    }

    /// Sets a machine's power, as a power cut does.
    pub fn set_machine(&self, machine: &str, state: PowerState) {
        self.lock().set(machine, state);
    }

    /// A machine's true state.
    pub fn machine(&self, machine: &str) -> PowerState {
        self.lock().machines.get(machine).copied().unwrap_or(PowerState::On)
    }

    /// The number of calls until now.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Waits for the BMC's answer, and returns the BMC as it is then.
    async fn reach(&self, bmc: &Bmc) -> Result<(String, FakeBmc), PowerError> {
        let name = bmc.to_string();
        let BmcAccess::Ipmi { address, .. } = &bmc.access else {
            return Err(PowerError::Local { bmc: name, why: "the fake has only BMCs with IPMI".to_owned() });
        };
        let latency = {
            let mut world = self.lock();
            world.calls += 1;
            world.bmcs.get(address).map(|fake| fake.latency)
        };
        let silent = || PowerError::Timeout { bmc: name.clone(), after: CALL_TIMEOUT };
        if timeout(CALL_TIMEOUT, sleep(latency.unwrap_or_default())).await.is_err() {
            return Err(silent());
        }
        let found = {
            let world = self.lock();
            world.bmcs.get(address).map(|fake| (fake.clone(), world.machine(fake)))
        };
        match found {
            None => Err(PowerError::Unreachable { bmc: name, why: "there is no such BMC".to_owned() }),
            Some((FakeBmc { trouble: Trouble::Dead, .. }, _))
            | Some((FakeBmc { trouble: Trouble::DiesWithMachine, .. }, PowerState::Off)) => {
                sleep(CALL_TIMEOUT.saturating_sub(latency.unwrap_or_default())).await;
                Err(silent())
            }
            Some((FakeBmc { trouble: Trouble::Credentials, .. }, _)) => Err(PowerError::Credentials { bmc: name }),
            Some((FakeBmc { trouble: Trouble::Nonsense, .. }, _)) => {
                Err(PowerError::Unusable { bmc: name, answer: "Chassis Power is perhaps".to_owned() })
            }
            Some((fake, _)) => Ok((address.clone(), fake)),
        }
    }

    async fn order(&self, bmc: &Bmc, wanted: PowerState) -> Result<(), PowerError> {
        let (address, fake) = self.reach(bmc).await?;
        let already = self.lock().machine(&fake) == wanted;
        if already && fake.trouble == Trouble::RefusesAlready {
            return Err(PowerError::Failed { bmc: bmc.to_string(), why: format!("the power is {wanted} already") });
        }
        self.change(&address, |fake| fake.ordered = Some(wanted));
        if matches!(fake.trouble, Trouble::AcceptsOnly | Trouble::Lies) {
            return Ok(());
        }
        if fake.delay.is_zero() {
            self.lock().set(&fake.machine, wanted);
        } else {
            let world = self.clone();
            tokio::spawn(async move {
                sleep(fake.delay).await;
                world.lock().set(&fake.machine, wanted);
            });
        }
        Ok(())
    }
}

#[async_trait]
impl Power for FakePower {
    async fn state(&self, bmc: &Bmc) -> Result<PowerState, PowerError> {
        let (_, fake) = self.reach(bmc).await?;
        let true_state = self.lock().machine(&fake);
        Ok(match fake.trouble {
            Trouble::Lies => fake.ordered.unwrap_or(true_state),
            _ => true_state,
        })
    }

    async fn off(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.order(bmc, PowerState::Off).await
    }

    async fn on(&self, bmc: &Bmc) -> Result<(), PowerError> {
        self.order(bmc, PowerState::On).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(trouble: Trouble) -> (FakePower, Bmc) {
        let power = FakePower::default();
        let delay = Duration::from_secs(2);
        power.put("b", FakeBmc { machine: "hv1".to_owned(), trouble, delay, ..FakeBmc::default() });
        (power, Bmc { access: at("b"), password: None })
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_is_accepted_before_the_power_is_gone() {
        let (power, bmc) = with(Trouble::None);
        power.off(&bmc).await.unwrap();
        assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
        sleep(Duration::from_millis(2001)).await;
        assert_eq!((power.state(&bmc).await, power.machine("hv1")), (Ok(PowerState::Off), PowerState::Off));
        power.off(&bmc).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn troubles_show_as_they_would_in_reality() {
        let (power, bmc) = with(Trouble::Lies);
        power.off(&bmc).await.unwrap();
        assert_eq!((power.state(&bmc).await, power.machine("hv1")), (Ok(PowerState::Off), PowerState::On));
        let (power, bmc) = with(Trouble::AcceptsOnly);
        power.off(&bmc).await.unwrap();
        assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
        let (power, bmc) = with(Trouble::DiesWithMachine);
        assert_eq!(power.state(&bmc).await, Ok(PowerState::On));
        power.set_machine("hv1", PowerState::Off);
        assert!(matches!(power.state(&bmc).await, Err(PowerError::Timeout { .. })));
        let (power, bmc) = with(Trouble::Credentials);
        assert!(matches!(power.off(&bmc).await, Err(PowerError::Credentials { .. })));
        let (power, bmc) = with(Trouble::RefusesAlready);
        assert!(matches!(power.on(&bmc).await, Err(PowerError::Failed { .. })));
    }
}
