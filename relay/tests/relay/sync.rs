//! Relays made equal (NIP-77), by us and by nostr-sdk.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use infernet_relay::sync::{Failure, Progress, Task, once};
use infernet_relay::{Direction, Options, Peer};
use nostr::{Event, EventId, Filter, JsonUtil as _, Keys, RelayUrl, Tag, Timestamp};
use nostr_sdk::prelude::{
    Client as SdkClient, MemoryDatabase, MemoryDatabaseOptions, NostrDatabase as _, SyncDirection,
    SyncOptions,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::Relay;
use crate::client::{Client, soon};
use crate::events::{attestation, from_now, offer, plain, profile};

/// A relay for all kinds, and for as many events as tests have.
pub fn open(options: &mut Options) {
    options.general = true;
    options.work.max_bits = 0;
}

/// Notes of different ages, some of the same second.
pub fn notes(keys: &Keys, count: usize) -> Vec<Event> {
    let note = |n: usize| {
        let ago = i64::try_from(n / 3).unwrap() * 100;
        plain(keys, 1, &format!("note {n}"), [], from_now(-ago))
    };
    (0..count).map(note).collect()
}

pub async fn keep_all(relay: &Relay, events: &[Event]) {
    keep_all_by(relay.client().await, events).await;
}

pub async fn keep_all_by(mut client: Client, events: &[Event]) {
    for event in events {
        client.keep(event).await;
    }
}

/// The ids of all that a relay has of a filter.
pub async fn all(relay: &Relay, filter: &Filter) -> BTreeSet<EventId> {
    all_by(relay.client().await, filter).await
}

pub async fn all_by(mut client: Client, filter: &Filter) -> BTreeSet<EventId> {
    let (mut ids, mut until) = (BTreeSet::new(), Timestamp::max());
    loop {
        let page = client.stored(&filter.clone().until(until).limit(500)).await;
        let before = ids.len();
        ids.extend(page.iter().map(|event| event.id));
        match page.last() {
            Some(oldest) if ids.len() > before => until = oldest.created_at,
            _ => return ids,
        }
    }
}

pub fn ids<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeSet<EventId> {
    events.into_iter().map(|event| event.id).collect()
}

pub fn task(url: &str, direction: Direction) -> Task {
    Task {
        url: RelayUrl::parse(url).unwrap(),
        filter: None,
        direction,
    }
}

/// Makes the relay of `options` equal with another, and answers how it went.
pub async fn sync(options: &Options, task: &Task) -> (Progress, Result<(), Failure>) {
    let mut last = Progress::default();
    let done = once(options, task, |progress| last = progress.clone());
    let done = tokio::time::timeout(Duration::from_secs(120), done)
        .await
        .unwrap();
    (last, done)
}

pub fn settings(folder: &std::path::Path) -> Options {
    let mut options = Options::new(folder);
    options.general = true;
    options
}

#[tokio::test]
async fn two_relays_with_different_sets_become_equal() {
    let keys = Keys::generate();
    let common = notes(&keys, 60);
    let (only_here, only_there) = (notes(&Keys::generate(), 700), notes(&Keys::generate(), 900));
    let here = Relay::start_with(open).await;
    let there = Relay::start_with(open).await;
    for (relay, own) in [(&here, &only_here), (&there, &only_there)] {
        keep_all(relay, &common).await;
        keep_all(relay, own).await;
    }
    let mut listener = here.client().await;
    listener.subscribe(&Filter::new().limit(0)).await;

    let equal = task(&there.handle.url(), Direction::Both);
    let (progress, done) = sync(&settings(here.folder.path()), &equal).await;
    done.unwrap();
    assert!(progress.complete && !progress.by_pages, "{progress:?}");
    assert_eq!((progress.received, progress.given), (900, 700));
    assert_eq!(
        (progress.declined, progress.refused),
        (0, 0),
        "{progress:?}"
    );
    let expected = ids(common.iter().chain(&only_here).chain(&only_there));
    assert_eq!(all(&here, &Filter::new()).await, expected);
    assert_eq!(all(&there, &Filter::new()).await, expected);
    let live = crate::client::event_of(&listener.hear().await);
    assert!(
        ids(&only_there).contains(&live.id),
        "subscribers hear of it"
    );

    // Nothing is left to do, whichever of the two runs.
    let again = task(&here.handle.url(), Direction::Both);
    drop(there.stop().await.keep());
    let folder = here.folder.path().to_owned();
    let (progress, done) = sync(&settings(&folder), &again).await;
    done.unwrap();
    assert_eq!((progress.received, progress.given), (0, 0));
}

#[tokio::test]
async fn a_relay_that_does_not_run_is_made_equal_too() {
    let there = Relay::start().await;
    let evidence: Vec<_> = (0..40).map(|_| attestation(&Keys::generate())).collect();
    keep_all(&there, &evidence).await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path());
    let (progress, done) = sync(&options, &task(&there.handle.url(), Direction::Both)).await;
    done.unwrap();
    assert_eq!(progress.received, 40);
    let here = Relay::start_in(folder, |_| {}).await;
    assert_eq!(all(&here, &Filter::new()).await, ids(&evidence));
}

