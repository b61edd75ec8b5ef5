//! Domains of this node's hypervisor: a small trait, its libvirt implementation, and a fake with latency and faults.
//!
//! A domain is *ours* when it carries [`Mark`] in its metadata. Others are not touched, and listed apart.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod libvirt;
pub mod probe;

use async_trait::async_trait;
use drover_model::{
    Foreign, Guests, Obs, OffReason, Paused, Progress, RunState, Transit,
    domain::{Candidate, Written},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

/// Metadata in the XML of our domains, by which a new daemon recognises them. The XML is built in
/// `drover_model::domain`.
pub use drover_model::domain::Mark;

/// A domain as observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its UUID, which is the VM's.
    pub uuid: Uuid,
    /// Its name in the hypervisor.
    pub name: String,
    /// Its run state.
    pub run: RunState,
    /// Why it is off, if it is.
    pub off: Option<OffReason>,
    /// Why it does not execute, if it is paused.
    pub paused: Option<Paused>,
    /// The grant and the definition that it was started from.
    pub mark: Mark,
    /// The VNC server's address and port, while it runs.
    pub vnc: Option<(String, u16)>,
    /// Whether it is being migrated to another node.
    pub sending: bool,
    /// Whether it is in memory without a definition, so that nothing is left of it when it ends.
    pub transient: bool,
    /// What its state says of a migration, from here or to here.
    pub transit: Option<Transit>,
    /// The disks that it was started with; empty also if that is not known.
    pub started_with: Written,
    /// The disks that it has, or will have at its next start by the hypervisor's own definition.
    pub disks: Written,
}

/// What the hypervisor has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// All domains of ours, also those that are off, ordered by UUID. One that cannot be observed now is listed as
    /// unknown.
    pub ours: Vec<(Uuid, Obs<Domain>)>,
    /// The others, in order.
    pub foreign: Vec<Foreign>,
}

/// Parameters of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The URI of the target's hypervisor.
    pub uri: String,
    /// The domain's mark at the target.
    pub mark: Mark,
    /// Maximum downtime.
    pub max_downtime: Duration,
    /// By post-copy: slowly, until [`Hypervisor::post_copy`] is called, which must be soon. Without, the guest is
    /// paused at the target when it is there.
    pub post_copy: bool,
    /// All of its files are in folders that both nodes share, even if the hypervisor does not know that.
    pub shared_files: bool,
}

/// Facts that the hypervisor knows about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Hypervisor and version, for people: `QEMU 7.2.22, libvirt 9.0.0`.
    pub version: String,
    /// Threads of all processors.
    pub cpus: u32,
    /// Domain types that it offers: `qemu`, `kvm`. (An offered one need not work: [`probe`].)
    pub domain_types: Vec<String>,
    /// The guests that it can run; `None`: it does not say.
    pub guests: Option<Guests>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// The hypervisor refused, and nothing was changed.
    #[error("the hypervisor refused to {what}: {why}")]
    Refused {
        /// The call.
        what: String,
        /// What it said.
        why: String,
    },
    /// The hypervisor does not accept the definition, and nothing was changed. A retry has the same result.
    #[error("the hypervisor does not accept the definition: {why}")]
    BadDefinition {
        /// The call.
        what: String,
        /// What it said.
        why: String,
    },
    /// There is no connection; nothing was sent.
    #[error("there is no connection to the hypervisor to {what}: {why}")]
    Disconnected {
        /// The call.
        what: String,
        /// Why there is none.
        why: String,
    },
    /// It was not allowed any more when its turn came ([`Allowed`]); nothing was done.
    #[error("was not allowed any more to {what}")]
    Withdrawn {
        /// The call.
        what: String,
    },
    /// No definite answer (deadline passed, connection lost during the call, an earlier call on the same domain still
    /// hangs): it may have been done or may still be done. Observe the domain.
    #[error("no definite answer from the hypervisor to {what}: {why}")]
    Unknown {
        /// The call.
        what: String,
        /// What happened instead.
        why: String,
    },
}

impl HypervisorError {
    /// What is said to users who know what was tried: the hypervisor's own words, if it refused.
    pub fn words(&self) -> String {
        match self {
            HypervisorError::Refused { why, .. } => why.clone(),
            unknown => unknown.to_string(),
        }
    }
}

/// A notification of a change. Carries no data (a missed one costs time, never correctness).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This domain changed in some way.
    Domain(Uuid),
    /// Anything may have changed: the connection was reopened.
    Everything,
}

/// The connection to the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Calls are answered.
    Up,
    /// They are not, for this reason; it is being reopened.
    Down(String),
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, HypervisorError>;

/// Whether a call may still be made: asked when its turn has come, just before it acts. Must not block.
pub type Allowed = Arc<dyn Fn() -> bool + Send + Sync>;

