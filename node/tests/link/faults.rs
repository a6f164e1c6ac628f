//! Relays that lie, overdo it, or say no.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use infernet_node::link::Error;
use nostr::message::{ClientMessage, RelayMessage};
use nostr::{JsonUtil, SubscriptionId, Tag, Timestamp};

use super::*;

/// Subscribes at a relay that serves `bad` and then one good event; answers what came before the good one.
async fn served(bad: Vec<Event>) -> Vec<Delivery> {
    let good = event(STORED, "good");
    let events = bad.into_iter().chain([good.clone()]).collect();
    let relay = fake::FakeRelay::start(fake::serving(events)).await;
    let link = link([relay.url.clone()]).await;
    let mut offers = link.subscribe(of(STORED)).unwrap();
    let mut before = Vec::new();
    loop {
        match next(&mut offers).await {
            Delivery::Event(event) if *event == good => return before,
            other => before.push(other),
        }
    }
}

#[tokio::test]
async fn altered_events_are_dropped() {
    let mut content = event(STORED, "true");
    content.content = "altered".into();
    let mut signature = event(STORED, "true");
    signature.sig = event(STORED, "other").sig;
    let mut author = event(STORED, "true");
    author.pubkey = Keys::generate().public_key();
    assert_eq!(served(vec![content, signature, author]).await, []);
}

#[tokio::test]
async fn an_altered_event_after_the_true_one_is_dropped_too() {
    let good = event(STORED, "true");
    let mut altered = good.clone();
    altered.content = "altered".into();
    let before = served(vec![good.clone(), altered]).await;
    assert_eq!(before, [Delivery::Event(Box::new(good))]);
}

#[tokio::test]
async fn unasked_expired_and_overlong_events_are_dropped() {
    let unasked = event(Kind::TextNote, "hello");
    let past = Tag::expiration(Timestamp::now() - 10);
    let expired = EventBuilder::new(STORED, "").tag(past);
    let expired = expired.sign_with_keys(&Keys::generate()).unwrap();
    let long = event(STORED, &"x".repeat(70_000));
    let huge = event(STORED, &"x".repeat(2 << 20));
    assert_eq!(served(vec![unasked, expired, long, huge]).await, []);
}

#[tokio::test]
async fn the_longest_event_is_let_in_and_one_byte_more_is_not() {
    let of_length = |bytes: usize| {
        let around = event(STORED, "").as_json().len();
        event(STORED, &"x".repeat(bytes - around))
    };
    let (longest, over) = (of_length(65_536), of_length(65_537));
    assert_eq!(longest.as_json().len(), 65_536);
    let before = served(vec![over, longest.clone()]).await;
    assert_eq!(before, [Delivery::Event(Box::new(longest))]);
}

