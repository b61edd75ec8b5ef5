//! Typed records over the store's bytes: each kind is read and written by its key ([`RecordKind`]). What is written
//! gets the operation that it belongs to ([`crate::operation`]).

use crate::operation::stamped;
use drover_model::{RecordKind, RecordPath, Stored, Version, record::Writer};
use drover_store::{CreateMode, Op, Record, Store, StoreError};
use serde::Serialize;

/// Reads and decodes one record.
///
/// # Errors
/// Those of the store; [`StoreError::Unreadable`] when the record cannot be decoded: then nothing may be decided on it,
/// nor may it be written.
pub async fn read<T: RecordKind>(store: &dyn Store, key: &T::Key) -> Result<Option<Stored<T>>, StoreError> {
    let path = T::path(key);
    let Some(record) = store.get(&path).await? else { return Ok(None) };
    decode(&path, &record.data, record.version).map(Some)
}

/// Like [`read`], for a report, which its one writer may replace at any time: from one that cannot be decoded, what can
/// be read is taken.
///
/// # Errors
/// See [`read`]; [`StoreError::Unreadable`] only if nothing of it can be read.
pub async fn read_report<T: RecordKind>(store: &dyn Store, key: &T::Key) -> Result<Option<Stored<T>>, StoreError> {
    let Some(record) = store.get(&T::path(key)).await? else { return Ok(None) };
    decode_report(key, &record).map(Some)
}

/// Decodes a report that was read, or what can be read of it.
///
/// # Errors
/// See [`read_report`].
pub fn decode_report<T: RecordKind>(key: &T::Key, record: &Record) -> Result<Stored<T>, StoreError> {
    Stored::decode(&record.data, record.version).or_else(|why| match T::salvage(key, &why.document) {
        Some(value) => Ok(Stored::new(value, record.version)),
        None => Err(StoreError::Unreadable { path: T::path(key), why: Box::new(why) }),
    })
}

/// Decodes a record.
///
/// # Errors
/// See [`read`].
pub fn decode<T: RecordKind>(path: &RecordPath, data: &[u8], version: Version) -> Result<Stored<T>, StoreError> {
    Stored::decode(data, version).map_err(|why| StoreError::Unreadable { path: path.clone(), why: Box::new(why) })
}

/// Encodes a new record. Cannot fail for our types, which have no maps with unusual keys and no fallible serialisers;
/// an error would be a bug, and is returned instead of ending the daemon.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Broken(format!("a record cannot be encoded: {error}"))
}

fn replaced<T: RecordKind>(old: &Stored<T>, value: &T) -> Result<Vec<u8>, StoreError> {
    old.replaced_by(&stamped(Some(&old.value), value)).map_err(unwritable)
}

/// The step of a `multi` that creates a persistent record.
pub fn create_op<T: RecordKind>(key: &T::Key, value: &T) -> Result<Op, StoreError> {
    Ok(Op::Create(T::path(key), encode(&*stamped(None, value))?, CreateMode::Persistent))
}

/// The step of a `multi` that replaces a record which was read. Fields of a newer version are kept.
pub fn set_op<T: RecordKind>(key: &T::Key, old: &Stored<T>, value: &T) -> Result<Op, StoreError> {
    Ok(Op::Set(T::path(key), replaced(old, value)?, old.version))
}

/// The step of a `multi` that fails if the record has another version.
pub fn check_op<T: RecordKind>(key: &T::Key, version: Version) -> Op {
    Op::Check(T::path(key), version)
}

/// The step of a `multi` that deletes a record; with a version, only that one.
pub fn delete_op<T: RecordKind>(key: &T::Key, version: Option<Version>) -> Op {
    Op::Delete(T::path(key), version)
}

/// Replaces a record which was read. Returns its new version.
pub async fn set<T: RecordKind>(
    store: &dyn Store,
    key: &T::Key,
    old: &Stored<T>,
    value: &T,
) -> Result<Version, StoreError> {
    store.set(&T::path(key), replaced(old, value)?, old.version).await
}

/// Creates a persistent record, or replaces an existing one, whoever wrote it and whether or not it can be read. For
/// reports that their one writer makes from scratch each time: what a newer daemon of the same node wrote is out of
/// date, so nothing of it is kept.
pub async fn put<T: RecordKind>(store: &dyn Store, key: &T::Key, value: &T) -> Result<(), StoreError> {
    const { assert!(matches!(T::WRITER, Writer::Node), "only reports have one writer") };
    let data = encode(value)?;
    let path = T::path(key);
    match store.get(&path).await? {
        Some(record) => store.set(&path, data, record.version).await.map(|_| ()),
        None => store.create(&path, data, CreateMode::Persistent).await.map(|_| ()),
    }
}

/// Creates a record unless it exists. Its parent must exist.
pub async fn ensure(store: &dyn Store, path: &RecordPath, data: Vec<u8>) -> Result<(), StoreError> {
    match store.create(path, data, CreateMode::Persistent).await {
        Ok(_) | Err(StoreError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
