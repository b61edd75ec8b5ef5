//! Requests of administrators: read, ask plan whether it is allowed, compare-and-set.
//!
//! Each request reads the records first, so it never decides on a stale view. After a conflicting change it decides
//! again, unless the request names the version that it is meant for: then the answer is a conflict.

mod check;
mod config;
mod fault;
mod fence;
mod import;
mod moves;
mod node;
mod token;
mod update;
mod vm;
mod warn;

pub use config::{ConfigChange, Maintenance};
pub use import::{Import, Imported};

use crate::{context::Context, records};
use drover_model::{
    BadName, Claim, ClusterView, Departed, MetaChange, NodeName, Only, RecordKind, Stored, Version, VmRecord, VmStatus,
    domain::BadXml,
};
use drover_plan::admit::{Guest, Refusal};
use drover_store::StoreError;
use std::sync::Arc;
use uuid::Uuid;

/// Why a request failed. Nothing was changed, except where [`CommandError::Unavailable`] says that this is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A parameter is not valid.
    #[error("{message}")]
    Invalid {
        /// The parameter.
        field: &'static str,
        /// The given value, cut to a printable length.
        given: String,
        /// The whole message: what was given, why it is not valid, what is accepted.
        message: String,
    },
    /// The object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Not allowed now, or in this state.
    #[error("{0}")]
    Refused(String),
    /// It was changed meanwhile, or the name is taken.
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
                "the cluster's store gave no definite answer ({error}); check whether it was done before you try again"
            )),
            StoreError::Closed => CommandError::Unavailable("this node's daemon is stopping".to_owned()),
            StoreError::TooLarge { .. } => CommandError::Refused(error.to_string()),
            StoreError::Unreadable { path, why } if path == Departed::path(&Only) && why.newer.is_none() => {
                CommandError::Unavailable(format!(
                    "record {path} is {why}. It has what must be known of deleted VMs before another is defined, \
                     changed or deleted, so none is until it can be read. If it is damaged, delete it from the store \
                     while no VM is being removed with its disks, and restart a node's daemon, which makes it anew"
                ))
            }
            StoreError::Unreadable { path, why } => match why.newer {
                Some((found, known)) => CommandError::Refused(format!(
                    "record {path} was written by a newer version of Drover (layout {found}; this node's daemon, {}, \
                     knows {known}); send the request to a node that runs it, or upgrade this one",
                    env!("CARGO_PKG_VERSION")
                )),
                None => CommandError::Unavailable(format!("record {path} is {why}; see 'drover status'")),
            },
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
    /// Its node; `None`: Drover chooses one.
    pub node: Option<NodeName>,
    /// Take over its guest, which runs already.
    pub adopt: bool,
    /// Its metadata.
    pub meta: MetaChange,
    /// Do not ask a hypervisor whether it accepts the definition.
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    pub force: bool,
}

/// A VM after it was defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defined {
    /// The VM.
    pub now: Change,
    /// Why no hypervisor has checked the definition, although one should.
    pub unchecked: Option<String>,
}

/// A new definition of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modify {
    /// The libvirt domain XML.
    pub xml: String,
    /// The version of the VM's record that the change is based on; `None`: any.
    pub expected: Option<Version>,
    /// Restart a running VM, so that it uses the definition at once.
    pub restart: bool,
    /// Only return what would change.
    pub dry_run: bool,
    /// Do not ask a hypervisor whether it accepts the definition.
    pub no_check: bool,
    /// Also if another VM has the same MAC address, VNC port or disk.
    pub force: bool,
}

/// A VM after a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its record.
    pub record: VmRecord,
    /// The record's version.
    pub version: Version,
}

/// The effect of a new definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modified {
    /// The definition before.
    pub before: String,
    /// The VM now.
    pub now: Change,
    /// Why no hypervisor has checked the definition, although one should.
    pub unchecked: Option<String>,
}

/// Executes requests. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    ctx: Arc<Context>,
}

/// The records that decisions about a VM depend on.
struct Vm {
    record: Stored<VmRecord>,
    claim: Stored<Claim>,
    report: Option<Stored<VmStatus>>,
}

impl Vm {
    fn guest(&self) -> Guest {
        Guest::of(&self.claim.value, self.report.as_ref().map(|report| &report.value))
    }
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
        let (record, claim, report) = tokio::join!(
            records::read::<VmRecord>(store, uuid),
            records::read::<Claim>(store, uuid),
            records::read_report::<VmStatus>(store, uuid)
        );
        let gone = || CommandError::NotFound(format!("there is no VM with UUID {uuid}"));
        let report = match report {
            // Nothing waits for a report that only a newer daemon can read.
            Err(StoreError::Unreadable { .. }) => None,
            report => report?,
        };
        Ok(Vm { record: record?.ok_or_else(gone)?, claim: claim?.ok_or_else(gone)?, report })
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

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::VmRecord;

    #[test]
    fn records_of_a_newer_version_are_refused_with_advice() {
        let path = VmRecord::path(&Uuid::from_u128(1));
        let refusal = |data: &[u8]| {
            let why = Stored::<VmRecord>::decode(data, Version(3)).map(|_| ()).unwrap_err();
            CommandError::from(StoreError::Unreadable { path: path.clone(), why: Box::new(why) })
        };
        let newer = refusal(br#"{"schema":7,"state":{"is":"hibernate"}}"#);
        let wanted = format!(
            "record {path} was written by a newer version of Drover (layout 7; this node's daemon, {}, knows 1); send \
             the request to a node that runs it, or upgrade this one",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(newer, CommandError::Refused(wanted));
        assert!(matches!(refusal(b"{"), CommandError::Unavailable(_)));
    }
}
