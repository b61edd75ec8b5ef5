//! Sending a request, with retries.
//!
//! During a handoff of the primary role, nobody answers on the floating address for a moment. A request is retried only
//! if that is safe: if its connection could not be opened, if the server deferred it (503 with `Retry-After`), or if it
//! only reads.

use crate::{Client, ClientError, FORWARDED, OPERATION, Result, reason};
use drover_model::wire::Refusal;
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, RETRY_AFTER},
};
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long opening a connection is retried.
const CONNECT_RETRY: Duration = Duration::from_secs(2);
/// Pause before another attempt to connect, and before a read request is repeated after its connection broke.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Attempts for a read request whose connection breaks before the response.
const TRIES: u32 = 3;
/// How long a deferred request is retried.
const DEFERRED: Duration = Duration::from_secs(10);
/// First pause before a retry of a deferred request. `Retry-After` counts whole seconds, but a handoff takes less than
/// one.
const DEFERRED_PAUSE: Duration = Duration::from_millis(200);
/// Maximum of that pause, which doubles with each retry.
const DEFERRED_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Idle time before the first TCP keepalive probe, interval of the probes, and their number. If the node that had a
/// floating address lost power, the node that has it now answers the first probe with a reset.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 4;
/// Time without acknowledgement of sent data or probes after which a connection is closed (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept for reuse. Short, because a floating address may move to another node, and a
/// request on the old connection would be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The HTTP client.
pub(crate) fn http() -> reqwest::Result<reqwest::Client> {
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(KEEPALIVE_RETRIES)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
        .no_proxy();
    #[cfg(target_os = "linux")]
    let http = http.tcp_user_timeout(USER_TIMEOUT);
    http.build()
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setback {
    /// The connection could not be opened: nothing was sent.
    Unopened,
    /// The server did nothing, and asked to retry later.
    Deferred,
    /// The connection broke after the request was sent.
    Broken,
}

/// Retry state of one request.
struct Retries {
    begin: Instant,
    /// Since when no connection can be opened.
    unopened: Option<Instant>,
    broken: u32,
    pause: Duration,
}

impl Retries {
    fn new() -> Retries {
        Retries { begin: Instant::now(), unopened: None, broken: 0, pause: DEFERRED_PAUSE }
    }

    /// The pause before the next attempt; `None`: no more attempts. `tried`: when the last one began.
    fn next(&mut self, setback: Setback, reads: bool, tried: Instant) -> Option<Duration> {
        if setback == Setback::Unopened {
            let since = *self.unopened.get_or_insert(tried);
            return (since.elapsed() < CONNECT_RETRY).then_some(RETRY_PAUSE);
        }
        self.unopened = None;
        if setback == Setback::Deferred {
            let pause = self.pause;
            self.pause = (pause * 2).min(DEFERRED_PAUSE_MAX);
            return (self.begin.elapsed() < DEFERRED).then_some(pause);
        }
        self.broken += 1;
        (reads && self.broken < TRIES).then_some(RETRY_PAUSE)
    }
}

impl Client {
    fn build(&self, method: &Method, url: &str, params: &impl Serialize, timeout: Option<Duration>) -> RequestBuilder {
        let mut request = self.http.request(method.clone(), url);
        let in_url = method == Method::GET || method == Method::DELETE;
        request = if in_url { request.query(params) } else { request.form(params) };
        if let Some(token) = &self.token {
            request = request.header("X-Api-Key", token);
        }
        if self.forwards {
            request = request.header(FORWARDED, "1");
        }
        if let Some(operation) = self.operation.as_ref().filter(|_| *method != Method::GET) {
            request = request.header(OPERATION, operation.ask());
        }
        if self.streams {
            request = request.header(ACCEPT, "text/event-stream");
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        request
    }

    /// Sends a request, and returns the response if it is a success.
    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        params: &impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let mut retries = Retries::new();
        loop {
            let tried = Instant::now();
            let (setback, error) = match self.build(method, &url, params, timeout).send().await {
                Ok(answer) => {
                    let deferred = answer.status() == StatusCode::SERVICE_UNAVAILABLE
                        && answer.headers().contains_key(RETRY_AFTER);
                    match check(&url, answer).await {
                        // Only a refusal in Drover's format means that nothing was done.
                        Err(error @ ClientError::Refused { .. }) if deferred => (Setback::Deferred, error),
                        answer => return answer,
                    }
                }
                Err(error) if error.is_connect() => {
                    (Setback::Unopened, ClientError::Unreachable { url: url.clone(), why: reason(&error) })
                }
                Err(error) if error.is_builder() => {
                    return Err(ClientError::Unreachable { url, why: reason(&error) });
                }
                Err(error) if error.is_timeout() => return Err(unanswered(method, &url, &error)),
                Err(error) => (Setback::Broken, unanswered(method, &url, &error)),
            };
            match retries.next(setback, *method == Method::GET, tried) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }
}

/// The error of a request that was sent and got no response.
pub(crate) fn unanswered(method: &Method, url: &str, error: &reqwest::Error) -> ClientError {
    let (url, why) = (url.to_owned(), reason(error));
    if *method == Method::GET { ClientError::Unreachable { url, why } } else { ClientError::Unsure { url, why } }
}

async fn check(url: &str, answer: Response) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    match serde_json::from_str::<Refusal>(&text) {
        Ok(refusal) => Err(ClientError::Refused { status: status.as_u16(), refusal }),
        Err(_) => Err(ClientError::BadAnswer { url: url.to_owned(), why: format!("it answered with status {status}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::wire::{ChangeMeta, DefineVm, DeleteVm, ListVms, Message, Nothing, PowerOrder, SetVmState};
    use std::{
        net::SocketAddr,
        sync::{Arc, Mutex},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// What the test server does with a request.
    #[derive(Debug, Clone, Copy)]
    enum Part {
        /// Answers with 200.
        Does,
        /// Answers with 204.
        SaysNothing,
        /// Answers with 503 and `Retry-After`.
        Defers,
        /// Answers with this status.
        Says(&'static str),
        /// Reads it, and resets the connection.
        Resets,
        /// Closes the connection in the middle of the response.
        BreaksOff,
    }

    /// Serves a listener: handles each request with the next part, and repeats the last one. Returns the methods of the
    /// requests.
    fn serve(listener: TcpListener, parts: &'static [Part]) -> Arc<Mutex<Vec<String>>> {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let method = request(&mut stream).await;
                heard.lock().unwrap().push(method);
                let part = parts.get(n).or(parts.last()).unwrap();
                let answer = |head: &str, body: &str| {
                    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                };
                let text = match part {
                    Part::Does => answer("200 OK", r#"{"message": "done"}"#),
                    Part::SaysNothing => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_owned(),
                    Part::Defers => {
                        answer("503 Service Unavailable\r\nRetry-After: 1", r#"{"message": "the role is passing on"}"#)
                    }
                    Part::Says(head) => answer(head, r#"{"message": "no"}"#),
                    Part::BreaksOff => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_owned(),
                    Part::Resets => {
                        stream.set_zero_linger().unwrap();
                        continue;
                    }
                };
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        asked
    }

    /// Reads a whole request; returns its method.
    async fn request(stream: &mut TcpStream) -> String {
        let mut got = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&got).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    return head.split(' ').next().unwrap().to_ascii_uppercase();
                }
            }
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "a whole request comes");
        }
    }

    async fn server(parts: &'static [Part]) -> (Client, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (client(listener.local_addr().unwrap()), serve(listener, parts))
    }

    fn client(address: SocketAddr) -> Client {
        Client::new(&format!("http://{address}"), None).unwrap()
    }

    /// The API's tests check that requests round-trip; this one checks their encoding.
    #[test]
    fn requests_are_written_as_a_query_or_a_form() {
        let client = Client::new("http://a", None).unwrap();
        let meta = ChangeMeta {
            limit: Some(vec!["a".parse().unwrap(), "b".parse().unwrap()]),
            autostart: Some(false),
            priority: Some(-5),
            user_tags: vec!["x".to_owned(), "y".to_owned()],
            ..ChangeMeta::default()
        };
        let form = |request: RequestBuilder| {
            let body = request.build().unwrap().body().and_then(|body| body.as_bytes()).map(<[u8]>::to_vec);
            String::from_utf8(body.unwrap_or_default()).unwrap()
        };
        let vm = DefineVm {
            xml: "<a/>".to_owned(),
            node: Some("a".parse().unwrap()),
            adopt: false,
            no_check: false,
            force: false,
            advise: false,
            meta,
        };
        assert_eq!(
            form(client.build(&Method::POST, "http://a/vm", &vm, None)),
            "xml=%3Ca%2F%3E&node=a&limit=a%2Cb&autostart=false&priority=-5&user_tags=x%2Cy"
        );
        let order = SetVmState { timeout: Some(9), ..SetVmState::to(PowerOrder::Shutdown) };
        assert_eq!(form(client.build(&Method::POST, "http://a/vm", &order, None)), "state=shutdown&timeout=9");
        assert_eq!(form(client.build(&Method::POST, "http://a/vm", &Nothing {}, None)), "");
        let query = |request: RequestBuilder| request.build().unwrap().url().to_string();
        let filters = ListVms { state: Some("fail".parse().unwrap()), negate: true, ..ListVms::default() };
        let filters = ListVms { xml: Some(false), ..filters };
        assert_eq!(
            query(client.build(&Method::GET, "http://a/vm", &filters, None)),
            "http://a/vm?state=fail&negate=true&xml=false"
        );
        let disks = DeleteVm { delete_disks: true };
        assert_eq!(query(client.build(&Method::DELETE, "http://a/vm", &disks, None)), "http://a/vm?delete_disks=true");
        assert_eq!(query(client.build(&Method::GET, "http://a/vm", &Nothing {}, None)), "http://a/vm");
    }

    async fn ask(client: &Client, method: Method) -> Result<String> {
        let answer = client.request(method, "/x", &[("a", "b")], None).await;
        answer.map(|answer: Message| answer.message)
    }

    const CHANGES: [Method; 3] = [Method::POST, Method::PUT, Method::DELETE];

    #[tokio::test]
    async fn deferred_requests_are_retried() {
        for method in CHANGES.into_iter().chain([Method::GET]) {
            let (client, asked) = server(&[Part::Defers, Part::Defers, Part::Does]).await;
            assert_eq!(ask(&client, method.clone()).await.unwrap(), "done");
            assert_eq!(*asked.lock().unwrap(), vec![method.to_string(); 3]);
        }
    }

    #[tokio::test]
    async fn other_refusals_are_not_retried() {
        for (parts, status) in [
            (&[Part::Says("503 Service Unavailable")], 503),
            (&[Part::Says("500 Internal Server Error\r\nRetry-After: 1")], 500),
        ] {
            let (client, asked) = server(parts).await;
            assert_eq!(ask(&client, Method::POST).await.unwrap_err().status(), Some(status));
            assert_eq!(asked.lock().unwrap().len(), 1);
        }
    }

    #[tokio::test]
    async fn without_a_primary_there_is_none() {
        let (client, asked) = server(&[Part::Defers, Part::SaysNothing]).await;
        assert_eq!(client.primary_node().await, Ok(None));
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_change_that_may_have_been_done_is_not_retried() {
        for parts in [&[Part::Resets], &[Part::BreaksOff]] {
            for method in CHANGES {
                let (client, asked) = server(parts).await;
                let error = ask(&client, method.clone()).await.unwrap_err();
                assert!(matches!(error, ClientError::Unsure { .. }), "{error:?}");
                assert!(error.to_string().contains("not known whether it was done"), "{error}");
                assert_eq!(*asked.lock().unwrap(), [method.to_string()]);
            }
        }
    }

    #[tokio::test]
    async fn reads_are_retried() {
        let (client, asked) = server(&[Part::Resets, Part::Resets, Part::Does]).await;
        assert_eq!(ask(&client, Method::GET).await.unwrap(), "done");
        assert_eq!(asked.lock().unwrap().len(), 3);
        let (client, asked) = server(&[Part::Resets]).await;
        let error = ask(&client, Method::GET).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
        assert_eq!(asked.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn connecting_is_retried_until_the_server_listens() {
        // The test's own address, so that nobody else takes the port meanwhile.
        let address = TcpListener::bind("127.0.113.1:0").await.unwrap().local_addr().unwrap();
        let asking = tokio::spawn(async move { ask(&client(address), Method::POST).await });
        sleep(Duration::from_millis(300)).await;
        assert!(!asking.is_finished(), "it is refused, and tries again");
        let asked = serve(TcpListener::bind(address).await.unwrap(), &[Part::Does]);
        assert_eq!(asking.await.unwrap().unwrap(), "done");
        assert_eq!(*asked.lock().unwrap(), ["POST"]);
    }

    #[tokio::test]
    async fn connecting_times_out() {
        let address = TcpListener::bind("127.0.113.2:0").await.unwrap().local_addr().unwrap();
        let begin = Instant::now();
        let error = ask(&client(address), Method::POST).await.unwrap_err();
        assert!(matches!(&error, ClientError::Unreachable { .. }), "nothing was sent: {error:?}");
        assert!(begin.elapsed() >= CONNECT_RETRY);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_end() {
        let mut retries = Retries::new();
        let (mut pauses, mut last) = (Vec::new(), None);
        while let Some(pause) = retries.next(Setback::Deferred, false, Instant::now()) {
            pauses.push(pause.as_millis());
            last = Some(retries.begin.elapsed());
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses[..5], [200, 400, 800, 1000, 1000]);
        assert!(last < Some(DEFERRED) && retries.begin.elapsed() >= DEFERRED);

        // The time that a failed attempt to connect took counts.
        let (mut retries, tried) = (Retries::new(), Instant::now());
        tokio::time::advance(CONNECT_RETRY).await;
        assert_eq!(retries.next(Setback::Unopened, true, tried), None);
        // A successful connection resets the timeout.
        assert!(retries.next(Setback::Deferred, false, Instant::now()).is_some());
        assert!(retries.next(Setback::Unopened, false, Instant::now()).is_some());
        assert_eq!(retries.next(Setback::Broken, false, Instant::now()), None);
    }
}
