//! Defects planted between the agents and their drivers, to check that the simulation would find such defects in the
//! agents.

use crate::layout as newer;
use async_trait::async_trait;
use drover_agent::GoingDown;
use drover_drivers::{
    host_network::{HostNetwork, HostNetworkError, Link},
    hypervisor::{
        self, Allowed, Connection, Domain, Event, Host, Hypervisor, HypervisorError, Listing, Sending,
        fake::FakeHypervisor,
    },
    watchdog::fake::Make,
};
use drover_model::{
    Claim, ClusterConfig, Departed, Fence, FencePhase, FloatingAddress, NodeName, NodeSession, Obs, OffReason,
    Progress, Promise, RecordKind, RecordPath, RunState, WallTime,
    domain::{Candidate, Mark},
    layout,
};
use drover_store::{CreateMode, Op, Record, Session, Store, StoreError, Version, Watch};
use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
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
    /// Reads do not wait for what others have written before.
    UnsyncedReads,
    /// Writes are unconditional, as if nobody compared versions.
    BlindWrites,
    /// A domain whose state is unknown counts as absent.
    UnknownIsAbsent,
    /// A domain left over from a failed guest counts as running.
    FailedIsRunning,
    /// A guest that the host ended counts as one that powered itself off.
    EndedIsShutdown,
    /// A machine that goes down does not say so.
    UnseenShutdown,
    /// Undefining a domain also deletes the guest's persistent state.
    KeepsNothing,
    /// Calls on a domain are serialized, and block queries of the domain.
    NothingOvertakes,
    /// A guest that is sent executes at the target as soon as it is there, not under the claim.
    RunsOnArrival,
    /// What is left of a guest that has gone on elsewhere by post-copy looks like any paused domain.
    UnseenPostCopy,
    /// A start without an answer counts as done.
    UnansweredIsStarted,
    /// The claim does not record that a guest is being sent.
    UnwrittenSends,
    /// A send that was called back gives its epoch to the next grant.
    SameEpochAgain,
    /// The kernel keeps an address until it is released, without a lifetime.
    EndlessAddresses,
    /// A lease without an answer counts as renewed.
    UnansweredBeats,
    /// A record is rewritten without its unknown members.
    DroppedFields,
    /// A claim that cannot be read counts as that of a VM that was never run.
    UnreadableIsFree,
    /// A configuration that cannot be read counts as the default one.
    UsualConfig,
    /// What can be salvaged of an unreadable record counts as the whole record.
    SalvageIsAll,
    /// Records of unknown kinds are hidden.
    UnseenChildren,
    /// An administrator confirms that a machine is off whose daemon only does not run.
    BlindConfirmation,
    /// Proof that a machine was off is not over when it is back, and all its boots look the same.
    OldProof,
    /// The daemon of a cloned machine acts before the session of its node's name is its own.
    UnownedSession,
    /// A BMC that has accepted an order to cut the power counts as one that reads off.
    AcceptedIsOff,
    /// BMCs read off, whatever their machines do.
    SaysOff,
    /// The fence does not record that the power is to be cut.
    UnwrittenCuts,
    /// A node that comes back does not see that its power may be cut.
    Undaunted,
    /// One machine is not heard, although it answers on the network.
    Deaf,
    /// A paused domain counts as one that executes.
    PausedIsRunning,
    /// A guest's disks count as those that it was started with.
    UnseenDisks,
    /// A store that begins anew begins with the first epoch.
    FirstEpochAgain,
    /// The clock of a machine counts a fifth of the time, so that a node which is cut off pets its watchdog too long.
    SlowClock,
    /// A watchdog never resets its machine.
    ToothlessWatchdog,
    /// A watchdog stops when its process ends.
    ClosingStops,
    /// Others wait only as long as the watchdog's timeout after the last renewal.
    HastyProof,
    /// The end of a promise is not written before the watchdog is stopped.
    UnwrittenDisarms,
}

impl Lie {
    /// The id of a machine's boot.
    pub(crate) fn boot(self, boots: u32) -> String {
        if self == Lie::OldProof { "1".to_owned() } else { boots.to_string() }
    }

    /// The watchdogs of the machines. They are short, so that much happens in a run.
    pub(crate) fn watchdog(self) -> Make {
        Make {
            timeout: Duration::from_secs(5),
            clock_per_mille: if self == Lie::SlowClock { -800 } else { 0 },
            stops_when_closed: self == Lie::ClosingStops,
            never_resets: self == Lie::ToothlessWatchdog,
            ..Make::default()
        }
    }

