//! Logs, which are files on one node: the last lines, optionally followed by new ones.

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
    peer,
};
use axum::http::StatusCode;
use bytes::Bytes;
use drover_drivers::console::{self, LogError};
use drover_model::{
    NodeName,
    wire::{Log, ReadLog},
};
use futures_util::{Stream, StreamExt, stream};
use std::{io, path::PathBuf};

/// Default number of lines.
const LINES: usize = 500;

/// Answers with a log file of this node.
pub(crate) async fn local(call: &Call, name: &str, file: PathBuf, asked: ReadLog) -> Answer {
    let lines = asked.lines.unwrap_or(LINES);
    let failed = |error: LogError| {
        let status = match &error {
            LogError::Limit { .. } => StatusCode::SERVICE_UNAVAILABLE,
            LogError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let node = call.state.node.me();
        ApiError::new(status, format!("node {node} cannot read the log of {name}: {error}"))
    };
    let path = file.clone();
    let tail = tokio::task::spawn_blocking(move || console::tail(&path, lines)).await;
    let mut tail = tail.map_err(|error| failed(io::Error::other(error).into()))?.map_err(failed)?;
    if !asked.follow {
        return answer::json(&Log { name: name.to_owned(), data: tail.text() });
    }
    let first = Bytes::from(std::mem::take(&mut tail.data));
    let pieces = call.state.node.logs().follow(&file, tail).map_err(failed)?;
    let first = stream::once(async move { first });
    let rest = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    answer::stream("text/plain; charset=utf-8", first.chain(rest).map(Ok))
}

/// Forwards the request to another node.
pub(crate) async fn remote(call: &Call, node: &NodeName, what: Remote<'_>, asked: ReadLog) -> Answer {
    if call.forwarded {
        let me = call.state.node.me();
        let message = format!(
            "node {me} got a request for a log of node {node}: the views of the nodes differ; try again in a moment"
        );
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let client = peer::client(&call.state, node)?;
    let lines = asked.lines.unwrap_or(LINES);
    match (what, asked.follow) {
        (Remote::NodeLog, false) => answer::json(&client.node_log(node.as_str(), lines).await?),
        (Remote::Console(vm), false) => answer::json(&client.console(vm, lines).await?),
        (Remote::NodeLog, true) => forwarded(client.follow_node_log(node.as_str(), lines).await?),
        (Remote::Console(vm), true) => forwarded(client.follow_console(vm, lines).await?),
    }
}

/// A log of another node.
pub(crate) enum Remote<'a> {
    /// Its daemon's log.
    NodeLog,
    /// The console of one of its guests.
    Console(&'a str),
}

fn forwarded(pieces: impl Stream<Item = drover_client::Result<Bytes>> + Send + 'static) -> Answer {
    answer::stream("text/plain; charset=utf-8", pieces.map(|piece| piece.map_err(io::Error::other)))
}
