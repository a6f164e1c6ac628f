//! One websocket: what a client says is read, judged, kept, answered, and told to others.
//!
//! A session is one task. It reads on only while there is room for what reading brings: events under way to the disk
//! (`pipeline`), questions about stored ones (`request`), answers not written yet (`outbox`). Nothing else holds it up:
//! it does not wait for the disk, and while the client does not read, what it sent before is kept and told to others.
//!
//! The parts: `message` reads what clients say, `identity` who they are (NIP-42), `viewer` asks `admission` about them,
//! `request` answers from the store, `negotiation` reconciles (NIP-77), `writer` writes, `transport` and `pace` bound
//! how fast bytes and messages come.

mod count;
mod farewell;
mod fault;
mod identity;
mod message;
pub mod negotiation;
pub mod outbox;
mod pace;
mod pipeline;
mod request;
mod say;
mod transport;
mod viewer;
mod writer;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SplitStream;
use nostr::{Event, EventId, Filter, JsonUtil, Kind};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Place, Refusal};
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::options::{Limits, MAX_MESSAGE_BYTES, Options};
use crate::store::{self, Saved, Store};
use crate::subscriptions::{Expected, Hub, Sight, Subscription};

use farewell::End;
use fault::Fault;
use identity::Identity;
pub use message::MAX_SUBSCRIPTION_ID;
use message::{Asked, Message};
use negotiation::Reconciliation;
use outbox::{Bounds, Envelope, Outbox};
use pace::Pace;
use pipeline::Pipeline;
use request::{Ask, Asks, Clerk};
use transport::Transport;
use viewer::Viewer;
use writer::{Socket, Writer};

/// Messages that a session takes before others have their turn: a signature is checked in some 27 µs.
const TURN: u32 = 8;

/// Messages that could not be read, and events with a wrong id or signature, after which a session ends.
const MAX_NONSENSE: u32 = 50;

/// Tags of one event. Each is looked up when the event is told to others, and stands in the store's index.
pub const MAX_TAGS: usize = 2_000;

/// Bytes that the filters of one connection's subscriptions may have as JSON, which bounds what they take in memory.
const MAX_FILTER_BYTES: usize = 1 << 20;

/// Questions of one connection that wait for their answer.
const MAX_ASKS: usize = 64;

/// What is read, and written, at a time. Each connection has both.
const READ_BYTES: usize = 8 << 10;
const WRITE_BYTES: usize = 16 << 10;

/// What all sessions share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where events are kept.
    pub store: Arc<Store>,
    /// Who judges.
    pub admission: Arc<Admission>,
    /// Who tells others.
    pub hub: Arc<Hub>,
    /// Reconciliations of all.
    pub reconciliation: Arc<Reconciliation>,
    /// Whom the operator knows.
    pub lists: Arc<Lists>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Serves websockets.
#[derive(Debug)]
pub struct Sessions {
    shared: Shared,
    limits: Limits,
    address: Option<String>,
    stop: CancellationToken,
}

impl Sessions {
    /// Sessions each of which ends after its current message once `stop` says so.
    pub fn new(shared: Shared, options: &Options, stop: CancellationToken) -> Self {
        Self {
            shared,
            limits: options.limits.clone(),
            address: options.address.clone(),
            stop,
        }
    }

    /// A place for a client at `address`, which it keeps while the answer lives.
    ///
    /// # Errors
    /// With the reason to refuse it.
    pub fn admit(&self, address: IpAddr) -> Result<Place, Refusal> {
        self.shared.admission.may_connect(address)
    }

    /// Serves one websocket, just upgraded, until either side ends it. The client is at `peer` and calls this relay
    /// `host`.
    pub async fn serve<S>(&self, transport: S, peer: SocketAddr, host: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let transport = Transport::new(transport, self.limits.bytes_per_second);
        let socket = WebSocketStream::from_raw_socket(transport, Role::Server, Some(config)).await;
        let (sink, mut stream) = socket.split();
        let mut session = Session::new(self, peer, host);
        let mut writer = Writer::new(sink, session.outbox.clone());
        self.shared.metrics.connection_opened();
        let end = tokio::select! {
            end = session.run(&mut stream, self.stop.child_token()) => end,
            error = writer.run() => {
                tracing::debug!(%peer, %error, "cannot be written to");
                End::Gone
            }
        };
        tracing::debug!(%peer, ?end, "session ended");
        if end == End::TooSlow {
            self.shared.metrics.slow_reader_closed();
        }
        session.subscriptions.clear();
        // What came is kept and told to others, whatever became of who sent it.
        session.finish().await;
        writer.part(stream, end).await;
        self.shared.metrics.connection_closed();
    }
}

