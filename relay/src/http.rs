//! What the port answers to HTTP: a page, the NIP-11 document, `/health`, `/metrics`, the operator (NIP-86), and the
//! way into a websocket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::TokioIo;
use nostr::EventId;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address;
use crate::admission::Refusal;
use crate::blobs::{self, Blobs};
use crate::document::document;
use crate::lists::Lists;
use crate::management::{self, Management};
use crate::metrics::{self, Metrics};
use crate::options::Options;
use crate::page::page;
use crate::session::Sessions;
use crate::store::Store;

/// The media type that asks for the NIP-11 document.
const NOSTR_JSON: &str = "application/nostr+json";

/// How long a request of the operator's may take to come: anybody may begin one.
const ASKED_WITHIN: Duration = Duration::from_secs(10);

/// The one version of the websocket protocol (RFC 6455).
const WEBSOCKET_VERSION: &str = "13";

/// What the answers are made of.
pub struct Site {
    /// What the operator set.
    pub options: Options,
    /// Where events lie, to see whether it can be read.
    pub store: Arc<Store>,
    /// What the operator decided since.
    pub lists: Arc<Lists>,
    /// What the operator asks from afar.
    pub management: Management,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Places for websockets.
    pub places: Arc<Semaphore>,
    /// Who serves them.
    pub sessions: Sessions,
    /// What answers about blobs, if these are served.
    pub blobs: Option<Arc<Blobs>>,
    /// Holds each websocket's task.
    pub tasks: TaskTracker,
    /// Ends each websocket's task at once.
    pub abort: CancellationToken,
}

/// One connection, as its requests know it.
#[derive(Clone)]
pub struct Connection {
    /// Who is at the other end; for the routes, behind the operator's proxies.
    pub peer: SocketAddr,
}

/// The routes. Each connection lays its [`Connection`] over them.
pub fn router(site: Arc<Site>) -> Router {
    let blobs = site.blobs.clone().map(blobs::router).unwrap_or_default();
    Router::new()
        .route("/", any(root))
        .route("/health", get(health))
        .route("/metrics", get(local_metrics))
        .with_state(site.clone())
        .merge(blobs)
        .layer(from_fn_with_state(site, from_the_client))
        .layer(map_response(one_request))
}

/// The route of a port of its own, for whoever reaches that.
pub fn metrics_router(metrics: Arc<Metrics>) -> Router {
    let scrape = get(async |State(metrics): State<Arc<Metrics>>| scraped(&metrics));
    Router::new()
        .route("/metrics", scrape)
        .with_state(metrics)
        .layer(map_response(one_request))
}

