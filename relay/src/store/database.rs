//! The store as other parts of the ecosystem know one.

use std::sync::Arc;

use nostr::util::BoxedFuture;
use nostr::{Event, EventId, Filter, JsonUtil, Timestamp};
use nostr_database::{
    Backend, DatabaseError, DatabaseEventStatus, Events, NostrDatabase, RejectedReason,
    SaveEventStatus,
};

use super::{Error, Saved, Store, Stored};
use crate::admission::Refusal;

/// Events removed at a time.
const STEP: usize = 1_000;

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        match error {
            Error::Search => Self::NotSupported,
            error => Self::backend(error),
        }
    }
}

impl Store {
    async fn save_one(&self, event: &Event) -> Result<SaveEventStatus, DatabaseError> {
        if event.kind.is_ephemeral() {
            return Ok(SaveEventStatus::Rejected(RejectedReason::Ephemeral));
        }
        let json = event.as_json().into();
        let reason = match self.save(Arc::new(event.clone()), json).await? {
            Saved::New => return Ok(SaveEventStatus::Success),
            Saved::Duplicate => RejectedReason::Duplicate,
            Saved::Superseded(_) => RejectedReason::Replaced,
            Saved::Deleted => RejectedReason::Deleted,
            Saved::Refused(Refusal::DeletesForeign(_) | Refusal::DeletesEvidence(..)) => {
                RejectedReason::InvalidDelete
            }
            Saved::Refused(_) => RejectedReason::Other,
        };
        Ok(SaveEventStatus::Rejected(reason))
    }

    async fn events(&self, filter: Filter) -> Result<Events, DatabaseError> {
        let mut events = Events::new(&filter);
        for stored in Store::query(self, filter, usize::MAX).await? {
            events.insert(stored.event()?);
        }
        Ok(events)
    }

    async fn remove_all(&self, filter: Filter) -> Result<(), DatabaseError> {
        loop {
            let found = Store::query(self, filter.clone(), STEP).await?;
            if found.is_empty() {
                return Ok(());
            }
            let ids = found.iter().map(|stored| stored.id);
            self.remove(ids.collect()).await?;
        }
    }
}

impl NostrDatabase for Store {
    fn backend(&self) -> Backend {
        Backend::Custom("infernet".to_owned())
    }

    fn save_event<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxedFuture<'a, Result<SaveEventStatus, DatabaseError>> {
        Box::pin(self.save_one(event))
    }

    fn check_id<'a>(
        &'a self,
        id: &'a EventId,
    ) -> BoxedFuture<'a, Result<DatabaseEventStatus, DatabaseError>> {
        Box::pin(async move {
            Ok(match self.has(id)? {
                true => DatabaseEventStatus::Saved,
                // Deletions are written down by author: without the event nobody knows whose would count.
                false => DatabaseEventStatus::NotExistent,
            })
        })
    }

    fn event_by_id<'a>(
        &'a self,
        id: &'a EventId,
    ) -> BoxedFuture<'a, Result<Option<Event>, DatabaseError>> {
        Box::pin(async move {
            let found = Store::query(self, Filter::new().id(*id), 1).await?;
            Ok(found.first().map(Stored::event).transpose()?)
        })
    }

    fn count(&self, filter: Filter) -> BoxedFuture<'_, Result<usize, DatabaseError>> {
        Box::pin(async move {
            let count = Store::count(self, filter).await?;
            usize::try_from(count.events).map_err(DatabaseError::backend)
        })
    }

    fn query(&self, filter: Filter) -> BoxedFuture<'_, Result<Events, DatabaseError>> {
        Box::pin(self.events(filter))
    }

    fn negentropy_items(
        &self,
        filter: Filter,
    ) -> BoxedFuture<'_, Result<Vec<(EventId, Timestamp)>, DatabaseError>> {
        Box::pin(async move {
            let items = self.items(filter, usize::MAX).await?;
            Ok(items.into_iter().map(|(at, id)| (id, at)).collect())
        })
    }

    fn delete(&self, filter: Filter) -> BoxedFuture<'_, Result<(), DatabaseError>> {
        Box::pin(self.remove_all(filter))
    }

    fn wipe(&self) -> BoxedFuture<'_, Result<(), DatabaseError>> {
        Box::pin(self.remove_all(Filter::new()))
    }
}
