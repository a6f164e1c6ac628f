//! Those who subscribe and wait for what is published.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::connection::Connection;
use super::said::Said;
use super::sendings::Sendings;

/// What a subscription is called.
const ID: &str = "live";

/// What reached a subscriber.
#[derive(Debug, Default)]
pub struct Heard {
    /// From sending to delivery, of each event that came.
    pub times: Vec<Duration>,
    /// Events that came twice.
    pub doubled: usize,
    /// Events that should have come and did not.
    pub lost: usize,
    /// What the relay said when it ended the connection or the subscription.
    pub ended: Option<String>,
}

/// A subscriber, which is subscribed by the time it is there.
#[derive(Debug)]
pub struct Listener {
    task: JoinHandle<Heard>,
    stop: oneshot::Sender<()>,
}

impl Listener {
    /// Subscribes by a filter in JSON, and listens until so many of the events have come.
    ///
    /// # Errors
    /// If the relay does not take the subscription.
    pub async fn start(
        url: &str,
        filter: &str,
        expected: usize,
        sendings: Arc<Sendings>,
    ) -> Result<Self> {
        let mut connection = Connection::open(url).await?;
        connection.request(ID, filter).await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(listen(connection, expected, sendings, stopped));
        Ok(Self { task, stop })
    }

    /// What has come by the time that all have, or by the deadline.
    ///
    /// # Errors
    /// If the listener panicked.
    pub async fn finish(mut self, by: Instant) -> Result<Heard> {
        if let Ok(heard) = timeout_at(by.into(), &mut self.task).await {
            return Ok(heard?);
        }
        drop(self.stop);
        Ok(self.task.await?)
    }
}

async fn listen(
    mut connection: Connection,
    expected: usize,
    sendings: Arc<Sendings>,
    mut stopped: oneshot::Receiver<()>,
) -> Heard {
    let mut heard = Heard::default();
    let mut seen = HashSet::with_capacity(expected);
    while seen.len() < expected && heard.ended.is_none() {
        let text = tokio::select! {
            text = connection.next() => text,
            _ = &mut stopped => break,
        };
        match text {
            Ok(text) => match Said::read(&text) {
                Said::Event(number) => match sendings.since(number) {
                    Some(time) if seen.insert(number) => heard.times.push(time),
                    Some(_) => heard.doubled += 1,
                    None => {}
                },
                Said::Closed(why) => heard.ended = Some(why.to_owned()),
                _ => {}
            },
            Err(error) => heard.ended = Some(error.to_string()),
        }
    }
    heard.lost = expected - seen.len();
    heard
}
