//! One relay's connection: kept, read from, written to.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use nostr::message::{ClientMessage, MachineReadablePrefix, RelayMessage};
use nostr::{Event, EventBuilder, EventId, JsonUtil, SubscriptionId};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::desk::{Answer, Desk, Line};
use super::error::plain;
use super::inbox::Dropped;
use super::socket::{self, Socket};
use super::{FAREWELL, MAX_EVENT_BYTES, Options};
use crate::clock;

/// Events that may wait to be written to one relay: some seconds of several streams, and 16 MiB at the very most.
const MAX_UNWRITTEN: usize = 256;

/// How many messages are written before they are flushed, at most.
const MAX_BATCH: usize = 64;

/// How long a write may take; a relay that does not read for so long is as good as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the relay is asked for a sign of life, and how long it may be silent.
const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(45);

/// How long a connection must have held for the next attempt to come soon again.
const STEADY: Duration = Duration::from_secs(10);

/// When to ask again for a subscription that a relay has refused for the moment.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What `["EVENT","<subscription>",…]` adds to an event, with room.
const ENVELOPE_BYTES: usize = 256;

/// How often in one session a relay may ask who we are, and how long its question may be.
const MAX_CHALLENGES: usize = 8;
const MAX_CHALLENGE_BYTES: usize = 256;

/// Keeps a relay connected until the link stops.
pub(super) async fn keep(desk: Arc<Desk>, relay: usize) {
    let mut failures = 0;
    while !desk.stop.is_cancelled() {
        let mut held = Duration::ZERO;
        let opened = tokio::select! {
            opened = socket::open(desk.url(relay)) => opened,
            () = desk.stop.cancelled() => return,
        };
        match opened {
            Ok(socket) => {
                let begun = Instant::now();
                session(&desk, relay, socket).await;
                held = begun.elapsed();
            }
            Err(why) => {
                let why = plain(&why);
                tracing::debug!(relay = %desk.url(relay), why, "cannot connect");
                desk.failed(relay, &why);
            }
        }
        failures = if held >= STEADY { 0 } else { failures + 1 };
        tokio::select! {
            () = sleep(pause(&desk.options, failures)) => {}
            () = desk.stop.cancelled() => return,
        }
    }
}

/// The pause before the next attempt: it doubles with every failure in a row, and varies by a quarter, so that not
/// all clients of a relay that restarts come back in the same moment.
fn pause(options: &Options, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let pause = options.retry_first.saturating_mul(doubled);
    let pause = pause.min(options.retry_most);
    pause.mul_f64(rand::random_range(0.75..=1.0))
}

/// One connection from its opening to its end.
async fn session(desk: &Desk, relay: usize, socket: Socket) {
    let (sink, mut stream) = socket.split();
    let (requests, requested) = mpsc::unbounded_channel();
    let (events, to_write) = mpsc::channel(MAX_UNWRITTEN);
    let mut writer = Writer {
        sink,
        requests: requested,
        events: to_write,
    };
    let mut reader = Reader::new(desk, relay);
    desk.connected(relay, Line::new(requests, events));
    let why = tokio::select! {
        error = writer.run() => error,
        why = reader.run(&mut stream) => why,
        () = desk.stop.cancelled() => {
            // Whether the relay still listens is its own affair.
            let _ = timeout(FAREWELL, writer.farewell(&mut stream)).await;
            "stopped".to_owned()
        }
    };
    desk.lost(relay, &plain(&why));
}

struct Writer {
    sink: SplitSink<Socket, Message>,
    requests: mpsc::UnboundedReceiver<Utf8Bytes>,
    events: mpsc::Receiver<Utf8Bytes>,
}

impl Writer {
    /// Writes until that fails; answers why.
    async fn run(&mut self) -> String {
        let mut ping = interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = tokio::select! {
                biased;
                Some(request) = self.requests.recv() => Message::Text(request),
                Some(event) = self.events.recv() => Message::Text(event),
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
        let request = self.requests.try_recv();
        let next = request.or_else(|_| self.events.try_recv());
        next.ok().map(Message::Text)
    }

    /// Writes all that is waiting, closes, and waits for the relay to close too: a socket that is dropped with
    /// something unread would take back what has just been written.
    async fn farewell(&mut self, stream: &mut SplitStream<Socket>) -> tungstenite::Result<()> {
        while let Some(next) = self.next() {
            self.sink.feed(next).await?;
        }
        self.sink.close().await?;
        while let Some(Ok(_)) = stream.next().await {}
        Ok(())
    }
}

struct Reader<'a> {
    desk: &'a Desk,
    relay: usize,
    /// How often the relay has asked who we are, and which event was the last answer.
    challenges: usize,
    identified_by: Option<EventId>,
    /// When to ask again for what the relay has refused for the moment.
    ask_again_at: Option<Instant>,
    /// Whether this relay's misbehaviour has been logged; once in a session is enough.
    has_complained: bool,
}

impl<'a> Reader<'a> {
    fn new(desk: &'a Desk, relay: usize) -> Self {
        Self {
            desk,
            relay,
            challenges: 0,
            identified_by: None,
            ask_again_at: None,
            has_complained: false,
        }
    }

