//! The administrators: random orders, given at random nodes through the same commands as the API uses.

use crate::{
    Shape,
    invariants::Judge,
    strangers,
    table::{Table, draw},
    weather::ORDER_TIMEOUT,
    world::{SESSION_TIMEOUT, World},
};
use drover_agent::{CommandError, Commands, ConfigChange, Define, Import, Maintenance, Modify, records};
use drover_model::{
    Dice, MetaChange, MigrationMethod, MoveKind, NodeName, NodeRecord, RecordKind, Stall, VmName, VmRecord,
};
use drover_plan::{admit::Command, moves::Request};
use drover_store::memory::MemoryStore;
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// Time in which all guests of a lost store are adopted, when nothing is wrong any more.
const ADOPTED_BY_THEN: Duration = Duration::from_secs(300);

/// Gives orders.
pub(crate) struct Administrator {
    dice: Dice,
    vms: BTreeSet<Uuid>,
    under_way: JoinSet<()>,
    /// For reads that have no command.
    store: Option<MemoryStore>,
}

/// A kind of order.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Start,
    Shutdown,
    Stop,
    Restart,
    Disable,
    Modify,
    Rename,
    Meta,
    Config,
    Maintenance,
    Move,
    Cancel,
    Delete,
    Define,
    Flush,
    FlushByForce,
    Ready,
    RemoveNode,
    ConfirmOff,
    MakePrimary,
    MakeSecondary,
    Nothing,
}

/// All kinds of orders. An order for a VM that was never defined defines it instead.
const ANY: &Table<Kind> = &[
    ("start a VM", 28, Kind::Start),
    ("shut one down", 6, Kind::Shutdown),
    ("cut its power", 5, Kind::Stop),
    ("restart it", 5, Kind::Restart),
    ("disable it", 3, Kind::Disable),
    ("give it another definition", 4, Kind::Modify),
    ("rename it", 2, Kind::Rename),
    ("change its metadata", 2, Kind::Meta),
    ("change limits and deadlines", 1, Kind::Config),
    ("move it, for a while, for good or home", 16, Kind::Move),
    ("delete it", 3, Kind::Delete),
    ("define it again", 5, Kind::Define),
    ("flush a node, sometimes by force", 3, Kind::FlushByForce),
    ("make a node ready", 5, Kind::Ready),
    ("nothing", 12, Kind::Nothing),
];

/// Orders for a cluster whose VMs should all run.
const DRILLS: &Table<Kind> = &[
    ("flush a node", 12, Kind::Flush),
    ("make a node ready", 18, Kind::Ready),
    ("move a VM", 25, Kind::Move),
    ("take a move back", 15, Kind::Cancel),
    ("change a VM's metadata", 5, Kind::Meta),
    ("change limits and deadlines", 6, Kind::Config),
    ("nothing", 19, Kind::Nothing),
];

/// Orders that hand over the primary role.
const HANDOFFS: &Table<Kind> = &[
    ("make a node the primary", 35, Kind::MakePrimary),
    ("make a node a secondary", 10, Kind::MakeSecondary),
    ("nothing", 55, Kind::Nothing),
];

/// Orders of all kinds, so that each kind of record is rewritten by daemons of both versions.
const VERSIONS: &Table<Kind> = &[
    ("start a VM", 24, Kind::Start),
    ("shut one down", 4, Kind::Shutdown),
    ("cut its power", 4, Kind::Stop),
    ("restart it", 4, Kind::Restart),
    ("disable it", 2, Kind::Disable),
    ("give it another definition", 4, Kind::Modify),
    ("rename it", 2, Kind::Rename),
    ("change its metadata", 3, Kind::Meta),
    ("change limits and deadlines", 2, Kind::Config),
    ("begin or end maintenance", 3, Kind::Maintenance),
    ("move it, for a while, for good or home", 14, Kind::Move),
    ("take a move back", 2, Kind::Cancel),
    ("delete it", 4, Kind::Delete),
    ("define it again", 5, Kind::Define),
    ("flush a node, sometimes by force", 3, Kind::FlushByForce),
    ("make a node ready", 5, Kind::Ready),
    ("remove a node that is gone", 2, Kind::RemoveNode),
    ("make a node the primary", 3, Kind::MakePrimary),
    ("make a node a secondary", 1, Kind::MakeSecondary),
    ("nothing", 9, Kind::Nothing),
];

