//! Answers VMs that are to be moved to this node: whether there is room for them and what they need.

use crate::{context::Context, operation::scope, records};
use drover_model::{Arrival, ClusterView, RecordKind, VmRecord, vm::VM_SCHEMA};
use drover_plan::arrivals::{self, Answer};
use drover_store::StoreError;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Number of answers that are written at the same time.
const AT_ONCE: usize = 32;

/// VMs that were admitted and whose answers the view may not show yet.
#[derive(Debug, Default)]
pub(crate) struct Granted(BTreeSet<Uuid>);

/// Answers all open requests. Returns whether that succeeded for all.
pub(crate) async fn pass(ctx: &Context, view: &ClusterView, granted: &mut Granted) -> bool {
    let me = ctx.me();
    // Forget what the view shows by now, and what is not to be moved here any more.
    let remember = |uuid: &Uuid| {
        view.vms.get(uuid).is_some_and(|vm| {
            let shown = vm.arrival.as_ref().is_some_and(|a| a.value.node == *me && a.value.of == vm.record.version);
            vm.record.value.state.destination() == Some(me) && !shown
        })
    };
    granted.0.retain(remember);
    let mut all = true;
    let answers = arrivals::answers(view, me, &granted.0);
    // Before the writes, whose outcome may be unknown.
    granted.0.extend(answers.iter().filter(|answer| answer.refused.is_none()).map(|answer| answer.uuid));
    for some in answers.chunks(AT_ONCE) {
        let written = some.iter().map(async |answer| {
            let operation = view.vms.get(&answer.uuid).and_then(|vm| vm.record.value.operation.clone());
            let written = scope(operation, write(ctx, answer)).await;
            if let Err(error) = &written {
                tracing::debug!(vm = %answer.uuid, %error, "cannot write the answer to a VM that is to be moved here");
            }
            written.is_ok()
        });
        all &= join_all(written).await.into_iter().all(|written| written);
    }
    for uuid in arrivals::outdated(view, me) {
        if let Err(error) = ctx.store.delete(&Arrival::path(&uuid), None).await
            && !error.is_conflict()
        {
            tracing::debug!(vm = %uuid, %error, "cannot delete an outdated answer");
            all = false;
        }
    }
    all
}

async fn write(ctx: &Context, answer: &Answer) -> Result<(), StoreError> {
    let uuid = &answer.uuid;
    let arrival = Arrival { schema: VM_SCHEMA, node: ctx.me().clone(), of: answer.of, refused: answer.refused.clone() };
    let vm = records::check_op::<VmRecord>(uuid, answer.of);
    let set = match records::read_report::<Arrival>(&*ctx.store, uuid).await? {
        Some(old) => records::set_op(uuid, &old, &arrival)?,
        None => records::create_op(uuid, &arrival)?,
    };
    ctx.store.multi(vec![vm, set]).await?;
    tracing::debug!(
        node = %ctx.me(), vm = %answer.uuid, refused = ?answer.refused,
        "answered a VM that is to be moved here"
    );
    Ok(())
}
