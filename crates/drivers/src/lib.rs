//! The world outside: hypervisor, network, console files, host facts. Each a small trait, the real thing and a fake.

pub mod console;
pub mod host;
pub mod hypervisor;
pub mod network;
pub mod storage;
