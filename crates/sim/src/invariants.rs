//! Invariants that hold at every moment, and conditions that hold at the end.

use crate::{Shape, Tally, clone, layout::understood, strangers::Strangers, weather::ORDER_TIMEOUT, world::MEMORY};
use drover_model::{
    Bytes, Claim, ClusterConfig, ClusterView, DrainReport, EvidenceKind, Fence, FencePhase, NodeName, NodeRecord,
    NodeState, NodeStatus, Only, Phase, Primary, RecordKind, RecordPath, Version, VmRecord, VmState, VmStatus,
    domain::{self, Mark},
    vm::Epoch,
};
use drover_plan::capacity::{HOST_RESERVE, OVERHEAD};
use drover_store::{Record, memory::MemoryCluster};
use serde::de::DeserializeOwned;
use serde_json::from_slice;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use uuid::Uuid;

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in virtual time since the start of the run.
    pub at: Duration,
    /// Which invariant, and how.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:.3} s: {}", self.at.as_secs_f64(), self.what)
    }
}

/// Observes all domains of all machines, and all records.
#[derive(Clone)]
pub(crate) struct Judge {
    book: Book,
    cluster: MemoryCluster,
    shape: Shape,
}

/// Observations so far. Clones share their state.
#[derive(Clone)]
struct Book {
    state: Arc<Mutex<State>>,
    start: Instant,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) running: BTreeMap<Uuid, BTreeMap<NodeName, Mark>>,
    /// The nodes that have the floating address.
    pub(crate) owners: BTreeSet<NodeName>,
    /// VMs that an order may have deleted.
    condemned: BTreeSet<Uuid>,
    /// Guests that the host ended while the node's daemon listened, which have not run since, and where.
    ended: BTreeMap<Uuid, NodeName>,
    /// Each VM's claim.
    claims: BTreeMap<Uuid, Claim>,
    /// The highest epoch with which each VM's guest was sent.
    sent: BTreeMap<Uuid, Epoch>,
    /// What is wanted of each VM.
    wanted: BTreeMap<Uuid, VmState>,
    /// When each VM was last ordered to be off.
    ordered_off: BTreeMap<Uuid, Instant>,
    /// Versions of the configuration with maintenance off, in a form that every daemon can read.
    off: BTreeSet<Version>,
    /// Whether each daemon was last seen in maintenance, and by which version of the configuration.
    maintenance: BTreeMap<(NodeName, Uuid), (Version, bool)>,
    /// When the fence of a node last said that its power is to be cut.
    announced: BTreeMap<NodeName, Instant>,
    /// The nodes whose power may be cut at any moment, by their fences.
    doomed: BTreeSet<NodeName>,
    /// What people have done behind Drover's back.
    pub(crate) strangers: Strangers,
    /// The boot of each machine that is on.
    boots: BTreeMap<NodeName, String>,
    /// Since when each machine answers on the network; not in it if it does not.
    answers: BTreeMap<NodeName, Instant>,
    verdict: Option<Violation>,
    tally: Tally,
    /// Each VM's epoch at the start of the current period, and when that was.
    pace: BTreeMap<Uuid, (Instant, Epoch)>,
}

/// Rate limit: the period, and the maximum number of grants of one VM in it, whatever faults and orders there are.
const PACE: (Duration, u64) = (Duration::from_secs(30), 30);

impl Book {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn violated(&self, what: String) {
        tracing::error!("{what}");
        let at = self.start.elapsed();
        self.lock().verdict.get_or_insert(Violation { at, what });
    }

    /// Observes a change of a record. Called by the store while it applies the change, so the store must not be
    /// accessed.
    fn record(&self, path: &RecordPath, record: Option<&Record>) {
        match record {
            None => {
                Fence::key(path).inspect(|node| _ = self.lock().doomed.remove(node));
                VmRecord::key(path).inspect(|uuid| self.lock().strangers.deleted(uuid));
                let lost = VmRecord::key(path).filter(|uuid| !self.lock().condemned.contains(uuid));
                lost.inspect(|uuid| self.violated(format!("VM {uuid} is gone, and nobody wanted it deleted")));
            }
            Some(record) if Fence::key(path).is_some() => {
                let fence: Option<Fence> = from_slice(&record.data).ok();
                Fence::key(path).zip(fence).inspect(|(node, fence)| self.fenced(node, fence));
            }
            Some(record) if Claim::key(path).is_some() => {
                let claim: Option<Claim> = from_slice(&understood(path, &record.data)).ok();
                Claim::key(path).zip(claim).inspect(|(uuid, claim)| self.granted(*uuid, claim));
            }
            Some(record) if VmRecord::key(path).is_some() => {
                VmRecord::key(path).inspect(|uuid| self.wanted(*uuid, path, record));
            }
            Some(record) if ClusterConfig::key(path).is_some() => {
                let document: serde_json::Value = from_slice(&record.data).unwrap_or_default();
                if document.get("maintenance") == Some(&false.into()) {
                    self.lock().off.insert(record.version);
                }
            }
            Some(_) => {}
        }
    }
}

