//! Addresses that float between nodes: putting them on an interface for a limited time, telling the network where they
//! are, and asking whether somebody else has one. A small trait, the kernel behind it, and a fake with latency and
//! faults.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod kernel;
mod netlink;
mod packet;
mod raw;

pub use kernel::KernelNetwork;

use async_trait::async_trait;
use drover_model::FloatingAddress;
use std::{net::IpAddr, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Why something was not done. Whether it was is not known, unless the text says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {what}: {why}")]
pub struct NetworkError {
    /// What was attempted, on what.
    pub what: String,
    /// What came of it.
    pub why: String,
}

/// What is known of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// An administrator wants it up.
    pub up: bool,
    /// There is somebody at the other end.
    pub carrier: bool,
}

/// This machine's part of the cluster's networks. Calls may be cancelled by dropping their future; what they were about
/// is unknown then.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Puts an address on its interface, or has it stay there. With `until`, the kernel itself takes it away at that
    /// moment at the latest, whatever becomes of this process; and the call fails if the moment is too near for that.
    /// An earlier call's later moment stays. The address goes up alone (/32, /128), without routes, whatever the length
    /// of its network's prefix.
    async fn hold(&self, address: &FloatingAddress, until: Option<Instant>) -> Result<(), NetworkError>;

    /// Takes an address away. It is fine if it is not there.
    async fn release(&self, address: &FloatingAddress) -> Result<(), NetworkError>;

    /// Whether the address is on its interface now.
    async fn holds(&self, address: &FloatingAddress) -> Result<bool, NetworkError>;

    /// Tells everybody on the link, once, that the address is here (gratuitous ARP, unsolicited neighbour
    /// advertisement). Nothing is sent on an interface without neighbours, as the loopback one.
    async fn announce(&self, address: &FloatingAddress) -> Result<(), NetworkError>;

    /// Whether somebody else on the link has the address, and at which link-layer address. Asks several times, and
    /// listens for `patience` at most. Fails where nobody can be heard: without a carrier, say.
    async fn probe(&self, address: &FloatingAddress, patience: Duration) -> Result<Option<String>, NetworkError>;

    /// Whether `neighbour` answers on this interface within `patience` (ARP, neighbour solicitation).
    async fn reaches(&self, interface: &str, neighbour: IpAddr, patience: Duration) -> Result<bool, NetworkError>;

    /// What is known of an interface; `None`: there is none of this name.
    async fn link(&self, interface: &str) -> Result<Option<Link>, NetworkError>;

    /// Rings when a link may have changed.
    fn changes(&self) -> watch::Receiver<()>;
}
