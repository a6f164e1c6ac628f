#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use bytes::BytesMut;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::session::outbox::Bounds;

const ROOMY: Bounds = Bounds {
    messages: 1_000,
    bytes: 1 << 20,
};

fn hub() -> Arc<Hub> {
    Hub::new(Arc::new(Metrics::default()))
}

fn note(keys: &Keys, text: &str) -> Event {
    let note = EventBuilder::text_note(text);
    note.sign_with_keys(keys).unwrap()
}

fn json(event: &Event) -> Bytes {
    event.as_json().into()
}

fn everything() -> Sight {
    Arc::new(|_| true)
}

/// What was sent so far.
fn sent(outbox: &Outbox) -> Vec<String> {
    let (mut batch, mut space) = (VecDeque::new(), BytesMut::new());
    while outbox.take_now(&mut batch) > 0 {}
    let texts = batch
        .into_iter()
        .filter_map(|one| one.into_bytes(&mut space));
    texts
        .map(|text| String::from_utf8(text.to_vec()).unwrap())
        .collect()
}

/// A subscription to `filter` whose stored events are out.
fn listen(hub: &Arc<Hub>, filter: Filter) -> (Subscription, Arc<Outbox>) {
    let outbox = Arc::new(Outbox::new(ROOMY));
    let filters = vec![filter];
    let subscription = hub.subscribe(filters, Envelope::new("s"), outbox.clone(), everything());
    subscription
        .answering()
        .begin_live(&HashSet::new(), "end".to_owned());
    assert_eq!(sent(&outbox), ["end"]);
    (subscription, outbox)
}