/// One client.
struct Session {
    shared: Shared,
    peer: SocketAddr,
    viewer: Arc<Viewer>,
    sight: Sight,
    outbox: Arc<Outbox>,
    pace: Pace,
    pipeline: Pipeline<Outcome>,
    asks: Asks,
    subscriptions: HashMap<String, Open>,
    max_subscriptions: usize,
    nonsense: u32,
}

/// A subscription of a client.
struct Open {
    subscription: Subscription,
    filter_bytes: usize,
}

/// What became of an event that a client sent.
enum Outcome {
    /// There is nothing more to do than to say so.
    Answered(String),
    /// It is on the disk.
    Stored(Arc<Event>, Bytes, Expected),
    /// It is ephemeral.
    Passing(Event, Bytes),
}

impl Session {
    fn new(sessions: &Sessions, peer: SocketAddr, host: &str) -> Self {
        let (shared, limits) = (sessions.shared.clone(), &sessions.limits);
        let challenge = format!("{:032x}", rand::random::<u128>());
        let called = sessions.address.as_deref().unwrap_or(host);
        let identity = Identity::new(challenge.clone(), called);
        let viewer = Arc::new(Viewer::new(shared.admission.clone(), peer.ip(), identity));
        let outbox = Arc::new(Outbox::new(Bounds {
            messages: limits.outbox_messages,
            bytes: limits.outbox_bytes,
        }));
        outbox.answer(say::auth(&challenge));
        let clerk = Clerk {
            store: shared.store.clone(),
            viewer: viewer.clone(),
            outbox: outbox.clone(),
            metrics: shared.metrics.clone(),
            negotiations: Mutex::new(shared.reconciliation.connection()),
            stored_events: limits.stored_events,
        };
        Self {
            peer,
            sight: {
                let viewer = viewer.clone();
                Arc::new(move |event| viewer.may_see(event))
            },
            viewer,
            outbox,
            pace: Pace::new(limits.messages_per_second, limits.burst),
            pipeline: Pipeline::new(),
            asks: Asks::new(Arc::new(clerk)),
            subscriptions: HashMap::new(),
            max_subscriptions: limits.subscriptions,
            nonsense: 0,
            shared,
        }
    }

