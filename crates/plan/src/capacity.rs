//! What each node can still take: what it offers, less what is given out ([`drover_model::usage`] counts that with the
//! view), less what a plan has given out while it is being made.

use drover_model::{Bytes, ClusterView, Demand, NodeName, usage::Tallies};
use std::collections::BTreeMap;

pub use drover_model::usage::{OVERHEAD, Usage};

/// Memory that every node keeps for itself: kernel, daemons, page cache.
pub const HOST_RESERVE: Bytes = Bytes::mib(512);

/// What of every node is given out, and will be if the plan that is being made is carried out.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    given_out: Tallies,
    planned: BTreeMap<NodeName, Usage>,
}

impl Ledger {
    /// As it is now.
    pub fn of(view: &ClusterView) -> Ledger {
        Ledger { given_out: view.tallies().clone(), planned: BTreeMap::new() }
    }

    /// What of one node is given out.
    pub fn usage(&self, node: &NodeName) -> Usage {
        self.given_out.usage(node).plus(self.planned.get(node).copied().unwrap_or_default())
    }

    /// Reserves room for a VM that is going to be sent to a node.
    pub fn expect(&mut self, node: &NodeName, demand: Demand) {
        self.planned.entry(node.clone()).or_default().expect(demand);
    }

    /// Memory that a node can still promise, overhead included: what it offers, less its reserve, less what it has
    /// promised. `None` while the node has not reported what it offers.
    pub fn free_memory(&self, view: &ClusterView, node: &NodeName) -> Option<Bytes> {
        let offered = view.nodes.get(node)?.status.as_ref()?.memory_total;
        Some(offered.saturating_sub(HOST_RESERVE).saturating_sub(self.usage(node).promised_memory))
    }
}
