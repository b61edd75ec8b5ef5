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

/// Over the network, so in real time.
#[tokio::test]
async fn the_events_of_two_nodes_are_one_list_and_one_position() {
    let first = TestNode::start().await;
    let second = first.beside("hv2", 2048).await;
    second.serve().await;
    // As a daemon does when it is ready.
    let (token, role) = (first.handle.node_token().to_owned(), drover_model::TokenRole::Node);
    let name = drover_model::TokenName::of_node(first.handle.me()).unwrap();
    first.handle.commands().install_token(name.clone(), &token, role).await.unwrap();
    second.handle.views().wait_for(|view| view.tokens().contains_key(&name)).await.unwrap();
    first
        .handle
        .views()
        .wait_for(|view| view.nodes[second.handle.me()].record.value.api != "127.0.0.1:1")
        .await
        .unwrap();
    let define = async |at: &TestNode, name: &str| {
        let told = at.form("POST", "/vm", &[("xml", &xml(name, "")), ("node", "hv1")]).await;
        assert_eq!(told.status, 200, "{told:?}");
        // The clocks go on, so that the order is known.
        for node in [&first, &second] {
            node.clock.fetch_add(10, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let told = async |query: &str| {
        let found = events(&first, &format!("?kind=request{query}")).await;
        assert!(found.unanswered.is_empty(), "{found:?}");
        let of = |event: &Event| (event.node.clone(), event.vm.clone());
        (found.events.iter().map(of).collect::<Vec<_>>(), found.cursor)
    };
    let pairs = |all: &[(&str, &str)]| all.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect::<Vec<_>>();
    let (_, begin) = told("").await;
    for (at, name) in [(&first, "a"), (&second, "b"), (&first, "c"), (&second, "d")] {
        define(at, name).await;
    }
    let all = pairs(&[("hv1", "a"), ("hv2", "b"), ("hv1", "c"), ("hv2", "d")]);
    assert_eq!(told(&format!("&after={begin}")).await.0, all, "joined by time");
    assert_eq!(told("&limit=3").await.0, all[1..], "the last");
    assert_eq!(told("&vm=b").await.0, all[1..2]);
    assert_eq!(told(&format!("&node=hv2&after={begin}")).await.0, pairs(&[("hv2", "b"), ("hv2", "d")]));
    // Piece by piece: nothing is left out, nothing comes twice.
    let (mut found, mut at) = (Vec::new(), begin);
    for size in [1, 1, 2] {
        let (piece, then) = told(&format!("&limit={size}&after={at}")).await;
        assert_eq!(piece.len(), size, "{found:?}");
        found.extend(piece);
        at = then;
    }
    assert_eq!((found, told(&format!("&after={at}")).await.0), (all, vec![]));
    define(&second, "e").await;
    assert_eq!(told(&format!("&after={at}")).await.0, pairs(&[("hv2", "e")]));
}
