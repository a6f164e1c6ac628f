//! What buyers are answered, also those who mean no good.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../cheats/blobs.rs"]
mod blobs;
mod talker;

use std::sync::Arc;
use std::time::Duration;

use blobs::BlobServer;
use infernet_aggregator::{Handle, Options, run};
use infernet_blobs::Blobs;
use infernet_node::clock;
use infernet_node::link::{self, Link};
use infernet_node::shutdown::Shutdown;
use infernet_payments::Invoice;
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::batch::{
    Ask, Blob, BlobKey, Group, GroupStanding, Lines, Phase, Reply, Size, Wanted,
};
use infernet_protocol::event::{
    Accepts, AnnouncedModel, Announcement, Capacity, Checkers, Checking, DeviceKind, Hardware,
    Load, Promise, Quote, Signed, Status, V1,
};
use infernet_protocol::inference::{Dtype, ModelId, Prompt, Sampling, Task};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::payload::{Generate, Payload, Work};
use infernet_protocol::seal::{Digest, blob};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{EventId, Keys, RelayUrl, Timestamp};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use talker::{Talker, sign};
use tempfile::TempDir;

/// An aggregator on a market where one provider says that it sells a model, for nothing.
struct Place {
    relay: LocalRelay,
    aggregator: Handle,
    shutdown: Shutdown,
    _home: TempDir,
}

impl Place {
    async fn open() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let relay = LocalRelay::new(RelayBuilder::default().rate_limit(RateLimit {
            max_reqs: 500,
            notes_per_minute: 1_000_000,
        }));
        relay.run().await.unwrap();
        let url = relay.url().await;
        sell(&url, "free", Price::FREE).await;
        let dear = Price {
            input_msat: 1,
            output_msat: 1,
        };
        sell(&url, "dear", dear).await;
        let one_each = Price {
            input_msat: 1_000_000,
            output_msat: 1_000_000,
        };
        sell(&url, "paid", one_each).await;
        let home = tempfile::tempdir().unwrap();
        let mut options = Options::new(Keys::generate(), home.path().join("home"), vec![url]);
        change(&mut options);
        let shutdown = Shutdown::new();
        let aggregator = run(options, shutdown.clone()).await.unwrap();
        assert!(!aggregator.announced().await.is_empty());
        let place = Self {
            relay,
            aggregator,
            shutdown,
            _home: home,
        };
        // Until the aggregator has heard of the last seller, and so of all.
        let mut asking = place.buyer().await;
        loop {
            let reply = asking.ask(None, Ask::Quote(wanted("paid"))).await;
            match reply {
                Reply::Refused { reason } if reason.contains("nobody sells") => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                _ => return place,
            }
        }
    }

    async fn buyer(&self) -> Talker {
        Talker::connect(&self.relay.url().await, self.aggregator.public_key()).await
    }

    async fn close(self) {
        self.shutdown.stop_now();
        self.aggregator.ended().await;
    }
}

/// Announces a provider of this model.
async fn sell(relay: &RelayUrl, model: &str, price: Price) {
    let keys = Keys::generate();
    let link = Link::connect(link::Options::new(vec![relay.clone()], keys.clone()));
    let announcement = Announcement {
        v: V1,
        id: "infernet".into(),
        name: format!("seller of {model}"),
        status: Status::Online,
        models: vec![AnnouncedModel {
            model: ModelId::from_bytes([model.len() as u8; 32]),
            name: model.into(),
            aliases: vec![],
            task: Task::TextGeneration,
            dtype: Dtype::Scripted,
            context: 4_096,
            price,
            promise: Promise {
                first_token_ms: 50,
                tokens_per_s: 100.0,
            },
            continues: false,
            interface: None,
        }],
        hardware: Hardware {
            device: DeviceKind::Cpu,
            name: "a processor".into(),
            memory_mib: 1,
        },
        capacity: Capacity { slots: 1, queue: 1 },
        load: Load::default(),
        terms: vec![PaymentTerms::Free, PaymentTerms::Escrow],
        direct: true,
        engine: "scripted/1".into(),
        relays: vec![],
        expires_at: Timestamp::from_secs(clock::now().as_secs() + 600),
    };
    let event = sign(&keys, &announcement);
    link.await.unwrap().publish(&event).await.unwrap();
}

fn wanted(model: &str) -> Wanted {
    Wanted {
        task: Task::TextGeneration,
        accepts: vec![Accepts::Name(model.into())],
        size: Size {
            lines: 10,
            input_tokens: 1_000,
            output_tokens: 1_000,
            longest: 300,
        },
        max_price: None,
        checkers: Checkers::Nobody,
        checking: Checking::None,
        deadline: Timestamp::from_secs(clock::now().as_secs() + 600),
    }
}

