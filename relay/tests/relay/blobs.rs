//! Blobs over HTTP, as our own client and strangers ask for them.

use base64::Engine as _;
use infernet_blobs::{Blobs, Error, Failure};
use infernet_protocol::batch::Blob;
use infernet_protocol::seal::Digest;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::Relay;
use crate::client::soon;
use crate::http;

const BYTES: &[u8] = b"<html>not a page</html>";

fn hash(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

fn blobs_of(relay: &Relay, keys: &Keys) -> Blobs {
    Blobs::new(vec![relay.page("").parse().unwrap()], keys.clone())
}

fn token(keys: &Keys, verb: &str, blob: &str) -> String {
    let tags = [["t", verb], ["x", blob]].map(|tag| Tag::parse(tag).unwrap());
    let event = EventBuilder::new(Kind::Custom(24_242), "")
        .tags(tags)
        .tag(Tag::expiration(Timestamp::now() + 60_u64))
        .sign_with_keys(keys)
        .unwrap();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    format!("Nostr {}", engine.encode(event.as_json()))
}

fn request(relay: &Relay, method: Method, path: &str) -> RequestBuilder {
    http::client().request(method, relay.page(path))
}

fn put(relay: &Relay, keys: &Keys, named: &[u8]) -> RequestBuilder {
    let token = token(keys, "upload", &hash(named));
    request(relay, Method::PUT, "/upload").header("authorization", token)
}

async fn send(request: RequestBuilder) -> Response {
    soon(request.send()).await.unwrap()
}

async fn status(request: RequestBuilder) -> u16 {
    send(request).await.status().as_u16()
}

/// The status of the answer to a request that no client would write.
async fn status_of(relay: &Relay, request: &str) -> String {
    let mut stream = TcpStream::connect(relay.handle.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = BufReader::new(stream).lines();
    let status = soon(answer.next_line()).await.unwrap().unwrap();
    status.split(' ').nth(1).unwrap().to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn a_blob_outlives_a_restart_and_goes_when_its_owner_says() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let bytes = vec![7; 300_000];
    let blob = soon(blobs_of(&relay, &keys).put(bytes.clone()))
        .await
        .unwrap();
    assert_eq!(blob, Blob::of(&bytes, vec![relay.page("")]));
    let relay = Relay::start_in(relay.stop().await, |_| {}).await;
    let blobs = blobs_of(&relay, &Keys::generate());
    // Its server is another now, and is not asked: ours has it.
    assert_eq!(soon(blobs.get(&blob)).await, Ok(bytes.clone()));
    let there = Blob::of(&bytes, vec![relay.page("")]);
    soon(blobs.delete(&there)).await;
    assert_eq!(soon(blobs.get(&there)).await, Ok(bytes), "it is another's");
    let own = blobs_of(&relay, &keys);
    soon(own.delete(&there)).await;
    let Err(Error::NotHad(failures)) = soon(own.get(&there)).await else {
        panic!("it is gone");
    };
    assert!(matches!(
        &failures[..],
        [(_, Failure::Refused { status: 404, .. })]
    ));
}

#[tokio::test]
async fn everybody_reads_and_no_browser_shows() {
    let relay = Relay::start().await;
    let uploaded = send(put(&relay, &Keys::generate(), BYTES).body(BYTES)).await;
    assert_eq!(uploaded.status(), StatusCode::CREATED);
    let said: Value = uploaded.json().await.unwrap();
    let path = format!("/{}", hash(BYTES));
    assert_eq!(said["url"], relay.page(&format!("{path}.bin")));
    assert_eq!(said["sha256"], hash(BYTES));
    assert_eq!(said["size"], BYTES.len());
    for path in [path.clone(), format!("{path}.html")] {
        let response = send(request(&relay, Method::GET, &path)).await;
        assert_eq!(
            header(&response, "content-type"),
            "application/octet-stream"
        );
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "content-disposition"), "attachment");
        assert_eq!(header(&response, "access-control-allow-origin"), "*");
        assert_eq!(soon(response.bytes()).await.unwrap(), BYTES);
    }
    let response = send(request(&relay, Method::HEAD, &path)).await;
    assert_eq!(header(&response, "content-length"), BYTES.len().to_string());
    assert_eq!(header(&response, "accept-ranges"), "bytes");
    assert!(soon(response.bytes()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_part_is_answered_as_one() {
    let relay = Relay::start().await;
    send(put(&relay, &Keys::generate(), BYTES).body(BYTES)).await;
    let part = |range: &str| {
        let path = format!("/{}", hash(BYTES));
        send(request(&relay, Method::GET, &path).header("range", range))
    };
    let response = part("bytes=1-4").await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&response, "content-range"), "bytes 1-4/23");
    assert_eq!(header(&response, "content-length"), "4");
    assert_eq!(soon(response.text()).await.unwrap(), "html");
    let response = part("bytes=23-").await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&response, "content-range"), "bytes */23");
    assert_eq!(part("nonsense").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn pages_of_other_sites_may_ask() {
    let relay = Relay::start().await;
    for path in ["/upload", "/list/ff", &format!("/{}", hash(b""))] {
        let response = send(request(&relay, Method::OPTIONS, path)).await;
        assert!(response.status().is_success());
        assert_eq!(header(&response, "access-control-allow-origin"), "*");
        let methods = "GET, HEAD, PUT, DELETE";
        assert_eq!(header(&response, "access-control-allow-methods"), methods);
        let headers = "Authorization, *";
        assert_eq!(header(&response, "access-control-allow-headers"), headers);
    }
    let refused = send(request(&relay, Method::PUT, "/upload").body(BYTES)).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(&refused, "access-control-allow-origin"), "*");
    let reason = "authorization: sign the request (BUD-11)";
    assert_eq!(header(&refused, "x-reason"), reason);
}

