//! What clients do wrong, on purpose or not.

use infernet_relay::MAX_MESSAGE_BYTES;
use nostr::{Filter, JsonUtil, Keys, Kind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::Relay;
use crate::client::{Client, soon};
use crate::events::{from_now, plain, profile, progress};

/// What the relay says to a client that sends `text`, and how it closes.
async fn answer(relay: &Relay, text: String) -> (String, Option<CloseCode>) {
    let mut client = relay.client().await;
    client.say(text).await;
    let (heard, code) = client.hear_out().await;
    let notice = heard.first().filter(|said| said[0] == "NOTICE");
    let notice = notice.and_then(|said| said[1].as_str().map(str::to_owned));
    (notice.unwrap_or_default(), code)
}

async fn still_serves(relay: &Relay) {
    let keys = Keys::generate();
    let event = profile(&keys, "me", 0);
    let mut client = relay.client().await;
    client.keep(&event).await;
    assert_eq!(client.stored(&Filter::new().id(event.id)).await, [event]);
}

#[tokio::test]
async fn a_message_over_the_bound_ends_its_connection_with_a_reason() {
    let relay = Relay::start().await;
    for bytes in [MAX_MESSAGE_BYTES + 1, 8 << 20] {
        let (notice, code) = answer(&relay, "a".repeat(bytes)).await;
        assert!(notice.contains("131072 bytes at most"), "{notice}");
        assert_eq!(code, Some(CloseCode::Size));
    }
    still_serves(&relay).await;
}

#[tokio::test]
async fn an_event_a_bit_over_its_bound_keeps_its_connection() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let event = plain(&Keys::generate(), 0, &"a".repeat(100_000), [], from_now(0));
    client.refused(&event, "bytes as JSON").await;
    client.keep(&profile(&Keys::generate(), "me", 0)).await;
}

