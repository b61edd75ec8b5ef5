//! The endpoints and the functions behind them, by subject.

pub(crate) mod cluster;
pub(crate) mod events;
pub(crate) mod fence;
mod logs;
pub(crate) mod node;
pub(crate) mod token;
pub(crate) mod vm;

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::Call,
};
use axum::http::StatusCode;
use bytes::Bytes;
use drover_model::ClusterView;
use futures_util::stream;
use regex::{Regex, RegexBuilder};

/// A filter by name. The size limit prevents expressions that take long to compile or to run.
fn limit(field: &str, text: Option<&str>) -> Result<Option<Regex>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let built = RegexBuilder::new(text).size_limit(1 << 18).build();
    built.map(Some).map_err(|error| {
        let why = error.to_string();
        let last = why.lines().last().unwrap_or("").trim().to_owned();
        ApiError::parameter(field, text, format!("a regular expression ({last})"))
    })
}

/// The error of a wait that ends because the daemon stops.
fn stopping() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "this node's daemon is stopping")
}

/// Streams an object of the view as a line at each change, until it no longer exists (`None`).
fn watch(call: &Call, line: impl Fn(&ClusterView) -> Option<Vec<u8>> + Clone + Send + 'static) -> Answer {
    let mut views = call.state.node.views();
    views.mark_changed();
    let changes = stream::unfold((views, Vec::new()), move |(mut views, last)| {
        let line = line.clone();
        async move {
            loop {
                views.changed().await.ok()?;
                let view = views.borrow_and_update().clone();
                let mut line = line(&view)?;
                line.push(b'\n');
                if line != last {
                    return Some((Ok(Bytes::from(line.clone())), (views, line)));
                }
            }
        }
    });
    answer::stream("application/x-ndjson", changes)
}
