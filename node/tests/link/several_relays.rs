//! Several relays as if they were one: nothing twice, nothing lost when one of them goes.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn an_event_on_two_relays_comes_once() {
    let (_one, one) = relay(None).await;
    let (_two, two) = relay(None).await;
    let buyer = link([one.clone(), two.clone()]).await;
    let seller = link([one, two]).await;
    let mut offers = seller.subscribe(of(STORED)).unwrap();
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);

    let (first, second) = (event(STORED, "first"), event(STORED, "second"));
    let published = buyer.publish(&first).await.unwrap();
    assert_eq!(published.accepted.len(), 2);
    buyer.publish(&second).await.unwrap();
    assert_eq!(next_event(&mut offers).await, first);
    assert_eq!(next_event(&mut offers).await, second);

    let mut late = seller.subscribe(of(STORED)).unwrap();
    let mut stored = [
        next_event(&mut late).await.id,
        next_event(&mut late).await.id,
    ];
    let mut expected = [first.id, second.id];
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
    assert_eq!(next(&mut late).await, Delivery::EndOfStored);
}

#[tokio::test]
async fn what_is_said_first_reaches_every_relay_that_is_there() {
    let (_one, one) = relay(None).await;
    let (_two, two) = relay(None).await;
    let (_three, three) = relay(None).await;
    let relays = [one, absent(), two, three];
    let link = Link::connect(options(relays)).await.unwrap();
    let published = link.publish(&event(STORED, "")).await.unwrap();
    assert_eq!(published.accepted.len(), 3);
    assert_eq!(published.silent.len(), 1);
}

#[tokio::test]
async fn own_events_come_back() {
    let (_relay, url) = relay(None).await;
    let link = link([url]).await;
    let mut own = link.subscribe(of(STORED)).unwrap();
    let event = event(STORED, "mine");
    link.publish(&event).await.unwrap();
    assert_eq!(next_event(&mut own).await, event);
}

#[tokio::test]
async fn a_relay_that_stops_and_comes_back_is_told_again_and_a_gap_is_seen() {
    let (_steady, steady_url) = relay(None).await;
    let (stopping, stopping_url) = relay(None).await;
    let seller = link([steady_url.clone(), stopping_url.clone()]).await;
    let mut offers = seller.subscribe(of(EPHEMERAL)).unwrap();
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);

    stopping.shutdown();
    wait_until(&seller, |connected| connected == 1).await;
    let buyer = link([steady_url]).await;
    let meanwhile = event(EPHEMERAL, "meanwhile");
    buyer.publish(&meanwhile).await.unwrap();
    assert_eq!(next_event(&mut offers).await, meanwhile);

    let (_back, back_url) = relay(Some(port(&stopping_url))).await;
    assert_eq!(back_url, stopping_url);
    wait_for(&mut offers, Delivery::Gap).await;
    let there = link([back_url]).await;
    // The gap was told when the request was queued; the relay reads it in its own time.
    wait_for(&mut offers, Delivery::EndOfStored).await;
    let after = event(EPHEMERAL, "after");
    there.publish(&after).await.unwrap();
    assert_eq!(next_event(&mut offers).await, after);
    let sessions: Vec<u64> = seller.relays().iter().map(|relay| relay.sessions).collect();
    assert_eq!(sessions, [1, 2]);
}

#[tokio::test]
async fn what_was_stored_while_the_only_relay_was_away_follows_by_itself() {
    let stored = event(STORED, "stored");
    let (before, after) = (fake::serving(vec![]), fake::serving(vec![stored.clone()]));
    let sessions = AtomicUsize::new(0);
    let relay =
        fake::FakeRelay::start(
            move |message| match sessions.fetch_add(1, Ordering::Relaxed) {
                0 => before(message),
                _ => after(message),
            },
        );
    let relay = relay.await;
    let link = link([relay.url.clone()]).await;
    let mut offers = link.subscribe(of(STORED)).unwrap();
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
    relay.close(1001, "");
    assert_eq!(next(&mut offers).await, Delivery::Gap);
    assert_eq!(next_event(&mut offers).await, stored);
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
}

#[tokio::test]
async fn fetch_gathers_from_all_relays_in_order() {
    let (_one, one) = relay(None).await;
    let (_two, two) = relay(None).await;
    let at = |seconds: u64| {
        let builder = EventBuilder::new(STORED, "").custom_created_at(seconds.into());
        builder.sign_with_keys(&Keys::generate()).unwrap()
    };
    let (first, second, third) = (at(1_000), at(2_000), at(3_000));
    let left = link([one.clone()]).await;
    let right = link([two.clone()]).await;
    for event in [&third, &first] {
        left.publish(event).await.unwrap();
    }
    for event in [&second, &third] {
        right.publish(event).await.unwrap();
    }
    let both = link([one, two]).await;
    let fetched = both.fetch(of(STORED), DEADLINE).await.unwrap();
    assert_eq!(fetched, [first, second, third]);
}

#[tokio::test]
async fn fetch_answers_with_what_came_when_a_relay_is_slow() {
    let stored = event(STORED, "stored");
    let quick = fake::FakeRelay::start(fake::serving(vec![stored.clone()])).await;
    let mute = fake::FakeRelay::start(|_| vec![]).await;
    let link = link([quick.url.clone(), mute.url.clone()]).await;
    let soon = Duration::from_millis(300);
    assert_eq!(link.fetch(of(STORED), soon).await.unwrap(), [stored]);
}

#[tokio::test]
async fn a_subscription_without_a_relay_begins_when_one_comes() {
    let url = absent();
    let link = Link::open(options([url.clone()])).unwrap();
    let mut offers = link.subscribe(of(STORED)).unwrap();
    let (_back, _) = relay(Some(port(&url))).await;
    assert_eq!(next(&mut offers).await, Delivery::Gap);
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
}
