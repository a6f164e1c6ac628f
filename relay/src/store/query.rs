//! How events are found: by the condition of the filter that fits the fewest, newest first.
//!
//! Every key under a condition ends with the event's place in time ([`Tail`]), so several values (of a tag, of
//! authors) are merged by it, and the walk stops as soon as enough is found. An epoch is looked at when the walk comes
//! to the moment of its newest event.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use nostr::{EventId, Filter, Timestamp};

use super::index::{Keys, View};
use super::key::{Condition, Epoch, Tail};
use super::reader::Reader;
use super::record::Record;
use super::sieve::Sieve;
use super::tables::Span;
use super::{Count, Error, Stored};

/// Combinations of author and kind that are looked up one by one; more are found by author alone.
const MOST_PAIRS: usize = 2_000;

/// How far each way to find events is walked to see whether it is a short one.
const PROBES: [usize; 2] = [64, 2_048];

/// Events that one COUNT looks at.
const MOST_COUNTED: usize = 50_000;

/// Conditions, any of which an event must fulfil.
type Way = Vec<Condition>;

/// The newest events that a filter asks for, at most `limit`.
///
/// # Errors
/// When the index cannot be read; this holds for all of these.
pub fn newest(
    view: &View<'_>,
    reader: &Reader,
    filter: &Filter,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<Stored>, Error> {
    let limit = filter.limit.unwrap_or(limit).min(limit);
    let mut found = Vec::new();
    if limit > 0 {
        each(view, reader, filter, now, |record| {
            found.push(record.stored());
            found.len() < limit
        })?;
    }
    Ok(found)
}

/// How many events a filter asks for.
pub fn count(
    view: &View<'_>,
    reader: &Reader,
    filter: &Filter,
    now: Timestamp,
) -> Result<Count, Error> {
    let most = filter.limit.unwrap_or(usize::MAX).min(MOST_COUNTED);
    let mut events = 0;
    let ended = most == 0
        || each(view, reader, filter, now, |_| {
            events += 1;
            events <= most
        })?;
    let exact = ended || filter.limit.is_some_and(|limit| limit <= most);
    let events = events.min(most) as u64;
    Ok(Count { events, exact })
}

/// When and under which ids a filter finds events, newest first; the last one says whether there are more than `most`.
pub fn items(
    view: &View<'_>,
    reader: &Reader,
    filter: &Filter,
    most: usize,
    now: Timestamp,
) -> Result<Vec<(Timestamp, EventId)>, Error> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let mut items = Vec::new();
    if limit > 0 {
        each(view, reader, filter, now, |record| {
            let id = EventId::from_byte_array(*record.id());
            items.push((record.created_at(), id));
            items.len() < limit && items.len() <= most
        })?;
    }
    match items.len() > most {
        true => Err(Error::TooMany),
        false => Ok(items),
    }
}

