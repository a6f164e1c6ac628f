//! The thread that writes the log: it decides what becomes of each event, and tells once that is on the disk.
//!
//! While one batch is being written the next gathers in the queue, so that one sync serves all who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use nostr::{Event, EventId};
use tokio::sync::oneshot;

use super::frame::{Entry, Operation, weight};
use super::index::View;
use super::indexer::Task;
use super::life::Shared;
use super::log::Log;
use super::pending::Pending;
use super::verdict::Known;
use super::{Error, Saved};

/// Orders in one batch. What is pending cannot change while they are judged, a millisecond or so.
const BATCH: usize = 256;

/// Bytes in one batch, in memory.
const BATCH_BYTES: usize = 16 << 20;

/// Operations that the log may be ahead of the index, and their bytes in memory. They may become one transaction of
/// the index, which holds a bounded number of pages.
const MOST_PENDING: (usize, usize) = (16_384, 192 << 20);

/// How often to look again whether the index has moved, in case it cannot say so.
const LOOK: Duration = Duration::from_millis(50);

/// What the thread is asked for.
#[derive(Debug)]
pub enum Order {
    /// Save an event.
    Save(Arc<Event>, Bytes, Told<Saved>),
    /// Remove events, by the operator's will.
    Remove(Arc<[EventId]>, Told<()>),
}

/// Who waits for the outcome.
pub type Told<T> = oneshot::Sender<Result<T, Error>>;

/// Bytes in the queue in front of the thread.
#[derive(Debug, Default)]
pub struct Queued(AtomicUsize);

impl Queued {
    /// Bytes that may wait, in memory. More comes in faster than the disk takes it.
    const MOST: usize = 192 << 20;

    /// Takes up room for `bytes`, if there is any.
    pub fn take(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= Self::MOST;
        if !fits {
            self.give(bytes);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The log's writer.
pub struct Writer {
    /// What all parts of the store know.
    pub shared: Arc<Shared>,
    /// The log.
    pub log: Log,
    /// To the indexer.
    pub tasks: Sender<Task>,
}

impl Writer {
    /// Writes until nobody can order anything any more.
    pub fn run(mut self, orders: &Receiver<Order>) {
        self.shared.progress.wake(thread::current());
        let mut failing = false;
        while let Ok(first) = orders.recv() {
            let outcome = match self.room() {
                Ok(()) => self.batch(first, orders),
                Err(error) => refuse(first, &self.shared.queued, error),
            };
            // Once, not with every event: a full disk would be the fuller for it.
            match &outcome {
                Err(error) if !failing => tracing::error!(%error, "the store takes no events"),
                Ok(()) if failing => tracing::info!("the store takes events again"),
                _ => {}
            }
            failing = outcome.is_err();
        }
    }

    /// Waits until the index has caught up enough, and drops what of the log it has.
    fn room(&mut self) -> Result<(), Error> {
        while self.is_full() {
            if let Some(error) = self.shared.progress.stuck() {
                return Err(error);
            }
            thread::park_timeout(LOOK);
        }
        if let Err(error) = self.log.retire(self.shared.progress.applied()) {
            tracing::warn!(%error, "a part of the log that is not needed any more cannot be removed");
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let pending = self.shared.pending();
        pending.len() >= MOST_PENDING.0 || pending.bytes() >= MOST_PENDING.1
    }

    /// Writes the first order and those that wait behind it, and tells everybody.
    fn batch(&mut self, first: Order, orders: &Receiver<Order>) -> Result<(), Error> {
        let mut batch = match self.collect(first, orders) {
            Ok(batch) => batch,
            Err((first, error)) => return refuse(first, &self.shared.queued, error),
        };
        let written = match batch.entries.is_empty() {
            true => Ok(()),
            false => self.log.sync().map_err(Error::from),
        };
        if written.is_ok() {
            self.publish(&mut batch);
        }
        batch.tell(&written, &self.shared.queued);
        written
    }

    /// Decides what becomes of the first order and of those that wait behind it.
    fn collect(&mut self, first: Order, orders: &Receiver<Order>) -> Result<Batch, (Order, Error)> {
        let mut batch = Batch::default();
        // Nobody changes what is pending as long as this is held, so nothing falls between it and the view.
        let pending = self.shared.pending();
        let view = match self.shared.index.view() {
            Ok(view) => view,
            Err(error) => return Err((first, error)),
        };
        let mut next = Some(first);
        while let Some(order) = next.take() {
            batch.put(order, &view, &pending, &mut self.log);
            if batch.answers.len() < BATCH && batch.staged.bytes() < BATCH_BYTES {
                next = orders.try_recv().ok();
            }
        }
        Ok(batch)
    }

    /// Makes what is on the disk known.
    fn publish(&self, batch: &mut Batch) {
        let entries = std::mem::take(&mut batch.entries);
        if let Some(last) = entries.last() {
            let last = last.number;
            self.shared.pending_mut().absorb(&mut batch.staged);
            // Before anybody can hurry the indexer for its sake. It ends after this thread.
            let _ = self.tasks.send(Task::Apply(entries));
            self.shared.logged.store(last, Ordering::Release);
        }
    }
}

/// Orders that are written together.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// The same, as the next event in the batch must know of it.
    staged: Pending,
    answers: Vec<Answer>,
}

/// What will be told if the log can be written.
enum Answer {
    Saved(Told<Saved>, Result<Saved, Error>, usize),
    Removed(Told<()>),
}

impl Batch {
    fn put(&mut self, order: Order, view: &View<'_>, pending: &Pending, log: &mut Log) {
        let answer = match order {
            Order::Save(event, json, told) => {
                let bytes = weight(&event, &json);
                let known = Known {
                    view,
                    pending: [pending, &self.staged],
                };
                let verdict = known.judge(&event);
                if matches!(verdict, Ok(Saved::New)) {
                    self.append(Operation::Take(event, json), log);
                }
                Answer::Saved(told, verdict, bytes)
            }
            Order::Remove(ids, told) => {
                self.append(Operation::Remove(ids), log);
                Answer::Removed(told)
            }
        };
        self.answers.push(answer);
    }

    fn append(&mut self, operation: Operation, log: &mut Log) {
        let entry = log.append(operation);
        self.staged.push(entry.clone());
        self.entries.push(entry);
    }

    fn tell(self, written: &Result<(), Error>, queued: &Queued) {
        // Whoever does not listen any more need not know.
        for answer in self.answers {
            match answer {
                Answer::Saved(told, verdict, bytes) => {
                    queued.give(bytes);
                    let _ = told.send(written.clone().and(verdict));
                }
                Answer::Removed(told) => _ = told.send(written.clone()),
            }
        }
    }
}

/// Tells one who waits that it failed.
fn refuse(order: Order, queued: &Queued, error: Error) -> Result<(), Error> {
    match order {
        Order::Save(event, json, told) => {
            queued.give(weight(&event, &json));
            let _ = told.send(Err(error.clone()));
        }
        Order::Remove(_, told) => _ = told.send(Err(error.clone())),
    }
    Err(error)
}
