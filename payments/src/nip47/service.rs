//! The wallet's side: lends a rail's wallet to clients. For tests, and for demonstrations on play money; the real
//! one is `infernet-wallet`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_node::link::{self, Delivery, Link, Subscription};
use nostr::{Event, EventBuilder, EventId, Filter, Keys, Kind, RelayUrl, Tag, TagKind, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::message::{self, Notification, Request, Response, Transaction};
use super::params::{Bid, Bill, Named, Proof, Wanted, read, unreadable};
use super::{Connection, Encryption, envelope};
use super::{INFO, NOTIFICATION, NOTIFICATION_NIP04, REQUEST, RESPONSE};
use crate::rail::{Direction, Error, Notice, Notices, Payment, PaymentRail, State};
use crate::{PaymentHash, Preimage};

/// How long a payment is waited for before the client is left to look it up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most payments that one listing answers.
const MAX_PAGE: usize = 20;

const METHODS: [&str; 9] = [
    message::PAY_INVOICE,
    message::MAKE_INVOICE,
    message::MAKE_HOLD_INVOICE,
    message::SETTLE_HOLD_INVOICE,
    message::CANCEL_HOLD_INVOICE,
    message::LOOKUP_INVOICE,
    message::LIST_TRANSACTIONS,
    message::GET_BALANCE,
    message::GET_INFO,
];

/// What a service can be told to do wrong, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next request is done, and not answered.
    Silent,
    /// The next answer comes twice.
    Twice,
    /// The next answer cannot be read.
    Garbage,
    /// The next answer is to another question.
    Mistaken,
    /// The next payment is not made, and said to be done.
    Lie,
}

/// Whom to serve, and where.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// Where to listen.
    pub relays: Vec<RelayUrl>,
    /// How to encrypt; NIP-04 alone is how old wallets are.
    pub encryption: Encryption,
}

/// A running service. It ends when dropped.
pub struct Service {
    shop: Arc<Shop>,
    relays: Vec<RelayUrl>,
    _stops_when_dropped: DropGuard,
}

struct Shop {
    keys: Keys,
    link: Link,
    rail: Arc<dyn PaymentRail>,
    encryption: Encryption,
    /// Who may ask, and the secret in its connection.
    client: Keys,
    faults: Mutex<VecDeque<Fault>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({:?})", self.shop.rail)
    }
}

impl Service {
    /// Serves `rail` to one client, whose connection is [`connection`](Self::connection).
    ///
    /// # Errors
    /// No relay, or none that can be reached.
    pub async fn start(
        rail: Arc<dyn PaymentRail>,
        options: ServiceOptions,
    ) -> Result<Self, link::Error> {
        let keys = Keys::generate();
        let relays = options.relays.clone();
        let link = Link::connect(link::Options::new(options.relays, keys.clone())).await?;
        let asked = Filter::new()
            .kind(Kind::Custom(REQUEST))
            .pubkey(keys.public_key());
        let requests = link.subscribe(vec![asked])?;
        let shop = Arc::new(Shop {
            keys,
            link,
            rail,
            encryption: options.encryption,
            client: Keys::generate(),
            faults: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let notices = shop.rail.subscribe();
        let (serving, telling) = (shop.clone(), shop.clone());
        let (announcing, stopped) = (shop.clone(), stop.clone().cancelled_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(serving, requests) => {}
                () = tell(telling, notices) => {}
                () = announcing.announce() => {}
                () = stopped => {}
            }
        });
        Ok(Self {
            shop,
            relays,
            _stops_when_dropped: stop.drop_guard(),
        })
    }

    /// What the client needs to use this wallet.
    pub fn connection(&self) -> Connection {
        Connection {
            wallet: self.shop.keys.public_key(),
            relays: self.relays.clone(),
            secret: self.shop.client.secret_key().clone(),
        }
    }

    /// Plans a misbehaviour.
    pub fn misbehave(&self, fault: Fault) {
        self.shop.faults().push_back(fault);
    }
}