impl Book {
    fn fenced(&self, node: &NodeName, fence: &Fence) {
        let ran_out = fence.phase == FencePhase::Proved
            && fence.evidence.iter().any(|evidence| evidence.kind == EvidenceKind::Watchdog);
        if ran_out && self.lock().boots.get(node) == Some(&fence.boot) {
            self.violated(format!("it is proved that boot {} of {node} was reset, and it goes on", fence.boot));
        }
        let state = &mut *self.lock();
        state.tally.ran_out += u64::from(ran_out);
        let by_power = fence.evidence.iter().any(|evidence| evidence.kind == EvidenceKind::Power);
        state.tally.proved += u64::from(fence.phase == FencePhase::Proved && by_power);
        state.tally.recovered += u64::from(fence.phase == FencePhase::Recovered);
        let open = !fence.phase.is_proved() && fence.phase != FencePhase::Over;
        if fence.off_ordered && open {
            state.doomed.insert(node.clone());
        } else {
            state.doomed.remove(node);
        }
        if fence.off_ordered && fence.phase == FencePhase::Proving {
            state.announced.insert(node.clone(), Instant::now());
        }
    }

    /// A send of a guest uses up an epoch. No later send and no grant has it, but for that to the node that it was sent
    /// to. And a node whose power may be cut at any moment takes no VM. (One that was on its way there is given to it.)
    fn granted(&self, uuid: Uuid, now: &Claim) {
        let (again, doomed) = {
            let book = &mut *self.lock();
            let before = book.claims.insert(uuid, now.clone());
            let known = before.iter().flat_map(|before| [&before.node, &before.to]).any(|node| *node == now.node);
            let doomed = now.node.as_ref().is_some_and(|node| !known && book.doomed.contains(node));
            let highest = book.sent.entry(uuid).or_default();
            let again = before.is_some_and(|before| {
                let sends = now.to.is_some() && (before.to.is_none() || before.epoch != now.epoch);
                let arrives = before.to.is_some() && now.node == before.to && now.epoch == before.sent();
                let again = now.epoch < before.epoch
                    || sends && now.sent() <= *highest
                    || now.epoch != before.epoch && now.epoch <= *highest && !arrives;
                if sends {
                    *highest = now.sent();
                }
                again
            });
            (again, doomed)
        };
        if again {
            self.violated(format!("VM {uuid} is granted or sent with an epoch that it had before: {now:?}"));
        }
        if doomed {
            self.violated(format!("{:?} takes VM {uuid}, and its power may be cut at any moment", now.node));
        }
    }

    /// A VM whose guest was ended by the host is still to run, unless somebody ordered something else.
    fn wanted(&self, uuid: Uuid, path: &RecordPath, record: &Record) {
        let Ok(VmRecord { state, .. }) = from_slice(&understood(path, &record.data)) else { return };
        let given_up = {
            let book = &mut *self.lock();
            let before = book.wanted.insert(uuid, state.clone());
            let ran = matches!(before, Some(VmState::Start | VmState::Migrate { .. }));
            let ordered = book.ordered_off.get(&uuid).is_some_and(|at| at.elapsed() < ORDER_IN_FORCE);
            ran && state == VmState::Stop && book.ended.contains_key(&uuid) && !ordered
        };
        if given_up {
            self.violated(format!("the host ended the guest of VM {uuid}, and the VM was given up"));
        }
    }
}

/// An order to cut the power follows its announcement within this time.
const ANNOUNCED: Duration = Duration::from_secs(10);
/// The power of a machine that has answered for this time is not cut: whoever asked it has had an answer.
const ANSWERED: Duration = Duration::from_secs(20);