    /// The store as a daemon of `node` sees it. `is_clone`: on a clone of that node's machine.
    pub(crate) fn store(self, truth: Arc<dyn Store>, node: &NodeName, is_clone: bool) -> Arc<dyn Store> {
        match self {
            Lie::UnownedSession if !is_clone => truth,
            Lie::None
            | Lie::BlindConfirmation
            | Lie::AcceptedIsOff
            | Lie::SaysOff
            | Lie::Deaf
            | Lie::UnknownIsAbsent
            | Lie::FailedIsRunning
            | Lie::EndedIsShutdown
            | Lie::UnseenShutdown
            | Lie::KeepsNothing
            | Lie::NothingOvertakes
            | Lie::RunsOnArrival
            | Lie::UnseenPostCopy
            | Lie::UnansweredIsStarted
            | Lie::PausedIsRunning
            | Lie::UnseenDisks
            | Lie::ToothlessWatchdog
            | Lie::SlowClock
            | Lie::ClosingStops
            | Lie::EndlessAddresses => truth,
            _ => Arc::new(LyingStore { truth, lie: self, session: NodeSession::path(node), entered: Mutex::default() }),
        }
    }

    pub(crate) fn connection(self, truth: FakeHypervisor) -> FakeHypervisor {
        match self {
            Lie::NothingOvertakes => truth.without_overtaking(),
            Lie::RunsOnArrival => truth.without_pausing(),
            _ => truth,
        }
    }

    pub(crate) fn going_down(self, truth: Arc<AtomicBool>) -> GoingDown {
        Arc::new(move || {
            let is = self != Lie::UnseenShutdown && truth.load(Ordering::Relaxed);
            Box::pin(std::future::ready(is))
        })
    }

    pub(crate) fn network(self, truth: Arc<dyn HostNetwork>) -> Arc<dyn HostNetwork> {
        match self {
            Lie::EndlessAddresses => Arc::new(LyingNetwork { truth }),
            _ => truth,
        }
    }

    pub(crate) fn hypervisor(self, truth: Arc<dyn Hypervisor>) -> Arc<dyn Hypervisor> {
        match self {
            Lie::UnknownIsAbsent
            | Lie::FailedIsRunning
            | Lie::EndedIsShutdown
            | Lie::KeepsNothing
            | Lie::UnseenPostCopy
            | Lie::PausedIsRunning
            | Lie::UnseenDisks
            | Lie::UnansweredIsStarted => Arc::new(LyingHypervisor { truth, lie: self }),
            _ => truth,
        }
    }
}

/// Whether this is a fence whose proof is over.
fn is_over(path: &RecordPath, data: &[u8]) -> bool {
    let over = || serde_json::from_slice::<Fence>(data).is_ok_and(|fence| fence.phase == FencePhase::Over);
    Fence::key(path).is_some() && over()
}

struct LyingStore {
    truth: Arc<dyn Store>,
    lie: Lie,
    /// The path of the session of the daemon's node.
    session: RecordPath,
    /// The session that it takes for its own, with [`Lie::UnownedSession`].
    entered: Mutex<Option<Vec<u8>>>,
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

    /// The false data for a record, usually one that this version cannot read, if this defect has any.
    fn falsified(&self, path: &RecordPath, data: &[u8]) -> Option<Vec<u8>> {
        if self.lie == Lie::Undaunted && Fence::key(path).is_some() {
            let said: Fence = serde_json::from_slice(data).ok().filter(|fence: &Fence| fence.off_ordered)?;
            return serde_json::to_vec(&Fence { phase: FencePhase::Over, ..said }).ok();
        }
        if self.lie == Lie::HastyProof && Promise::key(path).is_some() {
            let said: Promise = serde_json::from_slice(data).ok()?;
            let hasty = Promise { gone_after_ms: said.gone_after_ms.and(Some(said.timeout_ms)), ..said };
            return serde_json::to_vec(&hasty).ok();
        }
        let kind = newer::kind_of(path).filter(|kind| !kind.reads(data))?;
        match self.lie {
            Lie::UnreadableIsFree if kind.at == Claim::AT => {
                serde_json::to_vec(&Claim::new(drover_model::Epoch(0))).ok()
            }
            Lie::UsualConfig if kind.at == ClusterConfig::AT => serde_json::to_vec(&ClusterConfig::default()).ok(),
            Lie::SalvageIsAll => kind.salvaged(path, data),
            _ => None,
        }
    }

    /// A claim whose send has ended, as if that had been no grant.
    async fn called_back(&self, path: &RecordPath, data: Vec<u8>) -> Vec<u8> {
        if self.lie != Lie::SameEpochAgain || Claim::key(path).is_none() {
            return data;
        }
        let claim = |data: &[u8]| serde_json::from_slice::<Claim>(data).ok();
        let before = self.truth.get(path).await.ok().flatten().and_then(|record| claim(&record.data));
        let ended = |before: &Claim, after: &Claim| before.to.is_some() && before.node == after.node;
        match before.zip(claim(&data)).filter(|(before, after)| ended(before, after)) {
            Some((before, _)) => serde_json::to_vec(&Claim { to: None, ..before }).unwrap_or(data),
            None => data,
        }
    }

