//! What waits to be written to one client.
//!
//! Three kinds of things come in. Answers to what the client said always find room: a session reads on only while
//! there is [`room`](Outbox::room), so they are few. Stored events wait for room themselves. Live events cannot wait,
//! since they come from other sessions: one that finds no room ends the connection, and the client is told why.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use tokio::sync::Notify;

/// Bytes that one message takes besides its own.
const OVERHEAD: usize = 128;

/// How many bytes are written before the socket is flushed and room given back.
const BATCH: usize = 64 << 10;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Messages, live ones included.
    pub messages: usize,
    /// Bytes of these.
    pub bytes: usize,
}

/// One message to the client.
#[derive(Debug, Clone)]
pub enum Parcel {
    /// A whole message.
    Text(String),
    /// An event for a subscription. Its JSON is shared by all whom it goes to.
    Event {
        /// The subscription's.
        envelope: Arc<Envelope>,
        /// The event.
        json: Bytes,
    },
}

/// What stands around a subscription's events.
#[derive(Debug)]
pub struct Envelope {
    /// `["EVENT","id",`
    head: String,
    closed: AtomicBool,
}

impl Envelope {
    /// That of the subscription `id`.
    pub fn new(id: &str) -> Self {
        Self {
            head: format!("[\"EVENT\",{},", Value::from(id)),
            closed: AtomicBool::new(false),
        }
    }

    /// Nothing more goes out in it, not even what waits already.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the subscription has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Parcel {
    /// What it counts against the bounds.
    pub fn weight(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Text(text) => text.len(),
                Self::Event { envelope, json } => envelope.head.len() + json.len() + 1,
            }
    }

    /// The text of the message, unless its subscription has ended. `space` is used again once what was made of it
    /// before is dropped.
    pub fn into_bytes(self, space: &mut BytesMut) -> Option<Bytes> {
        match self {
            Self::Text(text) => Some(text.into()),
            Self::Event { envelope, .. } if envelope.is_closed() => None,
            Self::Event { envelope, json } => {
                space.reserve(envelope.head.len() + json.len() + 1);
                space.put_slice(envelope.head.as_bytes());
                space.put_slice(&json);
                space.put_u8(b']');
                Some(space.split().freeze())
            }
        }
    }
}

/// A live event found no room: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// What waits for one client.
#[derive(Debug)]
pub struct Outbox {
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    /// Something came in, or it overflowed.
    filled: Notify,
    overflowed: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    parcels: VecDeque<Parcel>,
    /// Of all that came in and was not written yet, also what is [held](Outbox::hold) elsewhere.
    bytes: usize,
    messages: usize,
    overflowed: bool,
}

