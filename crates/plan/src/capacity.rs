//! Free resources of the nodes: what each one offers, minus what is allocated ([`drover_model::usage`] counts that with
//! the view), minus what the plan being made has allocated.

use drover_model::{Bytes, ClusterView, Demand, NodeName, usage::Tallies};
use std::collections::{BTreeMap, BTreeSet};

pub use drover_model::usage::{OVERHEAD, Usage};

/// Memory reserved on every node for the host itself: kernel, daemons, page cache.
pub const HOST_RESERVE: Bytes = Bytes::mib(512);

/// Allocated resources of all nodes, including those of the plan that is being made.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    given_out: Tallies,
    planned: BTreeMap<NodeName, Usage>,
    lost: BTreeSet<NodeName>,
}

impl Ledger {
    /// The present allocations.
    pub fn of(view: &ClusterView) -> Ledger {
        Ledger { given_out: view.tallies().clone(), ..Ledger::default() }
    }

    /// The same, with nodes that count as off, whether or not they are.
    #[must_use]
    pub fn without<'a>(self, nodes: impl IntoIterator<Item = &'a NodeName>) -> Ledger {
        Ledger { lost: nodes.into_iter().cloned().collect(), ..self }
    }

    /// Whether a node counts as off.
    pub fn is_lost(&self, node: &NodeName) -> bool {
        self.lost.contains(node)
    }

    /// Allocated resources of one node.
    pub fn usage(&self, node: &NodeName) -> Usage {
        self.given_out.usage(node).plus(self.planned.get(node).copied().unwrap_or_default())
    }

    /// Reserves resources on a node for a VM that will be moved there.
    pub fn expect(&mut self, node: &NodeName, demand: Demand) {
        self.planned.entry(node.clone()).or_default().expect(demand);
    }

    /// Memory that a node can still promise, overhead included: total, minus reserve, minus promised. `None` until the
    /// node has reported its memory.
    pub fn free_memory(&self, view: &ClusterView, node: &NodeName) -> Option<Bytes> {
        let offered = view.nodes.get(node)?.status.as_ref()?.memory_total;
        Some(offered.saturating_sub(HOST_RESERVE).saturating_sub(self.usage(node).promised_memory))
    }
}
