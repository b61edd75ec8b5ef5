//! Starts of one VM, as whoever asks for them sees them.

use super::{
    Probe, block_on, client,
    subject::{Done, Subject},
};
use crate::definitions;
use drover_client::Client;
use drover_lab::{Domain, Result};
use serde::{Deserialize, Serialize};

/// Defines a VM, starts and stops it again and again, and deletes it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Starts {
    /// Its name.
    pub(crate) vm: String,
    /// Its node; another one than the node that is asked, or the same.
    pub(crate) node: String,
    /// How often it is started.
    pub(crate) count: usize,
}

/// One start. Times are in microseconds since 1970, UTC, as in the daemon's log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The grant that it ran under, by which its node's log tells of it.
    pub(crate) epoch: u64,
    /// Before the request was sent.
    pub(crate) asked: u64,
    /// When the node that was asked showed that it runs.
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
        let mut vm = Subject::define(client, &self.vm, &xml, &self.node).await?;
        let mut starts = Vec::new();
        let mut epoch = 0;
        for _ in 0..self.count {
            let Done { asked, seen, vm: started } = vm.start(epoch).await?;
            epoch = started.claim.epoch;
            starts.push(Start { epoch, asked, running: seen });
            vm.stop().await?;
        }
        vm.delete().await?;
        Ok(starts)
    }
}
