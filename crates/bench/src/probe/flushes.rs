//! Flush and ready of a node, as a client sees them.

use super::{Probe, block_on, client};
use drover_client::{Client, ClientError};
use drover_lab::{LabError, Result};
use drover_model::wire::{ChangeConfig, Config, DomainOrder, Node, SetDomainState};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{
    pin::pin,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// Timeout for a flush and for a ready.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Timeout for the state of a VM to be shown, and the poll interval.
const VM_TIMEOUT: Duration = Duration::from_secs(5);
const VM_POLL: Duration = Duration::from_millis(50);

/// Flushes a node and makes it ready again, alternately under the cluster's limits and with one move at a time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Flushes {
    /// The node. Requests are sent to another one.
    pub(crate) node: String,
    /// The running VMs of the node.
    pub(crate) vms: Vec<String>,
    /// Number of rounds under each set of limits.
    pub(crate) rounds: usize,
}

/// Limits of concurrent moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Moves from one node.
    pub(crate) per_source: u32,
    /// Moves to one node.
    pub(crate) per_target: u32,
    /// Moves in the whole cluster.
    pub(crate) all: u32,
}

/// Times under one set of limits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    /// From each request until the node was flushed.
    pub(crate) flush: Vec<Duration>,
    /// From each request until the node was ready and its VMs were home.
    pub(crate) ready: Vec<Duration>,
}

/// The result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FlushResult {
    /// The cluster's limits.
    pub(crate) limits: Limits,
    /// Times under the cluster's limits.
    pub(crate) parallel: Times,
    /// Times with one move at a time.
    pub(crate) serial: Times,
}

const ONE_AT_A_TIME: Limits = Limits { per_source: 1, per_target: 1, all: 1 };

impl Probe for Flushes {
    const NAME: &'static str = "flushes";
    type Answer = FlushResult;

    fn run(self) -> Result<FlushResult> {
        block_on(async { self.all(&client()?).await })
    }
}

fn failed(what: &str) -> impl Fn(ClientError) -> LabError + use<> {
    let what = format!("cannot {what}");
    move |e| LabError::new(&*what, e)
}

impl Flushes {
    async fn all(&self, client: &Client) -> Result<FlushResult> {
        let Config { moves_per_source, moves_per_target, moves, .. } =
            client.config().await.map_err(failed("read the cluster's configuration"))?;
        let limits = Limits { per_source: moves_per_source, per_target: moves_per_target, all: moves };
        let (mut parallel, mut serial) = (Times::default(), Times::default());
        for _ in 0..self.rounds {
            for (limits, times) in [(limits, &mut parallel), (ONE_AT_A_TIME, &mut serial)] {
                set_limits(client, limits).await?;
                times.flush.push(self.until(client, DomainOrder::Flush, "flushed").await?);
                self.check(client, false).await?;
                times.ready.push(self.until(client, DomainOrder::Ready, "ready").await?);
                self.check(client, true).await?;
            }
        }
        set_limits(client, limits).await?;
        Ok(FlushResult { limits, parallel, serial })
    }

    /// Requests a state of the node, and waits until the node is in it. Returns the time that this took.
    async fn until(&self, client: &Client, order: DomainOrder, state: &str) -> Result<Duration> {
        let what = format!("{order} {}", self.node);
        let changes = client.watch_node(&self.node).await.map_err(failed(&what))?;
        let mut changes = pin!(changes);
        let start = Instant::now();
        client.set_domain_state(&self.node, SetDomainState::to(order)).await.map_err(failed(&what))?;
        // The stream begins with the node's state before the request.
        let mut begun = false;
        let reached = async {
            while let Some(node) = changes.next().await {
                let node: Node = node.map_err(failed(&what))?;
                if begun && node.domain_state == state {
                    return Ok(start.elapsed());
                }
                begun |= node.domain_state != state;
                if let Some(blocked) = node.drain.iter().flat_map(|drain| &drain.blocked).next() {
                    return Err(LabError::new(format!("{what}: VM {}", blocked.vm), &blocked.reason));
                }
            }
            Err(LabError::new(&*what, "the watch ended"))
        };
        let timed_out = |_| Err(LabError::new(&*what, format!("timed out after {} s", TIMEOUT.as_secs())));
        timeout(TIMEOUT, reached).await.unwrap_or_else(timed_out)
    }

    /// Checks that all VMs run, at home or elsewhere. This may be shown a moment after the node's state.
    async fn check(&self, client: &Client, home: bool) -> Result<()> {
        for name in &self.vms {
            let runs = async {
                loop {
                    let vm = client.vm(name).await.map_err(failed("read the VMs"))?;
                    if vm.state == "start" && vm.run_state == "running" && (vm.node == self.node) == home {
                        return Ok(());
                    }
                    sleep(VM_POLL).await;
                }
            };
            let place = if home { "at home" } else { "elsewhere" };
            let why = format!("timed out after {} s", VM_TIMEOUT.as_secs());
            let timed_out = |_| Err(LabError::new(format!("VM {name} does not run {place}"), why));
            timeout(VM_TIMEOUT, runs).await.unwrap_or_else(timed_out)?;
        }
        Ok(())
    }
}

async fn set_limits(client: &Client, limits: Limits) -> Result<()> {
    let Limits { per_source, per_target, all } = limits;
    let (moves_per_source, moves_per_target, moves) = (Some(per_source), Some(per_target), Some(all));
    let change = ChangeConfig { moves_per_source, moves_per_target, moves, ..ChangeConfig::default() };
    client.set_config(&change).await.map(|_| ()).map_err(failed("change the limits"))
}
