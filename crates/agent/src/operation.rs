//! The operation that a piece of work belongs to. Whoever begins such work says so once ([`scope`]); then every log
//! line within has its id (`op=...`), so has every event that is told within, and records that are written within have
//! the operation (`stamped`). By the records it comes to the other nodes.

use crate::context::Context;
use drover_model::{Operation, OperationId, RecordKind};
use std::{borrow::Cow, future::Future, sync::atomic::Ordering};
use tracing::{Instrument, info_span};

tokio::task_local! {
    static CURRENT: Operation;
}

/// Does work as part of an operation, if it is known of which. Tasks that are spawned within are not part of it, unless
/// they say so themselves.
pub async fn scope<F: Future>(operation: Option<Operation>, work: F) -> F::Output {
    let Some(operation) = operation else { return work.await };
    let span = info_span!("operation", op = %operation.id);
    CURRENT.scope(operation, work).instrument(span).await
}

/// The operation of the work that is done now.
pub(crate) fn current() -> Option<Operation> {
    CURRENT.try_with(Clone::clone).ok()
}

/// A record with the operation that changes it: the present one, if there is one, the record says such things, and it
/// differs from what it replaces.
pub(crate) fn stamped<'a, T: RecordKind>(old: Option<&T>, new: &'a T) -> Cow<'a, T> {
    let Some(operation) = current().filter(|_| old != Some(new)) else { return Cow::Borrowed(new) };
    let mut with = new.clone();
    match with.operation() {
        Some(said) => *said = Some(operation),
        None => return Cow::Borrowed(new),
    }
    Cow::Owned(with)
}

impl Context {
    /// An id that no operation has had.
    pub(crate) fn new_operation_id(&self) -> OperationId {
        OperationId::made(self.options.instance, self.operations.fetch_add(1, Ordering::Relaxed))
    }

    /// A new operation, which this daemon itself has decided on.
    pub(crate) fn own_operation(&self) -> Operation {
        Operation { id: self.new_operation_id(), by: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::{Claim, Epoch, testing::vm};

    #[tokio::test]
    async fn records_that_change_get_the_present_operation() {
        let old = vm(1, 512).record.value.clone();
        let new = drover_model::VmRecord { description: "x".to_owned(), ..old.clone() };
        let operation = Operation { id: "abcd".parse().unwrap(), by: "ops".to_owned() };
        let said = || stamped(Some(&old), &new).operation.clone();
        assert_eq!((said(), current()), (None, None));
        scope(Some(operation.clone()), async {
            assert_eq!((said(), current()), (Some(operation.clone()), Some(operation.clone())));
            assert_eq!(stamped(None, &old).operation, Some(operation.clone()), "it is new");
            assert_eq!(stamped(Some(&old), &old).operation, None, "it is not changed");
            assert_eq!(*stamped(None, &Claim::new(Epoch(1))), Claim::new(Epoch(1)));
            scope(None, async { assert_eq!(current(), Some(operation.clone())) }).await;
        })
        .await;
        assert_eq!(current(), None);
    }
}