#[test]
fn a_subscription_hears_what_matches_until_it_ends() {
    let (hub, keys) = (hub(), Keys::generate());
    let (subscription, outbox) = listen(&hub, Filter::new().author(keys.public_key()));
    let event = note(&keys, "mine");
    hub.publish(&event, &json(&event));
    let strange = note(&Keys::generate(), "not mine");
    hub.publish(&strange, &json(&strange));
    let heard = format!(r#"["EVENT","s",{}]"#, event.as_json());
    assert_eq!(sent(&outbox), [heard]);
    hub.publish(&event, &json(&event));
    drop(subscription);
    hub.publish(&event, &json(&event));
    assert_eq!(sent(&outbox), [""; 0], "not even what waited");
}

#[test]
fn what_comes_while_stored_events_go_out_comes_after_them_and_once() {
    let (hub, keys) = (hub(), Keys::generate());
    let outbox = Arc::new(Outbox::new(ROOMY));
    let filters = vec![Filter::new().author(keys.public_key())];
    let subscription = hub.subscribe(filters, Envelope::new("s"), outbox.clone(), everything());
    let [stored, both, late, new] = ["1", "2", "3", "4"].map(|text| note(&keys, text));
    // `both` and `new` come live before the end; `late` was stored before and is told of after the end.
    let _coming = hub.expect(late.id);
    hub.publish(&both, &json(&both));
    hub.publish(&new, &json(&new));
    assert_eq!(sent(&outbox), [""; 0]);
    let answered = HashSet::from([stored.id, both.id, late.id]);
    let answering = subscription.answering();
    answering.begin_live(&answered, "end".to_owned());
    hub.publish(&late, &json(&late));
    let after = note(&keys, "5");
    hub.publish(&after, &json(&after));
    let heard = [&new, &after].map(|event| format!(r#"["EVENT","s",{}]"#, event.as_json()));
    assert_eq!(sent(&outbox), ["end", &heard[0], &heard[1]]);
    // What was answered is remembered no longer than it is needed.
    hub.publish(&late, &json(&late));
    assert_eq!(sent(&outbox).len(), 1);
}

#[test]
fn a_slow_reader_ends_and_nobody_else_does() {
    let (hub, keys) = (hub(), Keys::generate());
    let (_fine, roomy) = listen(&hub, Filter::new());
    let narrow = Arc::new(Outbox::new(Bounds {
        messages: 3,
        bytes: 1 << 20,
    }));
    let all = vec![Filter::new()];
    let slow = hub.subscribe(all, Envelope::new("s"), narrow.clone(), everything());
    for number in 0..3 {
        let event = note(&keys, &number.to_string());
        hub.publish(&event, &json(&event));
    }
    assert!(futures::FutureExt::now_or_never(narrow.overflowed()).is_none());
    let event = note(&keys, "one more");
    hub.publish(&event, &json(&event));
    futures::FutureExt::now_or_never(narrow.overflowed()).unwrap();
    assert_eq!(sent(&roomy).len(), 4);
    drop(slow);
}

#[test]
fn what_may_not_be_seen_is_not_told() {
    let (hub, keys) = (hub(), Keys::generate());
    let outbox = Arc::new(Outbox::new(ROOMY));
    let sight: Sight = Arc::new(|event| event.content != "secret");
    let all = vec![Filter::new()];
    let subscription = hub.subscribe(all, Envelope::new("s"), outbox.clone(), sight);
    let answering = subscription.answering();
    answering.begin_live(&HashSet::new(), "end".to_owned());
    for text in ["secret", "open"] {
        let event = note(&keys, text);
        hub.publish(&event, &json(&event));
    }
    assert_eq!(sent(&outbox).len(), 2);
}

#[test]
fn an_ephemeral_event_is_told_of_once() {
    let (hub, keys) = (hub(), Keys::generate());
    let (_subscription, outbox) = listen(&hub, Filter::new());
    let event = note(&keys, "passing");
    assert!(!hub.is_old_news(&event.id));
    hub.publish_once(&event, &json(&event));
    hub.publish_once(&event, &json(&event));
    assert!(hub.is_old_news(&event.id));
    assert_eq!(sent(&outbox).len(), 1);
}

/// A few of everything, so that filters and events meet.
#[derive(Debug)]
struct World {
    authors: Vec<Keys>,
    events: Vec<Event>,
}

fn world() -> World {
    let authors: Vec<Keys> = (0..3).map(|_| Keys::generate()).collect();
    let mut events = Vec::new();
    for (number, keys) in authors.iter().cycle().take(24).enumerate() {
        let mut tags = vec![Tag::parse(["t", &format!("{}", number % 4)]).unwrap()];
        if number % 2 == 0 {
            tags.push(Tag::public_key(authors[number % 3].public_key()));
        }
        if number % 5 == 0 {
            tags.push(Tag::parse(["e", "x"]).unwrap());
            tags.push(Tag::parse(["e"]).unwrap());
        }
        let kind = Kind::from([1, 7, 30_000][number % 3]);
        let event = EventBuilder::new(kind, number.to_string()).tags(tags);
        events.push(event.sign_with_keys(keys).unwrap());
    }
    World { authors, events }
}

/// A filter by any of these conditions.
fn filter(world: &World) -> impl Strategy<Value = Filter> + use<> {
    let authors: Vec<_> = world.authors.iter().map(Keys::public_key).collect();
    let ids: Vec<_> = world.events.iter().map(|event| event.id).collect();
    let hex: Vec<String> = authors.iter().map(|author| author.to_hex()).collect();
    (
        proptest::option::weighted(0.2, subsequence(ids, 1..4)),
        proptest::option::weighted(0.3, subsequence(authors, 1..3)),
        proptest::option::weighted(0.4, subsequence(vec![1_u16, 7, 30_000], 1..3)),
        proptest::option::weighted(0.4, subsequence(vec!["0", "1", "2", "9"], 1..3)),
        proptest::option::weighted(0.3, subsequence(hex, 1..3)),
        proptest::option::weighted(0.2, select(vec!["x", "y"])),
    )
        .prop_map(|(ids, authors, kinds, topics, readers, named)| {
            let mut filter = Filter::new();
            filter.ids = ids.map(|ids| ids.into_iter().collect());
            filter.authors = authors.map(|authors| authors.into_iter().collect());
            filter.kinds = kinds.map(|kinds| kinds.into_iter().map(Kind::from).collect());
            let mut tag = |letter: char, values: Vec<String>| {
                let name = nostr::SingleLetterTag::from_char(letter).unwrap();
                filter
                    .generic_tags
                    .insert(name, values.into_iter().collect());
            };
            if let Some(topics) = topics {
                tag('t', topics.into_iter().map(str::to_owned).collect());
            }
            if let Some(readers) = readers {
                tag('p', readers);
            }
            if let Some(named) = named {
                tag('e', vec![named.to_owned()]);
            }
            filter
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_finds_what_asking_everybody_finds(
        (world, filters, gone) in Just(()).prop_flat_map(|()| {
            let world = Arc::new(world());
            let filters = proptest::collection::vec(
                proptest::collection::vec(filter(&world), 1..3), 1..20,
            );
            (Just(world), filters, proptest::collection::vec(any::<bool>(), 20))
        }),
    ) {
        let mut index = Index::default();
        let mut there = Vec::new();
        for (number, filters) in filters.iter().enumerate() {
            let keys = index::keys(filters);
            let place = index.insert(&keys, number);
            match gone[number] {
                true => index.remove(&keys, place),
                false => there.push((number, place, keys)),
            }
        }
        for event in &world.events {
            let matches = |number: &usize| filters[*number]
                .iter()
                .any(|filter| filter.match_event(event, MatchEventOptions::new()));
            let candidates = index.candidates(event);
            prop_assert!(candidates.windows(2).all(|pair| pair[0] < pair[1]), "each once");
            let found: Vec<usize> = candidates.into_iter().filter(|one| matches(one)).collect();
            let all = there.iter().map(|(number, ..)| *number);
            let wanted: Vec<usize> = all.filter(|one| matches(one)).collect();
            prop_assert_eq!(found, wanted);
        }
        for (_, place, keys) in there {
            index.remove(&keys, place);
        }
        prop_assert!(index.is_empty(), "something stayed");
    }
}
