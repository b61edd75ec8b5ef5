//! A client of the HTTP API, for the command line, for tests, and for requests between daemons.
//!
//! [`Client`] has one typed method per endpoint, in a file per subject. Requests and responses are the types of
//! `drover_model::wire`.

mod events;
mod node;
mod send;
mod vm;

pub use events::Followed;

use bytes::Bytes;
use drover_model::OperationId;
use drover_model::wire::{
    ChangeConfig, Config, CreateToken, FaultInfo, ListFaults, LossPlan, Maintenance, Message, NewToken, Nothing,
    PlanLosses, PrimaryNode, Refusal, Root, SetMaintenance, Status, TokenInfo,
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::{
    bytes::BytesMut,
    codec::{Decoder, FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

/// Timeout for a response that waits only for the store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Header of a request that a daemon forwards to another.
pub const FORWARDED: &str = "X-Drover-Forwarded";

/// Header of a request that changes something, and of its answer: the id of the operation that it begins.
pub const OPERATION: &str = "X-Drover-Operation";

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No response, and nothing was changed.
    #[error("no answer from {url}: {why}")]
    Unreachable {
        /// The requested URL.
        url: String,
        /// The cause.
        why: String,
    },
    /// A request to change something was sent, but no response came.
    #[error("no answer from {url}: {why}\nIt is not known whether it was done; check before you try again.")]
    Unsure {
        /// The requested URL.
        url: String,
        /// The cause.
        why: String,
    },
    /// The server refused the request.
    #[error("{}", refusal.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's message.
        refusal: Refusal,
    },
    /// The response is not valid; perhaps it is from another program.
    #[error("{url} did not give a valid Drover answer: {why}")]
    BadAnswer {
        /// The requested URL.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            ClientError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The result of every request.
pub type Result<T> = std::result::Result<T, ClientError>;

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    forwards: bool,
    /// Whether a stream of server-sent events is asked for.
    streams: bool,
    /// The operation that requests which change something are part of.
    operation: Option<Arc<Begun>>,
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    // The token must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// An operation of a client's, which may take several requests.
#[derive(Debug)]
pub struct Begun {
    id: OperationId,
    asked: AtomicBool,
}

impl Begun {
    /// An operation with this id.
    pub fn new(id: OperationId) -> Begun {
        Begun { id, asked: AtomicBool::new(false) }
    }

    /// Its id, if a request to change something was sent.
    pub fn id(&self) -> Option<&OperationId> {
        self.asked.load(Ordering::Relaxed).then_some(&self.id)
    }

    /// The id for a request that is sent now.
    fn ask(&self) -> &str {
        self.asked.store(true, Ordering::Relaxed);
        self.id.as_str()
    }
}

/// Escaped in a path segment: everything but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Escapes a path segment, so that no name can change the path.
fn part(text: &str) -> String {
    let out = utf8_percent_encode(text, RESERVED).to_string();
    // Segments of only dots have a special meaning.
    if out.chars().all(|c| c == '.') { out.replace('.', "%2E") } else { out }
}

impl Client {
    /// A client of the server at `url` (`http://127.0.0.1:7370`), with an optional token.
    ///
    /// # Errors
    /// If the URL is not usable.
    pub fn new(url: &str, token: Option<String>) -> Result<Client> {
        let bad = |why: String| ClientError::Unreachable { url: url.to_owned(), why };
        if !url.starts_with("http://") {
            return Err(bad("the URL must begin with http://".to_owned()));
        }
        let http = send::http().map_err(|e| bad(e.to_string()))?;
        let base = format!("{}/api/v1", url.trim_end_matches('/').trim_end_matches("/api/v1"));
        Ok(Client { base, token, forwards: false, streams: false, operation: None, http })
    }

    /// Marks requests as forwarded by a daemon: the receiver does not forward them again.
    #[must_use]
    pub fn forwarding(self) -> Client {
        Client { forwards: true, ..self }
    }

    /// Makes requests that change something part of this operation.
    #[must_use]
    pub fn as_part_of(self, operation: Arc<Begun>) -> Client {
        Client { operation: Some(operation), ..self }
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Sends a request and decodes the response. `timeout`: 30 s if `None`.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        params: &impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<T> {
        let answer = self.send(&method, path, params, Some(timeout.unwrap_or(ANSWER_TIMEOUT))).await?;
        self.decode(&method, path, answer).await
    }

    async fn decode<T: DeserializeOwned>(&self, method: &Method, path: &str, answer: reqwest::Response) -> Result<T> {
        let url = format!("{}{path}", self.base);
        let bytes = answer.bytes().await.map_err(|error| send::unanswered(method, &url, &error))?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::BadAnswer { url, why: e.to_string() })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, params: &impl Serialize) -> Result<T> {
        self.request(Method::GET, path, params, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, params: &impl Serialize) -> Result<T> {
        self.request(Method::POST, path, params, None).await
    }

    /// Streams a response, without a timeout.
    pub async fn stream<P: Serialize>(
        &self,
        path: &str,
        params: &P,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<P>> {
        let answer = self.send(&Method::GET, path, params, None).await?;
        let url = format!("{}{path}", self.base);
        Ok(answer.bytes_stream().map(move |piece| {
            piece.map_err(|error| ClientError::Unreachable { url: url.clone(), why: reason(&error) })
        }))
    }

    /// The API's version, and the answering node.
    pub async fn root(&self) -> Result<Root> {
        self.get("/", &Nothing {}).await
    }

    /// The state of the cluster.
    pub async fn status(&self) -> Result<Status> {
        self.get("/status", &Nothing {}).await
    }

    /// Switches maintenance on or off.
    pub async fn set_maintenance(&self, order: &SetMaintenance) -> Result<Maintenance> {
        self.post("/status", order).await
    }

    /// The primary coordinator, if there is one. Needs no token.
    pub async fn primary_node(&self) -> Result<Option<PrimaryNode>> {
        let path = "/status/primary_node";
        let answer = self.send(&Method::GET, path, &Nothing {}, Some(ANSWER_TIMEOUT)).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        self.decode(&Method::GET, path, answer).await.map(Some)
    }

    /// Faults, sorted by one of their fields, by default the id.
    pub async fn faults(&self, order: &ListFaults) -> Result<Vec<FaultInfo>> {
        self.get("/faults", order).await
    }

    /// What the loss of each node would mean now.
    pub async fn losses(&self, size: PlanLosses) -> Result<LossPlan> {
        self.get("/plan", &size).await
    }

    /// The cluster's configuration.
    pub async fn config(&self) -> Result<Config> {
        self.get("/config", &Nothing {}).await
    }

    /// Changes the configuration; settings that are not given stay as they are.
    pub async fn set_config(&self, change: &ChangeConfig) -> Result<Config> {
        self.request(Method::PUT, "/config", change, None).await
    }

    /// Tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        self.get("/token", &Nothing {}).await
    }

    /// Deletes a fault.
    pub async fn delete_fault(&self, id: &str) -> Result<Message> {
        self.request(Method::DELETE, &format!("/faults/{}", part(id)), &Nothing {}, None).await
    }

    /// Creates a token.
    pub async fn create_token(&self, token: &CreateToken) -> Result<NewToken> {
        self.post("/token", token).await
    }

    /// Revokes a token.
    pub async fn delete_token(&self, name: &str) -> Result<Message> {
        self.request(Method::DELETE, &format!("/token/{}", part(name)), &Nothing {}, None).await
    }
}

/// The innermost cause, which is the most specific.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Decodes a stream of JSON objects, one per line.
fn values<T: DeserializeOwned>(
    url: String,
    pieces: impl Stream<Item = Result<Bytes>> + Send,
) -> impl Stream<Item = Result<T>> + Send {
    lines(pieces).map(move |line| {
        let bad = |why: String| ClientError::BadAnswer { url: url.clone(), why };
        serde_json::from_str(&line.map_err(|error| cause(error, bad))?).map_err(|e| bad(e.to_string()))
    })
}

/// The error of a line: of the connection, or because it is not text.
fn cause(error: LinesCodecError, bad: impl FnOnce(String) -> ClientError) -> ClientError {
    match error {
        LinesCodecError::Io(error) => error.downcast().unwrap_or_else(|error| bad(error.to_string())),
        LinesCodecError::MaxLineLengthExceeded => bad(error.to_string()),
    }
}

/// Splits a stream into lines.
fn lines(
    pieces: impl Stream<Item = Result<Bytes>> + Send,
) -> impl Stream<Item = std::result::Result<String, LinesCodecError>> + Send {
    let pieces = Box::pin(pieces.map_err(io::Error::other));
    FramedRead::new(StreamReader::new(pieces), WholeLines(LinesCodec::new()))
}

/// Only complete lines: the rest of a line that was cut off is discarded.
struct WholeLines(LinesCodec);

impl Decoder for WholeLines {
    type Item = String;
    type Error = LinesCodecError;

    fn decode(&mut self, from: &mut BytesMut) -> std::result::Result<Option<String>, LinesCodecError> {
        self.0.decode(from)
    }

    fn decode_eof(&mut self, from: &mut BytesMut) -> std::result::Result<Option<String>, LinesCodecError> {
        let line = self.0.decode(from)?;
        if line.is_none() {
            from.clear();
        }
        Ok(line)
    }
}

/// Whether the error is a 404.
pub fn is_not_found(error: &ClientError) -> bool {
    error.status() == Some(StatusCode::NOT_FOUND.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_escaped() {
        assert_eq!(part("web-1.example_2"), "web-1.example_2");
        assert_eq!(part("../x"), "..%2Fx");
        assert_eq!(part(".."), "%2E%2E");
        assert_eq!(part("a?b#c"), "a%3Fb%23c");
    }

    #[test]
    fn a_token_is_never_shown() {
        let client = Client::new("http://localhost:1/", Some("secret".to_owned())).unwrap();
        assert!(!format!("{client:?}").contains("secret"));
        assert_eq!(client.url(), "http://localhost:1/api/v1");
        assert!(Client::new("ftp://x", None).is_err());
    }

    #[tokio::test]
    async fn lines_are_joined_across_chunks() {
        let pieces = ["a\nb", "c\n", "", "d"].map(|p| Ok(Bytes::from(p)));
        let got: Vec<String> =
            lines(futures_util::stream::iter(pieces)).map(|line| line.unwrap_or_default()).collect().await;
        assert_eq!(got, ["a", "bc"]);
    }

    #[tokio::test]
    async fn a_stream_of_values_reports_why_it_ends() {
        let lost = ClientError::Unreachable { url: "u".to_owned(), why: "lost".to_owned() };
        for (bad, why) in [(Err(lost.clone()), "lost"), (Ok(Bytes::from_static(b"\xff\n")), "UTF8")] {
            let pieces = [Ok(Bytes::from_static(b"1\n2")), Ok(Bytes::from_static(b"3\n")), bad];
            let mut got = values::<u8>("u".to_owned(), futures_util::stream::iter(pieces));
            assert_eq!((got.next().await, got.next().await), (Some(Ok(1)), Some(Ok(23))));
            let error = got.next().await.unwrap().unwrap_err();
            assert!(error.to_string().contains(why), "{error:?}");
            assert_eq!(got.next().await, None);
        }
    }
}
