//! Inputs and outputs that no event carries: they lie on a Blossom server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, put};
use infernet_blobs::Blobs;
use infernet_engine::Script;
use infernet_protocol::bounds::MAX_PAYLOAD_BYTES;
use infernet_protocol::event::{Announcement, Award, JobResult, Judgement, Signed, Verdict};
use infernet_protocol::payload::{
    Check, Decline, Generated, Output, Payload, PayloadKey, Product, Work,
};
use infernet_protocol::seal::{Digest, Domain, Sealed, salted_hash};
use nostr::secp256k1::rand::rngs::OsRng;
use serde_json::json;
use tokio::net::TcpListener;

use super::buyer::{Buyer, Draft, Heard};
use super::checks::THRESHOLDS;
use super::house::{Provider, Relay, quick};
use super::shards::{answers_of, request};

/// What a server has, by name.
type Kept = Arc<Mutex<HashMap<String, Bytes>>>;

/// A Blossom server in memory; it ends with the test.
struct Server {
    url: String,
    kept: Kept,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Kept::default();
        let app = Router::new()
            .route("/upload", put(upload))
            .route("/{name}", get(download))
            .layer(DefaultBodyLimit::max(32 << 20))
            .with_state((kept.clone(), url.clone()));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, kept }
    }

    /// Changes a byte of all that it has.
    fn spoil(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for bytes in kept.values_mut() {
            let mut spoilt = bytes.to_vec();
            let middle = spoilt.len() / 2;
            spoilt[middle] ^= 1;
            *bytes = spoilt.into();
        }
    }
}

async fn upload(State((kept, url)): State<(Kept, String)>, body: Bytes) -> Json<serde_json::Value> {
    let (name, size) = (Digest::of(&body).to_string(), body.len());
    kept.lock().unwrap().insert(name.clone(), body);
    Json(json!({
        "url": format!("{url}/{name}"), "sha256": name, "size": size,
        "type": "application/octet-stream", "uploaded": 1,
    }))
}

async fn download(
    State((kept, _)): State<(Kept, String)>,
    Path(name): Path<String>,
) -> Result<Bytes, StatusCode> {
    let kept = kept.lock().unwrap();
    kept.get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}

struct Market {
    relay: Relay,
    server: Server,
    _provider: Provider,
    buyer: Buyer,
    blobs: Blobs,
    word: Signed<Announcement>,
}

/// Says a thousand long words.
fn wordy() -> Script {
    Script {
        text: vec!["abcdefghijklmnopqrst"; 1_000].join(" "),
        tokens_per_second: 1_000_000.0,
        ..quick()
    }
}

impl Market {
    async fn open() -> Self {
        let relay = Relay::start().await;
        let server = Server::start().await;
        let provider = provider(&relay, &server).await;
        let mut buyer = Buyer::connect(&[&relay]).await;
        let word = buyer.online(provider.handle.public_key()).await;
        let blobs = Blobs::new(vec![server.url.parse().unwrap()], buyer.keys.clone());
        Self {
            relay,
            server,
            _provider: provider,
            buyer,
            blobs,
            word,
        }
    }

    /// Texts whose prompts alone are more than an event carries.
    fn draft(&self, texts: usize) -> Draft {
        let long = "q".repeat(30_000);
        let requests = (0..texts).map(|n| request(&format!("{n} {long}"), 300));
        let requests = requests.collect();
        let mut draft = self.buyer.draft(&self.word, Work::Shard { requests });
        draft.body.limits.output_tokens = 100_000;
        draft.input.prove = true;
        draft
    }

    /// An award whose input is in a blob.
    async fn parcelled(&self, draft: Draft) -> Signed<Award> {
        let Draft {
            mut body,
            input,
            created_at,
        } = draft;
        let bytes = input.to_bytes();
        assert!(bytes.len() > MAX_PAYLOAD_BYTES);
        let (keys, about) = (&self.buyer.keys, body.basis.word().id);
        body.input_hash = salted_hash(Domain::Input, &input.salt, &about, &keys.public_key, &bytes);
        let outsized =
            Sealed::close_outsized(&bytes, keys.secret_key(), &body.provider, &mut OsRng).unwrap();
        let blob = self.blobs.put(outsized.bytes().to_vec()).await.unwrap();
        body.input = outsized.lies_in(blob);
        self.buyer.sign(Draft {
            body,
            input,
            created_at,
        })
    }

