//! What hostile clients try at the cost of others.

use infernet_relay::{Options, Rate};
use nostr::{EventBuilder, Filter, JsonUtil as _, Keys, Kind, RelayUrl, Tag};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Relay;
use crate::client::{Client, soon};
use crate::events::{from_now, plain, profile};

/// The beginning of the relay's answer to a request: its type, and the first word of what it says.
async fn asked(client: &mut Client, request: Value) -> (String, String) {
    client.say(request.to_string()).await;
    let answer = client.hear().await;
    let word = |at: usize| answer[at].as_str().unwrap_or_default().to_owned();
    let said = word(2);
    let first = said.split(' ').next().unwrap_or_default();
    (word(0), first.to_owned())
}

#[tokio::test]
async fn the_subscriptions_of_one_connection_are_bounded_in_all() {
    let relay = Relay::start().await;
    let refused = ("CLOSED".to_owned(), "rate-limited:".to_owned());
    // Each event of the kind would be held against each of them.
    let mut client = relay.client().await;
    let mut request = vec![json!("REQ"), json!("")];
    request
        .extend((0..20).map(|since| json!({ "kinds": [0], "since": 9_999_999_999_u64 + since })));
    for number in 0..26 {
        request[1] = json!(number.to_string());
        let answer = asked(&mut client, json!(request)).await;
        match number < 25 {
            true => assert_eq!(answer.0, "EOSE"),
            false => assert_eq!(answer, refused),
        }
    }
    // What is closed is free again.
    client.say(r#"["CLOSE","3"]"#).await;
    assert_eq!(asked(&mut client, json!(request)).await.0, "EOSE");
    // Few bytes of JSON can be many in memory.
    let mut client = relay.client().await;
    let values: Vec<_> = (0..9_000).map(|value| value.to_string()).collect();
    let many = json!({ "#d": values });
    assert_eq!(
        asked(&mut client, json!(["REQ", "a", many])).await.0,
        "EOSE"
    );
    assert_eq!(asked(&mut client, json!(["REQ", "b", many])).await, refused);
    assert_eq!(
        asked(&mut client, json!(["REQ", "a", many])).await.0,
        "EOSE",
        "in its place"
    );
}

/// Counts this machine's addresses, and lets each send so many events, or requests.
fn counted(options: &mut Options, many: u64) {
    options.limits.count_loopback = true;
    options.limits.address.events = Rate::new(1, many);
    options.limits.address.requests = Rate::new(1, many);
}

#[tokio::test]
async fn what_is_known_already_counts_too() {
    let relay = Relay::start_with(|options| counted(options, 5)).await;
    let mut client = relay.client().await;
    let event = profile(&Keys::generate(), "me", 0);
    client.keep(&event).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(client.publish(&event).await);
    }
    assert!(
        answers[0].0 && answers[0].1.starts_with("duplicate:"),
        "{answers:?}"
    );
    let is_limited = |(taken, said): &(bool, String)| !taken && said.starts_with("rate-limited:");
    assert!(answers.iter().any(is_limited), "{answers:?}");
}

#[tokio::test]
async fn saying_who_one_is_counts_as_an_event() {
    let relay = Relay::start_with(|options| counted(options, 5)).await;
    let mut client = relay.client().await;
    let url = RelayUrl::parse(&relay.handle.url()).unwrap();
    let auth = EventBuilder::auth(&client.challenge, url);
    let auth = auth.sign_with_keys(&Keys::generate()).unwrap();
    let mut answers = Vec::new();
    for _ in 0..9 {
        client.say(format!(r#"["AUTH",{}]"#, auth.as_json())).await;
        answers.push(client.hear().await);
    }
    assert_eq!(answers[0][2], true);
    let is_limited = |answer: &Value| {
        answer[2] == false && answer[3].as_str().unwrap().starts_with("rate-limited:")
    };
    assert!(answers.iter().any(is_limited), "{answers:?}");
}

#[tokio::test]
async fn each_message_of_a_reconciliation_counts_as_a_request() {
    let relay = Relay::start_with(|options| counted(options, 5)).await;
    let mut client = relay.client().await;
    let answer = asked(&mut client, json!(["NEG-OPEN", "n", {}, "61"])).await;
    assert_eq!(answer.0, "NEG-MSG");
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(asked(&mut client, json!(["NEG-MSG", "n", "61"])).await);
    }
    assert!(
        answers.contains(&("NEG-ERR".to_owned(), "rate-limited:".to_owned())),
        "{answers:?}"
    );
}

#[tokio::test]
async fn a_limit_does_not_tell_that_there_are_private_events() {
    let relay = Relay::start_with(|options| options.general = true).await;
    let (author, reader) = (Keys::generate(), Keys::generate());
    let to = || Tag::public_key(reader.public_key());
    let open = plain(&author, 1, "for all", [to()], from_now(-100));
    let private = plain(&author, 4, "for one", [to()], from_now(-50));
    let mut client = relay.client().await;
    client.keep(&open).await;
    client.keep(&private).await;
    let mut stranger = relay.client().await;
    for filter in [
        Filter::new().author(author.public_key()),
        Filter::new().pubkey(reader.public_key()),
        Filter::new().kinds([Kind::from(1), Kind::from(4)]),
    ] {
        let newest = filter.limit(1);
        assert_eq!(stranger.stored(&newest).await, std::slice::from_ref(&open));
        let nothing = json!({ "kinds": [7] });
        for request in [
            json!(["COUNT", "c", newest]),
            json!(["COUNT", "c", newest, nothing]),
        ] {
            stranger.say(request.to_string()).await;
            let answer = stranger.hear().await;
            assert_eq!(answer[2], json!({ "count": 1 }), "{answer}");
        }
    }
}

#[tokio::test]
async fn who_says_nothing_takes_nobodys_place() {
    let relay = Relay::start_with(|options| options.limits.connections = 2).await;
    let address = relay.handle.address();
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut client = relay.client().await;
    assert_eq!(client.count().await, 0);
}

#[tokio::test]
async fn one_address_has_few_connections_that_say_nothing() {
    let relay = Relay::start_with(|options| {
        options.limits.count_loopback = true;
        options.limits.address.connections = 2;
    })
    .await;
    let address = relay.handle.address();
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // It is closed without a word, before it asks anything.
    let mut over = idle.pop().unwrap();
    let mut heard = Vec::new();
    let _ = soon(over.read_to_end(&mut heard)).await;
    assert_eq!(heard, b"");
    // The others are served, and give way.
    let mut one = idle.pop().unwrap();
    one.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    soon(one.read_to_end(&mut heard)).await.unwrap();
    assert!(heard.ends_with(b"ok\n"));
    relay.client().await;
}
