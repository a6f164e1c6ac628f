//! Who may write and read, as the operator and the kinds say (NIP-42, NIP-70).

use infernet_relay::Access;
use nostr::{Event, EventBuilder, Filter, JsonUtil as _, Keys, Kind, RelayUrl, Tag};
use serde_json::{Value, json};

use crate::Relay;
use crate::client::{Client, event_of};
use crate::events::{from_now, plain, profile};

async fn identify(relay: &Relay, client: &mut Client, keys: &Keys) {
    let url = RelayUrl::parse(&relay.handle.url()).unwrap();
    let auth = EventBuilder::auth(&client.challenge, url);
    let auth = auth.sign_with_keys(keys).unwrap();
    client.say(format!(r#"["AUTH",{}]"#, auth.as_json())).await;
    let answer = client.hear().await;
    assert_eq!(answer[2], true, "{answer}");
}

/// Says something that must be closed with a reason that begins so.
async fn closed(client: &mut Client, asked: Value, why: &str) {
    client.say(asked.to_string()).await;
    let answer = client.hear().await;
    assert_eq!(answer[0], "CLOSED", "{answer}");
    assert!(answer[2].as_str().unwrap().starts_with(why), "{answer}");
}

async fn refused(client: &mut Client, event: &Event, why: &str) {
    let (taken, said) = client.publish(event).await;
    assert!(!taken && said.starts_with(why), "{taken} {said}");
}

#[tokio::test]
async fn who_has_not_said_who_it_is_may_be_asked() {
    let relay = Relay::start_with(|options| {
        options.auth.write = Access::Identified;
        options.auth.read = Access::Identified;
    })
    .await;
    let (mut client, keys) = (relay.client().await, Keys::generate());
    let event = profile(&keys, "me", 0);
    refused(&mut client, &event, "auth-required: ").await;
    for word in ["REQ", "COUNT"] {
        closed(&mut client, json!([word, "s", {}]), "auth-required: ").await;
    }
    identify(&relay, &mut client, &keys).await;
    client.keep(&event).await;
    assert_eq!(client.stored(&Filter::new()).await, [event]);
    assert_eq!(client.count().await, 1);
}

#[tokio::test]
async fn only_listed_keys_may_be_let_in() {
    let (member, stranger) = (Keys::generate(), Keys::generate());
    let relay = Relay::start_with(|options| {
        options.auth.write = Access::Listed;
        options.auth.read = Access::Listed;
        options.lists.allow = vec![member.public_key()];
    })
    .await;
    let mut client = relay.client().await;
    identify(&relay, &mut client, &stranger).await;
    let event = profile(&stranger, "me", 0);
    refused(&mut client, &event, "restricted: ").await;
    closed(&mut client, json!(["REQ", "s", {}]), "restricted: ").await;
    identify(&relay, &mut client, &member).await;
    client.keep(&event).await;
    assert_eq!(client.stored(&Filter::new()).await, [event]);
}

#[tokio::test]
async fn what_is_marked_as_its_authors_alone_comes_from_its_author() {
    let (author, other) = (Keys::generate(), Keys::generate());
    let relay = Relay::start().await;
    let mut client = relay.client().await;
    let mark = Tag::parse(["-"]).unwrap();
    let event = plain(&author, 0, "{}", [mark], from_now(0));
    refused(&mut client, &event, "auth-required: ").await;
    identify(&relay, &mut client, &other).await;
    refused(&mut client, &event, "restricted: ").await;
    identify(&relay, &mut client, &author).await;
    client.keep(&event).await;
}

#[tokio::test]
async fn private_messages_are_for_those_whom_they_concern() {
    let relay = Relay::start_with(|options| options.general = true).await;
    let [from, to, other] = [(); 3].map(|()| Keys::generate());
    let message = |number: i64| {
        let tags = [Tag::public_key(to.public_key())];
        plain(&from, 4, "sealed", tags, from_now(-number))
    };
    let mut author = relay.client().await;
    let (stored, live) = (message(1), message(0));
    author.keep(&stored).await;

    let all = Filter::new().author(from.public_key());
    let private = json!({"kinds": [4], "#p": [to.public_key()]});
    let mut stranger = relay.client().await;
    for word in ["REQ", "COUNT"] {
        closed(
            &mut stranger,
            json!([word, "s", private]),
            "auth-required: ",
        )
        .await;
    }
    assert!(stranger.subscribe(&all).await.is_empty());
    assert_eq!(stranger.count().await, 0);
    identify(&relay, &mut stranger, &other).await;
    closed(&mut stranger, json!(["REQ", "t", private]), "restricted: ").await;
    assert_eq!(stranger.count().await, 0);

    let mut reader = relay.client().await;
    identify(&relay, &mut reader, &to).await;
    assert_eq!(reader.count().await, 1);
    let mine = Filter::new().kind(Kind::EncryptedDirectMessage);
    let mine = mine.pubkey(to.public_key());
    assert_eq!(reader.subscribe(&mine).await, [stored]);

    let public = profile(&from, "me", 0);
    author.keep(&live).await;
    author.keep(&public).await;
    assert_eq!(event_of(&reader.hear().await), live);
    assert_eq!(
        event_of(&stranger.hear().await),
        public,
        "and nothing before"
    );
}
