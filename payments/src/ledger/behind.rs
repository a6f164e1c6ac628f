//! Keeping statements without waiting for the disk.
//!
//! A stream signs totals after every piece, and a disk takes milliseconds to have one safely. So statements are
//! gathered, the newest of each job and side alone, and written together. What a crash can lose is what was signed
//! while one batch was gathered and written: a piece or two, of which the counterparty has the newer word. Charges,
//! payments and intents are never gathered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::{EventId, PublicKey};

use super::signed::{Row, keep};
use super::{Error, Ledger, Signed};

/// How long statements are gathered: a stream's next piece takes about as long, and a disk is asked no more than a
/// hundred times a second, however many streams there are.
const GATHERING: Duration = Duration::from_millis(10);

/// The job and the side.
type Name = (EventId, PublicKey);

/// Statements that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    state: Mutex<State>,
    /// Held by whoever writes, so that a batch is not written twice at a time.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    newest: HashMap<Name, Signed>,
    has_writer: bool,
}

impl Gathered {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Keeps what one side has signed last for a job, soon: it is on the disk within some milliseconds, or after
    /// [`flush`](Self::flush). Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::OutOfBounds`]; [`Error::Stranger`]. A disk that fails shows in `flush` and in whatever else is written.
    pub fn keep_soon(&self, signed: &Signed) -> Result<(), Error> {
        Row::of(signed)?;
        let name = (signed.statement.award, signed.author);
        let mut state = self.gathered.state();
        let known = state.newest.get(&name);
        if known.is_some_and(|known| known.is_newer_than(signed)) {
            return Ok(());
        }
        state.newest.insert(name, *signed);
        if !std::mem::replace(&mut state.has_writer, true) {
            tokio::spawn(self.clone().write_behind());
        }
        Ok(())
    }

    /// Writes what is gathered, and returns once it is on the disk.
    ///
    /// # Errors
    /// [`Error::Sqlite`]: what was gathered is kept, and written with the next.
    pub async fn flush(&self) -> Result<(), Error> {
        let _alone = self.gathered.writing.lock().await;
        let batch = self.gathered.state().newest.clone();
        if batch.is_empty() {
            return Ok(());
        }
        let mut change = self.change().await?;
        for signed in batch.values() {
            keep(&mut change, signed).await?;
        }
        change.commit().await?;
        let mut state = self.gathered.state();
        state
            .newest
            .retain(|name, signed| batch.get(name) != Some(signed));
        Ok(())
    }

    /// Writes until nothing is left.
    async fn write_behind(self) {
        loop {
            tokio::time::sleep(GATHERING).await;
            let written = self.flush().await;
            let mut state = self.gathered.state();
            if let Err(error) = written {
                tracing::error!(%error, "what was signed cannot be written down");
            } else if !state.newest.is_empty() {
                continue;
            }
            state.has_writer = false;
            return;
        }
    }
}
