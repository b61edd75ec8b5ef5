//! Taking a node out of service and putting it back, as whoever orders it sees it.

use super::{Probe, block_on, client};
use drover_client::{Client, ClientError};
use drover_lab::{LabError, Result};
use drover_model::wire::{Config, Node};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{
    pin::pin,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// All of it is done sooner, or has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is so is shown sooner.
const SHOWN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Flushes a node and makes it ready again, under the limits that the cluster has and one move at a time, in turn.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Flushes {
    /// The node; another one than the node that is asked.
    pub(crate) node: String,
    /// Its VMs, which run.
    pub(crate) vms: Vec<String>,
    /// How often.
    pub(crate) rounds: usize,
}

/// How many VMs move at once: away from a node, to a node, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Away from a node.
    pub(crate) per_source: u32,
    /// To a node.
    pub(crate) per_target: u32,
    /// In all.
    pub(crate) all: u32,
}

/// How long it took under some limits.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    /// From each request until the node was flushed.
    pub(crate) flush: Vec<Duration>,
    /// From each request until the node was ready and its VMs were home.
    pub(crate) ready: Vec<Duration>,
}

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Flushed {
    /// The limits that the cluster had.
    pub(crate) limits: Limits,
    /// Under these.
    pub(crate) parallel: Times,
    /// One at a time.
    pub(crate) serial: Times,
}

const ONE_AT_A_TIME: Limits = Limits { per_source: 1, per_target: 1, all: 1 };

impl Probe for Flushes {
    const NAME: &'static str = "flushes";
    type Answer = Flushed;

    fn run(self) -> Result<Flushed> {
        block_on(async { self.all(&client()?).await })
    }
}

fn failed(what: &str) -> impl Fn(ClientError) -> LabError + use<> {
    let what = format!("cannot {what}");
    move |e| LabError::new(&*what, e)
}

impl Flushes {
    async fn all(&self, client: &Client) -> Result<Flushed> {
        let Config { moves_per_source, moves_per_target, moves, .. } =
            client.config().await.map_err(failed("read the cluster's configuration"))?;
        let limits = Limits { per_source: moves_per_source, per_target: moves_per_target, all: moves };
        let (mut parallel, mut serial) = (Times::default(), Times::default());
        for _ in 0..self.rounds {
            for (limits, times) in [(limits, &mut parallel), (ONE_AT_A_TIME, &mut serial)] {
                set(client, limits).await?;
                times.flush.push(self.until(client, "flush", "flushed").await?);
                self.check(client, false).await?;
                times.ready.push(self.until(client, "ready", "ready").await?);
                self.check(client, true).await?;
            }
        }
        set(client, limits).await?;
        Ok(Flushed { limits, parallel, serial })
    }

    /// Asks for a state of the node, and waits until it is so.
    async fn until(&self, client: &Client, order: &str, state: &str) -> Result<Duration> {
        let what = format!("{order} {}", self.node);
        let changes = client.watch_node(&self.node).await.map_err(failed(&what))?;
        let mut changes = pin!(changes);
        let start = Instant::now();
        client.set_domain_state(&self.node, order, &[]).await.map_err(failed(&what))?;
        // The stream begins with how the node was before.
        let mut begun = false;
        let seen = async {
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
        let late = |_| Err(LabError::new(&*what, format!("not in {} s", PATIENCE.as_secs())));
        timeout(PATIENCE, seen).await.unwrap_or_else(late)
    }

    /// Every VM must run, at home or away; that may be shown a moment after the node's state.
    async fn check(&self, client: &Client, home: bool) -> Result<()> {
        for name in &self.vms {
            let runs_there = async {
                loop {
                    let vm = client.vm(name).await.map_err(failed("look for the VMs"))?;
                    if vm.state == "start" && vm.run_state == "running" && (vm.node == self.node) == home {
                        return Ok(());
                    }
                    sleep(LOOK_AGAIN).await;
                }
            };
            let whereabouts = if home { "at home" } else { "elsewhere" };
            let late = |_| Err(LabError::new(format!("VM {name} does not run"), whereabouts));
            timeout(SHOWN, runs_there).await.unwrap_or_else(late)?;
        }
        Ok(())
    }
}

async fn set(client: &Client, limits: Limits) -> Result<()> {
    let Limits { per_source, per_target, all } = limits;
    let change = [("moves_per_source", per_source), ("moves_per_target", per_target), ("moves", all)];
    let change = change.map(|(name, limit)| (name, limit.to_string()));
    client.set_config(&change).await.map(|_| ()).map_err(failed("change the limits"))
}
