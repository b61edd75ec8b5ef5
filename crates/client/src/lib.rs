//! A client of the HTTP API, for the command line, for tests, and for daemons that ask each other.
//!
//! [`Client`] does the requests; the typed methods name each path and its parameters once, in a file for each subject.
//! Answers are the types of `drover_model::wire`.

mod node;
mod send;
mod vm;

use bytes::Bytes;
use drover_model::wire::{
    Config, FaultInfo, FaultKey, Maintenance, Message, NewToken, PrimaryNode, Refusal, Root, Status, TokenInfo,
};
use futures_util::{Stream, StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use std::{fmt, io, time::Duration};
use tokio_util::{
    bytes::BytesMut,
    codec::{Decoder, FramedRead, LinesCodec, LinesCodecError},
    io::StreamReader,
};

/// How long an answer may take that waits for nothing but the store.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The header of a request that a daemon passes on to another.
pub const FORWARDED: &str = "X-Drover-Forwarded";
/// Parameters of a request. A list is one text with commas, or a name that occurs several times.
pub type Params<'a> = &'a [(&'a str, String)];

/// Why there is no answer, or none that was hoped for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No answer came, and nothing was changed.
    #[error("no answer from {url}: {why}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What was seen instead.
        why: String,
    },
    /// A request to change something was sent, and no answer came.
    #[error("no answer from {url}: {why}\nIt is not known whether it was done; look before you try again.")]
    Unsure {
        /// What was asked.
        url: String,
        /// What was seen instead.
        why: String,
    },
    /// The answer is no.
    #[error("{}", refusal.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        refusal: Refusal,
    },
    /// The answer makes no sense; perhaps it was another program's.
    #[error("{url} did not answer as Drover does: {why}")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What was wrong.
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

/// Asks one server.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<String>,
    forwards: bool,
    http: reqwest::Client,
}

impl fmt::Debug for Client {
    // Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

/// What is escaped in a part of a path: everything but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A part of a path, so that no name can leave its place.
fn part(text: &str) -> String {
    let out = utf8_percent_encode(text, RESERVED).to_string();
    // A part that is only dots means another place.
    if out.chars().all(|c| c == '.') { out.replace('.', "%2E") } else { out }
}

impl Client {
    /// For the server at `url` (`http://127.0.0.1:7370`), with a token or without.
    ///
    /// # Errors
    /// When the URL is none that can be used.
    pub fn new(url: &str, token: Option<String>) -> Result<Client> {
        let bad = |why: String| ClientError::Unreachable { url: url.to_owned(), why };
        if !url.starts_with("http://") {
            return Err(bad("the URL must begin with http://".to_owned()));
        }
        let http = send::http().map_err(|e| bad(e.to_string()))?;
        let base = format!("{}/api/v1", url.trim_end_matches('/').trim_end_matches("/api/v1"));
        Ok(Client { base, token, forwards: false, http })
    }