#[tokio::test]
async fn deeply_nested_json_harms_nobody() {
    let relay = Relay::start().await;
    let deep = format!(r#"["EVENT",{}{}]"#, "[".repeat(60_000), "]".repeat(60_000));
    let event = profile(&Keys::generate(), "me", 0).as_json();
    let tags = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let inside = event.replace(r#""tags":[]"#, &format!(r#""tags":{tags}"#));
    assert!(inside.len() > 40_000);
    let objects = format!("{}1{}", r#"{"a":"#.repeat(15_000), "}".repeat(15_000));
    for text in [
        deep,
        format!(r#"["EVENT",{inside}]"#),
        format!(r#"["REQ","s",{objects}]"#),
        "[".repeat(MAX_MESSAGE_BYTES),
    ] {
        let (notice, code) = answer(&relay, text).await;
        assert!(
            notice.starts_with("invalid: unreadable message"),
            "{notice}"
        );
        assert_eq!(code, Some(CloseCode::Invalid));
    }
    still_serves(&relay).await;
}

#[tokio::test]
async fn nonsense_is_answered_with_a_notice() {
    let relay = Relay::start().await;
    for text in [
        "",
        "hello",
        "[]",
        "{}",
        r#"["EVENT"]"#,
        r#"["SING","la"]"#,
        "null",
    ] {
        let (notice, _) = answer(&relay, text.to_owned()).await;
        assert!(notice.starts_with("invalid: "), "{text:?}: {notice}");
    }
    still_serves(&relay).await;
}

#[tokio::test]
async fn a_sender_over_the_pace_waits_and_loses_nothing() {
    let relay = Relay::start_with(|options| {
        options.limits.messages_per_second = 100;
        options.limits.burst = 10;
    })
    .await;
    let keys = Keys::generate();
    let mut client = relay.client().await;
    let pieces: Vec<_> = (0..110).map(|number| progress(&keys, number)).collect();
    let began = std::time::Instant::now();
    for piece in &pieces {
        client
            .say(format!(r#"["EVENT",{}]"#, piece.as_json()))
            .await;
    }
    for piece in &pieces {
        assert_eq!(
            client.hear().await,
            json!(["OK", piece.id.to_hex(), true, ""])
        );
    }
    client.keep(&progress(&keys, 110)).await;
    assert!(began.elapsed().as_secs_f64() > 0.9, "it went too fast");
}

#[tokio::test]
async fn a_search_is_refused_rather_than_read_through_the_store() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let search = Filter::new().search("anything").as_json();
    client.say(format!(r#"["REQ","s",{search}]"#)).await;
    let closed = client.hear().await;
    assert_eq!(closed[0], "CLOSED");
    assert!(closed[2].as_str().unwrap().contains("search"), "{closed}");
    let (notice, _) = answer(&relay, format!(r#"["COUNT","c",{search}]"#)).await;
    assert!(notice.starts_with("error: "), "{notice}");
}

#[tokio::test]
async fn a_filter_with_too_many_combinations_is_refused() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let authors: Vec<_> = (0..200).map(|_| Keys::generate().public_key()).collect();
    let broad = |kinds| {
        Filter::new()
            .authors(authors.clone())
            .kinds((0..kinds).map(Kind::from))
    };
    assert_eq!(client.stored(&broad(100)).await, []);
    let broad = broad(101).as_json();
    client.say(format!(r#"["REQ","s",{broad}]"#)).await;
    let closed = client.hear().await;
    assert_eq!(closed[0], "CLOSED");
    assert!(closed[2].as_str().unwrap().contains("too many"), "{closed}");
    let (notice, _) = answer(&relay, format!(r#"["COUNT","c",{broad}]"#)).await;
    assert!(notice.contains("broadly"), "{notice}");
}

#[tokio::test]
async fn a_reconciliation_is_refused_rather_than_kept_in_memory() {
    let relay = Relay::start().await;
    let (notice, code) = answer(&relay, r#"["NEG-OPEN","n",{},"6100000200"]"#.to_owned()).await;
    assert!(notice.starts_with("error: "), "{notice}");
    assert_eq!(code, Some(CloseCode::Policy));
    still_serves(&relay).await;
}

#[tokio::test]
async fn subscriptions_are_bounded() {
    let relay = Relay::start_with(|options| options.limits.subscriptions = 3).await;
    let mut client = relay.client().await;
    for number in 0..4 {
        client
            .say(json!(["REQ", number.to_string(), {}]).to_string())
            .await;
        let (heard, wanted) = (
            client.hear().await,
            if number < 3 { "EOSE" } else { "CLOSED" },
        );
        assert_eq!(heard[0], wanted, "{heard}");
    }
    client
        .say(json!(["REQ", "x".repeat(65), {}]).to_string())
        .await;
    assert_eq!(client.hear().await[0], "CLOSED");
}

#[tokio::test]
async fn connections_are_bounded_and_their_places_come_back() {
    let relay = Relay::start_with(|options| options.limits.connections = 2).await;
    let first = relay.client().await;
    let _second = relay.client().await;
    let refused = soon(connect_async(relay.handle.url())).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
    drop(first);
    soon(async { while connect_async(relay.handle.url()).await.is_err() {} }).await;
}

#[tokio::test]
async fn an_answer_holds_a_bounded_number_of_events() {
    let relay = Relay::start_with(|options| options.limits.stored_events = 5).await;
    let mut client = relay.client().await;
    for _ in 0..7 {
        client.keep(&profile(&Keys::generate(), "me", 0)).await;
    }
    assert_eq!(client.stored(&Filter::new()).await.len(), 5);
    assert_eq!(client.stored(&Filter::new().limit(100)).await.len(), 5);
    assert_eq!(client.stored(&Filter::new().limit(2)).await.len(), 2);
}

#[tokio::test]
async fn a_stop_tells_every_client() {
    let relay = Relay::start().await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..5 {
        clients.push(relay.client().await);
    }
    let url = relay.handle.url();
    let ended = tokio::spawn(relay.stop());
    for mut client in clients {
        let (_, code) = client.hear_out().await;
        assert_eq!(code, Some(CloseCode::Away));
    }
    soon(ended).await.unwrap();
    assert!(connect_async(url).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever_for_a_client_that_hangs() {
    let relay = Relay::start().await;
    let mut stream = TcpStream::connect(relay.handle.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut client = TcpStream::connect(relay.handle.address()).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    soon(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    // The first half of a frame's header, and never the second.
    client.write_all(&[0x81]).await.unwrap();
    relay.stop().await;
}
