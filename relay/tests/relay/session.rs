//! What one connection may count on: order, once and only once, who it is, and what becomes of slow readers.

use std::collections::HashSet;

use futures::SinkExt;
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Kind, RelayUrl, Tag, Timestamp};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use crate::Relay;
use crate::client::{Client, event_of, soon};
use crate::events::{attestation, deletion, from_now, offer, plain, profile, progress};

fn said(event: &Event) -> String {
    format!(r#"["EVENT",{}]"#, event.as_json())
}

fn ok(event: &Event) -> Value {
    json!(["OK", event.id.to_hex(), true, ""])
}

#[tokio::test]
async fn answers_come_in_the_order_of_what_they_answer() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let mut forged = profile(&keys, "forged", 0);
    forged.sig = profile(&keys, "other", 0).sig;
    let mut altered = attestation(&keys);
    let kept: Vec<Event> = (0..200).map(|_| attestation(&keys)).collect();
    let passing: Vec<Event> = (0..200).map(|number| progress(&keys, number)).collect();
    for (one, other) in kept.iter().zip(&passing) {
        for event in [one, other, &kept[0]] {
            client.say(said(event)).await;
        }
    }
    altered.id = kept[0].id;
    client.say(said(&forged)).await;
    client.say(said(&altered)).await;
    for (number, (one, other)) in kept.iter().zip(&passing).enumerate() {
        assert_eq!(client.hear().await, ok(one));
        assert_eq!(client.hear().await, ok(other));
        let again = client.hear().await;
        assert_eq!(again[1], kept[0].id.to_hex(), "{number}");
        assert!(again[3].as_str().unwrap().starts_with("duplicate: "));
        assert_eq!(again[2], true);
    }
    for _ in [&forged, &altered] {
        let refused = client.hear().await;
        assert_eq!(refused[2], false);
        assert!(refused[3].as_str().unwrap().starts_with("invalid: "));
    }
}

#[tokio::test]
async fn a_subscriber_hears_events_in_the_order_of_their_connection() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let (mut reader, mut writer) = (relay.client().await, relay.client().await);
    reader
        .subscribe(&Filter::new().author(keys.public_key()))
        .await;
    let mut events = Vec::new();
    for number in 0..100 {
        events.push(progress(&keys, number));
        events.push(attestation(&keys));
    }
    for event in &events {
        writer.say(said(event)).await;
    }
    for event in &events {
        assert_eq!(event_of(&reader.hear().await), *event);
    }
}

#[tokio::test]
async fn who_has_much_to_say_lets_others_have_their_turn() {
    let relay = Relay::start().await;
    let (loud, quiet) = (Keys::generate(), Keys::generate());
    let mut reader = relay.client().await;
    reader
        .subscribe(&Filter::new().authors([loud.public_key(), quiet.public_key()]))
        .await;
    let many: Vec<Event> = (0..1_500).map(|number| progress(&loud, number)).collect();
    let last = many[many.len() - 1].id;
    let mut talking = relay.client().await;
    let talk = tokio::spawn(async move {
        for event in &many {
            talking.say(said(event)).await;
        }
        for _ in &many {
            assert_eq!(talking.hear().await[2], true);
        }
    });
    // The relay, on one thread here, has begun with them.
    reader.hear().await;
    let one = attestation(&quiet);
    relay.client().await.keep(&one).await;
    loop {
        let heard = event_of(&reader.hear().await).id;
        assert_ne!(heard, last, "the other had to wait to the end");
        if heard == one.id {
            break;
        }
    }
    soon(talk).await.unwrap();
}

#[tokio::test]
async fn what_a_client_sent_before_it_went_is_kept_and_told() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut reader = relay.client().await;
    let mine = Filter::new().author(keys.public_key());
    reader.subscribe(&mine).await;
    let events: Vec<Event> = (0..50).map(|_| attestation(&keys)).collect();
    let mut writer = relay.client().await;
    for event in &events {
        writer.say(said(event)).await;
    }
    // It does not wait for what it is answered, but for the end: else its system would take back what was sent.
    writer.say_frame(Message::Close(None)).await;
    writer.hear_out().await;
    for event in &events {
        assert_eq!(event_of(&reader.hear().await), *event);
    }
}

