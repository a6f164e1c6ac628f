//! Finds the subscriptions that an event may match.
//!
//! Each filter stands under the values of one of its conditions, the one that fewest events meet: an event can only
//! match what stands under its own id, tags, author and kind. Whether it does is for the filter to say.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use nostr::{Event, EventId, Filter, Kind, PublicKey, SingleLetterTag};

/// Tags whose values each stand in few events: they name an event, an address, a key or a thing.
const NARROW: &str = "eapqxiEAPQXI";

/// One place in the index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Id(EventId),
    Tag(SingleLetterTag, String),
    Author(PublicKey),
    Kind(Kind),
    /// For filters that ask for none of these.
    Any,
}

/// Where a subscription with these filters stands.
pub fn keys(filters: &[Filter]) -> Vec<Key> {
    let keys: BTreeSet<Key> = filters.iter().flat_map(narrowest).collect();
    keys.into_iter().collect()
}

/// The keys of the condition that fewest events meet.
fn narrowest(filter: &Filter) -> Vec<Key> {
    if let Some(ids) = asked(&filter.ids) {
        return ids.iter().copied().map(Key::Id).collect();
    }
    let tags = || {
        let tags = filter.generic_tags.iter();
        tags.map(|(name, values)| (*name, values))
    };
    let narrow = tags().filter(|(name, _)| NARROW.contains(name.as_char()));
    if let Some(tag) = narrow.min_by_key(|(_, values)| values.len()) {
        return tagged(tag);
    }
    if let Some(authors) = asked(&filter.authors) {
        return authors.iter().copied().map(Key::Author).collect();
    }
    if let Some(tag) = tags().min_by_key(|(_, values)| values.len()) {
        return tagged(tag);
    }
    match asked(&filter.kinds) {
        Some(kinds) => kinds.iter().copied().map(Key::Kind).collect(),
        None => vec![Key::Any],
    }
}

/// An empty set asks for nothing in particular, as [`Filter::match_event`] has it; for tags it is the other way round.
fn asked<T>(set: &Option<BTreeSet<T>>) -> Option<&BTreeSet<T>> {
    set.as_ref().filter(|set| !set.is_empty())
}

fn tagged((name, values): (SingleLetterTag, &BTreeSet<String>)) -> Vec<Key> {
    let values = values.iter().cloned();
    values.map(|value| Key::Tag(name, value)).collect()
}

/// What stands under one key, by number, ascending.
type Place<T> = Vec<(u64, T)>;

/// Values of `T` under the keys of their filters.
#[derive(Debug)]
pub struct Index<T> {
    next: u64,
    ids: HashMap<EventId, Place<T>>,
    tags: HashMap<SingleLetterTag, HashMap<String, Place<T>>>,
    authors: HashMap<PublicKey, Place<T>>,
    kinds: HashMap<Kind, Place<T>>,
    any: Place<T>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self {
            next: 0,
            ids: HashMap::new(),
            tags: HashMap::new(),
            authors: HashMap::new(),
            kinds: HashMap::new(),
            any: Vec::new(),
        }
    }
}

impl<T: Clone> Index<T> {
    /// Puts `value` under `keys` and answers the number that it is removed by.
    pub fn insert(&mut self, keys: &[Key], value: T) -> u64 {
        let number = self.next;
        self.next += 1;
        for key in keys {
            // Numbers ascend, so each place stays sorted.
            self.place(key).push((number, value.clone()));
        }
        number
    }

    fn place(&mut self, key: &Key) -> &mut Place<T> {
        match key {
            Key::Id(id) => self.ids.entry(*id).or_default(),
            Key::Tag(name, value) => {
                let values = self.tags.entry(*name).or_default();
                values.entry(value.clone()).or_default()
            }
            Key::Author(author) => self.authors.entry(*author).or_default(),
            Key::Kind(kind) => self.kinds.entry(*kind).or_default(),
            Key::Any => &mut self.any,
        }
    }

    /// Removes what was put under `keys` with `number`.
    pub fn remove(&mut self, keys: &[Key], number: u64) {
        for key in keys {
            match key {
                Key::Id(id) => take(&mut self.ids, id, number),
                Key::Tag(name, value) => {
                    if let Some(values) = self.tags.get_mut(name) {
                        take(values, value, number);
                        if values.is_empty() {
                            self.tags.remove(name);
                        }
                    }
                }
                Key::Author(author) => take(&mut self.authors, author, number),
                Key::Kind(kind) => take(&mut self.kinds, kind, number),
                Key::Any => drop_from(&mut self.any, number),
            }
        }
    }

    /// What stands under the keys of an event, each once, oldest first.
    pub fn candidates(&self, event: &Event) -> Vec<T> {
        let mut found: Vec<&(u64, T)> = self.any.iter().collect();
        found.extend(self.ids.get(&event.id).into_iter().flatten());
        found.extend(self.authors.get(&event.pubkey).into_iter().flatten());
        found.extend(self.kinds.get(&event.kind).into_iter().flatten());
        if !self.tags.is_empty() {
            for tag in event.tags.iter() {
                let values = tag
                    .single_letter_tag()
                    .and_then(|name| self.tags.get(&name));
                let place = values
                    .zip(tag.content())
                    .and_then(|(all, value)| all.get(value));
                found.extend(place.into_iter().flatten());
            }
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, value)| value.clone()).collect()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.tags.is_empty()
            && self.authors.is_empty()
            && self.kinds.is_empty()
            && self.any.is_empty()
    }
}

/// Removes a number from a place, and the place if nothing is left in it.
fn take<K, Q, T>(places: &mut HashMap<K, Place<T>>, key: &Q, number: u64)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(place) = places.get_mut(key) {
        drop_from(place, number);
        if place.is_empty() {
            places.remove(key);
        }
    }
}

fn drop_from<T>(place: &mut Place<T>, number: u64) {
    if let Ok(at) = place.binary_search_by_key(&number, |(number, _)| *number) {
        place.remove(at);
    }
}
