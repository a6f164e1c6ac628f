//! Relays that stop and come back.

use infernet_protocol::inference::EndReason;
use infernet_protocol::payload::Wish;
use nostr::{Filter, Kind};

use super::buyer::{Buyer, text_of};
use super::house::{Provider, Relay, TEXT, slow};

#[tokio::test]
async fn a_job_outlives_its_relay() {
    let mut relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 10).await;
    buyer.piece(award.id(), 0).await;
    relay.stop();
    relay.start_again().await;
    let again = buyer.online(provider.handle.public_key()).await;
    assert!(
        again.created_at() >= word.created_at(),
        "it is announced anew"
    );
    let (result, product) = buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Length);
    assert!(TEXT.starts_with(&text_of(product).0));
    let introduced = Filter::new().kinds([0, 31990, 11998].map(Kind::from));
    assert_eq!(
        buyer.fetch(introduced).await.len(),
        3,
        "it introduces itself anew"
    );
}

#[tokio::test]
async fn a_result_is_published_again_for_a_buyer_that_missed_it() {
    let mut relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 2).await;
    let (result, _) = buyer.result(&award).await;
    relay.stop();
    relay.start_again().await;
    buyer.online(provider.handle.public_key()).await;
    let results = || Filter::new().id(result.id());
    assert!(
        buyer.fetch(results()).await.is_empty(),
        "the new relay knows nothing"
    );
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    while buyer.fetch(results()).await.is_empty() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it is not published again"
        );
        buyer.wish(&award, Wish::Resend { from: 9 });
    }
}

#[tokio::test]
async fn one_relay_of_two_is_enough() {
    let (east, west) = (Relay::start().await, Relay::start().await);
    let provider = Provider::start(&[&east, &west], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&east, &west]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 6).await;
    buyer.piece(award.id(), 0).await;
    east.stop();
    let (streamed, _) = buyer.stream_from(award.id(), 1, 5).await;
    assert_eq!(streamed.len(), 5);
    assert_eq!(buyer.result(&award).await.0.ended, EndReason::Length);
}

#[tokio::test]
async fn a_relay_that_comes_later_is_told_too() {
    let (east, mut west) = (Relay::start().await, Relay::not_yet());
    let provider = Provider::start(&[&east, &west], slow(), |_| {}).await;
    west.start_again().await;
    let mut buyer = Buyer::connect(&[&west]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 2).await;
    assert_eq!(buyer.result(&award).await.0.ended, EndReason::Length);
}
