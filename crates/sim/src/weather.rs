//! What goes wrong, and how it is mended.

use crate::{Shape, world::World};
use drover_drivers::{hypervisor::fake, network::fake as network};
use drover_model::OffReason;
use drover_store::memory;
use std::time::Duration;
use tokio::time::Instant;

/// What mends something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// Start the daemon (and switch the machine on, if it was off).
    Daemon,
    /// Connect the daemon with the store again.
    Store,
    /// Connect the daemon with the hypervisor again.
    Hypervisor,
    /// Have the stopped process go on.
    Process,
    /// Put the cable back.
    Cable,
}

/// What is broken now, and when it is mended.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    repairs: Vec<(Instant, usize, Repair)>,
}

impl Weather {
    /// An ordinary day to begin with: nothing takes no time.
    pub(crate) fn begin(&self, world: &mut World) {
        world.cluster.set_weather(memory::Weather { latency_ms: 0..20, lost_per_mille: 5 });
        for machine in &world.machines {
            let mood =
                fake::Weather { latency_ms: 0..600, power_off_ms: 0..5000, transfer_ms: 0..8000, ..Default::default() };
            machine.hardware.set_weather(mood);
        }
    }

    /// Mends what is due, and breaks something, or nothing.
    pub(crate) async fn change(&mut self, world: &mut World) {
        let now = Instant::now();
        for (_, index, repair) in self.repairs.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            mend(world, index, repair);
        }
        let index = usize::try_from(world.dice.roll(world.machines.len() as u64)).unwrap_or(0);
        let later = |world: &mut World, range| now + world.dice.millis(&range);
        let event = match world.shape {
            // What VMs suffer from is of no interest; what the role does is.
            Shape::Handoffs => {
                [0, 6, 8, 10, 14, 40, 100, 103, 106, 99, 99, 99][usize::try_from(world.dice.roll(12)).unwrap_or(0)]
            }
            Shape::Small | Shape::Drills => world.dice.roll(100),
        };
        match event {
            0..6 => {
                let at = later(world, 0..8000);
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get_mut(index) {
                    machine.crash_daemon(&judge);
                }
                self.repairs.push((at, index, Repair::Daemon));
            }
            6..8 => {
                let at = later(world, 0..8000);
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get_mut(index) {
                    machine.stop_daemon(&judge).await;
                }
                self.repairs.push((at, index, Repair::Daemon));
            }
            8..10 => {
                let at = later(world, 1000..20_000);
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get_mut(index) {
                    machine.power_off(&judge);
                }
                self.repairs.push((at, index, Repair::Daemon));
            }
            10..18 => {
                // Around the session's timeout: some of them end it, some do not.
                let at = later(world, 0..12_000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    world.judge.note(&format!("node {index}: cut off from the store"), |t| t.partitions += 1);
                    daemon.store.cut();
                    self.repairs.push((at, index, Repair::Store));
                }
            }
            18..22 => {
                let at = later(world, 0..6000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    daemon.hypervisor.set_connected(false);
                    self.repairs.push((at, index, Repair::Hypervisor));
                }
            }
            22..34 => {
                let reason = if world.dice.per_mille(500) { OffReason::Crashed } else { OffReason::Shutdown };
                if let Some(machine) = world.machines.get(index) {
                    let running = machine.hardware.running();
                    if let Some((uuid, _)) = world.dice.pick(&running) {
                        machine.hardware.guest_goes_down(*uuid, reason);
                    }
                }
            }
            100..103 => {
                // Around the lease's term.
                let at = later(world, 0..12_000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    world.judge.note(&format!("node {index}: its process is stopped"), |t| t.stalls += 1);
                    daemon.switch.stop();
                    self.repairs.push((at, index, Repair::Process));
                }
            }
            103..106 => {
                let mood =
                    network::Weather { latency_ms: 0..world.dice.roll(600), fail_per_mille: world.dice.roll(200) };
                if let Some(machine) = world.machines.get(index) {
                    machine.kernel.set_weather(mood);
                }
            }
            106..109 => {
                let at = later(world, 0..20_000);
                if let Some(machine) = world.machines.get(index) {
                    machine.kernel.set_carrier(false);
                    self.repairs.push((at, index, Repair::Cable));
                }
            }
            34..40 => self.hypervisors(world),
            40..44 => {
                let latency_ms = 0..world.dice.roll(400);
                let lost_per_mille = world.dice.roll(60);
                world.cluster.set_weather(memory::Weather { latency_ms, lost_per_mille });
            }
            _ => {}
        }
    }

    /// Another mood of a machine's hypervisor and guests.
    fn hypervisors(&self, world: &mut World) {
        let dice = &mut world.dice;
        let index = usize::try_from(dice.roll(world.machines.len() as u64)).unwrap_or(0);
        let mood = fake::Weather {
            latency_ms: 0..dice.roll(3000),
            hang_per_mille: dice.roll(150),
            refuse_per_mille: dice.roll(50),
            deaf_per_mille: dice.roll(300),
            stubborn_per_mille: dice.roll(300),
            power_off_ms: 0..dice.roll(20_000),
            transfer_ms: 0..dice.roll(40_000),
            astray_per_mille: dice.roll(300),
        };
        if let Some(machine) = world.machines.get(index) {
            machine.hardware.set_weather(mood);
        }
    }

    /// Mends everything.
    pub(crate) fn calm(&mut self, world: &mut World) {
        world.judge.note("calm", |_| ());
        world.cluster.set_weather(memory::Weather { latency_ms: 0..5, lost_per_mille: 0 });
        for machine in &world.machines {
            machine.hardware.set_weather(fake::Weather {
                latency_ms: 0..50,
                power_off_ms: 0..2000,
                transfer_ms: 0..3000,
                ..Default::default()
            });
        }
        for machine in &world.machines {
            machine.kernel.set_weather(network::Weather { latency_ms: 0..20, ..Default::default() });
        }
        for (_, index, repair) in std::mem::take(&mut self.repairs) {
            mend(world, index, repair);
        }
        world.start_daemons();
    }
}

fn mend(world: &mut World, index: usize, repair: Repair) {
    let daemon = world.machines.get(index).and_then(|m| m.daemon.as_ref());
    match (repair, daemon) {
        (Repair::Daemon, _) => world.start_daemon(index),
        (Repair::Store, Some(daemon)) => daemon.store.heal(),
        (Repair::Hypervisor, Some(daemon)) => daemon.hypervisor.set_connected(true),
        (Repair::Process, Some(daemon)) => daemon.switch.go_on(),
        (Repair::Cable, _) => {
            if let Some(machine) = world.machines.get(index) {
                machine.kernel.set_carrier(true);
            }
        }
        // A later daemon has connections of its own.
        (Repair::Store | Repair::Hypervisor | Repair::Process, None) => {}
    }
}

/// How long a run without weather takes to settle is nobody's business here; this is only the longest patience of an
/// order.
pub(crate) const ORDER_PATIENCE: Duration = Duration::from_secs(60);
