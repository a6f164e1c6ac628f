//! Talking with an aggregator: questions that are asked until they are answered, and what it says unasked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{Delivery, Link, Subscription};
use infernet_protocol::batch::{Answer, Ask, GroupStanding, Question, Reply};
use infernet_protocol::event::Talk as Envelope;
use infernet_protocol::kinds;
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::{Conversation, overhear, whisper};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey, Timestamp};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Error;

/// How long an answer is waited for before the question is asked again.
const ASK_EVERY: Duration = Duration::from_secs(4);

/// How long an aggregator may be silent before it counts as away.
const SILENCE: Duration = Duration::from_secs(12);

/// What is said unasked, and may wait for its reader; whoever misses some asks.
const MAX_UNREAD: usize = 256;

/// A conversation with one aggregator. Clones share it.
#[derive(Clone)]
pub(super) struct Talk {
    shared: Arc<Shared>,
    _stops_when_dropped: Arc<DropGuard>,
}

struct Shared {
    link: Link,
    keys: Keys,
    aggregator: PublicKey,
    conversation: Conversation,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    said: broadcast::Sender<(EventId, GroupStanding)>,
    /// Whether it answers.
    is_there: watch::Sender<bool>,
}

impl Talk {
    pub fn with(aggregator: PublicKey, keys: &Keys, link: &Link) -> Result<Self, Error> {
        let conversation = Conversation::between(keys.secret_key(), &aggregator)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let since = clock::now().as_secs().saturating_sub(60);
        let filter = Filter::new()
            .kind(Kind::from(kinds::TALK))
            .author(aggregator)
            .pubkey(keys.public_key())
            .since(Timestamp::from_secs(since));
        let inbox = link.subscribe(vec![filter])?;
        let shared = Arc::new(Shared {
            link: link.clone(),
            keys: keys.clone(),
            aggregator,
            conversation,
            // An answer to a process before this one is none to us.
            next: AtomicU64::new(u64::from(rand::random::<u32>()) << 20),
            waiting: Mutex::default(),
            said: broadcast::channel(MAX_UNREAD).0,
            is_there: watch::Sender::new(true),
        });
        let stop = CancellationToken::new();
        let (listening, stopped) = (shared.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = listening.listen(inbox) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self {
            shared,
            _stops_when_dropped: Arc::new(stop.drop_guard()),
        })
    }

    /// How groups stand, as it says unasked.
    pub fn said(&self) -> broadcast::Receiver<(EventId, GroupStanding)> {
        self.shared.said.subscribe()
    }

    /// Whether it answers, from now on.
    pub fn is_there(&self) -> watch::Receiver<bool> {
        self.shared.is_there.subscribe()
    }

    /// Asks until there is an answer, however long that takes. Safe to cancel.
    ///
    /// # Errors
    /// A question that cannot be said.
    pub async fn ask(&self, order: Option<EventId>, ask: Ask) -> Result<Reply, Error> {
        let shared = &self.shared;
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let question = Question { number, order, ask };
        let (teller, mut told) = oneshot::channel();
        shared.waiting().insert(number, teller);
        let _forgets = Forgets(shared, number);
        let began = Instant::now();
        loop {
            let event = shared.question(&question)?;
            if let Err(error) = shared.link.send(&event) {
                tracing::debug!(%error, "a question was not sent");
            }
            match timeout(ASK_EVERY, &mut told).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(_)) => return Err(Error::Closed),
                Err(_) if began.elapsed() >= SILENCE => shared.note(false),
                Err(_) => {}
            }
        }
    }

    /// The same, for so long.
    ///
    /// # Errors
    /// [`Error::NoAggregator`] if no answer comes in time.
    pub async fn ask_within(
        &self,
        patience: Duration,
        order: Option<EventId>,
        ask: Ask,
    ) -> Result<Reply, Error> {
        let asked = timeout(patience, self.ask(order, ask)).await;
        asked.unwrap_or_else(|_| Err(Error::NoAggregator("the aggregator does not answer".into())))
    }
}

/// A question that nobody waits for any more is forgotten.
struct Forgets<'a>(&'a Shared, u64);

impl Drop for Forgets<'_> {
    fn drop(&mut self) {
        self.0.waiting().remove(&self.1);
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn question(&self, question: &Question) -> Result<Event, Error> {
        let invalid = |error: String| Error::Invalid(error);
        question
            .validate()
            .map_err(|refusal| invalid(refusal.to_string()))?;
        let content = whisper(&self.conversation, &question.to_bytes(), &mut OsRng)
            .map_err(|error| invalid(error.to_string()))?;
        let envelope = Envelope {
            reader: self.aggregator,
            content,
        };
        let unsigned = envelope.to_unsigned(self.keys.public_key(), clock::now());
        let event = unsigned.sign_with_keys(&self.keys);
        event.map_err(|error| invalid(error.to_string()))
    }

    async fn listen(&self, mut inbox: Subscription) {
        while let Some(delivery) = inbox.next().await {
            if let Delivery::Event(event) = delivery {
                self.hear(&event);
            }
        }
    }

    fn hear(&self, event: &Event) {
        if event.pubkey != self.aggregator {
            return;
        }
        let answer = Envelope::parse(event)
            .ok()
            .and_then(|envelope| overhear(&self.conversation, &envelope.content).ok())
            .and_then(|bytes| Answer::from_bytes(&bytes).ok());
        let Some(answer) = answer else {
            tracing::debug!(event = %event.id, "not a valid answer");
            return;
        };
        self.note(true);
        if let (None, Some(order), Reply::Group(standing)) =
            (answer.number, answer.order, &answer.reply)
        {
            // Nobody need be listening.
            let _ = self.said.send((order, standing.clone()));
        }
        let asked = answer
            .number
            .and_then(|number| self.waiting().remove(&number));
        if let Some(teller) = asked {
            let _ = teller.send(answer.reply);
        }
    }

    fn note(&self, is_there: bool) {
        self.is_there
            .send_if_modified(|was| std::mem::replace(was, is_there) != is_there);
    }
}
