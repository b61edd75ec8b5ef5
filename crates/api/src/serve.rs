//! From the socket to an endpoint's function.

use crate::{
    ApiState,
    answer::{Answer, ApiError},
    args::Args,
    auth,
    endpoint::{Call, ENDPOINTS, Endpoint},
};
use axum::{
    Router,
    body::{Body, HttpBody, to_bytes},
    extract::State,
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::percent_decode_str;
use std::{future::Future, io};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// The most that a request's body may have, in bytes. The largest that is of use is a domain XML, in a form's escapes.
const BODY_MAX: usize = 1 << 20;

/// Where everything is.
const PREFIX: &str = "/api/v1";

/// The API as a service.
pub fn router(state: ApiState) -> Router {
    Router::new().fallback(handle).with_state(state)
}

/// Serves the API on every listener until told to stop, and then until the requests under way are answered.
///
/// # Errors
/// When a listener fails.
pub async fn serve(listeners: Vec<TcpListener>, state: ApiState, stop: watch::Receiver<bool>) -> io::Result<()> {
    let mut servers = JoinSet::new();
    for listener in listeners {
        let mut stop = stop.clone();
        let stopped = async move {
            // It fails when the sender is gone, which means to stop too.
            stop.wait_for(|stop| *stop).await.ok();
        };
        let server = axum::serve(listener, router(state.clone())).with_graceful_shutdown(stopped);
        servers.spawn(async move { server.await });
    }
    while let Some(ended) = servers.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}

async fn handle(State(state): State<ApiState>, request: Request<Body>) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = answer(state, request).await.unwrap_or_else(IntoResponse::into_response);
    if method == Method::HEAD {
        response = without_body(response);
    }
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    response
}

/// An answer's head alone. How long the body would have been is said, where that is known: not of what comes piece by
/// piece.
fn without_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    match body.size_hint().exact() {
        Some(length) if head.status != StatusCode::NO_CONTENT => {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            Response::from_parts(head, Body::empty())
        }
        Some(_) => Response::from_parts(head, Body::empty()),
        // A body that is empty for certain would be announced as one of no bytes.
        None => Response::from_parts(head, Body::from_stream(stream::empty::<io::Result<Bytes>>())),
    }
}

async fn answer(state: ApiState, request: Request<Body>) -> Answer {
    let (endpoint, subject) = find(&request)?;
    if endpoint.token {
        if !state.node.is_loaded() {
            let why = "this node has not read the cluster's records yet; try again in a moment";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        auth::check(&state.node.view(), request.headers())?;
    }
    let (parts, body) = request.into_parts();
    let body = read(body, &parts.headers).await?;
    let args = Args::read(endpoint.params, parts.uri.query(), &parts.headers, &body)?;
    let forwarded = parts.headers.contains_key(drover_client::FORWARDED);
    run(endpoint, Call { state, args, subject, forwarded }).await
}

fn run(endpoint: &Endpoint, call: Call) -> impl Future<Output = Answer> + use<> {
    (endpoint.run)(call)
}

/// The row of a request, and what stands for the path's variable part.
fn find(request: &Request<Body>) -> Result<(&'static Endpoint, String), ApiError> {
    let path = request.uri().path();
    let nothing = || {
        ApiError::not_found(format!(
            "there is nothing at {:?}; the API is at {PREFIX}, and {PREFIX}/openapi.json describes it",
            crate::answer::shortened(path)
        ))
    };
    let rest = path.strip_prefix(PREFIX).ok_or_else(nothing)?;
    let rest = if rest.is_empty() { "/" } else { rest };
    let mut methods = Vec::new();
    for endpoint in ENDPOINTS {
        if let Some(subject) = matches(endpoint.path, rest) {
            let asked = request.method();
            if endpoint.method == *asked || (endpoint.method == Method::GET && *asked == Method::HEAD) {
                return Ok((endpoint, subject));
            }
            methods.push(endpoint.method.as_str());
        }
    }
    if methods.is_empty() {
        return Err(nothing());
    }
    let message = format!("{} is not accepted here; accepted are {}", request.method(), methods.join(", "));
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    let allow = HeaderValue::from_str(&methods.join(", ")).ok();
    Err(ApiError { allow, ..ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message) })
}

/// Whether a path fits a row's; then what stands for its variable part (empty when it has none).
fn matches(pattern: &str, path: &str) -> Option<String> {
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut subject = String::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(subject),
            (Some(w), Some(g)) if w.starts_with('{') && !g.is_empty() => subject = decode(g)?,
            (Some(w), Some(g)) if w == g => {}
            _ => return None,
        }
    }
}

/// A path's part without its percent escapes; `None` when that is no UTF-8.
fn decode(part: &str) -> Option<String> {
    Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())
}

async fn read(body: Body, headers: &axum::http::HeaderMap) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is too large: at most {BODY_MAX} bytes are accepted"),
        )
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|size| size > BODY_MAX) {
        return Err(too_large());
    }
    match to_bytes(body, BODY_MAX).await {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(_) => Err(too_large()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_their_rows() {
        assert_eq!(matches("/", "/").as_deref(), Some(""));
        assert_eq!(matches("/vm", "/vm/").as_deref(), Some(""));
        assert_eq!(matches("/vm/{vm}", "/vm/a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(matches("/vm/{vm}/state", "/vm/x/state").as_deref(), Some("x"));
        for (pattern, path) in [("/vm", "/vms"), ("/vm/{vm}", "/vm/"), ("/vm/{vm}", "/vm/a/b"), ("/vm/{vm}", "/vm/%ff")]
        {
            assert_eq!(matches(pattern, path), None, "{pattern} {path}");
        }
    }
}
