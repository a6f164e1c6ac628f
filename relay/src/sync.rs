//! Two relays made equal: what each has of a filter's events is compared by NIP-77, and only what is missing travels.
//!
//! `equalise` leads, as a client of the other relay. It goes through time in windows, newest first, each small enough
//! to be held in memory here and to be answered there; whatever a message tells to be missing is fetched or given
//! before the next message is sent, so that nothing is gathered up and a break loses nothing: what was fetched is
//! on the disk, and the next time begins with what is missing then. A relay without NIP-77 is read page by page.
//!
//! Nothing that the other says is believed. Only what was asked for is looked at, every event is verified and held to
//! this relay's rules, and a relay that announces what it does not give is left.

mod delivery;
mod once;
mod ours;
mod peer;
mod progress;
mod regular;
pub(crate) mod side;
mod unwanted;
mod windows;

use std::collections::HashSet;

use nostr::{Event, EventId, Filter, Keys, RelayUrl, SubscriptionId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use once::key;
pub use once::{Failure, once};
pub(crate) use ours::Ours;
pub use progress::Progress;
pub(crate) use regular::keep_equal;
pub(crate) use unwanted::Unwanted;

use crate::admission::MAX_AHEAD_SECS;
use crate::options::Direction;
use crate::store;
use ours::Taken;
use peer::{Answer, Peer};
use side::{Found, Side};
use windows::{Window, Windows};

/// Our events in one window; forty bytes each are held.
const WINDOW_EVENTS: usize = 100_000;

/// Our events in one second, which cannot be cut further.
const SECOND_EVENTS: usize = 4_000_000;

/// Events asked for, or given, at a time.
const STEP: usize = 250;

/// Events of one page, where the other does not speak NIP-77.
const PAGE: usize = 500;

/// Messages of one window. Sets of which nothing is common need about one for each thousand events.
const MAX_ROUNDS: u32 = 10_000;

/// How often one window is begun again because the other let go of it.
const MAX_RETRIES: u32 = 3;

/// Times in a row that the other gave nothing of what it announced.
const MAX_FRUITLESS: u32 = 20;

/// Why two relays are not equal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other relay is gone, silent, or refuses.
    #[error(transparent)]
    Peer(#[from] peer::Error),
    /// It says what cannot be followed, or goes on without end.
    #[error("{url} says {said}")]
    Confused {
        /// Who.
        url: RelayUrl,
        /// What.
        said: String,
    },
    /// It cannot be given anything.
    #[error("{0} does not speak NIP-77 ({1}): events can only be fetched from it (--down)")]
    OnlyDown(RelayUrl, String),
    /// Our own store fails.
    #[error("the store: {0}")]
    Store(#[from] store::Error),
}

/// What is to be made equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The other relay.
    pub url: RelayUrl,
    /// Of which events; without it, of all that this relay takes by itself.
    pub filter: Option<Filter>,
    /// Which way they go.
    pub direction: Direction,
}

/// Makes this relay and another equal, as `task` says, and tells how far it has come. Where the other wants to know
/// who we are, that is `keys`. It may be dropped at any moment: what was saved by then stays.
///
/// # Errors
/// With what is in the way; what was done before that stays.
pub(crate) async fn equalise(
    ours: &Ours,
    task: &Task,
    keys: &Keys,
    now: Timestamp,
    unwanted: &mut Unwanted,
    progress: &watch::Sender<Progress>,
) -> Result<(), Error> {
    unwanted.forget_old();
    let run = Run {
        peer: Peer::connect(&task.url, keys).await?,
        ours,
        task,
        filter: task.filter.clone().unwrap_or_else(|| ours.usual()),
        unwanted,
        progress,
        fruitless: 0,
    };
    run.run(now + MAX_AHEAD_SECS).await
}

/// One go at it.
struct Run<'a> {
    peer: Peer,
    ours: &'a Ours,
    task: &'a Task,
    filter: Filter,
    unwanted: &'a mut Unwanted,
    progress: &'a watch::Sender<Progress>,
    fruitless: u32,
}

/// What became of a window.
enum Outcome {
    Equal,
    TooBig(String),
    Dropped(String),
    Unsupported(String),
}

