//! Handoffs of the primary's role, as whoever orders them sees them.

use super::{Probe, block_on, client, subject::now};
use drover_client::Client;
use drover_lab::{LabError, Result};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What is waited for comes sooner, or has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hands the role to one node after the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handoffs {
    /// In this order; none of them has it when its turn comes.
    pub(crate) to: Vec<String>,
    /// How long it is left where it is after each handoff.
    pub(crate) rest: Duration,
}

/// One handoff. Times are in microseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedOver {
    /// Before the request was sent.
    pub(crate) asked: u64,
    /// When the node that was asked showed the new primary as such.
    pub(crate) primary: u64,
}

impl Probe for Handoffs {
    const NAME: &'static str = "handoffs";
    type Answer = Vec<HandedOver>;

    fn run(self) -> Result<Vec<HandedOver>> {
        block_on(async {
            let client = client()?;
            let mut handoffs = Vec::new();
            for node in &self.to {
                let late = |_| LabError::new(format!("{node} does not become the primary"), "it takes too long");
                handoffs.push(timeout(PATIENCE, hand_over(&client, node)).await.map_err(late)??);
                sleep(self.rest).await;
            }
            Ok(handoffs)
        })
    }
}

async fn hand_over(client: &Client, node: &str) -> Result<HandedOver> {
    let failed = |why: &dyn ToString| LabError::new(format!("{node} does not become the primary"), why.to_string());
    let changes = client.watch_node(node).await.map_err(|e| failed(&e))?;
    let mut changes = Box::pin(changes);
    let asked = now();
    let order = async { client.set_coordinator_state(node, "primary").await.map_err(|e| failed(&e)) };
    let seen = async {
        while let Some(change) = changes.next().await {
            let at = now();
            if change.map_err(|e| failed(&e))?.coordinator_state == "primary" {
                return Ok(at);
            }
        }
        Err(failed(&"the watch ended"))
    };
    let (_, primary) = tokio::try_join!(order, seen)?;
    Ok(HandedOver { asked, primary })
}
