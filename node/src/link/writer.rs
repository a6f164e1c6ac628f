//! The writing half of a connection.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::outstanding::{Outgoing, Outstanding};
use super::socket::Socket;

/// How many messages are written before they are flushed, at most.
const MAX_BATCH: usize = 64;

/// How long a write may take; a relay that does not read for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the relay is asked for a sign of life.
const PING: Duration = Duration::from_secs(15);

pub(super) struct Writer {
    sink: SplitSink<Socket, Message>,
    requests: mpsc::UnboundedReceiver<Utf8Bytes>,
    events: mpsc::Receiver<Outgoing>,
    outstanding: Arc<Outstanding>,
    is_held: watch::Receiver<bool>,
}

impl Writer {
    pub(super) fn new(
        sink: SplitSink<Socket, Message>,
        requests: mpsc::UnboundedReceiver<Utf8Bytes>,
        events: mpsc::Receiver<Outgoing>,
        outstanding: Arc<Outstanding>,
    ) -> Self {
        Self {
            sink,
            requests,
            events,
            is_held: outstanding.held(),
            outstanding,
        }
    }

    /// Writes until that fails; answers why.
    pub(super) async fn run(&mut self) -> String {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_held = *self.is_held.borrow_and_update();
            let message = tokio::select! {
                biased;
                Some(request) = self.requests.recv() => Message::Text(request),
                Ok(()) = self.is_held.changed() => continue,
                Some(event) = self.events.recv(), if !is_held => self.outgoing(event),
                _ = ping.tick() => Message::Ping(Default::default()),
            };
            match timeout(WRITE_TIMEOUT, self.write(message)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("took nothing for {} s", WRITE_TIMEOUT.as_secs()),
            }
        }
    }

    /// Writes `message` and what else is waiting, and flushes once.
    async fn write(&mut self, message: Message) -> tungstenite::Result<()> {
        self.sink.feed(message).await?;
        for _ in 1..MAX_BATCH {
            let Some(next) = self.next() else { break };
            self.sink.feed(next).await?;
        }
        self.sink.flush().await
    }

    /// What is waiting: requests first, so that an answer to an event finds its subscription.
    fn next(&mut self) -> Option<Message> {
        if let Ok(request) = self.requests.try_recv() {
            return Some(Message::Text(request));
        }
        match *self.is_held.borrow() {
            true => None,
            false => self
                .events
                .try_recv()
                .ok()
                .map(|event| self.outgoing(event)),
        }
    }

    fn outgoing(&self, event: Outgoing) -> Message {
        let frame = event.frame.clone();
        self.outstanding.written(event);
        Message::Text(frame)
    }

    /// Writes all that is waiting, closes, and waits for the relay to close too: a socket that is dropped with
    /// something unread would take back what has just been written.
    pub(super) async fn farewell(
        &mut self,
        stream: &mut SplitStream<Socket>,
    ) -> tungstenite::Result<()> {
        self.outstanding.release();
        while let Some(next) = self.next() {
            self.sink.feed(next).await?;
        }
        self.sink.close().await?;
        while let Some(Ok(_)) = stream.next().await {}
        Ok(())
    }
}
