//! One request to one server.

use std::time::Duration;

use futures::TryFutureExt as _;
use infernet_node::clock::now;
use infernet_protocol::batch::Blob;
use nostr::Keys;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode};
use tokio::time::timeout;

use crate::Address;
use crate::authorization::{Verb, header};
use crate::error::Failure;

/// How long a connection may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);

/// How long a server may say nothing while it is its turn.
const SILENT_FOR: Duration = Duration::from_secs(15);

/// How long a transfer may take, before its size counts.
const AT_LEAST: Duration = Duration::from_secs(20);

/// The slowest transfer that is put up with, in bytes a second.
const SLOWEST: u64 = 64 * 1024;

/// Characters of a server's reason that are repeated.
const MAX_REASON_CHARS: usize = 200;

/// Talks HTTP; follows nobody elsewhere, for where that leads was not looked at.
#[expect(
    clippy::expect_used,
    reason = "nothing of it depends on the machine, and any other client would follow"
)]
pub fn http() -> Client {
    // rustls asks for one provider for the whole process; somebody else's choice is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
    let tls = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore { roots })
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("infernet/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECTED_WITHIN)
        .read_timeout(SILENT_FOR)
        .build()
        .expect("its settings are right on every machine")
}

/// Puts a blob on a server.
pub async fn put(
    http: &Client,
    server: &Address,
    blob: &Blob,
    bytes: bytes::Bytes,
    keys: &Keys,
) -> Result<(), Failure> {
    let authorization = header(Verb::Upload, blob, server, keys, now())?;
    let request = http
        .put(server.upload().as_str())
        .header(AUTHORIZATION, authorization)
        .header(CONTENT_TYPE, "application/octet-stream")
        .header("X-SHA-256", blob.sha256.to_string())
        .body(bytes);
    let sending = request.send().map_err(|error| told(&error));
    accepted(within(blob, sending).await?).map(drop)
}

/// Takes a blob of our own from a server.
pub async fn delete(
    http: &Client,
    server: &Address,
    blob: &Blob,
    keys: &Keys,
) -> Result<(), Failure> {
    let authorization = header(Verb::Delete, blob, server, keys, now())?;
    let request = http
        .delete(server.of(blob).as_str())
        .header(AUTHORIZATION, authorization);
    let sending = request.send().map_err(|error| told(&error));
    accepted(within(blob, sending).await?).map(drop)
}

/// Gets a blob from a server.
pub async fn get(http: &Client, server: &Address, blob: &Blob) -> Result<Vec<u8>, Failure> {
    let request = http.get(server.of(blob).as_str());
    within(blob, async {
        let response = request.send().await.map_err(|error| told(&error))?;
        let bytes = read(accepted(response)?, blob).await?;
        match blob.is_of(&bytes) {
            true => Ok(bytes),
            false => Err(Failure::Other),
        }
    })
    .await
}

/// Reads an answer, and nothing beyond the blob's size.
async fn read(mut response: Response, blob: &Blob) -> Result<Vec<u8>, Failure> {
    // The size was promised by a stranger: what is not there takes no memory.
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| told(&error))? {
        if bytes.len() as u64 + part.len() as u64 > blob.bytes {
            return Err(Failure::Other);
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

async fn within<T>(
    blob: &Blob,
    transfer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let longest = AT_LEAST + Duration::from_secs(blob.bytes / SLOWEST);
    timeout(longest, transfer)
        .await
        .unwrap_or(Err(Failure::Slow))
}

/// The answer, if it says yes.
fn accepted(response: Response) -> Result<Response, Failure> {
    match response.status() {
        StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(response),
        status => Err(Failure::Refused {
            status: status.as_u16(),
            reason: reason(&response),
        }),
    }
}

/// A server's reason, fit for a terminal.
fn reason(response: &Response) -> Option<String> {
    let said = response.headers().get("X-Reason")?.to_str().ok()?;
    let shown = said.chars().filter(|char| !char.is_control());
    Some(shown.take(MAX_REASON_CHARS).collect())
}

/// An error in words, without the address: whoever reads it has that beside it.
fn told(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::Slow;
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Failure::Unreachable(cause.to_string())
}
