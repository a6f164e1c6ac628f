//! COUNT (NIP-45), which tells nothing that a subscription would keep back: of private kinds it counts only what
//! concerns who asks.

use std::collections::{BTreeSet, HashSet};

use nostr::{Alphabet, EventId, Filter, Kind, PublicKey, SingleLetterTag};

use super::viewer::Viewer;
use crate::store::{self, Count, Store};

const P: SingleLetterTag = SingleLetterTag::lowercase(Alphabet::P);

/// Events that are counted by their ids: those of several filters, which may match the same, and those of private
/// kinds.
const MAX_IDS: usize = 20_000;

/// How many events match one of `filters` and may be seen.
///
/// # Errors
/// When the store cannot be read, or several filters match too many.
pub async fn count(
    store: &Store,
    viewer: &Viewer,
    mut filters: Vec<Filter>,
) -> Result<Count, store::Error> {
    if filters.len() == 1
        && let Some(filter) = filters.pop()
    {
        return count_one(store, viewer, filter).await;
    }
    let mut ids = HashSet::new();
    for filter in filters {
        let private = private_part(&filter, viewer.private_kinds());
        let mut matching = ids_of(store, filter).await?;
        if let Some(private) = private {
            for id in ids_of(store, private.clone()).await? {
                matching.remove(&id);
            }
            matching.extend(own(store, viewer, private).await?);
        }
        ids.extend(matching);
    }
    Ok(Count {
        events: ids.len() as u64,
        exact: true,
    })
}

async fn count_one(store: &Store, viewer: &Viewer, filter: Filter) -> Result<Count, store::Error> {
    let private = private_part(&filter, viewer.private_kinds());
    let all = store.count(filter).await?;
    let Some(private) = private else {
        return Ok(all);
    };
    let kept_back = store.count(private.clone()).await?;
    let own = own(store, viewer, private).await?;
    Ok(Count {
        events: all.events.saturating_sub(kept_back.events) + own.len() as u64,
        exact: all.exact && kept_back.exact,
    })
}

/// The filter, narrowed to private kinds; nothing if it asks for none of these.
fn private_part(filter: &Filter, private: &[Kind]) -> Option<Filter> {
    let asked = |kind: &&Kind| filter.kinds.as_ref().is_none_or(|all| all.contains(kind));
    let kinds: BTreeSet<Kind> = private.iter().filter(asked).copied().collect();
    (!kinds.is_empty()).then(|| Filter {
        kinds: Some(kinds),
        ..filter.clone()
    })
}

/// The events that match and were written by, or to, who asks.
async fn own(
    store: &Store,
    viewer: &Viewer,
    private: Filter,
) -> Result<HashSet<EventId>, store::Error> {
    let keys = viewer.keys();
    let mut own = HashSet::new();
    let narrowed = [written_by(&private, &keys), written_to(&private, &keys)];
    for filter in narrowed.into_iter().flatten() {
        own.extend(ids_of(store, filter).await?);
    }
    Ok(own)
}

fn written_by(filter: &Filter, keys: &[PublicKey]) -> Option<Filter> {
    let asked = |key: &&PublicKey| filter.authors.as_ref().is_none_or(|all| all.contains(key));
    let authors: BTreeSet<_> = keys.iter().filter(asked).copied().collect();
    (!authors.is_empty()).then(|| Filter {
        authors: Some(authors),
        ..filter.clone()
    })
}

fn written_to(filter: &Filter, keys: &[PublicKey]) -> Option<Filter> {
    let named = filter.generic_tags.get(&P);
    // One that names readers of which some are not who asks would have to be met twice over.
    let keys = keys.iter().map(PublicKey::to_hex);
    let readers: BTreeSet<_> = keys
        .filter(|key| named.is_none_or(|named| named.contains(key)))
        .collect();
    let mut narrowed = filter.clone();
    let is_any = !readers.is_empty();
    narrowed.generic_tags.insert(P, readers);
    is_any.then_some(narrowed)
}

async fn ids_of(store: &Store, filter: Filter) -> Result<HashSet<EventId>, store::Error> {
    let items = store.items(filter, MAX_IDS).await?;
    Ok(items.into_iter().map(|(_, id)| id).collect())
}
