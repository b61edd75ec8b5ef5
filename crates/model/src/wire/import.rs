//! A domain of a node's libvirt that becomes a VM, in the API.

use super::{Changed, Judged};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A domain that has become a VM, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImportedVm {
    /// For users.
    pub message: String,
    /// Nothing was changed: it was only asked what would become of it.
    pub dry_run: bool,
    /// The VM's name.
    pub name: String,
    /// The VM's UUID.
    pub uuid: String,
    /// The version of the VM's record.
    pub version: i64,
    /// The node that it is on.
    pub node: String,
    /// Its wanted state: `start` if its guest is in memory, else `stop`.
    pub state: String,
    /// What holds the data of each of its disks, by the disk's name in the guest.
    pub disks: BTreeMap<String, String>,
    /// What Drover changes, in sentences.
    pub changes: Vec<String>,
    /// What an administrator should know, in sentences.
    pub notes: Vec<String>,
    /// Whether it could move to the other nodes as it is now: live if its guest is in memory.
    pub nodes: Vec<Judged>,
}

impl ImportedVm {
    /// The change, for whoever waits until the guest is Drover's.
    pub fn changed(&self) -> Changed {
        let ImportedVm { message, name, uuid, version, .. } = self.clone();
        Changed { message, name, uuid, version, to: None, diff: None, warnings: Vec::new() }
    }
}
