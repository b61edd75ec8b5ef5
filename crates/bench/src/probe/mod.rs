//! What is measured inside a node. The program in the node is the same one, with a hidden subcommand: it gets a
//! question in JSON, and prints the answer in JSON.

mod flushes;
mod guests;
mod handoffs;
mod http;
mod many;
mod moves;
mod processes;
mod starts;
mod subject;

pub(crate) use flushes::{Flushed, Flushes, Limits};
pub(crate) use guests::{Bring, Remove};
pub(crate) use handoffs::{HandedOver, Handoffs};
pub(crate) use http::Requests;
pub(crate) use many::Define;
pub(crate) use moves::{Move, Moves};
pub(crate) use processes::Runs;
pub(crate) use starts::{Start, Starts};

use drover_client::Client;
use drover_lab::{LabError, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, future::Future};

/// Where a node's API listens for the node itself.
const API: &str = "127.0.0.1:7370";
/// The token that its daemon keeps for the administrator.
const TOKEN_FILE: &str = "/var/lib/drover/admin.token";

/// Something that is measured inside a node; its fields say how.
pub(crate) trait Probe: Serialize + DeserializeOwned {
    /// Names it to the program in the node.
    const NAME: &'static str;
    /// What is found.
    type Answer: Serialize + DeserializeOwned;
    /// Measures, here.
    fn run(self) -> Result<Self::Answer>;
}

/// In the node: answers a question.
pub(crate) fn answer(name: &str, question: &str) -> Result<String> {
    match name {
        Requests::NAME => run::<Requests>(question),
        Define::NAME => run::<Define>(question),
        Runs::NAME => run::<Runs>(question),
        Starts::NAME => run::<Starts>(question),
        Bring::NAME => run::<Bring>(question),
        Remove::NAME => run::<Remove>(question),
        Moves::NAME => run::<Moves>(question),
        Flushes::NAME => run::<Flushes>(question),
        Handoffs::NAME => run::<Handoffs>(question),
        _ => Err(LabError::new(format!("there is no probe {name:?}"), "these are not for use by hand")),
    }
}

fn run<P: Probe>(question: &str) -> Result<String> {
    let probe: P =
        serde_json::from_str(question).map_err(|e| LabError::new(format!("the question of {}", P::NAME), e))?;
    serde_json::to_string(&probe.run()?).map_err(|e| LabError::new(format!("the answer of {}", P::NAME), e))
}

fn token() -> Result<String> {
    let text = fs::read_to_string(TOKEN_FILE).map_err(|e| LabError::new(format!("cannot read {TOKEN_FILE}"), e))?;
    Ok(text.trim().to_owned())
}

/// A client of the node's own API.
fn client() -> Result<Client> {
    let url = format!("http://{API}");
    Client::new(&url, Some(token()?)).map_err(|e| LabError::new(url, e))
}

/// Runs something asynchronous on this thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| LabError::new("cannot run anything asynchronous", e))?.block_on(work)
}
