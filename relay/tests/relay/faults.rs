//! What clients do wrong, on purpose or not.

use infernet_relay::MAX_MESSAGE_BYTES;
use nostr::{Filter, JsonUtil, Keys, Kind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};

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
    let mut client = relay.client().await;
    let deep = format!(r#"["EVENT",{}{}]"#, "[".repeat(60_000), "]".repeat(60_000));
    let event = profile(&Keys::generate(), "me", 0);
    let tags = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let inside = event
        .as_json()
        .replace(r#""tags":[]"#, &format!(r#""tags":{tags}"#));
    assert!(inside.len() > 40_000);
    let objects = format!("{}1{}", r#"{"a":"#.repeat(15_000), "}".repeat(15_000));
    for (text, word) in [
        (deep, "NOTICE"),
        (format!(r#"["EVENT",{inside}]"#), "OK"),
        (format!(r#"["REQ","s",{objects}]"#), "CLOSED"),
        ("[".repeat(MAX_MESSAGE_BYTES), "NOTICE"),
    ] {
        client.say(text).await;
        let said = client.hear().await;
        assert_eq!(said[0], word, "{said}");
        let why = said.as_array().unwrap().last().unwrap().as_str().unwrap();
        assert!(why.starts_with("invalid: "), "{said}");
    }
    client.keep(&event).await;
}

#[tokio::test]
async fn nonsense_is_answered_with_a_notice_and_too_much_of_it_ends_the_connection() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    for text in [
        "",
        "hello",
        "[]",
        "{}",
        r#"["EVENT"]"#,
        r#"["SING","la"]"#,
        "null",
    ] {
        client.say(text).await;
        let said = client.hear().await;
        assert_eq!(said[0], "NOTICE", "{text:?}: {said}");
        assert!(said[1].as_str().unwrap().starts_with("invalid: "), "{said}");
    }
    client.keep(&profile(&Keys::generate(), "me", 0)).await;
    for _ in 0..50 {
        client.say("hello").await;
    }
    let (heard, code) = client.hear_out().await;
    let last = heard.last().unwrap();
    assert!(last[1].as_str().unwrap().contains("too many"), "{last}");
    assert_eq!(code, Some(CloseCode::Invalid));
    still_serves(&relay).await;
}

#[tokio::test]
async fn forgeries_end_their_connection() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let mut event = profile(&Keys::generate(), "me", 0);
    event.sig = profile(&Keys::generate(), "me", 0).sig;
    for _ in 0..51 {
        client
            .say(format!(r#"["EVENT",{}]"#, event.as_json()))
            .await;
    }
    let (heard, code) = client.hear_out().await;
    assert_eq!(heard.len(), 52, "refusals and a notice");
    assert_eq!(code, Some(CloseCode::Invalid));
    still_serves(&relay).await;
}

#[tokio::test]
async fn what_is_no_text_is_refused() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    client.say_frame(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(client.hear().await[0], "NOTICE");
    let broken = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
    client.say_frame(Message::Frame(broken)).await;
    let (heard, code) = client.hear_out().await;
    assert_eq!(heard[0][0], "NOTICE");
    assert_eq!(code, Some(CloseCode::Invalid));
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

/// Asks for `filter` as a subscription and as a count, and wants both refused for a reason that contains `why`.
async fn refuses(client: &mut Client, filter: &str, why: &str) {
    for word in ["REQ", "COUNT"] {
        client.say(format!(r#"["{word}","s",{filter}]"#)).await;
        let closed = client.hear().await;
        assert_eq!((&closed[0], &closed[1]), (&json!("CLOSED"), &json!("s")));
        assert!(closed[2].as_str().unwrap().contains(why), "{closed}");
    }
}

#[tokio::test]
async fn a_search_is_refused_rather_than_read_through_the_store() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let search = Filter::new().search("anything").as_json();
    refuses(&mut client, &search, "unsupported: ").await;
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
    refuses(&mut client, &broad, "invalid: too many").await;
}

#[tokio::test]
async fn a_filter_that_is_not_understood_is_refused() {
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    for filter in [
        r#"{"author":["x"]}"#,
        r#"{"ids":["ab"]}"#,
        r##"{"#pp":["x"]}"##,
        r#"{"kinds":[65536]}"#,
        r#"{"limit":-1}"#,
        "[]",
        "1",
    ] {
        refuses(&mut client, filter, "invalid: ").await;
    }
    let many = vec!["{}"; 21].join(",");
    refuses(&mut client, &many, "invalid: ").await;
    client.keep(&profile(&Keys::generate(), "me", 0)).await;
    let nothing = Filter::new().ids([]);
    assert_eq!(
        client.stored(&nothing).await,
        [],
        "an empty list is met by none"
    );
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
