//! Paying an invoice, once.
//!
//! The intent is recorded before LDK is asked. What became of it is for LDK to say: by an event, or when asked with
//! the same payment id, which is the payment hash and which LDK never sends to twice while it knows it. So after a
//! crash the same call can be made again: LDK either has the payment (and says `DuplicatePayment`), or nothing of it
//! ever left, and it is sent now for the first time.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ldk_node::NodeError;
use ldk_node::lightning::events::PaymentFailureReason;
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::lightning_invoice::Bolt11Invoice;
use ldk_node::payment::{PaymentKind, PaymentStatus};
use serde_json::{Value, json};

use crate::fault::{self, Point};
use crate::nip47::params::{MAX_INVOICE, metadata};
use crate::nip47::{Code, PAYMENT_SENT, PayInvoice, Refusal, Transaction, transaction};
use crate::record::{Begun, Connection, Order, Payment, PaymentState};
use crate::wallet::{Wallet, blocking, now};

/// How long a request waits for its payment. Then it is not answered: the payment is still pending, and an error
/// would be taken for a failure. The client looks it up, asks again, or hears of it by a notification.
const PATIENCE: Duration = Duration::from_secs(600);

/// The highest fee: one percent and ten satoshis, unless the budget has less room.
fn fee_limit(amount_msat: u64) -> u64 {
    (amount_msat / 100).saturating_add(10_000)
}

/// Pays; nothing while it stays pending.
///
/// # Errors
/// What is wrong with the invoice, the budget, the balance, or why the payment failed.
pub async fn pay(
    wallet: &Arc<Wallet>,
    by: &Connection,
    asked: &PayInvoice,
) -> Result<Option<Value>, Refusal> {
    let invoice = read(wallet, &asked.invoice)?;
    let order = order(&invoice, asked)?;
    // An old invoice that was paid gives its preimage again; only a new payment minds its age.
    if wallet.records.payment(&order.payment_hash)?.is_none() {
        check(wallet, &invoice, &order)?;
    }
    let hash = order.payment_hash.clone();
    match wallet.records.begin_payment(&order, by, now())? {
        Begun::Pay { fee_limit_msat } => {
            fault::point(Point::PayRecorded);
            send(wallet, invoice, order.amount_msat, fee_limit_msat).await?;
        }
        Begun::Pending => {}
        Begun::Paid(payment) => return Ok(Some(proof(&payment))),
        Begun::Elsewhere => {
            return Err(Refusal::other(
                "another connection pays or has paid this invoice",
            ));
        }
        Begun::Own => return Err(Refusal::other("this invoice is the wallet's own")),
        Begun::OverBudget { left_msat } => {
            let message = format!("this connection's budget has {left_msat} msat left");
            return Err(Refusal::new(Code::QuotaExceeded, message));
        }
    }
    outcome(wallet, &hash).await
}

/// Waits for what becomes of a payment.
async fn outcome(wallet: &Wallet, hash: &str) -> Result<Option<Value>, Refusal> {
    let ended = wallet.wait_for(PATIENCE, || match wallet.records.payment(hash)? {
        Some(payment) if payment.state == PaymentState::Pending => Ok(None),
        other => Ok(other),
    });
    match ended.await? {
        Some(payment) if payment.state == PaymentState::Paid => Ok(Some(proof(&payment))),
        Some(payment) => {
            let reason = payment.failure.unwrap_or_default();
            Err(Refusal::new(
                Code::PaymentFailed,
                format!("nothing was paid: {reason}"),
            ))
        }
        None => Ok(None),
    }
}

fn proof(payment: &Payment) -> Value {
    json!({ "preimage": payment.preimage, "fees_paid": payment.fee_paid_msat.unwrap_or(0) })
}

fn read(wallet: &Wallet, text: &str) -> Result<Bolt11Invoice, Refusal> {
    if text.len() > MAX_INVOICE {
        return Err(Refusal::other(format!(
            "the invoice is longer than {MAX_INVOICE} characters"
        )));
    }
    let text = text.trim();
    let text = text.strip_prefix("lightning:").unwrap_or(text);
    let invoice = Bolt11Invoice::from_str(text)
        .map_err(|_| Refusal::other("this is no BOLT 11 invoice, or its signature is wrong"))?;
    match invoice.network() == wallet.network {
        true => Ok(invoice),
        false => Err(Refusal::other(format!(
            "the invoice is for another network; this wallet is on {}",
            wallet.network
        ))),
    }
}

