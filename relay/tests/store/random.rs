//! Random events and filters of a small world, in which everything meets everything.

use std::sync::LazyLock;

use nostr::{Event, EventBuilder, EventId, Filter, Keys, Kind, SingleLetterTag, Tag, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

/// Everybody there is.
pub static AUTHORS: LazyLock<Vec<Keys>> =
    LazyLock::new(|| (0..3).map(|_| Keys::generate()).collect());

/// Regular, replaceable and addressable kinds, and evidence.
const KINDS: [u16; 6] = [1, 1, 0, 30_000, 30_000, 8_602];

const LETTERS: [char; 3] = ['t', 'd', 'T'];

/// What is to be made into an event.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub author: usize,
    pub kind: u16,
    pub created_at: u64,
    pub tags: Vec<(char, u8)>,
    pub expiration: Option<u64>,
}

/// What happens to a store.
#[derive(Debug, Clone)]
pub enum Step {
    /// An event comes in.
    Save(Recipe),
    /// One that came before comes again.
    Repeat(usize),
    /// An author deletes some that came before, by id or by address.
    Delete {
        author: usize,
        created_at: u64,
        targets: Vec<usize>,
        by_address: bool,
    },
    /// The operator removes one.
    Remove(usize),
    /// What has expired is purged.
    Purge,
    /// The relay is stopped and started.
    Reopen,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => recipe().prop_map(Step::Save),
        2 => any::<usize>().prop_map(Step::Repeat),
        3 => deletion(),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Purge),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..60)
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let tag = (prop::sample::select(&LETTERS[..]), 0..3_u8);
    // Long expired, or far away.
    let expiration =
        prop_oneof![6 => Just(None), 1 => Just(Some(7)), 1 => Just(Some(u64::MAX / 2))];
    (
        0..3_usize,
        prop::sample::select(&KINDS[..]),
        0..5_u64,
        vec(tag, 0..4),
        expiration,
    )
        .prop_map(|(author, kind, created_at, tags, expiration)| Recipe {
            author,
            kind,
            created_at,
            tags,
            expiration,
        })
}

fn deletion() -> impl Strategy<Value = Step> {
    (
        0..3_usize,
        0..6_u64,
        vec(any::<usize>(), 1..3),
        any::<bool>(),
    )
        .prop_map(|(author, created_at, targets, by_address)| Step::Delete {
            author,
            created_at,
            targets,
            by_address,
        })
}

impl Recipe {
    pub fn event(&self) -> Event {
        let letters = self
            .tags
            .iter()
            .map(|(letter, value)| Tag::parse([letter.to_string(), value.to_string()]).unwrap());
        let expiration = self.expiration.map(Timestamp::from_secs);
        let tags = letters.chain(expiration.map(Tag::expiration));
        EventBuilder::new(Kind::from(self.kind), "")
            .tags(tags)
            .custom_created_at(Timestamp::from_secs(self.created_at))
            .sign_with_keys(&AUTHORS[self.author])
            .unwrap()
    }
}

/// The author's deletion of these events.
pub fn deletion_of(author: usize, created_at: u64, targets: &[&Event], by_address: bool) -> Event {
    let tags = targets.iter().map(|target| match target.coordinate() {
        Some(address) if by_address => {
            Tag::parse(["a".to_owned(), address.into_owned().to_string()]).unwrap()
        }
        _ => Tag::event(target.id),
    });
    EventBuilder::new(Kind::EventDeletion, "")
        .tags(tags)
        .custom_created_at(Timestamp::from_secs(created_at))
        .sign_with_keys(&AUTHORS[author])
        .unwrap()
}

/// A filter; ids are chosen by place among those that came.
#[derive(Debug, Clone)]
pub struct Question {
    ids: Option<Vec<usize>>,
    authors: Vec<usize>,
    kinds: Vec<u16>,
    tags: Vec<(char, Vec<u8>)>,
    since: Option<u64>,
    until: Option<u64>,
    limit: Option<usize>,
}

pub fn questions() -> impl Strategy<Value = Vec<Question>> {
    let ids = prop_oneof![5 => Just(None), 1 => vec(any::<usize>(), 0..4).prop_map(Some)];
    let kinds = vec(prop_oneof![prop::sample::select(&KINDS[..]), Just(5)], 0..3);
    // Also none of a letter's values, which nothing has.
    let tag = (prop::sample::select(&LETTERS[..]), vec(0..3_u8, 0..3));
    let limit = prop::option::of(0..6_usize);
    let question = (
        ids,
        vec(0..3_usize, 0..3),
        kinds,
        vec(tag, 0..3),
        moment(),
        moment(),
        limit,
    );
    let question = question.prop_map(
        |(ids, authors, kinds, tags, since, until, limit)| Question {
            ids,
            authors,
            kinds,
            tags,
            since,
            until,
            limit,
        },
    );
    vec(question, 12)
}

/// A bound in time, near the events or at the end of all time.
fn moment() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(prop_oneof![8 => 0..6_u64, 1 => (1 << 40)..=u64::MAX])
}

impl Question {
    /// The filter, over events that came.
    pub fn filter(&self, came: &[Event]) -> Filter {
        let mut filter = Filter::new();
        if let Some(places) = &self.ids {
            let unknown = EventId::all_zeros();
            let ids = places.iter().map(|place| match came.len() {
                0 => unknown,
                len => came[place % len].id,
            });
            filter = filter.ids(ids);
        }
        if !self.authors.is_empty() {
            filter = filter.authors(
                self.authors
                    .iter()
                    .map(|author| AUTHORS[*author].public_key()),
            );
        }
        if !self.kinds.is_empty() {
            filter = filter.kinds(self.kinds.iter().map(|kind| Kind::from(*kind)));
        }
        for (letter, values) in &self.tags {
            let letter = SingleLetterTag::from_char(*letter).unwrap();
            filter = filter.custom_tags(letter, values.iter().map(u8::to_string));
        }
        filter.since = self.since.map(Timestamp::from_secs);
        filter.until = self.until.map(Timestamp::from_secs);
        filter.limit = self.limit;
        filter
    }
}
