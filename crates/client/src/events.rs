//! The history of the cluster, as a list and as a stream.

use crate::{Client, ClientError, Result, cause, lines};
use drover_model::wire::{Event, Events, ListEvents};
use futures_util::{Stream, StreamExt, stream};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// Longest silence of a stream: a node whose power was cut does not end it. The server sends a comment every 5 s.
const SILENCE: Duration = Duration::from_secs(15);

/// A piece of the stream of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// An event, with the position after it, at which the stream can be resumed.
    Event(Box<Event>, String),
    /// The position, without an event.
    Position(String),
    /// The nodes that do not answer now, with the reasons.
    Unanswered(BTreeMap<String, String>),
}

/// The fields of a server-sent event.
#[derive(Default)]
struct Fields {
    kind: String,
    id: String,
    data: String,
}

impl Client {
    /// Events of all nodes that answer, the newest last.
    pub async fn events(&self, which: &ListEvents) -> Result<Events> {
        self.get("/events", which).await
    }

    /// Events as they come, after some of the last or a position. The stream ends with an error when nothing comes for
    /// some time, not even the server's comments.
    pub async fn follow_events(
        &self,
        which: &ListEvents,
    ) -> Result<impl Stream<Item = Result<Followed>> + Send + use<>> {
        let client = Client { streams: true, ..self.clone() };
        let url = format!("{}/events", self.base);
        let lines = Box::pin(lines(client.stream("/events", which).await?));
        Ok(stream::unfold(Some(lines), move |lines| {
            let url = url.clone();
            async move {
                let mut lines = lines?;
                let mut fields = Fields::default();
                loop {
                    let bad = |why: String| ClientError::BadAnswer { url: url.clone(), why };
                    let line = match timeout(SILENCE, lines.next()).await {
                        Ok(Some(Ok(line))) => line,
                        Ok(Some(Err(error))) => return Some((Err(cause(error, bad)), None)),
                        Ok(None) => return None,
                        Err(_) => {
                            let why = format!("nothing came for {} s", SILENCE.as_secs());
                            return Some((Err(ClientError::Unreachable { url, why }), None));
                        }
                    };
                    if !line.is_empty() {
                        fields.add(&line);
                    } else if let Some(followed) = std::mem::take(&mut fields).followed() {
                        return Some((followed.map_err(|error| bad(error.to_string())), Some(lines)));
                    }
                }
            }
        }))
    }
}

impl Fields {
    fn add(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.kind),
            "id" => value.clone_into(&mut self.id),
            "data" => self.data.push_str(value),
            // A comment, or something that a newer server sends.
            _ => {}
        }
    }

    /// What the event is; `None`: nothing, or something that a newer server sends.
    fn followed(self) -> Option<serde_json::Result<Followed>> {
        Some(match self.kind.as_str() {
            "position" => Ok(Followed::Position(self.id)),
            "unanswered" => serde_json::from_str(&self.data).map(Followed::Unanswered),
            "" if !self.data.is_empty() => {
                serde_json::from_str(&self.data).map(|event| Followed::Event(Box::new(event), self.id))
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// Accepts a request; returns its first line, and begins the answer.
    async fn asked(listener: &TcpListener) -> (String, TcpStream) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0, "a whole request comes");
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("accept: text/event-stream\r\n"), "{head}");
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        (head.lines().next().unwrap().to_owned(), stream)
    }

    async fn send(stream: &mut TcpStream, text: &str) {
        stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.unwrap();
    }

    fn event(seq: u64) -> String {
        let data = serde_json::to_string(&Event { node: "hv1".to_owned(), seq, ..Event::default() }).unwrap();
        format!("id: @5,hv1:{seq}\ndata: {data}\n\n")
    }

    #[tokio::test]
    async fn a_stream_whose_connection_breaks_is_resumed_after_the_last_whole_event() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let server = tokio::spawn(async move {
            let (first, mut stream) = asked(&listener).await;
            let half = event(3);
            for text in
                [":\n\n", &event(1), "event: position\nid: @5,hv1:2\n\n", "event: newer\ndata: 1\n\n", &half[..30]]
            {
                send(&mut stream, text).await;
            }
            stream.set_zero_linger().unwrap();
            drop(stream);
            let (second, mut stream) = asked(&listener).await;
            send(&mut stream, &event(3)).await;
            send(&mut stream, "event: unanswered\ndata: {\"hv2\":\"off\"}\n\n").await;
            stream.write_all(b"0\r\n\r\n").await.unwrap();
            [first, second]
        });
        let mut which = ListEvents { limit: Some(7), ..ListEvents::default() };
        let mut seen = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..2 {
            let mut events = pin!(client.follow_events(&which).await.unwrap());
            ends.push(loop {
                match events.next().await {
                    Some(Ok(Followed::Event(event, position))) => {
                        seen.push(event.seq);
                        which.after = Some(position);
                    }
                    Some(Ok(Followed::Position(position))) => which.after = Some(position),
                    Some(Ok(Followed::Unanswered(nodes))) => seen.push(100 + nodes.len() as u64),
                    end => break end.map(|end| matches!(end, Err(ClientError::Unreachable { .. }))),
                }
            });
        }
        assert_eq!((seen, ends), (vec![1, 3, 101], vec![Some(true), None]), "half an event is none");
        let asked = server.await.unwrap();
        assert!(asked[0].starts_with("GET /api/v1/events?limit=7 "), "{asked:?}");
        assert!(asked[1].starts_with("GET /api/v1/events?after=%405%2Chv1%3A2&limit=7 "), "{asked:?}");
    }
}
