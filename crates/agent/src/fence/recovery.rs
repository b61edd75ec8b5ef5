//! Writes what a plan of recovery orders (`plan::recover`): several VMs of a node in one transaction. The conditions
//! of such a write are then checked once for all of them, and a large cluster, in which every node reads each change,
//! hears of them once.

use super::conditions;
use crate::{
    context::Context,
    events::{Entry, EventKind},
    operation::scope,
    records,
    view::shows,
};
use drover_model::{Claim, ClusterView, Fence, NodeName, NodeRecord, RecordKind, Version, VmRecord};
use drover_plan::recover::{Order, Plan};
use drover_store::{Op, StoreError};
use futures_util::future::join_all;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// Number of VMs that are written at the same time, over all transactions.
const AT_ONCE: usize = 128;
/// Number of VMs in one transaction.
const TOGETHER: usize = 16;
/// Bytes of records in one transaction, unless a single VM has more. A server of ZooKeeper ends the connection of a
/// client whose request has more than 1 MiB (`jute.maxbuffer`, 3.8.0).
const BYTES: usize = 256 * 1024;

/// Timeout for the view to show what was written.
const SHOWN: Duration = Duration::from_secs(1);

/// One VM with the changes of its records.
struct Change<'a> {
    order: &'a Order,
    ops: Vec<Op>,
}

impl Change<'_> {
    fn bytes(&self) -> usize {
        let data = |op: &Op| match op {
            Op::Create(_, data, _) | Op::Set(_, data, _) => data.len(),
            Op::Check(..) | Op::Delete(..) => 0,
        };
        self.ops.iter().map(data).sum()
    }
}

/// The proof that a node is off.
struct Proof {
    /// It holds if these are met.
    conditions: Vec<Op>,
    /// It in words.
    evidence: String,
}

/// What became of changes.
#[derive(Default)]
struct Outcome {
    /// The VMs that were written, with the versions of the records that were replaced.
    written: Vec<(Uuid, Version)>,
    /// Some were not.
    failed: bool,
    /// Of some it is not known.
    unknown: bool,
}

impl Outcome {
    fn and(mut self, other: Outcome) -> Outcome {
        self.written.extend(other.written);
        self.failed |= other.failed;
        self.unknown |= other.unknown;
        self
    }

    /// Nothing of this order was written, as far as is known.
    fn not(order: &Order, error: &StoreError) -> Outcome {
        tracing::debug!(vm = %order.uuid, node = %order.node, %error, "a VM was not recovered; it is planned again");
        Outcome { failed: true, unknown: !error.is_definite(), ..Outcome::default() }
    }
}

/// Writes the orders of a plan. Returns whether all were written; what was not is planned again.
pub(super) async fn recover(ctx: &Context, view: &ClusterView, plan: &Plan) -> bool {
    let orders = plan.orders(view, ctx.wall());
    let mut all = Outcome::default();
    // The most important first.
    for some in orders.chunks(AT_ONCE) {
        let mut nodes: BTreeMap<&NodeName, Vec<&Order>> = BTreeMap::new();
        for order in some {
            nodes.entry(&order.node).or_default().push(order);
        }
        let done = join_all(nodes.into_iter().map(|(node, orders)| of_node(ctx, view, node, orders))).await;
        all = done.into_iter().fold(all, Outcome::and);
        // The store does not answer: each further attempt would wait for it, too.
        if all.unknown {
            break;
        }
    }
    if !shows(&ctx.views, &all.written, SHOWN).await {
        tracing::debug!("the view does not show all recovered VMs yet");
    }
    !all.failed
}

/// Writes orders about VMs of one node, as parts of the operation that its fence is.
async fn of_node(ctx: &Context, view: &ClusterView, node: &NodeName, orders: Vec<&Order>) -> Outcome {
    let (Some(of), Some(fence)) = (view.nodes.get(node), view.fences().get(node)) else {
        return Outcome { failed: true, ..Outcome::default() };
    };
    // The node's fence must still be the one that proves that it is off.
    let mut conditions = conditions(view, node);
    conditions.push(records::check_op::<NodeRecord>(node, of.record.version));
    conditions.push(records::check_op::<Fence>(node, fence.version));
    let proof = Proof { conditions, evidence: fence.value.proof() };
    scope(fence.value.operation.clone(), async {
        let (mut all, mut changes) = (Outcome::default(), Vec::new());
        for order in orders {
            match ops(view, order) {
                Ok(ops) => changes.push(Change { order, ops }),
                Err(error) => all = all.and(Outcome::not(order, &error)),
            }
        }
        let done = join_all(together(changes).into_iter().map(|changes| write(ctx, &proof, changes))).await;
        done.into_iter().fold(all, Outcome::and)
    })
    .await
}

