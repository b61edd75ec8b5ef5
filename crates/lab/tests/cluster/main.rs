//! Real clusters, end to end: what an administrator does with the command line, seen in libvirt's own lists and on the
//! guests' consoles.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod daemons;
mod flush;
mod guests;
mod life;
mod moves;
mod nodes;
mod primary;
mod support;
