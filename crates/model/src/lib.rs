//! All types that Drover stores or sends, with their validation and states; no I/O.
//!
//! * [`name`], [`path`], [`units`], [`obs`], [`words`]: basic types.
//! * [`vm`], [`placed`], [`meta`], [`node`], [`fence`], [`primary`], [`cluster`]: the records. [`domain`]: the libvirt
//!   XML inside a VM's record.
//! * [`console`], [`guests`], [`image`]: what is found on a node.
//! * [`replaced`]: disks that a guest writes to instead of those in its definition.
//! * [`operation`]: what belongs together, because it was asked for or decided at once.
//! * [`bmc`]: what controls a node's power. [`watchdog`]: what resets a machine that is cut off.
//! * [`record`]: kinds of records and their encoding. [`shelf`]: the list of the kinds, and the decoded records of
//!   each.
//! * [`view`]: all records of a cluster, joined. [`usage`]: allocated resources of each node.
//! * [`wire`]: requests and answers of the HTTP API.
//! * [`dice`]: seeded random numbers, for simulation. `testing` (with the feature of that name only): nodes and VMs for
//!   tests.

pub mod bmc;
pub mod cluster;
pub mod console;
pub mod departed;
pub mod dice;
pub mod domain;
pub mod fence;
pub mod guests;
pub mod image;
pub mod meta;
pub mod name;
pub mod node;
pub mod obs;
pub mod operation;
pub mod path;
pub mod paused;
pub mod placed;
pub mod primary;
pub mod record;
pub mod replaced;
pub mod shelf;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod units;
pub mod usage;
pub mod view;
pub mod vm;
pub mod watchdog;
pub mod wire;
pub mod words;

pub use bmc::{Bmc, BmcAccess, BmcRecord, BmcReport, CommandInterface, PowerState, Secret, Trust};
pub use cluster::{AfterProof, ClusterConfig, Fault, MoveLimits, OnReturn, Stall, Token, TokenRole};
pub use console::ConsoleLog;
pub use departed::Departed;
pub use dice::Dice;
pub use domain::{Definition, DomainType};
pub use fence::{Evidence, EvidenceKind, Fence, FencePhase};
pub use guests::Guests;
pub use meta::{BadMeta, MetaChange, MigrationMethod, Selector, VmMeta};
pub use name::{BadName, NodeName, ProfileName, TokenName, VmName};
pub use node::{
    CoordinatorState, DaemonState, DrainReport, DutyReport, Foreign, NodeRecord, NodeSession, NodeState, NodeStatus,
    RemovedNode, Role, Stray,
};
pub use obs::Obs;
pub use operation::{Operation, OperationId};
pub use path::{BadPath, RecordPath, layout};
pub use paused::{DiskError, DiskProblem, Paused, PausedBy};
pub use placed::{Placed, PlacedBy};
pub use primary::{Cidr, FailedHandoff, FloatingAddress, Handoff, Lease, Phase, Primary};
pub use record::{Kept, Only, RecordKind, Stored, Unreadable, Version};
pub use replaced::{Replaced, ReplacedDisk};
pub use shelf::{Shelf, Shelved};
pub use units::{Bytes, Mono, WallTime};
pub use usage::Usage;
pub use view::{ClusterView, NodeView, VmView};
pub use vm::{
    Arrival, AtRest, Claim, Demand, Epoch, Generation, How, MoveFailure, MoveKind, NameEntry, OffReason, Progress,
    RunState, StartRefused, Transit, VmRecord, VmState, VmStatus,
};
pub use watchdog::{Promise, WatchdogReport};
pub use words::UnknownWord;
