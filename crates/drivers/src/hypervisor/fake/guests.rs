//! What happens on a fake machine without its daemon: power cuts, guests that end or are paused, what people do to them
//! by hand, how guests answer to their power button.

use super::{FakeMachine, Weather};
use drover_model::{OffReason, Paused, RunState, domain::Written};
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

impl FakeMachine {
    /// Simulates a power cut: no domain is in memory any more; persistent definitions are kept, and off.
    pub fn power_off(&self) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.foreign_end();
        let all: Vec<Uuid> = inner.domains.keys().copied().collect();
        for uuid in all {
            inner.switch_off(uuid, OffReason::Unknown);
            if let Some(domain) = inner.domains.get_mut(&uuid) {
                domain.off = Some(OffReason::Unknown);
            }
        }
    }

    /// A guest goes down: [`OffReason::Shutdown`] by its own wish, or because somebody on the node pressed its power
    /// button; [`OffReason::Ended`] by the host; [`OffReason::Crashed`].
    pub fn guest_goes_down(&self, uuid: Uuid, reason: OffReason) {
        self.lock().switch_off(uuid, reason);
        self.send_event(uuid);
    }

    /// Somebody removes the definition of a guest that runs on (`virsh undefine`).
    pub fn guest_is_undefined(&self, uuid: Uuid) {
        if let Some(domain) = self.lock().domains.get_mut(&uuid).filter(|d| d.run != RunState::Off) {
            domain.transient = true;
        }
        self.send_event(uuid);
    }

    /// Whether there is a definition of that domain.
    pub fn has_definition(&self, uuid: Uuid) -> bool {
        self.lock().domains.get(&uuid).is_some_and(|domain| !domain.transient)
    }

    /// A guest that executes is paused, for that reason.
    pub fn guest_pauses(&self, uuid: Uuid, why: Paused) {
        if let Some(domain) = self.lock().domains.get_mut(&uuid).filter(|d| d.run == RunState::Running) {
            domain.set_paused(Some(why));
        }
        self.send_event(uuid);
    }

    /// Somebody makes an external snapshot of a guest's disks, or merges it (`None`): they are other files from now on.
    /// Nobody is told.
    pub fn disks_are_replaced(&self, uuid: Uuid, suffix: Option<&str>) {
        if let Some(domain) = self.lock().domains.get_mut(&uuid).filter(|d| d.run != RunState::Off) {
            let other =
                |(dev, path): (&String, &String)| (dev.clone(), format!("{path}{}", suffix.unwrap_or_default()));
            domain.disks = domain.started_with.iter().map(other).collect();
        }
    }

    /// The disks that a domain has.
    pub fn disks(&self, uuid: Uuid) -> Written {
        self.lock().domains.get(&uuid).map(|domain| domain.disks.clone()).unwrap_or_default()
    }

    /// Guests in memory that do not execute, but for those that are on their way.
    pub fn paused(&self) -> Vec<(Uuid, Paused)> {
        let inner = self.lock();
        let paused = inner.domains.iter().filter(|(_, domain)| domain.observed);
        paused.filter_map(|(uuid, domain)| Some((*uuid, domain.paused.clone()?))).collect()
    }

    /// Whether a guest that is asked to power off hangs, now or already.
    pub(super) fn hangs(&self, uuid: Uuid) -> bool {
        let mut inner = self.lock();
        let chance = inner.weather.hung_per_mille;
        let begins = inner.dice.per_mille(chance);
        let Some(domain) = inner.domains.get_mut(&uuid).filter(|d| d.run == RunState::Running) else { return false };
        domain.hung |= begins;
        domain.hung
    }

    /// Waits until a hanging guest is powered off.
    pub(super) async fn until_cut(&self, uuid: Uuid) {
        while self.lock().domains.get(&uuid).is_some_and(|d| d.hung && d.run != RunState::Off) {
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Asks a guest to power off, which it does after a while, or never.
    pub(super) fn ask_to_power_off(&self, uuid: Uuid) {
        let (obeys, after, life, mark) = {
            let mut inner = self.lock();
            let Weather { stubborn_per_mille, power_off_ms, .. } = inner.weather.clone();
            let obeys = !inner.dice.per_mille(stubborn_per_mille);
            let obeys = obeys && inner.domains.get(&uuid).is_some_and(|d| d.run != RunState::Paused);
            (obeys, inner.dice.millis(&power_off_ms), inner.life, inner.domains.get(&uuid).map(|d| d.mark))
        };
        if !obeys {
            return;
        }
        let machine = self.clone();
        tokio::spawn(async move {
            sleep(after).await;
            let mut inner = machine.lock();
            // Only this guest of this life: not one that was started meanwhile.
            let executes = inner.domains.get(&uuid).is_some_and(|d| d.run == RunState::Running && Some(d.mark) == mark);
            if inner.life == life && executes {
                inner.switch_off(uuid, OffReason::Shutdown);
                drop(inner);
                machine.send_event(uuid);
            }
        });
    }
}