/// Orders in a cluster whose machines lose their power.
const FENCES: &Table<Kind> = &[
    ("start a VM", 24, Kind::Start),
    ("shut one down", 4, Kind::Shutdown),
    ("cut its power", 3, Kind::Stop),
    ("restart it", 4, Kind::Restart),
    ("disable it", 1, Kind::Disable),
    ("change its metadata", 2, Kind::Meta),
    ("move it, for a while, for good or home", 16, Kind::Move),
    ("take a move back", 3, Kind::Cancel),
    ("delete it", 2, Kind::Delete),
    ("define it again", 4, Kind::Define),
    ("flush a node", 3, Kind::Flush),
    ("make a node ready", 10, Kind::Ready),
    ("confirm that a machine is off", 20, Kind::ConfirmOff),
    ("make a node the primary", 3, Kind::MakePrimary),
    ("nothing", 9, Kind::Nothing),
];

/// Orders in a cluster whose machines reset themselves.
const WATCHDOGS: &Table<Kind> = &[
    ("start a VM", 30, Kind::Start),
    ("shut one down", 4, Kind::Shutdown),
    ("cut its power", 2, Kind::Stop),
    ("restart it", 3, Kind::Restart),
    ("move it, for a while, for good or home", 14, Kind::Move),
    ("take a move back", 3, Kind::Cancel),
    ("delete it", 2, Kind::Delete),
    ("define it again", 4, Kind::Define),
    ("flush a node", 2, Kind::Flush),
    ("make a node ready", 20, Kind::Ready),
    ("confirm that a machine is off", 2, Kind::ConfirmOff),
    ("make a node the primary", 3, Kind::MakePrimary),
    ("begin or end maintenance", 4, Kind::Maintenance),
    ("nothing", 7, Kind::Nothing),
];

/// One order.
#[derive(Debug, Clone)]
enum Order {
    Define {
        /// The guest that runs already.
        adopts: bool,
    },
    Import,
    State(Command),
    Modify {
        restart: bool,
    },
    Rename(VmName),
    Meta(MetaChange),
    Config(ConfigChange),
    Relocate(Request),
    Flush {
        node: NodeName,
        force: bool,
    },
    Ready(NodeName),
    RemoveNode(NodeName),
    /// The machine was seen to be off, after that boot.
    ConfirmOff {
        node: NodeName,
        boot: String,
    },
    Primary {
        node: NodeName,
        primary: bool,
    },
    /// Cancels a move, if one is in progress.
    Cancel,
    Delete {
        disks: bool,
    },
}

pub(crate) fn xml(uuid: Uuid, memory: u64, shape: Shape) -> String {
    // Some have a TPM, and cannot be moved while they are off.
    let tpm = if uuid.as_u128() % 4 == 3 { "<tpm model='tpm-crb'><backend type='emulator'/></tpm>" } else { "" };
    let disk = match shape {
        Shape::Strangers => {
            format!("<disk type='file'><source file='/shared/{}'/><target dev='vda'/></disk>", uuid.as_u128())
        }
        _ => String::new(),
    };
    format!(
        "<domain type='kvm'><name>vm{0}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>\
        <os><type>hvm</type></os><devices>{tpm}{disk}</devices></domain>",
        uuid.as_u128()
    )
}

impl Administrator {
    pub(crate) fn new(seed: u64) -> Administrator {
        Administrator { dice: Dice::new(seed), vms: BTreeSet::new(), under_way: JoinSet::new(), store: None }
    }

    /// Every VM that was ever defined.
    pub(crate) fn vms(&self) -> &BTreeSet<Uuid> {
        &self.vms
    }

