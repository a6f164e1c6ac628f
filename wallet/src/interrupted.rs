//! Payments that a crash has left between our record and LDK: asked for again, never guessed at.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ldk_node::LightningBalance;
use ldk_node::lightning_invoice::Bolt11Invoice;
use ldk_node::payment::PaymentStatus;

use crate::nip47::Refusal;
use crate::pay::{LOOKING, Sending, ask, failed, send};
use crate::record::{Payment, PaymentState};
use crate::wallet::Wallet;

/// After a start: records what LDK knows of payments that a crash has left open, and answers those that are open
/// still. They are [finished](finish) once the node's peers are there.
///
/// # Errors
/// When the records cannot be used.
pub fn resume(wallet: &Wallet) -> Result<Vec<Payment>, Refusal> {
    for payment in wallet.records.pending_payments()? {
        ask(wallet, &payment.payment_hash)?;
    }
    Ok(wallet.records.pending_payments()?)
}

/// Whether LDK has written down that it pays.
fn is_known(wallet: &Wallet, payment: &Payment) -> bool {
    let known = wallet.ldk_payment(&payment.payment_hash);
    // What LDK says of an earlier attempt says nothing of this one.
    known.is_some_and(|known| known.status != PaymentStatus::Failed)
}

/// How long an interrupted payment waits for the node's peers to come back before it is tried without them.
const RECONNECTING: Duration = Duration::from_secs(60);

/// Sends an interrupted payment, unless LDK has it, its connection was revoked or its invoice has expired: then it
/// [ends](end).
///
/// # Errors
/// When the records cannot be used.
pub async fn finish(wallet: Arc<Wallet>, payment: Payment) -> Result<(), Refusal> {
    let invoice = Bolt11Invoice::from_str(&payment.invoice)
        .ok()
        .filter(|invoice| !invoice.is_expired());
    let connection = wallet.records.connection(payment.connection)?;
    let is_revoked = connection.is_none_or(|by| by.revoked_at.is_some());
    let Some(invoice) = invoice.filter(|_| !is_revoked && !is_known(&wallet, &payment)) else {
        return end(wallet, payment).await;
    };
    let patience = tokio::time::Instant::now() + RECONNECTING;
    while wallet.can_send_msat() < payment.amount_msat && tokio::time::Instant::now() < patience {
        if !wallet.pause(LOOKING).await {
            return Ok(());
        }
    }
    tracing::info!(
        payment = &payment.payment_hash[..8],
        "asking LDK for a payment that was interrupted"
    );
    let sending = Sending {
        invoice,
        amount_msat: payment.amount_msat,
        fee_limit_msat: payment.fee_limit_msat,
    };
    send(&wallet, sending).await?;
    match is_known(&wallet, &payment) {
        true => Ok(()),
        // LDK says that it has begun, and did not get to write it down.
        false => end(wallet, payment).await,
    }
}

/// How long it must be certain that nothing is under way: what LDK has begun shows in a channel as soon as the
/// channel's peer is back.
const SETTLING: Duration = Duration::from_secs(5);

/// Waits until LDK says what became of a payment, or until it is certain that no channel carries it. A crash can leave
/// a payment that LDK has written down and never began, and one that it began and never wrote down.
///
/// # Errors
/// When the records cannot be used.
pub async fn end(wallet: Arc<Wallet>, payment: Payment) -> Result<(), Refusal> {
    let hash = &payment.payment_hash;
    let mut was_carried = true;
    while is_pending(&wallet, hash)? {
        let is_carried = may_be_carried(&wallet, hash);
        if !was_carried && !is_carried {
            let _turn = wallet.turn();
            // LDK's word comes first: what is not pending any more does not fail.
            ask(&wallet, hash)?;
            return failed(&wallet, hash, NEVER_SENT);
        }
        was_carried = is_carried;
        if !wallet.pause(SETTLING).await {
            return Ok(());
        }
    }
    Ok(())
}

fn is_pending(wallet: &Wallet, hash: &str) -> Result<bool, Refusal> {
    let payment = wallet.records.payment(hash)?;
    Ok(payment.is_some_and(|payment| payment.state == PaymentState::Pending))
}

/// Whether a channel may carry such a payment of ours. A channel tells the hashes of what is worth an output, and of
/// the rest the sum; and it tells all only while its peer is there, or once its end stands in the chain.
fn may_be_carried(wallet: &Wallet, hash: &str) -> bool {
    let channels = wallet.node.list_channels();
    let is_usable = |id| {
        channels
            .iter()
            .any(|one| one.channel_id == id && one.is_usable)
    };
    let balances = wallet.node.list_balances().lightning_balances;
    balances.iter().any(|balance| match balance {
        LightningBalance::ClaimableOnChannelClose {
            channel_id,
            outbound_payment_htlc_rounded_msat,
            ..
        } => !is_usable(*channel_id) || *outbound_payment_htlc_rounded_msat > 0,
        LightningBalance::MaybeTimeoutClaimableHTLC { payment_hash, .. }
        | LightningBalance::ContentiousClaimable { payment_hash, .. } => {
            hex::encode(payment_hash.0) == hash
        }
        _ => false,
    })
}

const NEVER_SENT: &str = "it was interrupted before it was sent";
