//! One websocket: what a client says is read, judged, kept, answered, and told to others.
//!
//! A session is one task. It reads on only while there is room for what reading brings: events under way to the disk
//! (`pipeline`), questions about stored ones (`request`), answers not written yet (`outbox`). Nothing else holds it up:
//! it does not wait for the disk, and while the client does not read, what it sent before is kept and told to others.
//!
//! The parts: `message` reads what clients say, `publishing` judges events, `asking` judges questions and `request`
//! answers them from the store, `negotiation` reconciles (NIP-77), `identity` knows who a client is (NIP-42), `viewer`
//! asks `admission` about it, `writer` writes, `transport` and `pace` bound how fast bytes and messages come.

mod asking;
mod count;
mod farewell;
mod fault;
mod identity;
mod message;
pub mod negotiation;
pub mod outbox;
mod pace;
mod pipeline;
mod publishing;
mod request;
mod say;
mod transport;
mod viewer;
mod writer;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Place, Refusal};
use crate::lists::Lists;
use crate::metrics::Metrics;
use crate::options::{Limits, MAX_MESSAGE_BYTES, Options};
use crate::store::Store;
use crate::subscriptions::{Hub, Sight};

use asking::Open;
use farewell::End;
use identity::Identity;
pub use message::{MAX_SUBSCRIPTION_ID, filter};
use message::{Message, Unreadable};
use negotiation::Reconciliation;
use outbox::{Bounds, Outbox};
use pace::Pace;
use pipeline::Pipeline;
pub use publishing::MAX_TAGS;
use publishing::Outcome;
use request::{Ask, Asks, Clerk};
use transport::Transport;
use viewer::Viewer;
use writer::{Socket, Writer};

/// Messages that a session takes before others have their turn: a signature is checked in some 27 µs. A long one, of
/// which so many bytes count as one more message, takes more than that.
const TURN: usize = 8;
const TURN_BYTES: usize = 4 << 10;

/// Messages that could not be read, and events with a wrong id or signature, after which a session ends.
const MAX_NONSENSE: u32 = 50;

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
            if turn >= TURN {
                turn = 0;
                yield_now().await;
            }
            turn += 1;
            let is_free = self.pipeline.has_room() && self.asks.has_room();
            tokio::select! {
                biased;
                () = &mut stopping => return End::Stopping,
                () = &mut overflowed => return End::TooSlow,
                outcome = self.pipeline.next(), if !self.pipeline.is_empty() => self.conclude(outcome),
                () = self.asks.advance(), if !self.asks.is_empty() => self.drop_closed(),
                Ok(()) = changes.changed() => {
                    if self.shared.lists.blocked_address(self.peer.ip()) {
                        return End::Blocked;
                    }
                }
                frame = next(&mut self.pace, &outbox, stream), if is_free => {
                    self.pace.spend(1);
                    turn += frame.iter().flatten().map(Frame::len).sum::<usize>() / TURN_BYTES;
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
        let why = Unreadable::new(why);
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
            Message::NegMsg { id, message } => {
                self.hear_negotiation_message(id.into_owned(), message.into_owned());
            }
            Message::NegClose(id) => self.asks.push(Ask::NegClose(id.into_owned()), 0),
        }
        Ok(())
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
