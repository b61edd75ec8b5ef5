//! Pure decision functions: state in, next step out. No I/O, no clock, no async, no randomness; ties are broken by
//! name.
//!
//! * [`vm`]: the next step of a VM's node for it.
//! * [`admit`]: validates requests about a VM, and computes its new record.
//! * [`node`]: validates requests about a node.
//! * [`moves`]: which moves are allowed, and in which order they run. [`arrivals`]: which moves a target accepts.
//!   [`drain`]: evacuates a node, and brings its VMs home.
//! * [`primary`]: the handoff protocol of the primary's role, and who is eligible.
//! * [`place`]: the placement of a VM, with the reasons against each other node.
//! * [`bmc`]: whether a node's BMC would cut its power, and who could ask it to.
//! * [`capacity`]: allocated and free resources of the nodes; each figure is defined here, once.
//! * [`check`]: who checks a new definition.
//! * [`clash`]: two VMs with something that only one may have.
//! * [`condemned`]: whether a node's power may be cut at any moment.
//! * [`consoles`]: when the console logs of deleted VMs go.
//! * [`disks`]: disk files that belong to one VM only.
//! * [`liveness`]: transitions of the nodes' daemons: up, down, silent.
//! * [`fence`]: which node is suspected to be off, and what becomes of its fence. [`recover`]: what becomes of its VMs
//!   once that is proved. [`returning`]: what a node is that comes back afterwards.
//! * [`standing`]: what the loss of each node would mean now.
//! * [`health`]: the health of the cluster, and its problems.

pub mod admit;
pub mod arrivals;
pub mod bmc;
pub mod capacity;
pub mod check;
pub mod clash;
pub mod condemned;
pub mod consoles;
pub mod disks;
pub mod drain;
pub mod existing;
pub mod faults;
pub mod fence;
pub mod health;
pub mod import;
pub mod liveness;
pub mod moves;
pub mod node;
pub mod place;
pub mod primary;
pub mod recover;
pub mod returning;
pub mod selffence;
pub mod standing;
#[cfg(test)]
mod testing;
pub mod vm;
