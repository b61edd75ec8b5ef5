//! Handoffs of the primary's role, as a client sees them.

use super::{Probe, block_on, client, subject::now};
use drover_client::Client;
use drover_lab::{LabError, Result};
use drover_model::wire::{RoleOrder, SetCoordinatorState};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Timeout for a handoff.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Hands the role to one node after another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handoffs {
    /// The nodes, in this order. Each differs from the one before, and the first from the current primary.
    pub(crate) to: Vec<String>,
    /// Delay after each handoff.
    pub(crate) rest: Duration,
}

/// A handoff. Times are in microseconds since 1970, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handoff {
    /// Just before the request was sent.
    pub(crate) requested: u64,
    /// When this node showed the new primary.
    pub(crate) primary: u64,
}

impl Probe for Handoffs {
    const NAME: &'static str = "handoffs";
    type Answer = Vec<Handoff>;

    fn run(self) -> Result<Vec<Handoff>> {
        block_on(async {
            let client = client()?;
            let mut handoffs = Vec::new();
            for node in &self.to {
                let what = || format!("{node} has not become the primary");
                let timed_out = |_| LabError::new(what(), format!("timed out after {} s", TIMEOUT.as_secs()));
                handoffs.push(timeout(TIMEOUT, hand_over(&client, node)).await.map_err(timed_out)??);
                sleep(self.rest).await;
            }
            Ok(handoffs)
        })
    }
}

async fn hand_over(client: &Client, node: &str) -> Result<Handoff> {
    let failed = |why: &dyn ToString| LabError::new(format!("{node} has not become the primary"), why.to_string());
    let changes = client.watch_node(node).await.map_err(|e| failed(&e))?;
    let mut changes = Box::pin(changes);
    let requested = now();
    let order = SetCoordinatorState { state: RoleOrder::Primary };
    let request = async { client.set_coordinator_state(node, order).await.map_err(|e| failed(&e)) };
    let becomes_primary = async {
        while let Some(change) = changes.next().await {
            let at = now();
            if change.map_err(|e| failed(&e))?.coordinator_state == "primary" {
                return Ok(at);
            }
        }
        Err(failed(&"the watch ended"))
    };
    let (_, primary) = tokio::try_join!(request, becomes_primary)?;
    Ok(Handoff { requested, primary })
}
