//! The record of the role and its leases: reading them, and the changes that `plan` wants.

use crate::records;
use drover_model::{
    Lease, NodeName, Only, Primary, RecordKind, Stored, Version, layout, primary::PRIMARY_SCHEMA, vm::Epoch,
};
use drover_plan::primary::{Heard, Write};
use drover_store::{CreateMode, Op, Store, StoreError};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What was read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// The record; `None`: there is none yet.
    pub(super) record: Option<Stored<Primary>>,
    /// The leases, each with its version and revision.
    pub(super) leases: BTreeMap<NodeName, (Version, i64, Lease)>,
}

/// Reads the record first and the leases then, so that a lease that the record promises is missing only if it has
/// ended.
pub(super) async fn read(store: Arc<dyn Store>, sync: bool) -> Result<Reading, StoreError> {
    if sync {
        store.sync().await?;
    }
    let record = records::read(&*store, &Only).await?;
    let names = match store.children(&layout::leases()).await {
        Ok(names) => names,
        Err(StoreError::NotFound(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut leases = BTreeMap::new();
    for name in names.iter().filter_map(|name| NodeName::new(name).ok()) {
        let path = Lease::path(&name);
        let Some(found) = store.get(&path).await? else { continue };
        let lease: Stored<Lease> = records::decode(&path, &found.data, found.version)?;
        leases.insert(name, (found.version, found.revision, lease.value));
    }
    Ok(Reading { record, leases })
}

fn lease(epoch: Epoch, term: Option<Duration>, beat: u64) -> Lease {
    let term_ms = term.map_or(0, |term| u64::try_from(term.as_millis()).unwrap_or(u64::MAX));
    Lease { schema: PRIMARY_SCHEMA, epoch, term_ms, beat }
}

/// Rewrites this node's lease, if it still is the one of this version; returns the new version.
pub(super) async fn beat(
    store: Arc<dyn Store>,
    me: NodeName,
    version: Version,
    epoch: Epoch,
    term: Option<Duration>,
) -> Result<Version, StoreError> {
    let beat = u64::try_from(version.0).unwrap_or(0).saturating_add(1);
    let data = records::encode(&lease(epoch, term, beat))?;
    store.set(&Lease::path(&me), data, version).await
}

/// The change of the record, and of the leases with it, as one.
pub(super) fn change(
    me: &NodeName,
    write: &Write,
    old: &Stored<Primary>,
    leases: &BTreeMap<NodeName, Heard>,
    term: Option<Duration>,
) -> Result<Vec<Op>, StoreError> {
    let mut ops = vec![records::set_op(&Only, old, &write.record)?];
    for name in &write.end_leases {
        ops.extend(leases.get(name).map(|heard| Op::Delete(Lease::path(name), Some(heard.version))));
    }
    if write.make_lease {
        let data = records::encode(&lease(write.record.epoch, term, 0))?;
        ops.push(Op::Create(Lease::path(me), data, CreateMode::Persistent));
    }
    Ok(ops)
}
