//! The history of the cluster.

use crate::support::{TestNode, xml};
use axum::{body::Body, http::Request};
use drover_model::OffReason;
use drover_model::wire::{Event, Events};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

async fn events(node: &TestNode, query: &str) -> Events {
    let told = node.get(&format!("/events{query}")).await;
    assert_eq!(told.status, 200, "{told:?}");
    serde_json::from_str(&told.text).unwrap()
}

fn kinds(events: &Events) -> Vec<&str> {
    events.events.iter().map(|event| event.kind.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_and_done_is_told_with_who_asked() {
    let node = TestNode::start().await;
    let told = node.form("POST", "/vm", &[("xml", &xml("web", "")), ("node", "hv1")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let before = events(&node, "").await.cursor;
    let told = node.form("POST", "/vm/web/state", &[("state", "start"), ("wait", "true")]).await;
    assert_eq!(told.status, 200, "{told:?}");
    let found = events(&node, &format!("?vm=web&after={before}")).await;
    assert_eq!(kinds(&found), ["request", "guest-started"], "{found:?}");
    let [asked, done] = &found.events[..] else { panic!("{found:?}") };
    assert_eq!((asked.vm.as_str(), asked.by.as_str(), asked.node.as_str()), ("web", "test", "hv1"), "{asked:?}");
    assert!(asked.what.starts_with("Ordered: VM web: ") && asked.seq < done.seq, "{asked:?} {done:?}");
    assert_eq!((done.by.as_str(), &done.operation), ("test", &asked.operation), "it follows from that");
    let told = node.get("/vm/web").await.json();
    let uuid = told["uuid"].as_str().unwrap();
    assert_eq!(events(&node, &format!("?vm={uuid}&after={before}")).await.events, found.events);

    // The guest crashes.
    let at = found.cursor;
    let mut newest = node.handle.events().newest();
    node.machine.guest_goes_down(uuid.parse().unwrap(), OffReason::Crashed);
    let started = |page: &Events| kinds(page).contains(&"guest-started");
    while !started(&events(&node, &format!("?after={at}")).await) {
        timeout(Duration::from_secs(60), newest.changed()).await.unwrap().unwrap();
    }
    let crashed = events(&node, &format!("?kind=guest-crashed&after={at}")).await;
    let [one] = &crashed.events[..] else { panic!("{crashed:?}") };
    assert_eq!((one.what.as_str(), &*one.details["in-a-row"]), ("The guest of VM web crashed on hv1.", "1"));
    assert_eq!(events(&node, &format!("?kind=guest-crashed&after={}", crashed.cursor)).await.events, []);

    // Filters, limits, and what is refused.
    assert_eq!(events(&node, "?vm=other").await.events, []);
    assert_eq!(events(&node, "?node=hv9").await.events, []);
    let all = events(&node, "?node=hv1").await.events;
    assert_eq!(events(&node, "?limit=2").await.events, all[all.len() - 2..]);
    for bad in ["?after=x", "?limit=0", "?limit=9999", "?until=3"] {
        let told = node.get(&format!("/events{bad}")).await;
        assert_eq!(told.status, 400, "{bad}: {told:?}");
    }
    let stranger = Request::builder().uri("/api/v1/events").header("x-api-key", "nobody");
    assert_eq!(node.send(stranger.body(Body::empty()).unwrap()).await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_named() {
    let first = TestNode::start().await;
    // Nothing listens at its address.
    let _second = first.beside("hv2", 2048).await;
    let found = events(&first, "").await;
    assert_eq!(found.unanswered.keys().collect::<Vec<_>>(), ["hv2"]);
    assert!(!found.events.is_empty() && !found.cursor.contains("hv2"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_where_it_was_cut_off() {
    let node = TestNode::start().await;
    let define = async |name: &str| {
        let told = node.form("POST", "/vm", &[("xml", &xml(name, "")), ("node", "hv1")]).await;
        assert_eq!(told.status, 200, "{told:?}");
    };
    for name in ["a", "b"] {
        define(name).await;
    }
    let read = async |last: &str, limit: u32, count: usize| {
        let request = Request::builder()
            .uri(format!("/api/v1/events?kind=request&limit={limit}"))
            .header("x-api-key", &node.token)
            .header("accept", "text/event-stream")
            .header("last-event-id", last);
        let mut pieces = node.open(request.body(Body::empty()).unwrap()).await;
        // Of the whole: the server's comments come for ever.
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut text, mut found) = (String::new(), Vec::new());
        while found.len() < count {
            let piece = timeout_at(deadline, pieces.next()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
            while let Some((one, rest)) = text.split_once("\n\n") {
                let field = |name: &str| one.lines().find_map(|line| line.strip_prefix(name));
                if let (Some(id), Some(data)) = (field("id: "), field("data: {")) {
                    let event: Event = serde_json::from_str(&format!("{{{data}")).unwrap();
                    found.push((id.to_owned(), event.vm));
                }
                text = rest.to_owned();
            }
        }
        found
    };
    let found = read("", 2, 2).await;
    let names = |found: &[(String, String)]| found.iter().map(|(_, vm)| vm.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), ["a", "b"]);
    for name in ["c", "d"] {
        define(name).await;
    }
    assert_eq!(names(&read(&found[0].0, 1, 3).await), ["b", "c", "d"], "not limited");
}
