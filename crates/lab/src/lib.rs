//! A real Drover cluster on one machine, for people, end-to-end tests and benchmarks.
//!
//! Each node is a set of Linux namespaces with its own libvirtd, ZooKeeper member and `droverd`. Its guests are real
//! QEMU processes. Three networks connect the nodes.
//!
//! A power-off is realistic: the links disappear first, then PID 1 and with it all processes, then the network
//! namespace. Links can be cut in either direction. Several labs can be up at once: the namespaces and processes of a
//! lab carry its id, which is derived from its folder.
//!
//! | module | content |
//! |---|---|
//! | `lab` | a lab as a whole: its folder and nodes, up and down |
//! | `node` | one node, from outside: power, services, commands in it |
//! | `boot` | one node, from inside: what runs before its PID 1 |
//! | `bmc` | a node's management controller, which cuts its power: by IPMI or Redfish |
//! | `redfish`, [`https`] | a double of a Redfish service, and its server; the drivers' tests use them, too |
//! | `watchdog` | what resets a node that does not pet it |
//! | `watch` | a watcher: does a guest run twice, stop without need, is an address on two nodes |
//! | `rounds` | rounds of random faults, under the eyes of a watcher |
//! | `fabric` | the networks, and cuts of links |
//! | [`guest`], `domain` | the guest image, and a domain XML for it |
//! | `zookeeper` | ZooKeeper members, in nodes or alone for the store's tests |
//! | `process`, `tools` | finding and killing the lab's processes; running programs |
//! | `demo` | `make demo`: one node without configuration |
//!
//! The program `drover-lab` is a thin layer over this library.

mod bmc;
mod boot;
mod demo;
mod domain;
mod fabric;
pub mod guest;
pub mod https;
mod lab;
mod node;
mod process;
mod redfish;
mod rounds;
mod tools;
mod watch;
mod watchdog;
mod zookeeper;

pub use bmc::{BMC_PASSWORD, BMC_USER, BmcKind, Quirk, redfish_bmc};
pub use boot::boot as boot_node_entry;
pub use demo::{demo_down, demo_up};
pub use domain::Domain;
pub use fabric::{Cut, Net};
pub use https::{Answer, Identity};
pub use lab::{Lab, Progress, Shape, Spec};
pub use node::{Node, Service};
pub use redfish::Service as Redfish;
pub use rounds::{Report, Rounds};
pub use rustix::process::Signal;
pub use tools::{LabError, Result};
pub use watch::Watch;
pub use watchdog::{WATCHDOG, watchdog};
pub use zookeeper::Ensemble;
