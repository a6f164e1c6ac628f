//! All cheats at once, among honest providers, through a whole aggregator: the buyer has
//! right answers, and the cheats are rated and shut out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infernet_aggregator::{Handle, Options, run, store::Store};
use infernet_client::batch::{Batch, Error, Plan};
use infernet_client::{Client, Options as Buyer};
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::{
    Attestation, Body, Checkers, Checking, Experience, Judgement, Signed, Verdict,
};
use infernet_protocol::inference::{Dtype, Message, ModelId, Prompt, Role as Speaker, Sampling};
use infernet_protocol::kinds;
use infernet_protocol::payload::Generate;
use nostr::{Event, Filter, Keys, Kind, PublicKey};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blobs::BlobServer;
use super::conduct::{Conduct, Eye};
use super::fake::{Fake, MODEL, Role};
use super::toy::{Format, GENUINE};

const LINES: u64 = 60;
const TOKENS: u32 = 80;

const CHEATS: [Conduct; 10] = [
    Conduct::AnotherModel,
    Conduct::Quantised(Format::Bits4),
    Conduct::ProvenGenuinely(Format::Bits4),
    Conduct::MadeUp,
    Conduct::CutShort,
    Conduct::OldResult,
    Conduct::PromptShortened,
    Conduct::OtherSeed,
    Conduct::HonestAtFirst,
    Conduct::OtherText,
];

fn question(line: u64) -> String {
    format!("What does line {line} of this file want to know?")
}

/// What the model that was ordered says to a line.
fn right(line: u64) -> String {
    let request = Generate {
        prompt: Prompt::Chat(vec![Message {
            role: Speaker::User,
            content: question(line),
        }]),
        sampling: Sampling {
            temperature: 1.0,
            seed: line,
            ..Sampling::default()
        },
        max_tokens: TOKENS,
        stop: vec![],
        prefix: vec![],
    };
    GENUINE.answer(&request).text
}

