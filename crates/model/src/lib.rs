//! Every type that Drover stores or sends, its validation, and its states; no I/O.
//!
//! * [`name`], [`path`], [`units`], [`obs`], [`words`]: the words that everything else is spelled with.
//! * [`vm`], [`meta`], [`node`], [`primary`], [`cluster`]: the records. [`domain`]: the libvirt XML inside a VM's
//!   record.
//! * [`record`]: what a kind of record is. [`shelf`]: the list of the kinds, and the decoded records of each.
//! * [`view`]: all records of a cluster, joined. [`usage`]: what of each node is given out.
//! * [`wire`]: what the HTTP API takes and answers.
//! * [`dice`]: chance from a seed, for simulation.

pub mod cluster;
pub mod dice;
pub mod domain;
pub mod meta;
pub mod name;
pub mod node;
pub mod obs;
pub mod path;
pub mod primary;
pub mod record;
pub mod shelf;
pub mod units;
pub mod usage;
pub mod view;
pub mod vm;
pub mod wire;
pub mod words;

pub use cluster::{ClusterConfig, Fault, Limits, Stall, Token, TokenRole};
pub use dice::Dice;
pub use domain::{Definition, DomainType};
pub use meta::{BadMeta, MetaChange, MigrationMethod, Selector, VmMeta};
pub use name::{BadName, NodeName, TokenName, VmName};
pub use node::{
    CoordinatorState, DaemonState, DomainState, DrainReport, DutyReport, NodeRecord, NodeSession, NodeStatus, Role,
};
pub use obs::Obs;
pub use path::{BadPath, RecordPath, layout};
pub use primary::{Cidr, FailedHandoff, FloatingAddress, Handoff, Lease, Phase, Primary};
pub use record::{Kept, Only, RecordKind, Stored, Unreadable, Version};
pub use shelf::{Shelf, Shelved};
pub use units::{Bytes, Mono, WallTime};
pub use usage::Usage;
pub use view::{ClusterView, NodeView, VmView};
pub use vm::{
    Arrival, AtRest, Claim, Demand, Epoch, Generation, How, MoveFailure, MoveKind, NameEntry, OffReason, Progress,
    RunState, VmRecord, VmState, VmStatus,
};
pub use words::UnknownWord;
