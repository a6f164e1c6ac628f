//! Hold invoices: made, settled, cancelled; and given back in time when nobody does either.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ldk_node::lightning::types::payment::{PaymentHash as LdkHash, PaymentPreimage};
use ldk_node::lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};

use crate::fault::{self, Point};
use crate::hold;
use crate::nip47::params::{hash, hash_of, metadata};
use crate::nip47::{Code, MakeHoldInvoice, PaymentHash, Refusal, Settle};
use crate::receive::{check, not_made, tell};
use crate::record::{Connection, Invoice, InvoiceState, NewInvoice};
use crate::wallet::{Wallet, blocking, now};

/// How long settling waits for LDK to say that the money is ours; it takes a round trip to the peer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a hold invoice.
///
/// # Errors
/// What is wrong with the request, a hash that this wallet has seen, or LDK's refusal.
pub async fn make(
    wallet: &Arc<Wallet>,
    by: &Connection,
    request: &MakeHoldInvoice,
) -> Result<Value, Refusal> {
    let payment_hash = hash("payment_hash", &request.payment_hash)?;
    let delta = delta(request.min_cltv_expiry_delta)?;
    let asked = check(wallet, by, &request.invoice)?;
    let row = row(by, request, hex::encode(payment_hash), asked.expiry_s)?;
    // The hash is ours before LDK knows it: two requests cannot both have it.
    if !wallet.records.add_invoice(&row)? {
        return Err(Refusal::other(
            "this wallet has used that payment hash before: look it up, or take a new one",
        ));
    }
    let node = wallet.node.clone();
    let made = blocking(move || {
        let hash = LdkHash(payment_hash);
        node.bolt11_payment().receive_for_hash(
            asked.amount_msat,
            &asked.description,
            asked.expiry_s,
            hash,
        )
    });
    let invoice = made.await?.map_err(not_made)?;
    let invoice = hold::with_delta(&invoice, delta, &wallet.node_secret)
        .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    let expires_at = invoice.expires_at().map(|at| at.as_secs());
    wallet
        .records
        .set_invoice(&row.payment_hash, &invoice.to_string(), expires_at)?;
    tell(wallet, &row.payment_hash)
}

fn row(
    by: &Connection,
    request: &MakeHoldInvoice,
    payment_hash: String,
    expiry_s: u32,
) -> Result<NewInvoice, Refusal> {
    let asked = &request.invoice;
    let created_at = now();
    Ok(NewInvoice {
        payment_hash,
        connection: Some(by.id),
        hold: true,
        invoice: None,
        description: asked.description.clone().filter(|text| !text.is_empty()),
        description_hash: asked.description_hash.clone().filter(|hex| !hex.is_empty()),
        amount_msat: asked.amount,
        created_at,
        // Also where no invoice comes of it: what never expires would count as unpaid for good.
        expires_at: Some(created_at + u64::from(expiry_s)),
        metadata: metadata(asked.metadata.as_ref())?,
    })
}

fn delta(asked: Option<u64>) -> Result<u64, Refusal> {
    match asked.unwrap_or(hold::DEFAULT_DELTA) {
        delta if delta > hold::MAX_DELTA => Err(Refusal::other(format!(
            "min_cltv_expiry_delta can be at most {}: payers refuse more",
            hold::MAX_DELTA
        ))),
        delta => Ok(delta.max(hold::MIN_DELTA)),
    }
}

fn held(wallet: &Wallet, by: &Connection, payment_hash: &str) -> Result<Invoice, Refusal> {
    let row = wallet.records.invoice(payment_hash)?;
    // Who sees everything may still not decide over what others hold.
    row.filter(|row| row.hold && row.connection == Some(by.id))
        .ok_or_else(Refusal::not_found)
}

/// Takes what is held. Answers when it is ours.
///
/// # Errors
/// Nothing that is held, too late, or LDK that does not say so in time.
pub async fn settle(
    wallet: &Arc<Wallet>,
    by: &Connection,
    asked: &Settle,
) -> Result<Value, Refusal> {
    let preimage = hash("preimage", &asked.preimage)?;
    let payment_hash = hash_of(&preimage);
    let row = held(wallet, by, &payment_hash)?;
    match row.state {
        InvoiceState::Open => return Err(Refusal::other("nothing has been paid yet")),
        InvoiceState::Cancelled => {
            return Err(Refusal::other("the payment went back to the payer"));
        }
        InvoiceState::Settled => return Ok(json!({})),
        InvoiceState::Accepted if is_late(wallet, &row) => {
            return Err(Refusal::other(
                "it is too late: the payment goes back to the payer",
            ));
        }
        InvoiceState::Accepted => {
            if !wallet
                .records
                .hold_settling(&payment_hash, &hex::encode(preimage))?
            {
                return Err(Refusal::other(
                    "the payment has just gone back to the payer",
                ));
            }
            fault::point(Point::SettleRecorded);
        }
        InvoiceState::Settling => {}
    }
    claim(wallet, &payment_hash).await?;
    fault::point(Point::SettleClaimed);
    let settled = wallet.wait_for(PATIENCE, || {
        let row = wallet.records.invoice(&payment_hash)?;
        Ok(row.filter(|row| row.state == InvoiceState::Settled))
    });
    match settled.await? {
        Some(_) => Ok(json!({})),
        None => Err(Refusal::new(
            Code::Internal,
            "it is being claimed: look it up, or ask again",
        )),
    }
}

