//! The history of the cluster: each node has its own events, and the node that is asked joins those of all.

use crate::{
    answer::{self, Answer, ApiError},
    endpoint::{Call, Endpoint, field, get},
    peer,
};
use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Sse,
        sse::{self, KeepAlive},
    },
};
use drover_model::{
    NodeName,
    wire::{Cursor, Event, Events, ListEvents},
};
use futures_util::{future::join_all, stream};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Default number of events.
const LIMIT: usize = 100;
/// Time in which another node must answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before the other nodes are asked again for those who follow. This node's own events come at once.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Pause after which a silent stream has a comment, so that the client knows that this node is still there.
const ALIVE: Duration = Duration::from_secs(5);
/// Events of one piece of a stream.
const PIECE: usize = 256;

pub(crate) fn endpoints() -> Vec<Endpoint> {
    let about = "What was decided and done, and why, on all nodes that answer, newest last. With \
                 `Accept: text/event-stream`, a stream of server-sent events; it resumes after `Last-Event-ID`.";
    vec![get("/events", about, events).answers::<Events>()]
}

async fn events(call: Call, mut request: ListEvents) -> Answer {
    if call.streams && call.last_event.is_some() {
        request.after.clone_from(&call.last_event);
    }
    let after = match &request.after {
        Some(text) => Some(
            text.parse::<Cursor>()
                .map_err(|_| ApiError::parameter(field!(ListEvents.after), text, "the cursor of an earlier answer"))?,
        ),
        None => None,
    };
    if call.streams {
        return Ok(follow(call, after, request));
    }
    answer::json(&page(&call, after, &request).await?)
}

/// A page of the events of all nodes; if another node asks, of this node's.
async fn page(call: &Call, after: Option<Cursor>, request: &ListEvents) -> Result<Events, ApiError> {
    let limit = request.limit.unwrap_or(LIMIT);
    let me = call.state.node.me().to_string();
    // Before anybody is asked: what happens later is to come.
    let since = call.state.node.wall().0;
    let own = own(call, after.clone(), request).await?;
    let mut found = vec![Found { node: me.clone(), events: own.events, last: own.last }];
    let mut unanswered = BTreeMap::new();
    if !call.forwarded {
        let view = call.state.node.view();
        let others: Vec<NodeName> = view.nodes.keys().filter(|name| name.as_str() != me).cloned().collect();
        let all = join_all(others.iter().map(|node| of_peer(call, node, request))).await;
        for (node, outcome) in others.into_iter().zip(all) {
            match outcome {
                Ok(one) => found.push(one),
                Err(why) => {
                    unanswered.insert(node.to_string(), why);
                }
            }
        }
    }
    let (events, cursor) = join(found, after, since, limit);
    Ok(Events { events, unanswered, cursor: cursor.to_string() })
}

async fn own(call: &Call, after: Option<Cursor>, request: &ListEvents) -> Result<drover_agent::events::Page, ApiError> {
    let (node, limit) = (call.state.node.clone(), request.limit.unwrap_or(LIMIT));
    let ListEvents { vm, node: of, kind, operation, .. } = request.clone();
    // Also what was said of it under another name.
    let uuid = vm.as_ref().and_then(|vm| Some(node.view().vm(vm)?.record.value.uuid.to_string()));
    let wanted = move |event: &Event| {
        vm.as_ref().is_none_or(|vm| event.vm == *vm || event.uuid == *vm || uuid.as_ref() == Some(&event.uuid))
            && of.as_ref().is_none_or(|of| event.node == of.as_str() || event.about == of.as_str())
            && kind.as_ref().is_none_or(|kind| event.kind == *kind)
            && operation.as_ref().is_none_or(|operation| event.operation == operation.as_str())
    };
    // It may read files.
    let read = move || node.events().page(node.me().as_str(), after.as_ref(), limit, wanted);
    tokio::task::spawn_blocking(read).await.map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the events of this node cannot be read: {error}"))
    })
}

/// The events of another node, or why it does not tell them.
async fn of_peer(call: &Call, node: &NodeName, request: &ListEvents) -> Result<Found, String> {
    let client = peer::client(&call.state, node).map_err(|error| error.refusal.message)?;
    let answer = match timeout(PEER_TIMEOUT, client.events(request)).await {
        Err(_) => return Err(format!("no answer in {} s", PEER_TIMEOUT.as_secs())),
        Ok(answer) => answer.map_err(|error| error.to_string())?,
    };
    let last = answer.cursor.parse::<Cursor>().ok().and_then(|cursor| cursor.nodes.get(node.as_str()).copied());
    let last = last.ok_or_else(|| "its answer has no position of its own".to_owned())?;
    Ok(Found { node: node.to_string(), events: answer.events, last })
}

/// What a node has.
struct Found {
    node: String,
    events: Vec<Event>,
    /// Its position after them.
    last: u64,
}