#[tokio::test]
async fn events_go_the_way_that_is_asked_for_and_within_the_filter() {
    let keys = Keys::generate();
    let (a, b) = (profile(&Keys::generate(), "a", 10), profile(&keys, "b", 10));
    let other = plain(&keys, 10_002, "", [], from_now(-5));
    for direction in [Direction::Down, Direction::Up] {
        let here = Relay::start().await;
        let there = Relay::start().await;
        keep_all(&here, std::slice::from_ref(&a)).await;
        keep_all(&there, &[b.clone(), other.clone()]).await;
        let mut task = task(&there.handle.url(), direction);
        task.filter = Some(Filter::new().kind(nostr::Kind::Metadata));
        let (_, done) = sync(&Options::new(here.folder.path()), &task).await;
        done.unwrap();
        let (at_here, at_there) = match direction {
            Direction::Down => (ids([&a, &b]), ids([&b, &other])),
            _ => (ids([&a]), ids([&a, &b, &other])),
        };
        assert_eq!(all(&here, &Filter::new()).await, at_here, "{direction:?}");
        assert_eq!(all(&there, &Filter::new()).await, at_there, "{direction:?}");
    }
}

#[tokio::test]
async fn what_the_rules_refuse_stays_where_it_is() {
    let keys = Keys::generate();
    let banned = Keys::generate();
    let there = Relay::start_with(open).await;
    let kept = attestation(&keys);
    let of_banned = attestation(&banned);
    let foreign = notes(&keys, 5);
    keep_all(&there, &foreign).await;
    keep_all(&there, &[kept.clone(), of_banned.clone()]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.lists.ban = vec![banned.public_key()];
    let mut task = task(&there.handle.url(), Direction::Both);
    task.filter = Some(Filter::new());
    let (progress, done) = sync(&options, &task).await;
    done.unwrap();
    assert_eq!(
        (progress.received, progress.declined),
        (1, 6),
        "{progress:?}"
    );
    assert!(progress.reasons.iter().any(|why| why.contains("banned")));
    assert!(progress.reasons.iter().any(|why| why.contains("kind 1")));
}

/// Small bounds on both sides: time is cut into windows until each fits.
#[tokio::test]
async fn a_relay_that_answers_few_at_a_time_is_asked_in_windows() {
    let notes = notes(&Keys::generate(), 400);
    let there = Relay::start_with(|options| {
        options.general = true;
        options.reconciliation.events = 37;
    })
    .await;
    keep_all(&there, &notes).await;
    let folder = tempfile::tempdir().unwrap();
    let (progress, done) = sync(
        &settings(folder.path()),
        &task(&there.handle.url(), Direction::Down),
    )
    .await;
    done.unwrap();
    assert_eq!(progress.received, 400);
    assert!(!progress.by_pages);
}

#[tokio::test]
async fn relays_are_kept_equal_while_they_serve() {
    let there = Relay::start().await;
    let first = attestation(&Keys::generate());
    keep_all(&there, std::slice::from_ref(&first)).await;
    let url = RelayUrl::parse(&there.handle.url()).unwrap();
    let here = Relay::start_with(|options| {
        options.sync = vec![Peer {
            url,
            filter: None,
            direction: Direction::Both,
            every: Duration::from_millis(200),
        }];
    })
    .await;
    let (later, back) = (
        attestation(&Keys::generate()),
        attestation(&Keys::generate()),
    );
    let mut listener = here.client().await;
    for event in [first, later.clone()] {
        if event == later {
            keep_all(&there, std::slice::from_ref(&later)).await;
        }
        let stored = listener.subscribe(&Filter::new().id(event.id)).await;
        if stored.is_empty() {
            let heard = crate::client::event_of(&listener.hear().await);
            assert_eq!(heard, event);
        }
    }
    keep_all(&here, std::slice::from_ref(&back)).await;
    let mut listener = there.client().await;
    if listener
        .subscribe(&Filter::new().id(back.id))
        .await
        .is_empty()
    {
        assert_eq!(crate::client::event_of(&listener.hear().await), back);
    }
}

#[tokio::test]
async fn a_break_half_way_loses_nothing_and_the_next_time_goes_on() {
    let notes = notes(&Keys::generate(), 3_000);
    let there = Relay::start_with(open).await;
    keep_all(&there, &notes).await;
    let folder = tempfile::tempdir().unwrap();
    let options = settings(folder.path());
    let down = task(&there.handle.url(), Direction::Down);
    // Dropped at the first word of something received.
    let (said, mut hearing) = tokio::sync::watch::channel(0);
    {
        let work = once(&options, &down, |progress| {
            let _ = said.send(progress.received);
        });
        tokio::select! {
            done = work => done.unwrap(),
            _ = hearing.wait_for(|received| *received > 0) => {}
        }
    }
    let had = *hearing.borrow();
    assert!(had > 0);
    // What was broken off may hold the folder for a moment.
    let progress = loop {
        let (progress, done) = sync(&options, &down).await;
        match done {
            Err(Failure::Folder(_)) => tokio::task::yield_now().await,
            done => break done.map(|()| progress).unwrap(),
        }
    };
    assert!(progress.received <= 3_000 - had, "{progress:?} after {had}");
    let here = Relay::start_in(folder, open).await;
    assert_eq!(all(&here, &Filter::new()).await, ids(&notes));
}

#[tokio::test]
async fn nostr_sdk_reconciles_with_us_in_both_directions() {
    let relay = Relay::start_with(open).await;
    let common = notes(&Keys::generate(), 50);
    let (ours, theirs) = (notes(&Keys::generate(), 300), notes(&Keys::generate(), 250));
    keep_all(&relay, &common).await;
    keep_all(&relay, &ours).await;
    let database = MemoryDatabase::with_opts(MemoryDatabaseOptions {
        events: true,
        max_events: None,
    });
    for event in common.iter().chain(&theirs) {
        database.save_event(event).await.unwrap();
    }
    let client = SdkClient::builder().database(database).build();
    client.add_relay(relay.handle.url()).await.unwrap();
    client.connect().await;
    let both = SyncOptions::default().direction(SyncDirection::Both);
    let synced = soon(client.sync(Filter::new(), &both)).await.unwrap();
    assert!(synced.failed.is_empty(), "{:?}", synced.failed);
    let everything = ids(common.iter().chain(&ours).chain(&theirs));
    assert_eq!(all(&relay, &Filter::new()).await, everything);
    let held = client.database().query(Filter::new()).await.unwrap();
    assert_eq!(ids(held.iter()), everything);
    client.shutdown().await;
}

#[tokio::test]
async fn what_one_may_not_read_is_not_reconciled_either() {
    let relay = Relay::start_with(open).await;
    let (author, reader) = (Keys::generate(), Keys::generate());
    let sealed = plain(
        &author,
        1_059,
        "sealed",
        [Tag::public_key(reader.public_key())],
        from_now(-9),
    );
    let public = plain(&author, 1, "open", [], from_now(-9));
    keep_all(&relay, &[sealed.clone(), public.clone()]).await;
    let folder = tempfile::tempdir().unwrap();
    let down = task(&relay.handle.url(), Direction::Down);
    let (progress, done) = sync(&settings(folder.path()), &down).await;
    done.unwrap();
    assert_eq!(
        (progress.received, progress.declined),
        (1, 0),
        "{progress:?}"
    );
    let here = Relay::start_in(folder, open).await;
    assert_eq!(all(&here, &Filter::new()).await, ids([&public]));
}

#[tokio::test]
async fn what_is_no_reconciliation_is_told_so() {
    let relay = Relay::start_with(|options| {
        options.general = true;
        options.reconciliation.per_connection = 2;
        options.reconciliation.events = 5;
    })
    .await;
    keep_all(&relay, &notes(&Keys::generate(), 6)).await;
    let mut client = relay.client().await;
    // Version 1, and the fingerprint of nothing at all.
    let empty = format!("61000001{}", "00".repeat(16));
    let empty = empty.as_str();
    let few = json!({ "kinds": [7] });
    for (message, why) in [
        (
            json!(["NEG-OPEN", "a", {}, empty]),
            "blocked: this query is too big",
        ),
        (json!(["NEG-OPEN", "a", few, "zz"]), "invalid: "),
        (json!(["NEG-OPEN", "a", few, "61000001"]), "invalid: "),
        (json!(["NEG-OPEN", "a", few, ""]), "invalid: "),
        (json!(["NEG-MSG", "b", empty]), "closed: "),
    ] {
        client.say(message.to_string()).await;
        let answer = client.hear().await;
        assert_eq!(answer[0], "NEG-ERR", "{message}: {answer}");
        let said = answer[2].as_str().unwrap();
        assert!(said.starts_with(why), "{message}: {said}");
    }
    for (id, is_open) in [("a", true), ("b", true), ("a", true), ("c", false)] {
        client
            .say(json!(["NEG-OPEN", id, few, empty]).to_string())
            .await;
        let answer = client.hear().await;
        assert_eq!(answer[0] == "NEG-MSG", is_open, "{id}: {answer}");
    }
    client.say(json!(["NEG-CLOSE", "b"]).to_string()).await;
    client
        .say(json!(["NEG-OPEN", "c", few, empty]).to_string())
        .await;
    assert_eq!(client.hear().await[0], "NEG-MSG");
    // The connection is as good as before.
    client.keep(&offer(&Keys::generate(), 60)).await;
}

/// A relay that answers each message as `answer` says, on every connection.
async fn hostile(
    answer: impl Fn(&Value) -> Vec<String> + Send + Sync + 'static,
) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                let Ok(text) = message.to_text() else {
                    break;
                };
                let Ok(said) = serde_json::from_str(text) else {
                    continue;
                };
                for line in answer(&said) {
                    if socket.send(Message::text(line)).await.is_err() {
                        break;
                    }
                }
            }
        }
    });
    (url, serving)
}

