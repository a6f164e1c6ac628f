//! The other relay: one connection, one question at a time, and every answer bounded in size, number and time.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use infernet_node::clock;
use infernet_node::link::{Demand, MAX_WORK, Question};
use nostr::filter::MatchEventOptions;
use nostr::{
    ClientMessage, Event, EventId, Filter, JsonUtil as _, Keys, RelayMessage, RelayUrl,
    SubscriptionId,
};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use tokio_util::sync::CancellationToken;

use super::delivery::{Delivery, Next, Verdict};
use crate::options;

/// How long name resolution, TCP, TLS and the websocket's handshake may take together.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the other may take for something that we wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of one message: half a megabyte of a reconciliation in hex, as strfry sends it, and then some.
const MAX_MESSAGE_BYTES: usize = 2 << 20;

/// Messages that nobody asked for, while we wait for one answer.
const MAX_STRAYS: usize = 10_000;

/// How often in a connection we say who we are, since a relay may ask for more work each time.
const MAX_IDENTIFIED: u32 = 5;

/// How often in a connection we wait because the relay wants fewer requests, and how long.
const MAX_PAUSES: u32 = 100;
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why the other relay cannot be reconciled with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("cannot connect to {url}: {why}")]
    Unreachable {
        /// Whom to.
        url: RelayUrl,
        /// Why not.
        why: String,
    },
    /// The connection ended.
    #[error("the connection to {url} broke off: {why}")]
    BrokeOff {
        /// Whom to.
        url: RelayUrl,
        /// What is known of it.
        why: String,
    },
    /// It does not answer.
    #[error("{0} does not answer")]
    Silent(RelayUrl),
    /// It says things that nobody asked for, and nothing else.
    #[error("{0} says what nobody asked for")]
    Stray(RelayUrl),
    /// It refuses.
    #[error("{url} refuses: {said}")]
    Refused {
        /// Who.
        url: RelayUrl,
        /// Its words.
        said: String,
    },
}

/// What the other says to a message of a reconciliation.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The next message.
    Message(Vec<u8>),
    /// Fewer events at a time, please.
    TooBig(String),
    /// It let go of this one.
    Dropped(String),
    /// It knows no reconciliation.
    Unsupported(String),
}

/// A connection to another relay.
#[derive(Debug)]
pub struct Peer {
    url: RelayUrl,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    keys: Keys,
    challenge: Option<String>,
    identified: u32,
    pauses: u32,
    asked: u64,
    knows_reconciliation: bool,
}

impl Peer {
    /// Connects to the relay at `url`; where it wants to know who we are, that is `keys`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn connect(url: &RelayUrl, keys: &Keys) -> Result<Self, Error> {
        // rustls asks for one provider for the whole process; somebody else's choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        let without_nagle = true;
        let connecting = connect_async_with_config(url.as_str(), Some(config), without_nagle);
        let why = match timeout(HANDSHAKE, connecting).await {
            Ok(Ok((socket, _))) => {
                return Ok(Self {
                    url: url.clone(),
                    socket,
                    keys: keys.clone(),
                    challenge: None,
                    identified: 0,
                    pauses: 0,
                    asked: 0,
                    knows_reconciliation: false,
                });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", HANDSHAKE.as_secs()),
        };
        let url = url.clone();
        Err(Error::Unreachable { url, why })
    }

    /// Begins a reconciliation of the events that match `filter`; `id` names it from then on.
    ///
    /// # Errors
    /// As all that is asked: the other is gone, silent, or refuses.
    pub async fn open(
        &mut self,
        filter: &Filter,
        message: &[u8],
    ) -> Result<(SubscriptionId, Answer), Error> {
        loop {
            let id = self.next_id();
            let open = json!(["NEG-OPEN", id, filter, hex::encode(message)]);
            self.say(open.to_string()).await?;
            match self.negotiated(&id).await {
                Err(Error::Silent(_)) if !self.knows_reconciliation => {
                    return Ok((id, Answer::Unsupported("it says nothing".to_owned())));
                }
                Err(Error::Refused { said, .. }) => self.satisfy(said).await?,
                answer => return Ok((id, answer?)),
            }
        }
    }

