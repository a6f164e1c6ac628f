//! Many who listen, and one who does not read.

use std::time::Duration;

use infernet_tests::Market;
use infernet_tests::load::{Audience, Connection, Ended};
use tokio::time::timeout;

use super::{UNLIMITED, events, people};

/// Where files are few, as many subscribers as they allow.
const SUBSCRIBERS: u64 = 2_000;
const PER_SECOND: f64 = 300.0;
const EVENTS: u64 = 1_500;
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_subscribers_get_what_is_theirs() {
    let market = Market::open_with(UNLIMITED).unwrap();
    // Either process needs one for each, and some besides.
    let subscribers = SUBSCRIBERS.min(open_files().saturating_sub(200));
    let audience = Audience {
        subscribers,
        all: false,
    };
    let events = events(subscribers, EVENTS);
    let url = &market.relay.url;
    let listening = audience
        .listen(url, &people(subscribers), events)
        .await
        .unwrap();
    let outcome = listening.publish(url, PER_SECOND).await;
    assert_eq!(
        outcome.accepted.len() as u64,
        EVENTS,
        "{:?} {:?}",
        outcome.refused,
        outcome.broken
    );
    let delivery = listening.finish(outcome).await.unwrap();
    assert_eq!(delivery.lost_in_silence(), 0);
    // Nobody here falls behind.
    assert_eq!((delivery.closed(), delivery.lost()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_is_told_and_closed_while_others_get_everything() {
    let settings = format!("{UNLIMITED}outbox_messages = 2000\noutbox_bytes = 1000000\n");
    let market = Market::open_with(&settings).unwrap();
    let url = &market.relay.url;
    let mut sleepy = Connection::open_narrow(url).await.unwrap();
    sleepy.request("all", r#"{"limit":1}"#).await.unwrap();
    let audience = Audience {
        subscribers: 5,
        all: true,
    };
    let all = events(5, 12_000);
    let listening = audience.listen(url, &people(5), all.clone()).await.unwrap();
    let outcome = listening.publish(url, 1_500.0).await;
    assert_eq!(
        outcome.accepted.len(),
        all.len(),
        "{:?} {:?}",
        outcome.refused,
        outcome.broken
    );
    let delivery = listening.finish(outcome).await.unwrap();
    assert_eq!((delivery.closed(), delivery.lost()), (0, 0));
    // It wakes up, reads what was on its way, and why there is no more.
    let (mut heard, mut noticed) = (0, false);
    let ended = loop {
        match timeout(SOON, sleepy.next())
            .await
            .expect("it was never closed")
        {
            Ok(text) if text.starts_with(r#"["NOTICE""#) => noticed = true,
            Ok(_) => heard += 1,
            Err(ended) => break ended,
        }
    };
    assert!(heard < all.len(), "it was sent everything");
    let frame = ended
        .downcast_ref::<Ended>()
        .and_then(|ended| ended.0.as_ref());
    let code = frame.map(|frame| u16::from(frame.code));
    assert_eq!(code, Some(1013), "{ended}");
    assert!(noticed);
}

/// How many files this process may have open, by /proc.
fn open_files() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    soft.unwrap_or(1_024)
}
