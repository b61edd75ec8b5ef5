//! Shell completion of names from the cluster. Errors are ignored: without an answer within the timeout, there are no
//! candidates.

use crate::connection;
use clap_complete::CompletionCandidate;
use drover_client::Client;
use drover_model::wire::{ListNodes, ListVms};
use std::{ffi::OsStr, future::Future, time::Duration};

/// Timeout for one completion.
const TIMEOUT: Duration = Duration::from_millis(800);

fn ask<F: Future<Output = Vec<String>>>(current: &OsStr, names: impl FnOnce(Client) -> F) -> Vec<CompletionCandidate> {
    let named = std::env::var("DROVER_CONNECTION").ok();
    let Ok(client) = connection::client(named.as_deref()) else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let prefix = current.to_string_lossy();
    let found = runtime.block_on(async { tokio::time::timeout(TIMEOUT, names(client)).await }).unwrap_or_default();
    found.into_iter().filter(|name| name.starts_with(&*prefix)).map(CompletionCandidate::new).collect()
}

/// Completes VM names.
pub(crate) fn vms(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, |client| async move {
        client.listed_vms(&ListVms::default()).await.unwrap_or_default().into_iter().map(|vm| vm.name).collect()
    })
}

/// Completes the last name of a comma-separated list of nodes.
pub(crate) fn node_lists(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    let (before, last) = text.rsplit_once(',').map_or((String::new(), &*text), |(b, last)| (format!("{b},"), last));
    let found = nodes(OsStr::new(last));
    found.into_iter().map(|candidate| candidate.add_prefix(&before)).collect()
}

/// Completes node names.
pub(crate) fn nodes(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, |client| async move {
        client.nodes(&ListNodes::default()).await.unwrap_or_default().into_iter().map(|node| node.name).collect()
    })
}
