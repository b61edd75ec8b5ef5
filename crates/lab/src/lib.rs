//! A real cluster on one machine: each node is a set of namespaces with its own libvirtd, its own member of a ZooKeeper
//! ensemble and its own `droverd`; its guests are real QEMU processes.
//!
//! Power-off is honest: the links vanish first, then PID 1 and with it every process, then the network namespace. Links
//! can be cut either way. Several labs can be up at once: everything of a lab carries its id, which comes from its
//! folder.
//!
//! The `drover-lab` command is a thin layer over this library, and the end-to-end tests use it too.

mod boot;
mod demo;
mod domain;
mod fabric;
pub mod guest;
mod lab;
mod node;
mod process;
mod tools;
mod zookeeper;

pub use boot::boot as boot_node_entry;
pub use demo::{demo_down, demo_up};
pub use domain::Domain;
pub use fabric::{Cut, Net};
pub use lab::{Lab, Progress, Shape, Spec};
pub use node::{Node, Service};
pub use rustix::process::Signal;
pub use tools::{LabError, Result};
pub use zookeeper::Ensemble;
