//! Guests that run for as long as something is measured.

use super::{Probe, block_on, client, subject::Subject};
use drover_lab::Result;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

/// Defines VMs, starts them, and waits until they have booted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bring {
    /// Names and definitions.
    pub(crate) vms: Vec<(String, String)>,
    /// Their node.
    pub(crate) node: String,
    /// Nodes that can take any of them when this is over.
    pub(crate) fits: Vec<String>,
}

impl Probe for Bring {
    const NAME: &'static str = "bring";
    type Answer = ();

    fn run(self) -> Result<()> {
        block_on(async {
            let client = client()?;
            let bring = async |(name, xml): &(String, String)| {
                let mut vm = Subject::define(&client, name, xml, &self.node).await?;
                vm.start(0).await?;
                vm.booted().await?;
                try_join_all(self.fits.iter().map(|node| vm.fits(node))).await
            };
            try_join_all(self.vms.iter().map(bring)).await.map(|_| ())
        })
    }
}

/// Stops VMs and deletes them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Remove {
    /// Their names.
    pub(crate) vms: Vec<String>,
}

impl Probe for Remove {
    const NAME: &'static str = "remove";
    type Answer = ();

    fn run(self) -> Result<()> {
        block_on(async {
            let client = client()?;
            let remove = async |name: &String| {
                let mut vm = Subject::watch(&client, name).await?;
                vm.stop().await?;
                vm.delete().await
            };
            try_join_all(self.vms.iter().map(remove)).await.map(|_| ())
        })
    }
}
