//! An order that was taken.

use infernet_protocol::batch::Size;
use infernet_protocol::event::{Checkers, Checking, Quote};
use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::verification::Secret;
use nostr::{EventId, PublicKey, Timestamp};

use crate::dispatch::Need;
use crate::shards::Measure;
use crate::store::OrderRow;
use crate::tally::Rates;

/// An order that was taken, as those who work on it need it.
#[derive(Debug, Clone)]
pub struct Open {
    /// The order.
    pub id: EventId,
    /// Whose.
    pub buyer: PublicKey,
    /// What was quoted.
    pub quote: Quote,
    /// Chooses what is checked.
    pub secret: Secret,
    /// Whether nothing more is begun.
    pub is_stopped: bool,
    /// Whether it is closed.
    pub is_closed: bool,
}

impl Open {
    /// The order in this row; nothing if its quote cannot be read.
    pub fn of(row: &OrderRow) -> Option<Self> {
        Some(Self {
            id: row.order.id(),
            buyer: row.order.author(),
            quote: row.order.terms()?,
            secret: row.secret,
            is_stopped: row.is_stopped,
            is_closed: row.closed.is_some(),
        })
    }

    /// Whether money is held for its groups.
    pub fn is_paid(&self) -> bool {
        self.quote.terms == PaymentKind::Escrow
    }

    /// Whether results are to carry proofs.
    pub fn proves(&self) -> bool {
        self.quote.checkers != Checkers::Nobody && self.quote.checking != Checking::None
    }

    /// When it must be done.
    pub const fn deadline(&self) -> Timestamp {
        self.quote.deadline
    }

    /// The same in milliseconds.
    pub fn deadline_ms(&self) -> Millis {
        Millis(self.quote.deadline.as_secs().saturating_mul(1_000))
    }

    /// What a group's charge is reckoned by.
    pub const fn rates(&self) -> Rates {
        Rates {
            price: self.quote.price,
            fee_ppm: self.quote.fee_ppm,
            checking_ppm: self.quote.checking_ppm,
        }
    }

    /// The most that a group may cost.
    pub fn most_for(&self, size: &Size) -> Option<Msat> {
        self.quote.most_for(size)
    }

    /// What work on it needs of a provider.
    pub fn need<'a>(&self, measures: impl IntoIterator<Item = &'a Measure>) -> Need {
        Need {
            task: self.quote.task,
            accepts: self.quote.accepts.clone(),
            max_price: self.quote.price,
            is_paid: self.is_paid(),
            checkers: self.quote.checkers,
            limits: crate::shards::sum(measures),
        }
    }
}
