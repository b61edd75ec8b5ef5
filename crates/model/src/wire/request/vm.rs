//! Requests about VMs.

use super::{given_with_commas, is_false, with_commas};
use crate::{
    MetaChange, MigrationMethod, MoveKind, NodeName, ProfileName, Selector, UnknownWord, VmName, VmState,
    words::{words, written_as_words},
};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Lists VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListVms {
    /// Only VMs whose name matches, or with this UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schemars(title = "a regular expression, found anywhere in the name unless it is anchored with ^ and $")
    )]
    pub limit: Option<String>,
    /// Only VMs assigned to this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Only VMs in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateFilter>,
    /// Only VMs with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "a tag"))]
    pub tag: Option<String>,
    /// Inverts the other filters.
    #[serde(default, skip_serializing_if = "is_false")]
    pub negate: bool,
    /// Include the definitions (true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xml: Option<bool>,
}

/// A filter by a VM's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateFilter(&'static str);

impl StateFilter {
    /// All words.
    pub const WORDS: &'static [&'static str] = &VmState::WORDS;

    /// The word.
    pub fn word(self) -> &'static str {
        self.0
    }
}

impl FromStr for StateFilter {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<StateFilter, UnknownWord> {
        let known = StateFilter::WORDS.iter().find(|word| **word == text);
        known.map(|word| StateFilter(word)).ok_or_else(|| UnknownWord {
            what: "state of a VM",
            given: text.chars().take(80).collect(),
            accepted: StateFilter::WORDS.join(", "),
        })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for StateFilter {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StateFilter".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": StateFilter::WORDS})
    }
}

/// The selector of a VM's node, or `none`: the cluster's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SelectorOrder(pub Option<Selector>);

impl SelectorOrder {
    const NONE: &'static str = "none";

    /// All words.
    pub fn words() -> impl Iterator<Item = &'static str> {
        [SelectorOrder::NONE].into_iter().chain(Selector::WORDS.iter().copied())
    }

    /// The word.
    pub fn word(self) -> &'static str {
        self.0.map_or(SelectorOrder::NONE, Selector::word)
    }
}

impl FromStr for SelectorOrder {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<SelectorOrder, UnknownWord> {
        if text == SelectorOrder::NONE {
            return Ok(SelectorOrder(None));
        }
        let accepted = || SelectorOrder::words().collect::<Vec<_>>().join(", ");
        text.parse()
            .map(|selector| SelectorOrder(Some(selector)))
            .map_err(|error| UnknownWord { accepted: accepted(), ..error })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for SelectorOrder {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SelectorOrder".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "enum": SelectorOrder::words().collect::<Vec<_>>()})
    }
}

/// Changes a VM's metadata; fields that are not given are unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeMeta {
    /// The nodes that it may run on; empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "given_with_commas")]
    #[cfg_attr(feature = "schema", schemars(title = "nodes' names"))]
    pub limit: Option<Vec<NodeName>>,
    /// Selector of its node; none: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<SelectorOrder>,
    /// Start it when its node becomes ready; applies once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// How it is moved; none: live, and if that fails, cold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migration_method: Option<MigrationMethod>,
    /// Maximum downtime in a live migration, in milliseconds (300).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::meta::MAX_DOWNTIME_MAX_MS)))]
    pub migration_max_downtime: Option<u32>,
    /// VMs with a higher priority are moved and started first (0).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = -crate::meta::PRIORITY_MAX, max = crate::meta::PRIORITY_MAX)))]
    pub priority: Option<i32>,
    /// While its guest is paused by an I/O error, try now and then to let it run on (false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_after_io_error: Option<bool>,
    /// The profile that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<ProfileName>,
    /// Tags to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "with_commas")]
    #[cfg_attr(feature = "schema", schemars(title = "tags"))]
    pub user_tags: Vec<String>,
    /// Tags to add that are protected from removal.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "with_commas")]
    #[cfg_attr(feature = "schema", schemars(title = "tags"))]
    pub protected_tags: Vec<String>,
}

impl ChangeMeta {
    /// Whether no field is given.
    pub fn is_empty(&self) -> bool {
        *self == ChangeMeta::default()
    }
}

impl From<ChangeMeta> for MetaChange {
    fn from(asked: ChangeMeta) -> MetaChange {
        let tags = |tags: Vec<String>, protected: bool| tags.into_iter().map(move |tag| (tag, protected));
        MetaChange {
            node_limit: asked.limit.map(|nodes| nodes.into_iter().collect()),
            selector: asked.selector.map(|order| order.0),
            autostart: asked.autostart,
            method: asked.migration_method,
            max_downtime_ms: asked.migration_max_downtime,
            priority: asked.priority,
            resume_after_io_error: asked.resume_after_io_error,
            profile: asked.profile.map(Into::into),
            // A tag given as both is protected.
            add_tags: tags(asked.user_tags, false).chain(tags(asked.protected_tags, true)).collect(),
            remove_tags: [].into(),
        }
    }
}

/// Defines a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DefineVm {
    /// The definition.
    #[cfg_attr(feature = "schema", schemars(title = "a libvirt domain XML"))]
    pub xml: String,
    /// Its node; if not given, one is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Do not ask the hypervisor whether it accepts the definition.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// Take its guest over, which runs on a node already with the mark of an earlier record.
    #[serde(default, skip_serializing_if = "is_false")]
    pub adopt: bool,
    /// Also say which nodes' loss could not be absorbed then. Costs more, the more VMs there are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub advise: bool,
    /// Its metadata.
    #[serde(flatten)]
    pub meta: ChangeMeta,
}

