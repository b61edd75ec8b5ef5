//! The functions behind the endpoints, by subject.

pub(crate) mod cluster;
mod logs;
pub(crate) mod node;
pub(crate) mod token;
pub(crate) mod vm;

use crate::answer::ApiError;
use regex::{Regex, RegexBuilder};

/// A filter by name. Bounded, so that no expression takes long to build or to run.
fn limit(text: Option<&str>) -> Result<Option<Regex>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let built = RegexBuilder::new(text).size_limit(1 << 18).build();
    built.map(Some).map_err(|error| {
        let why = error.to_string();
        let last = why.lines().last().unwrap_or("").trim().to_owned();
        ApiError::parameter("limit", text, format!("a regular expression ({last})"))
    })
}
