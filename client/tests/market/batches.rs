//! Batches: files in, files out, with an aggregator that does the work itself.

use std::path::PathBuf;

use infernet_client::batch::{Batch, Error, News, Plan, Summary};
use infernet_client::purse::{self, Limits};
use infernet_client::{Client, Options};
use infernet_node::clock;
use infernet_payments::rail::PaymentRail;
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::event::{Checkers, Checking};
use infernet_protocol::money::{Msat, Price};
use nostr::{Keys, RelayUrl};
use nostr_relay_builder::LocalRelay;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::broker::{BlobServer, Broker, Manner};
use crate::{DEADLINE, PATIENCE, relay_on};

mod command;
mod money;

/// A millisatoshi for each token, in and out.
const PRICE: Price = Price {
    input_msat: 1_000_000,
    output_msat: 1_000_000,
};

/// What the buyer begins with.
const BEGINS_WITH: Msat = Msat(5_000_000);

/// A relay, a blob server, an aggregator, and a buyer with files.
struct Place {
    _relay: LocalRelay,
    url: RelayUrl,
    blobs: BlobServer,
    broker: Broker,
    wallet: Wallet,
    keys: Keys,
    folder: TempDir,
}

impl Place {
    async fn free(manner: Manner) -> Self {
        Self::of(manner, false).await
    }

    async fn paid(manner: Manner) -> Self {
        Self::of(manner, true).await
    }

