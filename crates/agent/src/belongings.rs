//! What belongs to a VM or to a node, and goes with it: the one list of it.
//!
//! Records below its own go whatever they are, also those of kinds that only a newer version knows. Those elsewhere are
//! named here.

use crate::faults;
use drover_model::{Claim, Fault, NameEntry, NodeName, NodeRecord, RecordKind, RecordPath, Stored, Version, VmRecord};
use drover_store::{Op, Store, StoreError};
use uuid::Uuid;

/// The steps that delete a VM's records, all or none: if neither its record nor its claim has changed.
///
/// # Errors
/// Those of the store.
pub(crate) async fn of_vm(
    store: &dyn Store,
    record: &Stored<VmRecord>,
    claim: &Stored<Claim>,
) -> Result<Vec<Op>, StoreError> {
    let uuid: Uuid = record.value.uuid;
    let path = VmRecord::path(&uuid);
    let held = Claim::path(&uuid);
    let version_of = |path: &RecordPath| (*path == held).then_some(claim.version);
    let mut ops = below(store, &path, version_of).await?;
    ops.push(Op::Delete(NameEntry::path(&record.value.name), None));
    ops.push(Op::Delete(path, Some(record.version)));
    let fault = Fault::path(&faults::vm_failed_id(&uuid));
    if let Some(found) = store.get(&fault).await? {
        ops.push(Op::Delete(fault, Some(found.version)));
    }
    Ok(ops)
}

/// The steps that delete a node's records, all or none: if its record has not changed. Its session, if there is one,
/// makes them fail.
///
/// # Errors
/// Those of the store.
pub(crate) async fn of_node(store: &dyn Store, name: &NodeName, version: Version) -> Result<Vec<Op>, StoreError> {
    let path = NodeRecord::path(name);
    let session = drover_model::NodeSession::path(name);
    let mut ops = below(store, &path, |_| None).await?;
    ops.retain(|op| *op.path() != session);
    ops.push(Op::Delete(path, Some(version)));
    Ok(ops)
}

/// The steps that delete the records below another, however deep, the deepest first.
async fn below(
    store: &dyn Store,
    path: &RecordPath,
    version_of: impl Fn(&RecordPath) -> Option<Version>,
) -> Result<Vec<Op>, StoreError> {
    let (mut todo, mut found) = (vec![path.clone()], Vec::new());
    while let Some(above) = todo.pop() {
        let names = match store.children(&above).await {
            Ok(names) => names,
            Err(StoreError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(error),
        };
        for name in names {
            let child = above.join(&name).map_err(|error| StoreError::Broken(error.to_string()))?;
            todo.push(child.clone());
            found.push(child);
        }
    }
    Ok(found.into_iter().rev().map(|path| (version_of(&path), path)).map(|(v, path)| Op::Delete(path, v)).collect())
}
