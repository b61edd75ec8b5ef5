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
