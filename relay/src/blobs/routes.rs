//! The routes of blobs.

use std::io::SeekFrom;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, put};
use axum::{Json, Router};
use futures::StreamExt as _;
use infernet_node::clock;
use infernet_protocol::seal::Digest;
use nostr::{PublicKey, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::io::ReaderStream;

use super::authorization::{Authorization, Verb};
use super::draft::Draft;
use super::meter::Meter;
use super::range::wanted;
use super::refusal::Refusal;
use super::shelf::{Kept, Room, Shelf};
use super::uploads::{Place, Uploads};
use crate::http::{Connection, host};
use crate::lists::Lists;
use crate::options::Options;

/// How long an upload may take, before its size counts.
const AT_LEAST: Duration = Duration::from_secs(20);

/// The slowest upload that is put up with, in bytes a second: places are few.
const SLOWEST: u64 = 32 * 1024;

/// How long the bytes of an upload that is refused are read, for its client to read the reason.
const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// Blobs in one answer to a list.
const MAX_LISTED: usize = 1_000;

/// Bytes that are read from a file at once.
const READ_BYTES: usize = 128 * 1024;

const SHA256: HeaderName = HeaderName::from_static("x-sha-256");
const CONTENT_LENGTH: HeaderName = HeaderName::from_static("x-content-length");

/// What the answers are made of.
#[derive(Debug)]
pub struct Blobs {
    shelf: Arc<Shelf>,
    meter: Meter,
    uploads: Uploads,
    lists: Arc<Lists>,
    /// What clients call this server, if its operator says it.
    address: Option<String>,
}

impl Blobs {
    /// Serves what is on `shelf`.
    pub fn new(shelf: Arc<Shelf>, lists: Arc<Lists>, options: &Options) -> Arc<Self> {
        Arc::new(Self {
            shelf,
            meter: Meter::new(options.blob_limits.hourly_bytes),
            uploads: Uploads::default(),
            lists,
            address: options.address.clone(),
        })
    }

    /// This server's address: as its operator says, or else as the client does.
    fn address(&self, headers: &HeaderMap) -> String {
        let said = || {
            let behind_tls = headers
                .get("x-forwarded-proto")
                .is_some_and(|p| p == "https");
            let scheme = if behind_tls { "https" } else { "http" };
            format!("{scheme}://{}", host(headers))
        };
        self.address.clone().unwrap_or_else(said)
    }

    fn authorize(&self, headers: &HeaderMap, verb: Verb) -> Result<Authorization, Refusal> {
        Authorization::read(headers, verb, &self.address(headers), clock::now())
    }

    /// What is said of a blob (BUD-02).
    fn descriptor(&self, headers: &HeaderMap, hash: &Digest, kept: &Kept) -> Value {
        json!({
            "url": format!("{}/{hash}.bin", self.address(headers)),
            "sha256": hash,
            "size": kept.bytes,
            "type": "application/octet-stream",
            "uploaded": kept.uploaded,
            "expiration": self.shelf.expiration(kept.uploaded),
        })
    }
}

/// The routes, for pages of other sites too.
pub fn router(blobs: Arc<Blobs>) -> Router {
    let open = |methods: MethodRouter<Arc<Blobs>>| methods.options(preflight);
    Router::new()
        .route("/upload", open(put(upload).head(may_upload)))
        .route("/list/{key}", open(get(list)))
        .route("/{name}", open(get(read).delete(drop_one)))
        .layer(map_response(harmless))
        .with_state(blobs)
}

/// Lets pages of other sites read every answer (BUD-01), and keeps a browser from making a page of one.
async fn harmless(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "*"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn preflight() -> impl IntoResponse {
    let may = [
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, *"),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "GET, HEAD, PUT, DELETE",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, may)
}

/// `GET` and `HEAD /<sha256>`, with any extension.
async fn read(
    State(blobs): State<Arc<Blobs>>,
    Path(name): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let hash = parse_name(&name)?;
    let shelf = blobs.shelf.clone();
    let (file, kept) = waiting(move || shelf.read(&hash)).await?;
    let part = wanted(&headers, kept.bytes)?;
    let mut response = match method {
        Method::HEAD => Body::empty(),
        _ => body(file, part.clone().unwrap_or(0..kept.bytes)).await?,
    }
    .into_response();
    let sent = part
        .as_ref()
        .map_or(kept.bytes, |part| part.end - part.start);
    let answered = response.headers_mut();
    answered.insert(header::CONTENT_LENGTH, sent.into());
    for (name, value) in [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "public, max-age=86400, immutable"),
    ] {
        answered.insert(name, HeaderValue::from_static(value));
    }
    if let Some(Range { start, end }) = part {
        let range = format!("bytes {start}-{}/{}", end - 1, kept.bytes);
        let range = HeaderValue::from_str(&range).map_err(|_| Refusal::Disk)?;
        answered.insert(header::CONTENT_RANGE, range);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

async fn body(file: std::fs::File, part: Range<u64>) -> Result<Body, Refusal> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(part.start))
        .await
        .map_err(|_| Refusal::Disk)?;
    let part = file.take(part.end - part.start);
    Ok(Body::from_stream(ReaderStream::with_capacity(
        part, READ_BYTES,
    )))
}

/// `PUT /upload`.
async fn upload(
    State(blobs): State<Arc<Blobs>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let admitted = match admit(&blobs, &parts.headers, &connection) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let _ = timeout(DRAINED_WITHIN, drain(body, blobs.shelf.largest())).await;
            return Err(refusal);
        }
    };
    let draft = blobs.shelf.draft().await.map_err(failed)?;
    let draft = receive(draft, body, admitted.bytes).await?;
    keep(&blobs, draft, admitted, &parts.headers).await
}