/// Tells of one event in its first message, whatever it is asked.
fn announce(said: &Value, id: EventId) -> String {
    // Version 1; all of time; a list; one id.
    let message = format!("6100000201{}", id.to_hex());
    json!(["NEG-MSG", said[1], message]).to_string()
}

#[tokio::test]
async fn events_that_are_forged_or_that_nobody_asked_for_are_not_kept() {
    let keys = Keys::generate();
    let (asked, stray) = (attestation(&keys), attestation(&keys));
    let mut forged = asked.clone();
    forged.content = "something else".to_owned();
    let (forged, id, unasked) = (forged.as_json(), asked.id, stray.as_json());
    let (url, _serving) = hostile(move |said| match said[0].as_str().unwrap() {
        "NEG-OPEN" => vec![announce(said, id)],
        "REQ" => vec![
            format!(r#"["EVENT",{},{unasked}]"#, said[1]),
            format!(r#"["EVENT","other",{unasked}]"#),
            format!(r#"["EVENT",{},{forged}]"#, said[1]),
            "rubbish".to_owned(),
            json!(["EOSE", said[1]]).to_string(),
        ],
        "NEG-MSG" => vec![json!(["NEG-MSG", said[1], "61"]).to_string()],
        _ => Vec::new(),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path());
    let (progress, done) = sync(&options, &task(&url, Direction::Down)).await;
    done.unwrap();
    assert_eq!(
        (progress.received, progress.declined),
        (0, 1),
        "{progress:?}"
    );
    let here = Relay::start_in(folder, |_| {}).await;
    assert!(all(&here, &Filter::new()).await.is_empty());
}

#[tokio::test]
async fn a_relay_that_never_ends_is_left() {
    for word in ["more ids", "more ranges", "garbage", "half hex"] {
        let (url, _serving) = hostile(move |said| match said[0].as_str().unwrap() {
            "NEG-OPEN" | "NEG-MSG" => {
                let random = Keys::generate().public_key().to_bytes();
                vec![match word {
                    // One more id each time, and a fingerprint of the rest that never fits.
                    "more ids" => {
                        let (id, print) = (hex(&random), hex(&random[..16]));
                        let message = format!("6101000201{id}000001{print}");
                        json!(["NEG-MSG", said[1], message]).to_string()
                    }
                    // A fingerprint that never fits.
                    "more ranges" => json!([
                        "NEG-MSG",
                        said[1],
                        format!("61000001{}", hex(&random[..16]))
                    ])
                    .to_string(),
                    "garbage" => json!(["NEG-MSG", said[1], hex(&random)]).to_string(),
                    _ => json!(["NEG-MSG", said[1], "6"]).to_string(),
                }]
            }
            "REQ" => vec![json!(["EOSE", said[1]]).to_string()],
            _ => Vec::new(),
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let options = settings(folder.path());
        let (progress, done) = sync(&options, &task(&url, Direction::Down)).await;
        let said = done.unwrap_err().to_string();
        assert!(said.contains(&url) && !progress.complete, "{word}: {said}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_it() {
    let (url, _serving) =
        hostile(|said| vec![json!(["NEG-MSG", said[1], "61".repeat(3 << 20)]).to_string()]).await;
    let folder = tempfile::tempdir().unwrap();
    let (_, done) = sync(&Options::new(folder.path()), &task(&url, Direction::Both)).await;
    let said = done.unwrap_err().to_string();
    assert!(said.contains("broke off"), "{said}");
}

#[tokio::test]
async fn a_relay_without_reconciliation_is_read_page_by_page() {
    let keys = Keys::generate();
    let events: Vec<_> = (0..12)
        .map(|n| plain(&keys, 1, &n.to_string(), [], from_now(-10 - n / 3)))
        .collect();
    let stored = events.clone();
    let (url, _serving) = hostile(move |said| match said[0].as_str().unwrap() {
        "NEG-OPEN" => vec![json!(["NOTICE", "ERROR: bad msg: unknown cmd"]).to_string()],
        "REQ" => {
            let filter: Filter = serde_json::from_value(said[2].clone()).unwrap();
            let mut found: Vec<_> = stored
                .iter()
                .filter(|event| event.created_at <= filter.until.unwrap())
                .collect();
            found.sort_by_key(|event| std::cmp::Reverse(event.created_at));
            let page = found.iter().take(5);
            page.map(|event| format!(r#"["EVENT",{},{}]"#, said[1], event.as_json()))
                .chain([json!(["EOSE", said[1]]).to_string()])
                .collect()
        }
        _ => Vec::new(),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let options = settings(folder.path());
    let (progress, done) = sync(&options, &task(&url, Direction::Both)).await;
    done.unwrap();
    assert!(progress.by_pages && progress.complete);
    assert_eq!(progress.received, 12);
    assert!(progress.reasons[0].contains("unknown cmd"));
    let (_, done) = sync(&options, &task(&url, Direction::Up)).await;
    let said = done.unwrap_err().to_string();
    assert!(said.contains("NIP-77") && said.contains("--down"), "{said}");
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", taken.local_addr().unwrap());
    drop(taken);
    let folder = tempfile::tempdir().unwrap();
    let (_, done) = sync(&Options::new(folder.path()), &task(&url, Direction::Both)).await;
    let said = done.unwrap_err().to_string();
    assert!(said.contains(&format!("cannot connect to {url}")), "{said}");
}

/// A relay that asks for work, and one that wants fewer at a time, are given everything all the same.
#[tokio::test]
async fn a_demanding_relay_gets_what_it_asks_for() {
    let there = Relay::start_with(|options| {
        options.general = true;
        options.work.min_bits = 8;
        options.work.max_bits = 8;
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let here = Relay::start_in(folder, |options| {
        options.general = true;
        options.work.max_bits = 0;
    })
    .await;
    let notes = notes(&Keys::generate(), 100);
    keep_all(&here, &notes).await;
    let (progress, done) = sync(
        &settings(here.folder.path()),
        &task(&there.handle.url(), Direction::Up),
    )
    .await;
    done.unwrap();
    assert_eq!((progress.given, progress.refused), (100, 0), "{progress:?}");
    assert_eq!(all(&there, &Filter::new()).await, ids(&notes));
}
