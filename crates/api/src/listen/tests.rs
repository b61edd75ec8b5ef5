//! What clients that send or read slowly, or too often, cost.

use super::*;
use axum::routing::get;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

async fn server(open_files: u64) -> (Server, SocketAddr) {
    let router = Router::new().route("/", get(|| async { "hello" }));
    let server = Server::new(router, Arc::new(Limits::of(open_files)), "it stops");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.clone().serve(listener));
    (server, address)
}

/// Everything until the connection ends.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end too.
    stream.read_to_end(&mut text).await.ok();
    String::from_utf8(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_whole_request_ends_after_a_while() {
    let (_server, address) = server(1024).await;
    for sent in ["", "GET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let begin = Instant::now();
        assert_eq!(rest(&mut stream).await, "");
        assert!(begin.elapsed() >= HEAD_TIMEOUT && begin.elapsed() < HEAD_TIMEOUT * 2, "{:?}", begin.elapsed());
    }
    // The one after an answered request too.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let begin = Instant::now();
    assert!(rest(&mut stream).await.ends_with("hello"));
    assert!(begin.elapsed() < HEAD_TIMEOUT * 2, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_head_that_does_not_end_is_refused() {
    let (_server, address) = server(1024).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let piece = [b'x'; 1024];
    while stream.write_all(&piece).await.is_ok() {
        if timeout(Duration::from_millis(1), stream.readable()).await.is_ok() {
            break;
        }
    }
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_with_a_reason_and_others_go_on() {
    let (server, address) = server(64).await;
    let mut open = server.connections();
    let mut held = Vec::new();
    for n in 1..=4 {
        held.push(TcpStream::connect(address).await.unwrap());
        open.wait_for(|open| *open == n).await.unwrap();
    }
    let refused = rest(&mut TcpStream::connect(address).await.unwrap()).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.ends_with(TOO_MANY), "{refused}");
    // One that has its connection is served, and one that ends makes room.
    let (mut first, mut answer) = (held.remove(0), [0; 12]);
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(first);
    open.wait_for(|open| *open == 3).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.ends_with("hello"));
}
