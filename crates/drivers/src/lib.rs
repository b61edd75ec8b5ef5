//! Drivers for what is outside the process: hypervisor, network, power and presence of other machines, this machine's
//! watchdog, disk files, log files, host facts.
//!
//! The hypervisor, the network, the power and presence of machines, the watchdog and the disks are each a small trait
//! with a real implementation and a fake.

pub mod console;
pub mod host;
pub mod host_network;
pub mod hypervisor;
pub mod power;
pub mod presence;
pub mod storage;
pub mod watchdog;
