//! How the client fares with servers that are slow, wrong or not there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::any;
use infernet_blobs::{Address, Blobs, Error, Failure};
use infernet_protocol::batch::Blob;
use nostr::Keys;
use tokio::net::TcpListener;

const BYTES: &[u8] = b"encrypted bytes";

/// A server that answers its requests, by their numbers, as it is told.
struct Server {
    address: Address,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start<R: IntoResponse>(
        answer: impl Fn(usize) -> R + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let respond = move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let answer = answer(number).into_response();
            async move { answer }
        };
        let router = Router::new().fallback(any(respond));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            address: address.parse().unwrap(),
            asked,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn blobs(servers: &[&Server]) -> Blobs {
    let servers = servers.iter().map(|server| server.address.clone());
    Blobs::new(servers.collect(), Keys::generate())
}

fn at(servers: &[&Server]) -> Blob {
    let servers = servers.iter().map(|server| server.address.to_string());
    Blob::of(BYTES, servers.collect())
}

#[tokio::test]
async fn a_blob_is_had_from_whoever_has_it() {
    let gone = Server::start(|_| StatusCode::NOT_FOUND).await;
    let lies = Server::start(|_| "other bytes....").await;
    let good = Server::start(|_| BYTES).await;
    let servers = [&gone, &lies, &good];
    assert_eq!(blobs(&servers).get(&at(&servers)).await.unwrap(), BYTES);
    assert_eq!([gone.asked(), lies.asked()], [1, 1]);
    let Err(Error::NotHad(failures)) = blobs(&[&gone, &lies]).get(&at(&[])).await else {
        panic!("nobody has it");
    };
    let failures: Vec<Failure> = failures.into_iter().map(|(_, failure)| failure).collect();
    assert!(matches!(
        &failures[..],
        [Failure::Refused { status: 404, .. }, Failure::Other]
    ));
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let busy = Server::start(|number| match number {
        0 => Err(StatusCode::SERVICE_UNAVAILABLE),
        _ => Ok(BYTES),
    })
    .await;
    assert_eq!(blobs(&[&busy]).get(&at(&[&busy])).await.unwrap(), BYTES);
    assert_eq!(busy.asked(), 2);
}

#[tokio::test]
async fn an_endless_answer_is_left_at_the_promised_size() {
    let endless = Server::start(|_| {
        let parts = std::iter::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 65_536]));
        Body::from_stream(futures::stream::iter(parts))
    })
    .await;
    let Err(Error::NotHad(failures)) = blobs(&[&endless]).get(&at(&[&endless])).await else {
        panic!("it is not what was promised");
    };
    assert_eq!(failures[0].1, Failure::Other);
}

#[tokio::test]
async fn nobody_is_followed_and_strangers_are_not_asked_in_the_clear() {
    let inside = Server::start(|_| BYTES).await;
    let address = inside.address.to_string();
    let redirects = Server::start(move |_| {
        (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, address.clone())],
        )
    })
    .await;
    blobs(&[&redirects])
        .get(&at(&[&redirects]))
        .await
        .unwrap_err();
    assert_eq!(blobs(&[]).get(&at(&[&inside])).await, Err(Error::NotAsked));
    assert_eq!(inside.asked(), 0);
}

#[tokio::test]
async fn a_blob_is_put_on_two_servers_that_take_it() {
    let refuses = Server::start(|_| StatusCode::PAYLOAD_TOO_LARGE).await;
    let [one, two, spare] = [
        Server::start(|_| StatusCode::CREATED).await,
        Server::start(|_| StatusCode::OK).await,
        Server::start(|_| StatusCode::CREATED).await,
    ];
    let blob = blobs(&[&refuses, &one, &two, &spare])
        .put(BYTES)
        .await
        .unwrap();
    assert!(blob.is_of(BYTES));
    let mut kept = blob.servers;
    kept.sort();
    let mut expected = [one.address.to_string(), two.address.to_string()];
    expected.sort();
    assert_eq!(kept, expected);
    assert_eq!(spare.asked(), 0);
}

#[tokio::test]
async fn servers_that_keep_no_blobs_are_remembered() {
    let relay = Server::start(|_| StatusCode::NOT_FOUND).await;
    let blobs = blobs(&[&relay]);
    assert!(blobs.can_put() && !blobs.has_put());
    assert!(matches!(blobs.put(BYTES).await, Err(Error::NotPut(_))));
    assert!(!blobs.can_put());
    let server = Server::start(|_| StatusCode::CREATED).await;
    let blobs = self::blobs(&[&server]);
    blobs.put(BYTES).await.unwrap();
    assert!(blobs.can_put() && blobs.has_put());
    assert_eq!(self::blobs(&[]).put(BYTES).await, Err(Error::NoServer));
    let bytes = vec![0; 16 * 1024 * 1024 + 1];
    assert!(matches!(
        blobs.put(bytes).await,
        Err(Error::TooLarge { .. })
    ));
}
