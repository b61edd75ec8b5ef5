//! Outcome of a flush or a ready of a node, for clients that wait for it.

use super::{Blocked, DomainOrder};
use crate::NodeState;

/// Outcome of an order for a node's VMs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Work is left.
    UnderWay,
    /// The node has reached the ordered state.
    Done,
    /// No work is left, and the node is not empty: the VMs that stay, and why.
    Blocked(Vec<Blocked>),
    /// Another order has replaced it: the present state.
    Overtaken(String),
}

/// An order for a node's VMs, for clients that wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainWait {
    order: DomainOrder,
    /// The version of the node's record with the order.
    version: i64,
}

impl DrainWait {
    /// An order that is in this version of the node's record.
    pub fn new(order: DomainOrder, version: i64) -> DrainWait {
        DrainWait { order, version }
    }

    /// The state that the node should reach.
    pub fn aim(&self) -> NodeState {
        match self.order {
            DomainOrder::Ready => NodeState::Ready,
            DomainOrder::Flush => NodeState::Flushed,
        }
    }

    /// The outcome, by the present version and domain state of the node's record; `None`: they are older than the
    /// order. `stay`: the VMs for which nothing can be done, if no other work is left.
    pub fn outcome(&self, version: i64, state: &str, stay: impl FnOnce() -> Vec<Blocked>) -> Option<DrainOutcome> {
        if version < self.version {
            return None;
        }
        let doing = match self.order {
            DomainOrder::Ready => NodeState::Unflush,
            DomainOrder::Flush => NodeState::Flush,
        };
        Some(if state == self.aim().word() {
            DrainOutcome::Done
        } else if state != doing.word() {
            DrainOutcome::Overtaken(state.to_owned())
        } else if self.order == DomainOrder::Ready {
            // A node is ready even if VMs cannot come home.
            DrainOutcome::UnderWay
        } else {
            match stay() {
                vms if vms.is_empty() => DrainOutcome::UnderWay,
                vms => DrainOutcome::Blocked(vms),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn outcomes_of_orders_for_nodes() {
        use DomainOrder::*;
        use DrainOutcome::*;
        let stays = || vec![wire::Blocked { vm: "db".to_owned(), reason: "no".to_owned() }];
        let overtaken = |state: &str| Some(Overtaken(state.to_owned()));
        for (order, version, state, stay, outcome) in [
            (Flush, 4, "ready", vec![], None),
            (Flush, 4, "flushed", vec![], None),
            (Flush, 5, "flush", vec![], Some(UnderWay)),
            (Flush, 5, "flush", stays(), Some(Blocked(stays()))),
            (Flush, 6, "flushed", stays(), Some(Done)),
            (Flush, 6, "unflush", stays(), overtaken("unflush")),
            (Flush, 6, "ready", vec![], overtaken("ready")),
            (Ready, 5, "unflush", stays(), Some(UnderWay)),
            (Ready, 5, "ready", vec![], Some(Done)),
            (Ready, 6, "flush", stays(), overtaken("flush")),
            (Ready, 6, "flushed", vec![], overtaken("flushed")),
            (Ready, 6, "a state of later days", vec![], overtaken("a state of later days")),
        ] {
            let got = DrainWait::new(order, 5).outcome(version, state, || stay.clone());
            assert_eq!(got, outcome, "{order} {version} {state} {stay:?}");
        }
    }
}