impl Run<'_> {
    async fn run(mut self, end: Timestamp) -> Result<(), Error> {
        let mut windows = Windows::over(&self.filter, end);
        let mut retries = 0;
        while let Some(window) = windows.next() {
            match self.window(window).await? {
                Outcome::Equal => {
                    retries = 0;
                    self.note(|progress| progress.down_to = Some(window.since));
                }
                Outcome::TooBig(said) if !windows.halve(window) => {
                    return Err(self.confused(said));
                }
                Outcome::TooBig(_) => {}
                Outcome::Dropped(said) if retries == MAX_RETRIES => {
                    return Err(self.confused(said));
                }
                Outcome::Dropped(_) => {
                    retries += 1;
                    windows.again(window);
                }
                Outcome::Unsupported(said) => {
                    self.pages(end, said).await?;
                    break;
                }
            }
        }
        self.note(|progress| progress.complete = true);
        Ok(())
    }

    /// Makes one window equal.
    async fn window(&mut self, window: Window) -> Result<Outcome, Error> {
        let filter = window.of(&self.filter);
        let most = match window.is_one_second() {
            true => SECOND_EVENTS,
            false => WINDOW_EVENTS,
        };
        let items = match self.ours.items(filter.clone(), most).await {
            Err(store::Error::TooMany) => return Ok(Outcome::TooBig("too many here".to_owned())),
            items => items?,
        };
        let compared = items.len() as u64;
        let begun = Side::begin(items).await;
        let (side, first) = begun.map_err(|error| self.confused(error.to_string()))?;
        let (id, answer) = self.peer.open(&filter, &first).await?;
        let outcome = match answer {
            Answer::Message(message) => self.negotiate(&id, side, message).await?,
            Answer::TooBig(said) => Outcome::TooBig(said),
            Answer::Dropped(said) => Outcome::Dropped(said),
            Answer::Unsupported(said) => Outcome::Unsupported(said),
        };
        if matches!(outcome, Outcome::Equal) {
            self.peer.close(&id).await?;
            self.note(|progress| progress.compared += compared);
        }
        Ok(outcome)
    }

    async fn negotiate(
        &mut self,
        id: &SubscriptionId,
        mut side: Side,
        mut message: Vec<u8>,
    ) -> Result<Outcome, Error> {
        for _ in 0..MAX_ROUNDS {
            let taken = side.take(message).await;
            let (same, found) = taken.map_err(|error| self.confused(error.to_string()))?;
            let Found { have, need, next } = found;
            self.fetch(need).await?;
            self.give(have).await?;
            let Some(next) = next else {
                return Ok(Outcome::Equal);
            };
            side = same;
            message = match self.peer.go_on(id, &next).await? {
                Answer::Message(message) => message,
                Answer::Dropped(said) | Answer::TooBig(said) => return Ok(Outcome::Dropped(said)),
                Answer::Unsupported(said) => return Err(self.confused(said)),
            };
        }
        Err(self.confused("more than two honest sets need".to_owned()))
    }

    /// Fetches what we lack.
    async fn fetch(&mut self, mut need: Vec<EventId>) -> Result<(), Error> {
        if self.task.direction == Direction::Up {
            return Ok(());
        }
        need.retain(|id| !self.unwanted.here.contains(id));
        for step in need.chunks(STEP) {
            let events = self.peer.events(step).await?;
            self.fruitless = match events.is_empty() {
                true => self.fruitless + 1,
                false => 0,
            };
            if self.fruitless > MAX_FRUITLESS {
                let said = "it has events that it does not give".to_owned();
                return Err(self.confused(said));
            }
            let given: HashSet<_> = events.iter().map(|event| event.id).collect();
            for id in step.iter().filter(|id| !given.contains(id)) {
                self.unwanted.here.insert(*id);
            }
            self.take(events).await?;
        }
        Ok(())
    }

    /// Takes in what the other gave.
    async fn take(&mut self, events: Vec<Event>) -> Result<(), Error> {
        let taken = self.ours.take(events).await?;
        for (id, taken) in &taken {
            if matches!(taken, Taken::Declined(_)) {
                self.unwanted.here.insert(*id);
            }
        }
        self.note(|progress| {
            for (_, taken) in taken {
                match taken {
                    Taken::New => progress.received += 1,
                    Taken::Had => {}
                    Taken::Declined(why) => {
                        progress.declined += 1;
                        progress.reason(&why);
                    }
                }
            }
        });
        Ok(())
    }

    /// Gives what the other lacks.
    async fn give(&mut self, mut have: Vec<EventId>) -> Result<(), Error> {
        if self.task.direction == Direction::Down {
            return Ok(());
        }
        have.retain(|id| !self.unwanted.there.contains(id));
        let with_private = self.filter.kinds.is_some();
        for step in have.chunks(STEP) {
            let events = self.ours.load(step, with_private).await?;
            let verdicts = self.peer.give(events).await?;
            for verdict in verdicts.iter().filter(|verdict| verdict.refused.is_some()) {
                self.unwanted.there.insert(verdict.id);
            }
            self.note(|progress| {
                for verdict in verdicts {
                    match verdict.refused {
                        None => progress.given += 1,
                        Some(why) => {
                            progress.refused += 1;
                            progress.reason(&why);
                        }
                    }
                }
            });
        }
        Ok(())
    }

    /// Reads a relay that does not speak NIP-77 page by page, newest first.
    async fn pages(&mut self, end: Timestamp, said: String) -> Result<(), Error> {
        if self.task.direction == Direction::Up {
            return Err(Error::OnlyDown(self.task.url.clone(), said));
        }
        tracing::info!(relay = %self.task.url, said, "no NIP-77: reading page by page");
        self.note(|progress| {
            progress.by_pages = true;
            progress.reason(&said);
        });
        let filter = self.filter.clone();
        let since = filter.since.unwrap_or_default();
        let mut until = filter.until.unwrap_or(end);
        while until >= since {
            let page = filter.clone().until(until).limit(PAGE);
            let mut events = self.peer.page(&page).await?;
            let Some(oldest) = events.iter().map(|event| event.created_at).min() else {
                break;
            };
            let ids: Vec<_> = events.iter().map(|event| event.id).collect();
            let mut missing = HashSet::new();
            for id in ids {
                if !self.ours.has(&id)? && !self.unwanted.here.contains(&id) {
                    missing.insert(id);
                }
            }
            events.retain(|event| missing.contains(&event.id));
            self.take(events).await?;
            self.note(|progress| progress.down_to = Some(oldest));
            // The oldest second may have been cut: it is asked for once more, and then left.
            until = match oldest < until {
                true => oldest,
                false if oldest.is_zero() => break,
                false => oldest - 1,
            };
        }
        Ok(())
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    fn confused(&self, said: String) -> Error {
        let url = self.task.url.clone();
        Error::Confused { url, said }
    }
}
