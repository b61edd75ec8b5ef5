//! Defines many VMs.

use super::{Probe, block_on, client};
use crate::definitions;
use drover_client::{Client, ClientError};
use drover_lab::{LabError, Result};
use drover_model::wire::{ChangeMeta, DefineVm, ListNodes};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

/// Number of concurrent requests.
const CONCURRENCY: usize = 8;

/// Defines the VMs of [`definitions`], spread evenly over the nodes of the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Define {
    /// Number of the first VM.
    pub(crate) from: usize,
    /// Number after that of the last VM.
    pub(crate) to: usize,
    /// Whether the nodes have the definitions' bridges.
    pub(crate) bridges: bool,
}

impl Probe for Define {
    const NAME: &'static str = "define";
    type Answer = ();

    fn run(self) -> Result<()> {
        let client = client()?;
        block_on(async { self.define(&client).await.map_err(|e| LabError::new("cannot define the VMs", e)) })
    }
}

impl Define {
    async fn define(&self, client: &Client) -> std::result::Result<(), ClientError> {
        let nodes: Vec<String> = client.nodes(&ListNodes::default()).await?.into_iter().map(|node| node.name).collect();
        let define = async |n: usize| {
            let node = nodes.get(n % nodes.len().max(1)).and_then(|name| name.parse().ok());
            let vm = DefineVm {
                xml: if self.bridges { definitions::xml(n) } else { definitions::xml_without_bridges(n) },
                node,
                adopt: false,
                no_check: true,
                force: false,
                advise: false,
                meta: ChangeMeta::default(),
            };
            client.define_vm(&vm).await.map(|_| ())
        };
        stream::iter(self.from..self.to).map(define).buffer_unordered(CONCURRENCY).try_collect().await
    }
}