#[tokio::test]
async fn who_closes_is_answered() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    client.say_frame(Message::Close(Some(close))).await;
    let (_, code) = client.hear_out().await;
    assert_eq!(code, Some(CloseCode::Normal));
}

#[tokio::test]
async fn a_subscription_has_neither_gaps_nor_repetitions() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let url = relay.handle.url();
    let (begun, begin) = tokio::sync::oneshot::channel();
    let writing = tokio::spawn({
        let keys = keys.clone();
        async move {
            let mut writer = Client::connect(&url).await;
            let mut begun = Some(begun);
            let mut written = Vec::new();
            for number in 0..1_500 {
                let event = attestation(&keys);
                writer.say(said(&event)).await;
                written.push(event.id);
                if number == 200 {
                    begun.take().map(|begun| begun.send(()));
                }
            }
            for id in &written {
                assert_eq!(writer.hear().await[1], id.to_hex());
            }
            written
        }
    });
    begin.await.unwrap();
    let (mut readers, mut heard) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut reader = relay.client().await;
        let mine = Filter::new().author(keys.public_key()).limit(500);
        // Two filters of one request that match the same.
        let all = Filter::new().limit(500);
        let request = format!(r#"["REQ","s",{},{}]"#, mine.as_json(), all.as_json());
        reader.say(request).await;
        readers.push(reader);
        heard.push(Vec::new());
    }
    let written = soon(writing).await.unwrap();
    let last = *written.last().unwrap();
    for (reader, heard) in readers.iter_mut().zip(&mut heard) {
        let mut ended = false;
        loop {
            let message = reader.hear().await;
            if message[0] == "EOSE" {
                assert!(!ended, "one end");
                ended = true;
                if heard.contains(&last) {
                    break;
                }
                continue;
            }
            let event = event_of(&message);
            heard.push(event.id);
            if event.id == last && ended {
                break;
            }
        }
        let once: HashSet<_> = heard.iter().collect();
        assert_eq!(once.len(), heard.len(), "something came twice");
        let first = heard
            .iter()
            .filter_map(|id| written.iter().position(|one| one == id));
        let first = first.min().unwrap();
        assert_eq!(heard.len(), written.len() - first, "something is missing");
    }
}

#[tokio::test]
async fn a_request_takes_the_place_of_one_with_the_same_id() {
    let relay = Relay::start().await;
    let (one, other) = (Keys::generate(), Keys::generate());
    let (mut reader, mut writer) = (relay.client().await, relay.client().await);
    reader
        .subscribe(&Filter::new().author(one.public_key()))
        .await;
    reader
        .subscribe(&Filter::new().author(other.public_key()))
        .await;
    writer.keep(&profile(&one, "one", 0)).await;
    let heard = profile(&other, "other", 0);
    writer.keep(&heard).await;
    assert_eq!(event_of(&reader.hear().await), heard);
    reader.say(r#"["CLOSE","s"]"#).await;
    reader.count().await;
    writer.keep(&offer(&other, 60)).await;
    let counted = reader.count().await;
    assert_eq!(counted, 3, "and nothing was heard before that");
}

#[tokio::test]
async fn an_ephemeral_event_that_comes_twice_is_told_once() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let (mut reader, mut writer) = (relay.client().await, relay.client().await);
    let mut other = relay.client().await;
    reader.subscribe(&Filter::new()).await;
    let (twice, last) = (progress(&keys, 1), progress(&keys, 2));
    writer.keep(&twice).await;
    for client in [&mut writer, &mut other] {
        let (taken, why) = client.publish(&twice).await;
        assert!(taken && why.starts_with("duplicate: "), "{why}");
    }
    writer.keep(&last).await;
    assert_eq!(event_of(&reader.hear().await), twice);
    assert_eq!(event_of(&reader.hear().await), last);
}