/// An order may be carried out for this long after it was given.
const ORDER_IN_FORCE: Duration = ORDER_TIMEOUT.saturating_mul(2);

impl Judge {
    pub(crate) fn new(cluster: MemoryCluster, shape: Shape) -> Judge {
        let book = Book { state: Arc::default(), start: Instant::now() };
        let observer = book.clone();
        cluster.observe(Box::new(move |path, record| observer.record(path, record)));
        Judge { book, cluster, shape }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.book.lock()
    }

    /// Updates the tally, and adds the event to the trace.
    pub(crate) fn note(&self, what: &str, count: impl FnOnce(&mut Tally)) {
        let at = self.book.start.elapsed();
        tracing::info!("{what}");
        let mut state = self.lock();
        count(&mut state.tally);
        // FNV-1a over the time and the text.
        for byte in at.as_millis().to_le_bytes().iter().chain(what.as_bytes()) {
            state.tally.trace = (state.tally.trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(crate) fn violated(&self, what: String) {
        self.book.violated(what);
    }

    /// A record as it is in the store.
    pub(crate) fn peek(&self, path: &RecordPath) -> Option<Record> {
        self.cluster.peek(path)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, path: &RecordPath) -> Option<T> {
        from_slice(&understood(path, &self.cluster.peek(path)?.data)).ok()
    }

    /// From now on, the VM may be deleted.
    pub(crate) fn condemn(&self, uuid: Uuid) {
        self.lock().condemned.insert(uuid);
    }

    /// Whether the guest of a VM executes on a node. (Half of one that goes on elsewhere by post-copy does not.)
    pub(crate) fn executes_on(&self, node: &NodeName, uuid: Uuid) -> bool {
        self.lock().running.get(&uuid).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// The host has ended a guest, not the guest itself, and the node's daemon is told.
    pub(crate) fn host_ends(&self, node: &NodeName, uuid: Uuid) {
        self.note(&format!("{node}: the host ends {uuid}"), |_| ());
        // Without a record, nothing is wanted of it.
        if self.peek(&VmRecord::path(&uuid)).is_some() {
            self.lock().ended.insert(uuid, node.clone());
        }
    }

    /// Somebody orders a VM to be off.
    pub(crate) fn ordered_off(&self, uuid: Uuid) {
        self.lock().ordered_off.insert(uuid, Instant::now());
    }

    /// A machine answers on the network from now on, or does not.
    pub(crate) fn answers(&self, node: &NodeName, answers: bool) {
        let state = &mut *self.lock();
        if answers {
            state.answers.entry(node.clone()).or_insert_with(Instant::now);
        } else {
            state.answers.remove(node);
        }
    }

    /// Somebody orders to cut the power of a machine: its fence says so, and it is not one whose daemon alone is down.
    pub(crate) fn power_is_cut(&self, node: &NodeName) {
        self.note(&format!("{node}: its BMC is ordered to cut its power"), |t| t.cuts += 1);
        let (announced, answers) = {
            let state = self.lock();
            (state.announced.get(node).copied(), state.answers.get(node).copied())
        };
        if announced.is_none_or(|at| at.elapsed() > ANNOUNCED) {
            self.violated(format!("the power of {node} is cut, and its fence does not say so"));
        }
        if answers.is_some_and(|since| since.elapsed() > ANSWERED) {
            self.violated(format!("the power of {node} is cut, although its machine answers"));
        }
    }

    /// Fences that do not end although all nodes are back.
    pub(crate) fn unfinished_fences<'a>(&self, nodes: impl Iterator<Item = &'a NodeName>) -> Vec<String> {
        let fence = |name: &'a NodeName| Some((name, self.read::<Fence>(&Fence::path(name))?.phase));
        let open = nodes.filter_map(fence).filter(|(_, phase)| *phase != FencePhase::Over);
        open.map(|(name, phase)| format!("the fence of {name} is {phase}")).collect()
    }

    /// A machine is on from now on, in this boot.
    pub(crate) fn boot_begins(&self, node: &NodeName, boot: String) {
        self.lock().boots.insert(node.clone(), boot);
    }

    /// A machine has lost its power.
    pub(crate) fn boot_ends(&self, node: &NodeName) {
        self.lock().boots.remove(node);
    }

    /// Observes the end of a daemon: the next one does not know what this one was told.
    pub(crate) fn daemon_ends(&self, node: &NodeName) {
        self.lock().ended.retain(|_, at| at != node);
    }

    /// Observes the start of a daemon. It assumes maintenance until it has read a configuration without.
    pub(crate) fn daemon_starts(&self, node: &NodeName, instance: Uuid) {
        let config = self.cluster.peek(&ClusterConfig::path(&Only));
        let version = config.map_or(Version::NEW, |config| config.version);
        self.lock().maintenance.insert((node.clone(), instance), (version, true));
    }

    /// Maintenance ends for a daemon only if a configuration says so, never because the configuration cannot be read.
    pub(crate) fn maintenance_holds(&self, node: &NodeName, instance: Uuid, view: &ClusterView) {
        let shelf = view.shelf::<ClusterConfig>();
        let version = shelf.problem(&Only).map(|problem| problem.version).or(shelf.only().map(|config| config.version));
        let Some(version) = version else { return };
        let on = view.config.maintenance;
        let ended = {
            let state = &mut *self.lock();
            match state.maintenance.insert((node.clone(), instance), (version, on)) {
                Some((seen, true)) => !on && !state.off.iter().any(|said| (seen..=version).contains(said)),
                _ => false,
            }
        };
        if ended {
            self.violated(format!("for {node} maintenance is over, and the configuration does not say so"));
        }
    }

    /// Observes the start or end of a domain. Called by the machine at that moment.
    pub(crate) fn domain(&self, node: &NodeName, uuid: Uuid, mark: Mark, started: bool) {
        let verb = if started { "starts" } else { "ends" };
        self.note(&format!("{node}: {uuid} {verb} under grant {}", mark.epoch), |t| t.starts += u64::from(started));
        let nodes = {
            let mut state = self.lock();
            if started {
                state.ended.remove(&uuid);
                state.strangers.started(uuid, node, mark);
            } else {
                state.strangers.ended(uuid, node);
            }
            let nodes = state.running.entry(uuid).or_default();
            if started {
                nodes.insert(node.clone(), mark);
            } else {
                nodes.remove(node);
            }
            nodes.keys().cloned().collect::<Vec<_>>()
        };
        if nodes.len() > 1 {
            let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
            self.violated(format!("VM {uuid} runs on {} at once", names.join(" and ")));
        }
        if started {
            self.claims_hold();
            self.memory_holds(node);
        }
    }

    /// Whether a VM's claim is as it was created, and not that of a domain that was there before.
    fn never_ran(&self, uuid: &Uuid) -> bool {
        let path = Claim::path(uuid);
        let claim = self.read::<Claim>(&path);
        let version = self.cluster.peek(&path).map(|record| record.version);
        claim.is_some_and(|claim| version == Some(Version::NEW) && !claim.is_for_unmarked())
    }

    /// Observes that a domain's persistent state (NVRAM, TPM) was deleted, which only happens with its VM. One that was
    /// defined anew with its UUID, and has never been given to a node, has nothing of its own yet.
    pub(crate) fn erased(&self, node: &NodeName, uuid: Uuid) {
        self.note(&format!("{node}: nothing is kept of {uuid} any more"), |_| ());
        if let Some(VmRecord { state, .. }) = self.read(&VmRecord::path(&uuid))
            && !matches!(state, VmState::Delete { .. })
            && !self.never_ran(&uuid)
        {
            self.violated(format!("{node} has deleted what VM {uuid} keeps, which is to be {state}"));
        }
    }

    /// Observes that a node destroyed memory of a guest that executes elsewhere, under the next grant. Only an end of
    /// the guest there makes it useless.
    pub(crate) fn torn(&self, node: &NodeName, uuid: Uuid, mark: Mark) {
        let claim: Option<Claim> = self.read(&Claim::path(&uuid));
        let needed = |c: &Claim| c.epoch == mark.epoch.next() && c.node.is_some();
        if let Some(holder) = claim.filter(needed).and_then(|c| c.node) {
            self.violated(format!("{node} has destroyed memory of VM {uuid}, which runs on {holder}"));
        }
    }

    /// Observes that a copy of a guest executes which is older than the guest: that has gone on elsewhere, and has
    /// written to its disks since.
    pub(crate) fn stale(&self, node: &NodeName, uuid: Uuid, mark: Mark) {
        self.violated(format!("{node} lets an old copy of the guest of VM {uuid} execute, with mark {}", mark.epoch));
    }

    /// What is in memory on a node whose VM another node holds, or nobody: copies, which execute nowhere.
    pub(crate) fn left_behind(&self, node: &NodeName, domains: &[(Uuid, Mark)]) -> Vec<String> {
        let held = |uuid: &Uuid| self.read(&Claim::path(uuid)).is_none_or(|claim: Claim| claim.is_held_by(node));
        let left = domains.iter().filter(|(uuid, _)| !held(uuid));
        left.map(|(uuid, mark)| format!("{node} has a copy of VM {uuid} in memory, with mark {}", mark.epoch)).collect()
    }

    /// The VMs on a node fit into its memory. Not checked where administrators start VMs, which may overcommit a node.
    fn memory_holds(&self, node: &NodeName) {
        if self.shape != Shape::Drills {
            return;
        }
        let running = self.lock().running.clone();
        let here = running.iter().filter(|(_, nodes)| nodes.contains_key(node)).map(|(uuid, _)| uuid);
        let needs = here.filter_map(|uuid| self.read::<VmRecord>(&VmRecord::path(uuid)));
        let used: Bytes = needs.map(|vm| domain::demand(&vm.xml).memory.saturating_add(OVERHEAD)).sum();
        let has = MEMORY.saturating_sub(HOST_RESERVE);
        if used > has {
            self.violated(format!("{node} has {has} for VMs, and {used} are in use"));
        }
    }

    /// The floating address came up on a node, or went. Called by the kernels at that very moment.
    pub(crate) fn address(&self, node: &NodeName, came: bool) {
        let verb = if came { "has" } else { "lets go of" };
        self.note(&format!("{node} {verb} the address"), |t| t.takeovers += u64::from(came));
        {
            let owners = &mut self.lock().owners;
            if came {
                owners.insert(node.clone())
            } else {
                owners.remove(node)
            };
        }
        self.addresses_hold();
    }

    /// One node has the address, or two of whom one is handing it to the other; and whoever has it is among the
    /// record's suspects.
    pub(crate) fn addresses_hold(&self) {
        let owners = self.lock().owners.clone();
        if owners.is_empty() {
            return;
        }
        let record: Option<Primary> = self.read(&Primary::path(&Only));
        let Some(record) = record else {
            return self.violated(format!("{owners:?} have the address, and no record says so"));
        };
        if !owners.is_subset(&record.suspects) {
            self.violated(format!("{owners:?} have the address, and the record suspects {:?} only", record.suspects));
        }
        let in_common = matches!(record.phase(), Some(Phase::Take | Phase::Drop | Phase::Back));
        let sides: BTreeSet<&NodeName> = record.holder.iter().chain(record.candidate()).collect();
        if owners.len() > 1 && !(in_common && owners.iter().collect::<BTreeSet<_>>() == sides) {
            self.violated(format!("{owners:?} have the address at once, and the record says {record:?}"));
        }
    }

    /// What is still wrong with the primary role after all faults are repaired.
    pub(crate) fn unfinished_handoff(&self) -> Vec<String> {
        if !self.shape.has_primary() {
            return Vec::new();
        }
        let owners = self.lock().owners.clone();
        match self.read::<Primary>(&Primary::path(&Only)) {
            Some(record)
                if record.handoff.is_none() && owners.iter().eq(record.holder.iter()) && !owners.is_empty() =>
            {
                Vec::new()
            }
            record => vec![format!("{owners:?} have the address, and the record says {record:?}")],
        }
    }

    /// Every VM runs on the node that has its claim; and on a clone of that node's machine only if the claim was
    /// granted to the clone: while nobody else had the node's name, and the name had no VM.
    pub(crate) fn claims_hold(&self) {
        let running = self.lock().running.clone();
        for (uuid, machines) in running {
            for (machine, mark) in &machines {
                let claim: Option<Claim> = self.read(&Claim::path(&uuid));
                let (node, clone) = clone::node_of(machine);
                let granted = |c: &Claim| c.is_held_by(&node) && (!clone || clone::is_boot(&c.boot));
                // A guest that has just arrived has the next epoch; the source's claim says where it was sent.
                let arrived = |c: &Claim| c.to.as_ref() == Some(&node) && c.sent() == mark.epoch;
                let known = || self.lock().strangers.knows(uuid, machine, *mark);
                if !claim.as_ref().is_some_and(|c| granted(c) || arrived(c)) && !known() {
                    let holder = claim.and_then(|c| c.node).map_or("nobody".to_owned(), |n| n.to_string());
                    self.violated(format!("VM {uuid} runs on {machine}, but the claim is {holder}'s"));
                }
            }
        }
    }

    /// No VM is restarted in a tight loop.
    pub(crate) fn pace_holds(&self, uuids: &BTreeSet<Uuid>) {
        let now = Instant::now();
        for uuid in uuids {
            let Some(claim) = self.read::<Claim>(&Claim::path(uuid)) else { continue };
            let epoch = claim.epoch;
            let (since, first) = *self.lock().pace.entry(*uuid).or_insert((now, epoch));
            // A VM that was deleted and defined again begins above all epochs that it had.
            let first = first.max(claim.born);
            let often = epoch.0.saturating_sub(first.0);
            if often > PACE.1 {
                self.violated(format!("VM {uuid} was granted {often} times in {:?}", now - since));
            }
            if now - since > PACE.0 || epoch < first {
                self.lock().pace.insert(*uuid, (now, epoch));
            }
        }
    }

    /// What is still wrong with VMs after all faults are repaired; empty if nothing.
    pub(crate) fn unfinished(&self, uuids: &BTreeSet<Uuid>) -> Vec<String> {
        let running = self.lock().running.clone();
        let mut out = Vec::new();
        for uuid in uuids {
            let nodes: Vec<&NodeName> = running.get(uuid).map(|n| n.keys().collect()).unwrap_or_default();
            let record: Option<VmRecord> = self.read(&VmRecord::path(uuid));
            let claim: Option<Claim> = self.read(&Claim::path(uuid));
            let (Some(record), Some(claim)) = (record, claim) else {
                if !nodes.is_empty() {
                    out.push(format!("VM {uuid} is deleted, and runs on {nodes:?}"));
                }
                continue;
            };
            match record.state {
                VmState::Start if nodes.len() == 1 && claim.node.as_ref() == nodes.first().copied() => {}
                VmState::Stop | VmState::Disable | VmState::Fail { .. } if nodes.is_empty() && claim.node.is_none() => {
                }
                state => {
                    let report: Option<VmStatus> = self.read(&VmStatus::path(uuid));
                    let doing = report.map(|report| report.doing).unwrap_or_default();
                    out.push(format!(
                        "VM {uuid} is to be {state} on {:?}, runs on {nodes:?}, and is claimed by {:?} ({doing:?})",
                        record.node, claim.node
                    ));
                }
            }
        }
        out
    }

    /// Nodes whose flush or return is neither finished nor reported as blocked.
    pub(crate) fn unfinished_nodes<'a>(&self, nodes: impl Iterator<Item = &'a NodeName>) -> Vec<String> {
        let mut out = Vec::new();
        for name in nodes {
            let record: Option<NodeRecord> = self.read(&NodeRecord::path(name));
            let status: Option<NodeStatus> = self.read(&NodeStatus::path(name));
            let state = record.map(|r| r.domain_state);
            let drain = status.and_then(|s| s.drain);
            // A guest whose VM's records were lost with the store is for an administrator to adopt or to end.
            let lost = |uuid: &Uuid| self.cluster.peek(&VmRecord::path(uuid)).is_none();
            let strays = |d: &DrainReport| !d.strays.is_empty() && d.strays.iter().all(lost);
            let blocked = drain.as_ref().is_some_and(|d| d.left == 0 && (!d.blocked.is_empty() || strays(d)));
            if matches!(state, Some(NodeState::Flush | NodeState::Unflush)) && !blocked {
                out.push(format!("node {name} is in state {state:?}, with {drain:?}"));
            }
        }
        out
    }

    /// The first violation, if any.
    pub(crate) fn verdict(&self) -> Result<(), Violation> {
        self.lock().verdict.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn never_calm(&self, why: &[String]) -> Violation {
        Violation { at: self.book.start.elapsed(), what: format!("never comes to rest: {}", why.join("; ")) }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    pub(crate) fn start(&self) -> Instant {
        self.book.start
    }
}
