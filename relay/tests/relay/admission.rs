//! What comes in and what does not, and what the relay says to it.

use infernet_protocol::bounds::MAX_EVENT_BYTES;
use infernet_protocol::kinds;
use infernet_relay::MAX_AHEAD_SECS;
use nostr::{Event, EventId, Filter, Keys, Kind, Tag, Timestamp};

use crate::Relay;
use crate::events::{attestation, deletion, from_now, offer, plain, profile, progress};

#[tokio::test]
async fn the_markets_events_are_taken_and_answered() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let (offer, attestation) = (offer(&keys, 60), attestation(&keys));
    client.keep(&offer).await;
    client.keep(&attestation).await;
    let offers = Filter::new().kind(Kind::from(kinds::OFFER));
    assert_eq!(client.stored(&offers).await.first(), Some(&offer));
    let mine = Filter::new().author(keys.public_key());
    assert_eq!(client.stored(&mine).await.len(), 2);
    let (taken, said) = client.publish(&offer).await;
    assert!(taken && said.starts_with("duplicate: "), "{said}");
}

#[tokio::test]
async fn what_comes_with_an_announcement_is_taken_too() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    for kind in [0, 5, 10002, 11998, 31990] {
        let event = plain(&keys, kind, "{}", [Tag::identifier("x")], from_now(0));
        client.keep(&event).await;
    }
}

#[tokio::test]
async fn other_kinds_need_a_general_relay() {
    let note = plain(&Keys::generate(), 1, "hello", [], from_now(0));
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    client
        .refused(&note, "blocked: kind 1 is not the market's")
        .await;
    assert_eq!(client.count().await, 0);

    let general = Relay::start_with(|options| options.general = true).await;
    let mut client = general.client().await;
    client.keep(&note).await;
    assert_eq!(client.stored(&Filter::new()).await, [note]);
}

#[tokio::test]
async fn a_market_event_that_protocol_refuses_is_refused_with_its_reason() {
    let general = Relay::start_with(|options| options.general = true).await;
    let mut client = general.client().await;
    for kind in kinds::ALL {
        let event = plain(&Keys::generate(), kind, "{}", [], from_now(0));
        client.refused(&event, &format!("kind {kind}: ")).await;
    }
}

#[tokio::test]
async fn a_forged_signature_is_refused() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let mut event = profile(&Keys::generate(), "me", 0);
    event.sig = profile(&Keys::generate(), "me", 0).sig;
    client.refused(&event, "invalid: ").await;
    assert_eq!(client.count().await, 0);
}

#[tokio::test]
async fn an_altered_event_is_refused() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let event = profile(&Keys::generate(), "me", 0);
    let altered: [fn(&mut Event); 4] = [
        |event| event.content.push('!'),
        |event| event.created_at = from_now(-1_000),
        |event| event.pubkey = Keys::generate().public_key(),
        |event| event.id = EventId::all_zeros(),
    ];
    for alter in altered {
        let mut event = event.clone();
        alter(&mut event);
        client.refused(&event, "invalid: ").await;
    }
    client.keep(&event).await;
}

#[tokio::test]
async fn an_event_from_the_future_is_refused() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let ahead = i64::try_from(MAX_AHEAD_SECS).unwrap();
    let event = profile(&keys, "later", -(ahead + 60));
    client.refused(&event, "check your clock").await;
    let event = plain(&keys, 0, "{}", [], Timestamp::max());
    client.refused(&event, "check your clock").await;
    client.keep(&profile(&keys, "soon", -(ahead - 60))).await;
}

#[tokio::test]
async fn an_event_over_the_bound_is_refused() {
    let general = Relay::start_with(|options| options.general = true).await;
    let mut client = general.client().await;
    let sized = |content: usize| {
        let content = "a".repeat(content);
        plain(&Keys::generate(), 1, &content, [], from_now(0))
    };
    let envelope = infernet_protocol::event::encoded_len(&sized(0));
    let fits = MAX_EVENT_BYTES - envelope;
    client.keep(&sized(fits)).await;
    client.refused(&sized(fits + 1), "65537 bytes").await;
}

#[tokio::test]
async fn an_older_version_is_refused() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let (old, new) = (profile(&keys, "old", 10), profile(&keys, "new", 5));
    client.keep(&new).await;
    client.refused(&old, &new.id.to_hex()).await;
    let handler =
        |name: &str, ago: i64| plain(&keys, 31990, "", [Tag::identifier(name)], from_now(-ago));
    let (old, new, other) = (handler("a", 10), handler("a", 5), handler("b", 20));
    client.keep(&new).await;
    client.keep(&other).await;
    client.refused(&old, &new.id.to_hex()).await;
}

