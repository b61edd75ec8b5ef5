//! Defects that are planted between the agents and what they stand on, to see that the simulation would find such a
//! thing in the agents.

use async_trait::async_trait;
use drover_drivers::{
    hypervisor::{self, Connection, Domain, Event, Host, Hypervisor, Sending},
    network::{Link, Network, NetworkError},
};
use drover_model::{Claim, FloatingAddress, Obs, Progress, RecordPath, layout};
use drover_store::{CreateMode, Op, Record, Session, Store, StoreError, Version, Watch};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use uuid::Uuid;

/// A planted defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Lie {
    /// None.
    #[default]
    None,
    /// Writes replace whatever is there, as if nobody compared versions.
    BlindWrites,
    /// A domain whose state is not known counts as one that is not there.
    UnknownIsAbsent,
    /// Nobody writes down that a guest is being sent.
    UnwrittenSends,
    /// The kernel keeps an address until it is told to let it go.
    EndlessAddresses,
    /// A lease counts as rewritten though no answer came.
    UnansweredBeats,
}

impl Lie {
    pub(crate) fn store(self, truth: Arc<dyn Store>) -> Arc<dyn Store> {
        match self {
            Lie::BlindWrites | Lie::UnwrittenSends | Lie::UnansweredBeats => Arc::new(LyingStore { truth, lie: self }),
            Lie::None | Lie::UnknownIsAbsent | Lie::EndlessAddresses => truth,
        }
    }

    pub(crate) fn network(self, truth: Arc<dyn Network>) -> Arc<dyn Network> {
        match self {
            Lie::EndlessAddresses => Arc::new(LyingNetwork { truth }),
            _ => truth,
        }
    }

    pub(crate) fn hypervisor(self, truth: Arc<dyn Hypervisor>) -> Arc<dyn Hypervisor> {
        match self {
            Lie::UnknownIsAbsent => Arc::new(LyingHypervisor { truth }),
            _ => truth,
        }
    }
}

struct LyingStore {
    truth: Arc<dyn Store>,
    lie: Lie,
}

impl LyingStore {
    /// The version that the record has now, whatever was expected.
    async fn blind(&self, path: &RecordPath, expected: Version) -> Version {
        if self.lie != Lie::BlindWrites {
            return expected;
        }
        match self.truth.get(path).await {
            Ok(Some(record)) => record.version,
            _ => expected,
        }
    }
}

#[async_trait]
impl Store for LyingStore {
    async fn get(&self, path: &RecordPath) -> drover_store::Result<Option<Record>> {
        self.truth.get(path).await
    }
    async fn children(&self, path: &RecordPath) -> drover_store::Result<Vec<String>> {
        self.truth.children(path).await
    }
    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> drover_store::Result<RecordPath> {
        self.truth.create(path, data, mode).await
    }
    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> drover_store::Result<Version> {
        let expected = self.blind(path, expected).await;
        match self.truth.set(path, data, expected).await {
            Err(StoreError::Unknown { .. })
                if self.lie == Lie::UnansweredBeats && path.is_within(&layout::leases()) =>
            {
                Ok(Version(expected.0 + 1))
            }
            answer => answer,
        }
    }
    async fn delete(&self, path: &RecordPath, expected: Option<Version>) -> drover_store::Result<()> {
        self.truth.delete(path, expected).await
    }
    async fn multi(&self, ops: Vec<Op>) -> drover_store::Result<()> {
        let mut told = Vec::new();
        for op in ops {
            match op {
                Op::Set(path, data, expected) if self.lie == Lie::UnwrittenSends && path.name() == "claim" => {
                    let said: Option<Claim> = serde_json::from_slice(&data).ok();
                    let data = said.and_then(|claim| serde_json::to_vec(&claim.sending_to(None)).ok()).unwrap_or(data);
                    told.push(Op::Set(path, data, expected));
                }
                Op::Check(path, expected) => {
                    let expected = self.blind(&path, expected).await;
                    told.push(Op::Check(path, expected));
                }
                Op::Set(path, data, expected) => {
                    let expected = self.blind(&path, expected).await;
                    told.push(Op::Set(path, data, expected));
                }
                op => told.push(op),
            }
        }
        self.truth.multi(told).await
    }
    async fn sync(&self) -> drover_store::Result<()> {
        self.truth.sync().await
    }
    async fn watch(&self, path: &RecordPath) -> drover_store::Result<Watch> {
        self.truth.watch(path).await
    }
    fn session(&self) -> watch::Receiver<Session> {
        self.truth.session()
    }
    async fn close(&self) {
        self.truth.close().await;
    }
    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> drover_store::Result<()> {
        self.truth.rename(from, to).await
    }
}

struct LyingNetwork {
    truth: Arc<dyn Network>,
}

type Said<T> = Result<T, NetworkError>;

#[async_trait]
impl Network for LyingNetwork {
    async fn hold(&self, address: &FloatingAddress, _until: Option<Instant>) -> Said<()> {
        self.truth.hold(address, None).await
    }
    async fn release(&self, address: &FloatingAddress) -> Said<()> {
        self.truth.release(address).await
    }
    async fn holds(&self, address: &FloatingAddress) -> Said<bool> {
        self.truth.holds(address).await
    }
    async fn announce(&self, address: &FloatingAddress) -> Said<()> {
        self.truth.announce(address).await
    }
    async fn probe(&self, address: &FloatingAddress, patience: Duration) -> Said<Option<String>> {
        self.truth.probe(address, patience).await
    }
    async fn reaches(&self, interface: &str, neighbour: IpAddr, patience: Duration) -> Said<bool> {
        self.truth.reaches(interface, neighbour, patience).await
    }
    async fn link(&self, interface: &str) -> Said<Option<Link>> {
        self.truth.link(interface).await
    }
    fn changes(&self) -> watch::Receiver<()> {
        self.truth.changes()
    }
}

struct LyingHypervisor {
    truth: Arc<dyn Hypervisor>,
}

#[async_trait]
impl Hypervisor for LyingHypervisor {
    async fn domains(&self) -> hypervisor::Result<Vec<(Uuid, Obs<Domain>)>> {
        self.truth.domains().await
    }
    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        match self.truth.domain(uuid).await {
            Obs::Unknown(_) => Obs::Absent,
            known => known,
        }
    }
    async fn create(&self, uuid: Uuid, xml: String) -> hypervisor::Result<()> {
        self.truth.create(uuid, xml).await
    }
    async fn shutdown(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.shutdown(uuid).await
    }
    async fn destroy(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.destroy(uuid).await
    }
    async fn undefine(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.undefine(uuid).await
    }
    async fn migrate(&self, uuid: Uuid, how: Sending) -> hypervisor::Result<()> {
        self.truth.migrate(uuid, how).await
    }
    async fn migration(&self, uuid: Uuid) -> hypervisor::Result<Option<Progress>> {
        self.truth.migration(uuid).await
    }
    async fn abort_migration(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.abort_migration(uuid).await
    }
    async fn post_copy(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.post_copy(uuid).await
    }
    async fn host(&self) -> hypervisor::Result<Host> {
        self.truth.host().await
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.truth.events()
    }
    fn connection(&self) -> watch::Receiver<Connection> {
        self.truth.connection()
    }
}
