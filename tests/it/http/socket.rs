//! Over a real socket: what only a connection can do, such as go away.

use super::{CHAT, Server};
use crate::default_model::NAME;
use axum::body::Body;
use serde_json::json;
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};

/// Serves on a port of its own for as long as the runtime lives.
async fn listen(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, server.router.clone()).into_future());
    address
}

async fn post(address: SocketAddr, body: &str) -> TcpStream {
    let client = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    write_all(&client, request.as_bytes()).await;
    client
}

async fn write_all(client: &TcpStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        client.writable().await.unwrap();
        match client.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads until `mark` has come.
async fn read_until(client: &TcpStream, mark: &str) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&text).contains(mark) {
        client.readable().await.unwrap();
        let n = match client.try_read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        };
        assert!(n > 0, "the server hung up before {mark:?}: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(text).unwrap()
}

const RUNNING: &str = "mondai_sequences_running";
const CANCELLED: &str = "mondai_sequences_finished_total{reason=\"cancelled\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_frees_its_slot() {
    let server = Server::start();
    let address = listen(&server).await;
    for stream in [true, false] {
        let cancelled = server.metric(CANCELLED).await;
        // The reply is far from its end, and the backend waits before every step.
        let hold = server.control.hold();
        let body = json!({
            "model": NAME, "messages": [{"role": "user", "content": "Go on and on."}],
            "stream": stream, "max_tokens": 900, "ignore_eos": true,
        });
        let client = post(address, &body.to_string()).await;
        server.until_metric(RUNNING, 1.0).await;
        if stream {
            tokio::task::block_in_place(|| {
                hold.wait();
                hold.let_one_through();
                hold.let_one_through();
            });
            let begun = read_until(&client, "\"delta\":{\"role\":\"assistant\"").await;
            assert!(begun.starts_with("HTTP/1.1 200 OK\r\n"), "{begun}");
        }
        drop(client);
        // Only this request is in flight beside the one for the metrics, until the server sees the end.
        server.until_metric("mondai_http_requests_in_flight", 1.0).await;
        drop(hold);
        server.until_metric(CANCELLED, cancelled + 1.0).await;
        server.until_metric(RUNNING, 0.0).await;
    }
    // The slot serves the next one.
    server.will_say("Hello");
    let body = json!({"messages": [{"role": "user", "content": "Hi."}], "temperature": 0});
    let client = post(address, &body.to_string()).await;
    read_until(&client, "\"content\":\"Hello\"").await;
}

#[tokio::test]
async fn a_stream_is_chunked_and_the_connection_kept() {
    let server = Server::start();
    server.will_say("Hello");
    let address = listen(&server).await;
    let body = json!({"messages": [{"role": "user", "content": "Hi."}], "stream": true}).to_string();
    let client = post(address, &body).await;
    let text = read_until(&client, "0\r\n\r\n").await;
    assert!(text.contains("transfer-encoding: chunked\r\n"), "{text}");
    assert!(text.contains("data: [DONE]\n\n"), "{text}");
    write_all(&client, format!("GET /livez HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await;
    read_until(&client, "{\"status\":\"alive\"}").await;
}

#[tokio::test]
async fn a_document_says_its_length() {
    let server = Server::start();
    let answer = server.get("/livez").await.ok();
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    let head = axum::http::Request::head("/livez").body(Body::empty()).unwrap();
    assert_eq!(server.send(head).await.ok().body.len(), 0);
}
