//! Which job an event that came in belongs to.
//!
//! One subscription brings everything that is addressed to this client. Each kind of event names its job; what names
//! a job that nobody waits for (any more) is dropped. Whether an event is what the job asked for is the job's to say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infernet_protocol::bounds::MAX_BIDS;
use infernet_protocol::event::{Bid, Body, Cancel, JobResult, Private, Signed};
use infernet_protocol::kinds;
use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};
use tokio::sync::mpsc;

/// What may wait for one job's driver: some seconds of a fast stream. What is beyond is dropped, and asked for again
/// like anything that was lost on the way.
const MAX_WAITING: usize = 1_024;

/// How far back to ask for. Relays apply it to live events too, and what a provider says is dated by its clock: one
/// that is minutes behind ours must be heard all the same.
const SINCE_S: u64 = 15 * 60;

/// Stored events to ask for, those of the last minutes' jobs: enough for the bids on one offer. Live ones are not
/// counted.
const MAX_STORED: usize = MAX_BIDS;

/// An event for one job.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A bid on the job's offer.
    Bid(Box<Signed<Bid>>),
    /// A result.
    Result(Box<Signed<JobResult>>),
    /// Somebody gives an attempt up.
    Cancel(Box<Signed<Cancel>>),
    /// An encrypted message.
    Progress {
        /// Who sent it.
        author: PublicKey,
        /// The message.
        content: String,
    },
    /// Events may have been lost.
    Gap,
}

impl Heard {
    /// The event as what its kind says, with the job that it names; none if it is not valid, or no business of a
    /// buyer's.
    pub fn read(event: Event) -> Option<(EventId, Self)> {
        let read = |event: &Event| match event.kind.as_u16() {
            Bid::KIND => Signed::from_verified(event.clone())
                .map(|bid: Signed<Bid>| (bid.offer, Self::Bid(Box::new(bid)))),
            JobResult::KIND => Signed::from_verified(event.clone())
                .map(|result: Signed<JobResult>| (result.job, Self::Result(Box::new(result)))),
            Cancel::KIND => Signed::from_verified(event.clone())
                .map(|cancel: Signed<Cancel>| (cancel.job, Self::Cancel(Box::new(cancel)))),
            _ => Private::parse(event).map(|private| {
                let progress = Self::Progress {
                    author: event.pubkey,
                    content: private.content,
                };
                (private.job, progress)
            }),
        };
        read(&event)
            .inspect_err(|refusal| {
                tracing::debug!(event = %event.id, author = %event.pubkey, %refusal, "not a valid event");
            })
            .ok()
    }
}

/// What to subscribe to.
pub(crate) fn filter(own: PublicKey, now: Timestamp) -> Filter {
    let kinds = [kinds::BID, kinds::RESULT, kinds::CANCEL, kinds::PROGRESS];
    Filter::new()
        .kinds(kinds.map(Kind::from))
        .pubkey(own)
        .limit(MAX_STORED)
        .since(Timestamp::from_secs(now.as_secs().saturating_sub(SINCE_S)))
}

/// The jobs that wait for events. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes(Arc<Mutex<HashMap<EventId, mpsc::Sender<Heard>>>>);

impl Routes {
    fn jobs(&self) -> MutexGuard<'_, HashMap<EventId, mpsc::Sender<Heard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the job that it names.
    pub fn hand(&self, event: Event) {
        let Some((job, heard)) = Heard::read(event) else {
            return;
        };
        let Some(driver) = self.jobs().get(&job).cloned() else {
            return;
        };
        if driver.try_send(heard).is_err() {
            tracing::debug!(%job, "an event was dropped: the job is over, or too slow");
        }
    }

    /// Tells every job that events may have been lost.
    pub fn gap(&self) {
        for driver in self.jobs().values() {
            // One that has so much waiting hears of a gap from its own numbering.
            let _ = driver.try_send(Heard::Gap);
        }
    }
}

/// What a job hears, once it has an id.
#[derive(Debug)]
pub(crate) struct Ear {
    routes: Routes,
    job: Option<EventId>,
    sender: mpsc::Sender<Heard>,
    receiver: mpsc::Receiver<Heard>,
}

impl Ear {
    pub fn new(routes: &Routes) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self {
            routes: routes.clone(),
            job: None,
            sender,
            receiver,
        }
    }

    /// Listens for the events of `job` from now on.
    pub fn listen(&mut self, job: EventId) {
        self.job = Some(job);
        self.routes.jobs().insert(job, self.sender.clone());
    }

    /// The next event. Safe to cancel.
    pub async fn next(&mut self) -> Heard {
        // The sender beside the receiver keeps the channel open.
        self.receiver.recv().await.unwrap_or(Heard::Gap)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(job) = self.job {
            self.routes.jobs().remove(&job);
        }
    }
}
