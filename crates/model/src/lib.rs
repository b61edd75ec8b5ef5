//! Every type that Drover stores or sends, its validation, and its states; no I/O.

pub mod domain;
pub mod name;
pub mod obs;
pub mod path;
pub mod units;
pub mod vm;

pub use name::{BadName, NodeName, TokenName, VmName};
pub use obs::Obs;
pub use path::{BadPath, RecordPath, layout};
pub use units::{Bytes, Mono, WallTime};
pub use vm::{AtRest, Claim, Demand, Epoch, Generation, OffReason, RunState, VmRecord, VmState, VmStatus};
