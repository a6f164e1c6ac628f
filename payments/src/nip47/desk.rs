//! One client's side of the wire: requests that wait for their answers, and the wallet's news.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link, Subscription};
use nostr::{Event, EventBuilder, EventId, Filter, Keys, Kind, PublicKey, Tag};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::client::Options;
use super::message::{self, Notification, Request, Response};
use super::{Encryption, envelope};
use super::{INFO, NOTIFICATION, NOTIFICATION_NIP04, REQUEST, RESPONSE};
use crate::rail::{Error, Notice};

/// How long a wallet may begin with a request: events count in seconds, and a request that is still on its way when
/// nobody waits for it must die soon. The cashier's patience with the unknown rests on the longer one.
const MIN_LIFE: Duration = Duration::from_secs(1);
const MAX_LIFE: Duration = Duration::from_secs(60);

pub(super) struct Desk {
    pub(super) keys: Keys,
    pub(super) wallet: PublicKey,
    pub(super) link: Link,
    pub(super) options: Options,
    pub(super) waiting: Mutex<HashMap<EventId, oneshot::Sender<Response>>>,
    /// How the wallet encrypts, once it has said so.
    pub(super) encryption: watch::Sender<Option<Encryption>>,
    pub(super) notices: broadcast::Sender<Notice>,
}

/// Why a request brought no answer.
pub(super) enum Trouble {
    /// It was never sent.
    NotSent(String),
    /// It may or may not have been done.
    Lost,
    /// A payment was tried and came back, or the wallet gave up waiting: NIP-47 has one word for both.
    Failed,
    /// The wallet said no.
    Refused(Error),
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NotSent(why) => Self::Unreachable(why),
            Trouble::Lost => Self::Unreachable("it does not answer".to_owned()),
            Trouble::Failed => Self::Refused("the payment failed".to_owned()),
            Trouble::Refused(error) => error,
        }
    }
}

impl Desk {
    /// One request and its answer.
    pub(super) async fn request(
        &self,
        method: &str,
        params: &Value,
        patience: Duration,
    ) -> Result<Value, Trouble> {
        let deadline = Instant::now() + patience;
        let away = |_| Trouble::NotSent("it has not been heard of on its relays".to_owned());
        let encryption = timeout_at(deadline, self.encryption())
            .await
            .map_err(away)?;
        let away = |_| Trouble::NotSent("none of its relays is connected".to_owned());
        let connected = timeout_at(deadline, self.link.connected()).await;
        connected
            .map_err(away)?
            .map_err(|error| Trouble::NotSent(error.to_string()))?;
        let event = self.seal(encryption, method, params, patience)?;
        let response = timeout_at(deadline, self.exchange(&event)).await;
        let response = response.map_err(|_| Trouble::Lost)??;
        result(method, response)
    }

    async fn encryption(&self) -> Encryption {
        let mut known = self.encryption.subscribe();
        loop {
            if let Some(encryption) = *known.borrow_and_update() {
                return encryption;
            }
            // The sender is ours: it stays as long as we do.
            let _ = known.changed().await;
        }
    }

    fn seal(
        &self,
        encryption: Encryption,
        method: &str,
        params: &Value,
        patience: Duration,
    ) -> Result<Event, Trouble> {
        let unsendable = || Trouble::NotSent("the request cannot be sealed".to_owned());
        let request = json!(Request {
            method: method.to_owned(),
            params: params.clone(),
        });
        let content = encryption.seal(&self.keys, &self.wallet, &request.to_string());
        let content = content.map_err(|_| unsendable())?;
        let expiration = clock::now() + patience.clamp(MIN_LIFE, MAX_LIFE);
        EventBuilder::new(Kind::Custom(REQUEST), content)
            .tags([
                Tag::public_key(self.wallet),
                Tag::expiration(expiration),
                Tag::custom(nostr::TagKind::custom("encryption"), [encryption.name()]),
            ])
            .sign_with_keys(&self.keys)
            .map_err(|_| unsendable())
    }