#[tokio::test]
async fn evidence_cannot_be_deleted() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let (evidence, offer) = (attestation(&keys), offer(&keys, 60));
    client.keep(&evidence).await;
    client.keep(&offer).await;
    let both = deletion(&keys, &[&offer, &evidence]);
    client.refused(&both, &evidence.id.to_hex()).await;
    assert_eq!(
        client.count().await,
        2,
        "a refused deletion deletes nothing"
    );
    client
        .refused(&deletion(&keys, &[&evidence]), "evidence")
        .await;
    assert_eq!(
        client.stored(&Filter::new().id(evidence.id)).await,
        [evidence]
    );
}

#[tokio::test]
async fn evidence_that_comes_after_its_deletion_stays_too() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let evidence = attestation(&keys);
    client.keep(&deletion(&keys, &[&evidence])).await;
    client.keep(&evidence).await;
    assert_eq!(
        client.stored(&Filter::new().id(evidence.id)).await,
        [evidence]
    );
}

#[tokio::test]
async fn evidence_may_not_expire() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let signed = attestation(&keys);
    let mut tags = signed.tags.clone().to_vec();
    tags.push(Tag::expiration(from_now(60)));
    let passing = plain(
        &keys,
        kinds::ATTESTATION,
        &signed.content,
        tags,
        from_now(0),
    );
    let mut client = relay.client().await;
    client.refused(&passing, "carries no expiration").await;
}

#[tokio::test]
async fn other_events_can_be_deleted_by_their_author_only() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let offer = offer(&keys, 60);
    let only = Filter::new().id(offer.id);
    client.keep(&offer).await;
    let foreign = deletion(&Keys::generate(), &[&offer]);
    client.refused(&foreign, "not yours to delete").await;
    assert_eq!(client.stored(&only).await.first(), Some(&offer));
    client.keep(&deletion(&keys, &[&offer])).await;
    assert_eq!(client.stored(&only).await, []);
    client.refused(&offer, "deleted").await;
}

#[tokio::test]
async fn an_address_can_be_deleted_by_its_author_only() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let handler = plain(&keys, 31990, "", [Tag::identifier("a")], from_now(-5));
    client.keep(&handler).await;
    let address = format!("31990:{}:a", keys.public_key());
    let named = || [Tag::parse(["a", &address]).unwrap()];
    let foreign = plain(&Keys::generate(), 5, "", named(), from_now(0));
    client.refused(&foreign, "not yours to delete").await;
    client
        .keep(&plain(&keys, 5, "", named(), from_now(0)))
        .await;
    let handlers = Filter::new().kind(Kind::from(31990));
    assert_eq!(client.stored(&handlers).await, []);
}

#[tokio::test]
async fn an_identifier_that_the_store_cannot_tell_apart_is_refused() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let handler = |identifier: &str, ago: i64| {
        plain(
            &keys,
            31990,
            "",
            [Tag::identifier(identifier)],
            from_now(-ago),
        )
    };
    let alike = "x".repeat(182);
    let kept = handler(&alike, 1);
    client.keep(&kept).await;
    for longer in [format!("{alike}y"), "x".repeat(600)] {
        client.refused(&handler(&longer, 0), "identifier").await;
        let address = format!("31990:{}:{longer}", keys.public_key());
        let named = [Tag::parse(["a", &address]).unwrap()];
        let deletion = plain(&keys, 5, "", named, from_now(0));
        client.refused(&deletion, "identifier").await;
    }
    let handlers = Filter::new().kind(Kind::from(31990));
    assert_eq!(client.stored(&handlers).await, [kept]);
}

#[tokio::test]
async fn ephemeral_events_are_passed_on_and_not_stored() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let (mut reader, mut writer) = (relay.client().await, relay.client().await);
    let mine = Filter::new().author(keys.public_key());
    assert_eq!(reader.subscribe(&mine).await, []);
    for number in 0..100 {
        let piece = progress(&keys, number);
        writer.keep(&piece).await;
        assert_eq!(crate::client::event_of(&reader.hear().await), piece);
    }
    assert_eq!(writer.stored(&mine).await, []);
    assert_eq!(writer.count().await, 0);
}
