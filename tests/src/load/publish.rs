//! Those who publish: one event after the other, many in flight, or at a steady rate whatever the relay does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::join_all;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::connection::Connection;
use super::events::Ready;
use super::said::Said;
use super::sendings::Sendings;

/// How long an answer is waited for.
const GRACE: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events that were sent.
    pub sent: usize,
    /// The numbers of those that were answered `OK true`.
    pub accepted: Vec<u64>,
    /// How many were refused, by the first word of the reason.
    pub refused: BTreeMap<String, usize>,
    /// Why connections ended before they were done.
    pub broken: Vec<String>,
    /// From the first to the last.
    pub took: Duration,
}

impl Outcome {
    /// Events a second that were taken.
    pub fn rate(&self) -> f64 {
        self.accepted.len() as f64 / self.took.as_secs_f64()
    }

    /// Events that were refused.
    pub fn refusals(&self) -> usize {
        self.refused.values().sum()
    }

    fn answered(&self) -> usize {
        self.accepted.len() + self.refusals()
    }

    fn hear(&mut self, text: &str) {
        match Said::read(text) {
            Said::Ok(number, true, _) => self.accepted.push(number),
            Said::Ok(_, false, words) => {
                let words = words.trim_start_matches([',', '"']);
                let word = words.split([':', '"']).next().unwrap_or_default();
                *self.refused.entry(word.to_owned()).or_default() += 1;
            }
            Said::Notice(text) | Said::Closed(text) => self.broken.push(text.to_owned()),
            Said::Event(_) | Said::Eose | Said::Other(_) => {}
        }
    }

    fn all(parts: Vec<Self>, took: Duration) -> Self {
        let mut all = Self {
            took,
            ..Self::default()
        };
        for part in parts {
            all.sent += part.sent;
            all.accepted.extend(part.accepted);
            all.broken.extend(part.broken);
            for (word, times) in part.refused {
                *all.refused.entry(word).or_default() += times;
            }
        }
        all
    }
}

/// Events that several clients take from, until there are none or the time is over.
struct Supply {
    events: Arc<Vec<Ready>>,
    next: AtomicUsize,
    until: Instant,
}

impl Supply {
    fn new(events: &Arc<Vec<Ready>>, lasts: Duration) -> Arc<Self> {
        Arc::new(Self {
            events: events.clone(),
            next: AtomicUsize::new(0),
            until: Instant::now() + lasts,
        })
    }

    fn take(&self) -> Option<&Ready> {
        if Instant::now() >= self.until {
            return None;
        }
        self.events.get(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// So many clients, each of which waits for each answer.
pub async fn stop_and_wait(
    url: &str,
    events: &Arc<Vec<Ready>>,
    clients: usize,
    lasts: Duration,
) -> Outcome {
    pipeline(url, events, clients, 1, lasts).await
}

/// So many clients, each of which has up to so many events in flight.
pub async fn pipeline(
    url: &str,
    events: &Arc<Vec<Ready>>,
    clients: usize,
    in_flight: usize,
    lasts: Duration,
) -> Outcome {
    let open = join_all((0..clients).map(|_| Connection::open(url))).await;
    let began = Instant::now();
    let supply = Supply::new(events, lasts);
    let work = open.into_iter().map(|connection| {
        let supply = supply.clone();
        tokio::spawn(async move {
            let mut outcome = Outcome::default();
            if let Err(error) = publish(connection, &supply, in_flight, &mut outcome).await {
                outcome.broken.push(error.to_string());
            }
            outcome
        })
    });
    let parts = join_all(work).await.into_iter().flatten().collect();
    Outcome::all(parts, began.elapsed())
}

async fn publish(
    connection: Result<Connection>,
    supply: &Supply,
    in_flight: usize,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut connection = connection?;
    loop {
        while outcome.sent - outcome.answered() < in_flight
            && let Some(event) = supply.take()
        {
            connection.feed(event.message.clone()).await?;
            outcome.sent += 1;
        }
        connection.flush().await?;
        if outcome.sent == outcome.answered() {
            return Ok(());
        }
        outcome.hear(&answer(&mut connection).await?);
        while let Some(text) = connection.try_next()? {
            outcome.hear(&text);
        }
    }
}

/// So many events a second over so many connections, as they come due, whatever the relay answers. What was sent when
/// goes to `sendings`.
pub async fn steady(
    url: &str,
    events: &Arc<Vec<Ready>>,
    clients: usize,
    per_second: f64,
    sendings: &Arc<Sendings>,
) -> Outcome {
    let open = join_all((0..clients).map(|_| Connection::open(url))).await;
    let began = Instant::now();
    let work = open.into_iter().enumerate().map(|(nth, connection)| {
        let turn = Turn {
            events: events.clone(),
            sendings: sendings.clone(),
            began,
            nth,
            of: clients,
            per_second,
        };
        tokio::spawn(async move {
            let mut outcome = Outcome::default();
            if let Err(error) = keep_up(connection, &turn, &mut outcome).await {
                outcome.broken.push(error.to_string());
            }
            outcome
        })
    });
    let parts = join_all(work).await.into_iter().flatten().collect();
    Outcome::all(parts, began.elapsed())
}

/// One connection's share of a steady stream: every so manieth event.
struct Turn {
    events: Arc<Vec<Ready>>,
    sendings: Arc<Sendings>,
    began: Instant,
    nth: usize,
    of: usize,
    per_second: f64,
}

impl Turn {
    fn event(&self, n: usize) -> Option<(&Ready, Instant)> {
        let n = self.nth + n * self.of;
        let due = Duration::from_secs_f64(n as f64 / self.per_second);
        Some((self.events.get(n)?, self.began + due))
    }
}

async fn keep_up(connection: Result<Connection>, turn: &Turn, outcome: &mut Outcome) -> Result<()> {
    let mut connection = connection?;
    while let Some((_, due)) = turn.event(outcome.sent) {
        tokio::select! {
            () = sleep_until(due.into()) => {
                while let Some((event, due)) = turn.event(outcome.sent) && due <= Instant::now() {
                    turn.sendings.now(event.number);
                    connection.feed(event.message.clone()).await?;
                    outcome.sent += 1;
                }
                connection.flush().await?;
            }
            text = connection.next() => outcome.hear(&text?),
        }
    }
    while outcome.answered() < outcome.sent {
        outcome.hear(&answer(&mut connection).await?);
    }
    Ok(())
}

async fn answer(connection: &mut Connection) -> Result<Utf8Bytes> {
    let text = timeout(GRACE, connection.next()).await;
    text.context("the relay does not answer")?
}
