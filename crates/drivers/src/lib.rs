//! Drivers for what is outside the process: hypervisor, network, power, disk files, log files, host facts.
//!
//! The hypervisor, the network, the power of machines and the disks are each a small trait with a real implementation
//! and a fake.

pub mod console;
pub mod host;
pub mod host_network;
pub mod hypervisor;
pub mod power;
pub mod storage;
