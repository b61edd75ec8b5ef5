//! The administrators: orders by chance, given at whatever node answers, through the same commands as the API's.

use crate::{
    Shape,
    invariants::Judge,
    weather::ORDER_PATIENCE,
    world::{SESSION_TIMEOUT, World},
};
use drover_agent::{CommandError, Commands, ConfigChange, Define, Modify, records};
use drover_model::{Dice, MetaChange, MigrationMethod, MoveKind, NodeName, VmName, VmRecord};
use drover_plan::{admit::Command, moves::Request};
use drover_store::memory::MemoryStore;
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

/// Gives orders.
pub(crate) struct Administrator {
    dice: Dice,
    vms: BTreeSet<Uuid>,
    under_way: JoinSet<()>,
    /// For what has no command yet.
    store: Option<MemoryStore>,
}

/// One order.
#[derive(Debug, Clone)]
enum Order {
    Define,
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
    Primary {
        node: NodeName,
        primary: bool,
    },
    /// Takes a move back, if one is under way.
    Cancel,
    Delete {
        disks: bool,
    },
}

fn xml(uuid: Uuid, memory: u64) -> String {
    format!(
        "<domain type='kvm'><name>vm{0}</name><uuid>{uuid}</uuid><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu><os><type>hvm</type></os></domain>",
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

    /// Gives an order, or not.
    pub(crate) fn act(&mut self, world: &mut World) {
        while self.under_way.try_join_next().is_some() {}
        let handles: Vec<_> = world.machines.iter().filter_map(|m| Some(m.daemon.as_ref()?.handle.clone())).collect();
        let names: Vec<NodeName> = world.machines.iter().map(|m| m.name.clone()).collect();
        let Some(handle) = self.dice.pick(&handles).cloned() else { return };
        let uuid = Uuid::from_u128(u128::from(1 + self.dice.roll(world.shape.vms().max(1))));
        let order = match world.shape {
            Shape::Small => self.any_order(uuid, &names),
            Shape::Drills => self.drill(&names),
            Shape::Handoffs => self.pass_on(&names),
        };
        let Some(order) = order else { return };
        if world.shape.vms() > 0 {
            self.vms.insert(uuid);
        }
        let store = self.store.get_or_insert_with(|| world.cluster.session(SESSION_TIMEOUT)).clone();
        let (judge, memory) = (world.judge.clone(), 64 + self.dice.roll(1000));
        self.under_way.spawn(async move {
            let outcome = timeout(ORDER_PATIENCE, give(handle.commands(), &store, uuid, order.clone(), memory)).await;
            let told = match &outcome {
                Ok(Ok(())) => "done".to_owned(),
                Ok(Err(error)) => format!("refused: {error}"),
                Err(_) => "no answer".to_owned(),
            };
            told_of(&judge, uuid, &order, &told, matches!(outcome, Ok(Ok(()))));
        });
    }

    /// Whatever an administrator may think of.
    fn any_order(&mut self, uuid: Uuid, names: &[NodeName]) -> Option<Order> {
        Some(match self.dice.roll(100) {
            _ if !self.vms.contains(&uuid) => Order::Define,
            0..28 => Order::State(Command::Start),
            28..34 => Order::State(Command::Shutdown(Some(10 + u32::try_from(self.dice.roll(60)).unwrap_or(0)))),
            34..39 => Order::State(Command::Stop),
            39..44 => Order::State(Command::Restart(Some(20))),
            44..47 => Order::State(Command::Disable { force: self.dice.per_mille(500) }),
            47..51 => Order::Modify { restart: self.dice.per_mille(500) },
            51..53 => Order::Rename(VmName::new(&format!("name{}", self.dice.roll(6))).ok()?),
            53..55 => Order::Meta(self.meta()),
            55..56 => Order::Config(self.config()),
            56..72 => Order::Relocate(self.relocation(names)),
            72..75 => Order::Delete { disks: self.dice.per_mille(500) },
            75..80 => Order::Define,
            80..83 => Order::Flush { node: self.dice.pick(names)?.clone(), force: self.dice.per_mille(300) },
            83..88 => Order::Ready(self.dice.pick(names)?.clone()),
            _ => return None,
        })
    }

    /// What is done with a cluster whose VMs are all to run.
    fn drill(&mut self, names: &[NodeName]) -> Option<Order> {
        Some(match self.dice.roll(100) {
            0..12 => Order::Flush { node: self.dice.pick(names)?.clone(), force: false },
            12..30 => Order::Ready(self.dice.pick(names)?.clone()),
            30..55 => Order::Relocate(self.relocation(names)),
            55..70 => Order::Cancel,
            70..75 => Order::Meta(self.meta()),
            75..77 => Order::Config(self.config()),
            _ => return None,
        })
    }

    /// The role of the primary is to pass on.
    fn pass_on(&mut self, names: &[NodeName]) -> Option<Order> {
        Some(match self.dice.roll(100) {
            0..35 => Order::Primary { node: self.dice.pick(names)?.clone(), primary: true },
            35..45 => Order::Primary { node: self.dice.pick(names)?.clone(), primary: false },
            _ => return None,
        })
    }

    /// Other limits, and a deadline that some migrations do not keep.
    fn config(&mut self) -> ConfigChange {
        let mut limit = |most| u32::try_from(1 + self.dice.roll(most)).ok();
        ConfigChange {
            moves_per_source: limit(4),
            moves_per_target: limit(4),
            moves: limit(8),
            migration_deadline_s: limit(60),
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
            let define = Define { xml: xml(uuid, memory), meta, ..Define::default() };
            let commands = handle.commands();
            if commands.define(define).await.is_ok() && commands.set_state(uuid, Command::Start).await.is_ok() {
                self.vms.insert(uuid);
            }
        }
        sleep(Duration::from_secs(30)).await;
    }

    /// Waits until no order is under way.
    pub(crate) async fn finish(&mut self) {
        while self.under_way.join_next().await.is_some() {}
    }
}

fn told_of(judge: &Judge, uuid: Uuid, order: &Order, told: &str, done: bool) {
    judge.note(&format!("order for {uuid}: {order:?}: {told}"), |tally| {
        tally.orders += u64::from(done);
        tally.refused += u64::from(!done);
    });
}

async fn give(
    commands: &Commands,
    store: &MemoryStore,
    uuid: Uuid,
    order: Order,
    memory: u64,
) -> Result<(), CommandError> {
    match order {
        Order::Define => commands.define(Define { xml: xml(uuid, memory), ..Define::default() }).await.map(|_| ()),
        Order::Config(change) => commands.set_config(&change).await.map(|_| ()),
        Order::Meta(change) => commands.set_meta(uuid, &change).await.map(|_| ()),
        Order::Relocate(request) => commands.relocate(uuid, &request).await.map(|_| ()),
        Order::Flush { node, force } => commands.set_domain_state(node, false, force).await.map(|_| ()),
        Order::Ready(node) => commands.set_domain_state(node, true, false).await.map(|_| ()),
        Order::Primary { node, primary } => commands.set_coordinator_state(&node, primary).await.map(|_| ()),
        Order::Cancel => commands.set_state(uuid, Command::CancelMove).await.map(|_| ()),
        Order::State(command) => commands.set_state(uuid, command).await.map(|_| ()),
        Order::Modify { restart } => {
            let record = records::read::<VmRecord>(store, &uuid).await?;
            let Some(record) = record else { return Ok(()) };
            let xml = xml(uuid, memory).replace(&format!("vm{}<", uuid.as_u128()), &format!("{}<", record.value.name));
            commands.modify(uuid, Modify { xml, expected: None, restart, dry_run: false }).await.map(|_| ())
        }
        Order::Rename(name) => commands.rename(uuid, name, None).await.map(|_| ()),
        Order::Delete { disks } => commands.delete(uuid, disks).await.map(|_| ()),
    }
}