    async fn publish(&self, award: &Signed<Award>) {
        self.buyer.link.publish(award.event()).await.unwrap();
    }

    async fn result(&mut self, award: &Signed<Award>) -> Signed<JobResult> {
        let id = award.id();
        let of_it = |heard: &Heard| match heard {
            Heard::Result(result) if result.award == id => Some((**result).clone()),
            _ => None,
        };
        self.buyer.wait(of_it).await
    }

    /// What is in a result's blob.
    async fn answers(&self, result: &Signed<JobResult>) -> Vec<Generated> {
        let blob = result.output.blob.as_ref().expect("it is in a blob");
        let fetched = self.blobs.get(blob).await.unwrap();
        let (own, provider) = (self.buyer.keys.secret_key(), result.author());
        let bytes = result.output.open_fetched(fetched, own, &provider).unwrap();
        assert!(bytes.len() > MAX_PAYLOAD_BYTES);
        let output = Output::from_bytes(&bytes).unwrap();
        let hash = salted_hash(
            Domain::Output,
            &output.salt,
            &result.award,
            &provider,
            &bytes,
        );
        assert_eq!(hash, result.output_hash);
        assert!(output.proofs.iter().all(|proof| !proof.0.is_empty()));
        answers_of(output.product)
    }
}

async fn provider(relay: &Relay, server: &Server) -> Provider {
    let address = server.url.parse().unwrap();
    Provider::start(&[relay], wordy(), |options| {
        options.verify = true;
        options.blobs = vec![address];
    })
    .await
}

#[tokio::test]
async fn a_shard_comes_and_goes_in_blobs() {
    let mut market = Market::open().await;
    let award = market.parcelled(market.draft(5)).await;
    market.publish(&award).await;
    let result = market.result(&award).await;
    assert_eq!(result.usage.output_tokens, 1_500);
    let answers = market.answers(&result).await;
    assert!(answers.iter().all(|answer| answer.tokens.len() == 300));
}

#[tokio::test]
async fn what_lies_in_blobs_is_checked_too() {
    let mut market = Market::open().await;
    let award = market.parcelled(market.draft(5)).await;
    market.publish(&award).await;
    let result = market.result(&award).await;
    let checker = provider(&market.relay, &market.server).await;
    let word = market.buyer.online(checker.handle.public_key()).await;
    let key = |sealed: &Sealed| {
        let key = sealed.unwrap_key(market.buyer.keys.secret_key(), &award.provider);
        PayloadKey::from_bytes(key.unwrap())
    };
    let check = Check {
        award: Box::new(award.event().clone()),
        result: Box::new(result.event().clone()),
        input_key: key(&award.input),
        output_key: key(&result.output),
    };
    // So many events are more than one carries.
    let checks = vec![check; 8];
    let thresholds = THRESHOLDS;
    let draft = market
        .buyer
        .draft(&word, Work::Verify { checks, thresholds });
    let judging = market.parcelled(draft).await;
    market.publish(&judging).await;
    let (_, product) = market.buyer.result(&judging).await;
    let Product::Verify { verdicts } = product else {
        panic!("these are no verdicts");
    };
    assert_eq!(verdicts.len(), 8);
    for verdict in verdicts {
        let verdict = Signed::<Verdict>::verify(verdict).unwrap();
        assert_eq!(verdict.judgement, Judgement::Accepted);
        assert_eq!(verdict.figures["greedy.tokens"], 1_500.0);
    }
}

#[tokio::test]
async fn what_cannot_be_fetched_whole_is_declined() {
    let mut market = Market::open().await;
    let award = market.parcelled(market.draft(5)).await;
    market.server.spoil();
    market.publish(&award).await;
    assert_eq!(market.buyer.declined(award.id()).await, Decline::Input);
    market.server.kept.lock().unwrap().clear();
    let mut other = market.draft(4);
    other.input.prove = false;
    let other = market.parcelled(other).await;
    market.server.kept.lock().unwrap().clear();
    market.publish(&other).await;
    assert_eq!(market.buyer.declined(other.id()).await, Decline::Input);
}
