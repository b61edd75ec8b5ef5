//! Answers: JSON always, errors too, each with the one status that fits.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use drover_agent::CommandError;
use drover_client::ClientError;
use drover_model::wire::{Message, Refusal};
use serde::Serialize;

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) refusal: Box<Refusal>,
    /// For a method that is not accepted: those that are.
    pub(crate) allow: Option<HeaderValue>,
}

/// What every endpoint's function gives.
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

/// A text of somebody else's, short enough to be shown.
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
    /// Another node was asked, and this is what came of it.
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

/// A value, as JSON.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    Ok(with_body(StatusCode::OK, value))
}

/// A sentence, as JSON.
pub(crate) fn message(text: impl Into<String>) -> Answer {
    json(&Message { message: text.into() })
}

/// Pieces as they come.
pub(crate) fn stream(
    kind: &'static str,
    pieces: impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static,
) -> Answer {
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Proxies must pass each piece on as it comes.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}
