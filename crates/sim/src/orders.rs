//! The administrators: orders by chance, given at whatever node answers, through the same commands as the API's.

use crate::{
    invariants::Judge,
    weather::ORDER_PATIENCE,
    world::{SESSION_TIMEOUT, World},
};
use drover_agent::{CommandError, Commands, Define, Modify, records};
use drover_model::{Dice, NodeName, Stored, VmName, VmRecord, layout};
use drover_plan::admit::Command;
use drover_store::{Store, StoreError, Version, memory::MemoryStore};
use std::collections::BTreeSet;
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

/// How many VMs there are at most.
const VMS: u64 = 4;

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
    Modify { restart: bool },
    Rename(VmName),
    Assign(NodeName),
    Delete { disks: bool },
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
        let uuid = Uuid::from_u128(u128::from(1 + self.dice.roll(VMS)));
        let order = match self.dice.roll(100) {
            _ if !self.vms.contains(&uuid) => Order::Define,
            0..28 => Order::State(Command::Start),
            28..35 => Order::State(Command::Shutdown(Some(10 + u32::try_from(self.dice.roll(60)).unwrap_or(0)))),
            35..41 => Order::State(Command::Stop),
            41..47 => Order::State(Command::Restart(Some(20))),
            47..51 => Order::State(Command::Disable { force: self.dice.per_mille(500) }),
            51..56 => Order::Modify { restart: self.dice.per_mille(500) },
            56..59 => match VmName::new(&format!("name{}", self.dice.roll(6))) {
                Ok(name) => Order::Rename(name),
                Err(_) => return,
            },
            59..72 => match self.dice.pick(&names) {
                Some(name) => Order::Assign(name.clone()),
                None => return,
            },
            72..75 => Order::Delete { disks: self.dice.per_mille(500) },
            75..86 => Order::Define,
            _ => return,
        };
        self.vms.insert(uuid);
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
        Order::Define => commands.define(Define { xml: xml(uuid, memory), node: None }).await.map(|_| ()),
        Order::State(command) => commands.set_state(uuid, command).await.map(|_| ()),
        Order::Modify { restart } => {
            let record: Option<Stored<VmRecord>> = records::read(store, &layout::vm(&uuid)).await?;
            let Some(record) = record else { return Ok(()) };
            let xml = xml(uuid, memory).replace(&format!("vm{}<", uuid.as_u128()), &format!("{}<", record.value.name));
            commands.modify(uuid, Modify { xml, expected: None, restart, dry_run: false }).await.map(|_| ())
        }
        Order::Rename(name) => commands.rename(uuid, name, None).await.map(|_| ()),
        Order::Assign(node) => assign(store, uuid, node).await.map_err(CommandError::from),
        Order::Delete { disks } => commands.delete(uuid, disks).await.map(|_| ()),
    }
}

/// Assigns a VM to another node, wherever it runs, as an order to move it will do.
async fn assign(store: &MemoryStore, uuid: Uuid, node: NodeName) -> Result<(), StoreError> {
    let Some(old) = records::read::<VmRecord>(store, &layout::vm(&uuid)).await? else { return Ok(()) };
    let new = VmRecord { node: Some(node), ..old.value };
    store.set(&layout::vm(&uuid), records::encode(&new)?, Version(old.version)).await.map(|_| ())
}