    /// Reads until the connection ends; answers why it did.
    async fn run(&mut self, stream: &mut SplitStream<Socket>) -> String {
        loop {
            let again = self.ask_again_at;
            let frame = tokio::select! {
                frame = timeout(SILENCE, stream.next()) => frame,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.ask_again();
                    continue;
                }
            };
            match frame {
                Ok(Some(Ok(Message::Text(text)))) => self.hear(&text),
                Ok(Some(Ok(Message::Close(Some(frame))))) => return format!("closed: {frame}"),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(None) => return "closed".to_owned(),
                Err(_) => return format!("silent for {} s", SILENCE.as_secs()),
            }
        }
    }

    fn ask_again(&mut self) {
        self.ask_again_at = None;
        self.desk.ask_again(self.relay);
    }

    fn hear(&mut self, text: &str) {
        if text.len() > MAX_EVENT_BYTES + ENVELOPE_BYTES {
            return self.complain("sent something too long");
        }
        match RelayMessage::from_json(text) {
            Ok(RelayMessage::Event {
                subscription_id,
                event,
            }) => self.admit(&subscription_id, event.into_owned(), text.len()),
            Ok(RelayMessage::Ok {
                event_id,
                status,
                message,
            }) => self.answered(&event_id, status, &message),
            Ok(RelayMessage::EndOfStoredEvents(id)) => {
                if let Some(inbox) = self.desk.inbox(&id) {
                    inbox.stored_sent(self.relay);
                }
            }
            Ok(RelayMessage::Closed {
                subscription_id,
                message,
            }) => self.refused(&subscription_id, &message),
            Ok(RelayMessage::Auth { challenge }) => self.identify(&challenge),
            Ok(RelayMessage::Notice(words)) => {
                tracing::debug!(relay = %self.url(), words = plain(&words), "notice");
            }
            Ok(_) => {}
            Err(_) => self.complain("sent something that cannot be read"),
        }
    }

    fn admit(&mut self, id: &SubscriptionId, event: Event, bytes: usize) {
        // What was under way when a subscription was closed is nobody's fault.
        let Some(inbox) = self.desk.inbox(id) else {
            return;
        };
        // The exact length is worth counting only where the message leaves doubt.
        if bytes > MAX_EVENT_BYTES && event.as_json().len() > MAX_EVENT_BYTES {
            return self.complain("sent something too long");
        }
        match inbox.admit(event, bytes, clock::now()) {
            Ok(()) | Err(Dropped::Again | Dropped::Expired) => {}
            Err(Dropped::Forged) => self.complain("sent a forged event"),
            Err(Dropped::Unasked) => self.complain("sent an event that nobody asked for"),
            Err(Dropped::Full) => tracing::debug!(subscription = %id, "the reader is too slow"),
        }
    }

    fn answered(&mut self, id: &EventId, accepted: bool, words: &str) {
        if self.identified_by.take_if(|answer| answer == id).is_some() {
            return match accepted {
                true => self.ask_again(),
                false => self.complain(&format!("does not know us: {}", plain(words))),
            };
        }
        // A relay that has the event already has accepted it, whatever it calls that.
        let accepted = accepted || prefix(words) == Some(MachineReadablePrefix::Duplicate);
        let answer = || match accepted {
            true => Answer::Accepted,
            false => Answer::Refused(plain(words)),
        };
        if !self.desk.answered(self.relay, id, answer) && !accepted {
            self.complain(&format!("refuses our events: {}", plain(words)));
        }
    }

    fn refused(&mut self, id: &SubscriptionId, words: &str) {
        let Some(inbox) = self.desk.inbox(id) else {
            return;
        };
        // A relay that has served all the ids that were asked for may say that it is done.
        if words.is_empty() && inbox.is_served_by(self.relay) {
            return;
        }
        self.complain(&format!("closed a subscription: {}", plain(words)));
        inbox.refused(self.relay, plain(words));
        match prefix(words) {
            None | Some(MachineReadablePrefix::Error | MachineReadablePrefix::RateLimited) => {
                let at = Instant::now() + ASK_AGAIN;
                self.ask_again_at.get_or_insert(at);
            }
            // Asked again when the relay knows who we are; the others are for good.
            Some(_) => {}
        }
    }

    /// Tells the relay who we are (NIP-42).
    fn identify(&mut self, challenge: &str) {
        self.challenges += 1;
        if self.challenges > MAX_CHALLENGES || challenge.len() > MAX_CHALLENGE_BYTES {
            return self.complain("asks too often who we are");
        }
        let answer = EventBuilder::auth(challenge, self.url().clone())
            .custom_created_at(clock::now())
            .sign_with_keys(&self.desk.options.keys);
        if let Ok(event) = answer {
            self.identified_by = Some(event.id);
            self.desk.request(self.relay, ClientMessage::auth(event));
        }
    }

    fn complain(&mut self, what: &str) {
        match std::mem::replace(&mut self.has_complained, true) {
            false => tracing::warn!(relay = %self.url(), "the relay {what}"),
            true => tracing::debug!(relay = %self.url(), "the relay {what}"),
        }
    }

    fn url(&self) -> &'a nostr::RelayUrl {
        self.desk.url(self.relay)
    }
}

fn prefix(words: &str) -> Option<MachineReadablePrefix> {
    MachineReadablePrefix::parse(words)
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let options = Options::new([], Keys::generate());
        let longest = [1, 1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs);
        for (failures, longest) in (0..).zip(longest) {
            let pause = pause(&options, failures);
            assert!(
                (longest.mul_f64(0.74)..=longest).contains(&pause),
                "{pause:?}"
            );
        }
        assert!(pause(&options, u32::MAX) <= options.retry_most);
    }
}
