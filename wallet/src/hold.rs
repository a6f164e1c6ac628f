//! How long a hold may last, and the invoice that makes it so.
//!
//! LDK writes a delta of 42 blocks into every invoice, of which 5 are left for holding. So the invoice is signed anew
//! with more of them. The payment secret says nothing of the delta: whoever had LDK's own invoice could pay that, so
//! it never leaves this module's caller.

use ldk_node::bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use ldk_node::lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use ldk_node::lightning_invoice::{
    Bolt11Invoice, Bolt11InvoiceDescription, Bolt11InvoiceDescriptionRef, CreationError,
    InvoiceBuilder,
};

/// Blocks that the last hop leaves unless the client asks for more: about 18 hours for holding.
pub const DEFAULT_DELTA: u64 = 144;

/// The fewest blocks that leave an hour or more for holding, with all safety margins.
pub const MIN_DELTA: u64 = 72;

/// A payer refuses a route of more than 1,007 blocks in all, of which each hop takes 72 or so.
pub const MAX_DELTA: u64 = 720;

/// How many blocks before LDK would fail a hold we give it back ourselves: at the deadline itself, a claim says Ok and
/// fails all the same.
const MARGIN: u32 = 12;

/// The last block at which a hold can be settled; at the next it is cancelled.
pub fn last_block(claim_deadline: u32) -> u32 {
    claim_deadline.saturating_sub(MARGIN)
}

/// How many blocks a payer, or a payment under way, may be behind.
const SLACK: u32 = 6;

/// Whether what came at `height` can be held for as long as an invoice with that delta promised.
pub fn lasts(claim_deadline: u32, height: u32, delta: u64) -> bool {
    let delta = u32::try_from(delta).unwrap_or(u32::MAX);
    // LDK keeps some for itself: it fails a hold before the payer could take it back.
    let least = delta.saturating_sub(HTLC_FAIL_BACK_BUFFER + SLACK);
    claim_deadline >= height.saturating_add(least)
}

/// Whether a claim that LDK has not confirmed by now came to nothing: a payment that was still there at its deadline
/// has gone back, and one that was claimed before has been told long since.
pub fn is_over(claim_deadline: u32, height: u32) -> bool {
    height > claim_deadline.saturating_add(MARGIN)
}

/// Why an invoice cannot be signed anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be put together.
    #[error("the hold invoice cannot be made: {0:?}")]
    Creation(CreationError),
    /// Our key is not the node's.
    #[error("the hold invoice would not be signed by this node")]
    Signature,
}

/// The same invoice, with another delta.
///
/// # Errors
/// See [`Error`].
pub fn with_delta(
    invoice: &Bolt11Invoice,
    delta: u64,
    key: &SecretKey,
) -> Result<Bolt11Invoice, Error> {
    let description = match invoice.description() {
        Bolt11InvoiceDescriptionRef::Direct(text) => Bolt11InvoiceDescription::Direct(text.clone()),
        Bolt11InvoiceDescriptionRef::Hash(hash) => Bolt11InvoiceDescription::Hash(hash.clone()),
    };
    let mut builder = InvoiceBuilder::new(invoice.currency())
        .invoice_description(description)
        .payment_hash(*invoice.payment_hash())
        .payment_secret(*invoice.payment_secret())
        .duration_since_epoch(invoice.duration_since_epoch())
        .min_final_cltv_expiry_delta(delta)
        .expiry_time(invoice.expiry_time())
        .basic_mpp();
    if let Some(msat) = invoice.amount_milli_satoshis() {
        builder = builder.amount_milli_satoshis(msat);
    }
    if let Some(payee) = invoice.payee_pub_key() {
        builder = builder.payee_pub_key(*payee);
    }
    for route in invoice.route_hints() {
        builder = builder.private_route(route);
    }
    let signed = builder
        .build_signed(|hash: &Message| Secp256k1::signing_only().sign_ecdsa_recoverable(hash, key))
        .map_err(Error::Creation)?;
    let same = signed.recover_payee_pub_key() == invoice.recover_payee_pub_key();
    match same && signed.check_signature().is_ok() {
        true => Ok(signed),
        false => Err(Error::Signature),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use ldk_node::bitcoin::hashes::{Hash, sha256};
    use ldk_node::lightning::types::payment::PaymentSecret;
    use ldk_node::lightning_invoice::Currency;

    use super::*;

    #[test]
    fn a_hold_lasts_if_the_payer_left_what_was_asked_for() {
        // As seen: 144 leaves 107, 42 leaves 5.
        assert!(lasts(1_107, 1_000, 144));
        assert!(lasts(1_107, 1_008, 144));
        assert!(!lasts(1_107, 1_009, 144));
        assert!(!lasts(1_005, 1_000, 144));
        assert!(!is_over(1_000, 1_012) && is_over(1_000, 1_013));
    }

    #[test]
    fn only_the_delta_changes() {
        let key = SecretKey::from_slice(&[7; 32]).unwrap();
        let sign = |hash: &Message| Secp256k1::new().sign_ecdsa_recoverable(hash, &key);
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description("a thing".into())
            .payment_hash(sha256::Hash::hash(&[1]))
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(Duration::from_secs(1_700_000_000))
            .min_final_cltv_expiry_delta(42)
            .expiry_time(Duration::from_secs(99))
            .amount_milli_satoshis(12_345)
            .basic_mpp()
            .build_signed(sign)
            .unwrap();
        let longer = with_delta(&invoice, 144, &key).unwrap();
        assert_eq!(longer.min_final_cltv_expiry_delta(), 144);
        let told = |one: &Bolt11Invoice| {
            let hints = one.route_hints().len();
            let said = crate::nip47::transaction::description(one);
            let money = (
                one.amount_milli_satoshis(),
                *one.payment_hash(),
                *one.payment_secret(),
            );
            (
                hints,
                said,
                money,
                one.expires_at(),
                one.features().cloned(),
                one.recover_payee_pub_key(),
            )
        };
        assert_eq!(told(&longer), told(&invoice));
        let stranger = SecretKey::from_slice(&[8; 32]).unwrap();
        assert!(matches!(
            with_delta(&invoice, 144, &stranger),
            Err(Error::Signature)
        ));
    }
}
