//! What is going to be paid or asked for, written down before it is done.

use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};

use super::{Error, Posting};
use crate::rail::{Direction, OrderKey};
use crate::{Invoice, PaymentHash};

/// What a payment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A buyer tops up its tab.
    TopUp,
    /// A provider pays back what is left of one.
    Refund,
    /// A buyer pays for a group of a batch, and its aggregator holds that.
    Hold,
    /// An aggregator pays a provider what it owes it.
    Payout,
    /// An aggregator pays back what is left of a buyer's credit.
    Credit,
}

impl Reason {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TopUp => "top-up",
            Self::Refund => "refund",
            Self::Hold => "hold",
            Self::Payout => "payout",
            Self::Credit => "credit",
        }
    }

    pub(super) fn of(name: &str) -> Result<Self, Error> {
        match name {
            "top-up" => Ok(Self::TopUp),
            "refund" => Ok(Self::Refund),
            "hold" => Ok(Self::Hold),
            "payout" => Ok(Self::Payout),
            "credit" => Ok(Self::Credit),
            _ => Err(Error::Damaged("an unknown reason")),
        }
    }
}

/// How an intent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Written down, and not done.
    Planned,
    /// The wallet has been told, or may have been.
    UnderWay,
    /// The wallet holds it for us: an invoice that was paid, and is neither taken nor given back.
    Held,
    /// Done, and posted.
    Settled,
    /// Nothing came of it.
    Failed,
}

impl Standing {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::UnderWay => "under-way",
            Self::Held => "held",
            Self::Settled => "settled",
            Self::Failed => "failed",
        }
    }

    pub(super) fn of(name: &str) -> Result<Self, Error> {
        match name {
            "planned" => Ok(Self::Planned),
            "under-way" => Ok(Self::UnderWay),
            "held" => Ok(Self::Held),
            "settled" => Ok(Self::Settled),
            "failed" => Ok(Self::Failed),
            _ => Err(Error::Damaged("an unknown standing")),
        }
    }
}

/// A payment to be made or to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its name, also for the wallet.
    pub key: OrderKey,
    /// Which way the money goes.
    pub direction: Direction,
    /// What for.
    pub reason: Reason,
    /// From or to whom.
    pub counterparty: PublicKey,
    /// During which work, if during any.
    pub award: Option<EventId>,
    /// What the payee gets.
    pub amount: Msat,
    /// The most that routing may cost us.
    pub max_fee: Msat,
    /// The invoice; none while it is still being asked for.
    pub invoice: Option<Invoice>,
    /// How it stands.
    pub standing: Standing,
    /// When it was written down.
    pub planned_at: Timestamp,
    /// When its standing last changed.
    pub changed_at: Timestamp,
}

impl Intent {
    /// The payment's hash, once there is an invoice.
    pub fn hash(&self) -> Option<PaymentHash> {
        self.invoice.as_ref().map(Invoice::hash)
    }

    /// What to post once it is done. The amount is what came or went, whatever was intended.
    pub(super) fn posting(&self, hash: PaymentHash, amount: Msat, fee: Msat) -> Posting {
        let other = self.counterparty;
        match (self.direction, self.reason) {
            (Direction::Outgoing, Reason::TopUp) => Posting::TopUpPaid {
                hash,
                provider: other,
                amount,
                fee,
            },
            (Direction::Outgoing, Reason::Refund) => Posting::RefundPaid {
                hash,
                buyer: other,
                amount,
                fee,
            },
            (Direction::Outgoing, Reason::Hold) => Posting::HoldPaid {
                hash,
                aggregator: other,
                amount,
                fee,
            },
            (Direction::Outgoing, Reason::Payout) => Posting::PayoutPaid {
                hash,
                provider: other,
                amount,
                fee,
            },
            (Direction::Outgoing, Reason::Credit) => Posting::CreditPaid {
                hash,
                buyer: other,
                amount,
                fee,
            },
            (Direction::Incoming, Reason::TopUp) => Posting::TopUpReceived {
                hash,
                buyer: other,
                amount,
            },
            (Direction::Incoming, Reason::Refund) => Posting::RefundReceived {
                hash,
                provider: other,
                amount,
            },
            (Direction::Incoming, Reason::Hold) => Posting::HoldClaimed {
                hash,
                buyer: other,
                amount,
            },
            (Direction::Incoming, Reason::Payout) => Posting::PayoutReceived {
                hash,
                aggregator: other,
                amount,
            },
            (Direction::Incoming, Reason::Credit) => Posting::CreditReceived {
                hash,
                aggregator: other,
                amount,
            },
        }
    }
}

/// The most that may be paid out in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How much, with the routing of what is done.
    pub most: Msat,
    /// From when on.
    pub since: Timestamp,
}

/// How many invoices may wait to be paid. Making one is work for us, and asking for it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// By one counterparty.
    pub for_one: u64,
    /// In all.
    pub in_all: u64,
}

impl Default for Caps {
    /// A tab asks for one at a time; more are those of jobs that were given up.
    fn default() -> Self {
        Self {
            for_one: 4,
            in_all: 1_000,
        }
    }
}

/// A payment that is due: an [`Intent`] before it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What for.
    pub reason: Reason,
    /// From or to whom.
    pub counterparty: PublicKey,
    /// During which work, if during any.
    pub award: Option<EventId>,
}

/// What came of writing an intent down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// It is new.
    Now(Intent),
    /// There is one for this invoice.
    Before(Intent),
}

pub(super) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Incoming => "incoming",
        Direction::Outgoing => "outgoing",
    }
}
