//! Faults and their repair.

mod tables;

use crate::{orders::xml, table::draw, world::World};
use drover_drivers::{host_network::fake as host_network, hypervisor::fake};
use drover_model::{Claim, ClusterConfig, NodeRecord, OffReason, Only, Primary, RecordKind, VmRecord};
use drover_store::memory;
use std::time::Duration;
use tables::Event;
use tokio::time::Instant;

/// A repair, or the end of an event that has two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// A machine that goes down is off.
    Off,
    /// Start the daemon (and switch the machine on, if it was off).
    Daemon,
    /// Reconnect the daemon to the store.
    Store,
    /// The daemon's server of the store is up to date again.
    Server,
    /// Reconnect the daemon to the hypervisor.
    Hypervisor,
    /// Continue the stopped process.
    Process,
    /// Let all processes of the machine go on.
    Frozen,
    /// Plug the cable in.
    Cable,
    /// Switch the clone off.
    Clone,
    /// Reconnect the clone's daemon to the store.
    CloneStore,
    /// Connect the machine to the others again.
    Network,
    /// The others can reach the machine again.
    Heard,
}

/// Current faults, and when they are repaired.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    repairs: Vec<(Instant, usize, Repair)>,
}

impl Weather {
    /// Initial conditions: everything takes some time.
    pub(crate) fn begin(&self, world: &mut World) {
        world.cluster.set_weather(memory::Weather { latency_ms: 0..20, lost_per_mille: 5 });
        for machine in &world.machines {
            if world.shape.has_bmcs() {
                machine.mains.mood(&machine.name, &mut world.dice);
            }
            let mood = fake::Weather {
                latency_ms: 0..600,
                power_off_ms: 0..5000,
                transfer_ms: 0..8000,
                torn_per_mille: 300,
                ..Default::default()
            };
            machine.hardware.set_weather(mood);
        }
    }

