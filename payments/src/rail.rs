//! The port to a Lightning wallet.
//!
//! # What every adapter keeps to
//! - **Unknown stays pending.** When an answer is lost, a payment is [`State::Pending`], never failed: ask with
//!   [`PaymentRail::look_up`] until the wallet knows.
//! - [`PaymentRail::pay`] answers an error only when nothing is under way and nothing will be: the money is where
//!   it was.
//! - The same order never pays twice, nor does another order for the same invoice.
//! - [`Notice`]s are hints: they may come twice, or not at all. What counts is what `look_up` and `list` answer.
//!
//! One suite (`tests/payments/conformance.rs`) holds all adapters to this.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use infernet_protocol::money::Msat;
use nostr::Timestamp;
use nostr::secp256k1::PublicKey;
use tokio::sync::broadcast;

use crate::{Invoice, PaymentHash, Preimage};

/// Notices that may wait for a slow reader; one who misses some is told so.
pub(crate) const MAX_UNREAD_NOTICES: usize = 256;

/// Why a wallet did not do what it was asked, by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Try again later.
    #[error("the wallet cannot be reached: {0}")]
    Unreachable(String),
    /// Try again in a few seconds.
    #[error("the wallet asks for some patience")]
    Busy,
    /// Put money into the wallet, or into its channels.
    #[error("there is not enough money in the wallet")]
    InsufficientBalance,
    /// Wait until tomorrow, or give the connection a larger budget in the wallet.
    #[error("the wallet's budget for this connection is used up")]
    OverBudget,
    /// Make a connection that may do this, in the wallet.
    #[error("the wallet does not allow this connection to do that")]
    NotPermitted,
    /// Use another wallet.
    #[error("the wallet cannot do that")]
    Unsupported,
    /// Ask for something else: there is nothing by that hash in a state for this.
    #[error("the wallet knows no such payment")]
    NotFound,
    /// Ask differently.
    #[error("the wallet refuses: {0}")]
    Refused(String),
    /// Tell the wallet's maker.
    #[error("the wallet's answer makes no sense: {0}")]
    Nonsense(String),
}

impl Error {
    /// Whether the same call may succeed soon.
    pub const fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Busy => true,
            Self::InsufficientBalance
            | Self::OverBudget
            | Self::NotPermitted
            | Self::Unsupported
            | Self::NotFound
            | Self::Refused(_)
            | Self::Nonsense(_) => false,
        }
    }
}

/// An invoice to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// How much to ask for.
    pub amount: Msat,
    /// What for, in words that the payer sees. It is in the invoice: no secrets.
    pub description: String,
    /// How long it can be paid.
    pub expiry: Duration,
}

/// That an invoice's payment is held until we settle or cancel it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The hash; whoever knows its preimage settles.
    pub hash: PaymentHash,
    /// Blocks that the last hop must be given: more allow a longer hold. 144 is about a day.
    pub min_cltv_expiry_delta: u16,
}

/// Names an order to pay, so that it can be given again after a crash: 32 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey([u8; 32]);

impl OrderKey {
    /// A new key.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for OrderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrderKey({})", hex::encode(&self.0[..4]))
    }
}

/// An order to pay an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Names the order; the same key is the same order.
    pub key: OrderKey,
    /// What to pay.
    pub invoice: Invoice,
    /// The most that routing may cost. A wallet that knows no such limit may spend more, and says so.
    pub max_fee: Msat,
}

/// Which way a payment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To us.
    Incoming,
    /// From us.
    Outgoing,
}

/// How a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An invoice that nobody has paid yet, or a payment whose outcome is not known.
    Pending,
    /// Paid to us, and neither taken nor given back.
    Held,
    /// Done, for good.
    Settled {
        /// When.
        at: Timestamp,
        /// What routing cost us; nothing for an incoming one.
        fee: Msat,
        /// The proof, where the wallet tells it.
        preimage: Option<Preimage>,
    },
    /// It came back to its payer. Incoming: the hold was cancelled.
    Failed,
    /// Nobody has paid the invoice, and nobody can any more.
    Expired,
}

impl State {
    /// Whether it changes no more.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Pending | Self::Held => false,
            Self::Settled { .. } | Self::Failed | Self::Expired => true,
        }
    }
}

/// What a wallet says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Which way it goes.
    pub direction: Direction,
    /// Its hash.
    pub hash: PaymentHash,
    /// What the payee gets.
    pub amount: Msat,
    /// How it stands.
    pub state: State,
    /// When its invoice was made (incoming) or it was ordered (outgoing).
    pub created_at: Timestamp,
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A payment has arrived, is held, or has gone out.
    Changed(Payment),
    /// Notices may have been lost: look up what you wait for.
    Gap,
}

/// The wallet's notices, from the moment of subscribing.
#[derive(Debug)]
pub struct Notices(broadcast::Receiver<Notice>);

impl Notices {
    pub(crate) const fn new(receiver: broadcast::Receiver<Notice>) -> Self {
        Self(receiver)
    }

    /// Waits for the next notice; nothing when the rail is gone. Safe to cancel.
    pub async fn next(&mut self) -> Option<Notice> {
        match self.0.recv().await {
            Ok(notice) => Some(notice),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Notice::Gap),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// A Lightning wallet.
#[async_trait]
pub trait PaymentRail: fmt::Debug + Send + Sync {
    /// Makes an invoice whose payment is taken at once.
    async fn make_invoice(&self, ask: &Ask) -> Result<Invoice, Error>;

    /// Makes an invoice whose payment is held until [`settle`](Self::settle) or [`cancel`](Self::cancel).
    async fn make_hold_invoice(&self, ask: &Ask, hold: &Hold) -> Result<Invoice, Error>;

    /// Pays: answers how the payment stands once it is done or the adapter's patience is over. One that was tried
    /// and came back is [`State::Failed`], and its order is over: a new try is a new order.
    ///
    /// # Errors
    /// Nothing is under way, and nothing was paid.
    async fn pay(&self, order: &Order) -> Result<Payment, Error>;

    /// What the wallet knows of a payment; nothing if it has never heard of it.
    async fn look_up(
        &self,
        direction: Direction,
        hash: &PaymentHash,
    ) -> Result<Option<Payment>, Error>;

    /// All payments created at or after `since`, unpaid invoices too, the oldest first.
    async fn list(&self, since: Timestamp) -> Result<Vec<Payment>, Error>;

    /// What can be spent.
    async fn balance(&self) -> Result<Msat, Error>;

    /// The Lightning node that signs this wallet's invoices; nothing if the wallet does not say.
    async fn node(&self) -> Result<Option<PublicKey>, Error> {
        Ok(None)
    }

    /// Takes the held payment of this preimage. Success says that the wallet has begun to: income is what
    /// [`State::Settled`] says. Doing it twice does no more.
    async fn settle(&self, preimage: &Preimage) -> Result<(), Error>;

    /// Gives a held payment back, or withdraws an unpaid hold invoice. Doing it twice does no more.
    async fn cancel(&self, hash: &PaymentHash) -> Result<(), Error>;

    /// Follows what happens from now on.
    fn subscribe(&self) -> Notices;
}