/// An upload that may come in.
struct Admitted<'a> {
    authorization: Authorization,
    /// The hash that was said beforehand.
    said: Option<Digest>,
    bytes: u64,
    room: Room,
    _one_of_many: Place<'a>,
}

fn admit<'a>(
    blobs: &'a Blobs,
    headers: &HeaderMap,
    connection: &Connection,
) -> Result<Admitted<'a>, Refusal> {
    let bytes = number(headers, header::CONTENT_LENGTH).ok_or(Refusal::NoLength)?;
    let authorization = blobs.authorize(headers, Verb::Upload)?;
    let said = said_hash(headers, &authorization)?;
    let address = connection.peer.ip();
    if blobs.lists.banned_key(&authorization.author) {
        return Err(Refusal::Forbidden("your key is banned here"));
    }
    let one_of_many = blobs.uploads.begin(address).ok_or(Refusal::Busy)?;
    let room = blobs.shelf.reserve(authorization.author, bytes)?;
    match blobs.meter.may(address, bytes, clock::now()) {
        true => Ok(Admitted {
            authorization,
            said,
            bytes,
            room,
            _one_of_many: one_of_many,
        }),
        false => Err(Refusal::AddressSpent),
    }
}

/// Reads what is refused, as far as it could have been right: a connection that is closed on bytes that were not read is
/// reset, and the client would never read why.
async fn drain(body: Body, most: u64) {
    let mut sent = body.into_data_stream();
    let mut bytes = 0;
    while let Some(Ok(part)) = sent.next().await {
        bytes += part.len() as u64;
        if bytes > most {
            return;
        }
    }
}

/// Takes in what is sent, which is as much as was said, and not too slowly.
async fn receive(mut draft: Draft, body: Body, bytes: u64) -> Result<Draft, Refusal> {
    let mut sent = body.into_data_stream();
    let began = Instant::now();
    loop {
        let earned = Duration::from_secs(draft.bytes() / SLOWEST);
        match timeout_at(began + AT_LEAST + earned, sent.next()).await {
            Ok(Some(Ok(part))) if draft.bytes() + part.len() as u64 <= bytes => {
                draft.add(&part).await.map_err(failed)?;
            }
            Ok(None) if draft.bytes() == bytes => return Ok(draft),
            _ => return Err(Refusal::BrokenOff),
        }
    }
}

async fn keep(
    blobs: &Blobs,
    draft: Draft,
    admitted: Admitted<'_>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let whole = draft.end().await.map_err(failed)?;
    let hash = whole.hash;
    if admitted.said.is_some_and(|said| said != hash) {
        return Err(Refusal::OtherHash);
    }
    if !admitted.authorization.names(&hash) {
        return Err(NOT_NAMED);
    }
    let (shelf, room) = (blobs.shelf.clone(), admitted.room);
    let is_new = waiting(move || shelf.keep(&whole, room, clock::now()).map_err(failed)).await?;
    let kept = blobs.shelf.find(&hash).ok_or(Refusal::Disk)?;
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let descriptor = blobs.descriptor(headers, &hash, &kept);
    Ok((status, Json(descriptor)).into_response())
}

