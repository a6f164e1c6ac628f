//! What is held for groups.

use std::time::Duration;

use infernet_payments::holding::HoldTerms;
use infernet_payments::ledger::{Bill, Caps, Hold, HoldDue, Standing, Will, Work};
use infernet_payments::{Invoice, Preimage};
use infernet_protocol::batch::invoice_description;
use infernet_protocol::money::Msat;
use nostr::{EventId, Timestamp};

use super::{Error, Treasury};

/// How long a hold's invoice can be paid.
const INVOICE_LIFE: Duration = Duration::from_secs(600);

/// Invoices that may wait to be paid: a buyer's groups at once in some orders, and as many as some hundred buyers have.
const CAPS: Caps = Caps {
    for_one: 64,
    in_all: 4_000,
};

/// How long a block takes.
const BLOCK: Duration = Duration::from_secs(600);

/// The most blocks that a last hop is asked for: payers refuse routes of about 1,000 in all.
const MAX_DELTA: u64 = 432;

/// Blocks of these that cannot be held: what LDK keeps for itself, what wallets keep before they give back by
/// themselves, and some for a payer that is behind.
const LOST_BLOCKS: u64 = 56;

/// Blocks may come a third faster than they should over a day or two, and by half as many again as chance would have
/// it over hours: so many hundredths are asked for.
const HASTE_PERCENT: u64 = 150;

/// The longest that money can be held: what a wallet's longest delta leaves, about 41 hours.
pub const LONGEST_HOLD: Duration =
    Duration::from_secs((MAX_DELTA - LOST_BLOCKS) * 100 / HASTE_PERCENT * BLOCK.as_secs());

/// How the money of a group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldStanding {
    /// Nothing was asked for.
    None,
    /// It is asked for.
    Invoiced(Box<Invoice>),
    /// The wallet holds all of it, or the buyer's credit covers it.
    Held,
    /// It is going to be ours.
    Claiming,
    /// It is ours, and the group is charged.
    Settled,
    /// It is going back.
    Cancelling,
    /// It went back, or was never paid.
    Cancelled,
}

impl HoldStanding {
    fn of(hold: Option<&Hold>) -> Self {
        let Some(hold) = hold else { return Self::None };
        match (hold.standing(), hold.will) {
            (Standing::Settled, _) => Self::Settled,
            (Standing::Failed, _) => Self::Cancelled,
            (_, Some(Will::Claim(_))) => Self::Claiming,
            (_, Some(Will::Cancel)) => Self::Cancelling,
            (Standing::Held, None) => Self::Held,
            (Standing::Planned | Standing::UnderWay, None) => {
                let intent = hold.intent.as_ref();
                let invoice = intent.and_then(|intent| intent.invoice.clone());
                invoice.map_or(Self::None, |invoice| Self::Invoiced(Box::new(invoice)))
            }
        }
    }
}

impl Treasury {
    /// Has the most that a group may be charged held: answers the invoice, or how far it is. Of an invoice that has run
    /// out, or a hold that went back, there is a new one.
    ///
    /// # Errors
    /// [`Error::NoWallet`], [`Error::TooLong`], [`Error::TooLate`]; a wallet that makes no invoice.
    pub async fn hold(&self, due: &HoldDue) -> Result<HoldStanding, Error> {
        let now = self.now();
        let cashier = self.cashier()?;
        let _alone = self.shared.holding.lock().await;
        let known = self.shared.ledger.hold(&due.order, due.group).await?;
        let standing = HoldStanding::of(known.as_ref());
        if !matches!(standing, HoldStanding::None | HoldStanding::Cancelled) {
            return Ok(standing);
        }
        let terms = HoldTerms {
            description: invoice_description(&due.order, due.group),
            expiry: INVOICE_LIFE,
            min_cltv_expiry_delta: delta(due, now)?,
            caps: CAPS,
        };
        let hold = cashier.hold(due, &terms, now).await?;
        if hold.intent.is_none() {
            self.changed(due.order, due.group);
        }
        Ok(HoldStanding::of(Some(&hold)))
    }

