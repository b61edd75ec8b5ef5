//! What is said of a VM beside its definition, as the API shows it.

use crate::{name::NodeName, view::VmView};
use serde::{Deserialize, Serialize};

/// A tag of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tag {
    /// Its text.
    pub name: String,
    /// Who set it: `user`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it cannot be removed.
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
    /// How its node is chosen; `none`: the cluster's default.
    pub node_selector: String,
    /// Whether it starts when its node becomes ready; holds once.
    pub node_autostart: bool,
    /// How it is moved; `none`: live, else cold.
    pub migration_method: String,
    /// The longest pause of a live migration, in milliseconds.
    pub migration_max_downtime: u32,
    /// The profile that it was built from; empty: none.
    pub profile: String,
    /// The higher, the sooner it is moved or started.
    pub priority: i32,
    /// Its tags, by name.
    pub tags: Vec<Tag>,
    /// The version of its record.
    pub version: i64,
}

impl Meta {
    /// A VM's metadata out of the view.
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
            tags: meta.tags.iter().map(tag).collect(),
            version: vm.record.version.0,
        }
    }
}
