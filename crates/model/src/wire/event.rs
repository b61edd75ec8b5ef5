//! Events: what was decided and done, and why, as each node's daemon tells it.

use crate::words::words;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// One event, as the node tells it that decided or did something. Never has secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// The node that recorded it.
    pub node: String,
    /// Its number among the events of that node: each is greater than those before, also after a restart. Numbers may
    /// be left out.
    pub seq: u64,
    /// When: milliseconds since 1970, UTC, by that node's clock.
    pub at: u64,
    /// The kind, a word such as `fence-proved` ([`EventKind`]; newer daemons may tell others).
    pub kind: String,
    /// The VM that it is about; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vm: String,
    /// That VM's UUID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// The node that it is about; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What happened, in one sentence.
    pub what: String,
    /// The operation that it is part of: what was asked for or decided at once has the same one on all nodes. Empty:
    /// none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// The name of the token with which the operation was asked for; empty: Drover decided it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Details, such as evidence and reasons.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// The kinds of events. The quickstart lists them for users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A request changed something.
    Request,
    /// A flush or a ready ordered a VM's move.
    Planned,
    /// A flush or a ready of a node is done.
    NodeState,
    /// What was ordered for a VM is done.
    VmState,
    /// A VM was handed over to another node.
    VmMoved,
    /// A VM was given up.
    VmFailed,
    /// A VM was deleted.
    VmDeleted,
    /// A guest was started.
    GuestStarted,
    /// The hypervisor refused to start a guest.
    GuestRefused,
    /// A guest executes again after its migration.
    GuestResumed,
    /// A guest is off.
    GuestOff,
    /// A guest crashed.
    GuestCrashed,
    /// A guest is paused.
    GuestPaused,
    /// A node's session is gone without a shutdown.
    NodeSilent,
    /// A node's daemon is in another state.
    NodeDaemon,
    /// A node was removed.
    NodeRemoved,
    /// A node is suspected to be off.
    FenceSuspect,
    /// A suspicion is over.
    FenceWithdrawn,
    /// Proof is being looked for that a node is off.
    FenceProving,
    /// A node's power is to be cut.
    FenceCut,
    /// Nothing proves that a node is off.
    FenceUnproved,
    /// It is proved that a node is off.
    FenceProved,
    /// The VMs of a node that is off are given to others.
    FenceRecovering,
    /// A VM of a node that is off was given to another node.
    Recovery,
    /// Nothing is left on a node that is off that another can take.
    FenceRecovered,
    /// A node whose power was cut is to be switched on again.
    FencePowerOn,
    /// A node that was off is back.
    FenceOver,
    /// A fault was raised.
    FaultRaised,
    /// A fault says something else now.
    FaultChanged,
    /// A fault has ended.
    FaultEnded,
    /// The role of the primary has passed on, or is being handed over.
    Primary,
}
words!(
    EventKind,
    "kind of events",
    Request = "request",
    Planned = "planned",
    NodeState = "node-state",
    VmState = "vm-state",
    VmMoved = "vm-moved",
    VmFailed = "vm-failed",
    VmDeleted = "vm-deleted",
    GuestStarted = "guest-started",
    GuestRefused = "guest-refused",
    GuestResumed = "guest-resumed",
    GuestOff = "guest-off",
    GuestCrashed = "guest-crashed",
    GuestPaused = "guest-paused",
    NodeSilent = "node-silent",
    NodeDaemon = "node-daemon",
    NodeRemoved = "node-removed",
    FenceSuspect = "fence-suspect",
    FenceWithdrawn = "fence-withdrawn",
    FenceProving = "fence-proving",
    FenceCut = "fence-cut",
    FenceUnproved = "fence-unproved",
    FenceProved = "fence-proved",
    FenceRecovering = "fence-recovering",
    Recovery = "recovery",
    FenceRecovered = "fence-recovered",
    FencePowerOn = "fence-power-on",
    FenceOver = "fence-over",
    FaultRaised = "fault-raised",
    FaultChanged = "fault-changed",
    FaultEnded = "fault-ended",
    Primary = "primary"
);

/// Events of the nodes that answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Events {
    /// The events, the newest last.
    pub events: Vec<Event>,
    /// The nodes that did not answer, with the reasons. Their events are missing.
    #[serde(default)]
    pub unanswered: BTreeMap<String, String>,
    /// The position after these events; with it as `after`, the list goes on without a gap or a repetition.
    pub cursor: String,
}

/// A position in the events of all nodes. As text: `@1700000000000,hv1:17,hv2:4`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Of nodes that are not listed, events from this time on are to come: milliseconds since 1970, UTC.
    pub since: u64,
    /// The number of the last event of each node.
    pub nodes: BTreeMap<String, u64>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.since)?;
        self.nodes.iter().try_for_each(|(node, seq)| write!(f, ",{node}:{seq}"))
    }
}

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Cursor, BadCursor> {
        let mut parts = text.split(',');
        let since = parts.next().and_then(|part| part.strip_prefix('@')?.parse().ok()).ok_or(BadCursor)?;
        let node = |part: &str| {
            let (node, seq) = part.rsplit_once(':')?;
            (!node.is_empty()).then_some((node.to_owned(), seq.parse().ok()?))
        };
        Ok(Cursor { since, nodes: parts.map(|part| node(part).ok_or(BadCursor)).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickstart_lists_all_kinds() {
        let quickstart = include_str!("../../../../docs/quickstart.md");
        let table = quickstart.split_once("| kind of event |").and_then(|(_, rest)| rest.split_once("\n\n"));
        let rows = table.map(|(table, _)| table.lines().skip(2)).into_iter().flatten();
        let listed: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        assert_eq!(listed, EventKind::WORDS);
    }

    #[test]
    fn a_position_is_text_and_back() {
        let nodes = [("hv1", 17), ("hv2.example", 4)].map(|(node, seq)| (node.to_owned(), seq)).into();
        let cursor = Cursor { since: 1_700_000_000_000, nodes };
        let text = "@1700000000000,hv1:17,hv2.example:4";
        assert_eq!((cursor.to_string().as_str(), text.parse()), (text, Ok(cursor)));
        assert_eq!("@5".parse(), Ok(Cursor { since: 5, nodes: BTreeMap::new() }));
        for bad in ["", "5", "@", "@x", "@5,", "@5,hv1", "@5,hv1:", "@5,:3", "@5,hv1:-1"] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }
}
