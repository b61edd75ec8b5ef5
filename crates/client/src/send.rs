//! One request, sent as often as it may be.
//!
//! While the role of the primary passes from one node to another, a floating address is for a moment nobody's who could
//! answer. What may be sent again is what was not done: a request whose connection could not be opened, one that was
//! put off, and one that only reads.

use crate::{Client, ClientError, FORWARDED, Params, Result, reason};
use drover_model::wire::Refusal;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it is tried to open one.
const OPENING: Duration = Duration::from_secs(2);
/// The pause before that is tried again, and before a request that only reads is when its connection broke.
const OPENING_PAUSE: Duration = Duration::from_millis(100);
/// How often a request that only reads is sent when its connection breaks before the answer.
const TRIES: u32 = 3;
/// For how long a request is sent again that is put off.
const PUT_OFF: Duration = Duration::from_secs(10);
/// The first pause before that. `Retry-After` counts whole seconds, but a handoff takes less than one.
const PUT_OFF_PAUSE: Duration = Duration::from_millis(200);
/// The longest one; they double.
const PUT_OFF_PAUSE_MAX: Duration = Duration::from_secs(1);
/// After how long without a word the other side is asked whether it is there still, and how often it is asked then.
/// Where the node of a floating address lost its power, the node that has the address now answers the first question
/// with a reset.
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 4;
/// After how long without any answer to that, or to what was sent, a connection is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// For how long a connection is kept for the next request. Another node may have its address by then, and a request on
/// it would be lost.
const IDLE: Duration = Duration::from_secs(1);

/// The HTTP client for all of it.
pub(crate) fn http() -> reqwest::Result<reqwest::Client> {
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(KEEPALIVE_RETRIES)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("drover/", env!("CARGO_PKG_VERSION")))
        .no_proxy();
    #[cfg(target_os = "linux")]
    let http = http.tcp_user_timeout(SILENCE);
    http.build()
}

/// Why there is no answer to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setback {
    /// The connection could not be opened: nothing was sent.
    Unopened,
    /// The server said that it did nothing, and when to try again.
    PutOff,
    /// The connection broke after the request was sent.
    Broken,
}

/// What is left of the patience with one request.
struct Patience {
    begin: Instant,
    /// Since when no connection can be opened.
    unopened: Option<Instant>,
    broken: u32,
    pause: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience { begin: Instant::now(), unopened: None, broken: 0, pause: PUT_OFF_PAUSE }
    }

    /// The pause before the next try; `None`: there is none. `tried`: when the last one began.
    fn next(&mut self, setback: Setback, reads: bool, tried: Instant) -> Option<Duration> {
        if setback == Setback::Unopened {
            let since = *self.unopened.get_or_insert(tried);
            return (since.elapsed() < OPENING).then_some(OPENING_PAUSE);
        }
        self.unopened = None;
        if setback == Setback::PutOff {
            let pause = self.pause;
            self.pause = (pause * 2).min(PUT_OFF_PAUSE_MAX);
            return (self.begin.elapsed() < PUT_OFF).then_some(pause);
        }
        self.broken += 1;
        (reads && self.broken < TRIES).then_some(OPENING_PAUSE)
    }
}

impl Client {
    fn build(&self, method: &Method, url: &str, params: Params<'_>, timeout: Option<Duration>) -> RequestBuilder {
        let mut request = self.http.request(method.clone(), url);
        let in_url = method == Method::GET || method == Method::DELETE;
        request = if in_url { request.query(params) } else { request.form(params) };
        if let Some(token) = &self.token {
            request = request.header("X-Api-Key", token);
        }
        if self.forwards {
            request = request.header(FORWARDED, "1");
        }
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        request
    }

