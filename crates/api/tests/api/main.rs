//! The HTTP API of a whole node, with an in-memory store and a fake hypervisor.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests end by panicking")]

mod abuse;
mod bad_input;
mod behind;
mod disks;
mod drain;
mod events;
mod fence;
mod gone;
mod import;
mod meta;
mod moves;
mod mutated;
mod openapi;
mod operations;
mod primary;
mod requests;
mod starts;
mod status;
mod strays;
mod support;
mod unattended;
