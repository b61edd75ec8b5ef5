//! Reading many records at once.

use crate::{Record, Result, Store, StoreError};
use drover_model::RecordPath;
use futures_util::future::try_join_all;
use std::future::Future;

/// How often a read among many is sent when no answer comes.
const TRIES: usize = 4;

/// One of many records: what it is now (`None`: it does not exist), and the names below it, if they were asked for.
pub type Found = (Option<Record>, Vec<String>);

/// A read among many, tried again by itself when no answer comes.
pub(crate) async fn again<T, F: Future<Output = Result<T>>>(read: impl Fn() -> F) -> Result<T> {
    for _ in 1..TRIES {
        match read().await {
            Err(StoreError::Unknown { .. }) => {}
            answer => return answer,
        }
    }
    read().await
}

/// For back ends that have no such request: all at the same time, each by its own.
pub(crate) async fn one_by_one(store: &(impl Store + ?Sized), wanted: &[(RecordPath, bool)]) -> Result<Vec<Found>> {
    let reads = wanted.iter().map(|(path, below)| async move {
        let names = async {
            match below {
                true => again(|| store.children(path)).await,
                false => Ok(Vec::new()),
            }
        };
        let (record, names) = tokio::join!(again(|| store.get(path)), names);
        match names {
            Ok(names) => Ok((record?, names)),
            Err(StoreError::NotFound(_)) => Ok((record?, Vec::new())),
            Err(error) => Err(error),
        }
    });
    try_join_all(reads).await
}
