//! Responses: always JSON, errors included, with the matching HTTP status.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use drover_agent::CommandError;
use drover_client::ClientError;
use drover_model::wire::{Message, Refusal};
use serde::Serialize;

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) refusal: Box<Refusal>,
    /// The `Allow` header, for a method that is not accepted.
    pub(crate) allow: Option<HeaderValue>,
}

/// The result of every endpoint's function.
pub(crate) type Answer = Result<Response, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, refusal: Box::new(Refusal { message: message.into(), ..Refusal::default() }), allow: None }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// A parameter that is not accepted.
    pub(crate) fn parameter(field: &str, given: &str, accepted: impl Into<String>) -> ApiError {
        let (given, accepted) = (shortened(given), accepted.into());
        let message = format!("parameter {field}: {given:?} is not accepted; accepted is {accepted}");
        let refusal = Refusal { message, field: Some(field.to_owned()), given: Some(given), accepted: Some(accepted) };
        ApiError { status: StatusCode::BAD_REQUEST, refusal: Box::new(refusal), allow: None }
    }
}

/// Text from a request, truncated for use in a message.
pub(crate) fn shortened(text: &str) -> String {
    const MAX: usize = 120;
    match text.char_indices().nth(MAX) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or("")),
        None => text.to_owned(),
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> ApiError {
        let message = error.to_string();
        match error {
            CommandError::Invalid { field, given, .. } => ApiError {
                status: StatusCode::BAD_REQUEST,
                refusal: Box::new(Refusal {
                    message,
                    field: Some(field.to_owned()),
                    given: Some(shortened(&given)),
                    accepted: None,
                }),
                allow: None,
            },
            CommandError::NotFound(_) => ApiError::new(StatusCode::NOT_FOUND, message),
            CommandError::Refused(_) => ApiError::new(StatusCode::BAD_REQUEST, message),
            CommandError::Conflict(_) => ApiError::new(StatusCode::CONFLICT, message),
            CommandError::Unavailable(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message),
        }
    }
}

impl From<ClientError> for ApiError {
    /// A failed request to another node.
    fn from(error: ClientError) -> ApiError {
        match error {
            ClientError::Refused { status, refusal } => ApiError {
                status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
                refusal: Box::new(refusal),
                allow: None,
            },
            error => ApiError::new(StatusCode::BAD_GATEWAY, format!("the other node cannot be asked: {error}")),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = with_body(self.status, &*self.refusal);
        if let Some(methods) = self.allow {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        response
    }
}

fn with_body(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            *response.status_mut() = status;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A value as a JSON response.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    Ok(with_body(StatusCode::OK, value))
}

/// Items per chunk of a long list.
const CHUNK: usize = 64;

/// A list as a JSON array. A long one is serialized in chunks while it is sent, so that the first items arrive at once
/// and the whole is never in memory. `write` appends an item's JSON.
pub(crate) fn list<T: Send + 'static>(
    items: Vec<T>,
    write: impl Fn(&T, &mut Vec<u8>) -> serde_json::Result<()> + Send + 'static,
) -> Answer {
    if items.len() > CHUNK {
        return stream("application/json", futures_util::stream::iter(pieces(items, write)));
    }
    let whole = pieces(items, write).next().transpose().map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the list cannot be written: {error}"))
    })?;
    let mut response = Response::new(Body::from(whole.unwrap_or_default()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn pieces<T>(
    items: Vec<T>,
    write: impl Fn(&T, &mut Vec<u8>) -> serde_json::Result<()>,
) -> impl Iterator<Item = Result<bytes::Bytes, std::io::Error>> {
    let (mut left, mut first, mut over) = (items.into_iter(), true, false);
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let mut piece = if first { b"[".to_vec() } else { Vec::new() };
        for item in left.by_ref().take(CHUNK) {
            if !std::mem::take(&mut first) {
                piece.push(b',');
            }
            if let Err(error) = write(&item, &mut piece) {
                // The response has begun: cut it off, which no client takes for the end of the list.
                over = true;
                return Some(Err(std::io::Error::other(error)));
            }
        }
        if left.as_slice().is_empty() {
            piece.push(b']');
            over = true;
        }
        Some(Ok(bytes::Bytes::from(piece)))
    })
}

/// A message as a JSON response.
pub(crate) fn message(text: impl Into<String>) -> Answer {
    json(&Message { message: text.into() })
}

/// A streamed response.
pub(crate) fn stream(
    kind: &'static str,
    pieces: impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static,
) -> Answer {
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Proxies must not buffer it.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_list_equals_the_whole_list() {
        let written = |items: Vec<u32>| {
            let pieces = pieces(items, |item, piece| serde_json::to_writer(piece, item));
            let pieces: Vec<bytes::Bytes> = pieces.collect::<Result<_, _>>().unwrap();
            (pieces.len(), pieces.concat())
        };
        for (many, chunks) in [(0, 1), (1, 1), (64, 1), (65, 2), (200, 4)] {
            let items: Vec<u32> = (0..many).collect();
            assert_eq!(written(items.clone()), (chunks, serde_json::to_vec(&items).unwrap()), "{many} items");
        }
    }
}
