//! The store's threads and what they share.

use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};

use super::Error;
use super::index::Index;
use super::indexer::{self, Progress, Task};
use super::log::Log;
use super::pending::Pending;
use super::writer::{Order, Queued, Writer};
use crate::lock::Lock;

/// What all parts of the store know.
#[derive(Debug)]
pub struct Shared {
    /// The index.
    pub index: Index,
    /// What the log has and the index not yet.
    pub pending: RwLock<Pending>,
    /// The last number that was written to the log and synced.
    pub logged: AtomicU64,
    /// How far the index is behind.
    pub progress: Progress,
    /// What waits for the log.
    pub queued: Queued,
    /// Goes last: until then nobody else may have the folder.
    pub _lock: Lock,
}

impl Shared {
    /// What is pending, to look at.
    pub fn pending(&self) -> RwLockReadGuard<'_, Pending> {
        // It is changed in steps that each leave it whole.
        self.pending.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is pending, to change.
    pub fn pending_mut(&self) -> RwLockWriteGuard<'_, Pending> {
        self.pending.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store's threads, which end when nobody can ask them for anything any more.
#[derive(Debug)]
pub struct Life {
    orders: Option<Sender<Order>>,
    tasks: Option<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
}

impl Life {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn begin(shared: &Arc<Shared>, log: Log) -> Result<Self, Error> {
        let (orders, ordered) = mpsc::channel();
        let (tasks, given) = mpsc::channel();
        let writer = Writer {
            shared: shared.clone(),
            log,
            tasks: tasks.clone(),
        };
        let indexer = shared.clone();
        let threads = vec![
            named("store-log", move || writer.run(&ordered))?,
            named("store-index", move || {
                indexer::run(&indexer, &given);
            })?,
        ];
        Ok(Self {
            orders: Some(orders),
            tasks: Some(tasks),
            threads,
        })
    }

    /// Gives the log's writer something to do.
    ///
    /// # Errors
    /// [`Error::Closed`] if it ended.
    pub fn order(&self, order: Order) -> Result<(), Error> {
        let orders = self.orders.as_ref().ok_or(Error::Closed)?;
        orders.send(order).map_err(|_| Error::Closed)
    }

    /// Gives the indexer something to do.
    ///
    /// # Errors
    /// [`Error::Closed`] if it ended.
    pub fn task(&self, task: Task) -> Result<(), Error> {
        let tasks = self.tasks.as_ref().ok_or(Error::Closed)?;
        tasks.send(task).map_err(|_| Error::Closed)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.orders = None;
        self.tasks = None;
        // First the log's writer, which has the other's last sender.
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store failed");
            }
        }
    }
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = thread::Builder::new().name(name.to_owned());
    Ok(thread.spawn(run)?)
}
