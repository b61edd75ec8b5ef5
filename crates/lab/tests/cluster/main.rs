//! End-to-end tests on real clusters. They use the command line as an administrator does, and check libvirt's own lists
//! and the guests' consoles.
//!
//! What was waited for at one node is seen at another a moment later, and what follows from it (a clean-up, a fault, a
//! report) later still. So every such thing is waited for, with a deadline ([`support::Cluster::until`] and its kin);
//! and no count and no limit depends on how fast the machine is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod abuse;
mod churn;
mod daemons;
mod definitions;
mod disks;
mod ends;
mod events;
mod fence;
mod flush;
mod guests;
mod hung;
mod import;
mod keeps;
mod life;
mod logs;
mod moves;
mod nodes;
mod paused;
mod power;
mod primary;
mod proof;
mod redfish;
mod rounds;
mod scripts;
mod snapshots;
mod strays;
mod support;
mod watch;
mod watchdog;
