//! The receipt of an attempt (kind 8604), as its buyer states it.

use infernet_payments::PaymentHash;
use infernet_protocol::bounds::MAX_PAYMENTS;
use infernet_protocol::event::{Receipt, ReceiptSide, TabTotals, Usage, V1};
use infernet_protocol::seal::{Digest, Domain, Salt, salted_hash};
use nostr::{EventId, PublicKey};

use super::Attempt;
use super::attempts::Moved;

/// What an attempt has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Done {
    /// How much was done.
    pub usage: Usage,
    /// The result, if one came.
    pub result: Option<EventId>,
}

pub(super) fn receipt(
    attempt: &Attempt,
    buyer: &PublicKey,
    done: Done,
    moved: Moved,
    payments: &[PaymentHash],
    tab: TabTotals,
) -> Receipt {
    let payments = payments.iter().take(MAX_PAYMENTS);
    let payments = payments.map(|hash| salted(hash, &attempt.salt, &attempt.award, buyer));
    Receipt {
        v: V1,
        job: attempt.job,
        award: attempt.award,
        attempt: attempt.number,
        result: done.result,
        side: ReceiptSide::Buyer,
        counterparty: attempt.provider,
        usage: done.usage,
        due_msat: moved.charged,
        paid_msat: moved.paid,
        payments: payments.collect(),
        tab: Some(tab),
    }
}

/// A payment's hash as a receipt of this author shows it.
pub(crate) fn salted(
    hash: &PaymentHash,
    salt: &Salt,
    award: &EventId,
    author: &PublicKey,
) -> Digest {
    salted_hash(Domain::Payment, salt, award, author, hash.as_bytes())
}