/// The hypervisor of this node. Every call has a deadline of its own; one stuck domain delays no other.
///
/// Dropping a call's future does not undo it: while a call of ours on a domain is unfinished (also after its deadline,
/// or dropped), that domain is observed as [`Obs::Unknown`], and further changing calls on it are refused as
/// [`HypervisorError::Unknown`]. One that is being sent is observed as it is, with [`Domain::sending`], for as long as
/// it is here.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// All domains.
    async fn domains(&self) -> Result<Listing>;

    /// A domain, whoever made it, by its UUID or else by its name; `None`: there is none.
    async fn inspect(&self, which: String) -> Result<Option<Candidate>>;

    /// Gives a domain that has no mark the mark [`Mark::IMPORTED`], with the disks that its guest has, and so makes it
    /// ours. The guest is not disturbed. Succeeds if it has any mark.
    async fn import(&self, uuid: Uuid) -> Result<()>;

    /// Replaces the mark of the domain that carries `from`, and sees to it that it has a definition and that only
    /// Drover starts it. The guest is not disturbed. Succeeds if the domain carries `to`; refused if it carries another
    /// mark.
    async fn mark(&self, uuid: Uuid, from: Mark, to: Mark) -> Result<()>;

    /// Observes one domain. [`Obs::Unknown`] also on an error, for a hanging call, and for a domain of that UUID that
    /// is not ours.
    async fn domain(&self, uuid: Uuid) -> Obs<Domain>;

    /// Asks whether it would start a domain from this XML, as far as it can say beforehand. Leaves nothing behind.
    async fn check(&self, xml: String) -> Result<()>;

    /// Defines and starts a domain from a complete XML that carries a [`Mark`]. An old definition of ours is replaced;
    /// a running domain of that UUID is an error. It may wait for other calls first: what is not `allowed` any more
    /// then is [`HypervisorError::Withdrawn`].
    async fn create(&self, uuid: Uuid, xml: String, allowed: Allowed) -> Result<()>;

    /// Presses the guest's power button (ACPI). Observe the domain to see whether the guest obeys.
    async fn shutdown(&self, uuid: Uuid) -> Result<()>;

    /// Pauses the guest of the domain that carries this mark. Succeeds if it is paused.
    async fn pause(&self, uuid: Uuid, mark: Mark) -> Result<()>;

    /// Lets the paused guest of the domain that carries this mark execute again. Whether it does is observed: a disk
    /// may fail again at once.
    async fn resume(&self, uuid: Uuid, mark: Mark) -> Result<()>;

    /// Wakes the guest of the domain that carries this mark, which is suspended to memory. It takes a moment.
    async fn wake(&self, uuid: Uuid, mark: Mark) -> Result<()>;

    /// Powers the domain that carries this mark off, if it runs. One with another mark is another guest, and is left
    /// alone ([`HypervisorError::Refused`]).
    async fn destroy(&self, uuid: Uuid, mark: Mark) -> Result<()>;

    /// Undefines a domain that is off and carries this mark; one with another mark is left alone, as above. Succeeds if
    /// the domain is absent. State of the guest outside the definition (of an emulated TPM, the firmware's variables)
    /// is kept, and is used again when the domain is defined again.
    async fn undefine(&self, uuid: Uuid, mark: Mark) -> Result<()>;

    /// Deletes a domain's state outside its definition permanently. The domain must be absent or off; `xml` is what it
    /// would be started from. `nvram`: also the file of firmware variables that is named there.
    async fn erase(&self, uuid: Uuid, xml: String, nvram: bool) -> Result<()>;

    /// Migrates a running domain to another node. Returns when it is there and gone from here, or when the migration
    /// failed and it still runs here ([`HypervisorError::Refused`]; it may be there too, paused). Has no time limit:
    /// see [`Hypervisor::migration`], [`Hypervisor::abort_migration`].
    async fn migrate(&self, uuid: Uuid, how: Sending) -> Result<()>;

    /// Progress of a domain's migration; `None`: it is not being migrated.
    async fn migration(&self, uuid: Uuid) -> Result<Option<Progress>>;

    /// Aborts a domain's migration; the domain then still runs here. Succeeds if it is not being migrated.
    async fn abort_migration(&self, uuid: Uuid) -> Result<()>;

    /// Switches a migration to post-copy now.
    async fn post_copy(&self, uuid: Uuid) -> Result<()>;

    /// Facts about the machine.
    async fn host(&self) -> Result<Host>;

    /// A guest that is off for the hypervisor, although its process has not ended: what is known of it. Its domain is
    /// observed as unknown meanwhile.
    fn given_up(&self, uuid: Uuid) -> Option<String>;

    /// Events, from now on.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// The state of the connection.
    fn connection(&self) -> watch::Receiver<Connection>;
}
