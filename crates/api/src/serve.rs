//! The HTTP server: routing, authentication and reading of requests.

use crate::{
    ApiState,
    answer::{Answer, ApiError},
    args::Args,
    auth,
    endpoint::{Call, ENDPOINTS, Endpoint},
    limits::{BODY_MAX, Limits},
    listen::{Mode, Server},
};
use axum::{
    Router,
    body::{Body, HttpBody, to_bytes},
    extract::State,
    http::{HeaderValue, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use drover_agent::operation::scope;
use drover_model::{ClusterView, Operation, OperationId};
use futures_util::{StreamExt, stream};
use percent_encoding::percent_decode_str;
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::timeout};

/// Time in which a request's body must have been received.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Path prefix of all endpoints.
const PREFIX: &str = "/api/v1";

/// The API as a service.
pub fn router(state: ApiState) -> Router {
    Router::new().fallback(handle).with_state(state)
}

/// Serves the API on all listeners until `stop` is true and the requests in progress are answered. Returns before if
/// one of the addresses is not served any more, which is a bug: the daemon must not live on without it.
pub async fn serve(listeners: Vec<TcpListener>, state: ApiState, mut stop: watch::Receiver<bool>) {
    let limits = state.limits.clone();
    let server = Server::new(router(state), limits, "this node's daemon stops; try again, or ask another node");
    let mut servers = JoinSet::new();
    for listener in listeners {
        servers.spawn(server.clone().serve(listener));
    }
    tokio::select! {
        // Fails if the sender is gone, which also means to stop.
        stopped = stop.wait_for(|stop| *stop) => { stopped.ok(); }
        Some(ended) = servers.join_next() => {
            tracing::error!(?ended, "the API does not serve one of its addresses any more");
            return;
        }
    }
    server.set(Mode::Draining);
    // Cannot fail: the server has the sender.
    server.connections().wait_for(|open| *open == 0).await.ok();
}

async fn handle(State(state): State<ApiState>, request: Request<Body>) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (operation, answered) = match operation(&state, &request) {
        Ok(operation) => (operation.clone(), answer(state, request, operation).await),
        Err(error) => (None, Err(error)),
    };
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    if let Some(id) = operation.and_then(|id| HeaderValue::from_str(id.as_str()).ok()) {
        response.headers_mut().insert(drover_client::OPERATION, id);
    }
    if method == Method::HEAD {
        response = without_body(response);
    }
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    response
}

/// A response without its body, for HEAD. `Content-Length` gives the length of the omitted body, except for streams,
/// whose length is not known.
fn without_body(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    match body.size_hint().exact() {
        Some(length) if head.status != StatusCode::NO_CONTENT => {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            Response::from_parts(head, Body::empty())
        }
        Some(_) => Response::from_parts(head, Body::empty()),
        // `Body::empty()` would be sent with a `Content-Length` of 0.
        None => Response::from_parts(head, Body::from_stream(stream::empty::<io::Result<Bytes>>())),
    }
}

/// The id of the operation that a request begins, unless it only reads. The client's own must be valid; that of a proxy
/// or another program, which may be anything, is used if it is.
fn operation(state: &ApiState, request: &Request<Body>) -> Result<Option<OperationId>, ApiError> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let given = |name: &str| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase().parse::<OperationId>())
    };
    if let Some(own) = given(drover_client::OPERATION) {
        let wrong = |error| format!("header {}: {error}", drover_client::OPERATION);
        return own.map(Some).map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, wrong(error)));
    }
    let proxy = given("X-Request-Id").and_then(Result::ok);
    Ok(Some(proxy.unwrap_or_else(|| state.node.new_operation_id())))
}

async fn answer(state: ApiState, request: Request<Body>, operation: Option<OperationId>) -> Answer {
    let (endpoint, subject) = find(&request)?;
    let (mut token, mut by) = (None, String::new());
    if endpoint.token {
        if !state.node.is_loaded() {
            let why = "this node has not read the cluster's records yet; try again in a moment";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        let (hash, name) = auth::check(&state.node.view(), request.headers())?;
        (token, by) = (Some(hash), name);
    }
    let (parts, body) = request.into_parts();
    // What needs no token takes no parameters, so that its body need not be received.
    let body = if token.is_none() { Bytes::new() } else { read(body, &parts.headers, &state.limits).await? };
    let args = Args::read(&endpoint.params, parts.uri.query(), &parts.headers, &body)?;
    let forwarded = parts.headers.contains_key(drover_client::FORWARDED);
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let streams = header("accept").is_some_and(|accepted| accepted.contains("text/event-stream"));
    let last_event = header("last-event-id").filter(|id| !id.is_empty()).map(str::to_owned);
    let views = state.node.views();
    let operation = operation.map(|id| Operation { id, by });
    let response = endpoint.run(Call { state, subject, forwarded, streams, last_event }, args);
    let response = scope(operation, response).await?;
    Ok(match token {
        Some(token) => until_revoked(response, token, views),
        None => response,
    })
}

/// Ends a stream when the token of its request is revoked: with an error, so that the client does not take it for the
/// end of what it reads.
fn until_revoked(response: Response, token: auth::Hash, mut views: watch::Receiver<Arc<ClusterView>>) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let (head, body) = response.into_parts();
    let revoked = Box::pin(async move {
        // Fails when the daemon ends, and the stream with it.
        views.wait_for(|view| !auth::is_known(view, &token)).await.ok();
    });
    let pieces = stream::unfold(Some((body.into_data_stream(), revoked)), async |streaming| {
        let (mut body, mut revoked) = streaming?;
        tokio::select! {
            biased;
            () = &mut revoked => Some((Err(io::Error::other("the token was revoked")), None)),
            piece = body.next() => Some((piece?.map_err(io::Error::other), Some((body, revoked)))),
        }
    });
    Response::from_parts(head, Body::from_stream(pieces))
}

/// The endpoint of a request, and the value of the path's variable part.
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
    for endpoint in ENDPOINTS.iter() {
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

/// Matches a path against a row's. Returns the value of the variable part, empty if there is none.
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

/// Percent-decodes a part of a path; `None` if the result is not valid UTF-8.
fn decode(part: &str) -> Option<String> {
    Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())
}

/// Receives a request's body.
async fn read(body: Body, headers: &axum::http::HeaderMap, limits: &Limits) -> Result<Bytes, ApiError> {
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
    let size = if body.is_end_stream() { 0 } else { announced.unwrap_or(BODY_MAX) };
    let receive = async {
        let _room = limits.body(size).await;
        to_bytes(body, BODY_MAX).await.map_err(|_| too_large())
    };
    timeout(BODY_TIMEOUT, receive).await.unwrap_or_else(|_| {
        let why = format!("the body was not received within {} s", BODY_TIMEOUT.as_secs());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, why))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_their_rows() {
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
