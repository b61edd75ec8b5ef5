//! Events: what was decided and done, and why, as each node's daemon tells it.

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
    /// The kind, a word such as `fence-proved`.
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
