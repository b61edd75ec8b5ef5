//! What belongs to a VM or to a node, and goes with it: the one list of it.
//!
//! Records below its own go whatever they are, also those of kinds that only a newer version knows. Those elsewhere are named here.

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

/// The steps that delete a node's records, all or none: if its record has not changed. Its session, if there is one, makes them fail.
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

/// The steps that delete the records directly below another.
async fn below(
    store: &dyn Store,
    path: &RecordPath,
    version_of: impl Fn(&RecordPath) -> Option<Version>,
) -> Result<Vec<Op>, StoreError> {
    let names = match store.children(path).await {
        Ok(names) => names,
        Err(StoreError::NotFound(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut ops = Vec::with_capacity(names.len() + 3);
    for name in names {
        let child = path.join(&name).map_err(|error| StoreError::Broken(error.to_string()))?;
        let version = version_of(&child);
        ops.push(Op::Delete(child, version));
    }
    Ok(ops)
}
