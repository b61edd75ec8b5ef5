//! Typed records over the store's bytes.

use drover_model::{RecordPath, Stored};
use drover_store::{CreateMode, Op, Store, StoreError, Version};
use serde::{Serialize, de::DeserializeOwned};

/// Reads and decodes one record.
pub async fn read<T: DeserializeOwned>(store: &dyn Store, path: &RecordPath) -> Result<Option<Stored<T>>, StoreError> {
    let Some(record) = store.get(path).await? else { return Ok(None) };
    match serde_json::from_slice(&record.data) {
        Ok(value) => Ok(Some(Stored { value, version: record.version.0 })),
        Err(error) => Err(StoreError::Broken(format!("record {path} cannot be read: {error}"))),
    }
}

/// The bytes of a record. Cannot fail for our types, which have no maps with odd keys and no fallible serialisers; an error
/// would be a defect, and is reported as one instead of ending the daemon.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Broken(format!("a record cannot be written: {e}")))
}

/// The step of a `multi` that creates a persistent record.
pub fn create_op<T: Serialize>(path: RecordPath, value: &T) -> Result<Op, StoreError> {
    Ok(Op::Create(path, encode(value)?, CreateMode::Persistent))
}

/// The step of a `multi` that replaces a record of that version.
pub fn set_op<T: Serialize>(path: RecordPath, value: &T, version: i64) -> Result<Op, StoreError> {
    Ok(Op::Set(path, encode(value)?, Version(version)))
}

/// Creates a persistent record, or replaces the one that is there, whoever wrote it. For records with one writer only.
pub async fn put<T: Serialize>(store: &dyn Store, path: &RecordPath, value: &T) -> Result<(), StoreError> {
    let data = encode(value)?;
    match store.get(path).await? {
        Some(record) => store.set(path, data, record.version).await.map(|_| ()),
        None => store.create(path, data, CreateMode::Persistent).await.map(|_| ()),
    }
}

/// Makes sure that a record exists; an existing one is left as it is. Its parent must exist.
pub async fn ensure(store: &dyn Store, path: &RecordPath, data: Vec<u8>) -> Result<(), StoreError> {
    match store.create(path, data, CreateMode::Persistent).await {
        Ok(_) | Err(StoreError::Exists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
