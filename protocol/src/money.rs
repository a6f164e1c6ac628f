//! Money: millisatoshis with checked arithmetic, and what tokens cost.

use std::fmt;

use nostr::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

/// An amount in thousandths of a satoshi.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Msat(pub u64);

impl Msat {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// More than all the bitcoin there will ever be: no amount is larger.
    pub const MAX: Self = Self(2_100_000_000_000_000_000);

    /// The amount of this many satoshis, if there is one.
    pub fn from_sat(sat: u64) -> Option<Self> {
        sat.checked_mul(1_000).map(Self).filter(|a| *a <= Self::MAX)
    }

    /// The sum, if it is an amount.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0
            .checked_add(other.0)
            .map(Self)
            .filter(|a| *a <= Self::MAX)
    }

    /// The difference, if it is not negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Msat {
    /// In satoshis, with as many decimals as needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sat, rest) = (self.0 / 1_000, self.0 % 1_000);
        if rest == 0 {
            return write!(f, "{sat} sat");
        }
        let decimals = format!("{rest:03}");
        write!(f, "{sat}.{} sat", decimals.trim_end_matches('0'))
    }
}

/// What tokens cost, in millisatoshis per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Price {
    /// For a million tokens of input.
    pub input_msat: u64,
    /// For a million tokens of output.
    pub output_msat: u64,
}

const MILLION: u128 = 1_000_000;

impl Price {
    /// Nothing at all, for those who donate their machine.
    pub const FREE: Self = Self {
        input_msat: 0,
        output_msat: 0,
    };

    /// Whether work at this price costs nothing.
    pub const fn is_free(&self) -> bool {
        self.input_msat == 0 && self.output_msat == 0
    }

    /// Whether neither part is over the other price's.
    pub const fn is_within(&self, limit: &Self) -> bool {
        self.input_msat <= limit.input_msat && self.output_msat <= limit.output_msat
    }

    /// What these totals cost, rounded up once. Callers pass running totals,
    /// never the pieces, so that rounding cannot add up. `None` if it is more
    /// than all the money there is.
    pub fn cost(&self, input_tokens: u64, output_tokens: u64) -> Option<Msat> {
        let input = u128::from(self.input_msat) * u128::from(input_tokens);
        let output = u128::from(self.output_msat) * u128::from(output_tokens);
        let total = input.checked_add(output)?.div_ceil(MILLION);
        u64::try_from(total)
            .ok()
            .map(Msat)
            .filter(|a| *a <= Msat::MAX)
    }
}

/// How work may be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentKind {
    /// Not at all: the price is 0.
    Free,
    /// By top-ups of a tab between buyer and provider.
    Tab,
    /// By an aggregator that holds the buyer's money until the work is checked.
    Escrow,
}

/// One way of paying, with a provider's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum PaymentTerms {
    /// The price is 0.
    Free,
    /// A tab that is topped up as the work goes on.
    Tab {
        /// The smallest top-up.
        min_payment_msat: Msat,
        /// Output tokens that a buyer without credit pays ahead.
        prepaid_output_tokens: u32,
        /// The Lightning node that signs its invoices. A buyer pays no other; without it, whoever the invoice names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payee: Option<PublicKey>,
    },
    /// Paid by an aggregator after its check.
    Escrow,
}

impl PaymentTerms {
    /// Which way of paying these conditions are about.
    pub const fn kind(&self) -> PaymentKind {
        match self {
            Self::Free => PaymentKind::Free,
            Self::Tab { .. } => PaymentKind::Tab,
            Self::Escrow => PaymentKind::Escrow,
        }
    }
}
