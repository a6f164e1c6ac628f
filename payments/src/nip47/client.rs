//! The client: a wallet somewhere, as a payment rail.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use infernet_node::clock;
use infernet_node::link::{self, Link};
use infernet_protocol::money::Msat;
use nostr::secp256k1::PublicKey;
use nostr::{Keys, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Connection;
use super::desk::{Desk, Trouble, filters, listen};
use super::message::{self, Transaction};
use crate::rail::{
    Ask, Direction, Error, Hold, MAX_UNREAD_NOTICES, Notices, Order, Payment, PaymentRail, State,
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

fn read<T: DeserializeOwned>(result: Value) -> Result<T, Error> {
    // Serde's words quote what they choke on, and that may be an invoice or a preimage.
    serde_json::from_value(result)
        .map_err(|_| Error::Nonsense("it lacks what was asked for".to_owned()))
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
                all.sort_by_key(|payment| payment.created_at);
                return Ok(all);
            }
        }
        // Half a list would look as if the rest had never been.
        let most = MAX_PAGES * PAGE;
        Err(Error::Refused(format!("it lists over {most} payments")))
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

    async fn node(&self) -> Result<Option<PublicKey>, Error> {
        #[derive(serde::Deserialize)]
        struct Info {
            #[serde(default)]
            pubkey: Option<String>,
        }
        let answer: Info = self.ask(message::GET_INFO, json!({})).await?;
        // Wallets without a node of their own answer nothing, or an empty text.
        Ok(answer.pubkey.and_then(|pubkey| pubkey.parse().ok()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_repeated() {
        let secret = "11".repeat(32);
        let answer = json!({ "preimage": secret, "fees_paid": secret });
        let Err(error) = read::<Paid>(answer) else {
            panic!("a fee is a number");
        };
        assert!(!error.to_string().contains(&secret), "{error}");
    }
}
