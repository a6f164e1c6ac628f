//! What the relay keeps, and what goes.

use infernet_relay::Access;
use nostr::{Filter, Keys, Tag};
use nostr_sdk::Client;

use crate::Relay;
use crate::client::soon;
use crate::events::{attestation, deletion, from_now, offer, plain, profile};

#[tokio::test]
async fn a_restart_loses_nothing() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let (kept, deleted) = (attestation(&keys), offer(&keys, 60));
    client.keep(&kept).await;
    client.keep(&deleted).await;
    client.keep(&deletion(&keys, &[&deleted])).await;
    let folder = relay.stop().await;

    let relay = Relay::start_in(folder, |_| {}).await;
    let mut client = relay.client().await;
    assert_eq!(client.stored(&Filter::new().id(kept.id)).await, [kept]);
    client.refused(&deleted, "deleted").await;
}

#[tokio::test]
async fn an_expired_event_is_refused() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    client.refused(&offer(&keys, -1), "expired at").await;
    let goodbye = plain(&keys, 0, "{}", [Tag::expiration(from_now(-1))], from_now(0));
    client.refused(&goodbye, "expired at").await;
    assert_eq!(client.count().await, 0);
}

#[tokio::test]
async fn an_event_that_expires_is_answered_until_then_and_purged() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let (passing, lasting) = (offer(&keys, 3), offer(&keys, 600));
    client.keep(&passing).await;
    client.keep(&lasting).await;
    let offers = Filter::new().author(keys.public_key());
    let both = client.stored(&offers).await;
    assert!(both.contains(&passing) && both.contains(&lasting));
    soon(async { while client.stored(&offers).await != [lasting.clone()] {} }).await;
    assert!(passing.is_expired(), "it went too early");
    soon(async { while client.count().await != 1 {} }).await;
}

#[tokio::test]
async fn what_expired_while_the_relay_was_down_is_purged_at_its_start() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let passing = offer(&keys, 2);
    client.keep(&passing).await;
    client.keep(&offer(&keys, 600)).await;
    let folder = relay.stop().await;
    soon(async {
        while !passing.is_expired() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;

    let relay = Relay::start_in(folder, |_| {}).await;
    let mut client = relay.client().await;
    assert_eq!(client.stored(&Filter::new().id(passing.id)).await, []);
    soon(async { while client.count().await != 1 {} }).await;
}

#[tokio::test]
async fn nostr_sdk_publishes_fetches_and_hears() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let client = Client::new(keys.clone());
    client.add_relay(relay.handle.url()).await.unwrap();
    soon(client.connect()).await;
    let profile = profile(&keys, "me", 0);
    let sent = soon(client.send_event(&profile)).await.unwrap();
    assert_eq!((sent.success.len(), sent.failed.len()), (1, 0));
    let mine = Filter::new().author(keys.public_key());
    let fetched = client.fetch_events(mine, std::time::Duration::from_secs(10));
    let fetched: Vec<_> = soon(fetched).await.unwrap().into_iter().collect();
    assert_eq!(fetched, [profile]);
    soon(client.shutdown()).await;
}

#[tokio::test]
async fn nostr_sdk_identifies_itself_where_that_is_asked() {
    let relay = Relay::start_with(|options| {
        options.auth.read = Access::Identified;
        options.auth.write = Access::Identified;
    });
    let relay = relay.await;
    let keys = Keys::generate();
    let client = Client::new(keys.clone());
    client.add_relay(relay.handle.url()).await.unwrap();
    soon(client.connect()).await;
    let profile = profile(&keys, "me", 0);
    let sent = soon(client.send_event(&profile)).await.unwrap();
    assert_eq!((sent.success.len(), sent.failed.len()), (1, 0), "{sent:?}");
    let mine = Filter::new().author(keys.public_key());
    let fetched = client.fetch_events(mine, std::time::Duration::from_secs(10));
    let fetched: Vec<_> = soon(fetched).await.unwrap().into_iter().collect();
    assert_eq!(fetched, [profile]);
    soon(client.shutdown()).await;
}
