//! The client: a wallet somewhere, as a payment rail.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link, Subscription};
use infernet_protocol::money::Msat;
use nostr::{Event, EventBuilder, EventId, Filter, Keys, Kind, PublicKey, Tag, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::message::{self, Notification, Request, Response, Transaction};
use super::{Connection, Encryption, envelope};
use super::{INFO, NOTIFICATION, NOTIFICATION_NIP04, REQUEST, RESPONSE};
use crate::rail::{
    Ask, Direction, Error, Hold, MAX_UNREAD_NOTICES, Notice, Notices, Order, Payment, PaymentRail,
    State,
};
use crate::{Invoice, PaymentHash, Preimage};

/// Payments asked for at once: twenty with long invoices still fit in an event.
const PAGE: usize = 20;

/// Pages that one listing reads: ten thousand payments.
const MAX_PAGES: usize = 500;

/// How often a question that has no effect is asked before the wallet counts as away.
const TRIES: u32 = 2;

/// How patient to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long the wallet may take to answer a question.
    pub answer_timeout: Duration,
    /// How long a payment may take before it counts as pending.
    pub pay_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            answer_timeout: Duration::from_secs(10),
            pay_timeout: Duration::from_secs(60),
        }
    }
}

/// A wallet that speaks NIP-47. Clones share the connection; with the last one it ends.
#[derive(Clone)]
pub struct Rail {
    desk: Arc<Desk>,
    _stops_when_dropped: Arc<DropGuard>,
}

struct Desk {
    keys: Keys,
    wallet: PublicKey,
    link: Link,
    options: Options,
    waiting: Mutex<HashMap<EventId, oneshot::Sender<Response>>>,
    /// How the wallet encrypts, once it has said so.
    encryption: watch::Sender<Option<Encryption>>,
    notices: broadcast::Sender<Notice>,
}

/// Why a request brought no answer.
enum Trouble {
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

impl fmt::Debug for Rail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rail(NIP-47, {})", self.desk.wallet)
    }
}

impl Rail {
    /// Connects in the background, and answers at once: calls wait for the wallet.
    ///
    /// # Errors
    /// The connection names no relay or too many.
    pub fn open(connection: &Connection, options: Options) -> Result<Self, Error> {
        let unusable = |error: link::Error| Error::Unreachable(error.to_string());
        let keys = Keys::new(connection.secret.clone());
        let relays = connection.relays.iter().cloned();
        let link_options = link::Options {
            retry_most: Duration::from_secs(5),
            ..link::Options::new(relays, keys.clone())
        };
        let link = Link::open(link_options).map_err(unusable)?;
        let filters = filters(&connection.wallet, &keys.public_key());
        let subscription = link.subscribe(filters).map_err(unusable)?;
        let desk = Arc::new(Desk {
            keys,
            wallet: connection.wallet,
            link,
            options,
            waiting: Mutex::default(),
            encryption: watch::Sender::new(None),
            notices: broadcast::channel(MAX_UNREAD_NOTICES).0,
        });
        let stop = CancellationToken::new();
        let listening = listen(desk.clone(), subscription);
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! { () = listening => {}, () = stopped => {} }
        });
        Ok(Self {
            desk,
            _stops_when_dropped: Arc::new(stop.drop_guard()),
        })
    }

    /// Asks until there is an answer; only for what has no effect when done twice.
    async fn ask<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, Error> {
        let mut last = Trouble::Lost;
        for _ in 0..TRIES {
            match self.request(method, &params).await {
                Ok(result) => return read(result),
                Err(trouble @ (Trouble::NotSent(_) | Trouble::Lost)) => last = trouble,
                Err(trouble) => return Err(trouble.into()),
            }
        }
        Err(last.into())
    }

    async fn request(&self, method: &str, params: &Value) -> Result<Value, Trouble> {
        let patience = self.desk.options.answer_timeout;
        self.desk.request(method, params, patience).await
    }

    /// A payment whose fate the answer did not tell: what the wallet knows of it, else pending.
    async fn fate(&self, order: &Order) -> Payment {
        let hash = order.invoice.hash();
        match self.look_up(Direction::Outgoing, &hash).await {
            Ok(Some(payment)) => payment,
            Ok(None) | Err(_) => outgoing(order, State::Pending),
        }
    }

    /// The wallet has given a payment up, or refuses it. It says the same when the money is under way already, so
    /// what it knows of the payment counts, and `otherwise` only where it knows of none that could still pay.
    async fn unless_under_way(
        &self,
        order: &Order,
        otherwise: Result<State, Error>,
    ) -> Result<Payment, Error> {
        let hash = order.invoice.hash();
        match self.look_up(Direction::Outgoing, &hash).await {
            Ok(Some(payment)) if payment.state != State::Failed => Ok(payment),
            Ok(_) => otherwise.map(|state| outgoing(order, state)),
            Err(_) => Ok(outgoing(order, State::Pending)),
        }
    }
}

