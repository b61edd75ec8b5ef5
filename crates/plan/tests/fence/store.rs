//! The store of the model: the records that a fence depends on, with versions, and the transactions of the agent.

use crate::world::{Flaw, HOSTS, VMS, World};
use drover_model::{
    Claim, ClusterView, Epoch, Evidence, EvidenceKind, Fence, FencePhase, How, MoveKind, NodeName, NodeState, NodeView,
    Only, Primary, RecordKind, Version, VmRecord, VmState, VmView, WallTime, testing::*,
};
use std::sync::LazyLock;

/// The nodes with VMs, which may be lost. The coordinators beside them have none.
pub(crate) static NAMES: LazyLock<[NodeName; HOSTS]> = LazyLock::new(|| [name("x"), name("y")]);
const COORDINATORS: [&str; 3] = ["a", "b", "c"];
/// The machine's id of all nodes: what is proved is about a boot.
pub(crate) const MACHINE: &str = "m";

pub(crate) fn index(node: &NodeName) -> usize {
    NAMES.iter().position(|name| name == node).unwrap()
}

pub(crate) fn boot_id(boot: u8) -> String {
    format!("k{boot}")
}

fn boot_of(id: &str) -> u8 {
    id.strip_prefix('k').map_or(0, |n| n.parse().unwrap())
}

/// A record and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Of<T> {
    pub(crate) v: u8,
    pub(crate) is: T,
}

