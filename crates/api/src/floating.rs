//! The API on the floating addresses: a service that moves with the primary.
//!
//! A connection does not move with the address that it was made to. So before the role passes on, requests under way
//! are answered and their connections closed, and what comes in meanwhile is told to try again. What takes longer than
//! that (a followed log, a wait) is broken off while the address is still here, so that the client hears of it at once.

use crate::{ApiState, answer::ApiError, serve::router};
use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Request, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use drover_agent::{Grant, Handover, PrimaryService};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

/// How long requests under way have for their answers before the role passes on. Nearly all take a few milliseconds;
/// more would hold up the handoff.
const DRAIN: Duration = Duration::from_millis(150);
/// How long a client may take to send a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted, for want of files, say.
const PAUSE: Duration = Duration::from_millis(100);

/// What becomes of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They are answered.
    Open,
    /// Those under way are; others are told to try again.
    Draining,
}

/// The API on the addresses that the primary has.
pub struct FloatingApi {
    addresses: Vec<SocketAddr>,
    router: Router,
    mode: watch::Sender<Mode>,
    /// Where requests are served: not on the thread of the role.
    runtime: Handle,
    servers: Mutex<Vec<(SocketAddr, AbortHandle)>>,
    /// How many connections there are.
    connections: watch::Sender<usize>,
}

impl FloatingApi {
    /// On these addresses, served on the current runtime.
    pub fn new(addresses: Vec<SocketAddr>, state: ApiState) -> FloatingApi {
        let mode = watch::channel(Mode::Open).0;
        let router = router(state).layer(middleware::from_fn_with_state(mode.subscribe(), turn_away));
        let (connections, servers) = (watch::channel(0).0, Mutex::default());
        FloatingApi { addresses, router, mode, runtime: Handle::current(), servers, connections }
    }

    fn servers(&self) -> MutexGuard<'_, Vec<(SocketAddr, AbortHandle)>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serves(&self, address: SocketAddr) -> bool {
        self.servers().iter().any(|(at, server)| *at == address && !server.is_finished())
    }

    /// Listens on an address, if it does not yet.
    async fn open(&self, address: SocketAddr) -> Result<(), String> {
        if self.serves(address) {
            return Ok(());
        }
        // On that runtime, whose sockets these are.
        let bound = self.runtime.spawn(TcpListener::bind(address)).await.map_err(|e| e.to_string())?;
        let listener = bound.map_err(|e| format!("the API cannot listen on {address}: {e}"))?;
        let serving = serve(listener, self.router.clone(), self.mode.subscribe(), self.connections.clone());
        let server = self.runtime.spawn(serving).abort_handle();
        self.servers().push((address, server));
        Ok(())
    }
}

#[async_trait]
impl PrimaryService for FloatingApi {
    fn name(&self) -> String {
        "API on the floating addresses".to_owned()
    }

    fn handover(&self) -> Handover {
        Handover::Overlapping
    }

    fn is_essential(&self) -> bool {
        false
    }

