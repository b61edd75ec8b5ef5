//! The primary's record and the leases: reads, and the changes that `plan` asks for.

use crate::records;
use drover_model::{
    Lease, NodeName, Only, Primary, RecordKind, Stored, Version, layout, primary::PRIMARY_SCHEMA, vm::Epoch,
};
use drover_plan::primary::{Heard, Write};
use drover_store::{CreateMode, Op, Record, Store, StoreError};
use std::{collections::BTreeMap, iter, sync::Arc, time::Duration};

/// The result of a read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// The record; `None`: it does not exist yet; an error: it cannot be read, because a newer daemon wrote it.
    pub(super) record: Result<Option<Stored<Primary>>, StoreError>,
    /// The leases.
    pub(super) leases: BTreeMap<NodeName, Read>,
}

/// A lease with its version and revision.
pub(super) type Read = (Version, i64, Lease);

/// Reads the record first and then the leases, so that a lease named by the record is missing only if it has ended.
/// `known`: names of the leases known so far, which are read in one request together with the list of names.
pub(super) async fn read(store: Arc<dyn Store>, sync: bool, known: Vec<NodeName>) -> Result<Reading, StoreError> {
    if sync {
        store.sync().await?;
    }
    let record = match records::read(&*store, &Only).await {
        Err(error) if !matches!(error, StoreError::Unreadable { .. }) => return Err(error),
        record => record,
    };
    let folder = (layout::leases(), true);
    let wanted: Vec<_> = iter::once(folder).chain(known.iter().map(|name| (Lease::path(name), false))).collect();
    let mut found = store.read_many(&wanted).await?.into_iter();
    let names = found.next().map(|(_, names)| names).unwrap_or_default();
    let mut leases = BTreeMap::new();
    for (name, (record, _)) in known.iter().zip(found) {
        leases.extend(decode(name, record)?.map(|lease| (name.clone(), lease)));
    }
    for name in names.iter().filter_map(|name| NodeName::new(name).ok()).filter(|name| !known.contains(name)) {
        let record = store.get(&Lease::path(&name)).await?;
        leases.extend(decode(&name, record)?.map(|lease| (name, lease)));
    }
    Ok(Reading { record, leases })
}

/// Decodes a lease, if there is one.
fn decode(name: &NodeName, found: Option<Record>) -> Result<Option<Read>, StoreError> {
    let Some(found) = found else { return Ok(None) };
    let lease: Stored<Lease> = records::decode_report(name, &found)?;
    Ok(Some((found.version, found.revision, lease.value)))
}

fn lease(epoch: Epoch, term: Option<Duration>, beat: u64) -> Lease {
    let term_ms = term.map_or(0, |term| u64::try_from(term.as_millis()).unwrap_or(u64::MAX));
    Lease { schema: PRIMARY_SCHEMA, epoch, term_ms, beat }
}

/// Renews this node's lease, if it still has this version; returns the new version. It is made from scratch each time:
/// what a newer daemon of this node promised in it is not kept.
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

/// The transaction that changes the record and the leases.
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
