//! What strangers send: forged, altered, nonsense, replayed.

use std::time::Duration;

use infernet_tests::Market;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag};
use nostr_sdk::Client;

/// Nothing here takes so long unless it is broken.
const SOON: Duration = Duration::from_secs(180);

/// Somebody with a Nostr client of another make.
async fn stranger(market: &Market) -> Client {
    let client = Client::new(Keys::generate());
    client.add_relay(&market.relay.url).await.unwrap();
    client.connect().await;
    client.wait_for_connection(SOON).await;
    client
}

/// Why the relay refuses an event.
async fn refusal(client: &Client, event: &Event) -> String {
    let output = client.send_event(event).await;
    match output {
        Ok(output) if output.success.is_empty() => format!("{:?}", output.failed),
        Ok(_) => panic!("the relay took {}", event.as_json()),
        Err(error) => error.to_string(),
    }
}

/// One job's events, as the relay has them.
fn one_job(market: &Market) -> Vec<Event> {
    let buyer = market.client("buyer");
    let done = buyer
        .json(&["submit", "--json", "--auction", "hello"])
        .unwrap();
    let job = done["job"].as_str().unwrap().to_owned();
    let events = buyer.json(&["show", "--json", &job]).unwrap();
    serde_json::from_value(events).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_altered_events_are_refused() {
    let market = Market::open().unwrap();
    let _provider = market.scripted_provider("alpha", &[]).unwrap();
    let client = stranger(&market).await;
    for mut event in one_job(&market) {
        event.content.push(' ');
        refusal(&client, &event).await;
        // The right id for the altered content, and the old signature.
        event.id = nostr::EventId::new(
            &event.pubkey,
            &event.created_at,
            &event.kind,
            &event.tags,
            &event.content,
        );
        refusal(&client, &event).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_of_the_markets_kinds_is_refused_and_others_kinds_too() {
    let market = Market::open().unwrap();
    let client = stranger(&market).await;
    let keys = Keys::generate();
    let deep = format!("{}{}", "[".repeat(3_000), "]".repeat(3_000));
    let contents = ["", "{}", "[]", "null", "{\"v\":2}", &deep];
    for kind in infernet_protocol::kinds::ALL {
        for content in contents {
            let event = EventBuilder::new(Kind::from(kind), content)
                .tag(Tag::identifier("infernet"))
                .sign_with_keys(&keys)
                .unwrap();
            refusal(&client, &event).await;
        }
    }
    let note = EventBuilder::text_note("hello")
        .sign_with_keys(&keys)
        .unwrap();
    assert!(refusal(&client, &note).await.contains("blocked"));
    // And the relay still serves.
    assert!(
        market
            .client("buyer")
            .run(&["providers"])
            .unwrap()
            .status
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_job_does_nothing() {
    let market = Market::open().unwrap();
    let _provider = market.scripted_provider("alpha", &[]).unwrap();
    let events = one_job(&market);
    let client = stranger(&market).await;
    for event in &events {
        // A relay may take what it has once more, or say that it has it.
        let _ = client.send_event(event).await;
    }
    let count = |events: &[Event]| {
        let result = Kind::from(infernet_protocol::kinds::RESULT);
        events.iter().filter(|event| event.kind == result).count()
    };
    let later = one_job(&market);
    let results = client
        .fetch_events(
            nostr::Filter::new().kind(Kind::from(infernet_protocol::kinds::RESULT)),
            SOON,
        )
        .await
        .unwrap();
    assert_eq!(results.len(), count(&events) + count(&later));
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_cannot_be_deleted_by_its_author() {
    let market = Market::open().unwrap();
    let _provider = market.scripted_provider("alpha", &[]).unwrap();
    let events = one_job(&market);
    let key = std::fs::read_to_string(market.folder("buyer").join("client/client.key")).unwrap();
    let keys = Keys::parse(key.trim()).unwrap();
    let client = stranger(&market).await;
    let evidence = events.iter().filter(|event| {
        event.pubkey == keys.public_key()
            && infernet_protocol::kinds::is_evidence(event.kind.as_u16())
    });
    for event in evidence {
        let deletion = EventBuilder::new(Kind::EventDeletion, "")
            .tag(Tag::event(event.id))
            .sign_with_keys(&keys)
            .unwrap();
        refusal(&client, &deletion).await;
        let still = client
            .fetch_events(nostr::Filter::new().id(event.id), SOON)
            .await
            .unwrap();
        assert_eq!(still.len(), 1);
    }
}