    /// Gives an order, or none.
    pub(crate) fn act(&mut self, world: &mut World) {
        while self.under_way.try_join_next().is_some() {}
        let handles: Vec<_> = world.machines.iter().filter_map(|m| Some(m.daemon.as_ref()?.handle.clone())).collect();
        let names: Vec<NodeName> = world.machines.iter().map(|m| m.name.clone()).collect();
        let Some(mut handle) = self.dice.pick(&handles).cloned() else { return };
        let uuid = Uuid::from_u128(u128::from(1 + self.dice.roll(world.shape.vms().max(1))));
        let table = match world.shape {
            Shape::Small | Shape::Clones | Shape::Strangers => ANY,
            Shape::Drills => DRILLS,
            Shape::Handoffs => HANDOFFS,
            Shape::Versions => VERSIONS,
            Shape::Watchdogs => WATCHDOGS,
            Shape::Fences => FENCES,
        };
        let Some((_, kind)) = draw(&mut self.dice, table) else { return };
        let any = !matches!(world.shape, Shape::Drills | Shape::Handoffs);
        let known = self.vms.contains(&uuid) && world.cluster.peek(&VmRecord::path(&uuid)).is_some();
        let again = world.shape == Shape::Strangers && !known;
        let kind = if any && !self.vms.contains(&uuid) || again { Kind::Define } else { kind };
        let orphans = world.judge.orphans(&world.machines);
        let adopts = orphans.iter().any(|(orphan, _)| *orphan == uuid);
        // Whoever has done something by hand waits until Drover has followed, or looks what runs.
        let waits = if matches!(kind, Kind::Define) && !known {
            !orphans.is_empty() && !strangers::sees_all(&handle.view(), &world.machines, &orphans)
        } else {
            !world.judge.is_followed(uuid)
        };
        // A domain that somebody has made is imported, at its node.
        let foreign = strangers::where_foreign(&world.machines, uuid).filter(|_| !known);
        if let Some(machine) = foreign {
            let Some(daemon) = &machine.daemon else { return };
            handle = daemon.handle.clone();
        } else if waits {
            return;
        }
        let order = match kind {
            Kind::ConfirmOff => self.confirmation(world),
            _ if foreign.is_some() => Some(Order::Import),
            Kind::Define => Some(Order::Define { adopts }),
            kind => self.order(kind, &names),
        };
        let Some(order) = order else { return };
        if world.shape.vms() > 0 {
            self.vms.insert(uuid);
        }
        let store = self.store.get_or_insert_with(|| world.cluster.session(SESSION_TIMEOUT)).clone();
        if matches!(order, Order::Delete { .. }) {
            world.judge.condemn(uuid);
        }
        if matches!(order, Order::State(Command::Stop | Command::Shutdown(_) | Command::Disable { .. })) {
            world.judge.ordered_off(uuid);
        }
        let (judge, memory) = (world.judge.clone(), 64 + self.dice.roll(1000));
        let xml = xml(uuid, memory, world.shape);
        judge.ordering(uuid, true);
        self.under_way.spawn(async move {
            let outcome = timeout(ORDER_TIMEOUT, give(handle.commands(), &store, uuid, order.clone(), xml)).await;
            judge.ordering(uuid, false);
            let result = match &outcome {
                Ok(Ok(())) => "done".to_owned(),
                Ok(Err(error)) => format!("refused: {error}"),
                Err(_) => "no answer".to_owned(),
            };
            note_order(&judge, uuid, &order, &result, matches!(outcome, Ok(Ok(()))));
        });
    }

