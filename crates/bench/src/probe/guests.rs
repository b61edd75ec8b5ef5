//! Guests that run during a measurement.

use super::{Probe, block_on, client, subject::WatchedVm};
use drover_lab::Result;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

/// Defines VMs, starts them, and waits until they have booted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// Names and domain XMLs.
    pub(crate) vms: Vec<(String, String)>,
    /// Node of the VMs.
    pub(crate) node: String,
    /// Other nodes; waits until each VM fits on each of them.
    pub(crate) fits: Vec<String>,
}

impl Probe for Boot {
    const NAME: &'static str = "boot";
    type Answer = ();

    fn run(self) -> Result<()> {
        block_on(async {
            let client = client()?;
            let boot = async |(name, xml): &(String, String)| {
                let mut vm = WatchedVm::define(&client, name, xml, &self.node).await?;
                vm.start(0).await?;
                vm.booted().await?;
                try_join_all(self.fits.iter().map(|node| vm.fits(node))).await
            };
            try_join_all(self.vms.iter().map(boot)).await.map(|_| ())
        })
    }
}

/// Stops VMs and deletes them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remove {
    /// Names of the VMs.
    pub(crate) vms: Vec<String>,
}

impl Probe for Remove {
    const NAME: &'static str = "remove";
    type Answer = ();

    fn run(self) -> Result<()> {
        block_on(async {
            let client = client()?;
            let remove = async |name: &String| {
                let mut vm = WatchedVm::watch(&client, name).await?;
                vm.stop().await?;
                vm.delete().await
            };
            try_join_all(self.vms.iter().map(remove)).await.map(|_| ())
        })
    }
}