#[tokio::test]
async fn counts_are_right_and_name_their_id() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let (offer, profile) = (offer(&keys, 60), profile(&keys, "me", 0));
    client.keep(&offer).await;
    client.keep(&profile).await;
    let (offers, mine) = (
        Filter::new().kind(offer.kind).as_json(),
        Filter::new().author(keys.public_key()).as_json(),
    );
    for (filters, count) in [
        (offers.clone(), 1),
        (mine.clone(), 2),
        (format!("{offers},{mine}"), 2),
        (Filter::new().ids([]).as_json(), 0),
    ] {
        client.say(format!(r#"["COUNT","c",{filters}]"#)).await;
        let wanted = json!(["COUNT", "c", { "count": count }]);
        assert_eq!(client.hear().await, wanted, "{filters}");
    }
}

/// A client that takes hardly anything into its buffers.
async fn narrow(relay: &Relay) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(relay.handle.address()).await.unwrap();
    let request = relay.handle.url().into_client_request().unwrap();
    let (client, _) = soon(tokio_tungstenite::client_async(request, stream))
        .await
        .unwrap();
    client
}

#[tokio::test]
async fn a_slow_reader_is_told_and_closed_and_nobody_waits_for_it() {
    let relay = Relay::start_with(|options| {
        options.general = true;
        options.work.max_bits = 0;
        options.limits.outbox_bytes = 1 << 20;
    })
    .await;
    let keys = Keys::generate();
    let mut slow = narrow(&relay).await;
    let request = Message::text(r#"["REQ","s",{"kinds":[20001]}]"#);
    soon(slow.send(request)).await.unwrap();
    let (mut reader, mut writer) = (relay.client().await, relay.client().await);
    let passing = Filter::new().kind(Kind::from(20_001));
    reader.subscribe(&passing).await;
    let large = "x".repeat(50_000);
    // More than the outbox and all buffers between hold: the kernel's own go up to a few megabytes.
    for number in 0..400 {
        let event = plain(&keys, 20_001, &format!("{large}{number}"), [], from_now(0));
        writer.keep(&event).await;
        assert_eq!(event_of(&reader.hear().await).id, event.id);
    }
    let mut slow = Client::over(slow);
    let (heard, code) = slow.hear_out().await;
    assert_eq!(code, Some(CloseCode::Again));
    let last = heard.last().unwrap();
    assert_eq!(last[0], "NOTICE", "{last}");
    assert!(last[1].as_str().unwrap().contains("slow"), "{last}");
}

#[tokio::test]
async fn a_slow_reader_of_what_is_stored_gets_all_of_it() {
    let relay = Relay::start_with(|options| {
        options.general = true;
        options.work.max_bits = 0;
        options.limits.outbox_bytes = 1 << 20;
    })
    .await;
    let keys = Keys::generate();
    let mut writer = relay.client().await;
    let large = "x".repeat(40_000);
    for number in 0..200 {
        let event = plain(&keys, 1, &format!("{large}{number}"), [], from_now(-number));
        writer.keep(&event).await;
    }
    let mut slow = narrow(&relay).await;
    let request = Message::text(r#"["REQ","s",{"kinds":[1]}]"#);
    soon(slow.send(request)).await.unwrap();
    let mut slow = Client::over(slow);
    assert_eq!(slow.hear().await[0], "AUTH");
    let mut newest_first = Vec::new();
    loop {
        let message = slow.hear().await;
        if message[0] == "EOSE" {
            break;
        }
        newest_first.push(event_of(&message).created_at);
    }
    assert_eq!(newest_first.len(), 200);
    assert!(newest_first.is_sorted_by(|newer, older| newer >= older));
}

/// What a client signs to show who it is, changed by `change`.
fn auth(client: &Client, relay: &Relay, keys: &Keys) -> EventBuilder {
    EventBuilder::auth(
        &client.challenge,
        RelayUrl::parse(&relay.handle.url()).unwrap(),
    )
    .custom_created_at(Timestamp::from_secs(from_now(0).as_secs()))
    .tag(Tag::alt(keys.public_key().to_hex()))
}

#[tokio::test]
async fn who_shows_its_key_is_known_by_it() {
    let relay = Relay::start_with(|options| options.general = true).await;
    let (keys, other) = (Keys::generate(), Keys::generate());
    let mut client = relay.client().await;
    let protected = |keys| plain(keys, 1, "mine alone", [Tag::protected()], from_now(0));
    let (taken, why) = client.publish(&protected(&keys)).await;
    assert!(!taken && why.starts_with("auth-required: "), "{why}");

    let event = auth(&client, &relay, &keys).sign_with_keys(&keys).unwrap();
    client.say(format!(r#"["AUTH",{}]"#, event.as_json())).await;
    assert_eq!(client.hear().await, ok(&event));
    client.keep(&protected(&keys)).await;
    let (taken, why) = client.publish(&protected(&other)).await;
    assert!(!taken && why.starts_with("restricted: "), "{why}");

    // A second key on the same connection, by the same challenge.
    let event = auth(&client, &relay, &other)
        .sign_with_keys(&other)
        .unwrap();
    client.say(format!(r#"["AUTH",{}]"#, event.as_json())).await;
    assert_eq!(client.hear().await, ok(&event));
    client.keep(&protected(&other)).await;
}

#[tokio::test]
async fn who_shows_something_else_is_not() {
    let relay = Relay::start_with(|options| options.general = true).await;
    let keys = Keys::generate();
    let (mut client, other) = (relay.client().await, relay.client().await);
    let sign = |builder: EventBuilder| builder.sign_with_keys(&keys).unwrap();
    let right = sign(auth(&client, &relay, &keys));
    let mut forged = right.clone();
    forged.sig = sign(EventBuilder::text_note("")).sig;
    let elsewhere = RelayUrl::parse("wss://elsewhere.example").unwrap();
    let old = Timestamp::from_secs(from_now(-700).as_secs());
    let wrong = [
        forged,
        sign(auth(&other, &relay, &keys)),
        sign(EventBuilder::auth(&client.challenge, elsewhere)),
        sign(auth(&client, &relay, &keys).custom_created_at(old)),
        plain(&keys, 27_235, "", right.tags.clone().to_vec(), from_now(0)),
    ];
    for event in wrong {
        client.say(format!(r#"["AUTH",{}]"#, event.as_json())).await;
        let answer = client.hear().await;
        assert_eq!((&answer[0], &answer[2]), (&json!("OK"), &json!(false)));
        assert!(
            answer[3].as_str().unwrap().starts_with("invalid: "),
            "{answer}"
        );
    }
    let protected = plain(&keys, 1, "", [Tag::protected()], from_now(0));
    assert!(!client.publish(&protected).await.0);
    // It is nobody else's business who it is.
    let (taken, why) = client.publish(&right).await;
    assert!(!taken && why.starts_with("invalid: "), "{why}");
}

#[tokio::test]
async fn what_was_deleted_a_moment_ago_is_refused() {
    let relay = Relay::start().await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let offer = offer(&keys, 60);
    client.keep(&offer).await;
    client.keep(&deletion(&keys, &[&offer])).await;
    let (taken, why) = client.publish(&offer).await;
    assert!(!taken && why.starts_with("blocked: "), "{taken} {why}");
}

#[tokio::test]
async fn half_a_message_harms_nobody() {
    let relay = Relay::start().await;
    for bytes in [&[0x81][..], &[0x81, 0xfe], &[0x81, 0x85, 1, 2, 3, 4, b'h']] {
        let mut half = TcpStream::connect(relay.handle.address()).await.unwrap();
        let request = relay.handle.url().into_client_request().unwrap();
        let (mut websocket, _) = soon(tokio_tungstenite::client_async(request, &mut half))
            .await
            .unwrap();
        websocket.get_mut().write_all(bytes).await.unwrap();
    }
    relay
        .client()
        .await
        .keep(&profile(&Keys::generate(), "me", 0))
        .await;
}
