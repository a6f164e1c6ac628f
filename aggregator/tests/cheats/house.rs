//! A relay, providers and checkers that behave as told, and an aggregator's checks.

use std::time::{Duration, Instant};

use infernet_aggregator::Bought;
use infernet_aggregator::checks::{Chances, Checks, Finding, Judged, Parts, Policy, Shelf};
use infernet_client::{Client, Options, Request, Route, Summary};
use infernet_protocol::event::{Checkers, Checking, ModelThresholds, V1};
use infernet_protocol::inference::{Dtype, ModelId, Prompt, Sampling};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Generate, Product, Work};
use infernet_protocol::verification::Secret;
use nostr::{Keys, PublicKey, RelayUrl};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::mpsc;

use super::fake::{Fake, MODEL, Role, VECTORS};
use super::toy::THRESHOLDS;

/// Checkers are tried never, unless a test says so.
pub const NEVER: Chances = Chances {
    second_ppm: 0,
    trap_ppm: 0,
    patrol_ppm: 0,
};

/// Everything is checked, by anybody.
pub fn full() -> Policy {
    Policy {
        checking: Checking::Full,
        checkers: Checkers::Market,
        secret: Secret::from_bytes([3; 32]),
        until: Instant::now() + Duration::from_secs(20),
        most: Msat::ZERO,
    }
}

/// All of a newcomer's work, less of others'.
pub fn adaptive() -> Policy {
    Policy {
        checking: Checking::Adaptive { least_ppm: 30_000 },
        ..full()
    }
}

pub struct House {
    _relay: LocalRelay,
    pub fakes: Vec<Fake>,
    pub client: Client,
    pub checks: Checks,
    findings: mpsc::Receiver<Finding>,
    tables: SqlitePool,
    asked: u64,
}

impl House {
    /// All of these roles; the checkers among `own` (by their places) are the owner's.
    pub async fn of(roles: &[Role], own: &[usize], chances: Chances) -> Self {
        Self::of_keys(
            roles.iter().map(|role| (*role, Keys::generate())),
            own,
            chances,
        )
        .await
    }

    pub async fn of_keys(
        roles: impl IntoIterator<Item = (Role, Keys)>,
        own: &[usize],
        chances: Chances,
    ) -> Self {
        let relay = LocalRelay::new(RelayBuilder::default().rate_limit(RateLimit {
            max_reqs: 500,
            notes_per_minute: 1_000_000,
        }));
        relay.run().await.unwrap();
        let url = relay.url().await;
        let mut fakes = Vec::new();
        for (role, keys) in roles {
            fakes.push(Fake::start(&url, role, keys).await);
        }
        let keys = Keys::generate();
        let options = Options::new([url.to_string()]).keys(keys.clone());
        let client = Client::connect(options).await.unwrap();
        // Waits until the relay has said what is on sale.
        client.providers().await.unwrap();
        let own: Vec<_> = own.iter().map(|at| fakes[*at].key()).collect();
        let tables = tables().await;
        let (checks, findings) = open(&client, &keys, own, &url, chances, &tables).await;
        Self {
            _relay: relay,
            fakes,
            client,
            checks,
            findings,
            tables,
            asked: 0,
        }
    }

    pub fn key(&self, at: usize) -> PublicKey {
        self.fakes[at].key()
    }

    /// So many answers of 96 tokens, bought from the provider at this place.
    pub async fn buy(&mut self, at: usize, answers: u64) -> Bought {
        let requests: Vec<_> = (0..answers).map(|_| self.question()).collect();
        let request = Request::shard(MODEL.to_string(), requests.clone()).prove();
        let request = request.checkers(Checkers::Market);
        self.bought(at, request, Work::Shard { requests }, texts)
            .await
    }

    /// The same, where nobody may check.
    pub async fn buy_unchecked(&mut self, at: usize, answers: u64) -> Bought {
        let requests: Vec<_> = (0..answers).map(|_| self.question()).collect();
        let request = Request::shard(MODEL.to_string(), requests.clone());
        let request = request.checkers(Checkers::Nobody);
        self.bought(at, request, Work::Shard { requests }, texts)
            .await
    }