    /// For a daemon that passes on what it was asked: whoever gets this answers itself, or says that it cannot.
    #[must_use]
    pub fn forwarding(self) -> Client {
        Client { forwards: true, ..self }
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// One request, one answer.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        params: Params<'_>,
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

    async fn get<T: DeserializeOwned>(&self, path: &str, params: Params<'_>) -> Result<T> {
        self.request(Method::GET, path, params, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, params: Params<'_>) -> Result<T> {
        self.request(Method::POST, path, params, None).await
    }

    /// An answer that comes in pieces, for as long as it lasts.
    pub async fn stream(
        &self,
        path: &str,
        params: Params<'_>,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        let answer = self.send(&Method::GET, path, params, None).await?;
        let url = format!("{}{path}", self.base);
        Ok(answer.bytes_stream().map(move |piece| {
            piece.map_err(|error| ClientError::Unreachable { url: url.clone(), why: reason(&error) })
        }))
    }

    /// What answers: the API's version, and the node.
    pub async fn root(&self) -> Result<Root> {
        self.get("/", &[]).await
    }

    /// The cluster.
    pub async fn status(&self) -> Result<Status> {
        self.get("/status", &[]).await
    }

    /// Switches maintenance; `lasts`: it ends by itself after that time.
    pub async fn set_maintenance(&self, on: bool, lasts: Option<Duration>) -> Result<Maintenance> {
        let mut params = vec![("state", on.to_string())];
        params.extend(lasts.map(|lasts| ("duration", lasts.as_secs().to_string())));
        self.post("/status", &params).await
    }

    /// The primary coordinator, if there is one. Needs no token.
    pub async fn primary_node(&self) -> Result<Option<PrimaryNode>> {
        let path = "/status/primary_node";
        let answer = self.send(&Method::GET, path, &[], Some(ANSWER_TIMEOUT)).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        self.decode(&Method::GET, path, answer).await.map(Some)
    }

    /// Faults, by one of their fields or by id.
    pub async fn faults(&self, by: Option<FaultKey>) -> Result<Vec<FaultInfo>> {
        let params: Vec<(&str, String)> = by.iter().map(|key| ("sort_key", key.to_string())).collect();
        self.get("/faults", &params).await
    }

    /// What holds for the whole cluster.
    pub async fn config(&self) -> Result<Config> {
        self.get("/config", &[]).await
    }

    /// Changes what holds for the whole cluster; what is not given stays.
    pub async fn set_config(&self, change: Params<'_>) -> Result<Config> {
        self.request(Method::PUT, "/config", change, None).await
    }

    /// Tokens.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        self.get("/token", &[]).await
    }

    /// Makes a token.
    pub async fn create_token(&self, name: &str) -> Result<NewToken> {
        self.post("/token", &[("name", name.to_owned())]).await
    }

    /// Revokes a token.
    pub async fn delete_token(&self, name: &str) -> Result<Message> {
        self.request(Method::DELETE, &format!("/token/{}", part(name)), &[], None).await
    }
}

/// The innermost cause, which is what people need to know.
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

/// A value each time that it changes, one JSON object a line.
fn values<T: DeserializeOwned>(
    url: String,
    pieces: impl Stream<Item = Result<Bytes>> + Send,
) -> impl Stream<Item = Result<T>> + Send {
    lines(pieces).map(move |line| {
        let bad = |why: String| ClientError::BadAnswer { url: url.clone(), why };
        serde_json::from_str(&line.map_err(|error| cause(error, bad))?).map_err(|e| bad(e.to_string()))
    })
}

/// What kept a line from coming: the connection, or that it is no text.
fn cause(error: LinesCodecError, bad: impl FnOnce(String) -> ClientError) -> ClientError {
    match error {
        LinesCodecError::Io(error) => error.downcast().unwrap_or_else(|error| bad(error.to_string())),
        LinesCodecError::MaxLineLengthExceeded => bad(error.to_string()),
    }
}

/// Whole lines out of pieces.
fn lines(
    pieces: impl Stream<Item = Result<Bytes>> + Send,
) -> impl Stream<Item = std::result::Result<String, LinesCodecError>> + Send {
    let pieces = Box::pin(pieces.map_err(io::Error::other));
    FramedRead::new(StreamReader::new(pieces), WholeLines(LinesCodec::new()))
}

/// Lines with an end: what an answer that broke off leaves of one is none.
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

/// Whether a refusal says that there is no such thing.
pub fn is_not_found(error: &ClientError) -> bool {
    error.status() == Some(StatusCode::NOT_FOUND.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place() {
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
    async fn lines_are_put_together() {
        let pieces = ["a\nb", "c\n", "", "d"].map(|p| Ok(Bytes::from(p)));
        let got: Vec<String> =
            lines(futures_util::stream::iter(pieces)).map(|line| line.unwrap_or_default()).collect().await;
        assert_eq!(got, ["a", "bc"]);
    }

    #[tokio::test]
    async fn a_stream_of_values_says_why_it_ends() {
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
