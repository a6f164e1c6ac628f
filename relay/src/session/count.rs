//! COUNT (NIP-45), which tells nothing that a subscription would keep back.

use std::collections::HashSet;

use nostr::Filter;

use crate::store::{self, Count, Seen};

/// Events of one of several filters, which are counted by their ids: they may match the same.
const MAX_IDS: usize = 20_000;

/// How many events match one of `filters` and may be seen.
///
/// # Errors
/// When the store cannot be read, or several filters match too many.
pub async fn count(store: &Seen<'_>, mut filters: Vec<Filter>) -> Result<Count, store::Error> {
    if filters.len() == 1
        && let Some(filter) = filters.pop()
    {
        return store.count(filter).await;
    }
    let mut ids = HashSet::new();
    for filter in filters {
        let items = store.items(filter, MAX_IDS).await?;
        ids.extend(items.into_iter().map(|(_, id)| id));
    }
    Ok(Count {
        events: ids.len() as u64,
        exact: true,
    })
}
