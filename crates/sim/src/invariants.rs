//! What must be true at every moment, and what must be true in the end.

use crate::{Shape, Tally, world::MEMORY};
use drover_model::{
    Bytes, Claim, DomainState, NodeName, NodeRecord, NodeStatus, Only, Phase, Primary, RecordKind, RecordPath,
    VmRecord, VmState,
    domain::{self, Mark},
};
use drover_plan::capacity::{HOST_RESERVE, OVERHEAD};
use drover_store::memory::MemoryCluster;
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

/// Something that must never be, and was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When, in virtual time since the start of the run.
    pub at: Duration,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:.3} s: {}", self.at.as_secs_f64(), self.what)
    }
}

/// Watches every domain of every machine.
#[derive(Clone)]
pub(crate) struct Judge {
    state: Arc<Mutex<State>>,
    cluster: MemoryCluster,
    shape: Shape,
    start: Instant,
}

#[derive(Default)]
struct State {
    running: BTreeMap<Uuid, BTreeMap<NodeName, Mark>>,
    /// Who has the floating address.
    owners: BTreeSet<NodeName>,
    verdict: Option<Violation>,
    tally: Tally,
}

impl Judge {
    pub(crate) fn new(cluster: MemoryCluster, shape: Shape) -> Judge {
        Judge { state: Arc::default(), cluster, shape, start: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something, and takes it into the trace.
    pub(crate) fn note(&self, what: &str, count: impl FnOnce(&mut Tally)) {
        let at = self.start.elapsed();
        tracing::info!("{what}");
        let mut state = self.lock();
        count(&mut state.tally);
        // FNV-1a over the time and the text.
        for byte in at.as_millis().to_le_bytes().iter().chain(what.as_bytes()) {
            state.tally.trace = (state.tally.trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn violated(&self, what: String) {
        tracing::error!("{what}");
        let at = self.start.elapsed();
        self.lock().verdict.get_or_insert(Violation { at, what });
    }

    fn read<T: DeserializeOwned>(&self, path: &RecordPath) -> Option<T> {
        from_slice(&self.cluster.peek(path)?).ok()
    }

    /// A domain came into memory, or went. Called by the machines at that very moment.
    pub(crate) fn domain(&self, node: &NodeName, uuid: Uuid, mark: Mark, started: bool) {
        let verb = if started { "starts" } else { "ends" };
        self.note(&format!("{node}: {uuid} {verb} under grant {}", mark.epoch), |t| t.starts += u64::from(started));
        let nodes = {
            let mut state = self.lock();
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

    /// What runs on a node fits into it. Only where nobody starts a VM by hand, which may be one too many.
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

    /// What is not as it should be with the primary when nothing is wrong any more.
    pub(crate) fn unfinished_handoff(&self) -> Vec<String> {
        if self.shape != Shape::Handoffs {
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

    /// Whatever runs, runs on the node that has the claim.
    pub(crate) fn claims_hold(&self) {
        let running = self.lock().running.clone();
        for (uuid, nodes) in running {
            for (node, mark) in &nodes {
                let claim: Option<Claim> = self.read(&Claim::path(&uuid));
                // A guest that has just come has its next grant; its sender's claim says where it was sent.
                let arrived = |c: &Claim| c.to.as_ref() == Some(node) && c.epoch.next() == mark.epoch;
                if !claim.as_ref().is_some_and(|c| c.is_held_by(node) || arrived(c)) {
                    let holder = claim.and_then(|c| c.node).map_or("nobody".to_owned(), |n| n.to_string());
                    self.violated(format!("VM {uuid} runs on {node}, but the claim is {holder}'s"));
                }
            }
        }
    }

    /// What keeps the cluster from being as it should be when nothing is wrong any more; empty: nothing.
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
                state => out.push(format!(
                    "VM {uuid} is to be {state} on {:?}, runs on {nodes:?}, and is claimed by {:?}",
                    record.node, claim.node
                )),
            }
        }
        out
    }

    /// Nodes that are neither done with being emptied or filled, nor say what keeps them from it.
    pub(crate) fn unfinished_nodes<'a>(&self, nodes: impl Iterator<Item = &'a NodeName>) -> Vec<String> {
        let mut out = Vec::new();
        for name in nodes {
            let record: Option<NodeRecord> = self.read(&NodeRecord::path(name));
            let status: Option<NodeStatus> = self.read(&NodeStatus::path(name));
            let state = record.map(|r| r.domain_state);
            let drain = status.and_then(|s| s.drain);
            let blocked = drain.as_ref().is_some_and(|d| d.left == 0 && !d.blocked.is_empty());
            if matches!(state, Some(DomainState::Flush | DomainState::Unflush)) && !blocked {
                out.push(format!("node {name} is in state {state:?}, with {drain:?}"));
            }
        }
        out
    }

    /// The first violation, if there was one.
    pub(crate) fn verdict(&self) -> Result<(), Violation> {
        self.lock().verdict.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn never_calm(&self, why: &[String]) -> Violation {
        Violation { at: self.start.elapsed(), what: format!("never comes to rest: {}", why.join("; ")) }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }
}
