//! Measurements inside a node. This program is run there with a hidden subcommand: it gets its parameters as JSON, and
//! prints its result as JSON.

mod flushes;
mod guests;
mod handoffs;
mod http;
mod many;
mod moves;
mod processes;
mod starts;
mod subject;

pub(crate) use flushes::{FlushResult, Flushes, Limits};
pub(crate) use guests::{Boot, Remove};
pub(crate) use handoffs::{Handoff, Handoffs};
pub(crate) use http::Requests;
pub(crate) use many::Define;
pub(crate) use moves::{Move, Moves};
pub(crate) use processes::Runs;
pub(crate) use starts::{Start, Starts};

use drover_client::Client;
use drover_lab::{LabError, Result};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, future::Future};

/// Address of a node's API in the node itself.
const API: &str = "127.0.0.1:7370";
/// File with the daemon's token.
const TOKEN_FILE: &str = "/var/lib/drover/admin.token";

/// A measurement inside a node. The fields are its parameters.
pub(crate) trait Probe: Serialize + DeserializeOwned {
    /// Name on the command line.
    const NAME: &'static str;
    /// The result.
    type Answer: Serialize + DeserializeOwned;
    /// Measures, in this process.
    fn run(self) -> Result<Self::Answer>;
}

/// Runs a probe by name, with its parameters and its result as JSON. Called in the node.
pub(crate) fn run(name: &str, parameters: &str) -> Result<String> {
    match name {
        Requests::NAME => run_json::<Requests>(parameters),
        Define::NAME => run_json::<Define>(parameters),
        Runs::NAME => run_json::<Runs>(parameters),
        Starts::NAME => run_json::<Starts>(parameters),
        Boot::NAME => run_json::<Boot>(parameters),
        Remove::NAME => run_json::<Remove>(parameters),
        Moves::NAME => run_json::<Moves>(parameters),
        Flushes::NAME => run_json::<Flushes>(parameters),
        Handoffs::NAME => run_json::<Handoffs>(parameters),
        _ => Err(LabError::new(format!("there is no probe {name:?}"), "probes are run by drover-bench itself")),
    }
}

fn run_json<P: Probe>(parameters: &str) -> Result<String> {
    let failed = |what: &str, e| LabError::new(format!("probe {}: cannot {what}", P::NAME), e);
    let probe: P = serde_json::from_str(parameters).map_err(|e| failed("decode its parameters", e))?;
    serde_json::to_string(&probe.run()?).map_err(|e| failed("encode its result", e))
}

fn token() -> Result<String> {
    let text = fs::read_to_string(TOKEN_FILE).map_err(|e| LabError::new(format!("cannot read {TOKEN_FILE}"), e))?;
    Ok(text.trim().to_owned())
}

/// A client for the node's own API.
fn client() -> Result<Client> {
    let url = format!("http://{API}");
    Client::new(&url, Some(token()?)).map_err(|e| LabError::new(url, e))
}

/// Runs a future on this thread.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| LabError::new("cannot create a runtime", e))?.block_on(future)
}
