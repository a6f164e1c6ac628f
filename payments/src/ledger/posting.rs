//! What can happen to money, and which accounts it touches.

use infernet_protocol::batch::Charge;
use infernet_protocol::money::Msat;
use nostr::{EventId, PublicKey};
use sha2::{Digest, Sha256};

use super::account::Account;
use super::{Error, amount};
use crate::PaymentHash;

/// Something that happened to money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posting {
    /// We topped up our tab with a provider.
    TopUpPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        provider: PublicKey,
        /// What the provider got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// A buyer topped up its tab with us.
    TopUpReceived {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        buyer: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// We paid back what was left of a buyer's tab.
    RefundPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        buyer: PublicKey,
        /// What the buyer got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// A provider paid back what was left of our tab.
    RefundReceived {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        provider: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// A provider's work was put on our tab; once for an award.
    Spent {
        /// For which work.
        award: EventId,
        /// Whose.
        provider: PublicKey,
        /// What it cost.
        amount: Msat,
    },
    /// Our work was put on a buyer's tab; once for an award.
    Earned {
        /// For which work.
        award: EventId,
        /// For whom.
        buyer: PublicKey,
        /// What it cost.
        amount: Msat,
    },
    /// Money came into the wallet from elsewhere.
    CameIn {
        /// The payment, or 32 random bytes where there is none.
        hash: PaymentHash,
        /// How much.
        amount: Msat,
    },
    /// Money went from the wallet to elsewhere.
    WentOut {
        /// The payment, or 32 random bytes where there is none.
        hash: PaymentHash,
        /// How much arrived there.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// What we had held for a group of a batch was taken by its aggregator.
    HoldPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        aggregator: PublicKey,
        /// What the aggregator got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// What a buyer had held for a group of a batch was taken by us.
    HoldClaimed {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        buyer: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// A group of our batch was charged to our credit; once.
    GroupSpent {
        /// The group.
        group: GroupName,
        /// By whom.
        aggregator: PublicKey,
        /// What it cost.
        amount: Msat,
    },
    /// A group of a buyer's batch was charged to its credit; once.
    GroupEarned {
        /// The group.
        group: GroupName,
        /// For whom.
        buyer: PublicKey,
        /// What it cost.
        charge: Charge,
    },
    /// We paid back what was left of a buyer's credit.
    CreditPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        buyer: PublicKey,
        /// What the buyer got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// An aggregator paid back what was left of our credit.
    CreditReceived {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        aggregator: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// We accepted a provider's work, and owe it its price; once for an award.
    WorkAccepted {
        /// For which work.
        award: EventId,
        /// Whose.
        provider: PublicKey,
        /// What it costs.
        amount: Msat,
    },
    /// We did work for an aggregator, which owes us its price once it has accepted it; once for an award.
    WorkDone {
        /// For which work.
        award: EventId,
        /// For whom.
        aggregator: PublicKey,
        /// What it costs.
        amount: Msat,
    },
    /// An aggregator rejected work of ours, and does not owe us that any more; once for an award.
    WrittenOff {
        /// Which work.
        award: EventId,
        /// Whose debt.
        aggregator: PublicKey,
        /// How much.
        amount: Msat,
    },
    /// An aggregator has kept some more of our bond.
    BondLost {
        /// Who.
        aggregator: PublicKey,
        /// How much it has kept in all.
        total: Msat,
        /// How much of that is new.
        amount: Msat,
    },
    /// We paid a provider what we owed it.
    PayoutPaid {
        /// The payment.
        hash: PaymentHash,
        /// Who was paid.
        provider: PublicKey,
        /// What the provider got.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
    },
    /// An aggregator paid what it owed us.
    PayoutReceived {
        /// The payment.
        hash: PaymentHash,
        /// Who paid.
        aggregator: PublicKey,
        /// What we got.
        amount: Msat,
    },
    /// Of what we owe a provider, some more is held back as its bond.
    BondKept {
        /// The payout that it is held back from.
        hash: PaymentHash,
        /// Whose.
        provider: PublicKey,
        /// How much more.
        amount: Msat,
    },
    /// Of a provider's bond, some is owed to it again.
    BondReleased {
        /// The payout that it goes out with.
        hash: PaymentHash,
        /// Whose.
        provider: PublicKey,
        /// How much.
        amount: Msat,
    },
    /// A part of a provider's bond went to one who bought its work.
    BondForfeited {
        /// The work that was rejected.
        award: EventId,
        /// Whose bond.
        provider: PublicKey,
        /// Whom it went to; ourselves if nobody has paid for any of its work.
        buyer: Option<PublicKey>,
        /// How much.
        amount: Msat,
    },
}

/// Names a group of a batch in the ledger: sha256("infernet/group/1" ‖ order's id ‖ number), the number big-endian in
/// 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupName([u8; 32]);

impl GroupName {
    /// The name of a batch's group.
    pub fn new(order: &EventId, number: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"infernet/group/1");
        hash.update(order.as_bytes());
        hash.update(number.to_be_bytes());
        Self(hash.finalize().into())
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Names a loss of bond: sha256("infernet/bond-lost/1" ‖ aggregator ‖ total), the total big-endian in 64 bits.
fn loss_name(aggregator: &PublicKey, total: Msat) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"infernet/bond-lost/1");
    hash.update(aggregator.as_bytes());
    hash.update(total.0.to_be_bytes());
    hash.finalize().into()
}

/// Names what one buyer gets of a bond: sha256("infernet/forfeit/1" ‖ award's id ‖ buyer).
fn forfeit_name(award: &EventId, buyer: Option<&PublicKey>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"infernet/forfeit/1");
    hash.update(award.as_bytes());
    if let Some(buyer) = buyer {
        hash.update(buyer.as_bytes());
    }
    hash.finalize().into()
}

/// Whether something was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// Now.
    Now,
    /// Before, in the same way.
    Before,
}

/// One entry of a posting.
pub(super) struct Leg {
    pub(super) name: &'static str,
    pub(super) account: Account,
    /// Positive if the account grows.
    pub(super) amount_msat: i64,
}

impl Posting {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::TopUpPaid { .. } | Self::TopUpReceived { .. } => "top-up",
            Self::RefundPaid { .. } | Self::RefundReceived { .. } => "refund",
            Self::Spent { .. }
            | Self::Earned { .. }
            | Self::GroupSpent { .. }
            | Self::GroupEarned { .. }
            | Self::WorkAccepted { .. }
            | Self::WorkDone { .. } => "charge",
            Self::CameIn { .. } | Self::WentOut { .. } => "outside",
            Self::HoldPaid { .. } | Self::HoldClaimed { .. } => "hold",
            Self::CreditPaid { .. } | Self::CreditReceived { .. } => "credit",
            Self::PayoutPaid { .. } | Self::PayoutReceived { .. } => "payout",
            Self::WrittenOff { .. } => "write-off",
            Self::BondKept { .. } | Self::BondReleased { .. } => "bond",
            Self::BondForfeited { .. } | Self::BondLost { .. } => "forfeit",
        }
    }

    pub(super) fn reference(&self) -> [u8; 32] {
        match self {
            Self::TopUpPaid { hash, .. }
            | Self::TopUpReceived { hash, .. }
            | Self::RefundPaid { hash, .. }
            | Self::RefundReceived { hash, .. }
            | Self::CameIn { hash, .. }
            | Self::WentOut { hash, .. }
            | Self::HoldPaid { hash, .. }
            | Self::HoldClaimed { hash, .. }
            | Self::CreditPaid { hash, .. }
            | Self::CreditReceived { hash, .. }
            | Self::PayoutPaid { hash, .. }
            | Self::PayoutReceived { hash, .. }
            | Self::BondKept { hash, .. }
            | Self::BondReleased { hash, .. } => *hash.as_bytes(),
            Self::Spent { award, .. }
            | Self::Earned { award, .. }
            | Self::WorkAccepted { award, .. }
            | Self::WorkDone { award, .. }
            | Self::WrittenOff { award, .. } => *award.as_bytes(),
            Self::GroupSpent { group, .. } | Self::GroupEarned { group, .. } => group.0,
            Self::BondLost {
                aggregator, total, ..
            } => loss_name(aggregator, *total),
            Self::BondForfeited { award, buyer, .. } => forfeit_name(award, buyer.as_ref()),
        }
    }

    /// The entries; they sum to zero. Those of nothing are left out.
    pub(super) fn legs(&self) -> Result<Vec<Leg>, Error> {
        let mut legs = match self.shape() {
            Shape::Out(to, amount, fee) => paid(to, amount, fee)?,
            Shape::In(from, amount) => received(from, amount)?,
            Shape::Between(from, to, amount) => between(from, to, amount)?,
            Shape::Group(buyer, charge) => earned(buyer, charge)?,
        };
        legs.retain(|leg| leg.amount_msat != 0);
        Ok(legs)
    }

    /// What it does to which accounts.
    const fn shape(&self) -> Shape {
        use Account::{Bond, Credit, Income, Outside, Payout, Spending, Tab};
        match *self {
            #[rustfmt::skip]
            Self::TopUpPaid { provider: other, amount, fee, .. }
            | Self::RefundPaid { buyer: other, amount, fee, .. } => {
                Shape::Out(Tab(other), amount, fee)
            },
            #[rustfmt::skip]
            Self::HoldPaid { aggregator: other, amount, fee, .. }
            | Self::CreditPaid { buyer: other, amount, fee, .. } => {
                Shape::Out(Credit(other), amount, fee)
            },
            #[rustfmt::skip]
            Self::PayoutPaid { provider, amount, fee, .. } => {
                Shape::Out(Payout(provider), amount, fee)
            },
            Self::WentOut { amount, fee, .. } => Shape::Out(Outside, amount, fee),
            #[rustfmt::skip]
            Self::TopUpReceived { buyer: other, amount, .. }
            | Self::RefundReceived { provider: other, amount, .. } => {
                Shape::In(Tab(other), amount)
            },
            #[rustfmt::skip]
            Self::HoldClaimed { buyer: other, amount, .. }
            | Self::CreditReceived { aggregator: other, amount, .. } => {
                Shape::In(Credit(other), amount)
            },
            #[rustfmt::skip]
            Self::PayoutReceived { aggregator, amount, .. } => {
                Shape::In(Payout(aggregator), amount)
            },
            Self::CameIn { amount, .. } => Shape::In(Outside, amount),
            Self::GroupEarned { buyer, charge, .. } => Shape::Group(buyer, charge),
            #[rustfmt::skip]
            Self::Spent { provider, amount, .. } => {
                Shape::Between(("charged", Tab(provider)), ("spent", Spending), amount)
            },
            #[rustfmt::skip]
            Self::GroupSpent { aggregator, amount, .. } => {
                Shape::Between(("charged", Credit(aggregator)), ("spent", Spending), amount)
            },
            #[rustfmt::skip]
            Self::WorkAccepted { provider, amount, .. } => {
                Shape::Between(("charged", Payout(provider)), ("spent", Spending), amount)
            },
            Self::Earned { buyer, amount, .. } => {
                Shape::Between(("earned", Income), ("charged", Tab(buyer)), amount)
            }
            #[rustfmt::skip]
            Self::WorkDone { aggregator, amount, .. } => {
                Shape::Between(("earned", Income), ("charged", Payout(aggregator)), amount)
            },
            #[rustfmt::skip]
            Self::WrittenOff { aggregator, amount, .. } => {
                Shape::Between(("written-off", Payout(aggregator)), ("lost", Income), amount)
            },
            #[rustfmt::skip]
            Self::BondLost { aggregator, amount, .. } => {
                Shape::Between(("forfeited", Payout(aggregator)), ("lost", Income), amount)
            },
            #[rustfmt::skip]
            Self::BondKept { provider, amount, .. } => {
                Shape::Between(("bonded", Bond(provider)), ("kept", Payout(provider)), amount)
            },
            #[rustfmt::skip]
            Self::BondReleased { provider, amount, .. } => {
                Shape::Between(("freed", Payout(provider)), ("released", Bond(provider)), amount)
            },
            #[rustfmt::skip]
            Self::BondForfeited { provider, buyer, amount, .. } => {
                let to = match buyer {
                    Some(buyer) => Credit(buyer),
                    None => Income,
                };
                Shape::Between(("compensated", to), ("forfeited", Bond(provider)), amount)
            }
        }
    }
}