    /// Publishes a request and waits for its answer, which may come before the relay's.
    async fn exchange(&self, event: &Event) -> Result<Response, Trouble> {
        let mut awaited = Awaited::new(self, event.id);
        let published = tokio::select! {
            response = &mut awaited.response => return response.map_err(|_| Trouble::Lost),
            published = self.link.publish(event) => published,
        };
        match published {
            Ok(_) => {}
            Err(error @ (link::Error::TooLarge { .. } | link::Error::Stopped)) => {
                return Err(Trouble::NotSent(error.to_string()));
            }
            // A relay that broke off, or said no, may have passed it on all the same.
            Err(error) => tracing::debug!(%error, "a request to the wallet may be lost"),
        }
        let response = (&mut awaited.response).await;
        response.map_err(|_| Trouble::Lost)
    }

    fn hear(&self, event: &Event) {
        match event.kind.as_u16() {
            INFO => {
                let offered = Encryption::offered(event);
                self.encryption
                    .send_modify(|known| *known = Some(offered.or_better(*known)));
            }
            RESPONSE => self.answered(event),
            NOTIFICATION | NOTIFICATION_NIP04 => self.notified(event),
            _ => {}
        }
    }

    fn answered(&self, event: &Event) {
        let mut asked = event.tags.event_ids();
        let Some(waiting) = asked.find_map(|id| self.waiting().remove(id)) else {
            return;
        };
        match self.open::<Response>(event) {
            // Nobody waits any longer if it comes too late.
            Some(response) => drop(waiting.send(response)),
            None => tracing::warn!("the wallet's answer cannot be read"),
        }
    }

    fn notified(&self, event: &Event) {
        let news = self.open::<Notification>(event);
        if let Some(payment) = news.and_then(Notification::into_payment) {
            // Nobody may be listening.
            let _ = self.notices.send(Notice::Changed(payment));
        }
    }

    fn open<T: DeserializeOwned>(&self, event: &Event) -> Option<T> {
        let text = envelope::open(&self.keys, &self.wallet, &event.content).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<EventId, oneshot::Sender<Response>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is waited for; forgotten when dropped.
struct Awaited<'a> {
    desk: &'a Desk,
    id: EventId,
    response: oneshot::Receiver<Response>,
}

impl<'a> Awaited<'a> {
    fn new(desk: &'a Desk, id: EventId) -> Self {
        let (sender, response) = oneshot::channel();
        desk.waiting().insert(id, sender);
        Self { desk, id, response }
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.desk.waiting().remove(&self.id);
    }
}

pub(super) fn filters(wallet: &PublicKey, ours: &PublicKey) -> Vec<Filter> {
    let info = Filter::new().author(*wallet).kind(Kind::Custom(INFO));
    let to_us = [RESPONSE, NOTIFICATION, NOTIFICATION_NIP04].map(Kind::Custom);
    let to_us = Filter::new().author(*wallet).pubkey(*ours).kinds(to_us);
    vec![info, to_us]
}

pub(super) async fn listen(desk: Arc<Desk>, mut subscription: Subscription) {
    while let Some(delivery) = subscription.next().await {
        match delivery {
            Delivery::Event(event) => desk.hear(&event),
            // Nobody may be listening.
            Delivery::Gap => drop(desk.notices.send(Notice::Gap)),
            Delivery::EndOfStored => {}
        }
    }
}

fn result(method: &str, response: Response) -> Result<Value, Trouble> {
    match (response.error, response.result) {
        (Some(fault), _) if fault.code == message::PAYMENT_FAILED => Err(Trouble::Failed),
        (Some(fault), _) => Err(Trouble::Refused(fault.into_error())),
        (None, Some(result)) if response.result_type == method => Ok(result),
        (None, Some(_)) => Err(nonsense("it answers another question")),
        (None, None) => Err(nonsense("it says nothing")),
    }
}

fn nonsense(what: &str) -> Trouble {
    Trouble::Refused(Error::Nonsense(what.to_owned()))
}