fn order(invoice: &Bolt11Invoice, asked: &PayInvoice) -> Result<Order, Refusal> {
    let amount_msat = match (invoice.amount_milli_satoshis(), asked.amount) {
        (Some(named), Some(amount)) if named != amount => {
            return Err(Refusal::other(format!(
                "the invoice asks for {named} msat, not for {amount}"
            )));
        }
        (None, None) => {
            return Err(Refusal::other(
                "the invoice names no amount: say how much to pay",
            ));
        }
        (Some(0), _) | (None, Some(0)) => return Err(Refusal::other("nothing cannot be paid")),
        (Some(msat), _) | (None, Some(msat)) => msat,
    };
    let (description, description_hash) = transaction::description(invoice);
    Ok(Order {
        payment_hash: invoice.payment_hash().to_string(),
        invoice: invoice.to_string(),
        description,
        description_hash,
        amount_msat,
        fee_limit_msat: fee_limit(amount_msat),
        expires_at: invoice.expires_at().map(|at| at.as_secs()),
        metadata: metadata(asked.metadata.as_ref())?,
    })
}

/// What can be known to fail before anything is recorded.
fn check(wallet: &Wallet, invoice: &Bolt11Invoice, order: &Order) -> Result<(), Refusal> {
    if invoice.is_expired() {
        return Err(Refusal::other(
            "the invoice has expired: ask the payee for a new one",
        ));
    }
    if wallet.records.invoice(&order.payment_hash)?.is_some() {
        return Err(Refusal::other("this invoice is the wallet's own"));
    }
    let can_send = wallet.can_send_msat();
    match order.amount_msat > can_send {
        true => Err(Refusal::new(
            Code::InsufficientBalance,
            format!("the wallet can send {can_send} msat now"),
        )),
        false => Ok(()),
    }
}

/// How long a payment waits for room in the channels while others are under way: a channel carries 50 of them and a
/// tenth of its value at a time.
const WAITING: Duration = Duration::from_secs(60);

/// How soon it looks for room again.
pub(crate) const LOOKING: Duration = Duration::from_millis(250);

/// Asks LDK to pay what is recorded, and records a failure that is certain.
pub(crate) async fn send(
    wallet: &Arc<Wallet>,
    invoice: Bolt11Invoice,
    amount_msat: u64,
    fee_msat: u64,
) -> Result<(), Refusal> {
    let hash = invoice.payment_hash().to_string();
    let patience = tokio::time::Instant::now() + WAITING;
    loop {
        let asked = try_send(wallet, invoice.clone(), amount_msat, fee_msat).await?;
        fault::point(Point::PaySent);
        match asked {
            Ok(()) => return Ok(()),
            // Nothing has left. Where others are under way, they may be what is in the way.
            Err(NodeError::PaymentSendingFailed)
                if tokio::time::Instant::now() < patience && others_pending(wallet, &hash)? =>
            {
                tokio::select! {
                    () = tokio::time::sleep(LOOKING) => {}
                    () = wallet.stop.cancelled() => return Ok(()),
                }
            }
            Err(error) => return refused(wallet, &hash, error),
        }
    }
}

async fn try_send(
    wallet: &Wallet,
    invoice: Bolt11Invoice,
    amount_msat: u64,
    fee_msat: u64,
) -> Result<Result<(), NodeError>, Refusal> {
    let node = wallet.node.clone();
    blocking(move || {
        let limits = RouteParametersConfig {
            max_total_routing_fee_msat: Some(fee_msat),
            ..Default::default()
        };
        let sent = match invoice.amount_milli_satoshis() {
            Some(_) => node.bolt11_payment().send(&invoice, Some(limits)),
            None => node
                .bolt11_payment()
                .send_using_amount(&invoice, amount_msat, Some(limits)),
        };
        sent.map(drop)
    })
    .await
}

fn others_pending(wallet: &Wallet, hash: &str) -> Result<bool, Refusal> {
    let pending = wallet.records.pending_payments()?;
    Ok(pending.iter().any(|other| {
        let known = wallet.ldk_payment(&other.payment_hash);
        other.payment_hash != hash
            && known.is_some_and(|known| known.status == PaymentStatus::Pending)
    }))
}