impl Desk {
    /// One request and its answer.
    async fn request(
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
        let expiration = clock::now() + patience.max(Duration::from_secs(1));
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
                self.encryption
                    .send_replace(Some(Encryption::offered(event)));
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

fn filters(wallet: &PublicKey, ours: &PublicKey) -> Vec<Filter> {
    let info = Filter::new().author(*wallet).kind(Kind::Custom(INFO));
    let to_us = [RESPONSE, NOTIFICATION, NOTIFICATION_NIP04].map(Kind::Custom);
    let to_us = Filter::new().author(*wallet).pubkey(*ours).kinds(to_us);
    vec![info, to_us]
}

async fn listen(desk: Arc<Desk>, mut subscription: Subscription) {
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

fn read<T: DeserializeOwned>(result: Value) -> Result<T, Error> {
    serde_json::from_value(result).map_err(|error| Error::Nonsense(error.to_string()))
}

fn outgoing(order: &Order, state: State) -> Payment {
    Payment {
        direction: Direction::Outgoing,
        hash: order.invoice.hash(),
        amount: order.invoice.amount(),
        state,
        created_at: clock::now(),
    }
}

fn ask_params(ask: &Ask) -> Value {
    json!({
        "amount": ask.amount.0,
        "description": ask.description,
        "expiry": ask.expiry.as_secs(),
    })
}

/// The invoice in an answer, if it is the one that was asked for.
fn invoice(transaction: Transaction, ask: &Ask) -> Result<Invoice, Error> {
    let text = transaction.invoice.unwrap_or_default();
    let invoice: Invoice = text
        .parse()
        .map_err(|error: crate::InvalidInvoice| Error::Nonsense(error.to_string()))?;
    match invoice.amount() == ask.amount {
        true => Ok(invoice),
        false => Err(Error::Nonsense("an invoice for another amount".to_owned())),
    }
}

#[derive(serde::Deserialize)]
struct Paid {
    preimage: String,
    #[serde(default)]
    fees_paid: Option<u64>,
}

impl Paid {
    /// That the order is paid, if the preimage proves it.
    fn proven(&self, order: &Order) -> Option<Payment> {
        let preimage: Preimage = self.preimage.parse().ok()?;
        let fee = Msat(self.fees_paid.unwrap_or_default());
        let settled = State::Settled {
            at: clock::now(),
            fee,
            preimage: Some(preimage),
        };
        let is_proven = preimage.hash() == order.invoice.hash() && fee <= Msat::MAX;
        is_proven.then(|| outgoing(order, settled))
    }
}

#[async_trait]
impl PaymentRail for Rail {
    async fn make_invoice(&self, ask: &Ask) -> Result<Invoice, Error> {
        // Done twice it makes an invoice that nobody sees.
        let made = self.ask(message::MAKE_INVOICE, ask_params(ask)).await?;
        invoice(made, ask)
    }

    async fn make_hold_invoice(&self, ask: &Ask, hold: &Hold) -> Result<Invoice, Error> {
        let mut params = ask_params(ask);
        params["payment_hash"] = json!(hold.hash);
        params["min_cltv_expiry_delta"] = json!(hold.min_cltv_expiry_delta);
        let made = self.request(message::MAKE_HOLD_INVOICE, &params).await?;
        let invoice = invoice(read(made)?, ask)?;
        let delta = u64::from(hold.min_cltv_expiry_delta);
        match invoice.hash() == hold.hash && invoice.min_cltv_expiry_delta() >= delta {
            true => Ok(invoice),
            false => Err(Error::Nonsense("it cannot be held for so long".to_owned())),
        }
    }

    async fn pay(&self, order: &Order) -> Result<Payment, Error> {
        let params = json!({
            "id": hex::encode(order.key.as_bytes()),
            "invoice": order.invoice.as_str(),
            // Not in the NIP: for wallets that know it.
            "max_fee": order.max_fee.0,
        });
        let patience = self.desk.options.pay_timeout;
        let answer = self.desk.request(message::PAY_INVOICE, &params, patience);
        match answer.await {
            Ok(paid) => {
                let paid = read::<Paid>(paid).ok();
                match paid.and_then(|paid| paid.proven(order)) {
                    Some(payment) => Ok(payment),
                    None => Ok(self.fate(order).await),
                }
            }
            Err(Trouble::NotSent(why)) => Err(Error::Unreachable(why)),
            Err(Trouble::Lost) => Ok(self.fate(order).await),
            // After a fault of its own the wallet may go on paying.
            Err(Trouble::Refused(Error::Nonsense(_) | Error::Unreachable(_))) => {
                Ok(self.fate(order).await)
            }
            Err(Trouble::Failed) => self.unless_under_way(order, Ok(State::Failed)).await,
            Err(Trouble::Refused(error)) => self.unless_under_way(order, Err(error)).await,
        }
    }

    async fn look_up(
        &self,
        direction: Direction,
        hash: &PaymentHash,
    ) -> Result<Option<Payment>, Error> {
        let params = json!({ "payment_hash": hash });
        let found = self.ask::<Transaction>(message::LOOKUP_INVOICE, params);
        let payment = match found.await {
            Ok(transaction) => transaction.into_payment(direction)?,
            Err(Error::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        match payment.hash == *hash {
            true => Ok(Some(payment).filter(|payment| payment.direction == direction)),
            false => Err(Error::Nonsense("another payment".to_owned())),
        }
    }

    async fn list(&self, since: Timestamp) -> Result<Vec<Payment>, Error> {
        #[derive(serde::Deserialize)]
        struct Page {
            transactions: Vec<Transaction>,
        }
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        for page in 0..MAX_PAGES {
            let params = json!({
                "from": since.as_secs(),
                "limit": PAGE,
                "offset": page * PAGE,
                "unpaid": true,
            });
            let answer: Page = self.ask(message::LIST_TRANSACTIONS, params).await?;
            let is_last = answer.transactions.len() < PAGE;
            for transaction in answer.transactions {
                let payment = transaction.into_payment(Direction::Incoming)?;
                // Something new pushes the pages on by one.
                let is_new = seen.insert((payment.direction, payment.hash, payment.created_at));
                if is_new && payment.created_at >= since {
                    all.push(payment);
                }
            }
            if is_last {
                break;
            }
        }
        all.sort_by_key(|payment| payment.created_at);
        Ok(all)
    }

    async fn balance(&self) -> Result<Msat, Error> {
        #[derive(serde::Deserialize)]
        struct Balance {
            balance: u64,
        }
        let answer: Balance = self.ask(message::GET_BALANCE, json!({})).await?;
        match answer.balance <= Msat::MAX.0 {
            true => Ok(Msat(answer.balance)),
            false => Err(Error::Nonsense("more than all the money".to_owned())),
        }
    }

    async fn settle(&self, preimage: &Preimage) -> Result<(), Error> {
        let params = json!({ "preimage": preimage.to_hex() });
        let done = self.ask::<Value>(message::SETTLE_HOLD_INVOICE, params);
        done.await.map(drop)
    }

    async fn cancel(&self, hash: &PaymentHash) -> Result<(), Error> {
        let params = json!({ "payment_hash": hash });
        let done = self.ask::<Value>(message::CANCEL_HOLD_INVOICE, params);
        done.await.map(drop)
    }

    fn subscribe(&self) -> Notices {
        Notices::new(self.desk.notices.subscribe())
    }
}
