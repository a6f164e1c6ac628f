//! The thread that computes: takes requests from a bounded queue and advances
//! those it has taken by one step each, in turn, so that all make progress.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use crate::error::{Error, LoadError};

/// How often it looks whether a reader has caught up, when all are behind.
const GLANCE: Duration = Duration::from_millis(1);

/// Work that is done in steps, on a model that the worker's thread owns.
pub(crate) trait Job: Sized {
    /// What computes.
    type Model: Send + 'static;
    /// What is asked of it.
    type Request: Send + 'static;

    /// Makes a job of a request. Where it cannot, it tells the reader itself.
    fn begin(model: &Self::Model, request: Self::Request) -> Option<Self>;

    /// Does the next step; `false` when there is none left.
    ///
    /// # Errors
    /// What ends the job, which [`Job::fail`] then tells its reader.
    fn step(&mut self, model: &Self::Model) -> Result<bool, Error>;

    /// Whether its reader is so far behind that the next step has time.
    fn waits(&self) -> bool {
        false
    }

    /// Tells the reader that the job has failed.
    fn fail(self, error: Error);
}

/// A thread that serves requests `R`. Dropping it fails what runs
/// and waits for the thread.
pub(crate) struct Worker<R> {
    queue: Option<SyncSender<R>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How a worker works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Jobs that are advanced in turn.
    pub(crate) slots: usize,
    /// Requests that wait for a slot.
    pub(crate) queue: usize,
    /// libtorch's threads for one step.
    pub(crate) threads: u32,
}

impl<R: Send + 'static> Worker<R> {
    /// Starts a thread that does jobs of kind `J`.
    pub(crate) fn start<J: Job<Request = R>>(
        name: &str,
        schedule: Schedule,
        model: J::Model,
    ) -> Result<Self, LoadError> {
        let (sender, receiver) = sync_channel(schedule.queue);
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _no_grad = tch::no_grad_guard();
                // OpenMP keeps this number for each thread that asks.
                tch::set_num_threads(i32::try_from(schedule.threads).unwrap_or(i32::MAX));
                work::<J>(&model, &receiver, schedule.slots, &seen);
            })
            .map_err(|error| LoadError::Device(format!("no thread could be started: {error}")))?;
        Ok(Self {
            queue: Some(sender),
            stopping,
            thread: Some(thread),
        })
    }

    /// Puts a request into the queue, or says that it is full.
    pub(crate) fn submit(&self, request: R) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or(Error::Stopped)?;
        queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Stopped,
        })
    }
}

impl<R> Drop for Worker<R> {
    /// A process that ends while libtorch computes may crash on its way out.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It catches panics itself, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// Works until the queue's other end has gone.
fn work<J: Job>(
    model: &J::Model,
    queue: &Receiver<J::Request>,
    slots: usize,
    stopping: &AtomicBool,
) {
    let begin = |request| guarded(|| Ok(J::begin(model, request))).ok().flatten();
    let mut active: Vec<J> = Vec::new();
    while !stopping.load(Ordering::Relaxed) {
        if active.is_empty() {
            match queue.recv() {
                Ok(request) => active.extend(begin(request)),
                Err(_) => return,
            }
        }
        while active.len() < slots {
            match queue.try_recv() {
                Ok(request) => active.extend(begin(request)),
                // Gone: what runs is failed in the next round.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if active.iter().all(J::waits) {
            sleep(GLANCE);
        }
        let round = std::mem::take(&mut active);
        active.extend(round.into_iter().filter_map(|job| match job.waits() {
            true => Some(job),
            false => advance(model, job),
        }));
    }
    for job in active {
        job.fail(Error::Stopped);
    }
}

/// One step of a job; gives the job back when it goes on.
fn advance<J: Job>(model: &J::Model, mut job: J) -> Option<J> {
    match guarded(|| job.step(model)) {
        Ok(true) => Some(job),
        Ok(false) => None,
        Err(error) => {
            job.fail(error);
            None
        }
    }
}

/// One request that makes a library panic must not end the others.
fn guarded<T>(step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|_| Err(Error::Computation("it panicked".into())))
}