/// The changes of each transaction.
fn together(changes: Vec<Change<'_>>) -> Vec<Vec<Change<'_>>> {
    let mut out: Vec<Vec<Change<'_>>> = Vec::new();
    let mut bytes = 0;
    for change in changes {
        let more = change.bytes();
        match out.last_mut() {
            Some(last) if last.len() < TOGETHER && bytes + more <= BYTES => {
                last.push(change);
                bytes += more;
            }
            _ => {
                out.push(vec![change]);
                bytes = more;
            }
        }
    }
    out
}

/// Writes changes in one transaction. If one of them is refused, each is written alone.
async fn write(ctx: &Context, proof: &Proof, changes: Vec<Change<'_>>) -> Outcome {
    let error = match commit(ctx, proof, &changes).await {
        Ok(written) => return Outcome { written, ..Outcome::default() },
        Err(error) => error,
    };
    let of_one = match &error {
        StoreError::Refused { index, .. } => *index >= proof.conditions.len(),
        error => matches!(error, StoreError::TooLarge { .. }),
    };
    if changes.len() == 1 || !of_one {
        return changes.iter().map(|change| Outcome::not(change.order, &error)).fold(Outcome::default(), Outcome::and);
    }
    let alone = changes.iter().map(async |change| match commit(ctx, proof, std::slice::from_ref(change)).await {
        Ok(written) => Outcome { written, ..Outcome::default() },
        Err(error) => Outcome::not(change.order, &error),
    });
    join_all(alone).await.into_iter().fold(Outcome::default(), Outcome::and)
}

/// Writes changes if the proof holds.
async fn commit(
    ctx: &Context,
    Proof { conditions, evidence }: &Proof,
    changes: &[Change<'_>],
) -> Result<Vec<(Uuid, Version)>, StoreError> {
    let ops = conditions.iter().chain(changes.iter().flat_map(|change| &change.ops)).cloned().collect();
    ctx.store.multi(ops).await?;
    changes.iter().for_each(|change| tell(ctx, change.order, evidence));
    Ok(changes.iter().map(|change| (change.order.uuid, change.order.version)).collect())
}

/// The changes of a VM's records.
fn ops(view: &ClusterView, Order { uuid, record, granted, .. }: &Order) -> Result<Vec<Op>, StoreError> {
    let vm = view.vms.get(uuid).ok_or_else(|| StoreError::NotFound(VmRecord::path(uuid)))?;
    let claim = vm.claim.as_ref().ok_or_else(|| StoreError::NotFound(Claim::path(uuid)))?;
    let claim = match granted {
        Some(granted) => records::set_op(uuid, claim, granted)?,
        None => records::check_op::<Claim>(uuid, claim.version),
    };
    Ok(vec![records::set_op::<VmRecord>(uuid, &vm.record, record)?, claim])
}

fn tell(ctx: &Context, Order { node, record, why, .. }: &Order, evidence: &str) {
    tracing::info!(
        vm = %record.name, from = %node, state = %record.state, on = ?record.node, to = ?record.state.destination(),
        "a VM of a node that is off was given away"
    );
    let to = record.state.destination().or(record.node.as_ref()).map(ToString::to_string).unwrap_or_default();
    let what = format!("VM {} of node {node}, which is off, is given to {to} (state {}).", record.name, record.state);
    let event = Entry::new(record, EventKind::Recovery, what).with("from", node).with("to", to);
    ctx.tell(event.with("why", why).with("evidence", evidence));
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Epoch, testing};

    #[test]
    fn a_transaction_has_few_vms_and_not_too_many_bytes() {
        let order = |n: u128| {
            let vm = testing::running(n, "a", 64);
            let granted = Some(Claim::new(Epoch(2)));
            let (version, claim) = (Version(0), Version(0));
            let record = vm.record.value.clone();
            Order {
                uuid: Uuid::from_u128(n),
                node: testing::name("a"),
                version,
                record,
                claim,
                granted,
                why: String::new(),
            }
        };
        let orders: Vec<Order> = (0..40).map(order).collect();
        let sizes = |bytes: &dyn Fn(usize) -> usize| {
            let change = |(n, order)| {
                let set = Op::Set(VmRecord::path(&Uuid::from_u128(1)), vec![0; bytes(n)], Version(0));
                Change { order, ops: vec![set, Op::Check(Claim::path(&Uuid::from_u128(1)), Version(0))] }
            };
            let parts = together(orders.iter().enumerate().map(change).collect());
            let told: Vec<Uuid> = parts.iter().flatten().map(|change| change.order.uuid).collect();
            assert_eq!(told, orders.iter().map(|order| order.uuid).collect::<Vec<_>>(), "in order");
            parts.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&|_| 2000), [16, 16, 8]);
        assert_eq!(sizes(&|n| if n == 5 { 2 * BYTES } else { 2000 }), [5, 1, 16, 16, 2]);
        assert_eq!(sizes(&|_| BYTES / 4), [4; 10]);
    }
}