    /// The data that is written instead.
    fn written(&self, path: &RecordPath, data: Vec<u8>) -> Vec<u8> {
        let rewritten = || newer::kind_of(path).filter(|_| self.lie == Lie::DroppedFields)?.rewritten(&data);
        rewritten().unwrap_or(data)
    }
}

#[async_trait]
impl Store for LyingStore {
    async fn get(&self, path: &RecordPath) -> drover_store::Result<Option<Record>> {
        if self.lie == Lie::UnownedSession && *path == self.session {
            let found = self.truth.get(path).await?;
            let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Ok(found.zip(entered).map(|(record, data)| Record { data, ..record }));
        }
        let falsified = |record: Record| match self.falsified(path, &record.data) {
            Some(data) => Record { data, ..record },
            None => record,
        };
        Ok(self.truth.get(path).await?.map(falsified))
    }
    async fn children(&self, path: &RecordPath) -> drover_store::Result<Vec<String>> {
        let mut names = self.truth.children(path).await?;
        names.retain(|name| self.lie != Lie::UnseenChildren || name != newer::CHILD);
        Ok(names)
    }
    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> drover_store::Result<RecordPath> {
        let first = || serde_json::to_vec(&Departed::new(WallTime(0))).ok();
        let again = self.lie == Lie::FirstEpochAgain && Departed::key(path).is_some();
        let data = if again { first().unwrap_or(data) } else { data };
        let unowned = self.lie == Lie::UnownedSession && *path == self.session;
        if unowned {
            *self.entered.lock().unwrap_or_else(PoisonError::into_inner) = Some(data.clone());
        }
        match self.truth.create(path, data, mode).await {
            Err(StoreError::Exists(_)) if unowned => Ok(path.clone()),
            answer => answer,
        }
    }
    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> drover_store::Result<Version> {
        let withdrawn = || serde_json::from_slice::<Promise>(&data).is_ok_and(|said| said.gone_after_ms.is_none());
        if self.lie == Lie::UnwrittenDisarms && Promise::key(path).is_some() && withdrawn() {
            return Ok(expected);
        }
        let expected = self.blind(path, expected).await;
        let data = self.called_back(path, self.written(path, data)).await;
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
        let mut changed = Vec::new();
        for op in ops {
            match op {
                Op::Set(path, data, _) if self.lie == Lie::OldProof && is_over(&path, &data) => {}
                Op::Set(path, data, expected) if self.lie == Lie::UnwrittenCuts && Fence::key(&path).is_some() => {
                    let said: Option<Fence> = serde_json::from_slice(&data).ok();
                    let unsaid = said.map(|fence| Fence { off_ordered: false, ..fence });
                    let data = unsaid.and_then(|fence| serde_json::to_vec(&fence).ok()).unwrap_or(data);
                    changed.push(Op::Set(path, data, expected));
                }
                Op::Set(path, data, expected) if self.lie == Lie::UnwrittenSends && path.name() == "claim" => {
                    let said: Option<Claim> = serde_json::from_slice(&data).ok();
                    let data =
                        said.and_then(|claim| serde_json::to_vec(&Claim { to: None, ..claim }).ok()).unwrap_or(data);
                    changed.push(Op::Set(path, data, expected));
                }
                Op::Check(path, expected) => {
                    let expected = self.blind(&path, expected).await;
                    changed.push(Op::Check(path, expected));
                }
                Op::Set(path, data, expected) => {
                    let expected = self.blind(&path, expected).await;
                    let data = self.written(&path, data);
                    changed.push(Op::Set(path, data, expected));
                }
                op => changed.push(op),
            }
        }
        if changed.is_empty() { Ok(()) } else { self.truth.multi(changed).await }
    }
    async fn sync(&self) -> drover_store::Result<()> {
        if self.lie == Lie::UnsyncedReads {
            return Ok(());
        }
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
    truth: Arc<dyn HostNetwork>,
}

type NetworkResult<T> = Result<T, HostNetworkError>;

#[async_trait]
impl HostNetwork for LyingNetwork {
    async fn hold(&self, address: &FloatingAddress, _until: Option<Instant>) -> NetworkResult<()> {
        self.truth.hold(address, None).await
    }
    async fn release(&self, address: &FloatingAddress) -> NetworkResult<()> {
        self.truth.release(address).await
    }
    async fn holds(&self, address: &FloatingAddress) -> NetworkResult<bool> {
        self.truth.holds(address).await
    }
    async fn announce(&self, address: &FloatingAddress) -> NetworkResult<()> {
        self.truth.announce(address).await
    }
    async fn probe(&self, address: &FloatingAddress, timeout: Duration) -> NetworkResult<Option<String>> {
        self.truth.probe(address, timeout).await
    }
    async fn reaches(&self, interface: &str, neighbour: IpAddr, timeout: Duration) -> NetworkResult<bool> {
        self.truth.reaches(interface, neighbour, timeout).await
    }
    async fn link(&self, interface: &str) -> NetworkResult<Option<Link>> {
        self.truth.link(interface).await
    }
    fn changes(&self) -> watch::Receiver<()> {
        self.truth.changes()
    }
}

struct LyingHypervisor {
    truth: Arc<dyn Hypervisor>,
    lie: Lie,
}

#[async_trait]
impl Hypervisor for LyingHypervisor {
    async fn domains(&self) -> hypervisor::Result<Listing> {
        self.truth.domains().await
    }
    async fn inspect(&self, which: String) -> hypervisor::Result<Option<Candidate>> {
        self.truth.inspect(which).await
    }
    async fn import(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.import(uuid).await
    }
    async fn mark(&self, uuid: Uuid, from: Mark, to: Mark) -> hypervisor::Result<()> {
        self.truth.mark(uuid, from, to).await
    }
    async fn domain(&self, uuid: Uuid) -> Obs<Domain> {
        match self.truth.domain(uuid).await {
            Obs::Unknown(_) if self.lie == Lie::UnknownIsAbsent => Obs::Absent,
            Obs::Known(seen) if self.lie == Lie::FailedIsRunning && seen.off == Some(OffReason::Failed) => {
                Obs::Known(Domain { run: RunState::Running, off: None, ..seen })
            }
            Obs::Known(seen) if self.lie == Lie::EndedIsShutdown && seen.off == Some(OffReason::Ended) => {
                Obs::Known(Domain { off: Some(OffReason::Shutdown), ..seen })
            }
            Obs::Known(seen) if self.lie == Lie::PausedIsRunning && seen.run == RunState::Paused => {
                Obs::Known(Domain { run: RunState::Running, paused: None, ..seen })
            }
            Obs::Known(seen) if self.lie == Lie::UnseenDisks => {
                Obs::Known(Domain { disks: seen.started_with.clone(), ..seen })
            }
            Obs::Known(seen) if self.lie == Lie::UnseenPostCopy => Obs::Known(Domain { transit: None, ..seen }),
            truth => truth,
        }
    }
    async fn check(&self, xml: String) -> hypervisor::Result<()> {
        self.truth.check(xml).await
    }
    async fn create(&self, uuid: Uuid, xml: String, allowed: Allowed) -> hypervisor::Result<()> {
        match self.truth.create(uuid, xml, allowed).await {
            Err(HypervisorError::Unknown { .. }) if self.lie == Lie::UnansweredIsStarted => Ok(()),
            answer => answer,
        }
    }
    async fn pause(&self, uuid: Uuid, mark: Mark) -> hypervisor::Result<()> {
        self.truth.pause(uuid, mark).await
    }

