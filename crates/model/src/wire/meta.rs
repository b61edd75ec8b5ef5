//! VM metadata in the API.

use crate::{name::NodeName, view::VmView};
use serde::{Deserialize, Serialize};

/// A tag of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tag {
    /// Its text.
    pub name: String,
    /// Origin: `user`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is protected from removal.
    pub protected: bool,
}

/// A VM's tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tags {
    /// The VM's name.
    pub name: String,
    /// Its tags, by name.
    pub tags: Vec<Tag>,
}

/// A VM's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Meta {
    /// The VM's name.
    pub name: String,
    /// Nodes that it may run on; empty: all.
    pub node_limit: Vec<String>,
    /// Selector of its node; `none`: the cluster's default.
    pub node_selector: String,
    /// Whether it is started when its node becomes ready; applies once.
    pub node_autostart: bool,
    /// How it is moved; `none`: live, else cold.
    pub migration_method: String,
    /// Maximum downtime in a live migration, in milliseconds.
    pub migration_max_downtime: u32,
    /// The profile that it was built from; empty: none.
    pub profile: String,
    /// VMs with a higher priority are moved and started first.
    pub priority: i32,
    /// Whether it is tried now and then to let its guest run on while that is paused by an I/O error.
    #[serde(default)]
    pub resume_after_io_error: bool,
    /// Its tags, by name.
    pub tags: Vec<Tag>,
    /// The version of its record.
    pub version: i64,
}

impl Meta {
    /// A VM's metadata from the view.
    pub fn of(vm: &VmView) -> Meta {
        let record = &vm.record.value;
        let meta = &record.meta;
        let tag = |(name, protected): (&String, &bool)| Tag {
            name: name.clone(),
            kind: "user".to_owned(),
            protected: *protected,
        };
        Meta {
            name: record.name.to_string(),
            node_limit: meta.node_limit.iter().map(NodeName::to_string).collect(),
            node_selector: meta.selector.map_or("none", crate::Selector::word).to_owned(),
            node_autostart: meta.autostart,
            migration_method: meta.method.word().to_owned(),
            migration_max_downtime: meta.max_downtime_ms,
            profile: record.profile.clone(),
            priority: meta.priority,
            resume_after_io_error: meta.resume_after_io_error,
            tags: meta.tags.iter().map(tag).collect(),
            version: vm.record.version.0,
        }
    }
}
