//! Starts of one VM, as whoever asks for them sees them.

use super::{Probe, block_on, client};
use crate::definitions;
use drover_client::{Client, ClientError};
use drover_lab::{Domain, LabError, Result};
use drover_model::wire::Vm;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use std::{
    pin::{Pin, pin},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::timeout;

/// A start or a stop that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// What becomes of a VM.
type Changes<'a> = Pin<&'a mut (dyn Stream<Item = drover_client::Result<Vm<'static>>> + Send)>;

impl Probe for Starts {
    const NAME: &'static str = "starts";
    type Answer = Vec<Start>;

    fn run(self) -> Result<Vec<Start>> {
        block_on(async { self.all(&client()?).await })
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Starts {
    fn failed(&self, what: &str) -> impl Fn(ClientError) -> LabError + use<'_> {
        let what = format!("cannot {what} VM {}", self.vm);
        move |e| LabError::new(&*what, e)
    }

    async fn all(&self, client: &Client) -> Result<Vec<Start>> {
        let xml = Domain::new(&self.vm).xml(&definitions::guest());
        client.define_vm(&xml, Some(&self.node)).await.map_err(self.failed("define"))?;
        let changes = client.watch_vm(&self.vm).await.map_err(self.failed("watch"))?;
        let mut changes = pin!(changes);
        let mut starts = Vec::new();
        let mut epoch = 0;
        for _ in 0..self.count {
            let start = self.start(client, changes.as_mut(), epoch).await?;
            epoch = start.epoch;
            starts.push(start);
            self.stop(client, changes.as_mut()).await?;
        }
        client.delete_vm(&self.vm, false).await.map_err(self.failed("delete"))?;
        Ok(starts)
    }

    /// Starts it, under a later grant than `last`.
    async fn start(&self, client: &Client, changes: Changes<'_>, last: u64) -> Result<Start> {
        let asked = now();
        let runs = |vm: &Vm<'_>| vm.claim.epoch > last && vm.run_state == "running" && vm.is_settled();
        // The answer to the request and the news that it runs may come in either order.
        let (answer, seen) =
            tokio::join!(client.set_vm_state(&self.vm, "start", &[]), self.until(changes, "runs", runs));
        answer.map_err(self.failed("start"))?;
        let (running, vm) = seen?;
        Ok(Start { epoch: vm.claim.epoch, asked, running })
    }

    async fn stop(&self, client: &Client, changes: Changes<'_>) -> Result<()> {
        client.set_vm_state(&self.vm, "stop", &[]).await.map_err(self.failed("stop"))?;
        self.until(changes, "is off", |vm| vm.state == "stop" && vm.is_settled()).await.map(|_| ())
    }

    /// Waits until it is so; returns when that was seen.
    async fn until(
        &self,
        mut changes: Changes<'_>,
        what: &str,
        is: impl Fn(&Vm<'_>) -> bool,
    ) -> Result<(u64, Vm<'static>)> {
        let failed = |why: &str| LabError::new(format!("it is not seen that VM {} {what}", self.vm), why);
        let seen = async {
            while let Some(vm) = changes.next().await {
                let (at, vm) = (now(), vm.map_err(self.failed("watch"))?);
                if is(&vm) {
                    return Ok((at, vm));
                }
                if vm.state == "fail" {
                    return Err(failed(&vm.failed_reason));
                }
            }
            Err(failed("the watch ended"))
        };
        timeout(PATIENCE, seen).await.unwrap_or_else(|_| Err(failed(&format!("not in {} s", PATIENCE.as_secs()))))
    }
}
