//! Placements of VMs in the API.

use crate::{
    placed::{self, Reasons},
    vm::How,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A placement of a VM, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Placed {
    /// The operation that it was made for: `define`, `move`, `migrate`, `unmigrate`, `flush`, `ready`.
    pub by: String,
    /// Its time: milliseconds since 1970, UTC.
    pub at: u64,
    /// The node.
    pub to: String,
    /// How the VM was to be moved: `live`, `live-else-cold`, `cold`; empty: it did not run.
    pub how: String,
    /// Selector of the scores; empty: there was no choice, because the node was given or is the VM's home.
    pub selector: String,
    /// The node's score. Null: it was not checked whether the node can run the VM.
    pub score: Option<i64>,
    /// Memory that it could still promise with the VM on it, in MiB. Null: it was not checked.
    pub memory_left: Option<u64>,
    /// The best alternatives.
    pub others: Vec<Scored>,
    /// Number of further alternatives.
    pub others_more: u32,
    /// Rejected nodes: one for each kind of reason.
    pub rejected: Vec<Rejected>,
    /// Number of further rejected nodes, for reasons that are not listed.
    pub rejected_more: u32,
    /// Why no node could take it live, if it was moved cold for that reason.
    pub not_live: Vec<Rejected>,
}

/// A node that could have taken the VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Scored {
    /// Its name.
    pub node: String,
    /// Its score.
    pub score: i64,
}

/// A rejected node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rejected {
    /// Its name.
    pub node: String,
    /// The reason.
    pub why: String,
    /// Number of further nodes rejected for a reason of that kind.
    pub more: u32,
}

/// The API's word.
fn way(how: How) -> &'static str {
    match how {
        How::Live => "live",
        How::LiveElseCold => "live-else-cold",
        How::Cold => "cold",
    }
}

impl Placed {
    /// A placement from a VM's record.
    pub fn of(placed: &placed::Placed) -> Placed {
        let placed::Placed { by, at, to, how, reasons } = placed;
        let Reasons { selector, score, left, others, others_more, rejected, rejected_more, not_live } = reasons;
        let scored = |other: &placed::Scored| Scored { node: other.node.to_string(), score: other.score };
        let rejection =
            |of: &placed::Rejected| Rejected { node: of.node.to_string(), why: of.why.clone(), more: of.more };
        Placed {
            by: by.word().to_owned(),
            at: at.0,
            to: to.to_string(),
            how: how.map(way).unwrap_or_default().to_owned(),
            selector: selector.map(|selector| selector.word()).unwrap_or_default().to_owned(),
            score: *score,
            memory_left: left.map(|left| left.as_mib()),
            others: others.iter().map(scored).collect(),
            others_more: *others_more,
            rejected: rejected.iter().map(rejection).collect(),
            rejected_more: *rejected_more,
            not_live: not_live.iter().map(rejection).collect(),
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alike = if self.more > 0 { format!(" and {} alike", self.more) } else { String::new() };
        write!(f, "{}{alike} ({})", self.node, self.why)
    }
}

impl Placed {
    /// Why it is that node, in the same words but without the alternatives: for an event, of which there may be many.
    pub fn in_short(&self) -> String {
        self.parts(false).join("; ")
    }

    /// The reasons, each in words. `next`: also the best alternatives.
    fn parts(&self, next: bool) -> Vec<String> {
        let mut parts = match (self.selector.as_str(), self.score) {
            ("", _) => vec!["the node was given".to_owned()],
            (selector, Some(score)) => vec![format!("score {score} by {selector}, the highest")],
            (selector, None) => vec![format!("by {selector}")],
        };
        let more = |n: u32| if n > 0 { format!(" and {n} more") } else { String::new() };
        if next && !self.others.is_empty() {
            let next: Vec<String> = self.others.iter().map(|o| format!("{} with {}", o.node, o.score)).collect();
            parts.push(format!("next {}{}", next.join(", "), more(self.others_more)));
        }
        let listed = |of: &[Rejected]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !self.rejected.is_empty() {
            parts.push(format!("not {}{}", listed(&self.rejected), more(self.rejected_more)));
        }
        if !self.not_live.is_empty() {
            parts.push(format!("not live: {}", listed(&self.not_live)));
        }
        parts
    }
}

impl fmt::Display for Placed {
    /// For users, without the time: `by flush, live: score 3392 by mem, the highest; next hv4 with 3000; not hv2 (..)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how.as_str() {
            "" => String::new(),
            how => format!(", {}", how.replace("-else-", ", else ")),
        };
        write!(f, "by {}{how}: {}", self.by, self.parts(true).join("; "))
    }
}