/// Joins the events of several nodes, by time, then by node; those of one node keep their order, whatever its clock
/// did. Without `after`, the last `limit` ones, else the first. With the position after them.
fn join(found: Vec<Found>, after: Option<Cursor>, since: u64, limit: usize) -> (Vec<Event>, Cursor) {
    let mut cursor = after.clone().unwrap_or(Cursor { since, nodes: BTreeMap::new() });
    let mut all = Vec::new();
    let mut lasts = BTreeMap::new();
    for Found { node, events, last } in found {
        let mut latest = 0;
        for event in events {
            latest = event.at.max(latest);
            all.push(((latest, node.clone(), event.seq), event));
        }
        lasts.insert(node, last);
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    let over = all.len().saturating_sub(limit);
    if after.is_none() {
        all.drain(..over);
    } else {
        let cut = all.split_off(all.len() - over);
        // A node of which some are left out is asked again from before the first of them.
        for ((_, node, seq), _) in cut.into_iter().rev() {
            lasts.insert(node, seq.saturating_sub(1));
        }
    }
    cursor.nodes.extend(lasts);
    (all.into_iter().map(|(_, event)| event).collect(), cursor)
}

/// Where a stream is.
struct Following {
    call: Call,
    request: ListEvents,
    /// `None`: at the beginning.
    at: Option<Cursor>,
    /// What was found and not sent yet.
    ready: VecDeque<Event>,
    /// The position after what was found.
    then: Option<Cursor>,
    /// The nodes that did not answer, with the reasons, as the client knows it.
    unanswered: BTreeMap<String, String>,
}

/// A stream of events. The id of each is the position after it.
fn follow(call: Call, after: Option<Cursor>, request: ListEvents) -> axum::response::Response {
    let following =
        Following { call, request, at: after, ready: VecDeque::new(), then: None, unanswered: BTreeMap::new() };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await;
        event.map(|event| (Ok::<_, Infallible>(event), following))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}

impl Following {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if self.ready.is_empty() {
                self.at = self.then.take().or(self.at.take());
            }
            if let Some(event) = self.ready.pop_front() {
                let at = self.at.get_or_insert_default();
                at.nodes.insert(event.node.clone(), event.seq);
                if self.ready.is_empty() {
                    self.at = self.then.take();
                }
                let id = self.at.as_ref().map(Cursor::to_string).unwrap_or_default();
                let data = serde_json::to_string(&event).ok()?;
                return Some(sse::Event::default().id(id).data(data));
            }
            let mut newest = self.call.state.node.events().newest();
            newest.mark_unchanged();
            let limit = if self.at.is_none() { self.request.limit } else { Some(PIECE) };
            let request = ListEvents { after: self.at.as_ref().map(Cursor::to_string), limit, ..self.request.clone() };
            let first = self.at.is_none();
            let found = page(&self.call, self.at.clone(), &request).await.ok()?;
            let then: Cursor = found.cursor.parse().ok()?;
            let silent = !found.unanswered.keys().eq(self.unanswered.keys());
            self.unanswered = found.unanswered;
            if silent {
                // Without an id: the client stays where it is.
                let data = serde_json::to_string(&self.unanswered).ok()?;
                self.found(found.events, then);
                return Some(sse::Event::default().event("unanswered").data(data));
            }
            if found.events.is_empty() {
                self.at = Some(then);
                if first {
                    // So that a client which is cut off now can resume.
                    let id = self.at.as_ref().map(Cursor::to_string).unwrap_or_default();
                    return Some(sse::Event::default().id(id).event("position").data(""));
                }
                tokio::select! {
                    // Fails when the daemon ends.
                    changed = newest.changed() => changed.ok()?,
                    () = sleep(ASK_AGAIN) => {}
                }
                continue;
            }
            self.found(found.events, then);
        }
    }

    /// Notes what is to be sent, and the position after it.
    fn found(&mut self, events: Vec<Event>, then: Cursor) {
        if self.at.is_none() {
            // What comes before the first one is not to come again.
            let mut nodes = then.nodes.clone();
            for event in events.iter().rev() {
                nodes.insert(event.node.clone(), event.seq.saturating_sub(1));
            }
            self.at = Some(Cursor { since: then.since, nodes });
        }
        self.ready = events.into();
        self.then = Some(then);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(node: &str, events: &[(u64, u64)], last: u64) -> Found {
        let event = |(seq, at): &(u64, u64)| Event { node: node.to_owned(), seq: *seq, at: *at, ..Event::default() };
        Found { node: node.to_owned(), events: events.iter().map(event).collect(), last }
    }

    fn shown(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| format!("{}{}", event.node, event.seq)).collect()
    }

    #[test]
    fn events_of_several_nodes_are_joined_by_time_and_what_is_left_out_is_still_to_come() {
        // The clock of b was set back between its first and its second event.
        let all = || vec![found("a", &[(1, 10), (2, 30), (3, 50)], 9), found("b", &[(5, 40), (6, 20), (7, 60)], 7)];
        let (events, cursor) = join(all(), None, 99, 100);
        assert_eq!(shown(&events), ["a1", "a2", "b5", "b6", "a3", "b7"]);
        assert_eq!(cursor.to_string(), "@99,a:9,b:7");
        let (events, cursor) = join(all(), None, 99, 2);
        assert_eq!((shown(&events), cursor.to_string()), (vec!["a3".into(), "b7".into()], "@99,a:9,b:7".to_owned()));
        // c did not answer, and stays where it was.
        let after = || Some("@5,a:0,b:4,c:8".parse().unwrap());
        let (events, cursor) = join(all(), after(), 99, 4);
        assert_eq!(shown(&events), ["a1", "a2", "b5", "b6"]);
        assert_eq!(cursor.to_string(), "@5,a:2,b:6,c:8");
        let (_, cursor) = join(all(), after(), 99, 6);
        assert_eq!(cursor.to_string(), "@5,a:9,b:7,c:8");
    }
}
