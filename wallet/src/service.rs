//! The NIP-47 service: hears requests on its relays, checks who asks for what, and answers.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use infernet_node::link::{Delivery, Link, Subscription};
use nostr::{Event, EventBuilder, Filter, PublicKey, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::nip47::{
    Cipher, Code, ENCRYPTIONS, Envelope, INFO, Method, NOTIFICATIONS, REQUEST, Refusal, Request,
    envelope,
};
use crate::record::{Connection, Seen};
use crate::relay::Services;
use crate::seats::{MAX_EACH, Seats};
use crate::wallet::{News, Wallet, now};
use crate::{history, holding, pay, receive};

/// How old a request may be, or how far ahead its client's clock; its event is remembered for longer.
const MAX_AGE_S: u64 = 3_600;
const REMEMBERED_S: u64 = 3 * MAX_AGE_S;

/// How often it is looked what can be forgotten.
const TIDYING: Duration = Duration::from_secs(600);

/// How long the relays are tried for what must be stored there.
const PUBLISHING: Duration = Duration::from_secs(60);

/// How long a relay may take to begin with a subscription.
const SUBSCRIBING: Duration = Duration::from_secs(2);

/// Serves the wallet's connections.
pub struct Service {
    wallet: Arc<Wallet>,
    link: Link,
    services: Services,
    seats: Seats,
    at_work: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// A service over these relays; `services` is what the wallet's own relay lets through.
    pub fn new(wallet: Arc<Wallet>, link: Link, services: Services) -> Arc<Self> {
        Arc::new(Self {
            wallet,
            link,
            services,
            seats: Seats::default(),
            at_work: Mutex::default(),
        })
    }

    /// Listens for requests to all connections, revoked ones too (they are told), and says what each can do.
    ///
    /// # Errors
    /// When the records cannot be read, or the relays take no more subscriptions.
    pub async fn start(self: &Arc<Self>) -> Result<(), Refusal> {
        self.tidy()?;
        let all = self.wallet.records.connections()?;
        if all.is_empty() {
            return Ok(());
        }
        self.listen(&all).await
    }

    /// Listens for requests to a new connection; answers once a request would be heard.
    ///
    /// # Errors
    /// When the relays take no more subscriptions.
    pub async fn add(self: &Arc<Self>, connection: &Connection) -> Result<(), Refusal> {
        self.listen(std::slice::from_ref(connection)).await
    }

    fn tidy(&self) -> Result<(), Refusal> {
        let then = now().saturating_sub(REMEMBERED_S);
        Ok(self.wallet.records.forget_requests_before(then)?)
    }

    /// Forgets requests that are too old to come again, until the wallet stops.
    pub async fn forget(self: Arc<Self>) {
        while self.wallet.pause(TIDYING).await {
            if let Err(error) = self.tidy() {
                tracing::error!(%error, "old requests cannot be forgotten");
            }
        }
    }

    async fn listen(self: &Arc<Self>, connections: &[Connection]) -> Result<(), Refusal> {
        let keys: Vec<PublicKey> = connections
            .iter()
            .map(|one| one.service.public_key())
            .collect();
        self.services.add(connections);
        for one in connections.iter().filter(|one| one.revoked_at.is_none()) {
            self.announce(one);
        }
        let since = Timestamp::from_secs(now().saturating_sub(MAX_AGE_S));
        // On a public relay anybody can write to us: what is not from a client never reaches us.
        let clients = connections.iter().map(|one| one.client);
        let filter = Filter::new()
            .kind(REQUEST)
            .authors(clients)
            .pubkeys(keys)
            .since(since);
        let requests = self.link.subscribe(vec![filter]);
        let requests = requests.map_err(|error| {
            Refusal::new(Code::Internal, format!("{error}: restart the wallet"))
        })?;
        let (listens, heard) = oneshot::channel();
        tokio::spawn(self.clone().hear(requests, listens));
        // A public relay that is away is not waited for.
        let _ = tokio::time::timeout(SUBSCRIBING, heard).await;
        Ok(())
    }

    /// Takes requests until the wallet stops.
    async fn hear(self: Arc<Self>, mut requests: Subscription, listens: oneshot::Sender<()>) {
        let mut listens = Some(listens);
        loop {
            let delivery = tokio::select! {
                delivery = requests.next() => delivery,
                () = self.wallet.stop.cancelled() => return,
            };
            match delivery {
                Some(Delivery::Event(event)) => self.clone().take(*event),
                Some(Delivery::EndOfStored) => {
                    let _ = listens.take().map(|listens| listens.send(()));
                }
                Some(Delivery::Gap) => {}
                None => return,
            }
        }
    }

    /// Tells clients what they are to be told, until the wallet stops.
    pub async fn tell(self: Arc<Self>, mut news: mpsc::Receiver<News>) {
        loop {
            let told = tokio::select! {
                Some(news) = news.recv() => self.notify(&news),
                () = self.wallet.stop.cancelled() => return,
            };
            if let Err(error) = told {
                tracing::error!(%error, "a notification is lost");
            }
        }
    }

    /// Publishes what a connection can do, so that clients find it on every relay.
    fn announce(&self, connection: &Connection) {
        let Some(event) = info(connection) else {
            return;
        };
        let link = self.link.clone();
        tokio::spawn(async move {
            let deadline = tokio::time::Instant::now() + PUBLISHING;
            if let Err(error) = link.publish_until(&event, deadline).await {
                tracing::warn!(%error, "no relay takes what a connection can do");
            }
        });
    }

    fn notify(&self, news: &News) -> Result<(), Refusal> {
        let connection = self.wallet.records.connection(news.connection)?;
        let Some(connection) =
            connection.filter(|one| one.revoked_at.is_none() && history::hears(one, news.kind))
        else {
            return Ok(());
        };
        let text =
            json!({ "notification_type": news.kind, "notification": news.transaction }).to_string();
        let cipher = if connection.legacy {
            Cipher::Nip04
        } else {
            Cipher::Nip44
        };
        let to = connection.client;
        self.send(
            Envelope {
                from: &connection.service,
                to,
                cipher,
            }
            .notification(&text),
        );
        Ok(())
    }

    fn send(&self, event: Option<Event>) {
        match event.map(|event| self.link.send(&event)) {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "a message to a client is lost"),
            None => tracing::warn!("a message to a client cannot be encrypted"),
        }
    }

    /// Works on one request, beside others.
    fn take(self: Arc<Self>, event: Event) {
        let Some((connection, cipher, text)) = self.open(&event) else {
            return;
        };
        let Some(seat) = self.seats.take(connection.id) else {
            let message = format!(
                "{MAX_EACH} requests of this connection, or too many of all, are at work: wait for some of them"
            );
            let busy = Refusal::new(Code::RateLimited, message);
            self.reply(&event, &connection, cipher, &response(&text, Err(busy)));
            return;
        };
        tokio::spawn(async move {
            let _seat = seat;
            let id = event.id.to_hex();
            if self.lock().insert(id.clone()) {
                if let Some(answer) = self.answer(&id, &connection, cipher, &text).await {
                    self.reply(&event, &connection, cipher, &answer.text);
                    self.remember(&id, answer);
                }
                self.lock().remove(&id);
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, request: &Event, connection: &Connection, cipher: Cipher, answer: &str) {
        let from = &connection.service;
        self.send(
            Envelope {
                from,
                to: request.pubkey,
                cipher,
            }
            .response(answer, request.id),
        );
    }

    /// Who asks, how it is to be answered, and what it says; nothing if it is not for us to answer.
    fn open(&self, event: &Event) -> Option<(Connection, Cipher, String)> {
        let service = PublicKey::from_hex(envelope::value(event, "p")?).ok()?;
        let connection = self.wallet.records.connection_of(&service).ok().flatten()?;
        if event.pubkey != connection.client || !is_timely(event, now()) {
            return None;
        }
        let cipher = match Cipher::of(event) {
            Ok(cipher) => cipher,
            Err(refusal) => {
                self.reply(
                    event,
                    &connection,
                    Cipher::Nip44,
                    &response("", Err(refusal)),
                );
                return None;
            }
        };
        let text = cipher.open(&connection.service, &event.pubkey, &event.content)?;
        Some((connection, cipher, text))
    }

    /// The answer to a request; nothing while there is none. The same event is acted on once.
    async fn answer(
        &self,
        id: &str,
        connection: &Connection,
        cipher: Cipher,
        text: &str,
    ) -> Option<Answer> {
        // It may have been revoked while the request waited.
        let connection = self
            .wallet
            .records
            .connection(connection.id)
            .ok()
            .flatten()?;
        if connection.revoked_at.is_some() {
            let gone = Refusal::new(Code::Unauthorized, "this connection has been revoked");
            return Some(Answer::passing(response(text, Err(gone))));
        }
        let is_legacy = cipher == Cipher::Nip04;
        if is_legacy != connection.legacy
            && let Err(error) = self.wallet.records.set_legacy(connection.id, is_legacy)
        {
            tracing::error!(%error, "how a client encrypts cannot be recorded");
        }
        let method = Request::read(text).and_then(|request| request.method());
        if !method.is_ok_and(Method::has_effect) {
            let done = self.act(&connection, text).await.transpose()?;
            return Some(Answer::passing(response(text, done)));
        }
        match self.wallet.records.see_request(id, connection.id, now()) {
            Ok(Seen::Answered(answer)) => return Some(Answer::passing(answer)),
            Ok(Seen::Never | Seen::Unanswered) => {}
            Err(error) => return Some(Answer::passing(response(text, Err(error.into())))),
        }
        let done = self.act(&connection, text).await.transpose()?;
        let passing = matches!(
            &done,
            Err(Refusal {
                code: Code::RateLimited | Code::Internal,
                ..
            })
        );
        Some(Answer {
            text: response(text, done),
            is_final: !passing,
        })
    }

    /// Remembers an answer once it is given. Dying in between, the wallet acts again, and what acts twice on money
    /// (paying, settling, cancelling) does so once by the invoice.
    fn remember(&self, id: &str, answer: Answer) {
        if answer.is_final
            && let Err(error) = self.wallet.records.answer_request(id, &answer.text)
        {
            tracing::error!(%error, "an answer cannot be recorded");
        }
    }

    async fn act(&self, by: &Connection, text: &str) -> Result<Option<Value>, Refusal> {
        let request = Request::read(text)?;
        let method = request.method()?;
        if !by.methods.contains(&method) {
            let message = format!("this connection may not {method}");
            return Err(Refusal::new(Code::Restricted, message));
        }
        let wallet = &self.wallet;
        match method {
            Method::GetInfo => Ok(Some(history::info(wallet, by))),
            Method::GetBalance => Ok(Some(history::balance(wallet))),
            Method::MakeInvoice => receive::make(wallet, by, &request.params()?)
                .await
                .map(Some),
            Method::PayInvoice => pay::pay(wallet, by, &request.params()?).await,
            Method::LookupInvoice => history::lookup(wallet, by, &request.params()?).map(Some),
            Method::ListTransactions => history::list(wallet, by, &request.params()?).map(Some),
            Method::MakeHoldInvoice => holding::make(wallet, by, &request.params()?)
                .await
                .map(Some),
            Method::SettleHoldInvoice => holding::settle(wallet, by, &request.params()?)
                .await
                .map(Some),
            Method::CancelHoldInvoice => holding::cancel(wallet, by, &request.params()?)
                .await
                .map(Some),
        }
    }
}

/// What a request is answered.
struct Answer {
    text: String,
    /// Whether the same event is always answered so.
    is_final: bool,
}

impl Answer {
    fn passing(text: String) -> Self {
        Self {
            text,
            is_final: false,
        }
    }
}

/// Whether a request still means something: neither expired nor of another time.
fn is_timely(event: &Event, now: u64) -> bool {
    let expires = envelope::value(event, "expiration").map(str::parse::<u64>);
    let age = now.abs_diff(event.created_at.as_secs());
    expires.is_none_or(|at| at.is_ok_and(|at| now <= at)) && age <= MAX_AGE_S
}

/// `{"result_type": …, "error": …, "result": …}`.
fn response(request: &str, done: Result<Value, Refusal>) -> String {
    let method = Request::read(request)
        .map(|request| request.method)
        .unwrap_or_default();
    let answer = match done {
        Ok(result) => json!({ "result_type": method, "error": null, "result": result }),
        Err(refusal) => json!({ "result_type": method, "error": refusal, "result": null }),
    };
    answer.to_string()
}

/// What a connection can do, as an event.
fn info(connection: &Connection) -> Option<Event> {
    let heard: Vec<&str> = NOTIFICATIONS
        .into_iter()
        .filter(|kind| history::hears(connection, kind))
        .collect();
    let mut words: Vec<&str> = connection
        .methods
        .iter()
        .map(|method| method.name())
        .collect();
    if !heard.is_empty() {
        words.push("notifications");
    }
    EventBuilder::new(INFO, words.join(" "))
        .tag(envelope::tag(["encryption", ENCRYPTIONS])?)
        .tag(envelope::tag(["notifications", &heard.join(" ")])?)
        .sign_with_keys(&connection.service)
        .ok()
}