/// What a posting does to which accounts.
enum Shape {
    /// The wallet paid: to whom, how much arrived, what routing cost.
    Out(Account, Msat, Msat),
    /// The wallet was paid: by whom, how much.
    In(Account, Msat),
    /// No money moved: from one account to another, by the names of these entries.
    Between((&'static str, Account), (&'static str, Account), Msat),
    /// A buyer's group was charged.
    Group(PublicKey, Charge),
}

fn between(
    from: (&'static str, Account),
    to: (&'static str, Account),
    what: Msat,
) -> Result<Vec<Leg>, Error> {
    let what = amount(what)?;
    Ok(vec![leg(from.0, from.1, -what), leg(to.0, to.1, what)])
}

/// The fee is an entry of its own, so that it can be told from what others are owed.
fn earned(buyer: PublicKey, charge: Charge) -> Result<Vec<Leg>, Error> {
    let others = charge.work_msat.checked_add(charge.checking_msat);
    let others = amount(others.ok_or(Error::OutOfBounds)?)?;
    let fee = amount(charge.fee_msat)?;
    Ok(vec![
        leg("charged", Account::Credit(buyer), others + fee),
        leg("earned", Account::Income, -others),
        leg("fee", Account::Income, -fee),
    ])
}

const fn leg(name: &'static str, account: Account, amount_msat: i64) -> Leg {
    Leg {
        name,
        account,
        amount_msat,
    }
}

fn paid(to: Account, what: Msat, fee: Msat) -> Result<Vec<Leg>, Error> {
    let total = what.checked_add(fee).ok_or(Error::OutOfBounds)?;
    Ok(vec![
        leg("paid", Account::Wallet, -amount(total)?),
        leg("routing", Account::Fees, amount(fee)?),
        leg("credited", to, amount(what)?),
    ])
}

fn received(from: Account, what: Msat) -> Result<Vec<Leg>, Error> {
    let what = amount(what)?;
    Ok(vec![
        leg("received", Account::Wallet, what),
        leg("accepted", from, -what),
    ])
}
