//! Payments that a crash has left between our record and LDK: asked for again, never guessed at.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ldk_node::lightning_invoice::Bolt11Invoice;
use ldk_node::payment::PaymentStatus;

use crate::nip47::Refusal;
use crate::pay::{LOOKING, ask, failed, send};
use crate::record::Payment;
use crate::wallet::{Wallet, now};

/// After a start: records what LDK knows of payments that a crash has left open, and answers those of which it knows
/// nothing. They are [finished](finish) once the node's peers are there.
///
/// # Errors
/// When the records cannot be used.
pub fn resume(wallet: &Wallet) -> Result<Vec<Payment>, Refusal> {
    let mut interrupted = Vec::new();
    for payment in wallet.records.pending_payments()? {
        ask(wallet, &payment.payment_hash)?;
        let known = wallet.ldk_payment(&payment.payment_hash);
        // What LDK says of an earlier attempt says nothing of this one.
        let is_known = known.is_some_and(|known| {
            known.status != PaymentStatus::Failed
                || known.latest_update_timestamp >= payment.created_at
        });
        if !is_known {
            interrupted.push(payment);
        }
    }
    Ok(interrupted)
}

/// How long an interrupted payment waits for the node's peers to come back before it is tried without them.
const RECONNECTING: Duration = Duration::from_secs(60);

/// Sends an interrupted payment, unless its connection was revoked or its invoice has expired.
///
/// # Errors
/// When the records cannot be used.
pub async fn finish(wallet: Arc<Wallet>, payment: Payment) -> Result<(), Refusal> {
    let invoice = Bolt11Invoice::from_str(&payment.invoice)
        .ok()
        .filter(|invoice| !invoice.is_expired());
    let connection = wallet.records.connection(payment.connection)?;
    let (Some(invoice), Some(None)) = (invoice, connection.map(|by| by.revoked_at)) else {
        return give_up_if_old(&wallet, &payment);
    };
    let patience = tokio::time::Instant::now() + RECONNECTING;
    while wallet.can_send_msat() < payment.amount_msat && tokio::time::Instant::now() < patience {
        tokio::select! {
            () = tokio::time::sleep(LOOKING) => {}
            () = wallet.stop.cancelled() => return Ok(()),
        }
    }
    tracing::info!(
        payment = &payment.payment_hash[..8],
        "asking LDK for a payment that was interrupted"
    );
    send(
        &wallet,
        invoice,
        payment.amount_msat,
        payment.fee_limit_msat,
    )
    .await
}

/// How long LDK could still come up with an interrupted payment that it does not know: no HTLC outlives its longest
/// route (1,008 blocks, a week), and its claim on the chain is final within another.
const FORGOTTEN_AFTER_S: u64 = 14 * 86_400;

fn give_up_if_old(wallet: &Wallet, payment: &Payment) -> Result<(), Refusal> {
    match now() > payment.created_at + FORGOTTEN_AFTER_S {
        true => failed(
            wallet,
            &payment.payment_hash,
            "it was interrupted before it was sent",
        ),
        false => Ok(()),
    }
}
