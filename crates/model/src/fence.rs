//! The fence of a node: what is known about the end of one boot of its machine, and how far the recovery of its VMs is.
//!
//! ```text
//!            the node is silent        no proof yet        proof            claims are released
//!   (none) ───────────────► suspect ──► proving ─┬──────► proved ──► recovering ──► recovered
//!     ▲                        │           ▲     ▼          ▲
//!     └── the node is back ────┴───────────┴─ unproved ─────┘
//! ```
//!
//! A record is about one *boot* of a machine, not about a name: proof that a boot has ended says nothing about the next
//! one. When the node joins again, its daemon withdraws a suspicion (and waits until its power cannot be cut any more,
//! if that was ordered), and ends a record with proof ([`FencePhase::Over`]), before it does anything else. Every step
//! of the recovery checks the record's version, so no step is made on proof about a node that is back.

use crate::{
    name::NodeName,
    node::NodeRecord,
    operation::{self, Operation},
    record::{RecordKind, Writer},
    units::WallTime,
    vm::Epoch,
    words::words,
};
use serde::{Deserialize, Serialize};

/// The layout version of this module's records.
pub const FENCE_SCHEMA: u32 = 1;

/// How far a fence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FencePhase {
    /// The node's session is gone.
    Suspect,
    /// Proof is being looked for.
    Proving,
    /// There is no proof yet; it is looked for again and again.
    Unproved,
    /// It is proved that the boot has ended.
    Proved,
    /// The node's VMs are being given to other nodes.
    Recovering,
    /// Nothing is left to be given away.
    Recovered,
    /// The node is back: the proof must not be used any more.
    Over,
}
words!(
    FencePhase,
    "phase of a fence",
    Suspect = "suspect",
    Proving = "proving",
    Unproved = "unproved",
    Proved = "proved",
    Recovering = "recovering",
    Recovered = "recovered",
    Over = "over"
);

impl FencePhase {
    /// Whether it is proved that the boot has ended, and the proof still holds.
    pub fn is_proved(self) -> bool {
        matches!(self, FencePhase::Proved | FencePhase::Recovering | FencePhase::Recovered)
    }
}

/// The kind of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceKind {
    /// An administrator says that the machine is off.
    Administrator,
    /// A device that controls the machine's power was read.
    Power,
    /// Its watchdog has reset it: the node has not renewed its promise ([`crate::Promise`]) for as long as that says.
    Watchdog,
}
words!(EvidenceKind, "kind of evidence", Administrator = "administrator", Power = "power", Watchdog = "watchdog");

/// What proves that the machine is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Its kind.
    pub kind: EvidenceKind,
    /// When, by the wall clock of the node that recorded it; for users.
    pub at: WallTime,
    /// Who recorded it: the node.
    pub by: NodeName,
    /// What was read or said, for users.
    pub what: String,
}

/// `/fences/<node>`: the fence of one boot of the node's machine. The last one of a node is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The layout version, for upgrades.
    pub schema: u32,
    /// The machine's id.
    pub machine: String,
    /// The machine's boot that it is about.
    pub boot: String,
    /// How far it is.
    pub phase: FencePhase,
    /// When the fence began; for users, as all times here.
    pub since: WallTime,
    /// When the present phase began.
    pub phase_since: WallTime,
    /// The proof; empty until there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Why there is no proof yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The machine's power is to be cut, and may be gone at any moment. Written before that is ordered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off_ordered: bool,
    /// Its machine is to be switched on again after the power was cut: that was the policy when this was announced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub then_on: bool,
    /// Its machine is switched on again, once. Written before that is ordered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub on_ordered: bool,
    /// The node is gone for good: also VMs that do not run are given to other nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_good: bool,
    /// The node that changed it last, and the epoch of the primary's role then.
    pub by: NodeName,
    /// See `by`.
    pub epoch: Epoch,
    /// The operation that changed it last. For people.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "operation::if_known")]
    pub operation: Option<Operation>,
}

