//! The HTTP API, version 1. It translates requests and responses; decisions are made elsewhere.
//!
//! Every endpoint is one row of a table ([`endpoint::ENDPOINTS`]): its path, whether it needs a token, the type of its
//! response, and its function, which is in the same file as the row. The function's argument, a struct of
//! `drover_model::wire`, defines the parameters ([`params`]). Routes, parameter checks and the OpenAPI document are all
//! derived from the rows, so they cannot disagree. The steps of a request:
//!
//! ```text
//! find the row (404, 405) → token (401) → body (413) → parameters (400) → the row's function → JSON
//! ```
//!
//! Lists are answered from this node's view, changes go through `drover_agent::Commands`, and requests for what only
//! another node has (its log, its guests' consoles) are forwarded to that node (`peer`).

mod answer;
mod args;
mod auth;
pub mod endpoint;
mod floating;
mod limits;
mod listen;
mod openapi;
pub mod params;
mod peer;
mod routes;
mod serve;

pub use floating::FloatingApi;
pub use openapi::document as openapi_document;
pub use serve::{router, serve};

use drover_agent::NodeHandle;
use limits::Limits;
use std::sync::Arc;

/// State shared by all requests.
#[derive(Clone)]
pub struct ApiState {
    /// This node.
    pub node: NodeHandle,
    limits: Arc<Limits>,
}

impl ApiState {
    /// For a process that may have this many open files, which limits the connections.
    pub fn new(node: NodeHandle, open_files: u64) -> ApiState {
        ApiState { node, limits: Arc::new(Limits::of(open_files)) }
    }
}
