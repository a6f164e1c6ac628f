//! The totals as evidence: signed, and bound to the two sides and the award.

use nostr::secp256k1::schnorr::Signature;
use nostr::secp256k1::{Message, SECP256K1};
use nostr::{EventId, Keys, PublicKey};
use sha2::{Digest, Sha256};

use super::Totals;

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
    use infernet_protocol::money::Msat;

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
}
