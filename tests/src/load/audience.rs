//! Many who listen while events are published at a steady rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};

use super::events::{Population, Ready};
use super::figures::Times;
use super::listen::{Heard, Listener};
use super::publish::{Outcome, steady};
use super::sendings::Sendings;

/// Connections that publish.
const SENDERS: usize = 4;
/// Subscriptions that are begun at a time.
const AT_A_TIME: usize = 64;
/// How long after the last is sent the last may come.
const LATE: Duration = Duration::from_secs(20);

/// Who listens to what.
#[derive(Clone, Copy, Debug)]
pub struct Audience {
    /// How many.
    pub subscribers: u64,
    /// Whether each gets every event, or only those that name it.
    pub all: bool,
}

/// Those who listen, subscribed.
#[derive(Debug)]
pub struct Listening {
    listeners: Vec<Listener>,
    events: Arc<Vec<Ready>>,
    sendings: Arc<Sendings>,
}

/// What reached them.
#[derive(Debug)]
pub struct Delivery {
    /// What became of the events.
    pub outcome: Outcome,
    /// What each of them heard.
    pub heard: Vec<Heard>,
}

impl Audience {
    /// Subscribes all of them, to wait for these events of `people`, whose readers they are.
    ///
    /// # Errors
    /// If the relay does not take a subscription.
    pub async fn listen(
        self,
        url: &str,
        people: &Population,
        events: Arc<Vec<Ready>>,
    ) -> Result<Listening> {
        let sendings = Arc::new(Sendings::new(&events));
        let count = events.len() as u64;
        let start = |n: u64| {
            let sendings = sendings.clone();
            let (filter, expected) = self.of(n, people, count);
            async move { Listener::start(url, &filter, expected as usize, sendings).await }
        };
        let listeners = stream::iter(0..self.subscribers).map(start);
        Ok(Listening {
            listeners: listeners.buffer_unordered(AT_A_TIME).try_collect().await?,
            events,
            sendings,
        })
    }

    /// What subscriber `n` asks for, and how many of so many events that is.
    fn of(self, n: u64, people: &Population, events: u64) -> (String, u64) {
        if self.all {
            let kinds = people.kinds();
            return (format!(r#"{{"kinds":{kinds:?},"limit":1}}"#), events);
        }
        let name = people.reader(n).to_hex();
        // Events name readers in turn.
        let own = (events + self.subscribers - 1 - n) / self.subscribers;
        (format!(r##"{{"#p":["{name}"],"limit":1}}"##), own)
    }
}

impl Listening {
    /// Publishes so many of the events a second, all of them.
    pub async fn publish(&self, url: &str, per_second: f64) -> Outcome {
        steady(url, &self.events, SENDERS, per_second, &self.sendings).await
    }

    /// Waits for what is still to come.
    ///
    /// # Errors
    /// If a listener panicked.
    pub async fn finish(self, outcome: Outcome) -> Result<Delivery> {
        let by = Instant::now() + LATE;
        let mut heard = Vec::with_capacity(self.listeners.len());
        for listener in self.listeners {
            heard.push(listener.finish(by).await?);
        }
        Ok(Delivery { outcome, heard })
    }
}

impl Delivery {
    /// From sending to delivery.
    pub fn times(&self) -> Times {
        let times = self.heard.iter().flat_map(|heard| &heard.times);
        Times::new(times.copied().collect())
    }

    /// Deliveries that did not come.
    pub fn lost(&self) -> usize {
        self.heard.iter().map(|heard| heard.lost).sum()
    }

    /// Deliveries that did not come to subscribers who were not told of it.
    pub fn lost_in_silence(&self) -> usize {
        let silent = self.heard.iter().filter(|heard| heard.ended.is_none());
        silent.map(|heard| heard.lost).sum()
    }

    /// Subscribers whom the relay closed.
    pub fn closed(&self) -> usize {
        let ended = |heard: &&Heard| heard.ended.is_some();
        self.heard.iter().filter(ended).count()
    }
}
