//! Floating addresses on this host's interfaces: adding one with a limited lifetime, removing it, announcing it to
//! neighbours, and detecting whether another host uses it. The trait [`HostNetwork`], its implementation on the Linux
//! kernel, and a fake with latency and faults.

#[cfg(any(test, feature = "testing"))]
pub mod fake;
mod kernel;
mod netlink;
mod packet;
mod raw;

pub use kernel::KernelHostNetwork;

use async_trait::async_trait;
use drover_model::FloatingAddress;
use std::{net::IpAddr, time::Duration};
use tokio::{sync::watch, time::Instant};

/// A call failed. Unless the reason says otherwise, it is unknown whether it took effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation}: {reason}")]
pub struct HostNetworkError {
    /// What was attempted, and on which object; completes "cannot ...".
    pub operation: String,
    /// Why it failed.
    pub reason: String,
}

/// State of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`): a cable with a peer at its other end.
    pub carrier: bool,
}

/// Floating addresses, neighbours and link state on this host's interfaces. Calls may be cancelled by dropping their
/// future; whether they took effect is then unknown.
#[async_trait]
pub trait HostNetwork: Send + Sync + 'static {
    /// Adds an address to its interface, or extends its lifetime. With `until`, the kernel itself removes the address
    /// by that moment, even if this process dies; the call fails if `until` is too soon for that. A later `until` of an
    /// earlier call stays in force. The address gets a full-length prefix (/32, /128) and no routes, whatever the
    /// prefix length of its network. When the call returns, packets that arrive for the address are answered.
    async fn hold(&self, address: &FloatingAddress, until: Option<Instant>) -> Result<(), HostNetworkError>;

    /// Removes an address. Idempotent: succeeds if the address is absent.
    async fn release(&self, address: &FloatingAddress) -> Result<(), HostNetworkError>;

    /// Whether the address is on its interface.
    async fn holds(&self, address: &FloatingAddress) -> Result<bool, HostNetworkError>;

    /// Announces the address once to all neighbours on the link (gratuitous ARP, unsolicited neighbour advertisement).
    /// Does nothing on an interface without neighbours, such as loopback.
    async fn announce(&self, address: &FloatingAddress) -> Result<(), HostNetworkError>;

    /// Detects whether another host on the link uses the address; returns its link-layer address. Sends several probes
    /// and listens for at most `timeout`. Fails if no answer could be received, for example without a carrier.
    async fn probe(&self, address: &FloatingAddress, timeout: Duration) -> Result<Option<String>, HostNetworkError>;

    /// Whether `neighbour` answers on this interface within `timeout` (ARP, neighbour solicitation).
    async fn reaches(&self, interface: &str, neighbour: IpAddr, timeout: Duration) -> Result<bool, HostNetworkError>;

    /// State of an interface; `None` if there is no such interface.
    async fn link(&self, interface: &str) -> Result<Option<Link>, HostNetworkError>;

    /// Notifies when a link may have changed.
    fn changes(&self) -> watch::Receiver<()>;
}
