//! The running totals of a tab, as either side signs them (`nips/tab.md`).
//!
//! A buyer and a provider keep a tab: the buyer tops it up, work is charged to it, and both sign its totals after
//! every piece. What is signed is bound to the two and to the award, so that it is evidence in nobody else's case.

use nostr::secp256k1::schnorr::Signature;
use nostr::secp256k1::{Message, SECP256K1};
use nostr::{EventId, Keys, PublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bounds::{MAX_SAFE_INTEGER, at_most};
use crate::event::Refusal;
use crate::money::Msat;

/// Running totals of one job, and of the tab it is on, as one side sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// The job's input tokens, the prefix counted in.
    pub input_tokens: u64,
    /// The job's output tokens so far.
    pub output_tokens: u64,
    /// What these cost.
    pub due_msat: Msat,
    /// What all jobs on the tab have cost, this one counted in.
    pub tab_due_msat: Msat,
    /// What the buyer has paid, less what it was paid back.
    pub tab_paid_msat: Msat,
}

impl Totals {
    /// Refuses numbers that are out of bounds.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn validate(&self) -> Result<(), Refusal> {
        at_most("input_tokens", self.input_tokens, MAX_SAFE_INTEGER)?;
        at_most("output_tokens", self.output_tokens, MAX_SAFE_INTEGER)?;
        at_most("due_msat", self.due_msat.0, Msat::MAX.0)?;
        at_most("tab_due_msat", self.tab_due_msat.0, Msat::MAX.0)?;
        at_most("tab_paid_msat", self.tab_paid_msat.0, Msat::MAX.0)
    }
}

/// Totals with their signature, as they travel. Who signed them follows from the message that they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTotals {
    /// What was signed.
    #[serde(flatten)]
    pub totals: Totals,
    /// Schnorr signature (BIP-340) of [`Statement::digest`].
    pub signature: Signature,
}

/// A signature that is not this author's under this statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the totals are not signed by who sent them")]
pub struct Forged;

/// What one side says of a tab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Who pays.
    pub buyer: PublicKey,
    /// Who is paid.
    pub provider: PublicKey,
    /// For which work.
    pub award: EventId,
    /// The totals.
    pub totals: Totals,
}

impl Statement {
    /// What is signed: sha256("infernet/tab/1" ‖ buyer ‖ provider ‖ award ‖ the five totals), numbers as big-endian
    /// 64-bit integers.
    pub fn digest(&self) -> [u8; 32] {
        let Totals {
            input_tokens,
            output_tokens,
            due_msat,
            tab_due_msat,
            tab_paid_msat,
        } = self.totals;
        let mut hash = Sha256::new();
        hash.update(b"infernet/tab/1");
        hash.update(self.buyer.as_bytes());
        hash.update(self.provider.as_bytes());
        hash.update(self.award.as_bytes());
        for number in [
            input_tokens,
            output_tokens,
            due_msat.0,
            tab_due_msat.0,
            tab_paid_msat.0,
        ] {
            hash.update(number.to_be_bytes());
        }
        hash.finalize().into()
    }

    /// Signs it.
    pub fn sign(&self, keys: &Keys) -> Signature {
        keys.sign_schnorr(&Message::from_digest(self.digest()))
    }

    /// Its totals, signed, to be sent.
    pub fn signed(&self, keys: &Keys) -> SignedTotals {
        SignedTotals {
            totals: self.totals,
            signature: self.sign(keys),
        }
    }

    /// Checks who signed it.
    ///
    /// # Errors
    /// It was somebody else, or another statement.
    pub fn verify(&self, author: &PublicKey, signature: &Signature) -> Result<(), Forged> {
        let author = author.xonly().map_err(|_| Forged)?;
        let message = Message::from_digest(self.digest());
        let checked = SECP256K1.verify_schnorr(signature, &message, &author);
        checked.map_err(|_| Forged)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_signature_is_for_one_author_and_one_statement() {
        let (buyer, provider) = (Keys::generate(), Keys::generate());
        let statement = Statement {
            buyer: buyer.public_key(),
            provider: provider.public_key(),
            award: EventId::all_zeros(),
            totals: Totals::default(),
        };
        let signature = statement.sign(&buyer);
        assert_eq!(statement.verify(&buyer.public_key(), &signature), Ok(()));
        let by_another = statement.verify(&provider.public_key(), &signature);
        assert_eq!(by_another, Err(Forged));
        let mut changed = statement;
        changed.totals.tab_paid_msat = Msat(1);
        let of_another = changed.verify(&buyer.public_key(), &signature);
        assert_eq!(of_another, Err(Forged));
    }

    #[test]
    fn totals_beyond_all_bounds_are_refused() {
        let good = Totals::default();
        good.validate().unwrap();
        let tokens = MAX_SAFE_INTEGER + 1;
        let msat = Msat(Msat::MAX.0 + 1);
        let bad = [
            Totals {
                input_tokens: tokens,
                ..good
            },
            Totals {
                output_tokens: tokens,
                ..good
            },
            Totals {
                due_msat: msat,
                ..good
            },
            Totals {
                tab_due_msat: msat,
                ..good
            },
            Totals {
                tab_paid_msat: msat,
                ..good
            },
        ];
        for totals in bad {
            assert!(totals.validate().is_err(), "{totals:?}");
        }
    }
}
