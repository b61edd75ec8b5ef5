//! Listeners and their connections. Shared by the API on the node's own addresses and the API on the floating ones.

use crate::{answer::ApiError, limits::Limits};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Request, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Timeout for receiving a request's head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a request's head, in bytes, and of what is buffered for a connection.
const HEAD_MAX: usize = 32 << 10;
/// Time after which a client that is not heard of is probed.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time after which a connection ends whose client receives nothing any more, or does not answer. Long enough for
/// somebody who stops a followed log to read it.
const STALLED: Duration = Duration::from_secs(300);
/// Pause after a failed `accept`, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Sent to a client whose connection is refused.
const TOO_MANY: &str = "{\"message\":\"too many connections to this node's API; close some\"}";

/// How requests are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Requests are answered.
    Open,
    /// Requests in progress are answered, new ones get 503.
    Draining,
}

/// Serves listeners.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    router: Router,
    limits: Arc<Limits>,
    mode: watch::Sender<Mode>,
    /// The number of open connections.
    connections: watch::Sender<usize>,
}

impl Server {
    /// A server without listeners. `draining`: what a request is told that comes while the server drains.
    pub(crate) fn new(router: Router, limits: Arc<Limits>, draining: &'static str) -> Server {
        let mode = watch::channel(Mode::Open).0;
        let router = router.layer(middleware::from_fn_with_state((mode.subscribe(), draining), turn_away));
        Server { router, limits, mode, connections: watch::channel(0).0 }
    }

    /// Sets how requests are treated.
    pub(crate) fn set(&self, new: Mode) {
        self.mode.send_if_modified(|mode| std::mem::replace(mode, new) != new);
    }

    /// The number of open connections.
    pub(crate) fn connections(&self) -> watch::Receiver<usize> {
        self.connections.subscribe()
    }

    /// Serves a listener and its connections until dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match self.limits.admit(peer.ip()) {
                        Some(admitted) => {
                            // An answer is sent in parts. Nagle's algorithm would hold the last one back until the
                            // client has acknowledged the others, which it does 40 ms later. It fails when the client
                            // is gone.
                            stream.set_nodelay(true).ok();
                            let counted = Counted::new(&self.connections);
                            let connection = connection(stream, self.router.clone(), self.mode.subscribe());
                            open.spawn(async move {
                                connection.await;
                                drop((admitted, counted));
                            });
                        }
                        // As far as it can be sent without waiting for the client.
                        None => _ = stream.try_write(refusal().as_bytes()).ok(),
                    },
                    Err(error) => {
                        tracing::debug!(%error, "a connection to the API was not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
        }
    }
}

/// The response of a connection that is refused.
fn refusal() -> String {
    let (status, length) = (StatusCode::SERVICE_UNAVAILABLE, TOO_MANY.len());
    format!(
        "HTTP/1.1 {status}\r\nretry-after: 5\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{TOO_MANY}"
    )
}

/// Answers requests that arrive while draining with 503: nothing was done, the client may retry.
async fn turn_away(
    State((mode, why)): State<(watch::Receiver<Mode>, &'static str)>,
    request: Request<Body>,
    next: Next,
) -> Response {
    if *mode.borrow() == Mode::Open {
        return next.run(request).await;
    }
    let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Counts an open connection until dropped.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(connections: &watch::Sender<usize>) -> Counted {
        connections.send_modify(|open| *open += 1);
        Counted(connections.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Completes when draining begins.
async fn drained(mode: &mut watch::Receiver<Mode>) {
    // Fails if the server is gone, which means the same.
    mode.wait_for(|mode| *mode == Mode::Draining).await.ok();
}

/// Ends connections whose client is gone without a word, or receives nothing any more.
fn end_when_stalled(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    // With it, probes go on until this time (tcp(7)).
    socket.set_tcp_user_timeout(Some(STALLED))
}

async fn connection(stream: TcpStream, router: Router, mut mode: watch::Receiver<Mode>) {
    if let Err(error) = end_when_stalled(&stream) {
        tracing::debug!(%error, "a connection to the API has no timeout");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_MAX);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A connection opened while draining is not idle: its request is about to arrive, and gets 503.
    if *mode.borrow() == Mode::Draining {
        // A broken connection has ended too.
        connection.await.ok();
        return;
    }
    let ended: Result<(), hyper::Error> = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drained(&mut mode) => {
            // The request in progress is the last one; an idle connection is closed at once.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %io::Error::other(error), "a connection to the API ended early");
    }
}

#[cfg(test)]
mod tests;
