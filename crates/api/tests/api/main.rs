//! The HTTP API of a whole node, on a store in memory and a pretended hypervisor.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod bad_input;
mod drain;
mod meta;
mod moves;
mod mutated;
mod openapi;
mod primary;
mod requests;
mod status;
mod support;