    async fn start(&self, _grant: &Grant) -> Result<(), String> {
        self.servers().retain(|(_, server)| !server.is_finished());
        self.mode.send_if_modified(|mode| std::mem::replace(mode, Mode::Open) != Mode::Open);
        let mut problems = Vec::new();
        for address in &self.addresses {
            problems.extend(self.open(*address).await.err());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    async fn quiesce(&self) {
        self.mode.send_if_modified(|mode| std::mem::replace(mode, Mode::Draining) != Mode::Draining);
        let mut connections = self.connections.subscribe();
        let none = connections.wait_for(|open| *open == 0);
        if timeout(DRAIN, none).await.is_err() {
            tracing::info!(
                connections = *self.connections.borrow(),
                "breaking off connections to the API: the role of the primary passes on"
            );
            // Aborting a server drops its connections; the next start makes it anew.
            self.abort();
        }
    }

    async fn stop(&self) -> Result<(), String> {
        self.abort();
        Ok(())
    }

    async fn check(&self) -> Result<bool, String> {
        Ok(self.addresses.iter().all(|address| self.serves(*address)))
    }
}

impl FloatingApi {
    fn abort(&self) {
        for (_, server) in self.servers().drain(..) {
            server.abort();
        }
    }
}

/// Tells requests that come in too late to try again: nothing was done.
async fn turn_away(State(mode): State<watch::Receiver<Mode>>, request: Request<Body>, next: Next) -> Response {
    if *mode.borrow() == Mode::Open {
        return next.run(request).await;
    }
    let why = "the role of the primary is passing on to another node; try again in a moment";
    let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Counts a connection for as long as it lasts, however it ends.
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

/// Serves a listener until dropped, and its connections with it.
async fn serve(listener: TcpListener, router: Router, mode: watch::Receiver<Mode>, connections: watch::Sender<usize>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.spawn(connection(stream, router.clone(), mode.clone(), Counted::new(&connections)));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to the API was not accepted");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Completes when requests are no longer taken.
async fn drained(mode: &mut watch::Receiver<Mode>) {
    // It fails when the service is gone, which ends as this does.
    mode.wait_for(|mode| *mode == Mode::Draining).await.ok();
}

async fn connection(stream: TcpStream, router: Router, mut mode: watch::Receiver<Mode>, _counted: Counted) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // One that is opened too late is not idle: its request is about to come, and is told to try again.
    if *mode.borrow() == Mode::Draining {
        // A connection that broke off has ended too.
        connection.await.ok();
        return;
    }
    let told: Result<(), hyper::Error> = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drained(&mut mode) => {
            // The request under way is the last; an idle connection ends at once.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = told {
        tracing::debug!(error = %io::Error::other(error), "a connection to the API ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::{net::Ipv4Addr, sync::Arc};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
    };

    const GRANT: Grant = Grant { epoch: drover_model::Epoch(1), until: None, contested: false };

    /// One whose `/slow` is answered when told to.
    async fn api() -> (Arc<FloatingApi>, SocketAddr, Arc<Notify>) {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let go = Arc::new(Notify::new());
        let wait = go.clone();
        let mode = watch::channel(Mode::Open).0;
        let slow = move || async move {
            wait.notified().await;
            "slow"
        };
        let router = Router::new().route("/quick", get(|| async { "quick" })).route("/slow", get(slow));
        let router = router.layer(middleware::from_fn_with_state(mode.subscribe(), turn_away));
        let api = FloatingApi {
            addresses: vec![address],
            router,
            mode,
            runtime: Handle::current(),
            servers: Mutex::default(),
            connections: watch::channel(0).0,
        };
        (Arc::new(api), address, go)
    }

    async fn send(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    /// Everything until the connection ends.
    async fn all(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is an end too.
        stream.read_to_end(&mut text).await.ok();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_and_what_comes_later_is_told_to_try_again() {
        let (api, address, go) = api().await;
        api.start(&GRANT).await.unwrap();
        assert!(api.check().await.unwrap());
        let (slow, idle) = (send(address, "/slow").await, TcpStream::connect(address).await.unwrap());
        let mut open = api.connections.subscribe();
        open.wait_for(|open| *open == 2).await.unwrap();
        let passing = api.clone();
        let passing = tokio::spawn(async move { passing.quiesce().await });
        // The idle one ends at once.
        assert_eq!(all(idle).await, "");
        let turned_away = all(send(address, "/quick").await).await;
        assert!(turned_away.starts_with("HTTP/1.1 503") && turned_away.contains("retry-after: 1"), "{turned_away}");
        go.notify_one();
        let answered = all(slow).await;
        assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("slow"), "{answered}");
        passing.await.unwrap();
        // Taken back: it goes on as before.
        api.start(&GRANT).await.unwrap();
        let mut quick = send(address, "/quick").await;
        let mut text = vec![0; 12];
        quick.read_exact(&mut text).await.unwrap();
        assert_eq!(text, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_broken_off_and_a_stop_leaves_nothing() {
        let (api, address, _go) = api().await;
        api.start(&GRANT).await.unwrap();
        let slow = send(address, "/slow").await;
        api.connections.subscribe().wait_for(|open| *open == 1).await.unwrap();
        api.quiesce().await;
        assert_eq!(all(slow).await, "");
        api.start(&GRANT).await.unwrap();
        api.stop().await.unwrap();
        assert!(!api.check().await.unwrap());
        api.connections.subscribe().wait_for(|open| *open == 0).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_said() {
        let (api, address, _go) = api().await;
        let _other = TcpListener::bind(address).await.unwrap();
        let why = api.start(&GRANT).await.unwrap_err();
        assert!(why.contains(&format!("cannot listen on {address}")), "{why}");
    }
}