    /// Makes the repairs that are due, and draws an event.
    pub(crate) async fn change(&mut self, world: &mut World) {
        let now = Instant::now();
        for (_, index, repair) in self.repairs.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            repair_fault(world, index, repair);
        }
        // Somebody switches it on again, some time.
        for index in world.notice_cuts() {
            self.repairs.push((now + world.dice.millis(&(2000..60_000)), index, Repair::Daemon));
        }
        let index = usize::try_from(world.dice.roll(world.machines.len() as u64)).unwrap_or(0);
        let later = |world: &mut World, range| now + world.dice.millis(&range);
        let Some((name, event)) = draw(&mut world.dice, tables::events(world.shape)) else { return };
        tracing::trace!(machine = index, "{name}");
        match event {
            Event::Crash => {
                let at = later(world, 0..8000);
                crash(world, index);
                self.repairs.push((at, index, Repair::Daemon));
            }
            Event::Stop => {
                let at = later(world, 0..8000);
                stop(world, index).await;
                self.repairs.push((at, index, Repair::Daemon));
            }
            Event::OtherVersion => {
                let at = later(world, 0..8000);
                if world.dice.per_mille(300) {
                    crash(world, index)
                } else {
                    stop(world, index).await
                }
                if let Some(machine) = world.machines.get_mut(index)
                    && machine.daemon.is_none()
                {
                    machine.is_newer = !machine.is_newer;
                }
                self.repairs.push((at, index, Repair::Daemon));
            }
            Event::PowerCut if world.judge.any_is_outside() => {}
            Event::PowerCut | Event::Outage => {
                let long = matches!(event, Event::Outage);
                let at = later(world, if long { 20_000..120_000 } else { 1000..20_000 });
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get_mut(index) {
                    machine.power_off(&judge);
                }
                self.repairs.push((at, index, Repair::Daemon));
            }
            Event::Clone => {
                let at = later(world, 2000..40_000);
                world.start_clone(index);
                self.repairs.push((at, index, Repair::Clone));
            }
            Event::CloneCutOff => {
                let at = later(world, 0..12_000);
                if let Some(store) = world.store_of_clone(index) {
                    store.cut();
                    world.judge.note(&format!("node {index}: its clone is cut off from the store"), |_| ());
                    self.repairs.push((at, index, Repair::CloneStore));
                }
            }
            Event::Shutdown => {
                let off = later(world, 500..15_000);
                let back = off + world.dice.millis(&(1000..20_000));
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get(index) {
                    machine.shut_down(&judge, &mut world.dice);
                    self.repairs.extend([(off, index, Repair::Off), (back, index, Repair::Daemon)]);
                }
            }
            Event::CutOff => {
                let at = later(world, 0..12_000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    world.judge.note(&format!("node {index}: cut off from the store"), |t| t.partitions += 1);
                    daemon.store.cut();
                    self.repairs.push((at, index, Repair::Store));
                }
            }
            Event::Behind => {
                let at = later(world, 0..10_000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    world.judge.note(&format!("node {index}: its server of the store is behind"), |t| t.behind += 1);
                    daemon.store.fall_behind();
                    self.repairs.push((at, index, Repair::Server));
                }
            }
            Event::Isolation => {
                let at = later(world, 3000..60_000);
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get_mut(index) {
                    machine.isolate(&judge, true);
                }
                self.repairs.push((at, index, Repair::Network));
            }
            Event::NoQuorum => {
                // For longer than a session lasts, or not.
                let at = later(world, 1000..20_000);
                world.judge.note("the store has no majority", |t| t.partitions += 1);
                for (index, machine) in world.machines.iter().enumerate() {
                    if let Some(daemon) = &machine.daemon {
                        daemon.store.cut();
                        self.repairs.push((at, index, Repair::Store));
                    }
                }
            }
            Event::Unheard => {
                let at = later(world, 3000..40_000);
                if let Some(machine) = world.machines.get_mut(index) {
                    world.judge.note(&format!("node {index}: the others cannot reach it"), |t| t.partitions += 1);
                    machine.be_heard(false);
                }
                self.repairs.push((at, index, Repair::Heard));
            }
            Event::BmcMood => {
                if let Some(machine) = world.machines.get(index) {
                    machine.mains.mood(&machine.name, &mut world.dice);
                }
            }
            Event::NoHypervisor => {
                let at = later(world, 0..6000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    daemon.hypervisor.set_connected(false);
                    self.repairs.push((at, index, Repair::Hypervisor));
                }
            }
            Event::GuestDown => {
                let reasons = [OffReason::Crashed, OffReason::Crashed, OffReason::Shutdown, OffReason::Ended];
                let reason = world.dice.pick(&reasons).copied().unwrap_or(OffReason::Crashed);
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get(index) {
                    let running = machine.hardware.running();
                    if let Some((uuid, _)) = world.dice.pick(&running) {
                        match reason {
                            OffReason::Ended => machine.end_guest(&judge, *uuid, reason),
                            _ => machine.hardware.guest_goes_down(*uuid, reason),
                        }
                    }
                }
            }
            Event::ByHand | Event::CopyLeft => {
                let to = usize::try_from(world.dice.roll(world.machines.len() as u64)).unwrap_or(0);
                let fails = matches!(event, Event::CopyLeft);
                let (from, to) = (world.machines.get(index), world.machines.get(to).filter(|_| to != index));
                let Some((from, to)) = from.zip(to) else { return };
                let running = from.hardware.running();
                if let Some(guest) = world.dice.pick(&running) {
                    world.judge.take_by_hand((from, to), *guest, fails);
                }
            }
            Event::Snapshot => {
                let suffix = world.dice.per_mille(600).then_some(".snapshot");
                if let Some(machine) = world.machines.get(index) {
                    let running = machine.hardware.running();
                    if let Some((uuid, _)) = world.dice.pick(&running) {
                        world.judge.replace_disks(machine, *uuid, suffix);
                    }
                }
            }
            Event::Foreign => {
                let (uuid, runs) = (world.any_vm(), world.dice.per_mille(700));
                if let Some(machine) = world.machines.get(index) {
                    let xml = xml(uuid, 64, world.shape);
                    world.judge.make_domain(&world.machines, machine, xml, uuid, runs);
                }
            }
            Event::Loss => {
                for index in 0..world.machines.len() {
                    let at = later(world, 1000..12_000);
                    crash(world, index);
                    self.repairs.push((at, index, Repair::Daemon));
                }
                // Whoever does that looks first: a paused copy would be adopted as the guest.
                world.machines.iter().for_each(|machine| machine.hardware.copies_are_ended());
                world.judge.store_is_lost();
                world.cluster.lose_all();
            }
            Event::Stall => {
                let at = later(world, 0..12_000);
                if let Some(daemon) = world.machines.get(index).and_then(|m| m.daemon.as_ref()) {
                    world.judge.note(&format!("node {index}: its process is stopped"), |t| t.stalls += 1);
                    daemon.switch.stop();
                    self.repairs.push((at, index, Repair::Process));
                }
            }
            Event::Freeze => {
                let at = later(world, 3000..40_000);
                let judge = world.judge.clone();
                if let Some(machine) = world.machines.get(index) {
                    machine.freeze(&judge, true);
                    self.repairs.push((at, index, Repair::Frozen));
                }
            }
            Event::KernelMood => {
                let mood =
                    host_network::Weather { latency_ms: 0..world.dice.roll(600), fail_per_mille: world.dice.roll(200) };
                if let Some(machine) = world.machines.get(index) {
                    machine.kernel.set_weather(mood);
                }
            }
            Event::NoCable => {
                let at = later(world, 0..20_000);
                if let Some(machine) = world.machines.get(index) {
                    machine.kernel.set_carrier(false);
                    self.repairs.push((at, index, Repair::Cable));
                }
            }
            Event::Mood => self.hypervisors(world),
            Event::StoreMood => {
                let latency_ms = 0..world.dice.roll(400);
                let lost_per_mille = world.dice.roll(60);
                world.cluster.set_weather(memory::Weather { latency_ms, lost_per_mille });
            }
            Event::ForeignVm
            | Event::ForeignClaim
            | Event::ForeignNode
            | Event::ForeignConfig
            | Event::ForeignPrimary
            | Event::Child => newer_does(world, index, event),
            Event::Calm => {}
        }
        if let Some(newer) = world.newer() {
            newer.pass();
        }
    }

    /// Changes the behaviour of a machine's hypervisor and guests.
    fn hypervisors(&self, world: &mut World) {
        let dice = &mut world.dice;
        let index = usize::try_from(dice.roll(world.machines.len() as u64)).unwrap_or(0);
        let mood = fake::Weather {
            latency_ms: 0..dice.roll(3000),
            hang_per_mille: dice.roll(150),
            // Usually some starts are refused; sometimes no start is answered.
            refuse_per_mille: dice.roll(200),
            broken_per_mille: if dice.per_mille(150) { 1000 } else { 0 },
            lost_event_per_mille: dice.roll(300),
            stubborn_per_mille: dice.roll(300),
            hung_per_mille: dice.roll(600),
            power_off_ms: 0..dice.roll(20_000),
            transfer_ms: 0..dice.roll(40_000),
            astray_per_mille: dice.roll(300),
            botched_per_mille: dice.roll(300),
            unkillable_per_mille: dice.roll(300),
            still_broken_per_mille: dice.roll(500),
            unanswered_per_mille: dice.roll(300),
            stuck_per_mille: dice.roll(300),
            torn_per_mille: dice.roll(600),
        };
        if let Some(machine) = world.machines.get(index) {
            machine.hardware.set_weather(mood);
        }
    }

    /// Repairs everything.
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
            machine.kernel.set_weather(host_network::Weather { latency_ms: 0..20, ..Default::default() });
            machine.mains.calm(&machine.name);
            machine.hardware.copies_are_ended();
        }
        for (_, index, repair) in std::mem::take(&mut self.repairs) {
            repair_fault(world, index, repair);
        }
        if let Some(newer) = world.newer() {
            newer.calm();
        }
        world.start_daemons();
    }
}

