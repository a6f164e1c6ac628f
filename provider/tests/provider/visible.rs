//! What any Nostr client sees.

use infernet_protocol::event::Status;
use nostr::{Event, Filter, Kind};

use super::buyer::Buyer;
use super::house::{Provider, Relay, quick};

fn values<'a>(event: &'a Event, name: &str) -> Vec<&'a str> {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    let named = tags.filter(|tag| tag[0] == name);
    named
        .filter_map(|tag| tag.get(1).map(String::as_str))
        .collect()
}

/// The events of this kind, once there are some.
async fn seen(buyer: &Buyer, kind: u16) -> Event {
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    loop {
        let mut events = buyer.fetch(Filter::new().kind(Kind::from(kind))).await;
        if let Some(event) = events.pop() {
            return event;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "no event of kind {kind}"
        );
    }
}

#[tokio::test]
async fn profile_handler_and_heartbeat_come_with_the_announcement() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |o| o.name = "Ada's machine".into()).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    assert_eq!(
        (word.name.as_str(), word.status),
        ("Ada's machine", Status::Online)
    );
    // The scripted engine answers, embeds and adds up.
    assert_eq!(word.models.len(), 3);
    assert!(word.engine.contains("scripted"));
    let stands_s = word.expires_at.as_secs() - word.created_at().as_secs();
    assert_eq!(stands_s, 90);

    let profile = seen(&buyer, 0).await;
    let about: serde_json::Value = serde_json::from_str(&profile.content).unwrap();
    assert_eq!(about["name"], "Ada's machine");
    let handler = seen(&buyer, 31990).await;
    assert_eq!(values(&handler, "d"), ["infernet"]);
    for kind in ["8600", "8602", "38500"] {
        assert!(values(&handler, "k").contains(&kind), "{kind}");
    }
    let heartbeat = seen(&buyer, 11998).await;
    assert!(heartbeat.tags.expiration().is_some());
    for event in [word.event(), &profile, &handler, &heartbeat] {
        event.verify().unwrap();
        assert_eq!(event.pubkey, provider.handle.public_key());
        assert_eq!(values(event, "alt").len(), 1, "kind {}", event.kind);
    }
}

#[tokio::test]
async fn a_profile_of_ones_own_is_left_alone() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |o| o.profile = false).await;
    let buyer = Buyer::connect(&[&relay]).await;
    seen(&buyer, 31990).await;
    let profile = Filter::new()
        .kind(Kind::Metadata)
        .author(provider.handle.public_key());
    assert!(buyer.fetch(profile).await.is_empty());
}