    /// How the money of a group stands.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn standing(&self, order: &EventId, group: u32) -> Result<HoldStanding, Error> {
        let hold = self.shared.ledger.hold(order, group).await?;
        Ok(HoldStanding::of(hold.as_ref()))
    }

    /// What was held for a group by its wallet, and taken; what the buyer's credit covered is not counted.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn taken(&self, order: &EventId, group: u32) -> Result<Msat, Error> {
        let hold = self.shared.ledger.hold(order, group).await?;
        let intent = hold.and_then(|hold| hold.intent);
        let taken = intent.filter(|intent| intent.standing == Standing::Settled);
        Ok(taken.map_or(Msat::ZERO, |intent| intent.amount))
    }

    /// What opens the outputs of a group whose money is held: the preimage that claims it.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub async fn preimage(&self, order: &EventId, group: u32) -> Result<Option<Preimage>, Error> {
        let hold = self.shared.ledger.hold(order, group).await?;
        Ok(hold.map(|hold| hold.preimage))
    }

    /// Takes what is held for a group; the bill is booked once the wallet says that it is ours. What it says of a group
    /// that is claimed already changes nothing.
    ///
    /// # Errors
    /// [`Error::NotHeld`]; a bill over what was held for, or with work that is in another one.
    pub async fn claim(
        &self,
        order: &EventId,
        group: u32,
        bill: &Bill,
    ) -> Result<HoldStanding, Error> {
        let (ledger, now) = (&self.shared.ledger, self.now());
        let hold = ledger.hold(order, group).await?.ok_or(Error::NotHeld)?;
        if !ledger.will_claim(&hold.key, bill, now).await? {
            return Err(Error::NotHeld);
        }
        self.follow_up(&hold).await
    }

    /// Gives back what is held for a group, or has it never paid. Work that was accepted all the same is owed to its
    /// providers, at our loss; also such as is told of later. What was claimed too late has gone back by itself, and its
    /// bill's work is owed.
    ///
    /// # Errors
    /// [`Error::Claimed`].
    pub async fn cancel(
        &self,
        order: &EventId,
        group: u32,
        works: &[Work],
    ) -> Result<HoldStanding, Error> {
        let (ledger, now) = (&self.shared.ledger, self.now());
        let Some(hold) = ledger.hold(order, group).await? else {
            return Ok(HoldStanding::None);
        };
        if !ledger.will_cancel(&hold.key, works, now).await? {
            return match self.standing(order, group).await? {
                HoldStanding::Cancelled => Ok(HoldStanding::Cancelled),
                _ => Err(Error::Claimed),
            };
        }
        self.follow_up(&hold).await
    }

    /// Does at once what was decided, as far as the wallet lets it; the rounds do the rest.
    async fn follow_up(&self, hold: &Hold) -> Result<HoldStanding, Error> {
        self.shared.decided.notify_one();
        self.changed(hold.due.order, hold.due.group);
        self.standing(&hold.due.order, hold.due.group).await
    }
}

/// The blocks that a payment must be given so that it can be held until then.
fn delta(due: &HoldDue, now: Timestamp) -> Result<u16, Error> {
    let seconds = due.until.as_secs().saturating_sub(now.as_secs());
    if seconds == 0 {
        return Err(Error::TooLate);
    }
    if seconds > LONGEST_HOLD.as_secs() {
        return Err(Error::TooLong);
    }
    let blocks = (seconds * HASTE_PERCENT).div_ceil(BLOCK.as_secs() * 100) + LOST_BLOCKS;
    u16::try_from(blocks).map_err(|_| Error::TooLong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;

    use super::*;

    #[test]
    fn the_longer_the_hold_the_more_blocks_up_to_a_bound() {
        let now = Timestamp::from_secs(1_800_000_000);
        let of = |seconds: u64| {
            let due = HoldDue {
                order: EventId::all_zeros(),
                group: 0,
                buyer: Keys::generate().public_key(),
                most: Msat(1),
                until: now + seconds,
            };
            delta(&due, now)
        };
        assert_eq!(of(600).unwrap(), 58);
        assert_eq!(of(86_400).unwrap(), 272);
        assert!(u64::from(of(LONGEST_HOLD.as_secs()).unwrap()) <= MAX_DELTA);
        assert!(matches!(
            of(LONGEST_HOLD.as_secs() + 1),
            Err(Error::TooLong)
        ));
        assert!(matches!(of(0), Err(Error::TooLate)));
        assert!(LONGEST_HOLD.as_secs() > 40 * 3_600);
    }
}
