//! A filter, made ready to be held against records.

use std::collections::{BTreeSet, HashSet};

use nostr::{Filter, Timestamp};

use super::key::{self, Digest16};
use super::record::Record;

/// A filter (NIP-01) with its values as records have them. An empty list of ids, authors or kinds asks for nothing
/// in particular, as with the rest of this program.
#[derive(Debug)]
pub struct Sieve {
    /// Ids, any of which will do.
    pub ids: Option<HashSet<[u8; 32]>>,
    /// Authors.
    pub authors: Option<HashSet<[u8; 32]>>,
    /// Kinds.
    pub kinds: Option<BTreeSet<u16>>,
    /// Tags: for each letter the hashes of the values.
    pub tags: Vec<(u8, HashSet<Digest16>)>,
    /// The earliest moment.
    pub since: Timestamp,
    /// The latest.
    pub until: Timestamp,
    /// What has expired at this moment is none of what is asked for.
    pub now: Timestamp,
}

impl Sieve {
    /// Reads a filter. Its limit and its search are left to the caller.
    pub fn new(filter: &Filter, now: Timestamp) -> Self {
        let ids = filter.ids.iter().flatten().map(|id| *id.as_bytes());
        let authors = filter.authors.iter().flatten().map(|key| *key.as_bytes());
        let kinds = filter.kinds.iter().flatten().map(|kind| kind.as_u16());
        let tags = filter.generic_tags.iter().map(|(letter, values)| {
            let values = values.iter().map(|value| key::value(value));
            (letter.as_char() as u8, values.collect())
        });
        Self {
            ids: some(ids.collect(), HashSet::is_empty),
            authors: some(authors.collect(), HashSet::is_empty),
            kinds: some(kinds.collect(), BTreeSet::is_empty),
            tags: tags.collect(),
            since: filter.since.unwrap_or(Timestamp::zero()),
            until: filter.until.unwrap_or(Timestamp::max()),
            now,
        }
    }

    /// Whether events of this kind can be among what is asked for.
    pub fn has_kind(&self, kind: u16) -> bool {
        self.kinds
            .as_ref()
            .is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Whether a record is what is asked for.
    pub fn passes(&self, record: &Record<'_>) -> bool {
        let asked = |set: &Option<HashSet<[u8; 32]>>, value| {
            set.as_ref().is_none_or(|set| set.contains(value))
        };
        let created_at = record.created_at();
        !record.is_expired(self.now)
            && (self.since..=self.until).contains(&created_at)
            && self.has_kind(record.kind())
            && asked(&self.ids, record.id())
            && asked(&self.authors, record.author())
            && self.tags.iter().all(|(letter, values)| {
                let mut tags = record.tags();
                tags.any(|(own, value)| own == *letter && values.contains(value))
            })
    }
}

fn some<T>(set: T, is_empty: impl Fn(&T) -> bool) -> Option<T> {
    (!is_empty(&set)).then_some(set)
}
