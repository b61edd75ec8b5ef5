//! Records, compare-and-set, watches, sessions and locks, over ZooKeeper, an embedded database or memory.
//!
//! All state that the daemons share goes through the [`Store`] trait. Its three back ends behave alike, which the test
//! suite `conformance` checks:
//!
//! | back end | for | durable | shared by |
//! |---|---|---|---|
//! | [`zookeeper`] | a cluster | yes | all nodes |
//! | [`embedded`] | a cluster of one node | yes | one process |
//! | `memory` | simulation and fast tests | no | one process |
//!
//! `conformance` and `memory` need the feature `testing`.
//!
//! Guarantees of the trait in short (see each method):
//!
//! * Records form a tree, as in ZooKeeper: a record has data *and* children, and its parent must exist.
//! * Every change of a record's data increments its [`Version`]. Writes are compare-and-set: they name the version that
//!   they replace.
//! * [`Store::multi`] is a transaction: all of its operations take effect, or none.
//! * A watch notifies that something may have changed; it does not carry the data. The subscriber reads it.
//! * The outcome of a call is either *definite* (done, or not done and why) or [`StoreError::Unknown`], and then the
//!   caller must look it up. The store never retries a write by itself.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod embedded;
mod error;
mod local;
pub mod lock;
mod many;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod mirror;
mod subtree;
mod tree;
mod types;
pub mod zookeeper;

pub use error::StoreError;
pub use many::Found;
pub use types::{CreateMode, Op, Record, Session, SessionState, Wakeup, Watch};

use async_trait::async_trait;
use drover_model::RecordPath;
pub use drover_model::Version;
use tokio::sync::watch;

/// The result of every store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A session with the shared, versioned tree of records.
///
/// A handle is one session: its ephemeral records are deleted when it ends. It can be shared as `Arc<dyn Store>`. Every
/// method may be cancelled by dropping its future; a cancelled write may or may not take effect.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one record; `None` if it does not exist. May lag behind the latest write of *another* session (as a
    /// ZooKeeper follower may), but never behind a write or a read of this session.
    async fn get(&self, path: &RecordPath) -> Result<Option<Record>>;

    /// Names of the direct children of a record, sorted. Fails with [`StoreError::NotFound`] if the record does not
    /// exist.
    async fn children(&self, path: &RecordPath) -> Result<Vec<String>>;

    /// Reads many records, with the names of their children where the flag is `true`. Not a snapshot: records may
    /// change between the reads, and one that is deleted meanwhile counts as absent; but the names are at least as new
    /// as the record's [`Record::below`]. A read without an answer is retried alone, so that it does not fail all the
    /// others.
    async fn read_many(&self, wanted: &[(RecordPath, bool)]) -> Result<Vec<Found>> {
        many::one_by_one(self, wanted).await
    }

    /// Creates a record and returns its path. The sequential modes append a ten-digit number to `path`, which increases
    /// with every such creation below the same parent.
    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> Result<RecordPath>;

    /// Replaces a record's data if its version is `expected` (compare-and-set). Returns the new version.
    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> Result<Version>;

    /// Deletes a record that has no children; with `expected`, only if it has that version.
    async fn delete(&self, path: &RecordPath, expected: Option<Version>) -> Result<()>;

    /// Executes `ops` in order as one transaction. If one fails, none takes effect, and the error is
    /// [`StoreError::Refused`] with its index and cause. At most 1 MB of data in total.
    async fn multi(&self, ops: Vec<Op>) -> Result<()>;

    /// Makes earlier writes of other sessions visible to this session's next read.
    async fn sync(&self) -> Result<()>;

    /// Subscribes to changes of `path` and everything below it. The [`Watch`] lasts until it is dropped, across
    /// reconnects (each of which delivers [`Wakeup::Everything`]) and session expiry.
    async fn watch(&self, path: &RecordPath) -> Result<Watch>;

    /// State of this session as known on this side.
    fn session(&self) -> watch::Receiver<Session>;

    /// Ends the session and deletes its ephemeral records. Later calls fail with [`StoreError::Closed`].
    async fn close(&self);

    /// Moves a record and everything below it in one transaction. Data is kept, versions start again at 0. Fails with
    /// [`StoreError::Conflict`] if the subtree is changed concurrently, and with [`StoreError::Exists`] if `to` exists.
    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> Result<()>;
}
