//! The accounts.

use nostr::PublicKey;

/// An account of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// What the Lightning wallet holds of ours.
    Wallet,
    /// What a counterparty owes us; negative: what we owe it.
    Tab(PublicKey),
    /// What an aggregator has taken of a buyer's money and not charged: of the aggregator's, if we are the buyer;
    /// negative: a buyer's, if we are the aggregator.
    Credit(PublicKey),
    /// What an aggregator owes a provider for accepted work: positive with the aggregator that owes us, negative with
    /// the provider that we owe.
    Payout(PublicKey),
    /// What an aggregator holds back of that, for a while; of the provider that we owe it to.
    Bond(PublicKey),
    /// What our work has brought: the opposite of the balance.
    Income,
    /// What others' work has cost us.
    Spending,
    /// What routing has cost us.
    Fees,
    /// What came from, and went to, anywhere else.
    Outside,
}

impl Account {
    const fn name(&self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Tab(_) => "tab",
            Self::Credit(_) => "credit",
            Self::Payout(_) => "payout",
            Self::Bond(_) => "bond",
            Self::Income => "income",
            Self::Spending => "spending",
            Self::Fees => "fees",
            Self::Outside => "outside",
        }
    }

    pub(super) const fn counterparty(&self) -> Option<&PublicKey> {
        match self {
            Self::Tab(counterparty)
            | Self::Credit(counterparty)
            | Self::Payout(counterparty)
            | Self::Bond(counterparty) => Some(counterparty),
            Self::Wallet | Self::Income | Self::Spending | Self::Fees | Self::Outside => None,
        }
    }

    /// Its name and its counterparty, as SQLite keeps them.
    pub(super) fn columns(&self) -> (&'static str, Option<Vec<u8>>) {
        let counterparty = self.counterparty().map(|key| key.as_bytes().to_vec());
        (self.name(), counterparty)
    }
}
