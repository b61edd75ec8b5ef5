//! Batched reads.

use crate::{Record, Result, Store, StoreError};
use drover_model::RecordPath;
use futures_util::future::try_join_all;
use std::future::Future;

/// Maximum number of attempts at a read whose answer is lost.
const ATTEMPTS: usize = 4;

/// One result of a batched read: the record (`None` if it does not exist), and the names of its children if requested.
pub type Found = (Option<Record>, Vec<String>);

/// Retries a read as long as its outcome is unknown.
pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(read: impl Fn() -> F) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match read().await {
            Err(StoreError::Unknown { .. }) => {}
            answer => return answer,
        }
    }
    read().await
}

/// A batched read for back ends without such a request: concurrent single reads.
pub(crate) async fn one_by_one(store: &(impl Store + ?Sized), wanted: &[(RecordPath, bool)]) -> Result<Vec<Found>> {
    let reads = wanted.iter().map(|(path, below)| async move {
        let record = retry(|| store.get(path)).await?;
        if !below {
            return Ok((record, Vec::new()));
        }
        // After it: the names are at least as new as what the record says of them.
        match retry(|| store.children(path)).await {
            Ok(names) => Ok((record, names)),
            Err(StoreError::NotFound(_)) => Ok((record, Vec::new())),
            Err(error) => Err(error),
        }
    });
    try_join_all(reads).await
}
