//! What can go wrong in a store call, split by what the caller then knows.

use drover_model::RecordPath;

/// Why a store call did not do what was asked.
///
/// Everything but [`StoreError::Unknown`] is definite: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such record.
    #[error("there is no record {0}")]
    NotFound(RecordPath),
    /// There already is such a record.
    #[error("record {0} exists already")]
    Exists(RecordPath),
    /// The record was changed since it was read.
    #[error("record {0} was changed by somebody else meanwhile")]
    Conflict(RecordPath),
    /// The record has children and cannot be deleted.
    #[error("record {0} has records below it")]
    NotEmpty(RecordPath),
    /// The parent is missing, or is ephemeral, and cannot have children.
    #[error("the parent of record {0} does not exist, or may not have children")]
    NoParent(RecordPath),
    /// A step of a `multi` was refused, so none was done. `index` counts from 0.
    #[error("step {index} of an atomic change was refused: {cause}")]
    Refused {
        /// Which of the operations.
        index: usize,
        /// Why: one of the definite errors above.
        cause: Box<StoreError>,
    },
    /// The data is larger than the store takes.
    #[error("{what} is too large for the store: {size} bytes, {limit} are accepted")]
    TooLarge {
        /// What was to be written.
        what: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The session is over; a new one is needed. The call did nothing.
    #[error("the session with the store has ended")]
    Closed,
    /// The store's files or answers make no sense.
    #[error("the store is damaged or of another kind: {0}")]
    Broken(String),
    /// No definite answer: the change may or may not have happened. Look it up before deciding anything.
    #[error("no definite answer from the store to {what}: {why}")]
    Unknown {
        /// The call and its path.
        what: String,
        /// What was seen instead of an answer.
        why: String,
    },
}

impl StoreError {
    /// Whether the caller knows that nothing was changed.
    pub fn is_definite(&self) -> bool {
        !matches!(self, StoreError::Unknown { .. })
    }

    /// Whether somebody else was quicker: reading again and deciding again may help.
    pub fn is_conflict(&self) -> bool {
        match self {
            StoreError::Conflict(_) | StoreError::Exists(_) | StoreError::NotFound(_) | StoreError::NotEmpty(_) => true,
            StoreError::Refused { cause, .. } => cause.is_conflict(),
            _ => false,
        }
    }
}
