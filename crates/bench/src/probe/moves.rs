//! Migrations of one running VM, as a client sees them.

use super::{
    Probe, block_on, client,
    subject::{Completed, WatchedVm},
};
use drover_lab::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::sleep;

/// Migrates a VM to another node and back home, repeatedly.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Moves {
    /// Name of the VM, which runs at home.
    pub(crate) vm: String,
    /// Home node of the VM.
    pub(crate) home: String,
    /// The other node.
    pub(crate) away: String,
    /// Number of migrations to the other node and back.
    pub(crate) rounds: usize,
    /// Delay after each migration.
    pub(crate) rest: Duration,
}

/// A migration. Times are in microseconds since 1970, UTC, as in the daemon's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// Source node.
    pub(crate) from: String,
    /// Target node.
    pub(crate) to: String,
    /// Epoch on the target, which identifies the migration in the source's log.
    pub(crate) epoch: u64,
    /// Just before the request was sent.
    pub(crate) requested: u64,
    /// When this node showed that the VM runs on the target.
    pub(crate) running: u64,
}

impl Probe for Moves {
    const NAME: &'static str = "moves";
    type Answer = Vec<Move>;

    fn run(self) -> Result<Vec<Move>> {
        block_on(async {
            let client = client()?;
            let mut vm = WatchedVm::watch(&client, &self.vm).await?;
            let mut moves = Vec::new();
            for _ in 0..self.rounds {
                let out = vm.migrate(&self.away).await?;
                moves.push(moved(&self.home, &self.away, &out));
                sleep(self.rest).await;
                let back = vm.unmigrate(&self.home).await?;
                moves.push(moved(&self.away, &self.home, &back));
                sleep(self.rest).await;
            }
            Ok(moves)
        })
    }
}

fn moved(from: &str, to: &str, done: &Completed) -> Move {
    let (epoch, requested, running) = (done.vm.claim.epoch, done.requested, done.seen);
    Move { from: from.to_owned(), to: to.to_owned(), epoch, requested, running }
}