/// Answers requests, each in a task of its own: a payment may take long.
async fn serve(shop: Arc<Shop>, mut requests: Subscription) {
    while let Some(delivery) = requests.next().await {
        if let Delivery::Event(event) = delivery
            && event.pubkey == shop.client.public_key()
        {
            tokio::spawn(shop.clone().handle(event));
        }
    }
}

/// Passes the rail's notices on.
async fn tell(shop: Arc<Shop>, mut notices: Notices) {
    let kind = match shop.encryption {
        Encryption::Nip44 => NOTIFICATION,
        Encryption::Nip04 => NOTIFICATION_NIP04,
    };
    while let Some(notice) = notices.next().await {
        if let Notice::Changed(payment) = notice
            && let Some(news) = Notification::of(&payment)
        {
            shop.say(kind, &json!(news).to_string(), None).await;
        }
    }
}

impl Shop {
    fn faults(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what it can do, again whenever a relay comes (back).
    async fn announce(&self) {
        let mut changes = self.link.changes();
        loop {
            let connected = changes.borrow_and_update().iter().any(|one| one.connected);
            if connected && let Some(info) = self.info() {
                // A relay that is away is told when it is back.
                let _ = self.link.publish(&info).await;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn info(&self) -> Option<Event> {
        let news = [
            message::PAYMENT_RECEIVED,
            message::PAYMENT_SENT,
            message::HOLD_INVOICE_ACCEPTED,
        ];
        let tag = |name, value: String| Tag::custom(TagKind::custom(name), [value]);
        let info = EventBuilder::new(Kind::Custom(INFO), METHODS.join(" "));
        info.tags([
            tag("encryption", self.encryption.name().to_owned()),
            tag("notifications", news.join(" ")),
        ])
        .sign_with_keys(&self.keys)
        .ok()
    }

    async fn handle(self: Arc<Self>, event: Box<Event>) {
        let Ok(text) = envelope::open(&self.keys, &event.pubkey, &event.content) else {
            return;
        };
        let Ok(Request { method, params }) = serde_json::from_str(&text) else {
            return;
        };
        let fault = self.faults().pop_front();
        let outcome = match fault {
            Some(Fault::Lie) => Some(Ok(json!({ "preimage": "00".repeat(32) }))),
            _ => self.act(&method, params).await,
        };
        let Some(outcome) = outcome else {
            return;
        };
        let answer = json!(Response::new(&method, outcome)).to_string();
        let answer = match fault {
            Some(Fault::Silent) => return,
            Some(Fault::Garbage) => "{".to_owned(),
            Some(Fault::Mistaken) => json!(Response::new("get_riddle", Ok(json!({})))).to_string(),
            Some(Fault::Twice | Fault::Lie) | None => answer,
        };
        self.say(RESPONSE, &answer, Some(event.id)).await;
        if fault == Some(Fault::Twice) {
            self.say(RESPONSE, &answer, Some(event.id)).await;
        }
    }

    async fn say(&self, kind: u16, text: &str, about: Option<EventId>) {
        let client = self.client.public_key();
        let Ok(content) = self.encryption.seal(&self.keys, &client, text) else {
            return;
        };
        let builder = EventBuilder::new(Kind::Custom(kind), content)
            .tag(Tag::public_key(client))
            .tags(about.map(Tag::event));
        if let Ok(event) = builder.sign_with_keys(&self.keys) {
            // A client that misses an answer asks again.
            let _ = self.link.publish(&event).await;
        }
    }

    /// Does what is asked; no outcome if it is not known in time.
    async fn act(&self, method: &str, params: Value) -> Option<Result<Value, message::Fault>> {
        if method == message::PAY_INVOICE {
            return self.pay(params).await;
        }
        Some(self.answer(method, params).await)
    }

    async fn answer(&self, method: &str, params: Value) -> Result<Value, message::Fault> {
        let rail = &self.rail;
        let refused = |error: Error| message::Fault::of(&error);
        match method {
            message::GET_INFO => {
                let node = rail.node().await.map_err(refused)?;
                let pubkey = node.map(|node| node.to_string());
                Ok(json!({ "methods": METHODS, "network": "regtest", "pubkey": pubkey }))
            }
            message::GET_BALANCE => {
                let balance = rail.balance().await.map_err(refused)?;
                Ok(json!({ "balance": balance.0 }))
            }
            message::MAKE_INVOICE => {
                let bill: Bill = read(params)?;
                let made = rail.make_invoice(&bill.ask()).await;
                Ok(json!(Transaction::of_invoice(&made.map_err(refused)?)))
            }
            message::MAKE_HOLD_INVOICE => {
                let bill: Bill = read(params)?;
                let made = rail.make_hold_invoice(&bill.ask(), &bill.hold()?).await;
                Ok(json!(Transaction::of_invoice(&made.map_err(refused)?)))
            }
            message::SETTLE_HOLD_INVOICE => {
                let Proof { preimage } = read(params)?;
                let preimage: Preimage = preimage.parse().map_err(|_| unreadable())?;
                rail.settle(&preimage).await.map_err(refused)?;
                Ok(json!({}))
            }
            message::CANCEL_HOLD_INVOICE => {
                let Named { payment_hash } = read(params)?;
                rail.cancel(&payment_hash).await.map_err(refused)?;
                Ok(json!({}))
            }
            message::LOOKUP_INVOICE => {
                let Named { payment_hash } = read(params)?;
                self.look_up(&payment_hash).await
            }
            message::LIST_TRANSACTIONS => self.list(read(params)?).await,
            _ => Err(refused(Error::Unsupported)),
        }
    }

    async fn look_up(&self, hash: &PaymentHash) -> Result<Value, message::Fault> {
        for direction in [Direction::Incoming, Direction::Outgoing] {
            let found = self.rail.look_up(direction, hash).await;
            if let Some(payment) = found.map_err(|error| message::Fault::of(&error))? {
                return Ok(json!(Transaction::of(&payment)));
            }
        }
        Err(message::Fault::of(&Error::NotFound))
    }

    async fn list(&self, wanted: Wanted) -> Result<Value, message::Fault> {
        let since = Timestamp::from_secs(wanted.from);
        let all = self.rail.list(since).await;
        let mut all = all.map_err(|error| message::Fault::of(&error))?;
        all.retain(|payment| wanted.unpaid || matches!(payment.state, State::Settled { .. }));
        let page = all.iter().rev().skip(wanted.offset);
        let page = page.take(wanted.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE));
        let page: Vec<Transaction> = page.map(Transaction::of).collect();
        Ok(json!({ "transactions": page }))
    }

    async fn pay(&self, params: Value) -> Option<Result<Value, message::Fault>> {
        let order = match read::<Bid>(params).and_then(Bid::order) {
            Ok(order) => order,
            Err(fault) => return Some(Err(fault)),
        };
        let notices = self.rail.subscribe();
        let payment = match self.rail.pay(&order).await {
            Ok(payment) => payment,
            Err(error) => return Some(Err(message::Fault::of(&error))),
        };
        let payment = match payment.state {
            State::Pending | State::Held => {
                let gone = gone_out(notices, order.invoice.hash());
                timeout(PATIENCE, gone).await.ok()??
            }
            State::Settled { .. } | State::Failed | State::Expired => payment,
        };
        Some(paid(&payment))
    }
}

/// Waits for the news that a payment has gone out.
async fn gone_out(mut notices: Notices, hash: PaymentHash) -> Option<Payment> {
    loop {
        if let Notice::Changed(payment) = notices.next().await?
            && payment.direction == Direction::Outgoing
            && payment.hash == hash
        {
            return Some(payment);
        }
    }
}

fn paid(payment: &Payment) -> Result<Value, message::Fault> {
    match payment.state {
        State::Settled { fee, preimage, .. } => Ok(json!({
            "preimage": preimage.map(|preimage| preimage.to_hex()),
            "fees_paid": fee.0,
        })),
        _ => Err(message::Fault::new(
            message::PAYMENT_FAILED,
            "no way to pay was found",
        )),
    }
}
