//! [`Store::rename`] for all back ends, as one transaction of creations and deletions.

use crate::{CreateMode, Op, Record, Result, Store, StoreError};
use drover_model::RecordPath;

/// Reads the whole subtree, then moves it in one transaction that checks every record's version.
pub(crate) async fn rename(store: &dyn Store, from: &RecordPath, to: &RecordPath) -> Result<()> {
    if to.is_within(from) {
        return if to == from { Ok(()) } else { Err(StoreError::NoParent(to.clone())) };
    }
    let records = read(store, from).await?;
    let mut ops = Vec::with_capacity(2 * records.len());
    for (path, record) in &records {
        // `rebase` cannot fail: every path here is within `from`.
        let Some(target) = path.rebase(from, to) else { continue };
        ops.push(Op::Create(target, record.data.clone(), CreateMode::Persistent));
    }
    // Children before parents. The deletion of a parent fails if a child was added concurrently.
    ops.extend(records.iter().rev().map(|(path, record)| Op::Delete(path.clone(), Some(record.version))));
    store.multi(ops).await.map_err(|error| match error {
        StoreError::Refused { cause, .. } => match *cause {
            StoreError::Exists(path) => StoreError::Exists(path),
            StoreError::NoParent(path) => StoreError::NoParent(path),
            StoreError::Conflict(p) | StoreError::NotFound(p) | StoreError::NotEmpty(p) => StoreError::Conflict(p),
            other => other,
        },
        other => other,
    })
}

/// The record and all records below it, parents before children.
async fn read(store: &dyn Store, root: &RecordPath) -> Result<Vec<(RecordPath, Record)>> {
    let mut out = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(path) = todo.pop() {
        let Some(record) = store.get(&path).await? else {
            return Err(if path == *root { StoreError::NotFound(path) } else { StoreError::Conflict(path) });
        };
        for name in store.children(&path).await? {
            todo.push(path.join(&name).map_err(|e| StoreError::Broken(e.to_string()))?);
        }
        out.push((path, record));
    }
    Ok(out)
}
