//! The requests of administrators: read, ask plan whether it is allowed, compare-and-set.
//!
//! Each request reads the records afresh, so that it never decides on a stale view; where somebody else was quicker it
//! decides again on what that one wrote, except where the request names the version that it is meant for: then the
//! answer is a conflict.

mod config;
mod moves;
mod node;
mod token;
mod update;
mod vm;

pub use config::{ConfigChange, DEADLINE_MAX_S, LIMIT_MAX, Maintenance};

use crate::{context::Context, records};
use drover_model::{BadName, Claim, ClusterView, MetaChange, NodeName, Stored, Version, VmRecord, domain::BadXml};
use drover_plan::admit::Refusal;
use drover_store::StoreError;
use std::sync::Arc;
use uuid::Uuid;

/// Why a request was not done. Nothing was changed, except where [`CommandError::Unavailable`] says that this is not
/// known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// What was given cannot be accepted.
    #[error("{message}")]
    Invalid {
        /// The parameter.
        field: &'static str,
        /// What it was, cut to a printable length.
        given: String,
        /// The whole story: what was given, why not, what is accepted.
        message: String,
    },
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Not now, or not in this state.
    #[error("{0}")]
    Refused(String),
    /// Somebody else changed it meanwhile, or has the name.
    #[error("{0}")]
    Conflict(String),
    /// The store gave no definite answer.
    #[error("{0}")]
    Unavailable(String),
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> CommandError {
        match error {
            StoreError::Unknown { .. } => CommandError::Unavailable(format!(
                "the cluster's store gave no definite answer ({error}); look whether it was done before trying again"
            )),
            StoreError::Closed => CommandError::Unavailable("this node's daemon is stopping".to_owned()),
            StoreError::TooLarge { .. } => CommandError::Refused(error.to_string()),
            error => CommandError::Unavailable(format!("the cluster's store: {error}")),
        }
    }
}

impl From<Refusal> for CommandError {
    fn from(refusal: Refusal) -> CommandError {
        let message = refusal.to_string();
        match refusal {
            Refusal::Timeout(given) => CommandError::Invalid { field: "timeout", given: given.to_string(), message },
            Refusal::Identity { given, .. } => CommandError::Invalid { field: "xml", given, message },
            _ => CommandError::Refused(message),
        }
    }
}

impl From<BadXml> for CommandError {
    fn from(error: BadXml) -> CommandError {
        let given = match &error {
            BadXml::Value { value, .. } => value.clone(),
            BadXml::Name(BadName { given, .. }) => given.clone(),
            _ => String::new(),
        };
        CommandError::Invalid { field: "xml", given, message: error.to_string() }
    }
}

type Result<T> = std::result::Result<T, CommandError>;

/// A new VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Define {
    /// The libvirt domain XML.
    pub xml: String,
    /// Its node; `None`: one is chosen.
    pub node: Option<NodeName>,
    /// What is said of it beside its definition.
    pub meta: MetaChange,
}

/// A new definition of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modify {
    /// The libvirt domain XML.
    pub xml: String,
    /// The version of the VM's record that was read before; `None`: whatever it is now.
    pub expected: Option<Version>,
    /// Restart a running VM, so that it takes the definition up at once.
    pub restart: bool,
    /// Only say what would change.
    pub dry_run: bool,
}

/// A VM as a request left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its record.
    pub record: VmRecord,
    /// The record's version.
    pub version: Version,
}

/// What a new definition changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modified {
    /// The definition before.
    pub before: String,
    /// The VM now.
    pub now: Change,
}

/// The requests. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    ctx: Arc<Context>,
}

/// The records that decisions about a VM are made on.
struct Vm {
    record: Stored<VmRecord>,
    claim: Stored<Claim>,
}

impl Commands {
    pub(crate) fn new(ctx: Arc<Context>) -> Commands {
        Commands { ctx }
    }

    /// The view, if there is one yet.
    fn view(&self) -> Result<Arc<ClusterView>> {
        if !self.ctx.views.freshness().borrow().is_loaded() {
            let why = "this node has not read the cluster's records yet; try again in a moment";
            return Err(CommandError::Unavailable(why.to_owned()));
        }
        Ok(self.ctx.views.latest())
    }

    async fn read(&self, uuid: &Uuid) -> Result<Vm> {
        let store = &*self.ctx.store;
        let (record, claim) = tokio::join!(records::read::<VmRecord>(store, uuid), records::read::<Claim>(store, uuid));
        let gone = || CommandError::NotFound(format!("there is no VM with UUID {uuid}"));
        Ok(Vm { record: record?.ok_or_else(gone)?, claim: claim?.ok_or_else(gone)? })
    }
}

fn known_node(view: &ClusterView, node: NodeName) -> Result<NodeName> {
    if view.nodes.contains_key(&node) {
        return Ok(node);
    }
    let known: Vec<String> = view.nodes.keys().map(ToString::to_string).collect();
    Err(CommandError::Invalid {
        field: "node",
        given: node.to_string(),
        message: format!("node: there is no node {node}; accepted are {}", known.join(", ")),
    })
}