/// Shows what a filter finds and `reader` may see, newest first, until `take` has enough. Answers whether that was all.
fn each<'v>(
    view: &'v View<'_>,
    reader: &Reader,
    filter: &Filter,
    now: Timestamp,
    mut take: impl FnMut(&Record<'v>) -> bool,
) -> Result<bool, Error> {
    if filter.search.is_some() {
        return Err(Error::Search);
    }
    let sieve = Sieve::new(filter, now);
    let mut take = |record: &Record<'v>| !reader.may_see(record) || take(record);
    if let Some(ids) = &sieve.ids {
        return by_id(view, &sieve, ids, take);
    }
    let way = shortest(view, &sieve)?;
    for tail in Merge::new(view, &sieve, &way)? {
        let tail = tail?;
        if !sieve.has_kind(tail.kind()) {
            continue;
        }
        let record = view.record(tail.number())?;
        let record = record.filter(|record| sieve.passes(record));
        if record.is_some_and(|record| !take(&record)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn by_id<'v, 'a>(
    view: &'v View<'_>,
    sieve: &Sieve,
    ids: impl IntoIterator<Item = &'a [u8; 32]>,
    take: impl FnMut(&Record<'v>) -> bool,
) -> Result<bool, Error> {
    let mut found = Vec::new();
    for id in ids {
        let Some(number) = view.number(id)? else {
            continue;
        };
        let record = view.record(number)?;
        found.extend(record.filter(|record| sieve.passes(record)));
    }
    found.sort_by_key(|record| (Reverse(record.created_at()), record.id()));
    Ok(found.iter().all(take))
}

/// The ways to find what a filter asks for, those that mostly find the fewest first.
fn ways(sieve: &Sieve) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    for (letter, values) in &sieve.tags {
        let values = values.iter().map(|value| Condition::tag(*letter, value));
        ways.push(values.collect());
    }
    ways.sort_by_key(Vec::len);
    match (&sieve.authors, &sieve.kinds) {
        (Some(authors), Some(kinds)) if authors.len() * kinds.len() <= MOST_PAIRS => {
            let pairs = authors.iter().flat_map(|author| {
                let kinds = kinds.iter();
                kinds.map(|kind| Condition::author_and_kind(author, *kind))
            });
            ways.push(pairs.collect());
        }
        (Some(authors), _) => ways.push(authors.iter().map(Condition::author).collect()),
        (None, Some(kinds)) => ways.push(kinds.iter().map(|kind| Condition::kind(*kind)).collect()),
        (None, None) => {}
    }
    if ways.is_empty() {
        ways.push(vec![Condition::all()]);
    }
    ways
}

/// The shortest way: the first that is found to end soon, or else the one that mostly does.
fn shortest(view: &View<'_>, sieve: &Sieve) -> Result<Way, Error> {
    let mut ways = ways(sieve);
    if ways.len() > 1 {
        for most in PROBES {
            for (index, way) in ways.iter().enumerate() {
                if is_shorter(view, sieve, way, most)? {
                    return Ok(ways.swap_remove(index));
                }
            }
        }
    }
    Ok(ways.swap_remove(0))
}

/// Whether a way has fewer than `most` keys.
fn is_shorter(view: &View<'_>, sieve: &Sieve, way: &Way, most: usize) -> Result<bool, Error> {
    let mut left = most;
    for span in spans(view, sieve)? {
        for condition in way {
            let (first, last) = condition.range(span.epoch, sieve.since, sieve.until);
            left -= view.keys(&first, &last)?.take(left).count();
            if left == 0 {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The epochs that can have what is asked for, that with the newest event last.
fn spans(view: &View<'_>, sieve: &Sieve) -> Result<Vec<Span>, Error> {
    let mut spans = view.spans()?;
    spans.retain(|span| span.first <= sieve.until && span.last >= sieve.since);
    spans.sort_by_key(|span| span.last);
    Ok(spans)
}

/// The places of all events on a way, newest first, each once.
struct Merge<'v, 'a> {
    view: &'v View<'v>,
    sieve: &'a Sieve,
    way: &'a Way,
    /// The epochs that were not looked at yet.
    spans: Vec<Span>,
    streams: Vec<Keys<'v>>,
    heads: BinaryHeap<Reverse<(Tail, usize)>>,
    last: Option<Tail>,
}

impl<'v, 'a> Merge<'v, 'a> {
    fn new(view: &'v View<'_>, sieve: &'a Sieve, way: &'a Way) -> Result<Self, Error> {
        Ok(Self {
            view,
            sieve,
            way,
            spans: spans(view, sieve)?,
            streams: Vec::with_capacity(way.len()),
            heads: BinaryHeap::with_capacity(way.len()),
            last: None,
        })
    }

    /// Looks at all epochs that can have the next event.
    fn open_due(&mut self) -> Result<(), Error> {
        while let Some(span) = self.spans.last() {
            let newest = Tail::newest(span.last);
            let head = self.heads.peek();
            if head.is_some_and(|Reverse((head, _))| *head < newest) {
                break;
            }
            self.open(span.epoch)?;
            self.spans.pop();
        }
        Ok(())
    }

    fn open(&mut self, epoch: Epoch) -> Result<(), Error> {
        for condition in self.way {
            let (first, last) = condition.range(epoch, self.sieve.since, self.sieve.until);
            let mut keys = self.view.keys(&first, &last)?;
            if let Some(head) = following(&mut keys)? {
                self.heads.push(Reverse((head, self.streams.len())));
                self.streams.push(keys);
            }
        }
        Ok(())
    }

    /// The next place, also if it was there before.
    fn following(&mut self) -> Result<Option<Tail>, Error> {
        self.open_due()?;
        let Some(mut head) = self.heads.peek_mut() else {
            return Ok(None);
        };
        let Reverse((tail, stream)) = *head;
        match following(&mut self.streams[stream])? {
            Some(following) => head.0.0 = following,
            None => drop(std::collections::binary_heap::PeekMut::pop(head)),
        }
        Ok(Some(tail))
    }
}

impl Iterator for Merge<'_, '_> {
    type Item = Result<Tail, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.following() {
                // An event with two of the values comes twice in a row.
                Ok(Some(tail)) if self.last == Some(tail) => {}
                Ok(Some(tail)) => {
                    self.last = Some(tail);
                    return Some(Ok(tail));
                }
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn following(keys: &mut Keys<'_>) -> Result<Option<Tail>, Error> {
    match keys.next() {
        Some(found) => Ok(Tail::of(found?.0)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use nostr::{EventBuilder, JsonUtil, Keys as Signer, Kind};

    use super::super::frame::{Entry, Operation};
    use super::super::index::Index;
    use super::*;

    /// An index of so many epochs, whose events were made at these moments, and their ids, newest first.
    fn index(folder: &std::path::Path, moments: &[u64]) -> (Index, Vec<EventId>) {
        let index = Index::open(folder).unwrap();
        let signer = Signer::generate();
        let mut made = Vec::new();
        for (epoch, at) in (0..).zip(moments) {
            let event = EventBuilder::new(Kind::from(1), epoch.to_string());
            let event = event.custom_created_at(Timestamp::from_secs(*at));
            let event = event.sign_with_keys(&signer).unwrap();
            let json = event.as_json().into();
            made.push((Reverse(event.created_at), event.id));
            let operation = Operation::Take(Arc::new(event), json);
            let number = (epoch << 17) + 1;
            index.apply(&[Entry { number, operation }]).unwrap();
        }
        made.sort();
        (index, made.into_iter().map(|(_, id)| id).collect())
    }

    #[test]
    fn epochs_are_merged_newest_first() {
        // Some in order, some of the same second, some that came late.
        let moments = [5, 7, 7, 3, 9, 9, 1, 20, 7, 2];
        let folder = tempfile::tempdir().unwrap();
        let (index, ids) = index(folder.path(), &moments);
        let view = index.view().unwrap();
        assert_eq!(view.spans().unwrap().len(), moments.len());
        let found = |filter: &Filter, limit| -> Vec<EventId> {
            let found =
                newest(&view, &Reader::default(), filter, limit, Timestamp::zero()).unwrap();
            found.into_iter().map(|stored| stored.id).collect()
        };
        for filter in [Filter::new(), Filter::new().kind(Kind::from(1))] {
            for limit in 0..=moments.len() {
                assert_eq!(found(&filter, limit), ids[..limit]);
            }
        }
        let at = Timestamp::from_secs;
        let window = Filter::new().since(at(5)).until(at(9));
        assert_eq!(found(&window, 100), ids[1..7]);
        let count = count(&view, &Reader::default(), &window, Timestamp::zero()).unwrap();
        assert_eq!((count.events, count.exact), (6, true));
    }
}
