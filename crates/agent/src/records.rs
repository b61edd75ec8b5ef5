//! Typed records over the store's bytes: each kind is read and written by its key ([`RecordKind`]).

use drover_model::{RecordKind, RecordPath, Stored, Version};
use drover_store::{CreateMode, Op, Store, StoreError};
use serde::Serialize;

/// Reads and decodes one record.
///
/// # Errors
/// Those of the store; [`StoreError::Broken`] when the record cannot be decoded: then nothing may be decided on it, nor
/// may it be written.
pub async fn read<T: RecordKind>(store: &dyn Store, key: &T::Key) -> Result<Option<Stored<T>>, StoreError> {
    let path = T::path(key);
    let Some(record) = store.get(&path).await? else { return Ok(None) };
    decode(&path, &record.data, record.version).map(Some)
}

/// The same for a record that is only a report, to be replaced by whoever has something to say: one that cannot be
/// decoded is taken for what it still tells.
///
/// # Errors
/// See [`read`]; [`StoreError::Broken`] only for one that tells nothing.
pub async fn read_report<T: RecordKind>(store: &dyn Store, key: &T::Key) -> Result<Option<Stored<T>>, StoreError> {
    let path = T::path(key);
    let Some(record) = store.get(&path).await? else { return Ok(None) };
    match Stored::decode(&record.data, record.version) {
        Ok(stored) => Ok(Some(stored)),
        Err(why) => match T::salvage(key, &why.document) {
            Some(value) => Ok(Some(Stored::new(value, record.version))),
            None => Err(StoreError::Broken(format!("record {path} is {why}"))),
        },
    }
}

/// Decodes a record that was read.
///
/// # Errors
/// See [`read`].
pub fn decode<T: RecordKind>(path: &RecordPath, data: &[u8], version: Version) -> Result<Stored<T>, StoreError> {
    Stored::decode(data, version).map_err(|why| StoreError::Broken(format!("record {path} is {why}")))
}

/// The bytes of a new record. Cannot fail for our types, which have no maps with odd keys and no fallible serialisers;
/// an error would be a defect, and is reported as one instead of ending the daemon.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::Broken(format!("a record cannot be written: {error}"))
}

/// The step of a `multi` that creates a persistent record.
pub fn create_op<T: RecordKind>(key: &T::Key, value: &T) -> Result<Op, StoreError> {
    Ok(Op::Create(T::path(key), encode(value)?, CreateMode::Persistent))
}

/// The step of a `multi` that replaces a record which was read. What a newer version wrote in it stays.
pub fn set_op<T: RecordKind>(key: &T::Key, old: &Stored<T>, value: &T) -> Result<Op, StoreError> {
    Ok(Op::Set(T::path(key), old.replaced_by(value).map_err(unwritable)?, old.version))
}

/// The step of a `multi` that fails when the record has another version by then.
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
    store.set(&T::path(key), old.replaced_by(value).map_err(unwritable)?, old.version).await
}

/// Creates a persistent record.
pub async fn create<T: RecordKind>(store: &dyn Store, key: &T::Key, value: &T) -> Result<(), StoreError> {
    store.create(&T::path(key), encode(value)?, CreateMode::Persistent).await.map(|_| ())
}

/// Creates a persistent record, or replaces the one that is there, whoever wrote it. For records with one writer only.
pub async fn put<T: RecordKind>(store: &dyn Store, key: &T::Key, value: &T) -> Result<(), StoreError> {
    let data = encode(value)?;
    let path = T::path(key);
    match store.get(&path).await? {
        Some(record) => store.set(&path, data, record.version).await.map(|_| ()),
        None => store.create(&path, data, CreateMode::Persistent).await.map(|_| ()),
    }
}

/// Makes sure that a record exists; an existing one is left as it is. Its parent must exist.
pub async fn ensure(store: &dyn Store, path: &RecordPath, data: Vec<u8>) -> Result<(), StoreError> {
    match store.create(path, data, CreateMode::Persistent).await {
        Ok(_) | Err(StoreError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
