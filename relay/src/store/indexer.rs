//! The thread that brings the index up to what the log has, in batches.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use nostr::Timestamp;
use tokio::sync::{oneshot, watch};

use super::Error;
use super::frame::Entry;
use super::key::Number;
use super::life::Shared;

/// Operations in one transaction.
const BATCH: usize = 8_192;

/// Operations that are forgotten at a time.
const STEP: usize = 256;

/// How long to gather a batch while nobody waits for it: one transaction costs much, one more event in it little.
const GATHER: Duration = Duration::from_millis(100);

/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What the thread is asked for.
#[derive(Debug)]
pub enum Task {
    /// Take these in.
    Apply(Vec<Entry>),
    /// Somebody waits for what was given before.
    Hurry,
    /// Drop what has expired by then, and say how much that was.
    Purge(Timestamp, oneshot::Sender<Result<usize, Error>>),
}

/// How far the index is behind the log, for all who need to know.
#[derive(Debug)]
pub struct Progress {
    applied: watch::Sender<Number>,
    /// Why the index cannot follow, while it cannot.
    stuck: Mutex<Option<Error>>,
    /// Who waits for room in the backlog.
    writer: Mutex<Option<Thread>>,
}

impl Progress {
    /// Begins with what the index has.
    pub fn new(applied: Number) -> Self {
        Self {
            applied: watch::Sender::new(applied),
            stuck: Mutex::default(),
            writer: Mutex::default(),
        }
    }

    /// The last number that the index has.
    pub fn applied(&self) -> Number {
        *self.applied.borrow()
    }

    /// Why the index cannot follow, if it cannot.
    pub fn stuck(&self) -> Option<Error> {
        self.stuck
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until the index has `number`.
    ///
    /// # Errors
    /// When it cannot follow.
    pub async fn reached(&self, number: Number) -> Result<(), Error> {
        let mut applied = self.applied.subscribe();
        let is_there = |applied: &Number| *applied >= number;
        let reached = applied.wait_for(|applied| is_there(applied) || self.stuck().is_some());
        // The sender is in `self`, so it does not end.
        let reached = reached.await.is_ok_and(|applied| is_there(&applied));
        match reached {
            true => Ok(()),
            false => Err(self.stuck().unwrap_or(Error::Busy)),
        }
    }

    /// Says that `thread` is to be woken whenever the index moved.
    pub fn wake(&self, thread: Thread) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    fn moved(&self, applied: Number, stuck: Option<Error>) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = stuck;
        self.applied.send_replace(applied);
        if let Some(writer) = &*self.writer.lock().unwrap_or_else(PoisonError::into_inner) {
            writer.unpark();
        }
    }
}

/// Keeps the index up with the log until nobody can ask for anything any more, and everything is in it.
pub fn run(shared: &Shared, tasks: &Receiver<Task>) {
    let _end = End(&shared.progress);
    let mut gathered = Gathered::default();
    while gathered.gather(tasks) {
        gathered.apply(shared);
        while let Some((now, told)) = gathered.purges.pop() {
            let _ = told.send(gathered.purge(shared, tasks, now));
        }
    }
    // The log still has what does not go in now.
    gathered.apply(shared);
}

/// Says when the thread ends, however it does, that the index follows no more: nobody waits for it then.
struct End<'a>(&'a Progress);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.moved(self.0.applied(), Some(Error::Closed));
    }
}

/// What one transaction will take in.
#[derive(Default)]
struct Gathered {
    entries: Vec<Entry>,
    purges: Vec<(Timestamp, oneshot::Sender<Result<usize, Error>>)>,
}

impl Gathered {
    /// Waits for something to do, and a while for more of it. Answers false when there will be nothing any more.
    fn gather(&mut self, tasks: &Receiver<Task>) -> bool {
        // With entries left over from a failure it waits to try them again.
        let first = match self.entries.is_empty() {
            true => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => tasks.recv_timeout(AGAIN),
        };
        let mut more = match first {
            Ok(task) => self.put(task),
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let end = Instant::now() + GATHER;
        while more && self.entries.len() < BATCH {
            let left = end.saturating_duration_since(Instant::now());
            match tasks.recv_timeout(left) {
                Ok(task) => more = self.put(task),
                Err(_) => more = false,
            }
        }
        self.take_waiting(tasks);
        true
    }

    /// What is there already costs no waiting.
    fn take_waiting(&mut self, tasks: &Receiver<Task>) {
        while self.entries.len() < BATCH {
            match tasks.try_recv() {
                Ok(task) => _ = self.put(task),
                Err(_) => break,
            }
        }
    }

    /// Drops what has expired, a transaction at a time. What came in meanwhile goes between them: much may have
    /// expired at once.
    fn purge(
        &mut self,
        shared: &Shared,
        tasks: &Receiver<Task>,
        now: Timestamp,
    ) -> Result<usize, Error> {
        let mut purged = 0;
        loop {
            match shared.index.purge(now)? {
                0 => return Ok(purged),
                dropped => purged += dropped,
            }
            self.take_waiting(tasks);
            self.apply(shared);
        }
    }

    /// Answers whether more may be waited for.
    fn put(&mut self, task: Task) -> bool {
        match task {
            Task::Apply(entries) => {
                self.entries.extend(entries);
                true
            }
            Task::Hurry => false,
            Task::Purge(now, told) => {
                self.purges.push((now, told));
                false
            }
        }
    }

    fn apply(&mut self, shared: &Shared) {
        let Some(last) = self.entries.last().map(|entry| entry.number) else {
            return;
        };
        let progress = &shared.progress;
        match shared.index.apply(&self.entries) {
            Ok(()) => {
                if progress.stuck().is_some() {
                    tracing::info!("the store's index is written again");
                }
                // In steps, so that nobody waits long who looks at what is pending.
                while !shared.pending_mut().forget(last, STEP) {}
                self.entries.clear();
                progress.moved(last, None);
            }
            Err(error) => {
                if progress.stuck().is_none() {
                    tracing::error!(%error, "the store's index cannot be written; trying again every second");
                }
                progress.moved(progress.applied(), Some(error));
            }
        }
    }
}
