//! More awards than slots.

use infernet_engine::Script;
use infernet_protocol::event::Status;
use infernet_protocol::inference::EndReason;
use infernet_protocol::payload::{Decline, Wish};

use super::buyer::Buyer;
use super::house::{Provider, Relay, quick, slow};

/// So slow that the others come while the first one runs, on a busy machine too.
fn slower() -> Script {
    Script {
        tokens_per_second: 2.0,
        ..slow()
    }
}

#[tokio::test]
async fn beyond_capacity_awards_wait_and_then_are_declined() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slower(), |o| o.queue = 1).await;
    let key = provider.handle.public_key();
    let (mut a, mut b, mut c) = (
        Buyer::connect(&[&relay]).await,
        Buyer::connect(&[&relay]).await,
        Buyer::connect(&[&relay]).await,
    );
    let word = a.online(key).await;
    let first = a.ask(&word, 8).await;
    assert_eq!(a.accepted(first.id()).await, 0);
    let second = b.ask(&word, 2).await;
    assert_eq!(b.accepted(second.id()).await, 1);
    let busy = c
        .announcement(key, |word| word.status == Status::Busy)
        .await;
    assert_eq!((busy.load.running, busy.load.queued), (1, 1));
    let third = c.ask(&word, 2).await;
    assert_eq!(c.declined(third.id()).await, Decline::Busy);
    assert_eq!(a.result(&first).await.0.ended, EndReason::Length);
    let (result, _) = b.result(&second).await;
    assert_eq!(result.ended, EndReason::Length);
    assert!(result.timing.queued_ms > 500, "{}", result.timing.queued_ms);
    c.announcement(key, |w| w.status == Status::Online && w.load.running == 0)
        .await;
}

#[tokio::test]
async fn one_that_is_stopped_in_the_queue_leaves_nothing_and_the_others_move_up() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slower(), |_| {}).await;
    let (mut a, mut b, mut c) = (
        Buyer::connect(&[&relay]).await,
        Buyer::connect(&[&relay]).await,
        Buyer::connect(&[&relay]).await,
    );
    let word = a.online(provider.handle.public_key()).await;
    let first = a.ask(&word, 10).await;
    a.accepted(first.id()).await;
    let second = b.ask(&word, 2).await;
    assert_eq!(b.accepted(second.id()).await, 1);
    let third = c.ask(&word, 2).await;
    assert_eq!(c.accepted(third.id()).await, 2);
    b.wish(&second, Wish::Stop);
    c.alive(third.id(), 1).await;
    assert_eq!(a.result(&first).await.0.ended, EndReason::Length);
    assert_eq!(c.result(&third).await.0.ended, EndReason::Length);
    let status = provider.handle.status().await.unwrap();
    assert_eq!((status.tally.completed, status.tally.stopped), (2, 1));
    let result = nostr::Filter::new()
        .kind(nostr::Kind::from(8603))
        .event(second.id());
    assert!(b.fetch(result).await.is_empty());
}

#[tokio::test]
async fn a_replayed_award_does_nothing_even_after_a_restart() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 100).await;
    buyer.accepted(award.id()).await;
    buyer.stream(award.id(), 20).await;
    buyer.result(&award).await;
    buyer.link.publish(award.event()).await.unwrap();
    let (home, keys) = provider.stop().await;
    // The relay has the award stored, and hands it to the next process.
    let provider = Provider::start_in(home, keys, &[&relay], quick(), |_| {}).await;
    let next = buyer.ask(&word, 100).await;
    buyer.result(&next).await;
    assert!(buyer.heard_nothing_of(award.id()));
    let status = provider.handle.status().await.unwrap();
    assert_eq!((status.tally.accepted, status.tally.declined), (1, 0));
}

#[tokio::test]
async fn an_award_over_two_relays_is_one_award() {
    let (east, west) = (Relay::start().await, Relay::start().await);
    let provider = Provider::start(&[&east, &west], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&east, &west]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 100).await;
    buyer.stream(award.id(), 20).await;
    buyer.result(&award).await;
    let status = provider.handle.status().await.unwrap();
    assert_eq!(status.tally.accepted, 1);
}
