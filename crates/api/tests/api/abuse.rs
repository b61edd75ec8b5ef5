//! Clients that send slowly, much, or without a right to.

use crate::support::{TestNode, xml};
use axum::{body::Body, http::Request};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use std::{io, time::Duration};
use tokio::time::Instant;

/// A body that begins and does not end.
fn endless() -> Body {
    let begin = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"xml="))]);
    Body::from_stream(begin.chain(stream::pending()))
}

#[tokio::test(start_paused = true)]
async fn a_body_is_received_only_with_a_token_and_not_for_ever() {
    let node = TestNode::start().await;
    let without = Request::builder().method("POST").uri("/api/v1/vm").body(endless()).unwrap();
    let begin = Instant::now();
    assert_eq!(node.send(without).await.status, 401);
    // Requests that need no token have no use for a body.
    assert_eq!(node.raw("GET", "/", "application/json", endless()).await.status, 200);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let told = node.raw("POST", "/vm", "application/x-www-form-urlencoded", endless()).await;
    assert_eq!(told.status, 408, "{told:?}");
    assert!(told.text.contains("was not received within 30 s"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_held_open_delay_others_for_a_while_only() {
    let node = TestNode::start().await;
    let kind = "application/x-www-form-urlencoded";
    let mut held: Vec<_> = (0..16).map(|_| node.raw("POST", "/vm", kind, endless()).boxed_local()).collect();
    for request in &mut held {
        assert!(request.now_or_never().is_none());
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let xml = xml("vm1", "00000000-0000-0000-0000-000000000001");
    let fields = [("xml", &*xml)];
    let (told, held) = tokio::join!(node.form("POST", "/vm", &fields), futures_util::future::join_all(held));
    assert!(held.iter().all(|told| told.status == 408), "{held:?}");
    assert_eq!(told.status, 200, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_token_is_revoked() {
    let node = TestNode::start().await;
    let told = node.form("POST", "/token", &[("name", "guest")]).await;
    let other = told.json()["token"].as_str().unwrap().to_owned();
    let request = Request::builder().uri("/api/v1/node/hv1/log?follow=true").header("x-api-key", other);
    let mut stream = node.open(request.body(Body::empty()).unwrap()).await;
    let mut own = node.stream("/node/hv1/log?follow=true").await;
    // The lines until now.
    assert!(stream.next().await.unwrap().is_ok() && own.next().await.unwrap().is_ok());
    assert!(stream.next().now_or_never().is_none());
    assert_eq!(node.raw("DELETE", "/token/guest", "", Body::empty()).await.status, 200);
    let end = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
    let error = end.expect("it ends").unwrap().unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
    assert!(own.next().now_or_never().is_none(), "the other token is valid");
}