fn group(number: u32, lines: u64) -> Group {
    Group {
        number,
        size: Size {
            lines,
            input_tokens: 100,
            output_tokens: 100,
            longest: 20,
        },
        input: Blob {
            sha256: Digest::from_bytes([1; 32]),
            bytes: 100,
            // Nobody listens there.
            servers: vec!["http://127.0.0.1:1".into()],
        },
        key: BlobKey::from_bytes([2; 32]),
    }
}

fn why(reply: Reply) -> String {
    match reply {
        Reply::Refused { reason } => reason,
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_sale_is_quoted_and_the_rest_is_refused_with_words() {
    let place = Place::open().await;
    let mut buyer = place.buyer().await;
    let quote = buyer.quote(wanted("free")).await;
    assert_eq!(quote.terms, PaymentKind::Free);
    assert_eq!(quote.size.lines, 10);
    assert_eq!(quote.buyer, buyer.public_key());

    let mut late = wanted("free");
    late.deadline = Timestamp::from_secs(clock::now().as_secs() + 5);
    let mut unsure = wanted("free");
    unsure.checking = Checking::Full;
    let mut embedding = wanted("free");
    embedding.task = Task::Embedding;
    for (wanted, word) in [
        (wanted("nothing"), "nobody sells"),
        (embedding, "nobody sells"),
        (wanted("dear"), "only free work"),
        (late, "deadline"),
        (unsure, "nobody may check"),
    ] {
        let reason = why(buyer.ask(None, Ask::Quote(wanted)).await);
        assert!(reason.contains(word), "{reason} does not say {word}");
    }
    // A line that no context holds is no reason to refuse the others.
    let mut long = wanted("free");
    long.size.longest = 100_000;
    assert_eq!(buyer.quote(long).await.size.longest, 100_000);
    place.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_is_taken_once_and_an_order_is_its_buyers_alone() {
    let place = Place::open().await;
    let (mut buyer, mut other) = (place.buyer().await, place.buyer().await);
    let quote = buyer.signed_quote(wanted("free")).await;
    let order = buyer.order(&quote);
    let event = || Box::new(order.clone());
    for _ in 0..2 {
        let taken = buyer.ask(None, Ask::Order { event: event() }).await;
        assert!(matches!(taken, Reply::Standing(_)), "{taken:?}");
    }
    let second = Box::new(buyer.order_after(&quote, 1));
    let reason = why(buyer.ask(None, Ask::Order { event: second }).await);
    assert!(reason.contains("taken that quote"), "{reason}");

    let reason = why(other.ask(None, Ask::Order { event: event() }).await);
    assert!(reason.contains("not yours"), "{reason}");
    let invented = other.invented_quote(buyer.public_key());
    let event = Box::new(buyer.order(&invented));
    let reason = why(buyer.ask(None, Ask::Order { event }).await);
    assert!(reason.contains("not this aggregator's"), "{reason}");
    for ask in [
        Ask::Standing,
        Ask::Stop,
        Ask::Group(group(0, 1)),
        Ask::Fetched { group: 0 },
    ] {
        let reason = why(other.ask(Some(order.id), ask).await);
        assert!(reason.contains("no such order"), "{reason}");
    }
    let unknown = Some(EventId::all_zeros());
    let reason = why(buyer.ask(unknown, Ask::Standing).await);
    assert!(reason.contains("no such order"), "{reason}");
    place.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_cannot_be_begun_are_refused_and_a_stopped_order_is_closed() {
    let place = Place::open().await;
    let mut buyer = place.buyer().await;
    let quote = buyer.signed_quote(wanted("free")).await;
    let event = Box::new(buyer.order(&quote));
    let id = event.id;
    let order = Some(id);
    buyer.ask(None, Ask::Order { event }).await;
    let mut greedy = group(1, 5);
    greedy.size.output_tokens = 2_000_000;
    for (group, word) in [
        (group(0, 11), "more lines than were ordered"),
        (greedy, "fewer lines"),
        (group(2, 5), "cannot be fetched"),
    ] {
        let reason = why(buyer.ask(order, Ask::Group(group)).await);
        assert!(reason.contains(word), "{reason} does not say {word}");
    }
    let reason = why(buyer
        .ask(
            order,
            Ask::Refund {
                invoice: "ln".into(),
            },
        )
        .await);
    assert!(reason.contains("wallet"), "{reason}");
    let Reply::Standing(standing) = buyer.ask(order, Ask::Stop).await else {
        panic!("it says how it stands");
    };
    assert!(standing.closed);
    let reason = why(buyer.ask(order, Ask::Group(group(3, 5))).await);
    assert!(reason.contains("nothing more"), "{reason}");
    let secret = buyer.secret(id).await;
    assert_eq!(
        secret.commitment(),
        Signed::<Quote>::verify(quote).unwrap().commitment
    );
    place.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_has_so_many_orders_open_and_no_more() {
    let place = Place::open().await;
    let mut buyer = place.buyer().await;
    let mut orders = vec![];
    for _ in 0..4 {
        let quote = buyer.signed_quote(wanted("free")).await;
        let event = buyer.order(&quote);
        orders.push(event.id);
        let event = Box::new(event);
        let taken = buyer.ask(None, Ask::Order { event }).await;
        assert!(matches!(taken, Reply::Standing(_)));
    }
    let quote = buyer.signed_quote(wanted("free")).await;
    let event = Box::new(buyer.order(&quote));
    let reason = why(buyer.ask(None, Ask::Order { event }).await);
    assert!(reason.contains("orders of yours are open"), "{reason}");
    buyer.ask(Some(orders[0]), Ask::Stop).await;
    let event = Box::new(buyer.order(&quote));
    let taken = buyer.ask(None, Ask::Order { event }).await;
    assert!(matches!(taken, Reply::Standing(_)), "{taken:?}");
    place.close().await;
}

/// The house's wallet, of a network of its own.
fn wallet() -> Wallet {
    Network::new(clock::now()).wallet("house", Msat(1_000_000_000))
}

/// A group of so many lines, whose blob is on this server.
async fn given(number: u32, lines: u64, blobs: &Blobs) -> Group {
    let line = Work::TextGeneration(Generate {
        prompt: Prompt::Text("hi".into()),
        sampling: Sampling::default(),
        max_tokens: 5,
        stop: vec![],
        prefix: vec![],
    });
    let count = lines;
    let lines: Lines = (0..count).map(|_| line.clone()).collect();
    let key = BlobKey::from_bytes([2; 32]);
    let closed = blob::encrypt(key.as_bytes(), &lines.to_bytes(), &mut OsRng).unwrap();
    Group {
        input: blobs.put(closed).await.unwrap(),
        key,
        ..group(number, count)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_was_away_for_a_moment_makes_its_invoice_later() {
    let (server, wallet) = (BlobServer::start().await, wallet());
    let address = server.url.parse::<infernet_blobs::Address>().unwrap();
    let blobs = Blobs::new(vec![address.clone()], Keys::generate());
    let rail = wallet.clone();
    let place = Place::with(|options| {
        options.wallet = Some(Arc::new(rail));
        options.blobs = vec![address];
    })
    .await;
    let mut buyer = place.buyer().await;
    let quote = buyer.signed_quote(wanted("paid")).await;
    let event = Box::new(buyer.order(&quote));
    let order = Some(event.id);
    buyer.ask(None, Ask::Order { event }).await;
    let group = given(0, 1, &blobs).await;
    wallet.crash();
    let back = wallet.clone();
    let returning = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        back.restart();
    });
    let reply = buyer.ask(order, Ask::Group(group)).await;
    let Reply::Group(GroupStanding {
        phase: Phase::Unpaid { invoice },
        ..
    }) = reply
    else {
        panic!("it does not wait to be paid: {reply:?}");
    };
    assert!(invoice.parse::<Invoice>().is_ok());
    returning.await.unwrap();
    place.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_are_given_at_once_are_together_no_more_than_was_ordered() {
    let server = BlobServer::start().await;
    let address = server.url.parse::<infernet_blobs::Address>().unwrap();
    let blobs = Blobs::new(vec![address.clone()], Keys::generate());
    let place = Place::with(|options| options.blobs = vec![address]).await;
    let mut buyer = place.buyer().await;
    let quote = buyer.signed_quote(wanted("free")).await;
    let event = Box::new(buyer.order(&quote));
    let order = Some(event.id);
    buyer.ask(None, Ask::Order { event }).await;
    let mut asks = vec![];
    for number in 0..4 {
        asks.push(Ask::Group(given(number, 6, &blobs).await));
    }
    let replies = buyer.ask_all(order, asks).await;
    let opened = replies.iter().filter(|one| matches!(one, Reply::Group(_)));
    assert_eq!(opened.count(), 1, "{replies:?}");
    place.close().await;
}
