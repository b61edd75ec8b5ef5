//! Defines many VMs.

use super::{Probe, block_on, client};
use crate::definitions;
use drover_client::{Client, ClientError};
use drover_lab::{LabError, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

/// How many requests are under way at once.
const AT_ONCE: usize = 8;

/// Defines the VMs of [`definitions`], in turn on every node of the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Define {
    /// The number of the first.
    pub(crate) from: usize,
    /// The number after the last.
    pub(crate) to: usize,
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
        let nodes: Vec<String> = client.nodes(&[]).await?.into_iter().map(|node| node.name).collect();
        let define = async |n: usize| {
            let node = nodes.get(n % nodes.len().max(1)).map(String::as_str);
            client.define_vm(&definitions::xml(n), node).await.map(|_| ())
        };
        stream::iter(self.from..self.to).map(define).buffer_unordered(AT_ONCE).try_collect().await
    }
}