#[tokio::test]
async fn a_failed_tls_handshake_is_explained() {
    let plain = fake::FakeRelay::start(|_| vec![]).await;
    let encrypted = plain.url.as_str().replace("ws://", "wss://");
    let mut options = options([RelayUrl::parse(&encrypted).unwrap()]);
    options.connect_timeout = Duration::from_millis(500);
    match Link::connect(options).await.unwrap_err() {
        Error::Unreachable(troubles) => assert_ne!(troubles[0].reason, "not connected yet"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn nonsense_is_survived() {
    let relay = fake::FakeRelay::start(fake::serving(vec![])).await;
    let link = link([relay.url.clone()]).await;
    let mut offers = link.subscribe(of(STORED)).unwrap();
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
    let deep = format!(r#"["EVENT","s0",{}"#, "[".repeat(30_000));
    let nonsense = [
        "{}",
        "[]",
        "null",
        "\u{0}",
        r#"["EVENT"]"#,
        r#"["OK","x",1]"#,
        &deep,
    ];
    for text in nonsense {
        relay.say(text.to_owned());
    }
    let good = event(STORED, "good");
    relay.say(fake::event(&SubscriptionId::new("s0"), &good));
    assert_eq!(next_event(&mut offers).await, good);
    assert_eq!(link.relays()[0].sessions, 1, "the connection held");
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_of_the_gap() {
    // One event more than may wait, all of them sent before the first is read.
    let keys = Keys::generate();
    let sign = |n: usize| EventBuilder::new(STORED, n.to_string()).sign_with_keys(&keys);
    let many: Vec<Event> = (0..4_097).map(|n| sign(n).unwrap()).collect();
    let relay = fake::FakeRelay::start(fake::serving(many)).await;
    let link = link([relay.url.clone()]).await;
    let mut slow = link.subscribe(of(STORED)).unwrap();
    let mut other = link.subscribe(of(EPHEMERAL)).unwrap();
    // The relay serves in order: once it has served the second request, the first is through.
    wait_for(&mut other, Delivery::EndOfStored).await;
    assert_eq!(next(&mut slow).await, Delivery::Gap);
    for _ in 0..4_096 {
        assert!(matches!(next(&mut slow).await, Delivery::Event(_)));
    }
    assert_eq!(next(&mut slow).await, Delivery::EndOfStored);
}

#[tokio::test]
async fn fetch_tells_why_all_relays_refuse() {
    let relay = fake::FakeRelay::start(|message| {
        let closed = |id| RelayMessage::closed(id, "blocked: members only").as_json();
        fake::requested(message).map(closed).into_iter().collect()
    });
    let relay = relay.await;
    let link = link([relay.url.clone()]).await;
    let refused = link.fetch(of(STORED), DEADLINE).await.unwrap_err();
    assert!(matches!(refused, Error::Refused(_)));
    assert!(refused.to_string().contains("blocked: members only"));
}

#[tokio::test]
async fn a_relay_that_answers_nothing_is_unreachable() {
    let mute = fake::FakeRelay::start(|_| vec![]).await;
    let mut options = options([mute.url.clone()]);
    options.answer_timeout = Duration::from_millis(100);
    let link = Link::connect(options).await.unwrap();
    let published = link.publish(&event(STORED, "")).await;
    assert!(matches!(published, Err(Error::Unreachable(_))));
    let fetched = link.fetch(of(STORED), Duration::from_millis(100)).await;
    assert!(matches!(fetched, Err(Error::Unreachable(_))));
}

#[tokio::test]
async fn a_relay_that_asks_who_we_are_is_told_and_asked_again() {
    let stored = event(STORED, "for members");
    let serve = fake::serving(vec![stored.clone()]);
    let is_member = AtomicBool::new(false);
    let relay = fake::FakeRelay::start(move |message| match message {
        ClientMessage::Auth(answer) => {
            let good = answer.verify().is_ok() && answer.tags.challenge() == Some("riddle");
            is_member.store(good, Ordering::Relaxed);
            vec![RelayMessage::ok(answer.id, good, "").as_json()]
        }
        ClientMessage::Req { .. } if is_member.load(Ordering::Relaxed) => serve(message),
        ClientMessage::Req {
            subscription_id, ..
        } => {
            let id = subscription_id.clone().into_owned();
            let closed = RelayMessage::closed(id, "auth-required: who is there?");
            vec![closed.as_json(), RelayMessage::auth("riddle").as_json()]
        }
        _ => vec![],
    });
    let link = link([relay.await.url]).await;
    let mut offers = link.subscribe(of(STORED)).unwrap();
    assert_eq!(next_event(&mut offers).await, stored);
}

/// A relay that answers each request with what `answers` says, and takes every event.
async fn closing(
    answers: impl Fn(SubscriptionId) -> Vec<String> + Send + Sync + 'static,
) -> fake::FakeRelay {
    fake::FakeRelay::start(move |message| match (message, fake::requested(message)) {
        (_, Some(id)) => answers(id),
        (ClientMessage::Event(event), _) => vec![RelayMessage::ok(event.id, true, "").as_json()],
        _ => vec![],
    })
    .await
}

/// How often the relay was asked before it heard an event that was published after it answered the first request.
async fn times_asked(relay: &mut fake::FakeRelay, link: &Link) -> usize {
    let mut times = 0;
    // What the first publication waits for comes behind the relay's answers, what they lead to before the second.
    for content in ["first", "second"] {
        link.publish(&event(STORED, content)).await.unwrap();
    }
    loop {
        match timeout(DEADLINE, relay.heard.recv()).await.unwrap() {
            Some(ClientMessage::Req { .. }) => times += 1,
            Some(ClientMessage::Event(event)) if event.content == "second" => return times,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_relay_cannot_have_itself_asked_again_and_again() {
    let answer = Arc::new(Mutex::new(None));
    let known = answer.clone();
    let mut relay = fake::FakeRelay::start(move |message| match message {
        ClientMessage::Auth(event) => {
            *known.lock().unwrap() = Some(event.id);
            vec![RelayMessage::ok(event.id, true, "").as_json()]
        }
        ClientMessage::Event(event) => vec![RelayMessage::ok(event.id, true, "").as_json()],
        ClientMessage::Req {
            subscription_id, ..
        } => {
            let id = subscription_id.clone().into_owned();
            let closed = RelayMessage::closed(id, "auth-required: who is there?").as_json();
            let next = match *known.lock().unwrap() {
                Some(answer) => RelayMessage::ok(answer, true, "").as_json(),
                None => RelayMessage::auth("riddle").as_json(),
            };
            vec![closed, next]
        }
        _ => vec![],
    })
    .await;
    let link = link([relay.url.clone()]).await;
    let _offers = link.subscribe(of(STORED)).unwrap();
    loop {
        let heard = timeout(DEADLINE, relay.heard.recv()).await.unwrap();
        if matches!(heard, Some(ClientMessage::Auth(_))) {
            break;
        }
    }
    link.publish(&event(STORED, "in between")).await.unwrap();
    assert_eq!(times_asked(&mut relay, &link).await, 1);
    assert!(answer.lock().unwrap().is_some());
}

#[tokio::test]
async fn a_relay_that_has_served_every_id_may_say_that_it_is_done() {
    let mut relay = closing(|id| {
        let end = fake::end_of_stored(&id);
        vec![end, RelayMessage::closed(id, "").as_json()]
    })
    .await;
    let link = link([relay.url.clone()]).await;
    let mut offers = link.subscribe(of(STORED)).unwrap();
    assert_eq!(next(&mut offers).await, Delivery::EndOfStored);
    link.publish(&event(STORED, "heard after that"))
        .await
        .unwrap();
    // Longer than a relay that refuses for the moment is left in peace.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    assert_eq!(times_asked(&mut relay, &link).await, 1);
}

#[tokio::test]
async fn a_dropped_subscription_is_closed_at_the_relay() {
    let mut relay = fake::FakeRelay::start(fake::serving(vec![])).await;
    let link = link([relay.url.clone()]).await;
    drop(link.subscribe(of(STORED)).unwrap());
    let asked = timeout(DEADLINE, relay.heard.recv()).await.unwrap();
    let id = fake::requested(&asked.unwrap()).unwrap();
    let closed = timeout(DEADLINE, relay.heard.recv()).await.unwrap();
    assert_eq!(closed.unwrap(), ClientMessage::close(id));
}
