//! Direct access to the cluster's records, without a daemon: creates many VMs at once, and changes one.

use crate::{definitions, pings::now, scale::words::Crew};
use drover_agent::records;
use drover_lab::{LabError, Result};
use drover_model::{
    Claim, Definition, Epoch, NameEntry, NodeName, RecordKind, RecordPath, VmRecord, VmStatus, WallTime,
};
use drover_plan::admit;
use drover_store::{
    Op, Store, StoreError,
    zookeeper::{Options, ZooKeeperStore},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{future::Future, ops::Range, time::Duration};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// VMs per transaction: well below its limit of 1 MiB.
const BATCH: usize = 50;
/// How many of these transactions are in flight at once.
const IN_FLIGHT: usize = 4;

/// A session with the ensemble.
pub(crate) struct Records {
    runtime: Runtime,
    store: ZooKeeperStore,
}

fn failed(error: StoreError) -> LabError {
    LabError::new("the records", error)
}

/// The UUID of the `n`th VM.
pub(crate) fn uuid(n: usize) -> Uuid {
    Uuid::from_u128(0xd0e0_0000_0000_4000_8000_0000_0000_0000 + n as u128)
}

/// The four records of a VM that was never started, as the agent creates them.
pub(crate) fn new_vm(n: usize, node: &NodeName) -> Result<Vec<Op>> {
    let bad = |e| LabError::new(definitions::name(n), e);
    let definition = Definition::parse(&definitions::xml(n), uuid(n)).map_err(bad)?;
    let record = admit::define(&definition, Some(node.clone()));
    let status = VmStatus::new(node.clone(), Epoch(0), WallTime(now() / 1000));
    let uuid = record.uuid;
    let ops = [
        records::create_op(&record.name, &NameEntry(uuid)),
        records::create_op(&uuid, &record),
        records::create_op(&uuid, &Claim::new(Epoch(0))),
        records::create_op(&uuid, &status),
    ];
    ops.into_iter().collect::<std::result::Result<_, _>>().map_err(failed)
}

impl Records {
    /// Connects.
    pub(crate) fn connect(crew: &Crew) -> Result<Records> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| LabError::new("cannot run anything asynchronous", e))?;
        let root = RecordPath::new("/drover").map_err(|e| LabError::new("a path", e))?;
        let servers = crew.servers.clone();
        let store = ZooKeeperStore::start(Options { servers, session_timeout: Duration::from_secs(10), root });
        Ok(Records { runtime, store: store.map_err(failed)? })
    }

    fn wait<T>(&self, work: impl Future<Output = std::result::Result<T, StoreError>>) -> Result<T> {
        self.runtime.block_on(work).map_err(failed)
    }

    /// Creates VMs, distributed over the nodes in turn.
    pub(crate) fn fill(&self, range: Range<usize>, nodes: &[NodeName]) -> Result<()> {
        let numbers: Vec<usize> = range.collect();
        let batch = |batch: &[usize]| {
            let ops = batch.iter().filter_map(|n| Some(new_vm(*n, nodes.get(n % nodes.len())?)));
            ops.collect::<Result<Vec<_>>>().map(|ops| ops.concat())
        };
        let batches = numbers.chunks(BATCH).map(batch).collect::<Result<Vec<_>>>()?;
        let all = stream::iter(batches).map(|ops| self.store.multi(ops)).buffer_unordered(IN_FLIGHT);
        self.wait(all.try_collect())
    }

    /// Changes the description of a VM.
    pub(crate) fn describe(&self, uuid: &Uuid, description: &str) -> Result<()> {
        let change = async {
            let old = records::read::<VmRecord>(&self.store, uuid).await?;
            let old = old.ok_or_else(|| StoreError::NotFound(VmRecord::path(uuid)))?;
            let record = VmRecord { description: description.to_owned(), ..old.value.clone() };
            records::set(&self.store, uuid, &old, &record).await
        };
        self.wait(change).map(|_| ())
    }

    /// The same, with retries: the ensemble may have just restarted.
    pub(crate) fn describe_at_last(&self, uuid: &Uuid, description: &str) -> Result<()> {
        drover_lab::Lab::until("the records cannot be written", Duration::from_secs(120), || {
            self.describe(uuid, description).ok()
        })
    }
}
