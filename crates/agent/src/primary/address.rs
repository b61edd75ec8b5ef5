//! A floating address as a primary service.

use super::service::{Grant, Handover, PrimaryService};
use async_trait::async_trait;
use drover_drivers::host_network::{HostNetwork, HostNetworkError};
use drover_model::FloatingAddress;
use std::{sync::Arc, time::Duration};

/// How long to probe for another user of an address before it is taken. RFC 5227 would take six seconds, but everybody
/// waits for an address whose holder has died.
const PROBE: Duration = Duration::from_millis(300);

/// An address on an interface of this node.
pub(super) struct Address {
    network: Arc<dyn HostNetwork>,
    address: FloatingAddress,
}

impl Address {
    pub(super) fn new(network: Arc<dyn HostNetwork>, address: FloatingAddress) -> Address {
        Address { network, address }
    }
}

#[async_trait]
impl PrimaryService for Address {
    fn name(&self) -> String {
        self.address.to_string()
    }

    fn handover(&self) -> Handover {
        Handover::Overlapping
    }

    fn is_essential(&self) -> bool {
        true
    }

    async fn start(&self, grant: &Grant) -> Result<(), String> {
        let (network, address) = (&self.network, &self.address);
        let text = |e: HostNetworkError| e.to_string();
        let there = network.holds(address).await.map_err(text)?;
        // No node of the cluster should have it: does a stranger?
        if !grant.contested
            && !there
            && let Some(other) = network.probe(address, PROBE).await.map_err(text)?
        {
            return Err(format!(
                "{other}, which is no node of this cluster, has this address; it is not taken as long as that is so"
            ));
        }
        match network.hold(address, grant.until).await {
            // It could not be extended (because an answer of the store came late, say), but it stays until its earlier
            // deadline.
            Err(_) if there => Ok(()),
            other => other.map_err(text),
        }
    }

    async fn announce(&self) {
        if let Err(error) = self.network.announce(&self.address).await {
            tracing::warn!(%error, "cannot announce an address");
        }
    }

    async fn stop(&self) -> Result<(), String> {
        self.network.release(&self.address).await.map_err(|e| e.to_string())
    }

    async fn check(&self) -> Result<bool, String> {
        self.network.holds(&self.address).await.map_err(|e| e.to_string())
    }
}
