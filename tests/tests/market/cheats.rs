//! A reseller among honest providers: it sells a real model's answers to questions that
//! it has altered, with genuine text, tokens and proofs. It is caught by providers that
//! compute them again.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infernet_client::{Client, Options, Request, Route, Summary};
use infernet_protocol::event::{
    AnnouncedModel, Announcement, Award, Body, JobResult, Load, Private, Promise, Signed, Verdict,
};
use infernet_protocol::inference::{Prompt, Task};
use infernet_protocol::kinds;
use infernet_protocol::payload::{
    Generate, Input, News, Output, Payload as _, Product, Progress, Work,
};
use infernet_protocol::seal::{Conversation, Domain, Salt, Sealed, salted_hash, whisper};
use infernet_tests::Market;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, Filter, Keys, Kind, Timestamp};
use nostr_sdk::{Client as Sdk, RelayPoolNotification};
use serde_json::{Value, json};

use crate::{SMOLLM2, model};

const LINES: u64 = 6;
const SOON: Duration = Duration::from_secs(60);

/// What it does to each question before it asks somebody else.
type Cheat = fn(&mut Generate);

/// Sells an honest provider's answers to altered questions.
#[derive(Clone)]
struct Reseller {
    keys: Keys,
    nostr: Sdk,
    buyer: Client,
    honest: Signed<Announcement>,
    cheat: Cheat,
    sold: Arc<Mutex<usize>>,
}

impl Reseller {
    /// Announces what the honest provider sells, but faster.
    async fn open(market: &Market, cheat: Cheat) -> Self {
        let keys = Keys::generate();
        let nostr = Sdk::new(keys.clone());
        nostr.add_relay(&market.relay.url).await.unwrap();
        nostr.connect().await;
        nostr.wait_for_connection(SOON).await;
        let buyer = Client::connect(Options::new([market.relay.url.clone()])).await;
        let buyer = buyer.unwrap();
        let honest = buyer.providers().await.unwrap().remove(0).announcement;
        let reseller = Self {
            keys,
            nostr,
            buyer,
            honest,
            cheat,
            sold: Arc::default(),
        };
        let filter = Filter::new()
            .kind(Kind::from(kinds::AWARD))
            .pubkey(reseller.keys.public_key())
            .since(now());
        let mut heard = reseller.nostr.notifications();
        reseller.nostr.subscribe(filter, None).await.unwrap();
        let announcement = reseller.announcement();
        reseller.publish(&announcement).await;
        let selling = reseller.clone();
        tokio::spawn(async move {
            while let Ok(notification) = heard.recv().await {
                if let RelayPoolNotification::Event { event, .. } = notification {
                    let award = Signed::<Award>::verify(*event).unwrap();
                    tokio::spawn(selling.clone().work(award));
                }
            }
        });
        reseller
    }

    fn announcement(&self) -> Announcement {
        let mut models = self.honest.models.clone();
        models.retain(|model| model.task == Task::TextGeneration);
        let fast = |model: AnnouncedModel| AnnouncedModel {
            promise: Promise {
                first_token_ms: 10,
                tokens_per_s: 10_000.0,
            },
            continues: false,
            ..model
        };
        Announcement {
            name: "bargain".into(),
            models: models.into_iter().map(fast).collect(),
            load: Load::default(),
            expires_at: now() + 600,
            ..(*self.honest).clone()
        }
    }

    fn sign(&self, body: &impl Body) -> Event {
        let unsigned = body.to_unsigned(self.keys.public_key(), now());
        unsigned.sign_with_keys(&self.keys).unwrap()
    }

    async fn publish(&self, body: &impl Body) {
        self.nostr.send_event(&self.sign(body)).await.unwrap();
    }

