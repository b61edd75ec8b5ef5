//! Moves of one running VM, as whoever orders them sees them.

use super::{
    Probe, block_on, client,
    subject::{Done, Subject},
};
use drover_lab::Result;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::sleep;

/// Sends a VM to another node and home again, again and again.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Moves {
    /// Its name. It runs at home.
    pub(crate) vm: String,
    /// Its node; another one than the node that is asked.
    pub(crate) home: String,
    /// Where it is sent.
    pub(crate) away: String,
    /// How often it goes there and back.
    pub(crate) rounds: usize,
    /// How long it is left alone after each move.
    pub(crate) rest: Duration,
}

/// One move. Times are in microseconds since 1970, UTC, as in the daemon's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    /// Where from.
    pub(crate) from: String,
    /// Where to.
    pub(crate) to: String,
    /// The grant that it runs under at its new node, by which the log of the old one tells of it.
    pub(crate) epoch: u64,
    /// Before the request was sent.
    pub(crate) asked: u64,
    /// When the node that was asked showed that it runs on its new node.
    pub(crate) running: u64,
}

impl Probe for Moves {
    const NAME: &'static str = "moves";
    type Answer = Vec<Move>;

    fn run(self) -> Result<Vec<Move>> {
        block_on(async {
            let client = client()?;
            let mut vm = Subject::watch(&client, &self.vm).await?;
            let mut moves = Vec::new();
            for _ in 0..self.rounds {
                let there = vm.migrate(&self.away).await?;
                moves.push(moved(&self.home, &self.away, &there));
                sleep(self.rest).await;
                let back = vm.unmigrate(&self.home).await?;
                moves.push(moved(&self.away, &self.home, &back));
                sleep(self.rest).await;
            }
            Ok(moves)
        })
    }
}

fn moved(from: &str, to: &str, done: &Done) -> Move {
    let (epoch, asked, running) = (done.vm.claim.epoch, done.asked, done.seen);
    Move { from: from.to_owned(), to: to.to_owned(), epoch, asked, running }
}
