//! What LDK tells: recorded first, then acknowledged. Each event comes at least once, also after it was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use ldk_node::Event;
use ldk_node::payment::PaymentKind;

use crate::fault::{self, Point};
use crate::nip47::{HOLD_INVOICE_ACCEPTED, PAYMENT_RECEIVED, Refusal, Transaction};
use crate::record::{InvoiceState, NewInvoice};
use crate::wallet::{Wallet, now};
use crate::{holding, pay};

/// The pause before an event that could not be recorded is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How often holds are looked at; blocks come every ten minutes.
const SWEEP: Duration = Duration::from_secs(2);

/// Takes in what waits, without waiting for more: before anybody is served, the records must know what LDK knows.
///
/// # Errors
/// When the records cannot be written.
pub async fn drain(wallet: &Arc<Wallet>) -> Result<(), Refusal> {
    while let Some(event) = wallet.node.next_event() {
        take(wallet, event).await?;
        acknowledge(wallet);
    }
    Ok(())
}

/// Takes in events until the wallet stops, and gives back holds in time.
pub async fn run(wallet: Arc<Wallet>) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            event = wallet.node.next_event_async() => {
                match take(&wallet, event).await {
                    Ok(()) => acknowledge(&wallet),
                    Err(error) => {
                        tracing::error!(%error, "an event of LDK cannot be recorded; trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            _ = sweep.tick() => {
                if let Err(error) = holding::sweep(&wallet).await {
                    tracing::error!(%error, "holds cannot be looked at");
                }
            }
            () = wallet.stop.cancelled() => return,
        }
    }
}

fn acknowledge(wallet: &Wallet) {
    if let Err(error) = wallet.node.event_handled() {
        tracing::warn!(%error, "LDK will tell this again");
    }
}

async fn take(wallet: &Arc<Wallet>, event: Event) -> Result<(), Refusal> {
    match event {
        Event::PaymentSuccessful {
            payment_hash,
            payment_preimage,
            fee_paid_msat,
            ..
        } => {
            let preimage = payment_preimage.map(|preimage| hex::encode(preimage.0));
            let hash = hex::encode(payment_hash.0);
            pay::paid(
                wallet,
                &hash,
                &preimage.unwrap_or_default(),
                fee_paid_msat.unwrap_or(0),
            )?;
        }
        Event::PaymentFailed {
            payment_hash: Some(hash),
            reason,
            ..
        } => {
            pay::given_up(wallet, &hex::encode(hash.0), reason)?;
        }
        Event::PaymentReceived {
            payment_hash,
            amount_msat,
            ..
        } => {
            received(wallet, &hex::encode(payment_hash.0), amount_msat)?;
        }
        Event::PaymentClaimable {
            payment_hash,
            claimable_amount_msat,
            claim_deadline,
            ..
        } => {
            let hash = hex::encode(payment_hash.0);
            claimable(wallet, &hash, claimable_amount_msat, claim_deadline).await?;
        }
        Event::ChannelReady { channel_id, .. } => {
            tracing::info!(channel = %channel_id, "a channel is ready")
        }
        Event::ChannelClosed {
            channel_id, reason, ..
        } => {
            let reason = reason.map_or_else(String::new, |reason| reason.to_string());
            tracing::warn!(channel = %channel_id, reason, "a channel is closed");
        }
        Event::PaymentFailed {
            payment_hash: None, ..
        }
        | Event::PaymentForwarded { .. }
        | Event::ChannelPending { .. }
        | Event::SplicePending { .. }
        | Event::SpliceFailed { .. } => {}
    }
    wallet.changed();
    Ok(())
}

fn received(wallet: &Wallet, hash: &str, msat: u64) -> Result<(), Refusal> {
    fault::point(Point::Received);
    if wallet.records.invoice(hash)?.is_none() {
        // Money that nobody asked for by an invoice of ours: a keysend, or the start of a bought channel.
        wallet.records.add_invoice(&unasked(hash, msat))?;
    }
    let preimage = wallet.ldk_payment(hash).and_then(|known| match known.kind {
        PaymentKind::Bolt11 { preimage, .. }
        | PaymentKind::Bolt11Jit { preimage, .. }
        | PaymentKind::Spontaneous { preimage, .. } => preimage,
        _ => None,
    });
    let preimage = preimage.map(|preimage| hex::encode(preimage.0));
    let is_news = wallet
        .records
        .received(hash, msat, preimage.as_deref(), now())?;
    if let (true, Some(row)) = (is_news, wallet.records.invoice(hash)?) {
        wallet.tell(
            row.connection,
            PAYMENT_RECEIVED,
            Transaction::of_invoice(&row, now()),
        );
    }
    Ok(())
}

fn unasked(hash: &str, msat: u64) -> NewInvoice {
    NewInvoice {
        payment_hash: hash.to_owned(),
        connection: None,
        hold: false,
        invoice: None,
        description: None,
        description_hash: None,
        amount_msat: msat,
        created_at: now(),
        expires_at: None,
        metadata: None,
    }
}

async fn claimable(
    wallet: &Arc<Wallet>,
    hash: &str,
    msat: u64,
    deadline: Option<u32>,
) -> Result<(), Refusal> {
    let before = wallet.records.invoice(hash)?;
    if let Some(row) = before.filter(|row| row.state == InvoiceState::Open)
        && !holding::lasts(wallet, &row, deadline)
    {
        tracing::warn!(
            payment = &hash[..8],
            "a payer leaves too few blocks for holding; it goes back"
        );
        return holding::fail(wallet, hash).await;
    }
    let is_news = wallet.records.hold_accepted(hash, msat, deadline)?;
    let row = wallet.records.invoice(hash)?;
    match row.as_ref().map(|row| row.state) {
        Some(InvoiceState::Accepted) => {}
        // It was told again after a restart: claim again.
        Some(InvoiceState::Settling) => return holding::resume(wallet).await,
        // Cancelled before it came, paid twice, or never asked for.
        _ => return holding::fail(wallet, hash).await,
    }
    if let (true, Some(row)) = (is_news, row) {
        wallet.tell(
            row.connection,
            HOLD_INVOICE_ACCEPTED,
            Transaction::of_invoice(&row, now()),
        );
    }
    Ok(())
}