    /// Serves the client until something ends it.
    async fn run<S>(&mut self, stream: &mut SplitStream<Socket<S>>, stop: CancellationToken) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stopping = pin!(stop.cancelled());
        let outbox = self.outbox.clone();
        let mut overflowed = pin!(outbox.overflowed());
        let mut changes = self.shared.lists.changes();
        let mut turn = 0;
        loop {
            if turn == TURN {
                turn = 0;
                yield_now().await;
            }
            turn += 1;
            let is_free = self.pipeline.has_room() && self.asks.len() < MAX_ASKS;
            tokio::select! {
                biased;
                () = &mut stopping => return End::Stopping,
                () = &mut overflowed => return End::TooSlow,
                outcome = self.pipeline.next(), if !self.pipeline.is_empty() => self.conclude(outcome),
                () = self.asks.advance(), if self.asks.len() > 0 => self.drop_closed(),
                Ok(()) = changes.changed() => {
                    if self.shared.lists.blocked_address(self.peer.ip()) {
                        return End::Blocked;
                    }
                }
                frame = next(&mut self.pace, &outbox, stream), if is_free => {
                    self.pace.spend(1);
                    if let Err(end) = self.take(frame).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn take(&mut self, frame: Option<Result<Frame, tungstenite::Error>>) -> Result<(), End> {
        match frame {
            None | Some(Ok(Frame::Close(_))) => Err(End::Gone),
            Some(Ok(Frame::Text(text))) => self.hear(&text).await,
            Some(Ok(Frame::Binary(_))) => self.misunderstand("it is binary, not text"),
            // The websocket answers these by itself.
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => {
                tracing::debug!(peer = %self.peer, %error, "cannot be read from");
                Err(end_of(&error))
            }
        }
    }

    /// Says that a message could not be read, unless that was so too often.
    fn misunderstand(&mut self, why: impl std::fmt::Display) -> Result<(), End> {
        self.shared.metrics.received("other");
        self.shared.metrics.notice();
        self.bear_nonsense()?;
        let notice = format!("invalid: unreadable message: {why}");
        self.outbox.answer(say::notice(&notice));
        Ok(())
    }

    fn bear_nonsense(&mut self) -> Result<(), End> {
        self.nonsense += 1;
        match self.nonsense > MAX_NONSENSE {
            true => Err(End::Nonsense),
            false => Ok(()),
        }
    }

    async fn hear(&mut self, text: &str) -> Result<(), End> {
        let message = match Message::parse(text) {
            Ok(message) => message,
            Err(error) => return self.misunderstand(error),
        };
        self.shared.metrics.received(message.word());
        match message {
            Message::Event(json) => return self.hear_event(json).await,
            Message::Auth(json) => return self.hear_auth(json),
            Message::Request(asked) => self.hear_request(&asked),
            Message::Count(asked) => self.hear_count(&asked),
            Message::Close(id) => {
                self.subscriptions.remove(&*id);
            }
            Message::NegOpen {
                id,
                filter,
                message,
            } => self.hear_negotiation(&id, filter, &message),
            Message::NegMsg { id, message } => self.asks.push(Ask::NegMessage {
                id: id.into_owned(),
                message: message.into_owned(),
            }),
            Message::NegClose(id) => self.asks.push(Ask::NegClose(id.into_owned())),
        }
        Ok(())
    }

    async fn hear_event(&mut self, json: &RawValue) -> Result<(), End> {
        let event = match Event::from_json(json.get()) {
            Ok(event) => event,
            Err(error) => {
                let Some(id) = message::claimed_id(json) else {
                    return self.misunderstand(error);
                };
                self.refuse(&id, &Fault::Unreadable(message::Unreadable::new(error)));
                return Ok(());
            }
        };
        let id = event.id;
        let Err(fault) = self.judge_event(event).await else {
            return Ok(());
        };
        self.refuse(&id, &fault);
        match fault {
            Fault::Id | Fault::Signature => self.bear_nonsense(),
            _ => Ok(()),
        }
    }

    /// Judges an event, the cheapest first, and sends it on its way.
    async fn judge_event(&mut self, event: Event) -> Result<(), Fault> {
        let is_passing = event.kind.is_ephemeral();
        let is_known = match is_passing {
            true => self.shared.hub.is_old_news(&event.id),
            false => self.shared.store.has(&event.id)?,
        };
        if is_known {
            return Err(Fault::Duplicate);
        }
        if event.kind == Kind::Authentication {
            return Err(Fault::Misplaced);
        }
        if event.tags.len() > MAX_TAGS {
            return Err(Fault::Tags(event.tags.len()));
        }
        if !event.verify_id() {
            return Err(Fault::Id);
        }
        self.viewer.glance(&event)?;
        if !event.verify_signature() {
            self.viewer.forged();
            return Err(Fault::Signature);
        }
        self.viewer.examine(&event)?;
        let json = Bytes::from(event.as_json());
        if is_passing {
            self.pipeline.push_done(Outcome::Passing(event, json));
            return Ok(());
        }
        self.shared.store.check(&event).await?;
        self.save(Arc::new(event), json);
        Ok(())
    }

    fn save(&mut self, event: Arc<Event>, json: Bytes) {
        let bytes = json.len();
        let expected = self.shared.hub.expect(event.id);
        let saving = self.shared.store.save(event.clone(), json.clone());
        let (metrics, began) = (self.shared.metrics.clone(), Instant::now());
        let saved = async move {
            let fault = match saving.await {
                Ok(Saved::New) => {
                    metrics.save_took(began.elapsed());
                    metrics.stored(1);
                    return Outcome::Stored(event, json, expected);
                }
                Ok(Saved::Duplicate) => Fault::Duplicate,
                Ok(Saved::Superseded(by)) => Fault::Refused(Refusal::Superseded(by)),
                Ok(Saved::Deleted) => Fault::Refused(Refusal::Deleted),
                Ok(Saved::Refused(refusal)) => Fault::Refused(refusal),
                Err(error) => Fault::Store(error),
            };
            Outcome::Answered(fault.answer(&event.id, &metrics))
        };
        self.pipeline.push(saved, bytes);
    }

    /// Answers an event, and tells others of it.
    fn conclude(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(text) => self.outbox.answer(text),
            Outcome::Stored(event, json, _expected) => {
                self.admitted(&event);
                self.shared.hub.publish(&event, &json);
            }
            Outcome::Passing(event, json) => {
                self.admitted(&event);
                self.shared.hub.publish_once(&event, &json);
            }
        }
    }

    fn admitted(&self, event: &Event) {
        self.viewer.admitted(event);
        self.shared.metrics.admitted("client");
        self.outbox.answer(say::ok(&event.id, true, ""));
    }

    fn refuse(&mut self, id: &EventId, fault: &Fault) {
        tracing::debug!(peer = %self.peer, event = %id, %fault, "refused");
        let answer = fault.answer(id, &self.shared.metrics);
        // In its turn: clients may count on the order of answers.
        self.pipeline.push_done(Outcome::Answered(answer));
    }

    fn hear_auth(&mut self, json: &RawValue) -> Result<(), End> {
        let auth = match Event::from_json(json.get()) {
            Ok(auth) => auth,
            Err(error) => return self.misunderstand(error),
        };
        let identified = self.viewer.identify(&auth);
        let why = identified
            .as_ref()
            .map_or_else(ToString::to_string, |()| String::new());
        let answer = say::ok(&auth.id, identified.is_ok(), &why);
        self.pipeline.push_done(Outcome::Answered(answer));
        match identified {
            Ok(()) => Ok(()),
            Err(_) => self.bear_nonsense(),
        }
    }

    fn hear_request(&mut self, asked: &Asked<'_>) {
        // Whatever comes of this one, it takes the other's place.
        self.subscriptions.remove(&*asked.id);
        if let Err(fault) = self.subscribe(asked) {
            self.close(&asked.id, &fault);
        }
    }

    fn subscribe(&mut self, asked: &Asked<'_>) -> Result<(), Fault> {
        let filters = self.filters(asked)?;
        if self.subscriptions.len() >= self.max_subscriptions {
            return Err(Fault::Subscriptions(self.max_subscriptions));
        }
        let filter_bytes = asked.filters.iter().map(|json| json.get().len()).sum();
        let others = self.subscriptions.values().map(|open| open.filter_bytes);
        if filter_bytes + others.sum::<usize>() > MAX_FILTER_BYTES {
            return Err(Fault::FilterBytes);
        }
        let subscription = self.shared.hub.subscribe(
            filters.clone(),
            Envelope::new(&asked.id),
            self.outbox.clone(),
            self.sight.clone(),
        );
        let id = asked.id.clone().into_owned();
        self.asks.push(Ask::Stored {
            id: id.clone(),
            answering: subscription.answering(),
            filters,
        });
        let open = Open {
            subscription,
            filter_bytes,
        };
        self.subscriptions.insert(id, open);
        Ok(())
    }

    fn hear_count(&mut self, asked: &Asked<'_>) {
        match self.filters(asked) {
            Ok(filters) => self.asks.push(Ask::Count {
                id: asked.id.clone().into_owned(),
                filters,
            }),
            Err(fault) => self.close(&asked.id, &fault),
        }
    }

    fn hear_negotiation(&mut self, id: &str, filter: &RawValue, message: &str) {
        let asked = Asked {
            id: id.into(),
            filters: vec![filter],
            too_many: false,
        };
        match self.filters(&asked) {
            Ok(mut filters) => self.asks.push(Ask::NegOpen {
                id: id.to_owned(),
                filter: filters.pop().unwrap_or_else(nothing),
                message: message.to_owned(),
            }),
            Err(fault) => {
                self.shared.metrics.request_refused(fault.prefix());
                self.outbox.answer(say::neg_err(id, &fault.to_string()));
            }
        }
    }

    /// The filters of a request that may be asked. Those that match nothing are left out.
    fn filters(&self, asked: &Asked<'_>) -> Result<Vec<Filter>, Fault> {
        if asked.id.chars().count() > MAX_SUBSCRIPTION_ID {
            return Err(Fault::LongId);
        }
        if asked.too_many {
            return Err(Fault::Filters);
        }
        let mut filters = Vec::new();
        for json in &asked.filters {
            let filter = message::filter(json)?;
            if filter.search.is_some() {
                return Err(Fault::Search);
            }
            if store::is_too_broad(&filter) {
                return Err(Fault::TooBroad);
            }
            if !message::matches_nothing(&filter) {
                filters.push(filter);
            }
        }
        self.viewer.may_ask(&filters)?;
        Ok(filters)
    }

    fn close(&self, id: &str, fault: &Fault) {
        self.shared.metrics.request_refused(fault.prefix());
        self.outbox.answer(say::closed(id, &fault.to_string()));
    }

    /// Drops the subscriptions whose stored events could not be read.
    fn drop_closed(&mut self) {
        let is_open = |open: &Open| !open.subscription.is_closed();
        self.subscriptions.retain(|_, open| is_open(open));
    }

    /// Waits for all that is under way.
    async fn finish(&mut self) {
        while !self.pipeline.is_empty() {
            let outcome = self.pipeline.next().await;
            self.conclude(outcome);
        }
    }
}

/// The next frame, when there is room for what it may bring.
async fn next<S>(
    pace: &mut Pace,
    outbox: &Outbox,
    stream: &mut SplitStream<Socket<S>>,
) -> Option<Result<Frame, tungstenite::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pace.ready().await;
    outbox.room().await;
    stream.next().await
}

fn end_of(error: &tungstenite::Error) -> End {
    match error {
        tungstenite::Error::Capacity(_) => End::TooLarge,
        tungstenite::Error::Utf8 => End::NoText,
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        tungstenite::Error::Protocol(_) => End::NoText,
        _ => End::Gone,
    }
}

/// A filter that matches nothing.
fn nothing() -> Filter {
    Filter::new().id(EventId::all_zeros())
}
