//! Logs that are files on some node: the last lines, or those and what follows.

use crate::{
    answer::{self, Answer, ApiError},
    args::Args,
    endpoint::Call,
    peer,
};
use axum::http::StatusCode;
use bytes::Bytes;
use drover_drivers::console;
use drover_model::{NodeName, wire::Log};
use futures_util::{Stream, StreamExt, stream};
use std::{io, path::PathBuf};

/// How many lines, if nobody says.
const LINES: usize = 500;

/// A file of this node, as an answer.
pub(crate) async fn local(name: &str, file: PathBuf, args: &Args) -> Answer {
    let lines = args.number("lines").unwrap_or(LINES);
    let failed = |error: io::Error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the log of {name} cannot be read: {error}"))
    };
    let path = file.clone();
    let tail = tokio::task::spawn_blocking(move || console::tail(&path, lines)).await;
    let tail = tail.map_err(io::Error::other).and_then(|tail| tail).map_err(failed)?;
    if !args.flag("follow") {
        return answer::json(&Log { name: name.to_owned(), data: tail.text });
    }
    let pieces = console::follow(&file, &tail).map_err(failed)?;
    let first = stream::once(async move { Bytes::from(tail.text) });
    let rest = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    answer::stream("text/plain; charset=utf-8", first.chain(rest).map(Ok))
}

/// What another node answers, passed on.
pub(crate) async fn remote(call: &Call, node: &NodeName, what: Remote<'_>) -> Answer {
    if call.forwarded {
        let me = call.state.node.me();
        let message =
            format!("node {me} was asked for what node {node} has: their views differ; try again in a moment");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let (client, args) = (peer::client(&call.state, node)?, &call.args);
    let lines = args.number("lines").unwrap_or(LINES);
    match (what, args.flag("follow")) {
        (Remote::NodeLog, false) => answer::json(&client.node_log(node.as_str(), lines).await?),
        (Remote::Console(vm), false) => answer::json(&client.console(vm, lines).await?),
        (Remote::NodeLog, true) => passed_on(client.follow_node_log(node.as_str(), lines).await?),
        (Remote::Console(vm), true) => passed_on(client.follow_console(vm, lines).await?),
    }
}

/// What is asked of another node.
pub(crate) enum Remote<'a> {
    /// Its daemon's log.
    NodeLog,
    /// The console of one of its guests.
    Console(&'a str),
}

fn passed_on(pieces: impl Stream<Item = drover_client::Result<Bytes>> + Send + 'static) -> Answer {
    answer::stream("text/plain; charset=utf-8", pieces.map(|piece| piece.map_err(io::Error::other)))
}
