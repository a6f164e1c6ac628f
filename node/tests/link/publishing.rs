//! Publishing: acknowledged, refused, unreachable, in order.

use infernet_node::link::Error;
use nostr_relay_builder::prelude::{BoxedFuture, PolicyResult, WritePolicy};
use tokio::time::Instant;

use super::*;

#[derive(Debug)]
struct RefuseAll;

impl WritePolicy for RefuseAll {
    fn admit_event<'a>(
        &'a self,
        _event: &'a Event,
        _addr: &'a SocketAddr,
    ) -> BoxedFuture<'a, PolicyResult> {
        Box::pin(async { PolicyResult::Reject("only on Sundays".into()) })
    }
}

#[tokio::test]
async fn refused_by_all_tells_the_reasons() {
    let (_one, one) = relay_with(None, |relay| relay.write_policy(RefuseAll)).await;
    let (_two, two) = relay_with(None, |relay| relay.write_policy(RefuseAll)).await;
    let link = link([one.clone(), two.clone()]).await;
    let error = link.publish(&event(STORED, "")).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(reasons) if reasons.len() == 2));
    let said = error.to_string();
    assert!(said.contains(one.as_str()) && said.contains(two.as_str()));
    assert!(said.contains("blocked: only on Sundays"), "{said}");
    let deadline = Instant::now() + DEADLINE;
    let again = link.publish_until(&event(STORED, ""), deadline).await;
    assert!(matches!(again, Err(Error::Refused(_))));
    assert!(
        Instant::now() < deadline,
        "a refusal for good is not repeated"
    );
}

#[tokio::test]
async fn one_acknowledgement_is_enough() {
    let (_open, open) = relay(None).await;
    let (_shut, shut) = relay_with(None, |relay| relay.write_policy(RefuseAll)).await;
    let mute = fake::FakeRelay::start(|_| vec![]).await;
    let link = link([open.clone(), shut.clone(), mute.url.clone()]).await;
    let published = link.publish(&event(STORED, "")).await.unwrap();
    assert_eq!(published.accepted, [open]);
    assert_eq!(published.refused[0].relay, shut);
    assert_eq!(published.silent, std::slice::from_ref(&mute.url));
}

#[tokio::test]
async fn a_link_without_a_relay_says_which_and_why() {
    assert_eq!(Link::open(options([])).unwrap_err(), Error::NoRelay);
    let url = absent();
    let mut options = options([url.clone()]);
    options.connect_timeout = Duration::from_millis(300);
    let said = Link::connect(options).await.unwrap_err().to_string();
    assert!(said.contains(url.as_str()), "{said}");
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn publish_until_waits_for_a_relay_to_come_back() {
    let (stopping, url) = relay(None).await;
    let link = link([url.clone()]).await;
    stopping.shutdown();
    wait_until(&link, |connected| connected == 0).await;
    let result = event(STORED, "result");
    let now = link.publish(&result).await;
    assert!(matches!(now, Err(Error::Unreachable(_))));

    let (back, _) = tokio::join!(relay(Some(port(&url))), async {
        let deadline = Instant::now() + DEADLINE;
        link.publish_until(&result, deadline).await.unwrap();
    });
    let fetched = link.fetch(of(STORED), DEADLINE).await.unwrap();
    assert_eq!(fetched, [result]);
    drop(back);
}

#[tokio::test]
async fn publish_until_ends_at_its_deadline() {
    let url = absent();
    let link = Link::open(options([url])).unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    let result = event(STORED, "result");
    let late = link.publish_until(&result, deadline);
    let late = timeout(DEADLINE, late).await.unwrap();
    assert!(matches!(late, Err(Error::Unreachable(_))));
    assert!(Instant::now() >= deadline);
}

#[tokio::test]
async fn pieces_are_written_in_order_behind_what_was_asked_and_published() {
    let mut relay = fake::FakeRelay::start(|_| vec![]).await;
    let link = link([relay.url.clone()]).await;
    let award = event(STORED, "award");
    let pieces: Vec<Event> = (0..200).map(|n| event(EPHEMERAL, &n.to_string())).collect();
    let _progress = link.subscribe(of(EPHEMERAL)).unwrap();
    let publishing = timeout(Duration::from_millis(1), link.publish(&award));
    assert!(publishing.await.is_err(), "the relay acknowledges nothing");
    for piece in &pieces {
        link.send(piece).unwrap();
    }
    let asked = timeout(DEADLINE, relay.heard.recv()).await.unwrap();
    assert!(fake::requested(&asked.unwrap()).is_some());
    for expected in std::iter::once(&award).chain(&pieces) {
        let heard = timeout(DEADLINE, relay.heard.recv()).await.unwrap();
        assert_eq!(
            heard.unwrap(),
            nostr::ClientMessage::event(expected.clone())
        );
    }
}

#[tokio::test]
async fn an_event_longer_than_relays_take_is_not_sent() {
    let (_relay, url) = relay(None).await;
    let link = link([url]).await;
    let long = event(STORED, &"x".repeat(65_536));
    assert!(matches!(link.publish(&long).await, Err(Error::TooLarge { bytes }) if bytes > 65_536));
    assert!(matches!(link.send(&long), Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn shutdown_writes_what_is_queued_and_ends_subscriptions() {
    let mut relay = fake::FakeRelay::start(|_| vec![]).await;
    let link = link([relay.url.clone()]).await;
    let mut open = link.subscribe(of(STORED)).unwrap();
    let pieces: Vec<Event> = (0..100).map(|n| event(EPHEMERAL, &n.to_string())).collect();
    for piece in &pieces {
        link.send(piece).unwrap();
    }
    let other = link.clone();
    timeout(DEADLINE, link.shutdown()).await.unwrap();
    assert_eq!(open.next().await, None);
    assert_eq!(other.publish(&pieces[0]).await, Err(Error::Stopped));
    assert_eq!(other.subscribe(of(STORED)).unwrap_err(), Error::Stopped);
    let heard = async {
        let mut events = 0;
        while events < pieces.len() {
            let message = relay.heard.recv().await.unwrap();
            events += usize::from(message.is_event());
        }
    };
    timeout(DEADLINE, heard).await.unwrap();
}

/// Every call can run in a task of its own.
#[tokio::test]
async fn calls_can_be_spawned() {
    let (_relay, url) = relay(None).await;
    let link = link([url]).await;
    let calls = tokio::spawn(async move {
        let event = event(STORED, "");
        let mut own = link.subscribe(of(STORED)).unwrap();
        let deadline = Instant::now() + DEADLINE;
        link.publish_until(&event, deadline).await.unwrap();
        assert_eq!(next_event(&mut own).await, event);
        assert_eq!(link.fetch(of(STORED), DEADLINE).await.unwrap(), [event]);
        link.shutdown().await;
    });
    timeout(DEADLINE, calls).await.unwrap().unwrap();
}
