//! The HTTP API, version 1: requests in, answers out; no decision is made here.
//!
//! Every endpoint is one row of a table ([`endpoint::ENDPOINTS`]): its path, its parameters with their kinds, who may
//! use it, what it answers, and the function behind it. From the rows come the routes, the checking of parameters and
//! the OpenAPI document, so these cannot disagree. A request goes one way:
//!
//! ```text
//! find the row (404, 405) → token (401) → body (413) → parameters (400) → the row's function → JSON
//! ```
//!
//! Lists are answered from this node's view, changes go through `drover_agent::Commands`, and what only another node
//! has (its log, its guests' consoles) is asked of that node (`peer`).

mod answer;
mod args;
mod auth;
pub mod endpoint;
mod floating;
mod openapi;
mod peer;
mod routes;
mod serve;

pub use floating::FloatingApi;
pub use openapi::document as openapi_document;
pub use serve::{router, serve};

use drover_agent::NodeHandle;

/// What every request may need.
#[derive(Clone)]
pub struct ApiState {
    /// This node.
    pub node: NodeHandle,
}
