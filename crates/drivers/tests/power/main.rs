//! The power drivers against an IPMI simulator (OpenIPMI's `ipmi_sim`) and a Redfish service with TLS. No root needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests end by panicking")]

mod ipmi;
mod redfish;