    async fn work(self, award: Signed<Award>) {
        self.say(&award, News::Accepted { ahead: 0 }).await;
        let own = self.keys.secret_key();
        let input = award.input.open(own, &award.author()).unwrap();
        let input = Input::from_bytes(&input).unwrap();
        let Work::Shard { mut requests } = input.work else {
            return;
        };
        requests.iter_mut().for_each(self.cheat);
        let request = Request::shard(award.model.to_string(), requests)
            .route(Route::To {
                provider: self.honest.author().to_hex(),
                only: true,
            })
            .prove();
        let bought = self.buyer.submit(request).await.unwrap().finish();
        let alive = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.say(&award, News::Alive { ahead: 0 }).await;
            }
        };
        let bought = tokio::select! {
            bought = bought => bought,
            () = alive => unreachable!("it is alive for ever"),
        };
        *self.sold.lock().unwrap() += 1;
        self.publish(&self.result(&award, bought.unwrap())).await;
    }

    async fn say(&self, award: &Signed<Award>, news: News) {
        let progress = Progress {
            award: award.id(),
            tab: None,
            news,
        };
        let own = self.keys.secret_key();
        let between = Conversation::between(own, &award.author()).unwrap();
        let private = Private {
            kind: kinds::PROGRESS,
            job: award.job_id(),
            reader: award.author(),
            content: whisper(&between, &progress.to_bytes(), &mut OsRng).unwrap(),
        };
        let unsigned = private.to_unsigned(self.keys.public_key(), now());
        let event = unsigned.sign_with_keys(&self.keys).unwrap();
        self.nostr.send_event(&event).await.unwrap();
    }

    /// What checkers said of its work.
    async fn verdicts(&self) -> Vec<Verdict> {
        let filter = Filter::new()
            .kind(Kind::from(kinds::VERDICT))
            .pubkey(self.keys.public_key());
        let events = self.nostr.fetch_events(filter, SOON).await.unwrap();
        let read = |event| (*Signed::<Verdict>::verify(event).unwrap()).clone();
        events.into_iter().map(read).collect()
    }

    /// What was bought, as its own work.
    fn result(&self, award: &Signed<Award>, bought: Summary) -> JobResult {
        let evidence = &bought.evidence;
        let theirs = evidence
            .result
            .output
            .open_with(evidence.output_key.as_bytes());
        let output = Output {
            salt: Salt::from_bytes([7; 32]),
            product: Product::Shard {
                answers: bought.texts,
            },
            proofs: Output::from_bytes(&theirs.unwrap()).unwrap().proofs,
        };
        let bytes = output.to_bytes();
        let (own, reader) = (&self.keys, award.author());
        let (salt, author) = (&output.salt, own.public_key());
        JobResult {
            job: award.job_id(),
            award: award.id(),
            buyer: reader,
            attempt: award.attempt,
            output_hash: salted_hash(Domain::Output, salt, &award.id(), &author, &bytes),
            output: Sealed::close(&bytes, own.secret_key(), &reader, &mut OsRng).unwrap(),
            ..(*evidence.result).clone()
        }
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn write(path: &Path) {
    let line = |line: u64| {
        let question = format!("Write two sentences about the number {line} and the sea.");
        json!({
            "custom_id": format!("line-{line}"),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "SmolLM2-135M-Instruct",
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 32,
                "temperature": 1.0,
                "seed": line,
            },
        })
    };
    let lines = (0..LINES).map(|n| format!("{}\n", line(n)));
    std::fs::write(path, lines.collect::<String>()).unwrap();
}

/// A batch with this reseller and two honest providers that check each other: the
/// reseller sells, is found out, and nothing of its work is handed over.
async fn is_caught(test: &str, cheat: Cheat) {
    let Some(smollm2) = model(test, SMOLLM2) else {
        return;
    };
    let market = Market::open().unwrap();
    let honest = [
        "--model",
        smollm2.to_str().unwrap(),
        "--threads",
        "1",
        "--verify",
    ];
    let _alpha = market.provider("alpha", &honest).unwrap();
    let reseller = Reseller::open(&market, cheat).await;
    let _beta = market.provider("beta", &honest).unwrap();
    let aggregator = market
        .aggregator("aggregator", &["--shard-tokens", "300"])
        .unwrap();
    let folder = market.folder("files");
    std::fs::create_dir_all(&folder).unwrap();
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    write(&input);
    let client = market.client("buyer");
    let arguments = [
        "batch",
        input.to_str().unwrap(),
        "-o",
        output.to_str().unwrap(),
        "--yes",
        "--checking",
        "full",
        "--checkers",
        "market",
    ];
    let run = tokio::task::block_in_place(|| client.run(&arguments)).unwrap();
    assert!(run.status.success(), "{}", run.stderr);
    let text = std::fs::read_to_string(&output).unwrap();
    for line in text.lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    }
    assert_eq!(text.lines().count() as u64, LINES);
    assert!(*reseller.sold.lock().unwrap() > 0, "nobody bought of it");
    let said = reseller.verdicts().await;
    let providers = aggregator.ask("providers").unwrap();
    for provider in providers.as_array().unwrap() {
        let is_cheat = provider["name"] == "bargain";
        assert_eq!(
            provider["banned"].is_null(),
            !is_cheat,
            "{provider} {said:#?}"
        );
        assert_eq!(
            provider["rejected"].as_u64() > Some(0),
            is_cheat,
            "{provider}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shortens_the_prompt_is_caught() {
    is_caught("who_shortens_the_prompt_is_caught", |question| {
        let Prompt::Chat(messages) = &mut question.prompt else {
            return;
        };
        let words = &mut messages[0].content;
        words.truncate(words.len() / 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_draws_with_another_seed_is_caught() {
    is_caught("who_draws_with_another_seed_is_caught", |question| {
        question.sampling.seed += 1_000;
    })
    .await;
}
