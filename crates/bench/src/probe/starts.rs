//! Starts of one VM, as a client sees them.

use super::{
    Probe, block_on, client,
    subject::{Completed, WatchedVm},
};
use crate::definitions;
use drover_client::Client;
use drover_lab::{Domain, Result};
use serde::{Deserialize, Serialize};

/// Defines a VM, starts and stops it repeatedly, and deletes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Starts {
    /// Name of the VM.
    pub(crate) vm: String,
    /// Node of the VM; may be another one than that which the requests are sent to.
    pub(crate) node: String,
    /// Number of starts.
    pub(crate) count: usize,
}

/// A start. Times are in microseconds since 1970, UTC, as in the daemon's log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Epoch, which identifies the start in the log of the VM's node.
    pub(crate) epoch: u64,
    /// Just before the request was sent.
    pub(crate) requested: u64,
    /// When this node showed that the VM runs.
    pub(crate) running: u64,
}

impl Probe for Starts {
    const NAME: &'static str = "starts";
    type Answer = Vec<Start>;

    fn run(self) -> Result<Vec<Start>> {
        block_on(async { self.all(&client()?).await })
    }
}

impl Starts {
    async fn all(&self, client: &Client) -> Result<Vec<Start>> {
        let xml = Domain::new(&self.vm).xml(&definitions::guest());
        let mut vm = WatchedVm::define(client, &self.vm, &xml, &self.node).await?;
        let mut starts = Vec::new();
        let mut epoch = 0;
        for _ in 0..self.count {
            let Completed { requested, seen, vm: started } = vm.start(epoch).await?;
            epoch = started.claim.epoch;
            starts.push(Start { epoch, requested, running: seen });
            vm.stop().await?;
        }
        vm.delete().await?;
        Ok(starts)
    }
}