impl Fence {
    /// A new suspicion against the present boot of a node.
    pub fn suspicion(of: &NodeRecord, by: &NodeName, epoch: Epoch, now: WallTime) -> Fence {
        Fence {
            schema: FENCE_SCHEMA,
            machine: of.machine.clone(),
            boot: of.boot.clone(),
            phase: FencePhase::Suspect,
            since: now,
            phase_since: now,
            evidence: Vec::new(),
            problems: Vec::new(),
            off_ordered: false,
            then_on: false,
            on_ordered: false,
            for_good: false,
            by: by.clone(),
            epoch,
            operation: None,
        }
    }

    /// Whether it is about the boot that the node's record names, which is the last one that acted under its name.
    pub fn is_of(&self, node: &NodeRecord) -> bool {
        !node.boot.is_empty() && self.boot == node.boot && self.machine == node.machine
    }

    /// The next phase. A change of the phase's reasons alone keeps its time.
    #[must_use]
    pub fn to(&self, phase: FencePhase, now: WallTime) -> Fence {
        let phase_since = if phase == self.phase { self.phase_since } else { now };
        let problems = if phase == FencePhase::Unproved { self.problems.clone() } else { Vec::new() };
        Fence { phase, phase_since, problems, ..self.clone() }
    }

    /// With that proof, beside what proved it before.
    #[must_use]
    pub fn proved(&self, evidence: Evidence) -> Fence {
        let mut fence = self.to(FencePhase::Proved, evidence.at);
        fence.evidence.push(evidence);
        fence
    }

    /// All that proves it, in a line for users.
    pub fn proof(&self) -> String {
        self.evidence.iter().map(|evidence| &*evidence.what).collect::<Vec<_>>().join("; ")
    }

    /// Whether an administrator has said that the machine is off.
    pub fn is_confirmed(&self) -> bool {
        self.evidence.iter().any(|evidence| evidence.kind == EvidenceKind::Administrator)
    }
}

impl RecordKind for Fence {
    type Key = NodeName;
    const AT: &'static str = "/fences/*";
    const SCHEMA: u32 = FENCE_SCHEMA;
    const WRITER: Writer = Writer::Requests;

    fn operation(&mut self) -> Option<&mut Option<Operation>> {
        Some(&mut self.operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn a_fence_is_of_one_boot() {
        let record = node("a", 8).booted("b1").record.value.clone();
        let fence = Fence::suspicion(&record, &name("b"), Epoch(3), WallTime(5));
        assert!(fence.is_of(&record) && !fence.phase.is_proved());
        assert!(!fence.is_of(&NodeRecord { boot: "b2".to_owned(), ..record.clone() }), "it was booted since");
        assert!(!fence.is_of(&NodeRecord { machine: "n".to_owned(), ..record.clone() }), "it is another machine");
        let unknown = NodeRecord { boot: String::new(), ..record };
        let fence = Fence { boot: String::new(), ..fence };
        assert!(!fence.is_of(&unknown), "an older daemon wrote the record: nothing is known of its boots");
    }

    #[test]
    fn a_phase_keeps_its_time_and_loses_its_problems() {
        let record = node("a", 8).booted("b1").record.value.clone();
        let fence = Fence::suspicion(&record, &name("b"), Epoch(3), WallTime(5));
        let unproved = Fence { problems: vec!["no".to_owned()], ..fence.to(FencePhase::Unproved, WallTime(7)) };
        let still = unproved.to(FencePhase::Unproved, WallTime(9));
        assert_eq!((still.phase_since, still.problems.len()), (WallTime(7), 1));
        let evidence =
            Evidence { kind: EvidenceKind::Administrator, at: WallTime(11), by: name("c"), what: String::new() };
        let proved = still.proved(evidence);
        assert!(proved.phase.is_proved() && proved.problems.is_empty());
        assert_eq!((proved.since, proved.phase_since, proved.evidence.len()), (WallTime(5), WallTime(11), 1));
        assert!(!proved.to(FencePhase::Over, WallTime(12)).phase.is_proved());
    }
}