    /// The answer to a request, if it is a yes.
    pub(crate) async fn send(
        &self,
        method: &Method,
        path: &str,
        params: Params<'_>,
        timeout: Option<Duration>,
    ) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let mut patience = Patience::new();
        loop {
            let tried = Instant::now();
            let (setback, error) = match self.build(method, &url, params, timeout).send().await {
                Ok(answer) => {
                    let put_off = answer.status() == StatusCode::SERVICE_UNAVAILABLE
                        && answer.headers().contains_key(RETRY_AFTER);
                    match check(&url, answer).await {
                        // Only Drover's own word means that nothing was done.
                        Err(error @ ClientError::Refused { .. }) if put_off => (Setback::PutOff, error),
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
            match patience.next(setback, *method == Method::GET, tried) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }
}

/// What is said of a request that was sent, and whose answer did not come.
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
        Err(_) => Err(ClientError::BadAnswer { url: url.to_owned(), why: format!("it said {status}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_model::wire::Message;
    use std::{
        net::SocketAddr,
        sync::{Arc, Mutex},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// What a server does with a request.
    #[derive(Debug, Clone, Copy)]
    enum Part {
        /// Does it.
        Does,
        /// Does it, and has nothing to say.
        SaysNothing,
        /// Puts it off.
        PutsOff,
        /// Says that it cannot, in other words.
        Says(&'static str),
        /// Reads it, and resets the connection.
        Resets,
        /// Begins an answer, and closes the connection in the midst of it.
        BreaksOff,
    }

    /// A server on this listener that plays these parts, one a request, the last one for all others. Gives the methods
    /// that it was asked.
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
                    Part::PutsOff => {
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

    /// Reads a whole request; gives its method.
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

    async fn ask(client: &Client, method: Method) -> Result<String> {
        let answer = client.request(method, "/x", &[("a", "b".to_owned())], None).await;
        answer.map(|answer: Message| answer.message)
    }

    const CHANGES: [Method; 3] = [Method::POST, Method::PUT, Method::DELETE];

    #[tokio::test]
    async fn what_is_put_off_is_sent_again_whatever_it_is() {
        for method in CHANGES.into_iter().chain([Method::GET]) {
            let (client, asked) = server(&[Part::PutsOff, Part::PutsOff, Part::Does]).await;
            assert_eq!(ask(&client, method.clone()).await.unwrap(), "done");
            assert_eq!(*asked.lock().unwrap(), vec![method.to_string(); 3]);
        }
    }

    #[tokio::test]
    async fn another_no_is_an_answer() {
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
    async fn there_may_be_no_primary() {
        let (client, asked) = server(&[Part::PutsOff, Part::SaysNothing]).await;
        assert_eq!(client.primary_node().await, Ok(None));
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_may_have_been_done_is_not_sent_again() {
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
    async fn what_only_reads_is_sent_again() {
        let (client, asked) = server(&[Part::Resets, Part::Resets, Part::Does]).await;
        assert_eq!(ask(&client, Method::GET).await.unwrap(), "done");
        assert_eq!(asked.lock().unwrap().len(), 3);
        let (client, asked) = server(&[Part::Resets]).await;
        let error = ask(&client, Method::GET).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
        assert_eq!(asked.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_yet_is_waited_for() {
        // An address of this test's own, so that nobody else takes the port meanwhile.
        let address = TcpListener::bind("127.0.113.1:0").await.unwrap().local_addr().unwrap();
        let asking = tokio::spawn(async move { ask(&client(address), Method::POST).await });
        sleep(Duration::from_millis(300)).await;
        assert!(!asking.is_finished(), "it is refused, and tries again");
        let asked = serve(TcpListener::bind(address).await.unwrap(), &[Part::Does]);
        assert_eq!(asking.await.unwrap().unwrap(), "done");
        assert_eq!(*asked.lock().unwrap(), ["POST"]);
    }

    #[tokio::test]
    async fn a_server_that_does_not_come_is_given_up() {
        let address = TcpListener::bind("127.0.113.2:0").await.unwrap().local_addr().unwrap();
        let begin = Instant::now();
        let error = ask(&client(address), Method::POST).await.unwrap_err();
        assert!(matches!(&error, ClientError::Unreachable { .. }), "nothing was sent: {error:?}");
        assert!(begin.elapsed() >= OPENING);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let mut patience = Patience::new();
        let (mut pauses, mut last) = (Vec::new(), None);
        while let Some(pause) = patience.next(Setback::PutOff, false, Instant::now()) {
            pauses.push(pause.as_millis());
            last = Some(patience.begin.elapsed());
            tokio::time::advance(pause).await;
        }
        assert_eq!(pauses[..5], [200, 400, 800, 1000, 1000]);
        assert!(last < Some(PUT_OFF) && patience.begin.elapsed() >= PUT_OFF);

        // A connection that is slow to fail counts from when it was begun.
        let (mut patience, tried) = (Patience::new(), Instant::now());
        tokio::time::advance(OPENING).await;
        assert_eq!(patience.next(Setback::Unopened, true, tried), None);
        // One that could be opened in between is a new beginning.
        assert!(patience.next(Setback::PutOff, false, Instant::now()).is_some());
        assert!(patience.next(Setback::Unopened, false, Instant::now()).is_some());
        assert_eq!(patience.next(Setback::Broken, false, Instant::now()), None);
    }
}