/// Claims what is recorded as to be claimed. LDK may say Ok to anything: only its event is income.
async fn claim(wallet: &Arc<Wallet>, payment_hash: &str) -> Result<(), Refusal> {
    let Some(row) = wallet.records.invoice(payment_hash)? else {
        return Ok(());
    };
    let (Some(preimage), InvoiceState::Settling) = (&row.preimage, row.state) else {
        return Ok(());
    };
    let (hash, preimage) = (
        hash("payment_hash", payment_hash)?,
        hash("preimage", preimage)?,
    );
    let msat = row.received_msat.unwrap_or(row.amount_msat);
    let node = wallet.node.clone();
    let claimed = blocking(move || {
        node.bolt11_payment()
            .claim_for_hash(LdkHash(hash), msat, PaymentPreimage(preimage))
    });
    claimed
        .await?
        .map_err(|error| Refusal::new(Code::Internal, format!("LDK does not claim it: {error}")))
}

/// Gives back what is held, and refuses what comes later.
///
/// # Errors
/// Nothing that could go back.
pub async fn cancel(
    wallet: &Arc<Wallet>,
    by: &Connection,
    asked: &PaymentHash,
) -> Result<Value, Refusal> {
    let payment_hash = hex::encode(hash("payment_hash", &asked.payment_hash)?);
    held(wallet, by, &payment_hash)?;
    give_back(wallet, &payment_hash).await?;
    match wallet.records.invoice(&payment_hash)?.map(|row| row.state) {
        Some(InvoiceState::Cancelled) => Ok(json!({})),
        _ => Err(Refusal::other(
            "it has been settled: it cannot be cancelled any more",
        )),
    }
}

/// Cancels what can still be cancelled, and has LDK fail it.
async fn give_back(wallet: &Arc<Wallet>, payment_hash: &str) -> Result<(), Refusal> {
    if wallet.records.hold_cancelled(payment_hash)? {
        fault::point(Point::CancelRecorded);
        fail(wallet, payment_hash).await?;
        wallet.changed();
    }
    Ok(())
}

/// Has LDK send a payment back.
///
/// # Errors
/// When the wallet fails.
pub async fn fail(wallet: &Arc<Wallet>, payment_hash: &str) -> Result<(), Refusal> {
    let hash = LdkHash(hash("payment_hash", payment_hash)?);
    let node = wallet.node.clone();
    match blocking(move || node.bolt11_payment().fail_for_hash(hash)).await? {
        Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, payment = &payment_hash[..8], "LDK cannot fail a held payment");
            Ok(())
        }
    }
}

fn is_late(wallet: &Wallet, row: &Invoice) -> bool {
    let last = row.claim_deadline.map(hold::last_block);
    last.is_some_and(|last| wallet.height() > last)
}

/// Whether a payment that has come can be held as long as its invoice promised. A payer may leave fewer blocks than
/// the invoice asks for, and LDK does not mind.
pub fn lasts(wallet: &Wallet, row: &Invoice, claim_deadline: Option<u32>) -> bool {
    let invoice = row.invoice.as_deref().map(Bolt11Invoice::from_str);
    match (invoice, claim_deadline) {
        (Some(Ok(invoice)), Some(deadline)) => hold::lasts(
            deadline,
            wallet.height(),
            invoice.min_final_cltv_expiry_delta(),
        ),
        _ => false,
    }
}

/// Gives back what nobody settled and whose deadline comes near, and forgets claims that came too late.
///
/// # Errors
/// When the records cannot be used.
pub async fn sweep(wallet: &Arc<Wallet>) -> Result<(), Refusal> {
    for row in wallet.records.invoices_in(InvoiceState::Accepted)? {
        if is_late(wallet, &row) {
            tracing::warn!(
                payment = &row.payment_hash[..8],
                "nobody settled a hold in time; it goes back"
            );
            give_back(wallet, &row.payment_hash).await?;
        }
    }
    for row in wallet.records.invoices_in(InvoiceState::Settling)? {
        let deadline = row.claim_deadline;
        if deadline.is_some_and(|deadline| hold::is_over(deadline, wallet.height()))
            && wallet.records.hold_lost(&row.payment_hash)?
        {
            tracing::error!(
                payment = &row.payment_hash[..8],
                "a hold was claimed too late; it went back to the payer"
            );
            wallet.changed();
        }
    }
    Ok(())
}

/// After a start: finishes what a crash has left between the record and LDK. Both calls may be made again.
///
/// # Errors
/// When the records cannot be used.
pub async fn resume(wallet: &Arc<Wallet>) -> Result<(), Refusal> {
    for row in wallet.records.invoices_in(InvoiceState::Settling)? {
        if let Err(error) = claim(wallet, &row.payment_hash).await {
            tracing::warn!(%error, payment = &row.payment_hash[..8], "a hold cannot be claimed again");
        }
    }
    let height = wallet.height();
    for row in wallet.records.invoices_in(InvoiceState::Cancelled)? {
        if row
            .claim_deadline
            .is_some_and(|deadline| deadline >= height)
        {
            fail(wallet, &row.payment_hash).await?;
        }
    }
    sweep(wallet).await
}