/// Brings a domain that a node's libvirt has already under Drover.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ImportVm {
    /// The domain.
    #[cfg_attr(feature = "schema", schemars(title = "its UUID, or its name in libvirt"))]
    pub domain: String,
    /// Only show what would become of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Do not ask the hypervisor whether it accepts the definition.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// Defines a VM at its own path, or changes its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DefineOrChange {
    /// The definition of a new VM with this name or UUID; if not given, the VM's metadata is changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(title = "a libvirt domain XML"))]
    pub xml: Option<String>,
    /// The new VM's node; if not given, one is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Do not ask the hypervisor whether it accepts the new VM's definition.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// Its metadata.
    #[serde(flatten)]
    pub meta: ChangeMeta,
}

/// Gives a VM a new definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModifyVm {
    /// The new definition.
    #[cfg_attr(feature = "schema", schemars(title = "a libvirt domain XML"))]
    pub xml: String,
    /// Restart a running VM to apply the definition at once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restart: bool,
    /// The version that was read before; refused if there is a newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub version: Option<i64>,
    /// Only show what would change.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Do not ask the hypervisor whether it accepts the definition.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// Gives a VM a new name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RenameVm {
    /// The new name.
    pub new_name: VmName,
    /// The version that was read before; refused if there is a newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0)))]
    pub version: Option<i64>,
}

/// Deletes a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeleteVm {
    /// Also delete its disk files, except read-only ones and those that other VMs use.
    #[serde(default, skip_serializing_if = "is_false")]
    pub delete_disks: bool,
}

/// A change of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagAction {
    /// Add it.
    Add,
    /// Remove it.
    Remove,
}
words!(TagAction, "action", Add = "add", Remove = "remove");

/// Adds a tag to a VM, or removes one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChangeTag {
    /// The change.
    pub action: TagAction,
    /// The tag.
    #[cfg_attr(feature = "schema", schemars(title = "letters, digits, '-', '_', '.' and ':'; at most 63"))]
    pub tag: String,
    /// For add: protect it from removal, until it is added again without this.
    #[serde(default, skip_serializing_if = "is_false")]
    pub protected: bool,
}

/// An order for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerOrder {
    /// It runs.
    Start,
    /// Its guest powers off.
    Shutdown,
    /// It is forced off.
    Stop,
    /// Its guest powers off, and it is started again.
    Restart,
    /// It stays off.
    Disable,
    /// Its guest is paused.
    Pause,
    /// Its guest runs on, or wakes.
    Resume,
}
words!(
    PowerOrder,
    "order for a VM",
    Start = "start",
    Shutdown = "shutdown",
    Stop = "stop",
    Restart = "restart",
    Disable = "disable",
    Pause = "pause",
    Resume = "resume"
);

/// Starts a VM, stops it, pauses it, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SetVmState {
    /// The order.
    pub state: PowerOrder,
    /// For disable: force it off instead of asking the guest. For start: with the disks of its definition, even if its
    /// guest has written to others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// For shutdown and restart: timeout for the guest to power off, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = crate::vm::SHUTDOWN_TIMEOUT_MAX_S)))]
    pub timeout: Option<u32>,
    /// For start: also say which nodes' loss could not be absorbed then. Costs more, the more VMs there are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub advise: bool,
    /// Answer when it is done.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
}

impl SetVmState {
    /// An order that is not waited for.
    pub fn to(state: PowerOrder) -> SetVmState {
        SetVmState { state, force: false, timeout: None, advise: false, wait: false }
    }
}

/// A move of a VM, or its cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveAction {
    /// Temporarily.
    Migrate,
    /// Back home.
    Unmigrate,
    /// Permanently.
    Move,
    /// Cancel a move that is under way.
    Cancel,
}
words!(MoveAction, "action", Migrate = "migrate", Unmigrate = "unmigrate", Move = "move", Cancel = "cancel");

impl MoveAction {
    /// The kind of the move; `None` for a cancellation.
    pub fn kind(self) -> Option<MoveKind> {
        match self {
            MoveAction::Migrate => Some(MoveKind::Migrate),
            MoveAction::Unmigrate => Some(MoveKind::Unmigrate),
            MoveAction::Move => Some(MoveKind::Move),
            MoveAction::Cancel => None,
        }
    }
}

/// Moves a VM to another node, or cancels a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MoveVm {
    /// migrate: temporarily, its home is unchanged; move: permanently; unmigrate: back home; cancel: cancels a move
    /// that is under way.
    pub action: MoveAction,
    /// For migrate and move: the target; if not given, the best node is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// For migrate: even if it is away from its home already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
    /// Live or not at all, whatever its migration method is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force_live: bool,
    /// Also say which nodes' loss could not be absorbed then. Costs more, the more VMs there are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub advise: bool,
    /// Answer when it has arrived; if it does not arrive, say why and where it is.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
}

impl MoveVm {
    /// An order that is not waited for.
    pub fn by(action: MoveAction) -> MoveVm {
        MoveVm { action, node: None, force: false, force_live: false, advise: false, wait: false }
    }
}

written_as_words!(StateFilter, SelectorOrder, TagAction, PowerOrder, MoveAction);
