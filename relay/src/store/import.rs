//! A store of an older version, made by nostr-lmdb, is taken over at the next start.
//!
//! All of its events go into the index; then its file is renamed. If the process is killed in between, the next one
//! begins again and skips what it finds there.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use heed::types::Bytes;
use heed::{Database, Env, EnvOpenOptions};
use nostr::{Event, JsonUtil};
use nostr_database::FlatBufferDecode;

use super::frame::{Entry, Operation};
use super::index::Index;
use super::log::sync_folder;
use super::steps::Steps;
use super::{Error, Saved};

/// The old store's file.
const OLD: &str = "data.mdb";

/// Its name once its events are here.
const TAKEN: &str = "old-data.mdb";

/// The file that LMDB keeps beside it.
const OLD_LOCK: &str = "lock.mdb";

/// Address space for the old file.
const MAP: usize = 1 << 40;

/// How many events are taken over between two lines that say so.
const OFTEN: usize = 100_000;

/// Tables in the old file.
const TABLES: u32 = 16;

/// Takes over the old store in `folder`, if there is one.
///
/// # Errors
/// When it cannot be read, or the index not be written.
pub fn take_over(folder: &Path, index: &Index) -> Result<(), Error> {
    let old = folder.join(OLD);
    if !old.exists() {
        return Ok(());
    }
    let events = read(folder, index)?;
    fs::rename(&old, folder.join(TAKEN))?;
    // Else what is removed from now on could come back.
    sync_folder(folder)?;
    // It is made anew with every opening.
    let _ = fs::remove_file(folder.join(OLD_LOCK));
    tracing::info!(
        events,
        kept = TAKEN,
        "took over the older store; its file can be removed"
    );
    Ok(())
}

/// Copies all events and answers how many are new.
fn read(folder: &Path, index: &Index) -> Result<usize, Error> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP).max_dbs(TABLES);
    // SAFETY: the store holds the folder's lock, so no relay writes the file under the map.
    let env = unsafe { options.open(folder) }.map_err(unreadable)?;
    let copied = copy(&env, index);
    env.prepare_for_closing().wait();
    copied
}

fn copy(env: &Env, index: &Index) -> Result<usize, Error> {
    let txn = env.read_txn().map_err(unreadable)?;
    let events = env.open_database(&txn, None).map_err(unreadable)?;
    let events: Database<Bytes, Bytes> =
        events.ok_or_else(|| Error::Import("it has no events".to_owned()))?;
    tracing::info!(folder = %env.path().display(), "taking over the store of an older version");
    let mut copy = Copy {
        next: index.view()?.applied()? + 1,
        steps: Steps::new(index),
        told: 0,
    };
    for found in events.iter(&txn).map_err(unreadable)? {
        let (id, event) = found.map_err(unreadable)?;
        // The names of the other tables stand among the ids.
        if id.len() == 32 {
            let event = Event::decode(event).map_err(|error| Error::Import(error.to_string()))?;
            copy.put(event)?;
        }
    }
    copy.steps.apply()?;
    Ok(copy.steps.applied())
}

fn unreadable(error: heed::Error) -> Error {
    Error::Import(error.to_string())
}

/// Events on their way into the index.
struct Copy<'a> {
    next: u64,
    steps: Steps<'a>,
    /// How many there were when it was last said.
    told: usize,
}

impl Copy<'_> {
    fn put(&mut self, event: Event) -> Result<(), Error> {
        let verdict = self.steps.known(|known| known.judge(&event))?;
        // Whatever the old store took is kept, also a deletion of others' events, which has no effect here.
        if !matches!(verdict, Saved::New | Saved::Refused(_)) {
            return Ok(());
        }
        let json = event.as_json().into();
        let entry = Entry {
            number: self.next,
            operation: Operation::Take(Arc::new(event), json),
        };
        self.next += 1;
        self.steps.put(entry)?;
        let events = self.steps.applied();
        if events - self.told >= OFTEN {
            self.told = events;
            tracing::info!(events, "taking over");
        }
        Ok(())
    }
}
