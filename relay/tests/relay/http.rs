//! What the port answers to HTTP.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Relay;
use crate::client::soon;

/// A client of HTTP. It wants to know whose cryptography it would use, though it speaks to no TLS here.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn get(url: String, accept: &str) -> reqwest::Response {
    let request = client().get(url).header("accept", accept);
    soon(request.send()).await.unwrap()
}

#[tokio::test]
async fn the_information_document_says_what_is_kept() {
    let relay = Relay::start_with(|options| options.name = "Here".to_owned()).await;
    let response = get(relay.page("/"), "application/nostr+json").await;
    assert_eq!(response.headers()["content-type"], "application/nostr+json");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["name"], "Here");
    for nip in [1, 9, 11, 40] {
        let nips = document["supported_nips"].as_array().unwrap();
        assert!(nips.contains(&json!(nip)), "{document}");
    }
    assert_eq!(
        document["retention"][0],
        json!({ "kinds": [[8602, 8606], [8609, 8610]], "time": null })
    );
    assert_eq!(document["limitation"]["max_message_length"], 131_072);
    assert_eq!(document["limitation"]["created_at_upper_limit"], 900);
    assert_eq!(document["limitation"]["restricted_writes"], true);
}

#[tokio::test]
async fn a_visitor_sees_a_page() {
    let relay = Relay::start().await;
    let response = get(relay.page("/"), "text/html,*/*;q=0.8").await;
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    let page = response.text().await.unwrap();
    assert!(page.contains("Infernet relay") && page.contains("Nostr relay"));
    assert!(page.contains(&relay.handle.address().to_string()), "{page}");
}

#[tokio::test]
async fn health_is_ok() {
    let relay = Relay::start().await;
    let response = get(relay.page("/health"), "*/*").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.text().await.unwrap(), "ok\n");
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let relay = Relay::start().await;
    let response = get(relay.page("/admin"), "*/*").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

/// The status of the answer to a websocket handshake that begins with `line` and has `more` headers.
async fn handshake(relay: &Relay, line: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(relay.handle.address()).await.unwrap();
    let headers = "Host: x\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let request = format!("{line}\r\n{headers}\r\n{more}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = BufReader::new(stream).lines();
    let status = soon(answer.next_line()).await.unwrap().unwrap();
    status.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn only_a_websocket_handshake_opens_a_websocket() {
    let relay = Relay::start().await;
    let (upgrade, version) = (
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Version: 13",
    );
    let whole = format!("{upgrade}\r\n{version}");
    for (line, more, status) in [
        ("GET / HTTP/1.1", whole.as_str(), "101"),
        ("POST / HTTP/1.1", &whole, "400"),
        ("GET / HTTP/1.0", &whole, "400"),
        ("GET / HTTP/1.1", version, "400"),
        ("GET / HTTP/1.1", upgrade, "426"),
    ] {
        assert_eq!(handshake(&relay, line, more).await, status, "{line} {more}");
    }
}
