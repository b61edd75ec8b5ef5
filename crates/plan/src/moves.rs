//! Moves of VMs between nodes.
//!
//! * [`admission`]: validates requests, and computes the new record.
//! * `sender`: whether the node that has to send the VM is there.
//! * `target`: whether the target of a move can take the VM, and what it answered. Used at both ends: by [`turn()`],
//!   and by the target before it answers ([`crate::arrivals`]).
//! * [`turn`](mod@turn): which move runs now.
//! * [`back`](mod@back): where a VM goes that cannot be started where it was moved to.
//! * [`supervision`]: live migrations that do not complete in time.

pub mod admission;
pub mod back;
pub(crate) mod sender;
pub mod supervision;
pub(crate) mod target;
pub mod turn;

pub use admission::{Refusal, Request, relocate};
pub use back::{Back, Return, back};
pub use supervision::{Sent, Supervision, supervise};
pub use turn::{Turn, turn};

#[cfg(test)]
mod tests;