fn crash(world: &mut World, index: usize) {
    let judge = world.judge.clone();
    if let Some(machine) = world.machines.get_mut(index) {
        machine.crash_daemon(&judge);
    }
}

async fn stop(world: &mut World, index: usize) {
    let judge = world.judge.clone();
    if let Some(machine) = world.machines.get_mut(index) {
        machine.stop_daemon(&judge).await;
    }
}

/// Applies an event of a newer daemon to the records.
fn newer_does(world: &mut World, index: usize, event: Event) {
    let uuid = world.any_vm();
    let (Some(newer), Some(machine)) = (world.newer(), world.machines.get(index)) else { return };
    match event {
        Event::ForeignVm => newer.speak(&VmRecord::path(&uuid)),
        Event::ForeignClaim => newer.speak(&Claim::path(&uuid)),
        Event::ForeignNode => newer.speak(&NodeRecord::path(&machine.name)),
        Event::ForeignConfig => newer.speak(&ClusterConfig::path(&Only)),
        Event::ForeignPrimary => newer.speak(&Primary::path(&Only)),
        _ => {
            newer.bear(&VmRecord::path(&uuid));
            newer.bear(&NodeRecord::path(&machine.name));
        }
    }
}

fn repair_fault(world: &mut World, index: usize, repair: Repair) {
    if repair == Repair::Off {
        let judge = world.judge.clone();
        if let Some(machine) = world.machines.get_mut(index) {
            machine.power_off(&judge);
        }
        return;
    }
    if repair == Repair::Network {
        let judge = world.judge.clone();
        if let Some(machine) = world.machines.get_mut(index) {
            machine.isolate(&judge, false);
        }
        return;
    }
    if repair == Repair::Heard {
        if let Some(machine) = world.machines.get_mut(index) {
            machine.be_heard(true);
        }
        return;
    }
    if repair == Repair::Frozen {
        let judge = world.judge.clone();
        if let Some(machine) = world.machines.get(index) {
            machine.freeze(&judge, false);
        }
        return;
    }
    let isolated = world.machines.get(index).is_some_and(|machine| machine.isolated);
    let daemon = world.machines.get(index).and_then(|m| m.daemon.as_ref());
    match (repair, daemon) {
        (Repair::Daemon, _) => world.start_daemon(index),
        (Repair::Clone, _) => world.end_clone(index),
        (Repair::CloneStore, _) => {
            world.store_of_clone(index).inspect(|store| store.heal());
        }
        (Repair::Server, Some(daemon)) => daemon.store.catch_up(),
        (Repair::Store, Some(daemon)) if !isolated => daemon.store.heal(),
        (Repair::Hypervisor, Some(daemon)) => daemon.hypervisor.set_connected(true),
        (Repair::Process, Some(daemon)) => daemon.switch.go_on(),
        (Repair::Cable, _) => {
            if let Some(machine) = world.machines.get(index) {
                machine.kernel.set_carrier(true);
            }
        }
        // The next daemon opens its own connections.
        (Repair::Store, Some(_))
        | (Repair::Store | Repair::Server | Repair::Hypervisor | Repair::Process, None)
        | (Repair::Off | Repair::Network | Repair::Heard | Repair::Frozen, _) => {}
    }
}

/// Timeout of an order.
pub(crate) const ORDER_TIMEOUT: Duration = Duration::from_secs(60);
