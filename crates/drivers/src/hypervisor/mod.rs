//! Domains of this node's hypervisor: a small trait, libvirt behind it, and a fake with latency and faults.
//!
//! A domain is *ours* when it carries [`Mark`] in its metadata. Others are nobody's business here: they are neither
//! listed nor touched.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod libvirt;
pub mod probe;

use async_trait::async_trait;
use drover_model::{Obs, OffReason, Progress, RunState};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

/// What a domain of ours carries in its XML's metadata, so that a daemon that starts anew knows what it finds.
/// The XML is made in `drover_model::domain`.
pub use drover_model::domain::Mark;

/// A domain, as it was just looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its identity, which is the VM's.
    pub uuid: Uuid,
    /// Its name in the hypervisor.
    pub name: String,
    /// What it does.
    pub run: RunState,
    /// Why it is off, when it is.
    pub off: Option<OffReason>,
    /// Under which grant, and from which definition it was started.
    pub mark: Mark,
    /// The VNC server's address and port, while it runs.
    pub vnc: Option<(String, u16)>,
    /// Whether it is being sent to another node.
    pub sending: bool,
}

/// How a guest is sent to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// The URI of the target's hypervisor.
    pub uri: String,
    /// The mark that it carries there.
    pub mark: Mark,
    /// The longest pause at its end.
    pub max_downtime: Duration,
    /// Whether it may be made to go on at the target before everything is there.
    pub post_copy: bool,
    /// All of its files are in folders that both nodes share, though the hypervisor may not know it.
    pub shared_files: bool,
}

/// What the hypervisor can tell of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Hypervisor and version, for people: `QEMU 7.2.22, libvirt 9.0.0`.
    pub version: String,
    /// Threads of all processors.
    pub cpus: u32,
    /// Domain types that it offers: `qemu`, `kvm`. (Offered is not the same as working: [`probe`].)
    pub domain_types: Vec<String>,
}

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// The hypervisor said no, and nothing was changed.
    #[error("the hypervisor refused to {what}: {why}")]
    Refused {
        /// The call.
        what: String,
        /// What it said.
        why: String,
    },
    /// There is no connection now; nothing was sent.
    #[error("there is no connection to the hypervisor to {what}: {why}")]
    Disconnected {
        /// The call.
        what: String,
        /// Why there is none.
        why: String,
    },
    /// No definite answer (deadline passed, connection lost in the middle, an earlier call on the same domain still
    /// hangs): it may have happened or may still happen. Look it up.
    #[error("no definite answer from the hypervisor to {what}: {why}")]
    Unknown {
        /// The call.
        what: String,
        /// What was seen instead.
        why: String,
    },
}

/// Something changed; look again. Carries no news (a missed one costs time, never correctness).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// This domain changed in some way.
    Domain(Uuid),
    /// Anything may have changed: the connection was made anew.
    Everything,
}

/// The connection to the hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Calls are answered.
    Up,
    /// They are not, for this reason; it is being made anew.
    Down(String),
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, HypervisorError>;

/// The hypervisor of this node. Every call has a deadline of its own; one stuck domain delays no other.
///
/// Dropping a call's future does not undo it: while a call of ours on a domain is unfinished (also after its deadline,
/// or dropped), that domain is observed as [`Obs::Unknown`], and further changing calls on it are refused as
/// [`HypervisorError::Unknown`]. One that is being sent is observed as it is, with [`Domain::sending`], for as long as
/// it is here.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// All domains of ours, also those that are off, ordered by UUID. One that cannot be looked at now is listed as
    /// unknown.
    async fn domains(&self) -> Result<Vec<(Uuid, Obs<Domain>)>>;

    /// Looks at one domain. An error and a hanging call are [`Obs::Unknown`]; a domain of that UUID that is not ours
    /// too.
    async fn domain(&self, uuid: Uuid) -> Obs<Domain>;

    /// Defines and starts a domain from an XML that is complete and carries a [`Mark`]. A definition of ours that is
    /// left over is replaced; a running domain of that UUID is an error.
    async fn create(&self, uuid: Uuid, xml: String) -> Result<()>;

    /// Presses the guest's power button (ACPI). Whether the guest obeys is seen by observing it.
    async fn shutdown(&self, uuid: Uuid) -> Result<()>;

    /// Cuts the domain's power, if it runs.
    async fn destroy(&self, uuid: Uuid) -> Result<()>;

    /// Forgets the definition of a domain that is off. One that is absent is fine.
    async fn undefine(&self, uuid: Uuid) -> Result<()>;

    /// Sends a running domain to another node. Returns when it is there, and gone from here; or when it is not, and
    /// runs on here ([`HypervisorError::Refused`]). Takes as long as it takes: see [`Hypervisor::migration`],
    /// [`Hypervisor::abort_migration`].
    async fn migrate(&self, uuid: Uuid, how: Sending) -> Result<()>;

    /// How far the sending of a domain is; `None`: it is not being sent.
    async fn migration(&self, uuid: Uuid) -> Result<Option<Progress>>;

    /// Stops sending a domain, which then runs on here. That it is not being sent (any more) is fine.
    async fn abort_migration(&self, uuid: Uuid) -> Result<()>;

    /// Lets a guest that is being sent go on at the target now.
    async fn post_copy(&self, uuid: Uuid) -> Result<()>;

    /// What it can tell of the machine.
    async fn host(&self) -> Result<Host>;

    /// Events, from now on.
    fn events(&self) -> broadcast::Receiver<Event>;

    /// The state of the connection.
    fn connection(&self) -> watch::Receiver<Connection>;
}
