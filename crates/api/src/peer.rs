//! Requests to other nodes, for what only they have.

use crate::{ApiState, answer::ApiError};
use axum::http::StatusCode;
use drover_client::Client;
use drover_model::{DaemonState, NodeName};

/// A client for another node.
pub(crate) fn client(state: &ApiState, node: &NodeName) -> Result<Client, ApiError> {
    let view = state.node.view();
    let peer = view.nodes.get(node).ok_or_else(|| ApiError::not_found(format!("there is no node {node}")))?;
    let daemon = peer.daemon_state();
    if matches!(daemon, DaemonState::Dead | DaemonState::Stop) {
        let message =
            format!("only node {node} has this, and its daemon is in state {daemon}; start that daemon first");
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let token = state.node.node_token().to_owned();
    Ok(Client::new(&format!("http://{}", peer.record.value.api), Some(token))?.forwarding())
}