impl<T> Of<T> {
    pub(crate) fn set(&mut self, is: T) {
        *self = Of { v: self.v + 1, is };
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeRec {
    pub(crate) boot: u8,
    pub(crate) flushed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Session {
    pub(crate) boot: u8,
    /// It is that of the daemon that runs now.
    pub(crate) own: bool,
    /// That daemon acts under the node's name. Nobody reads it; it is there for what must hold.
    pub(crate) member: bool,
}

/// A fence, without what decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FenceRec {
    pub(crate) boot: u8,
    pub(crate) phase: FencePhase,
    pub(crate) ordered: bool,
    pub(crate) by_power: bool,
    pub(crate) by_word: bool,
}

impl FenceRec {
    pub(crate) fn of(fence: &Fence) -> FenceRec {
        FenceRec {
            boot: boot_of(&fence.boot),
            phase: fence.phase,
            ordered: fence.off_ordered,
            by_power: fence.evidence.iter().any(|e| e.kind == EvidenceKind::Power),
            by_word: fence.is_confirmed(),
        }
    }

    pub(crate) fn full(self) -> Fence {
        let record = node("x", 8).booted(&boot_id(self.boot)).record.value.clone();
        let mut fence = Fence::suspicion(&record, &name("a"), Epoch(1), WallTime(0));
        let kinds = [(self.by_power, EvidenceKind::Power), (self.by_word, EvidenceKind::Administrator)];
        for (_, kind) in kinds.into_iter().filter(|(is, _)| *is) {
            fence = fence.proved(evidence(kind));
        }
        // What an unproved one says differs; here it always says the same.
        let problems = if self.phase == FencePhase::Unproved { vec!["?".to_owned()] } else { vec![] };
        Fence { phase: self.phase, off_ordered: self.ordered, problems, ..fence }
    }
}

pub(crate) fn evidence(kind: EvidenceKind) -> Evidence {
    Evidence { kind, at: WallTime(0), by: name("a"), what: String::new() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VmRec {
    pub(crate) node: u8,
    /// It is ordered to move there, off.
    pub(crate) to: Option<u8>,
}

impl VmRec {
    pub(crate) fn of(record: &VmRecord) -> VmRec {
        let number = |node: &NodeName| index(node) as u8;
        VmRec { node: number(record.node.as_ref().unwrap()), to: record.state.destination().map(number) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClaimRec {
    pub(crate) node: Option<u8>,
    pub(crate) epoch: u8,
    pub(crate) boot: u8,
}

impl ClaimRec {
    pub(crate) fn of(claim: &Claim) -> ClaimRec {
        assert!(claim.to.is_none() && claim.adopts.is_none() && !claim.resume, "{claim:?}");
        let epoch = u8::try_from(claim.epoch.0).unwrap();
        ClaimRec { node: claim.node.as_ref().map(|n| index(n) as u8), epoch, boot: boot_of(&claim.boot) }
    }

    pub(crate) fn full(self) -> Claim {
        let claim = Claim { epoch: Epoch(self.epoch.into()), ..Claim::new(Epoch(0)) };
        match self.node {
            None => claim,
            Some(n) => Claim { node: Some(NAMES[usize::from(n)].clone()), ..claim.on(MACHINE, &boot_id(self.boot)) },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeRecs {
    pub(crate) rec: Of<NodeRec>,
    pub(crate) session: Option<Session>,
    pub(crate) fence: Option<Of<FenceRec>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct VmRecs {
    pub(crate) rec: Of<VmRec>,
    pub(crate) claim: Of<ClaimRec>,
}

/// All records, now or as somebody read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Store {
    /// The version of the primary's record, and the epoch of the role: each change here is one of the holder.
    pub(crate) primary: u8,
    pub(crate) nodes: [NodeRecs; HOSTS],
    pub(crate) vms: [VmRecs; VMS],
}

impl Store {
    /// Two nodes with sessions; the first runs the VMs.
    pub(crate) fn steady() -> Store {
        let session = Some(Session { boot: 1, own: true, member: true });
        let node = NodeRecs { rec: Of { v: 0, is: NodeRec { boot: 1, flushed: false } }, session, fence: None };
        let claim = ClaimRec { node: Some(0), epoch: 1, boot: 1 };
        let vm = VmRecs { rec: Of { v: 0, is: VmRec { node: 0, to: None } }, claim: Of { v: 0, is: claim } };
        Store { primary: 1, nodes: [node; HOSTS], vms: [vm; VMS] }
    }

    /// What a coordinator's daemon makes of it.
    pub(crate) fn view(&self, world: &World) -> ClusterView {
        let mut nodes: Vec<NodeView> = COORDINATORS.iter().map(|n| node(n, 1).booted("k1")).collect();
        nodes.extend(self.nodes.iter().zip(NAMES.iter()).map(|(recs, name)| {
            let mut node = node(name.as_str(), 8).booted(&boot_id(recs.rec.is.boot));
            node.record.version = Version(recs.rec.v.into());
            node.record.value.domain_state = if recs.rec.is.flushed { NodeState::Flushed } else { NodeState::Ready };
            match recs.session {
                Some(session) => node.session.as_mut().unwrap().value.boot = boot_id(session.boot),
                None => node = node.dead(),
            }
            node
        }));
        let mut view = cluster(nodes, (0..world.vms).map(|v| self.vm(v)).collect());
        let mut put = |path, data: Vec<u8>, v: u8| view.apply(&path, Some((&data, Version(v.into()))));
        for (recs, name) in self.nodes.iter().zip(NAMES.iter()) {
            if let Some(fence) = recs.fence {
                let full = fence.is.full();
                put(Fence::path(name), serde_json::to_vec(&full).unwrap(), fence.v);
            }
        }
        let holder = Some(name(COORDINATORS[0]));
        let primary = Primary { holder, epoch: Epoch(self.primary.into()), ..Primary::vacant() };
        put(Primary::path(&Only), serde_json::to_vec(&primary).unwrap(), self.primary);
        view
    }

    /// The first VM may run on both nodes, the second on the first only.
    fn vm(&self, v: usize) -> VmView {
        let VmRecs { rec, claim } = self.vms[v];
        let on = NAMES[usize::from(rec.is.node)].as_str();
        let limit: &[&str] = if v == 0 { &["x", "y"] } else { &["x"] };
        let mut vm = waiting(v as u128 + 1, on, 64).limited(limit);
        if let Some(to) = rec.is.to {
            vm = vm.going_to(NAMES[usize::from(to)].as_str(), MoveKind::Migrate, How::Cold);
            // The target takes every VM that fits.
            let of = Version(rec.v.into());
            vm = vm.answered(NAMES[usize::from(to)].as_str(), of, None);
        }
        vm.record.version = Version(rec.v.into());
        let full = claim.is.full();
        vm.claim = Some(drover_model::Stored::new(full, Version(claim.v.into())).into());
        vm
    }

    pub(crate) fn record(&self, v: usize) -> VmRecord {
        let record = self.vm(v).record.value.clone();
        debug_assert!(matches!(record.state, VmState::Start | VmState::Migrate { .. }));
        record
    }
}

/// What a transaction says of the fence's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FenceIs {
    Any,
    Missing,
    At(u8),
}

/// A transaction about a node, under way to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Write {
    pub(crate) node: u8,
    /// It announces that the node's power is to be cut.
    pub(crate) announces: bool,
    // Its conditions.
    pub(crate) primary: Option<u8>,
    pub(crate) no_session: bool,
    pub(crate) rec: Option<u8>,
    pub(crate) fence: FenceIs,
    // What it writes.
    /// `Some(None)`: the fence is deleted.
    pub(crate) set_fence: Option<Option<FenceRec>>,
    pub(crate) flush: bool,
    pub(crate) order: Option<Order>,
}

/// A VM is given away: the versions of its record and its claim, and what they are then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Order {
    pub(crate) vm: u8,
    pub(crate) rec: Of<VmRec>,
    pub(crate) claim: u8,
    pub(crate) granted: Option<ClaimRec>,
}

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Wrongs {
    /// A claim was taken from a node whose boot was not proved to have ended.
    pub(crate) unproved_grant: bool,
    /// The power of a node was cut that acts under its name.
    pub(crate) member_cut: bool,
    /// A claim's epoch went back.
    pub(crate) epoch_back: bool,
}

impl Store {
    /// Whether all conditions hold.
    fn takes(&self, world: &World, write: &Write) -> bool {
        let node = &self.nodes[usize::from(write.node)];
        let fence = match write.fence {
            FenceIs::Any => true,
            FenceIs::Missing => node.fence.is_none(),
            FenceIs::At(v) => node.fence.is_some_and(|fence| fence.v == v),
        };
        write.primary.is_none_or(|v| v == self.primary)
            && !(write.no_session && node.session.is_some())
            && write.rec.is_none_or(|v| v == node.rec.v)
            && fence
            && write.order.is_none_or(|order| {
                let vm = &self.vms[usize::from(order.vm)];
                let same = order.rec.v == vm.rec.v && order.claim == vm.claim.v;
                same || world.flaw == Flaw::OrdersUnchecked
            })
    }

    /// A transaction arrives. Returns whether it was carried out.
    pub(crate) fn apply(&mut self, world: &World, write: &Write, wrongs: &mut Wrongs) -> bool {
        if !self.takes(world, write) {
            return false;
        }
        let node = &mut self.nodes[usize::from(write.node)];
        match (write.set_fence, &mut node.fence) {
            (None, _) => {}
            (Some(None), fence) => *fence = None,
            (Some(Some(new)), Some(fence)) => fence.set(new),
            (Some(Some(new)), fence @ None) => *fence = Some(Of { v: 0, is: new }),
        }
        if write.flush {
            node.rec.set(NodeRec { flushed: true, ..node.rec.is });
        }
        let fence = node.fence;
        if let Some(order) = write.order {
            let vm = &mut self.vms[usize::from(order.vm)];
            vm.rec.set(order.rec.is);
            if let Some(granted) = order.granted {
                let old = vm.claim.is;
                let proved = |boot| fence.is_some_and(|f| f.is.phase.is_proved() && f.is.boot >= boot);
                wrongs.unproved_grant |= old.node == Some(write.node) && !proved(old.boot);
                wrongs.epoch_back |= granted.epoch < old.epoch;
                vm.claim.set(granted);
            }
        }
        true
    }
}