    async fn of(manner: Manner, is_paid: bool) -> Self {
        let relay = relay_on(None).await;
        let url = relay.url().await;
        let blobs = BlobServer::start().await;
        let network = Network::new(clock::now());
        let taken = is_paid.then(|| (network.wallet("broker", BEGINS_WITH), PRICE));
        let broker = Broker::start(&url, &blobs, manner, taken).await;
        Self {
            _relay: relay,
            url,
            blobs,
            broker,
            wallet: network.wallet("buyer", BEGINS_WITH),
            keys: Keys::generate(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, lines: &[String]) {
        std::fs::write(self.path("in.jsonl"), lines.join("\n")).unwrap();
    }

    fn plan(&self) -> Plan {
        Plan {
            input: self.path("in.jsonl"),
            output: self.path("out.jsonl"),
            model: None,
            aggregator: None,
            checkers: Checkers::Aggregator,
            checking: Checking::Full,
            deadline: None,
            max_price: None,
            max_cost: None,
        }
    }

    async fn client(&self) -> Client {
        let mut options = Options::new([self.url.to_string()]).keys(self.keys.clone());
        options.patience = PATIENCE;
        options.blobs = vec![self.blobs.url.parse().unwrap()];
        if self.broker.wallet.is_some() {
            let mut purse = purse::Options::new(self.wallet.clone(), self.path("books"));
            purse.limits = Limits {
                daily: Msat(4_000_000),
                ..Limits::default()
            };
            options.purse = Some(purse);
        }
        Client::connect(options).await.unwrap()
    }

    /// Quotes, orders and runs it, to its end.
    async fn run(&self) -> Result<(Summary, Vec<News>), Error> {
        self.run_as(self.plan()).await
    }

    async fn run_as(&self, plan: Plan) -> Result<(Summary, Vec<News>), Error> {
        let client = self.client().await;
        let going = async {
            let mut batch = Batch::open(client.clone(), plan).await?;
            if batch.order_id().is_none() && batch.scan().task.is_some() {
                let quote = batch.quote().await?;
                batch.order(&quote).await?;
            }
            let (teller, mut told) = mpsc::unbounded_channel();
            let summary = batch.run(teller, CancellationToken::new()).await?;
            let mut news = Vec::new();
            while let Ok(one) = told.try_recv() {
                news.push(one);
            }
            Ok((summary, news))
        };
        let ended = tokio::time::timeout(DEADLINE, going).await;
        client.close().await;
        ended.expect("the batch never ended")
    }

    fn answers(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("out.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Ids of the answers, and what was said or what was wrong.
    fn said(&self) -> Vec<(String, String)> {
        let said = |answer: &Value| {
            let content = &answer["response"]["body"]["choices"][0]["message"]["content"];
            let told = content.as_str().or(answer["error"]["code"].as_str());
            let id = answer["custom_id"].as_str().unwrap_or("-");
            (id.to_owned(), told.unwrap_or("vectors").to_owned())
        };
        self.answers().iter().map(said).collect()
    }

    /// Wallet, ledger and network agree; what was spent.
    async fn spent(&self) -> Msat {
        let spent = Msat(BEGINS_WITH.0 - self.wallet.balance().await.unwrap().0);
        if spent == Msat::ZERO {
            return spent;
        }
        let books = purse::Books::open(&self.path("books")).await.unwrap();
        let report = books
            .reconcile(std::sync::Arc::new(self.wallet.clone()))
            .await
            .unwrap();
        assert!(report.is_even(), "{report:?}");
        books.close().await;
        spent
    }
}

fn chat(id: &str, text: &str) -> String {
    serde_json::json!({
        "custom_id": id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "tiny",
            "messages": [{ "role": "user", "content": text }],
            "max_tokens": 4,
        },
    })
    .to_string()
}

fn chats(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| chat(&format!("id-{n}"), &format!("line {n}")))
        .collect()
}

fn expected(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|n| (format!("id-{n}"), format!("re: line {n}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_requests_becomes_a_file_of_answers() {
    let place = Place::free(Manner::Honest).await;
    let mut lines = chats(3);
    lines.insert(1, "{".into());
    lines.push(chat("id-1", "the same id again"));
    lines.push(chat("bad", "fail"));
    lines.push(String::new());
    place.write(&lines);
    let (summary, news) = place.run().await.unwrap();
    let mut all = expected(3);
    all.insert(1, ("-".into(), "invalid_json".into()));
    all.push(("id-1".into(), "duplicate_custom_id".into()));
    all.push(("bad".into(), "failed".into()));
    assert_eq!(place.said(), all);
    let totals = summary.totals;
    assert_eq!(
        (totals.lines, totals.done, totals.failed, totals.flawed),
        (6, 3, 1, 2)
    );
    assert!(summary.broken.is_empty());
    assert!(news.iter().any(|one| matches!(one, News::Totals(_))));
    assert!(place.broker.books().stopped);
    let left: Vec<_> = std::fs::read_dir(place.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("infernet"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_vectors() {
    let place = Place::free(Manner::Honest).await;
    let line = |id: &str, input: &str| {
        format!(
            r#"{{"custom_id":"{id}","url":"/v1/embeddings","body":{{"model":"v","input":{input}}}}}"#
        )
    };
    place.write(&[line("a", r#""abc""#), line("b", r#"["a","ab"]"#)]);
    place.run().await.unwrap();
    let answers = place.answers();
    let vector = |line: usize, index: usize| {
        answers[line]["response"]["body"]["data"][index]["embedding"][0]
            .as_f64()
            .unwrap()
    };
    assert_eq!((vector(0, 0), vector(1, 0), vector(1, 1)), (3.0, 1.0, 2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_done_backwards_are_written_in_order() {
    // Three groups of 512 lines at most.
    let place = Place::free(Manner::Backwards(3)).await;
    place.write(&chats(1_100));
    let (summary, _) = place.run().await.unwrap();
    assert_eq!(summary.totals.done, 1_100);
    assert_eq!(place.said(), expected(1_100));
    assert_eq!(place.broker.books().groups.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_comes_to_nothing_is_errors_and_the_rest_is_done() {
    let place = Place::free(Manner::Cancels(1)).await;
    place.write(&chats(600));
    let (summary, news) = place.run().await.unwrap();
    assert_eq!((summary.totals.done, summary.totals.failed), (512, 88));
    let cancelled = |one: &&News| matches!(one, News::Cancelled { group: 1, .. });
    assert_eq!(news.iter().filter(cancelled).count(), 1);
    assert_eq!(place.answers()[599]["error"]["message"], "nobody sells it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_was_asked_for_is_not_ordered() {
    for manner in [Manner::Refuses, Manner::QuotesForLess] {
        let place = Place::free(manner).await;
        place.write(&chats(2));
        let error = place.run().await.unwrap_err();
        assert!(
            matches!(error, Error::Refused(_) | Error::Quote(_)),
            "{error}"
        );
        assert!(!place.path("out.jsonl").exists());
        assert!(place.broker.books().orders.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_not_overwritten() {
    let place = Place::free(Manner::Honest).await;
    place.write(&chats(1));
    place.run().await.unwrap();
    let error = place.run().await.unwrap_err();
    assert!(matches!(error, Error::AlreadyThere(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_line_that_can_be_done_is_answered_without_anybody() {
    let place = Place::free(Manner::Honest).await;
    place.write(&["{".into(), "{}".into()]);
    let (summary, _) = place.run().await.unwrap();
    assert_eq!((summary.order, summary.totals.flawed), (None, 2));
    assert_eq!(place.answers().len(), 2);
    assert!(place.broker.books().questions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_for_an_aggregator_that_is_away() {
    let place = Place::free(Manner::Honest).await;
    place.write(&chats(2));
    let client = place.client().await;
    let mut batch = Batch::open(client.clone(), place.plan()).await.unwrap();
    let quote = batch.quote().await.unwrap();
    batch.order(&quote).await.unwrap();
    place.broker.books().is_deaf = true;
    let (teller, mut told) = mpsc::unbounded_channel();
    let running = tokio::spawn(batch.run(teller, CancellationToken::new()));
    let told_so = async { while told.recv().await != Some(News::Away) {} };
    tokio::time::timeout(DEADLINE, told_so).await.unwrap();
    place.broker.books().is_deaf = false;
    let ended = tokio::time::timeout(DEADLINE, running)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.unwrap().totals.done, 2);
    client.close().await;
    assert_eq!(place.said(), expected(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_input_does_not_go_on_with_this_batch() {
    let place = Place::free(Manner::Honest).await;
    place.write(&chats(2));
    let client = place.client().await;
    let mut batch = Batch::open(client.clone(), place.plan()).await.unwrap();
    let quote = batch.quote().await.unwrap();
    batch.order(&quote).await.unwrap();
    let second = Batch::open(client.clone(), place.plan()).await;
    assert!(matches!(second, Err(Error::Running)));
    drop(batch);
    place.write(&chats(3));
    let changed = Batch::open(client.clone(), place.plan()).await;
    assert!(matches!(changed, Err(Error::Changed(_))));
    place.write(&chats(2));
    client.close().await;
    let (summary, _) = place.run().await.unwrap();
    assert_eq!(summary.totals.done, 2);
    assert_eq!(place.broker.books().orders.len(), 1);
}