const NOT_NAMED: Refusal = Refusal::Unauthorized("it does not name this blob (x)");

/// `HEAD /upload` (BUD-06): whether it would be taken.
async fn may_upload(
    State(blobs): State<Arc<Blobs>>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let bytes = number(&headers, CONTENT_LENGTH).ok_or(Refusal::NoLength)?;
    let authorization = blobs.authorize(&headers, Verb::Upload)?;
    said_hash(&headers, &authorization)?.ok_or(Refusal::Malformed("say its hash (X-SHA-256)"))?;
    blobs.shelf.check(&authorization.author, bytes)?;
    Ok(StatusCode::OK)
}

/// `DELETE /<sha256>`.
async fn drop_one(
    State(blobs): State<Arc<Blobs>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let hash = parse_name(&name)?;
    let authorization = blobs.authorize(&headers, Verb::Delete)?;
    if !authorization.names(&hash) {
        return Err(NOT_NAMED);
    }
    let shelf = blobs.shelf.clone();
    waiting(move || shelf.drop_of(&hash, &authorization.author)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
struct Page {
    /// The last blob of the page before.
    cursor: Option<String>,
    limit: Option<usize>,
    since: Option<u64>,
    until: Option<u64>,
}

/// `GET /list/<key>`: for the key itself alone. What others put here is not for everybody to count.
async fn list(
    State(blobs): State<Arc<Blobs>>,
    Path(key): Path<String>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let key = PublicKey::from_hex(&key).map_err(|_| Refusal::Malformed("this is no public key"))?;
    if blobs.authorize(&headers, Verb::List)?.author != key {
        return Err(Refusal::Forbidden("a list is shown to its own key"));
    }
    let shelf = blobs.shelf.clone();
    let mut owned = waiting(move || Ok(shelf.list(&key))).await?;
    let since = Timestamp::from_secs(page.since.unwrap_or(0));
    let until = Timestamp::from_secs(page.until.unwrap_or(u64::MAX));
    owned.retain(|(_, kept)| (since..=until).contains(&kept.uploaded));
    let seen = page.cursor.as_ref().map_or(0, |cursor| {
        let last = owned
            .iter()
            .position(|(hash, _)| hash.to_string() == *cursor);
        last.map_or(owned.len(), |last| last + 1)
    });
    let limit = page.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED);
    let shown = owned.iter().skip(seen).take(limit);
    let shown = shown.map(|(hash, kept)| blobs.descriptor(&headers, hash, kept));
    Ok(Json(shown.collect()))
}

/// The hash that is said beforehand, if one is; it must be one that was signed.
fn said_hash(
    headers: &HeaderMap,
    authorization: &Authorization,
) -> Result<Option<Digest>, Refusal> {
    let Some(said) = headers.get(SHA256) else {
        return Ok(None);
    };
    let malformed = Refusal::Malformed("X-SHA-256 is no hash");
    let said = said.to_str().ok().and_then(|said| said.parse().ok());
    let said = said.ok_or(malformed)?;
    match authorization.names(&said) {
        true => Ok(Some(said)),
        false => Err(NOT_NAMED),
    }
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The hash before an extension. Nothing else of a path ever reaches the disk.
fn parse_name(name: &str) -> Result<Digest, Refusal> {
    let hash = name.split('.').next().unwrap_or_default();
    hash.parse().map_err(|_| Refusal::Unknown)
}

fn failed(error: std::io::Error) -> Refusal {
    tracing::error!(%error, "a blob cannot be written");
    Refusal::Disk
}

/// Waits for the disk where others need not.
async fn waiting<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(Refusal::Disk))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::stream;
    use tokio::time::sleep;

    use super::*;

    /// What becomes of 30 parts of so many bytes, one every ten seconds.
    async fn received(part: usize) -> Result<u64, Refusal> {
        let folder = tempfile::tempdir().unwrap();
        let parts = stream::iter(0..30).then(move |_| async move {
            sleep(Duration::from_secs(10)).await;
            Ok::<_, std::io::Error>(vec![0_u8; part])
        });
        let draft = Draft::begin(folder.path(), 0).await.unwrap();
        let received = receive(draft, Body::from_stream(parts), 30 * part as u64).await;
        received.map(|draft| draft.bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_not_held_by_trickling() {
        assert_eq!(received(1).await, Err(Refusal::BrokenOff));
        let fast_enough = 10 * SLOWEST as usize;
        assert_eq!(received(fast_enough).await, Ok(30 * fast_enough as u64));
    }
}
