//! Kind 8608: what an aggregator would do a batch for.

use nostr::{PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::{validate_name, validate_price, validate_relays};
use super::{Accepts, Body, Checkers, Refusal, V1, expiration, tag};
use crate::batch::{Charge, Size};
use crate::bounds::{
    MAX_ACCEPTED_MODELS, MAX_FEE_PPM, MAX_SAFE_INTEGER, MAX_TERMS_BYTES, at_most, count, instant,
};
use crate::inference::Task;
use crate::kinds;
use crate::money::{Msat, PaymentKind, Price};
use crate::seal::Digest;

/// What an aggregator would do a batch for. Travels inside the order that takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quote {
    /// The protocol's version.
    pub v: V1,
    /// A random number: two equal quotes of the same second are two.
    pub nonce: u64,
    /// For whom.
    pub buyer: PublicKey,
    /// The kind of work.
    pub task: Task,
    /// The models that will do, as the buyer said.
    pub accepts: Vec<Accepts>,
    /// The size of the batch, as the buyer guessed.
    pub size: Size,
    /// The most that a provider is paid. A line costs what its provider asks.
    pub price: Price,
    /// The fee on accepted work, in millionths.
    pub fee_ppm: u32,
    /// The most that checking costs, in millionths of the work.
    pub checking_ppm: u32,
    /// The most that the whole costs.
    pub most_msat: Msat,
    /// How it is paid: free, or escrow.
    pub terms: PaymentKind,
    /// Who may see the work to check it.
    pub checkers: Checkers,
    /// How much is checked.
    pub checking: Checking,
    /// sha256 of the secret that chooses what is checked
    /// ([`crate::verification::Secret::commitment`]); the settlement that closes the
    /// order reveals it.
    pub commitment: Digest,
    /// Seconds that the whole will take, as the aggregator guesses.
    pub seconds: u64,
    /// Until when it can be taken, in Unix seconds.
    pub valid_until: Timestamp,
    /// When it must be done, in Unix seconds.
    pub deadline: Timestamp,
    /// Where the aggregator listens.
    pub relays: Vec<RelayUrl>,
}

/// How much of a batch is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checking {
    /// Nothing: nobody may see the work.
    None,
    /// Every result.
    Full,
    /// Every result of a provider that has not yet shown itself, fewer of one that
    /// has, and never fewer than this.
    Adaptive {
        /// In millionths.
        least_ppm: u32,
    },
}

impl Checking {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        match self {
            Self::None | Self::Full => Ok(()),
            Self::Adaptive { least_ppm } => at_most("least_ppm", (*least_ppm).into(), 1_000_000),
        }
    }
}

impl Quote {
    /// The most that a part of the batch may cost, by the guesses of its size: its work at the highest price, and on
    /// that, each rounded up, checking and fee. `None` if that is more than there is.
    pub fn most_for(&self, size: &Size) -> Option<Msat> {
        let work = self.price.cost(size.input_tokens, size.output_tokens)?;
        let most = Charge {
            work_msat: work,
            checking_msat: share(work, self.checking_ppm),
            fee_msat: share(work, self.fee_ppm),
        };
        Some(most.total()).filter(|most| *most < Msat::MAX)
    }

    /// Whether a charge for so many tokens keeps to the quote: its work to the highest price, checking and fee to
    /// their shares of that work, each rounded up.
    pub fn allows(&self, charge: &Charge, input_tokens: u64, output_tokens: u64) -> bool {
        let work = self.price.cost(input_tokens, output_tokens);
        work.is_some_and(|work| charge.work_msat <= work) && self.allows_shares(charge)
    }

    /// Whether checking and fee of a charge keep to their shares of its work, each rounded up.
    pub fn allows_shares(&self, charge: &Charge) -> bool {
        charge.checking_msat <= share(charge.work_msat, self.checking_ppm)
            && charge.fee_msat <= share(charge.work_msat, self.fee_ppm)
    }
}

/// So many millionths of an amount, rounded up.
fn share(amount: Msat, ppm: u32) -> Msat {
    let share = (u128::from(amount.0) * u128::from(ppm)).div_ceil(1_000_000);
    u64::try_from(share).map_or(Msat::MAX, Msat)
}

impl Body for Quote {
    const KIND: u16 = kinds::QUOTE;
    const MAX_CONTENT_BYTES: usize = MAX_TERMS_BYTES * 2;

    fn tags(&self) -> Vec<Tag> {
        vec![
            tag(["p", &self.buyer.to_hex()]),
            tag(["t", self.task.as_str()]),
            expiration(self.valid_until),
        ]
    }

    fn alt(&self) -> String {
        format!(
            "What a batch of {} lines would cost: at most {}",
            self.size.lines, self.most_msat
        )
    }

    fn validate(&self, author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        at_most("nonce", self.nonce, MAX_SAFE_INTEGER)?;
        count("accepted models", self.accepts.len(), MAX_ACCEPTED_MODELS)?;
        for accepted in &self.accepts {
            if let Accepts::Name(name) = accepted {
                validate_name("model name", name)?;
            }
        }
        self.size.validate()?;
        validate_price(&self.price)?;
        at_most("fee_ppm", self.fee_ppm.into(), MAX_FEE_PPM.into())?;
        at_most("checking_ppm", self.checking_ppm.into(), 10_000_000)?;
        at_most("most_msat", self.most_msat.0, Msat::MAX.0)?;
        self.checking.validate()?;
        at_most("seconds", self.seconds, MAX_SAFE_INTEGER)?;
        validate_relays(&self.relays)?;
        instant("valid_until", self.valid_until)?;
        instant("deadline", self.deadline)?;
        if self.accepts.is_empty() {
            return Err(Refusal::Invalid("it accepts no model"));
        }
        if self.valid_until <= created_at || self.deadline < self.valid_until {
            return Err(Refusal::Invalid("its times are not in order"));
        }
        if (self.checkers == Checkers::Nobody) != (self.checking == Checking::None) {
            return Err(Refusal::Invalid("who checks, and how much, do not agree"));
        }
        match self.terms {
            PaymentKind::Free if self.most_msat != Msat::ZERO => {
                Err(Refusal::Invalid("free terms with a price"))
            }
            PaymentKind::Tab => Err(Refusal::Invalid("a batch is not paid by a tab")),
            _ if self.buyer == *author => Err(Refusal::Invalid("nobody quotes to itself")),
            PaymentKind::Free | PaymentKind::Escrow => Ok(()),
        }
    }
}
