//! What it takes to be heard when everybody shouts.

use std::fs;
use std::path::Path;

use infernet_protocol::event::Body as _;
use infernet_relay::{Rate, Share, Work};
use nostr::{Event, EventBuilder, JsonUtil as _, Keys, RelayUrl};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{self, http::StatusCode};

use crate::Relay;
use crate::client::{Client, soon};
use crate::events::{from_now, profile, progress};

/// Eight bits, asked once strangers have written twenty events.
fn demanding(options: &mut infernet_relay::Options) {
    options.work = Work {
        first_bits: 8,
        free: Share {
            events: Rate::new(1, 20),
            bytes: Rate::new(0, 0),
        },
        ..Work::default()
    };
}

/// What a client says to show who it is (NIP-42), with so many bits of work.
fn identification(relay: &Relay, client: &Client, keys: &Keys, bits: u8) -> Event {
    let url = RelayUrl::parse(&relay.handle.url()).unwrap();
    let auth = EventBuilder::auth(&client.challenge, url).pow(bits);
    auth.sign_with_keys(keys).unwrap()
}

async fn identify(client: &mut Client, auth: &Event) {
    client.say(format!(r#"["AUTH",{}]"#, auth.as_json())).await;
    let answer = client.hear().await;
    assert_eq!(answer[2], true, "{answer}");
}

/// Has strangers use up their share, and answers how much they got of `events`.
async fn flood(client: &mut Client, events: usize) -> usize {
    let mut taken = 0;
    for _ in 0..events {
        let (is_taken, said) = client.publish(&profile(&Keys::generate(), "junk", 0)).await;
        taken += usize::from(is_taken);
        let asked = "pow: 8 bits of work needed (NIP-13), on this event or on your AUTH event";
        assert!(is_taken || said == asked, "{said}");
    }
    taken
}

#[tokio::test]
async fn who_shows_work_is_heard_through_a_flood() {
    let relay = Relay::start_with(demanding).await;
    let (mut crowd, mut honest) = (relay.client().await, relay.client().await);
    let taken = flood(&mut crowd, 100).await;
    assert!((20..50).contains(&taken), "{taken}");

    let keys = Keys::generate();
    let auth = identification(&relay, &honest, &keys, 0);
    identify(&mut honest, &auth).await;
    flood(&mut crowd, 20).await;
    let refused = progress(&keys, 0);
    let (taken, said) = honest.publish(&refused).await;
    assert!(!taken && said.starts_with("pow: 8 "), "{said}");
    // The same challenge will do, and then the same event.
    let auth = identification(&relay, &honest, &keys, 8);
    identify(&mut honest, &auth).await;
    honest.keep(&refused).await;
    for number in 1..100 {
        honest.keep(&progress(&keys, number)).await;
        honest
            .keep(&profile(&Keys::generate(), "throwaway", 0))
            .await;
    }
    flood(&mut crowd, 20).await;
    // Its key is known on another connection too.
    crowd.keep(&profile(&keys, "me", 0)).await;
}

#[tokio::test]
async fn work_on_the_event_itself_will_do() {
    let relay = Relay::start_with(|options| {
        options.work = Work {
            min_bits: 8,
            ..Work::default()
        };
    })
    .await;
    let mut client = relay.client().await;
    let keys = Keys::generate();
    assert_eq!(flood(&mut client, 5).await, 0);
    let worked = EventBuilder::metadata(&nostr::Metadata::new()).pow(8);
    client.keep(&worked.sign_with_keys(&keys).unwrap()).await;
    client.keep(&progress(&keys, 1)).await;
    assert_eq!(flood(&mut client, 5).await, 0);
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_events() {
    let relay = Relay::start_with(|options| {
        options.limits.count_loopback = true;
        options.limits.address.connections = 2;
        options.limits.address.events = Rate::new(1, 10);
    })
    .await;
    let (mut first, second) = (relay.client().await, relay.client().await);
    let third = tokio_tungstenite::connect_async(relay.handle.url()).await;
    match third.unwrap_err() {
        tungstenite::Error::Http(answer) => {
            assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        }
        other => panic!("{other}"),
    }
    drop(second);
    let again = async {
        while tokio_tungstenite::connect_async(relay.handle.url())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    soon(again).await;
    let refused = async {
        loop {
            let (taken, said) = first.publish(&profile(&Keys::generate(), "me", 0)).await;
            if !taken {
                return said;
            }
        }
    };
    let said = soon(refused).await;
    assert_eq!(
        said,
        "rate-limited: too many events from your address; again in 1 s"
    );
}

fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nips/examples");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// The pair of keys of the examples whose public key is this.
fn known(public: &str) -> Keys {
    let all: Value = serde_json::from_str(&example("keys.json")).unwrap();
    let mut pairs = all.as_object().unwrap().values();
    let pair = pairs.find(|pair| pair["public"] == public).unwrap();
    Keys::parse(pair["secret"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn partners_of_a_trusted_aggregator_need_no_work_after_a_restart_either() {
    let receipt = Event::from_json(example("receipt.json")).unwrap();
    let author = known(&receipt.pubkey.to_hex());
    let partner = known(&receipt.tags.public_keys().next().unwrap().to_hex());
    // The example is of a time that may not have come.
    let body =
        infernet_protocol::event::Signed::<infernet_protocol::event::Receipt>::verify(receipt);
    let receipt = body.unwrap().to_unsigned(author.public_key(), from_now(0));
    let receipt = receipt.sign_with_keys(&author).unwrap();

    let relay = Relay::start().await;
    relay.client().await.keep(&receipt).await;
    let folder = relay.stop().await;
    let relay = Relay::start_in(folder, |options| {
        options.trust = vec![author.public_key()];
        options.work = Work {
            min_bits: 8,
            ..Work::default()
        };
    })
    .await;
    let mut client = relay.client().await;
    assert_eq!(flood(&mut client, 1).await, 0);
    client
        .keep(&profile(&author, "the aggregator itself", 0))
        .await;
    let mut number = 0;
    let recalled = async {
        // Receipts are read beside everything else.
        while !client.publish(&progress(&partner, number)).await.0 {
            number += 1;
        }
    };
    soon(recalled).await;
}
