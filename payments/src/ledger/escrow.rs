//! Money in escrow: what an aggregator holds, charges, owes and keeps back.
//!
//! # A group's money
//! A hold is planned with its preimage, and its invoice asked for ([`Ledger::plan_hold`]). What the buyer's credit
//! covers is set aside, and not held again. Its *will* is decided once, by compare and set: to claim it, with what is
//! then charged and owed ([`Ledger::will_claim`]), or to cancel it ([`Ledger::will_cancel`]). When the wallet says that
//! the money is ours, the payment, the charge and the debts are posted in one change; when it says that it went back,
//! the debts alone: who has done accepted work is paid, and the loss is ours.
//!
//! # A provider's money
//! What is accepted is owed to it, less its bond, and paid when it is worth a payment ([`Ledger::plan_payout`]). The
//! bond is an account of its own. When work is rejected it goes to those who have paid for other work of that provider
//! ([`Ledger::reject`]).

mod credit;
mod forfeits;
mod holds;
mod payouts;
mod settling;
mod sums;
mod work;

use infernet_protocol::batch::Charge;
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey, Timestamp};

pub(super) use self::credit::is_left as is_credit_left;
pub use self::credit::{Credit, Custom};
pub use self::payouts::Dues;
pub(super) use self::payouts::is_left as is_payout_left;
pub(super) use self::settling::settled;
pub use self::sums::{Escrow, Sums};

use super::{Intent, Standing};
use crate::Preimage;
use crate::rail::OrderKey;

/// What is to be held for a group of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldDue {
    /// The batch's order.
    pub order: EventId,
    /// The group's number.
    pub group: u32,
    /// Who pays.
    pub buyer: PublicKey,
    /// The most that the group may be charged.
    pub most: Msat,
    /// When the money must have been claimed, or go back.
    pub until: Timestamp,
}

/// What is wanted of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Will {
    /// To take it, and charge this.
    Claim(Charge),
    /// To give it back.
    Cancel,
}

/// What is held for a group, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its name, which is its intent's.
    pub key: OrderKey,
    /// What it is for.
    pub due: HoldDue,
    /// How much of it the buyer's credit covers.
    pub reserved: Msat,
    /// What takes the payment, and opens the group's output.
    pub preimage: Preimage,
    /// What is wanted of it, once that is decided.
    pub will: Option<Will>,
    /// The invoice; none if the credit covers all.
    pub intent: Option<Intent>,
}

impl Hold {
    /// How the money stands, by the wallet's word. What the credit covers is held from the beginning.
    pub fn standing(&self) -> Standing {
        match (&self.intent, self.will) {
            (Some(intent), _) => intent.standing,
            (None, None) => Standing::Held,
            (None, Some(Will::Claim(_))) => Standing::Settled,
            (None, Some(Will::Cancel)) => Standing::Failed,
        }
    }

    /// Whether nothing more comes of it.
    pub fn is_over(&self) -> bool {
        matches!(self.standing(), Standing::Settled | Standing::Failed)
    }
}

/// What came of planning a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedHold {
    /// It is new.
    Now(Hold),
    /// There is one for that group, which has not failed.
    Before(Hold),
}

/// Work that was accepted, or a check that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Its award.
    pub award: EventId,
    /// Whose it is.
    pub provider: PublicKey,
    /// What it costs; free work need not be told.
    pub cost: Msat,
    /// How probable it was that it be checked, in millionths; 0 for a check itself.
    pub chance_ppm: u32,
    /// Whether it was checked.
    pub checked: bool,
}

/// What is charged for a group, and for which work.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bill {
    /// What the buyer is charged.
    pub charge: Charge,
    /// All that is owed for it: accepted work, and checks.
    pub works: Vec<Work>,
}