    async fn wake(&self, uuid: Uuid, mark: Mark) -> hypervisor::Result<()> {
        self.truth.wake(uuid, mark).await
    }

    async fn shutdown(&self, uuid: Uuid) -> hypervisor::Result<()> {
        self.truth.shutdown(uuid).await
    }
    async fn destroy(&self, uuid: Uuid, mark: Mark) -> hypervisor::Result<()> {
        self.truth.destroy(uuid, mark).await
    }
    async fn undefine(&self, uuid: Uuid, mark: Mark) -> hypervisor::Result<()> {
        if self.lie == Lie::KeepsNothing {
            return self.truth.erase(uuid, String::new(), true).await;
        }
        self.truth.undefine(uuid, mark).await
    }
    async fn erase(&self, uuid: Uuid, xml: String, nvram: bool) -> hypervisor::Result<()> {
        self.truth.erase(uuid, xml, nvram).await
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
    async fn resume(&self, uuid: Uuid, mark: Mark) -> hypervisor::Result<()> {
        self.truth.resume(uuid, mark).await
    }
    async fn host(&self) -> hypervisor::Result<Host> {
        self.truth.host().await
    }
    fn given_up(&self, uuid: Uuid) -> Option<String> {
        self.truth.given_up(uuid)
    }
    fn events(&self) -> broadcast::Receiver<Event> {
        self.truth.events()
    }
    fn connection(&self) -> watch::Receiver<Connection> {
        self.truth.connection()
    }
}
