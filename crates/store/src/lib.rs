//! Records, compare-and-set, watches, sessions and locks, over ZooKeeper, an embedded database or memory.
//!
//! Everything that daemons agree on goes through the [`Store`] trait. Its three back ends behave alike, and
//! `conformance` is the one suite that proves it:
//!
//! | back end | for | durable | shared |
//! |---|---|---|---|
//! | [`zookeeper`] | a cluster | yes | by every node |
//! | [`embedded`] | a cluster of one node | yes | no |
//! | `memory` | simulation and fast tests | no | by every handle in the process |
//!
//! `conformance` and `memory` are there with the feature `testing` only.
//!
//! What the trait promises, in short (each method says more):
//!
//! * The records are a tree, as in ZooKeeper: a record has data *and* children; its parent must exist.
//! * Every change of a record's data raises its [`Version`]; writes name the version that they replace.
//! * [`Store::multi`] changes several records together or none of them.
//! * A watch wakes; it carries no news. After a wake-up one reads what one needs.
//! * An answer is *definite* (it happened, it did not and why) or it is [`StoreError::Unknown`], and then it must be
//!   looked up. Nothing is retried behind the caller's back.

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

/// One session with the shared, versioned tree of records.
///
/// A handle is one session: ephemeral records live as long as it does. Handles are cheap to share (`Arc<dyn Store>`).
/// Every method may be cancelled by dropping its future; a write that was cancelled may or may not have happened.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one record; `None` when there is none. May lag behind the latest write of *another* session (as a
    /// ZooKeeper follower may), never behind a write or a read of this one.
    async fn get(&self, path: &RecordPath) -> Result<Option<Record>>;

    /// The names of the records directly below `path`, sorted. Fails with [`StoreError::NotFound`] if `path` has no
    /// record.
    async fn children(&self, path: &RecordPath) -> Result<Vec<String>>;

    /// Reads many records, each with the names below it where they are asked for (`true`). What vanishes meanwhile is
    /// given as not there; the answers are not of one moment. A read whose answer gets lost is tried again by itself:
    /// it must not cost all the others.
    async fn read_many(&self, wanted: &[(RecordPath, bool)]) -> Result<Vec<Found>> {
        many::one_by_one(self, wanted).await
    }

    /// Creates a record and returns its path: for the sequential modes, `path` with ten digits appended that rise
    /// with every such creation below the same parent.
    async fn create(&self, path: &RecordPath, data: Vec<u8>, mode: CreateMode) -> Result<RecordPath>;

    /// Replaces a record's data if it still has `expected` as its version. Returns the new version.
    async fn set(&self, path: &RecordPath, data: Vec<u8>, expected: Version) -> Result<Version>;

    /// Deletes a record without children; with `expected`, only if it still has that version.
    async fn delete(&self, path: &RecordPath, expected: Option<Version>) -> Result<()>;

    /// All of `ops` in order, as one atomic step, or none of them. A refusal is [`StoreError::Refused`], which says
    /// which operation was refused and why. At most 1 MB of data in all.
    async fn multi(&self, ops: Vec<Op>) -> Result<()>;

    /// Makes every earlier write of other sessions visible to this session's next read.
    async fn sync(&self) -> Result<()>;

    /// Wake-ups for every change at `path` or below, for as long as the [`Watch`] lives: across reconnects (each of
    /// which gives [`Wakeup::Everything`]) and across sessions.
    async fn watch(&self, path: &RecordPath) -> Result<Watch>;

    /// The state of this session, as far as this side knows.
    fn session(&self) -> watch::Receiver<Session>;

    /// Ends the session now, so that its ephemeral records vanish at once. Later calls fail with
    /// [`StoreError::Closed`].
    async fn close(&self);

    /// Moves a record and everything below it to a new place, in one atomic step; every record's data stays, versions
    /// start anew. Fails with [`StoreError::Conflict`] if the subtree changed meanwhile, [`StoreError::Exists`] if `to`
    /// exists.
    async fn rename(&self, from: &RecordPath, to: &RecordPath) -> Result<()>;
}
