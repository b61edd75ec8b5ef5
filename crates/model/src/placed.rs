//! The placement of a VM, stored in its record, to show why it is on its node. For users only; no decision depends on
//! it.
//!
//! Its size is bounded, however many nodes there are: the best alternatives, and one node for each kind of reason
//! against the others.

use crate::{
    meta::Selector,
    name::NodeName,
    units::{Bytes, WallTime},
    vm::How,
    words::words,
};
use serde::{Deserialize, Deserializer, Serialize};

/// Maximum number of alternatives, best first.
pub const OTHERS_MAX: usize = 3;
/// Maximum number of kinds of reasons.
pub const REJECTED_MAX: usize = 6;
/// Maximum length of a reason, in characters; the rest is cut off.
pub const WHY_MAX: usize = 160;

/// The operation that placed a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacedBy {
    /// Its definition.
    Define,
    /// A request to move it permanently.
    Move,
    /// A request to move it temporarily.
    Migrate,
    /// A request to bring it home.
    Unmigrate,
    /// A flush of its node.
    Flush,
    /// A ready of its home.
    Ready,
    /// The end of its node.
    Recovery,
    /// A refusal to start it where it had been moved to.
    Refused,
}
words!(
    PlacedBy,
    "order",
    Define = "define",
    Move = "move",
    Migrate = "migrate",
    Unmigrate = "unmigrate",
    Flush = "flush",
    Ready = "ready",
    Recovery = "recovery",
    Refused = "refusal"
);

/// A placement of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placed {
    /// The operation that it was made for.
    pub by: PlacedBy,
    /// Its time, by the wall clock of the node that made it.
    pub at: WallTime,
    /// The node.
    pub to: NodeName,
    /// How the VM was to be moved; `None`: it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// Reasons of the choice.
    pub reasons: Reasons,
}

/// Reasons of a choice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reasons {
    /// Selector of the scores; `None`: there was no choice, because the node was given or is the VM's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// The node's score; `None`: it was not checked whether the node can run the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
    /// Memory that it could still promise with the VM on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<Bytes>,
    /// The best alternatives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Scored>,
    /// Number of further alternatives.
    #[serde(skip_serializing_if = "is_zero")]
    pub others_more: u32,
    /// Rejected nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// Number of further rejected nodes, for reasons that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected_more: u32,
    /// Why no node could take it live, if it is moved cold for that reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_live: Vec<Rejected>,
}

/// A node that could have taken the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scored {
    /// Its name.
    pub node: NodeName,
    /// Its score.
    pub score: i64,
}

/// A rejected node, representing all nodes that were rejected for the same kind of reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Its name, the first of them.
    pub node: NodeName,
    /// The reason.
    pub why: String,
    /// Number of further nodes rejected for a reason of that kind.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Reads a placement as a whole or not at all. A later version may use an unknown format; then the record is read
/// without it, and keeps it as an unknown member until the next placement.
pub(crate) fn if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<Placed>>, D::Error> {
    let said = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(said.and_then(|said| serde_json::from_value(said).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stored, Version, VmRecord, testing::*};
    use serde_json::{Value, json};

    fn by(to: &str) -> Box<Placed> {
        let (by, at, how) = (PlacedBy::Flush, WallTime(5), Some(How::Live));
        Box::new(Placed { by, at, to: name(to), how, reasons: Reasons::default() })
    }

    #[test]
    fn an_arrived_vm_has_the_placement_of_its_move() {
        let at_home = VmRecord { placed: Some(by("a")), ..running(1, "a", 64).record.value.clone() };
        let sent = VmRecord { going: Some(by("b")), ..at_home.clone() };
        let there = sent.arrived(&name("b"), crate::MoveKind::Migrate);
        assert_eq!((there.placed, there.going), (Some(by("b")), None));
        // Moved by a version that does not record placements.
        let elsewhere = sent.arrived(&name("c"), crate::MoveKind::Move);
        assert_eq!((elsewhere.placed, elsewhere.going), (None, None));
        assert_eq!(at_home.arrived(&name("a"), crate::MoveKind::Move).placed, Some(by("a")));
    }

    #[test]
    fn a_placement_in_an_unknown_format_is_kept_until_the_next_one() {
        let record = VmRecord { placed: Some(by("a")), ..running(1, "a", 64).record.value.clone() };
        let mut document = serde_json::to_value(&record).unwrap();
        document["schema"] = json!(7);
        for unknown in [
            json!({"by": "recovery", "proof": "off"}),
            json!({"by": "flush", "at": 5, "to": "a", "reasons": {}, "x": 1}),
        ] {
            document["placed"] = unknown.clone();
            let read = Stored::<VmRecord>::decode(document.to_string().as_bytes(), Version(1)).unwrap();
            assert_eq!(read.value.placed, None);
            let again =
                |value: &VmRecord| -> Value { serde_json::from_slice(&read.replaced_by(value).unwrap()).unwrap() };
            assert_eq!(again(&read.value)["placed"], unknown);
            let next = VmRecord { placed: Some(by("b")), ..read.value.clone() };
            assert_eq!(
                again(&next)["placed"],
                serde_json::to_value(by("b")).unwrap(),
                "nothing of the old one is left"
            );
        }
    }
}