#[tokio::test]
async fn an_upload_is_what_was_signed_and_said() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let to = |named: &[u8]| put(&relay, &keys, named);
    assert_eq!(status(to(b"others").body(BYTES)).await, 401);
    let said = to(BYTES).header("x-sha-256", hash(b"others"));
    assert_eq!(status(said.body(BYTES)).await, 401);
    let other = token(&keys, "delete", &hash(BYTES));
    let wrong = request(&relay, Method::PUT, "/upload").header("authorization", other);
    assert_eq!(status(wrong.body(BYTES)).await, 401);
    let said = to(BYTES).header("x-sha-256", hash(BYTES));
    assert_eq!(status(said.body(&b"others"[..])).await, 409);
    let said = to(BYTES).header("x-sha-256", "../../etc");
    assert_eq!(status(said.body(BYTES)).await, 400);
    let endless = format!(
        "PUT /upload HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        token(&keys, "upload", &hash(b"")),
    );
    assert_eq!(status_of(&relay, &endless).await, "411");
    let unknown = request(&relay, Method::GET, &format!("/{}", hash(BYTES)));
    assert_eq!(status(unknown).await, 404, "nothing of it was kept");
    assert_eq!(status(to(BYTES).body(BYTES)).await, 201);
    assert_eq!(status(to(BYTES).body(BYTES)).await, 200);
}

#[tokio::test]
async fn quotas_are_told_before_and_after() {
    let relay = Relay::start_with(|options| {
        options.blob_limits.bytes = 50_000;
        options.blob_limits.key_bytes = 60_000;
    })
    .await;
    let keys = Keys::generate();
    let large = vec![1; 50_001];
    let refused = send(put(&relay, &keys, &large).body(large.clone())).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(header(&refused, "x-reason"), "a blob may have 50000 bytes");
    let fits = vec![1; 50_000];
    let may = |keys: &Keys, bytes: &[u8]| {
        request(&relay, Method::HEAD, "/upload")
            .header("authorization", token(keys, "upload", &hash(bytes)))
            .header("x-sha-256", hash(bytes))
            .header("x-content-length", bytes.len())
            .header("x-content-type", "image/png")
    };
    assert_eq!(status(may(&keys, &large)).await, 413);
    assert_eq!(status(may(&keys, &fits)).await, 200);
    assert_eq!(
        status(put(&relay, &keys, &fits).body(fits.clone())).await,
        201
    );
    let more = vec![2; 50_000];
    assert_eq!(status(may(&keys, &more)).await, 429);
    assert_eq!(
        status(put(&relay, &keys, &more).body(more.clone())).await,
        429
    );
    assert_eq!(status(may(&Keys::generate(), &more)).await, 200);
}

#[tokio::test]
async fn a_list_is_its_keys_own() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    for bytes in [&b"one"[..], b"two", b"three"] {
        send(put(&relay, &keys, bytes).body(bytes)).await;
    }
    let list = |keys: &Keys, of: &Keys, query: &str| {
        let path = format!("/list/{}{query}", of.public_key());
        request(&relay, Method::GET, &path).header("authorization", token(keys, "list", ""))
    };
    let all: Vec<Value> = send(list(&keys, &keys, "")).await.json().await.unwrap();
    assert_eq!(all.len(), 3);
    let first = send(list(&keys, &keys, "?limit=1")).await;
    assert_eq!(first.json::<Vec<Value>>().await.unwrap(), all[..1]);
    let cursor = format!("?cursor={}", all[0]["sha256"].as_str().unwrap());
    let rest = send(list(&keys, &keys, &cursor)).await;
    assert_eq!(rest.json::<Vec<Value>>().await.unwrap(), all[1..]);
    assert_eq!(status(list(&Keys::generate(), &keys, "")).await, 403);
    let unsigned = request(&relay, Method::GET, &format!("/list/{}", keys.public_key()));
    assert_eq!(status(unsigned).await, 401);
}

#[tokio::test]
async fn no_path_leads_out() {
    let relay = Relay::start().await;
    for path in [
        "/..%2frelay.lock",
        "/%2e%2e%2fdata.mdb",
        "/00%2f..%2f..%2frelay.lock",
        "/incoming",
        "/blobs/incoming/0",
        &format!("/{}%2f..", hash(b"")),
        &format!("/{}", hash(b"").to_uppercase()),
    ] {
        assert_eq!(
            status(request(&relay, Method::GET, path)).await,
            404,
            "{path}"
        );
    }
}

#[tokio::test]
async fn whom_the_operator_does_not_want_uploads_nothing() {
    let (banned, other) = (Keys::generate(), Keys::generate());
    let relay = Relay::start_with(|options| {
        options.lists.ban = vec![banned.public_key()];
        options.blob_limits.hourly_bytes = 20_000;
        options.proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let from = |keys: &Keys, address: &str| {
        let request = put(&relay, keys, BYTES).body(BYTES);
        request.header("x-forwarded-for", address.to_owned())
    };
    assert_eq!(status(from(&banned, "192.0.2.1")).await, 403);
    assert_eq!(status(from(&other, "192.0.2.1")).await, 201);
    // A client's address counts, not its proxy's.
    assert_eq!(status(from(&other, "192.0.2.1")).await, 429);
    assert_eq!(status(from(&other, "192.0.2.2")).await, 200);
}

#[tokio::test]
async fn a_relay_without_blobs_has_no_such_pages() {
    let relay = Relay::start_with(|options| options.blobs = false).await;
    let keys = Keys::generate();
    assert_eq!(status(put(&relay, &keys, BYTES).body(BYTES)).await, 404);
    assert!(!relay.folder.path().join("blobs").exists());
}
