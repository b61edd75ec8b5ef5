//! The API on the floating addresses, a service of the primary.
//!
//! Connections do not move with a floating address. Before a handoff, requests in progress are therefore answered and
//! their connections closed, and new requests get 503 with `Retry-After`. What takes too long (a followed log, a wait)
//! is aborted while the address is still here, so that the client notices at once.

use crate::{
    ApiState,
    listen::{Mode, Server},
    serve::router,
};
use async_trait::async_trait;
use drover_agent::{Grant, Handover, PrimaryService};
use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Handle, task::AbortHandle, time::timeout};

/// Time for requests in progress to finish before a handoff. Nearly all take a few milliseconds; a longer timeout would
/// delay the handoff.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(150);
/// The answer to requests that arrive while draining.
const PASSING: &str = "the primary role is passing to another node; try again in a moment";

/// The API on the floating addresses.
pub struct FloatingApi {
    addresses: Vec<SocketAddr>,
    server: Server,
    /// Serves the requests, off the thread of the primary role.
    runtime: Handle,
    servers: Mutex<Vec<(SocketAddr, AbortHandle)>>,
}

impl FloatingApi {
    /// Serves these addresses on the current runtime.
    pub fn new(addresses: Vec<SocketAddr>, state: ApiState) -> FloatingApi {
        let limits = state.limits.clone();
        let server = Server::new(router(state), limits, PASSING);
        FloatingApi { addresses, server, runtime: Handle::current(), servers: Mutex::default() }
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
        // Sockets belong to the runtime that they are created on.
        let bound = self.runtime.spawn(TcpListener::bind(address)).await.map_err(|e| e.to_string())?;
        let listener = bound.map_err(|e| format!("the API cannot listen on {address}: {e}"))?;
        let server = self.runtime.spawn(self.server.clone().serve(listener)).abort_handle();
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
        self.server.set(Mode::Open);
        let mut problems = Vec::new();
        for address in &self.addresses {
            problems.extend(self.open(*address).await.err());
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    async fn quiesce(&self) {
        self.server.set(Mode::Draining);
        let mut connections = self.server.connections();
        let none = connections.wait_for(|open| *open == 0);
        if timeout(DRAIN_TIMEOUT, none).await.is_err() {
            tracing::info!(
                connections = *self.server.connections().borrow(),
                "closing connections to the API: the primary role passes to another node"
            );
            // Aborting a server drops its connections; the next start creates it again.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use axum::{Router, routing::get};
    use std::{net::Ipv4Addr, sync::Arc};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Notify,
    };

    const GRANT: Grant = Grant { epoch: drover_model::Epoch(1), until: None, contested: false };

    /// An API whose `/slow` is answered after a notification.
    async fn api() -> (Arc<FloatingApi>, SocketAddr, Arc<Notify>) {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let go = Arc::new(Notify::new());
        let wait = go.clone();
        let slow = move || async move {
            wait.notified().await;
            "slow"
        };
        let router = Router::new().route("/quick", get(|| async { "quick" })).route("/slow", get(slow));
        let server = Server::new(router, Arc::new(Limits::of(1024)), PASSING);
        let (runtime, servers) = (Handle::current(), Mutex::default());
        let api = FloatingApi { addresses: vec![address], server, runtime, servers };
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
    async fn draining_finishes_requests_in_progress_and_refuses_new_ones() {
        let (api, address, go) = api().await;
        api.start(&GRANT).await.unwrap();
        assert!(api.check().await.unwrap());
        let (slow, idle) = (send(address, "/slow").await, TcpStream::connect(address).await.unwrap());
        let mut open = api.server.connections();
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
        // The handoff is cancelled: requests are answered again.
        api.start(&GRANT).await.unwrap();
        let mut quick = send(address, "/quick").await;
        let mut text = vec![0; 12];
        quick.read_exact(&mut text).await.unwrap();
        assert_eq!(text, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn slow_requests_are_aborted_and_stop_closes_everything() {
        let (api, address, _go) = api().await;
        api.start(&GRANT).await.unwrap();
        let slow = send(address, "/slow").await;
        api.server.connections().wait_for(|open| *open == 1).await.unwrap();
        api.quiesce().await;
        assert_eq!(all(slow).await, "");
        api.start(&GRANT).await.unwrap();
        api.stop().await.unwrap();
        assert!(!api.check().await.unwrap());
        api.server.connections().wait_for(|open| *open == 0).await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_reported() {
        let (api, address, _go) = api().await;
        let _other = TcpListener::bind(address).await.unwrap();
        let why = api.start(&GRANT).await.unwrap_err();
        assert!(why.contains(&format!("cannot listen on {address}")), "{why}");
    }
}