/// Ends the connection after one answer, unless it becomes a websocket: nobody asks HTTP here twice, and places are
/// few.
async fn one_request(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Sees the client behind its proxies, of whom alone the rest hears, and sends off whom the operator blocks.
async fn from_the_client(
    State(site): State<Arc<Site>>,
    Extension(connection): Extension<Connection>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = connection.peer;
    let client = address::client(peer.ip(), request.headers(), &site.options.proxies);
    if site.lists.blocked_address(client) {
        site.metrics.connection_refused("blocked");
        return (StatusCode::FORBIDDEN, "your address is blocked here\n").into_response();
    }
    let peer = SocketAddr::new(client, peer.port());
    request.extensions_mut().insert(Connection { peer });
    next.run(request).await
}

async fn root(
    State(site): State<Arc<Site>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let headers = request.headers();
    if names(headers, header::UPGRADE, "websocket") {
        return upgrade(site, connection, request);
    }
    let mut response = if names(headers, header::CONTENT_TYPE, management::MEDIA_TYPE) {
        manage(&site, request).await
    } else if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else if names(headers, header::ACCEPT, NOSTR_JSON) {
        let document = document(&site.options, &site.lists.face());
        let kind = [(header::CONTENT_TYPE, NOSTR_JSON)];
        (kind, document.to_string()).into_response()
    } else {
        Html(page(&site.options, &site.lists.face(), host(headers))).into_response()
    };
    // NIP-11 wants pages of other sites to be able to read it, and NIP-86 is asked by such pages.
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, *"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "*"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Asks the relay what its operator wants of it.
async fn manage(site: &Site, request: Request) -> Response {
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, "send it by POST\n").into_response();
    }
    let (head, body) = request.into_parts();
    let body = match timeout(ASKED_WITHIN, to_bytes(body, management::MAX_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return (StatusCode::PAYLOAD_TOO_LARGE, "this is too long\n").into_response(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "this takes too long\n").into_response(),
    };
    let (status, said) = site.management.answer(&head.headers, &body).await;
    let kind = [(header::CONTENT_TYPE, management::MEDIA_TYPE)];
    (status, kind, said.to_string()).into_response()
}

async fn local_metrics(
    State(site): State<Arc<Site>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let is_local = address::is_local(connection.peer.ip(), request.headers());
    match is_local || site.options.public_metrics {
        true => scraped(&site.metrics),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

fn scraped(metrics: &Metrics) -> Response {
    let kind = [(header::CONTENT_TYPE, metrics::MEDIA_TYPE)];
    (kind, metrics.scrape()).into_response()
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    match site.store.has(&EventId::all_zeros()) {
        Ok(_) => "ok\n".into_response(),
        Err(error) => {
            tracing::error!(%error, "the store cannot be read");
            let said = "the store cannot be read\n";
            (StatusCode::SERVICE_UNAVAILABLE, said).into_response()
        }
    }
}

/// Answers 101 and hands the connection to a session.
fn upgrade(site: Arc<Site>, connection: Connection, mut request: Request) -> Response {
    let headers = request.headers();
    let is_handshake = request.method() == Method::GET
        && request.version() >= Version::HTTP_11
        && names(headers, header::CONNECTION, "upgrade");
    if !is_handshake {
        return (StatusCode::BAD_REQUEST, "no websocket handshake\n").into_response();
    }
    if !names(headers, header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION) {
        let version = [(header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION)];
        return (StatusCode::UPGRADE_REQUIRED, version).into_response();
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return (StatusCode::BAD_REQUEST, "no Sec-WebSocket-Key\n").into_response();
    };
    let accept = derive_accept_key(key.as_bytes());
    let Ok(place) = site.places.clone().try_acquire_owned() else {
        site.metrics.connection_refused("full");
        return full();
    };
    let peer = connection.peer;
    let admitted = match site.sessions.admit(peer.ip()) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            site.metrics.connection_refused(refusal.prefix());
            return unwelcome(&refusal);
        }
    };
    let host = host(headers).to_owned();
    let upgraded = hyper::upgrade::on(&mut request);
    site.tasks.clone().spawn(async move {
        let session = async {
            match upgraded.await {
                Ok(transport) => {
                    let transport = TokioIo::new(transport);
                    site.sessions.serve(transport, peer, &host).await;
                }
                Err(error) => tracing::debug!(%error, "no websocket after all"),
            }
        };
        tokio::select! {
            () = session => {}
            () = site.abort.cancelled() => {}
        }
        drop((place, admitted));
    });
    switching(&accept)
}

fn switching(accept: &str) -> Response {
    let switching = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, switching, Body::empty()).into_response()
}

/// One address has its share of the connections.
fn unwelcome(refusal: &Refusal) -> Response {
    let status = match refusal.prefix() {
        "rate-limited" => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::FORBIDDEN,
    };
    (status, format!("{refusal}\n")).into_response()
}

fn full() -> Response {
    let later = [(header::RETRY_AFTER, "60")];
    let said = "this relay has as many connections as it takes; try again in a minute\n";
    (StatusCode::SERVICE_UNAVAILABLE, later, said).into_response()
}

/// Whether one of the header's comma-separated values is `value`, parameters aside.
fn names(headers: &HeaderMap, name: header::HeaderName, value: &str) -> bool {
    let values = headers.get_all(name);
    let mut values = values.iter().filter_map(|value| value.to_str().ok());
    values.any(|values| {
        values
            .split(',')
            .filter_map(|one| one.split(';').next())
            .any(|one| one.trim().eq_ignore_ascii_case(value))
    })
}

/// What the client calls this relay.
pub fn host(headers: &HeaderMap) -> &str {
    let host = headers.get(header::HOST);
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}