/// What LDK's refusal means: a failure, if nothing can have left.
fn refused(wallet: &Wallet, hash: &str, error: NodeError) -> Result<(), Refusal> {
    match error {
        NodeError::PaymentSendingFailed
        | NodeError::InvalidInvoice
        | NodeError::InvalidAmount
        | NodeError::NotRunning => failed(wallet, hash, &reason(error)),
        // LDK has it already, or cannot say: it is pending until LDK says more.
        other => {
            tracing::warn!(error = %other, payment = &hash[..8], "LDK did not take a payment; it stays pending");
            ask(wallet, hash)
        }
    }
}

fn reason(error: NodeError) -> String {
    match error {
        NodeError::PaymentSendingFailed => "no route to the payee has enough capacity".to_owned(),
        other => other.to_string(),
    }
}

/// Asks LDK what became of a payment, and records it if it is final.
///
/// # Errors
/// When the records cannot be written.
pub fn ask(wallet: &Wallet, hash: &str) -> Result<(), Refusal> {
    let (Some(known), Some(payment)) = (wallet.ldk_payment(hash), wallet.records.payment(hash)?)
    else {
        return Ok(());
    };
    match (known.status, known.kind) {
        (
            PaymentStatus::Succeeded,
            PaymentKind::Bolt11 {
                preimage: Some(preimage),
                ..
            },
        ) => paid(
            wallet,
            hash,
            &hex::encode(preimage.0),
            known.fee_paid_msat.unwrap_or(0),
        ),
        // What LDK says of an earlier attempt says nothing of this one.
        (PaymentStatus::Failed, _) if known.latest_update_timestamp >= payment.created_at => {
            failed(wallet, hash, "no route led to the payee in time")
        }
        _ => Ok(()),
    }
}

/// Records a payment that was made, and has its client told.
///
/// # Errors
/// When the records cannot be written.
pub fn paid(wallet: &Wallet, hash: &str, preimage: &str, fee_msat: u64) -> Result<(), Refusal> {
    fault::point(Point::PaySucceeded);
    let is_news = wallet
        .records
        .payment_paid(hash, preimage, fee_msat, now())?;
    fault::point(Point::PaidRecorded);
    if let (true, Some(payment)) = (is_news, wallet.records.payment(hash)?) {
        wallet.tell(
            Some(payment.connection),
            PAYMENT_SENT,
            Transaction::of_payment(&payment),
        );
    }
    wallet.changed();
    Ok(())
}

/// LDK gave a payment up: nothing of it is under way. One that found no room among others is tried again for a
/// while; it stays pending.
///
/// # Errors
/// When the records cannot be used.
pub fn given_up(
    wallet: &Arc<Wallet>,
    hash: &str,
    reason: Option<PaymentFailureReason>,
) -> Result<(), Refusal> {
    let payment = wallet.records.payment(hash)?;
    let is_young = |payment: &Payment| {
        payment.state == PaymentState::Pending && now() < payment.created_at + WAITING.as_secs()
    };
    if reason == Some(PaymentFailureReason::RouteNotFound)
        && let Some(payment) = payment.filter(is_young)
        && others_pending(wallet, hash)?
    {
        tokio::spawn(again(wallet.clone(), payment));
        return Ok(());
    }
    let reason = reason.map_or_else(String::new, |reason| format!("{reason:?}"));
    failed(wallet, hash, &reason)
}

async fn again(wallet: Arc<Wallet>, payment: Payment) {
    tokio::time::sleep(LOOKING).await;
    let Ok(invoice) = Bolt11Invoice::from_str(&payment.invoice) else {
        return;
    };
    let sent = send(
        &wallet,
        invoice,
        payment.amount_msat,
        payment.fee_limit_msat,
    )
    .await;
    if let Err(error) = sent {
        tracing::error!(%error, "a payment cannot be tried again");
    }
}

/// Records a payment that failed.
///
/// # Errors
/// When the records cannot be written.
pub fn failed(wallet: &Wallet, hash: &str, reason: &str) -> Result<(), Refusal> {
    wallet.records.payment_failed(hash, reason)?;
    wallet.changed();
    Ok(())
}