    /// Vectors, bought from the provider at this place.
    pub async fn buy_vectors(&mut self, at: usize) -> Bought {
        let texts = vec!["one".to_owned(), "another".to_owned()];
        let request = Request::embedding(Some(VECTORS.to_string()), &texts);
        let request = request.checkers(Checkers::Market);
        let product = |summary: &Summary| Product::Embedding {
            vectors: summary.vectors.clone(),
        };
        self.bought(at, request, Work::Embedding { texts }, product)
            .await
    }

    async fn bought(
        &self,
        at: usize,
        request: Request,
        work: Work,
        product: impl Fn(&Summary) -> Product,
    ) -> Bought {
        let request = request.route(Route::To {
            provider: self.key(at).to_hex(),
            only: true,
        });
        let answer = self.client.submit(request).await.unwrap();
        let summary = answer.finish().await.unwrap();
        let product = product(&summary);
        let evidence = summary.evidence;
        Bought {
            order: summary.job,
            buyer: Keys::generate().public_key(),
            group: 0,
            provider: summary.provider,
            model: summary.model,
            model_name: summary.model_name,
            award: evidence.award,
            result: evidence.result,
            input_key: evidence.input_key,
            output_key: evidence.output_key,
            work,
            product,
            cost: summary.due_msat,
        }
    }

    /// Buys so many answers from the provider at this place, and has them judged.
    pub async fn judge(&mut self, at: usize, answers: u64) -> Judged {
        let work = self.buy(at, answers).await;
        self.checks.judge(&work, &full()).await.unwrap()
    }

    /// Who was caught beside the providers that were judged.
    pub fn caught(&mut self) -> Vec<PublicKey> {
        let mut caught = Vec::new();
        while let Ok(finding) = self.findings.try_recv() {
            if let Finding::Caught(one) = finding {
                caught.push(one.who);
            }
        }
        caught
    }

    /// Work of the aggregator's own that it knows to be good.
    pub async fn samples(&self) -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM samples");
        count.fetch_one(&self.tables).await.unwrap()
    }

    fn question(&mut self) -> Generate {
        self.asked += 1;
        Generate {
            prompt: Prompt::Text(format!(
                "Question number {} of a test that asks for many tokens of nothing",
                self.asked
            )),
            sampling: Sampling {
                temperature: 1.0,
                seed: self.asked,
                ..Sampling::default()
            },
            max_tokens: 96,
            stop: vec![],
            prefix: vec![],
        }
    }
}

fn texts(summary: &Summary) -> Product {
    Product::Shard {
        answers: summary.texts.clone(),
    }
}

async fn open(
    client: &Client,
    keys: &Keys,
    checkers: Vec<PublicKey>,
    relay: &RelayUrl,
    chances: Chances,
    tables: &SqlitePool,
) -> (Checks, mpsc::Receiver<Finding>) {
    let mut shelf = Shelf::default();
    for model in [MODEL, VECTORS] {
        shelf.put(thresholds(model));
    }
    let parts = Parts {
        client: client.clone(),
        keys: keys.clone(),
        pool: tables.clone(),
        checkers,
        shelf,
        relays: vec![relay.clone()],
        chances,
    };
    Checks::open(parts).await.unwrap()
}

fn thresholds(model: ModelId) -> ModelThresholds {
    ModelThresholds {
        v: V1,
        id: ModelThresholds::id_of(&model, Dtype::Scripted),
        model,
        name: "toy".into(),
        dtype: Dtype::Scripted,
        engine: "toy 1".into(),
        thresholds: THRESHOLDS,
        measured: [].into(),
    }
}

async fn tables() -> SqlitePool {
    let options = SqliteConnectOptions::new().in_memory(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None);
    let pool = pool.connect_with(options).await.unwrap();
    sqlx::migrate!("./migrations").run(&pool).await.unwrap();
    pool
}