    /// Goes on with a reconciliation.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn go_on(&mut self, id: &SubscriptionId, message: &[u8]) -> Result<Answer, Error> {
        let message = json!(["NEG-MSG", id, hex::encode(message)]);
        self.say(message.to_string()).await?;
        match self.negotiated(id).await {
            Err(Error::Refused { said, .. }) if is_later(&said) => {
                // It has let go of the reconciliation with that.
                self.satisfy(said.clone()).await?;
                Ok(Answer::Dropped(said))
            }
            answer => answer,
        }
    }

    /// Ends a reconciliation.
    ///
    /// # Errors
    /// When the connection broke off.
    pub async fn close(&mut self, id: &SubscriptionId) -> Result<(), Error> {
        self.say(json!(["NEG-CLOSE", id]).to_string()).await
    }

    async fn negotiated(&mut self, id: &SubscriptionId) -> Result<Answer, Error> {
        let is_known = self.knows_reconciliation;
        let answer = self.until(PATIENCE, |message| match message {
            RelayMessage::NegMsg {
                subscription_id,
                message,
            } if *subscription_id == *id => Some(Ok(message.into_owned())),
            RelayMessage::NegErr {
                subscription_id,
                message,
            }
            | RelayMessage::Closed {
                subscription_id,
                message,
            } if *subscription_id == *id => Some(Err(message.into_owned())),
            // Relays that do not know the message have no other word for that.
            RelayMessage::Notice(said) if !is_known => Some(Err(format!("unsupported: {said}"))),
            _ => None,
        });
        match answer.await? {
            Ok(message) => match hex::decode(&message) {
                Ok(message) => {
                    self.knows_reconciliation = true;
                    Ok(Answer::Message(message))
                }
                Err(_) => Err(self.refused("a message that is no hex".to_owned())),
            },
            Err(said) if is_too_big(&said) => Ok(Answer::TooBig(said)),
            Err(said) if said.starts_with("closed:") => Ok(Answer::Dropped(said)),
            Err(said) if is_unsupported(&said) => Ok(Answer::Unsupported(said)),
            Err(said) => Err(self.refused(said)),
        }
    }

    /// Those of these events that the other has; nothing that was not asked for, and nothing is verified yet.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn events(&mut self, ids: &[EventId]) -> Result<Vec<Event>, Error> {
        let mut wanted: HashSet<_> = ids.iter().copied().collect();
        let filter = Filter::new().ids(ids.iter().copied()).limit(ids.len());
        self.stored(&filter, |event| wanted.remove(&event.id)).await
    }

    /// One page of the events that match `filter`, at most as many as it says, in whatever order; nothing is verified
    /// yet.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn page(&mut self, filter: &Filter) -> Result<Vec<Event>, Error> {
        let mut heard = HashSet::new();
        let most = filter.limit.unwrap_or(usize::MAX);
        self.stored(filter, |event| {
            let is_asked = filter.match_event(event, MatchEventOptions::new());
            is_asked && heard.len() < most && heard.insert(event.id)
        })
        .await
    }

    async fn stored(
        &mut self,
        filter: &Filter,
        mut is_wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Vec<Event>, Error> {
        loop {
            let id = self.next_id();
            self.say(json!(["REQ", id, filter]).to_string()).await?;
            match self.until_eose(&id, &mut is_wanted).await {
                Err(Error::Refused { said, .. }) => self.satisfy(said).await?,
                events => {
                    self.say(json!(["CLOSE", id]).to_string()).await?;
                    return events;
                }
            }
        }
    }

    async fn until_eose(
        &mut self,
        id: &SubscriptionId,
        is_wanted: &mut impl FnMut(&Event) -> bool,
    ) -> Result<Vec<Event>, Error> {
        enum Heard {
            Event(Box<Event>),
            End,
            Refused(String),
        }
        let (mut events, mut strays) = (Vec::new(), 0);
        loop {
            let heard = self.until(PATIENCE, |message| match message {
                RelayMessage::Event {
                    subscription_id,
                    event,
                } if *subscription_id == *id => Some(Heard::Event(Box::new(event.into_owned()))),
                RelayMessage::EndOfStoredEvents(of) if *of == *id => Some(Heard::End),
                RelayMessage::Closed {
                    subscription_id,
                    message,
                } if *subscription_id == *id => Some(Heard::Refused(message.into_owned())),
                _ => None,
            });
            match heard.await? {
                Heard::Event(event) if is_wanted(&event) => events.push(*event),
                Heard::Event(_) => strays += 1,
                Heard::End => return Ok(events),
                Heard::Refused(said) => return Err(self.refused(said)),
            }
            if strays > MAX_STRAYS {
                return Err(Error::Stray(self.url.clone()));
            }
        }
    }

    /// Gives events to the other, as JSON, and answers what it said to each.
    ///
    /// # Errors
    /// When the connection broke off, or the other goes on refusing for being asked too often. What it took by then
    /// it keeps.
    pub async fn give(&mut self, events: Vec<(EventId, String)>) -> Result<Vec<Verdict>, Error> {
        let mut delivery = Delivery::of(events);
        loop {
            match delivery.next() {
                Next::Send(json) => self.say(format!(r#"["EVENT",{json}]"#)).await?,
                Next::Hear => {
                    let (id, taken, said) = self.until(PATIENCE, ok).await?;
                    delivery.answered(id, taken, &said);
                }
                Next::Identify(bits, said) => self.identify(bits, said).await?,
                Next::Pause(pause) => {
                    let seconds = pause.as_secs();
                    tracing::info!(relay = %self.url, seconds, "it wants fewer events: waiting");
                    sleep(pause).await;
                }
                Next::Done(verdicts) => return Ok(verdicts),
                Next::GiveUp(said) => return Err(self.refused(said)),
            }
        }
    }

    /// Does what a refusal asks for, if that is to say who we are, or to wait.
    async fn satisfy(&mut self, said: String) -> Result<(), Error> {
        match Demand::in_words(&said) {
            Demand::Standing(bits) => self.identify(bits, said).await,
            Demand::Patience(pause) if self.pauses < MAX_PAUSES => {
                self.pauses += 1;
                sleep(pause.unwrap_or(PAUSE).min(LONGEST_PAUSE)).await;
                Ok(())
            }
            _ => Err(self.refused(said)),
        }
    }

    /// Says who we are, with the work that was asked for. Who is not content with that a few times is given up.
    async fn identify(&mut self, bits: u32, said: String) -> Result<(), Error> {
        self.identified += 1;
        let bits = u8::try_from(bits).ok().filter(|bits| *bits <= MAX_WORK);
        let (Some(bits), Some(challenge), ..MAX_IDENTIFIED) =
            (bits, self.challenge.clone(), self.identified)
        else {
            return Err(self.refused(said));
        };
        let question = Question {
            challenge,
            relay: self.url.clone(),
            bits,
        };
        let (keys, stop) = (self.keys.clone(), CancellationToken::new());
        let _stopped_when_dropped = stop.clone().drop_guard();
        let answer = spawn_blocking(move || question.answer(&keys, clock::now(), &stop));
        let Ok(Some(auth)) = answer.await else {
            return Err(self.refused(said));
        };
        let id = auth.id;
        let auth = ClientMessage::Auth(Cow::Owned(auth));
        self.say(auth.as_json()).await?;
        let its = |message: RelayMessage<'_>| ok(message).filter(|(of, ..)| *of == id);
        match self.until(PATIENCE, its).await? {
            (_, true, _) => Ok(()),
            (_, false, said) => Err(self.refused(said)),
        }
    }

    /// What `pick` makes of the first message that it knows.
    async fn until<T>(
        &mut self,
        patience: Duration,
        mut pick: impl FnMut(RelayMessage<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let hear = async {
            for _ in 0..MAX_STRAYS {
                match self.hear().await? {
                    Some(RelayMessage::Auth { challenge }) => {
                        self.challenge = Some(challenge.into_owned());
                    }
                    Some(message) => {
                        if let Some(picked) = pick(message) {
                            return Ok(picked);
                        }
                    }
                    None => {}
                }
            }
            Err(Error::Stray(self.url.clone()))
        };
        match timeout(patience, hear).await {
            Ok(picked) => picked,
            Err(_) => Err(Error::Silent(self.url.clone())),
        }
    }

    /// The next message, if it is one of NIP-01's and its kin.
    async fn hear(&mut self) -> Result<Option<RelayMessage<'static>>, Error> {
        match self.socket.next().await {
            Some(Ok(Message::Text(text))) => Ok(read(&text)),
            Some(Ok(Message::Close(Some(close)))) => {
                Err(self.broke_off(format!("{} {}", u16::from(close.code), close.reason)))
            }
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(self.broke_off(error.to_string())),
            None => Err(self.broke_off("it was closed".to_owned())),
        }
    }

    async fn say(&mut self, text: String) -> Result<(), Error> {
        match timeout(PATIENCE, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broke_off(error.to_string())),
            Err(_) => Err(Error::Silent(self.url.clone())),
        }
    }

    fn next_id(&mut self) -> SubscriptionId {
        self.asked += 1;
        SubscriptionId::new(format!("sync{}", self.asked))
    }

    fn broke_off(&self, why: String) -> Error {
        let url = self.url.clone();
        Error::BrokeOff { url, why }
    }

    fn refused(&self, said: String) -> Error {
        let url = self.url.clone();
        Error::Refused { url, said }
    }
}

/// Reads a message, unless it is an event so long that it would not be taken: those of one answer are kept in memory
/// together.
fn read(text: &str) -> Option<RelayMessage<'static>> {
    let message = RelayMessage::from_json(text).ok()?;
    let is_long = text.len() > options::MAX_MESSAGE_BYTES;
    (!is_long || !matches!(message, RelayMessage::Event { .. })).then_some(message)
}

