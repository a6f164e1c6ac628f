//! Bans that the operator follows.

use nostr::{Event, Keys, Kind, Tag};

use crate::Relay;
use crate::events::{attestation, bid, deletion, from_now, plain};

/// A mute list (NIP-51), so many seconds from now.
fn list(by: &Keys, banned: &[&Keys], seconds: i64) -> Event {
    let tags = banned.iter().map(|keys| Tag::public_key(keys.public_key()));
    let kind = Kind::MuteList.as_u16();
    plain(by, kind, "", tags, from_now(seconds))
}

#[tokio::test]
async fn whom_a_followed_aggregator_bans_cannot_bid_until_it_says_otherwise() {
    let (judge, cheat, honest) = (Keys::generate(), Keys::generate(), Keys::generate());
    let follow = judge.public_key();
    let relay = Relay::start_with(|options| options.follow_bans = vec![follow]).await;
    let mut client = relay.client().await;
    client.keep(&bid(&cheat)).await;
    client.keep(&list(&judge, &[&cheat], -10)).await;
    let why = "blocked: your key is banned by";
    client.refused(&bid(&cheat), why).await;
    client.keep(&bid(&honest)).await;
    client.keep(&attestation(&cheat)).await;

    let folder = relay.stop().await;
    let relay = Relay::start_in(folder, |options| options.follow_bans = vec![follow]).await;
    let mut client = relay.client().await;
    client.refused(&bid(&cheat), why).await;
    client.keep(&list(&judge, &[], -5)).await;
    client.keep(&bid(&cheat)).await;
}

#[tokio::test]
async fn an_old_list_does_not_come_back() {
    let (judge, cheat) = (Keys::generate(), Keys::generate());
    let follow = judge.public_key();
    let relay = Relay::start_with(|options| options.follow_bans = vec![follow]).await;
    let mut client = relay.client().await;
    let banned = list(&judge, &[&cheat], 0);
    client.keep(&banned).await;
    client
        .refused(&list(&judge, &[], -10), "a newer version")
        .await;
    client.refused(&bid(&cheat), "is banned by").await;
    client.keep(&deletion(&judge, &[&banned])).await;
    client.keep(&bid(&cheat)).await;
}

#[tokio::test]
async fn bans_that_nobody_follows_hold_nobody_off() {
    let (stranger, provider) = (Keys::generate(), Keys::generate());
    let follow = Keys::generate().public_key();
    let relay = Relay::start_with(|options| options.follow_bans = vec![follow]).await;
    let mut client = relay.client().await;
    client.keep(&list(&stranger, &[&provider], 0)).await;
    client.keep(&bid(&provider)).await;
}