    fn order(&mut self, kind: Kind, names: &[NodeName]) -> Option<Order> {
        Some(match kind {
            Kind::Start => Order::State(Command::Start { force: false }),
            Kind::Shutdown => {
                Order::State(Command::Shutdown(Some(10 + u32::try_from(self.dice.roll(60)).unwrap_or(0))))
            }
            Kind::Stop => Order::State(Command::Stop),
            Kind::Restart => Order::State(Command::Restart(Some(20))),
            Kind::Disable => Order::State(Command::Disable { force: self.dice.per_mille(500) }),
            Kind::Modify => Order::Modify { restart: self.dice.per_mille(500) },
            Kind::Rename => Order::Rename(VmName::new(&format!("name{}", self.dice.roll(6))).ok()?),
            Kind::Meta => Order::Meta(self.meta()),
            Kind::Config => Order::Config(self.config()),
            Kind::Maintenance => {
                let maintenance = if self.dice.per_mille(500) { Maintenance::On(None) } else { Maintenance::Off };
                Order::Config(ConfigChange { maintenance: Some(maintenance), ..ConfigChange::default() })
            }
            Kind::Move => Order::Relocate(self.relocation(names)),
            Kind::Cancel => Order::Cancel,
            Kind::Delete => Order::Delete { disks: self.dice.per_mille(500) },
            Kind::Define => Order::Define { adopts: false },
            Kind::Flush => Order::Flush { node: self.dice.pick(names)?.clone(), force: false },
            Kind::FlushByForce => {
                Order::Flush { node: self.dice.pick(names)?.clone(), force: self.dice.per_mille(300) }
            }
            Kind::Ready => Order::Ready(self.dice.pick(names)?.clone()),
            Kind::RemoveNode => Order::RemoveNode(self.dice.pick(names)?.clone()),
            Kind::MakePrimary => Order::Primary { node: self.dice.pick(names)?.clone(), primary: true },
            Kind::MakeSecondary => Order::Primary { node: self.dice.pick(names)?.clone(), primary: false },
            Kind::ConfirmOff | Kind::Nothing => return None,
        })
    }

    /// An administrator looks at a machine, and confirms it if that is off.
    fn confirmation(&mut self, world: &World) -> Option<Order> {
        let off: Vec<_> = world.machines.iter().filter(|machine| world.seems_off(machine)).collect();
        let node = self.dice.pick(&off)?.name.clone();
        let record = world.cluster.peek(&NodeRecord::path(&node))?;
        let record: NodeRecord = serde_json::from_slice(&record.data).ok()?;
        Some(Order::ConfirmOff { node, boot: record.boot })
    }

    /// Random limits, and a deadline that some migrations miss.
    fn config(&mut self) -> ConfigChange {
        let stall = self.dice.pick(&[Stall::Abort, Stall::PostCopy]).copied();
        let mut limit = |most| u32::try_from(1 + self.dice.roll(most)).ok();
        ConfigChange {
            stall,
            moves_per_source: limit(4),
            moves_per_target: limit(4),
            moves: limit(8),
            migration_deadline_s: limit(10),
            ..ConfigChange::default()
        }
    }

    fn meta(&mut self) -> MetaChange {
        let method = [MigrationMethod::None, MigrationMethod::Live, MigrationMethod::Shutdown];
        MetaChange {
            method: self.dice.pick(&method).copied(),
            priority: i32::try_from(self.dice.roll(3)).ok(),
            ..MetaChange::default()
        }
    }

    fn relocation(&mut self, names: &[NodeName]) -> Request {
        let kind = [MoveKind::Move, MoveKind::Migrate, MoveKind::Unmigrate];
        Request {
            kind: self.dice.pick(&kind).copied().unwrap_or(MoveKind::Move),
            to: if self.dice.per_mille(500) { self.dice.pick(names).cloned() } else { None },
            force: self.dice.per_mille(300),
            live_only: self.dice.per_mille(300),
        }
    }

    /// Defines every VM and starts it, one after the other, as long as there is room on every node but one.
    pub(crate) async fn fill(&mut self, world: &mut World) {
        let Some(handle) = world.machines.first().and_then(|m| Some(m.daemon.as_ref()?.handle.clone())) else { return };
        for n in 1..=world.shape.vms() {
            let (uuid, memory) = (Uuid::from_u128(n.into()), 256 + self.dice.roll(1200));
            let meta = self.meta();
            let define = Define { xml: xml(uuid, memory, world.shape), meta, ..Define::default() };
            let commands = handle.commands();
            if commands.define(define).await.is_ok()
                && commands.set_state(uuid, Command::Start { force: false }).await.is_ok()
            {
                self.vms.insert(uuid);
            }
        }
        sleep(Duration::from_secs(30)).await;
    }

