//! Errors of store calls, by what the caller knows of the outcome.

use drover_model::{RecordPath, Unreadable};

/// Why a store call failed.
///
/// All but [`StoreError::Unknown`] are definite: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The record does not exist.
    #[error("there is no record {0}")]
    NotFound(RecordPath),
    /// The record exists already.
    #[error("record {0} exists already")]
    Exists(RecordPath),
    /// The record's version is not the expected one: it was changed concurrently.
    #[error("record {0} was changed concurrently")]
    Conflict(RecordPath),
    /// The record has children and cannot be deleted.
    #[error("record {0} has children")]
    NotEmpty(RecordPath),
    /// The parent does not exist, or is ephemeral and cannot have children.
    #[error("the parent of record {0} does not exist or is ephemeral")]
    NoParent(RecordPath),
    /// An operation of a transaction was refused, so none took effect.
    #[error("operation {index} of a transaction was refused: {cause}")]
    Refused {
        /// Index of the operation, from 0.
        index: usize,
        /// Why: one of the definite errors above.
        cause: Box<StoreError>,
    },
    /// The data exceeds the store's limit.
    #[error("{what} is too large for the store: {size} bytes; the limit is {limit} bytes")]
    TooLarge {
        /// Path of the record; of the first one in a transaction.
        what: String,
        /// Size in bytes; the sum in a transaction.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The session was closed; a new handle is needed.
    #[error("the session with the store is closed")]
    Closed,
    /// The record is there, and this version of Drover cannot read it: nothing may be decided on it, nor may it be
    /// written.
    #[error("record {path} is {why}")]
    Unreadable {
        /// The record.
        path: RecordPath,
        /// Why not.
        why: Box<Unreadable>,
    },
    /// The store's files or answers are invalid, or it cannot be opened.
    #[error("the store cannot be used: {0}")]
    Broken(String),
    /// The change may or may not have taken effect. Look it up before deciding anything.
    #[error("store call with unknown outcome: {what}: {why}")]
    Unknown {
        /// The call and its path.
        what: String,
        /// What happened instead of an answer.
        why: String,
    },
}

impl StoreError {
    /// Whether it is certain that nothing was changed.
    pub fn is_definite(&self) -> bool {
        !matches!(self, StoreError::Unknown { .. })
    }

    /// Whether a concurrent change is the cause: a retry from the read on may succeed.
    pub fn is_conflict(&self) -> bool {
        match self {
            StoreError::Conflict(_) | StoreError::Exists(_) | StoreError::NotFound(_) | StoreError::NotEmpty(_) => true,
            StoreError::Refused { cause, .. } => cause.is_conflict(),
            _ => false,
        }
    }
}