impl Outbox {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            waiting: Mutex::default(),
            filled: Notify::new(),
            overflowed: Notify::new(),
            emptied: Notify::new(),
        }
    }

    /// An answer, which always finds room.
    pub fn answer(&self, text: String) {
        self.put(Parcel::Text(text));
    }

    /// Something that room was waited for.
    pub fn put(&self, parcel: Parcel) {
        let mut waiting = self.lock();
        if waiting.overflowed {
            return;
        }
        waiting.bytes += parcel.weight();
        waiting.messages += 1;
        waiting.parcels.push_back(parcel);
        drop(waiting);
        self.filled.notify_one();
    }

    /// A live event.
    ///
    /// # Errors
    /// When there is no room, now or before: nothing comes in any more.
    pub fn push(&self, parcel: Parcel) -> Result<(), Overflow> {
        self.hold(&parcel)?;
        self.put_held([parcel]);
        Ok(())
    }

    /// Takes room for a live event that somebody keeps until it may be sent.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn hold(&self, parcel: &Parcel) -> Result<(), Overflow> {
        let mut waiting = self.lock();
        if waiting.overflowed {
            return Err(Overflow);
        }
        let bytes = waiting.bytes + parcel.weight();
        if bytes > self.bounds.bytes || waiting.messages >= self.bounds.messages {
            waiting.overflowed = true;
            waiting.parcels = VecDeque::new();
            drop(waiting);
            self.overflowed.notify_one();
            return Err(Overflow);
        }
        waiting.bytes = bytes;
        waiting.messages += 1;
        Ok(())
    }

    /// What was [held](Self::hold) may be sent.
    pub fn put_held(&self, parcels: impl IntoIterator<Item = Parcel>) {
        let mut waiting = self.lock();
        if !waiting.overflowed {
            waiting.parcels.extend(parcels);
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// What was [held](Self::hold), or taken out, needs its room no more.
    pub fn give_back(&self, messages: usize, bytes: usize) {
        let mut waiting = self.lock();
        waiting.messages = waiting.messages.saturating_sub(messages);
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        drop(waiting);
        self.emptied.notify_waiters();
    }

    /// Takes the next parcels out, some [`BATCH`] of them, and answers what they weigh; their room is given back when
    /// they are written. Waits until there is something.
    pub async fn take(&self, batch: &mut VecDeque<Parcel>) -> usize {
        loop {
            let filled = self.filled.notified();
            let taken = self.take_now(batch);
            if taken > 0 {
                return taken;
            }
            filled.await;
        }
    }

    /// The same without waiting: 0 when nothing is there.
    pub fn take_now(&self, batch: &mut VecDeque<Parcel>) -> usize {
        let mut waiting = self.lock();
        let mut taken = 0;
        while taken < BATCH {
            let Some(parcel) = waiting.parcels.pop_front() else {
                break;
            };
            taken += parcel.weight();
            batch.push_back(parcel);
        }
        taken
    }

    /// Waits until less than a quarter of the room is taken: the rest is for what cannot wait.
    pub async fn room(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            emptied.as_mut().enable();
            if self.has_room() {
                return;
            }
            emptied.await;
        }
    }

    fn has_room(&self) -> bool {
        let waiting = self.lock();
        waiting.bytes <= self.bounds.bytes / 4 && waiting.messages <= self.bounds.messages / 4
    }

    /// Waits until a live event found no room.
    pub async fn overflowed(&self) {
        loop {
            let overflowed = self.overflowed.notified();
            if self.lock().overflowed {
                return;
            }
            overflowed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing between two changes can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::FutureExt;

    use super::*;

    fn event(bytes: usize) -> Parcel {
        Parcel::Event {
            envelope: Arc::new(Envelope::new("s")),
            json: vec![b'x'; bytes].into(),
        }
    }

    fn outbox(messages: usize, bytes: usize) -> Outbox {
        Outbox::new(Bounds { messages, bytes })
    }

    async fn write(outbox: &Outbox) -> VecDeque<Parcel> {
        let mut batch = VecDeque::new();
        let bytes = outbox.take(&mut batch).await;
        outbox.give_back(batch.len(), bytes);
        batch
    }

    #[test]
    fn an_event_is_written_in_its_envelope() {
        let mut space = BytesMut::new();
        let envelope = Arc::new(Envelope::new("\"s"));
        let parcel = Parcel::Event {
            envelope: envelope.clone(),
            json: Bytes::from_static(b"{}"),
        };
        let written = parcel.clone().into_bytes(&mut space).unwrap();
        assert_eq!(written, r#"["EVENT","\"s",{}]"#);
        envelope.close();
        assert_eq!(parcel.into_bytes(&mut space), None);
    }

    #[tokio::test]
    async fn a_live_event_without_room_ends_it_and_answers_are_no_reason() {
        let outbox = outbox(3, 1 << 20);
        for _ in 0..5 {
            outbox.answer("[]".to_owned());
        }
        assert!(outbox.overflowed().now_or_never().is_none());
        assert_eq!(outbox.push(event(1)), Err(Overflow));
        outbox.overflowed().now_or_never().unwrap();
        let mut batch = VecDeque::new();
        assert_eq!(outbox.take_now(&mut batch), 0, "nothing is kept for it");
        outbox.answer("[]".to_owned());
        assert_eq!(outbox.take_now(&mut batch), 0);
    }

    #[tokio::test]
    async fn bytes_count_until_they_are_written() {
        let outbox = outbox(100, 10_000);
        for _ in 0..9 {
            outbox.push(event(800)).unwrap();
        }
        let mut batch = VecDeque::new();
        let bytes = outbox.take(&mut batch).await;
        assert!(
            outbox.room().now_or_never().is_none(),
            "taken is not written"
        );
        outbox.give_back(batch.len(), bytes);
        outbox.room().now_or_never().unwrap();
        for _ in 0..9 {
            outbox.push(event(800)).unwrap();
        }
        assert_eq!(outbox.push(event(5_000)), Err(Overflow));
    }

    #[tokio::test]
    async fn what_is_held_takes_room_and_is_sent_later() {
        let outbox = outbox(2, 1 << 20);
        let (first, second) = (event(1), event(2));
        outbox.hold(&first).unwrap();
        outbox.hold(&second).unwrap();
        assert!(outbox.room().now_or_never().is_none());
        outbox.put_held([first, second]);
        assert_eq!(write(&outbox).await.len(), 2);
        outbox.push(event(3)).unwrap();
        assert_eq!(write(&outbox).await.len(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_woken() {
        let outbox = Arc::new(outbox(4, 1 << 20));
        for _ in 0..3 {
            outbox.answer("[]".to_owned());
        }
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        write(&outbox).await;
        waiting.await.unwrap();
    }
}
