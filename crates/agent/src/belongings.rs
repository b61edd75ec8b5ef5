//! The records that belong to a VM or a node and are deleted with it.
//!
//! All records below its own are, also those of kinds that only a newer version knows. Those elsewhere are listed here.

use crate::{departed, records};
use drover_model::{
    Claim, Fault, Fence, NameEntry, NodeName, NodeRecord, Promise, RecordKind, RecordPath, RemovedNode, Stored, Token,
    TokenName, Version, VmRecord, WallTime, node::NODE_SCHEMA,
};
use drover_plan::faults;
use drover_store::{CreateMode, Op, Store, StoreError};
use uuid::Uuid;

/// The steps that delete a VM's records in one transaction, which fails if its record or its claim has changed. Its
/// epochs are remembered.
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
    ops.extend(departed::remember(store, &claim.value).await?);
    for id in faults::of_vm(&uuid) {
        ops.extend(gone(store, Fault::path(&id)).await?);
    }
    Ok(ops)
}

/// The steps after which there is no such record. Somebody may be about to make one (a fault, a fence), which must not
/// be left behind: then they are refused, and tried again.
async fn gone(store: &dyn Store, path: RecordPath) -> Result<Vec<Op>, StoreError> {
    Ok(match store.get(&path).await? {
        Some(found) => vec![Op::Delete(path, Some(found.version))],
        None => {
            vec![Op::Create(path.clone(), Vec::new(), CreateMode::Persistent), Op::Delete(path, Some(Version::NEW))]
        }
    })
}

/// The steps that delete a node's records and its token, and that note that it was removed, in one transaction, which
/// fails if its record has changed, or if the node has a session.
///
/// # Errors
/// Those of the store.
pub(crate) async fn of_node(
    store: &dyn Store,
    name: &NodeName,
    record: &Stored<NodeRecord>,
    now: WallTime,
) -> Result<Vec<Op>, StoreError> {
    let path = NodeRecord::path(name);
    let session = drover_model::NodeSession::path(name);
    let mut ops = below(store, &path, |_| None).await?;
    ops.retain(|op| *op.path() != session);
    ops.push(Op::Delete(path, Some(record.version)));
    for path in [Fence::path(name), Promise::path(name)] {
        ops.extend(gone(store, path).await?);
    }
    if let Ok(token) = TokenName::of_node(name) {
        let path = Token::path(&token);
        ops.extend(store.get(&path).await?.map(|found| Op::Delete(path, Some(found.version))));
    }
    // Its daemon finds this when it comes back. (Nodes of old versions had no machine id.)
    if !record.value.machine.is_empty() {
        let removed = RemovedNode { schema: NODE_SCHEMA, machine: record.value.machine.clone(), at: now };
        ops.push(match records::read::<RemovedNode>(store, name).await? {
            Some(old) => records::set_op(name, &old, &removed)?,
            None => records::create_op(name, &removed)?,
        });
    }
    Ok(ops)
}

/// The steps that delete all records below another, the deepest first.
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