fn write(path: &Path) {
    let line = |line: u64| {
        let body = json!({
            "model": "toy",
            "messages": [{"role": "user", "content": question(line)}],
            "max_tokens": TOKENS,
            "temperature": 1.0,
            "seed": line,
        });
        json!({
            "custom_id": format!("line-{line}"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        })
        .to_string()
    };
    let lines: Vec<_> = (0..LINES).map(line).collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// A batch that is checked in full by the aggregator's own checkers.
async fn batch(client: Client, folder: &Path) -> Batch {
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write(&input);
    let plan = Plan {
        input,
        output,
        model: None,
        aggregator: None,
        checkers: Checkers::Aggregator,
        checking: Checking::Full,
        deadline: Some(Duration::from_secs(600)),
        max_price: None,
        max_cost: None,
    };
    Batch::open(client, plan).await.unwrap()
}

/// Has the file done.
async fn order(client: Client, folder: &Path) {
    let mut batch = batch(client, folder).await;
    let quote = batch.quote().await.unwrap();
    batch.order(&quote).await.unwrap();
    let (news, _heard) = mpsc::unbounded_channel();
    batch.run(news, CancellationToken::new()).await.unwrap();
}

async fn stored<B: Body>(reader: &Fake, kind: u16) -> Vec<Signed<B>> {
    let filter = Filter::new().kind(Kind::from(kind));
    let fetched = reader.link.fetch(vec![filter], Duration::from_secs(20));
    let events: Vec<Event> = fetched.await.unwrap();
    let read = |event| Signed::<B>::verify(event).unwrap();
    events.into_iter().map(read).collect()
}

/// A relay, a blob server, an aggregator with these checkers, and a buyer.
struct Place {
    relay: LocalRelay,
    blobs: BlobServer,
    folder: TempDir,
}

impl Place {
    async fn new() -> Self {
        let relay = LocalRelay::new(RelayBuilder::default().rate_limit(RateLimit {
            max_reqs: 500,
            notes_per_minute: 1_000_000,
        }));
        relay.run().await.unwrap();
        Self {
            relay,
            blobs: BlobServer::start().await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn fake(&self, role: Role) -> Fake {
        Fake::start(&self.relay.url().await, role, Keys::generate()).await
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    async fn aggregator(&self, checkers: Vec<PublicKey>, shutdown: &Shutdown) -> Handle {
        let relays = vec![self.relay.url().await];
        let mut options = Options::new(Keys::generate(), self.home(), relays);
        options.blobs = vec![self.blobs.url.parse().unwrap()];
        options.checkers = checkers;
        options.limits.shard_tokens = 256;
        let aggregator = run(options, shutdown.clone()).await.unwrap();
        aggregator.announced().await;
        aggregator
    }

    async fn buyer(&self) -> Client {
        let mut buyer = Buyer::new([self.relay.url().await.to_string()]);
        buyer.blobs = vec![self.blobs.url.parse().unwrap()];
        Client::connect(buyer).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_check_is_not_quoted() {
    let place = Place::new().await;
    let _honest = place.fake(Role::Writer(Conduct::Honest(Format::F32))).await;
    let _stranger = place.fake(Role::Checker(Eye::Honest)).await;
    let shutdown = Shutdown::new();
    let aggregator = place.aggregator(vec![], &shutdown).await;
    let mut batch = batch(place.buyer().await, place.folder.path()).await;
    let Err(Error::Refused(why)) = batch.quote().await else {
        panic!("the stranger is no checker of the aggregator's")
    };
    assert!(why.contains("--checkers market"), "{why}");
    shutdown.stop_now();
    aggregator.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_buyer_has_right_answers_and_the_cheats_are_shut_out() {
    let place = Place::new().await;
    let mut cheats = Vec::new();
    for conduct in CHEATS {
        cheats.push(place.fake(Role::Writer(conduct)).await);
    }
    let honest = place.fake(Role::Writer(Conduct::Honest(Format::F32))).await;
    let unknown = ModelId::from_bytes([9; 32]);
    let pretenders = [
        place.fake(Role::Pretender(unknown, Dtype::Scripted)).await,
        place.fake(Role::Pretender(MODEL, Dtype::Int4)).await,
    ];
    let checker = place.fake(Role::Checker(Eye::Honest)).await;
    let shutdown = Shutdown::new();
    let aggregator = place.aggregator(vec![checker.key()], &shutdown).await;
    let folder = &place.folder;
    order(place.buyer().await, folder.path()).await;

    let answers = std::fs::read_to_string(folder.path().join("out.jsonl")).unwrap();
    let answers: Vec<Value> = answers
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(answers.len() as u64, LINES);
    for (line, answer) in (0..).zip(&answers) {
        let text = &answer["response"]["body"]["choices"][0]["message"]["content"];
        assert_eq!(text.as_str(), Some(right(line).as_str()), "{answer}");
    }

    shutdown.stop_soon();
    aggregator.ended().await;
    let rejected: HashSet<PublicKey> = stored::<Verdict>(&honest, kinds::VERDICT)
        .await
        .iter()
        .filter(|verdict| verdict.judgement == Judgement::Rejected)
        .map(|verdict| verdict.provider)
        .collect();
    let rated: HashSet<PublicKey> = stored::<Attestation>(&honest, kinds::ATTESTATION)
        .await
        .iter()
        .filter(|rating| rating.experience == Experience::Rejected)
        .map(|rating| rating.provider)
        .collect();
    let store = Store::open(&infernet_aggregator::home::store(&place.home()))
        .await
        .unwrap();
    let bans = store.bans().await.unwrap();
    let banned: HashSet<PublicKey> = bans.iter().map(|ban| ban.provider).collect();
    let tried = cheats.iter().filter(|cheat| cheat.jobs() > 0);
    let tried: HashSet<PublicKey> = tried.map(Fake::key).collect();
    assert!(
        tried.len() >= 5,
        "only {} cheats were bought from",
        tried.len()
    );
    assert!(honest.jobs() > 0);
    // What could only come out inconclusive, and be paid, is not bought.
    assert_eq!(pretenders.map(|pretender| pretender.jobs()), [0, 0]);
    assert_eq!(rejected, tried);
    assert_eq!(rated, tried);
    assert_eq!(banned, tried);
}