/// What an OK says: of which event, whether it was taken, and the words.
fn ok(message: RelayMessage<'_>) -> Option<(EventId, bool, String)> {
    match message {
        RelayMessage::Ok {
            event_id,
            status,
            message,
        } => Some((event_id, status, message.into_owned())),
        _ => None,
    }
}

/// Whether a relay means that fewer events at a time would do. Ours, strfry's and NIP-77's own words.
fn is_too_big(said: &str) -> bool {
    let said = said.to_lowercase();
    said.starts_with("blocked:")
        && ["too big", "too many query results", "too many records"]
            .iter()
            .any(|words| said.contains(words))
}

fn is_later(said: &str) -> bool {
    matches!(Demand::in_words(said), Demand::Patience(Some(_)))
}

fn is_unsupported(said: &str) -> bool {
    let said = said.to_lowercase();
    said.starts_with("unsupported:") || said.contains("negentropy disabled")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::EventBuilder;

    use super::*;

    #[test]
    fn an_event_that_is_far_too_long_is_not_kept_until_it_is_refused() {
        let says = |bytes: usize| {
            let note = EventBuilder::text_note("x".repeat(bytes));
            let note = note.sign_with_keys(&Keys::generate()).unwrap();
            json!(["EVENT", "s", note]).to_string()
        };
        let event = read(&says(60_000)).unwrap();
        assert!(matches!(event, RelayMessage::Event { .. }));
        assert!(read(&says(options::MAX_MESSAGE_BYTES)).is_none());
        let long = "61".repeat(options::MAX_MESSAGE_BYTES);
        assert!(read(&json!(["NEG-MSG", "s", long]).to_string()).is_some());
    }
}
