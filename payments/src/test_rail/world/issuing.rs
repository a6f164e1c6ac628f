//! Making invoices, and the hashes and keys that they need.

use std::time::Duration;

use nostr::hashes::{Hash, sha256};
use nostr::secp256k1::{SECP256K1, SecretKey};
use sha2::{Digest, Sha256};

use super::{Bill, World};
use crate::rail::{Ask, Error, Hold, State};
use crate::{Invoice, PaymentHash, Preimage};

/// What invoices say unless they are to be held, as LDK has it.
const DEFAULT_CLTV_DELTA: u16 = 42;

impl World {
    pub(in crate::test_rail) fn bill(
        &mut self,
        account: usize,
        ask: &Ask,
        hold: Option<Hold>,
    ) -> Result<Invoice, Error> {
        let preimage = hold.is_none().then(|| self.preimage());
        let hash = match (&preimage, &hold) {
            (_, Some(hold)) => hold.hash,
            (Some(preimage), None) => preimage.hash(),
            (None, None) => return Err(Error::Refused("an invoice needs a hash".to_owned())),
        };
        let known = self.accounts[account].bills.contains_key(&hash);
        if known {
            return Err(Error::Refused("that hash has an invoice".to_owned()));
        }
        let delta = hold.map_or(DEFAULT_CLTV_DELTA, |hold| hold.min_cltv_expiry_delta);
        let invoice = self.sign(account, ask, hash, delta)?;
        let bill = Bill {
            invoice: invoice.clone(),
            preimage,
            hold,
            state: State::Pending,
        };
        self.accounts[account].bills.insert(hash, bill);
        Ok(invoice)
    }

    fn sign(
        &mut self,
        account: usize,
        ask: &Ask,
        hash: PaymentHash,
        delta: u16,
    ) -> Result<Invoice, Error> {
        let secret = self.draw(b"secret");
        let key = self.accounts[account].key;
        let signed = lightning_invoice::InvoiceBuilder::new(lightning_invoice::Currency::Regtest)
            .amount_milli_satoshis(ask.amount.0)
            .description(ask.description.clone())
            .payment_hash(sha256::Hash::from_byte_array(*hash.as_bytes()))
            .payment_secret(lightning_invoice::PaymentSecret(secret))
            .duration_since_epoch(Duration::from_secs(self.now().as_secs()))
            .min_final_cltv_expiry_delta(delta.into())
            .expiry_time(ask.expiry)
            .basic_mpp()
            .build_signed(|digest| SECP256K1.sign_ecdsa_recoverable(digest, &key))
            .map_err(|error| Error::Refused(error.to_string()))?;
        let invoice = signed.to_string().parse();
        invoice.map_err(|error: crate::InvalidInvoice| Error::Refused(error.to_string()))
    }

    fn preimage(&mut self) -> Preimage {
        Preimage::from_bytes(self.draw(b"preimage"))
    }

    pub(super) fn secret_key(&mut self) -> SecretKey {
        loop {
            // One in 2^128 hashes is no key.
            if let Ok(key) = SecretKey::from_slice(&self.draw(b"node")) {
                return key;
            }
        }
    }

    fn draw(&mut self, what: &[u8]) -> [u8; 32] {
        self.drawn += 1;
        let hash = Sha256::new().chain_update(self.seed).chain_update(what);
        hash.chain_update(self.drawn.to_be_bytes())
            .finalize()
            .into()
    }
}
