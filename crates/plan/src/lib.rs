//! Pure decisions: what to do next, given what is known. No I/O, no clock, no async, no randomness; ties are broken by
//! name.
//!
//! * [`vm`]: what a VM's node must do next for it.
//! * [`admit`]: whether a request about a VM is allowed, and what its record becomes.
//! * [`node`]: whether a request about a node is allowed.
//! * [`moves`]: which moves are allowed, and whose turn it is. [`arrivals`]: which a node lets come to it. [`drain`]:
//!   emptying a node, and bringing its VMs home.
//! * [`primary`]: what a coordinator does for the role of the primary, and who may have it.
//! * [`place`]: which node a VM goes to, and why not the others.
//! * [`capacity`]: what of a node is given out; each figure is defined here, once.
//! * [`disks`]: which files belong to a VM alone.
//! * [`liveness`]: when a node's daemon comes, goes or falls silent.
//! * [`health`]: how well the cluster is, and what it lacks.

pub mod admit;
pub mod arrivals;
pub mod capacity;
pub mod disks;
pub mod drain;
pub mod health;
pub mod liveness;
pub mod moves;
pub mod node;
pub mod place;
pub mod primary;
pub mod vm;
