//! Which awards were answered, as far as there is room for it: one that is new, as
//! nearly all are, need not be looked for in the database.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nostr::EventId;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteRow;

use super::{Error, tickets};

/// Awards that are remembered. Beyond it each is looked for, until the next start.
const MAX_REMEMBERED: usize = 65_536;

/// The awards that the database may know. What it has forgotten may still be here.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<Mutex<Answered>>);

#[derive(Debug)]
struct Answered {
    awards: HashSet<EventId>,
    /// Whether all that the database knows is here.
    is_whole: bool,
}

impl Memory {
    /// What the database knows now.
    pub async fn load(pool: &SqlitePool) -> Result<Self, Error> {
        let rows = sqlx::query(
            "SELECT award FROM attempts
             UNION SELECT award FROM tickets WHERE due_msat IS NOT NULL LIMIT ?",
        )
        .bind(MAX_REMEMBERED as i64 + 1)
        .fetch_all(pool)
        .await?;
        let memory = Self(Arc::new(Mutex::new(Answered {
            awards: HashSet::new(),
            is_whole: true,
        })));
        memory.remember_rows(&rows)?;
        Ok(memory)
    }

    /// Whether the database may know this award.
    pub fn may_know(&self, award: &EventId) -> bool {
        let answered = self.answered();
        !answered.is_whole || answered.awards.contains(award)
    }

    /// The database is about to know this award.
    pub fn remember(&self, award: EventId) {
        let mut answered = self.answered();
        if !answered.is_whole {
            return;
        }
        answered.awards.insert(award);
        if answered.awards.len() > MAX_REMEMBERED {
            answered.awards = HashSet::new();
            answered.is_whole = false;
        }
    }

    /// The same of the awards that these rows name.
    pub fn remember_rows(&self, rows: &[SqliteRow]) -> Result<(), Error> {
        for row in rows {
            self.remember(tickets::id(row, "award")?);
        }
        Ok(())
    }

    fn answered(&self) -> MutexGuard<'_, Answered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn beyond_its_room_it_says_that_it_does_not_know() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("provider.sqlite")).await;
        let memory = store.unwrap().memory;
        let id = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            EventId::from_byte_array(bytes)
        };
        for n in 0..MAX_REMEMBERED {
            memory.remember(id(n));
        }
        assert!(memory.may_know(&id(0)) && !memory.may_know(&id(MAX_REMEMBERED)));
        memory.remember(id(MAX_REMEMBERED));
        assert!(memory.may_know(&id(0)) && memory.may_know(&id(usize::MAX)));
    }
}
