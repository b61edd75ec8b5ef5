//! Every type that Drover stores or sends, its validation, and its states; no I/O.
//!
//! * [`name`], [`path`], [`units`], [`obs`]: the words that everything else is spelled with.
//! * [`vm`], [`node`], [`cluster`]: the records. [`domain`]: the libvirt XML inside a VM's record.
//! * [`view`]: all records of a cluster, decoded.
//! * [`wire`]: what the HTTP API takes and answers.
//! * [`dice`]: chance from a seed, for simulation.

pub mod cluster;
pub mod dice;
pub mod domain;
pub mod name;
pub mod node;
pub mod obs;
pub mod path;
pub mod units;
pub mod view;
pub mod vm;
pub mod wire;

pub use cluster::{ClusterConfig, Fault, Token, TokenRole};
pub use dice::Dice;
pub use domain::{Definition, DomainType};
pub use name::{BadName, NodeName, TokenName, VmName};
pub use node::{CoordinatorState, DaemonState, DomainState, NodeRecord, NodeSession, NodeStatus, Role, UnknownWord};
pub use obs::Obs;
pub use path::{BadPath, RecordPath, layout};
pub use units::{Bytes, Mono, WallTime};
pub use view::{ClusterView, NodeView, Stored, VmView};
pub use vm::{AtRest, Claim, Demand, Epoch, Generation, OffReason, RunState, VmRecord, VmState, VmStatus};