    /// Defines the VMs again whose guests run although their records are lost, as long as there are some.
    pub(crate) async fn adopt(&mut self, world: &World) {
        let began = Instant::now();
        while began.elapsed() < ADOPTED_BY_THEN {
            let mut done = true;
            for machine in &world.machines {
                for domain in machine.hardware.foreign() {
                    done = false;
                    let import = Import { domain: domain.uuid.to_string(), ..Import::default() };
                    if let Some(daemon) = &machine.daemon {
                        let told = daemon.handle.commands().import(import).await.map(|_| ());
                        world.judge.note(&format!("{} is imported: {told:?}", domain.uuid), |_| ());
                    }
                }
            }
            let orphans = world.judge.orphans(&world.machines);
            let handles = world.machines.iter().filter_map(|m| m.daemon.as_ref());
            let Some((uuid, _)) = orphans.first() else {
                if done {
                    return;
                }
                sleep(Duration::from_secs(2)).await;
                continue;
            };
            for daemon in handles {
                if strangers::sees_all(&daemon.handle.view(), &world.machines, &orphans) {
                    let define = Define { xml: xml(*uuid, 64, world.shape), adopt: true, ..Define::default() };
                    let done = daemon.handle.commands().define(define).await;
                    world.judge.note(&format!("{uuid} is defined again: {done:?}"), |_| ());
                    break;
                }
            }
            sleep(Duration::from_secs(2)).await;
        }
    }

    /// Waits until no order is in progress.
    pub(crate) async fn finish(&mut self) {
        while self.under_way.join_next().await.is_some() {}
    }

    /// Ends maintenance, at whatever node it can be done.
    pub(crate) async fn end_maintenance(&self, world: &World) {
        let change = ConfigChange { maintenance: Some(Maintenance::Off), ..ConfigChange::default() };
        let handles: Vec<_> = world.machines.iter().filter_map(|m| Some(m.daemon.as_ref()?.handle.clone())).collect();
        for handle in handles.iter().cycle().take(100) {
            if handle.commands().set_config(&change).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn note_order(judge: &Judge, uuid: Uuid, order: &Order, result: &str, done: bool) {
    judge.note(&format!("order for {uuid}: {order:?}: {result}"), |tally| {
        tally.orders += u64::from(done);
        tally.refused += u64::from(!done);
    });
}

async fn give(
    commands: &Commands,
    store: &MemoryStore,
    uuid: Uuid,
    order: Order,
    xml: String,
) -> Result<(), CommandError> {
    match order {
        Order::Define { adopts } => {
            commands.define(Define { xml, adopt: adopts, ..Define::default() }).await.map(|_| ())
        }
        Order::Import => commands.import(Import { domain: uuid.to_string(), ..Import::default() }).await.map(|_| ()),
        Order::Config(change) => commands.set_config(&change).await.map(|_| ()),
        Order::Meta(change) => commands.set_meta(uuid, &change).await.map(|_| ()),
        Order::Relocate(request) => commands.relocate(uuid, &request).await.map(|_| ()),
        Order::Flush { node, force } => commands.set_domain_state(node, false, force).await.map(|_| ()),
        Order::Ready(node) => commands.set_domain_state(node, true, false).await.map(|_| ()),
        Order::RemoveNode(node) => commands.remove_node(node).await,
        Order::ConfirmOff { node, boot } => commands.confirm_off(node, Some(boot), false).await.map(|_| ()),
        Order::Primary { node, primary } => commands.set_coordinator_state(&node, primary).await.map(|_| ()),
        Order::Cancel => commands.set_state(uuid, Command::CancelMove).await.map(|_| ()),
        Order::State(command) => commands.set_state(uuid, command).await.map(|_| ()),
        Order::Modify { restart } => {
            let record = records::read::<VmRecord>(store, &uuid).await?;
            let Some(record) = record else { return Ok(()) };
            let xml = xml.replace(&format!("vm{}<", uuid.as_u128()), &format!("{}<", record.value.name));
            commands.modify(uuid, Modify { xml, restart, ..Modify::default() }).await.map(|_| ())
        }
        Order::Rename(name) => commands.rename(uuid, name, None).await.map(|_| ()),
        Order::Delete { disks } => commands.delete(uuid, disks).await.map(|_| ()),
    }
}
