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

/// The highest fee: one percent and ten satoshis, unless the client allows less or the budget has less room.
fn fee_limit(amount_msat: u64, asked: Option<u64>) -> u64 {
    let most = (amount_msat / 100).saturating_add(10_000);
    asked.map_or(most, |asked| asked.min(most))
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
    // An old invoice that was paid gives its preimage again; only a new attempt minds its age.
    let before = wallet.records.payment(&order.payment_hash)?;
    if before.is_none_or(|payment| payment.state == PaymentState::Failed) {
        wait_for_peers(wallet, order.amount_msat).await;
        check(wallet, &invoice, &order)?;
    }
    let hash = order.payment_hash.clone();
    match wallet.records.begin_payment(&order, by, now())? {
        Begun::Pay { fee_limit_msat } => {
            fault::point(Point::PayRecorded);
            let sending = Sending {
                invoice,
                amount_msat: order.amount_msat,
                fee_limit_msat,
            };
            send(wallet, sending).await?;
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
        fee_limit_msat: fee_limit(amount_msat, asked.max_fee),
        expires_at: invoice.expires_at().map(|at| at.as_secs()),
        metadata: metadata(asked.metadata.as_ref())?,
    })
}

/// How long a payment waits for the channels' peers: after a restart they are away for a moment.
const PEERS: Duration = Duration::from_secs(10);

/// Waits while the money is there, and its channels cannot be used.
async fn wait_for_peers(wallet: &Wallet, amount_msat: u64) {
    let patience = tokio::time::Instant::now() + PEERS;
    let lacks = || wallet.can_send_msat() < amount_msat && amount_msat <= wallet.balance_msat();
    while lacks() && tokio::time::Instant::now() < patience && wallet.pause(LOOKING).await {}
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
            match wallet.balance_msat() > can_send {
                true => format!(
                    "the wallet can send {can_send} msat now: some of its channels' peers are away"
                ),
                false => format!("the wallet can send {can_send} msat now"),
            },
        )),
        false => Ok(()),
    }
}

/// How long a payment waits for room in the channels while others are under way; see [`Wallet::room_msat`].
const WAITING: Duration = Duration::from_secs(60);

/// How soon it looks for room again. Looking is cheap, and nothing tells when a channel has room: the two nodes agree
/// on that a moment after a payment has ended.
pub(crate) const LOOKING: Duration = Duration::from_millis(100);

/// What LDK is to be asked for.
#[derive(Clone)]
pub(crate) struct Sending {
    pub(crate) invoice: Bolt11Invoice,
    pub(crate) amount_msat: u64,
    pub(crate) fee_limit_msat: u64,
}

impl Sending {
    fn hash(&self) -> String {
        self.invoice.payment_hash().to_string()
    }
}

/// What came of an attempt to send.
#[derive(PartialEq)]
enum Attempt {
    /// LDK has it, or the record says what became of it.
    Done,
    /// Others take up all the room.
    NoRoom,
}

/// Asks LDK to pay what is recorded, once there is room for it, and records a failure that is certain.
pub(crate) async fn send(wallet: &Arc<Wallet>, sending: Sending) -> Result<(), Refusal> {
    let patience = tokio::time::Instant::now() + WAITING;
    loop {
        let is_patient = tokio::time::Instant::now() < patience;
        let (asked, by) = (sending.clone(), wallet.clone());
        let attempt = blocking(move || try_send(&by, &asked, is_patient)).await??;
        if attempt == Attempt::Done || !wallet.pause(LOOKING).await {
            return Ok(());
        }
    }
}

fn try_send(wallet: &Wallet, sending: &Sending, is_patient: bool) -> Result<Attempt, Refusal> {
    let hash = sending.hash();
    let _turn = wallet.turn();
    let payment = wallet.records.payment(&hash)?;
    if payment.is_none_or(|payment| payment.state != PaymentState::Pending) {
        return Ok(Attempt::Done);
    }
    if wallet.room_msat() < sending.amount_msat && is_patient && others_pending(wallet, &hash)? {
        return Ok(Attempt::NoRoom);
    }
    let asked = ask_to_send(wallet, sending);
    fault::point(Point::PaySent);
    match asked {
        Ok(()) => Ok(Attempt::Done),
        Err(error) => refused(wallet, &hash, error).map(|()| Attempt::Done),
    }
}

fn ask_to_send(wallet: &Wallet, sending: &Sending) -> Result<(), NodeError> {
    let limits = Some(RouteParametersConfig {
        max_total_routing_fee_msat: Some(sending.fee_limit_msat),
        ..Default::default()
    });
    let bolt11 = wallet.node.bolt11_payment();
    let sent = match sending.invoice.amount_milli_satoshis() {
        Some(_) => bolt11.send(&sending.invoice, limits),
        None => bolt11.send_using_amount(&sending.invoice, sending.amount_msat, limits),
    };
    sent.map(drop)
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
        | NodeError::NotRunning => failed(wallet, hash, &reason(wallet, error)),
        // LDK has it already, or cannot say: it is pending until LDK says more.
        other => {
            tracing::warn!(error = %other, payment = &hash[..8], "LDK did not take a payment; it stays pending");
            ask(wallet, hash)
        }
    }
}

fn reason(wallet: &Wallet, error: NodeError) -> String {
    match error {
        NodeError::PaymentSendingFailed => format!(
            "no route to the payee has room for it; the wallet's own channels take {} msat at a time now, and LDK 50 \
             payments in each",
            wallet.room_msat()
        ),
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
    let _turn = wallet.turn();
    // LDK tells this at least once: by now it may be at another attempt.
    let known = wallet.ldk_payment(hash);
    if known.is_some_and(|known| known.status != PaymentStatus::Failed) {
        return Ok(());
    }
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
    let sending = Sending {
        invoice,
        amount_msat: payment.amount_msat,
        fee_limit_msat: payment.fee_limit_msat,
    };
    if let Err(error) = send(&wallet, sending).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fee_is_bounded_by_the_wallet_and_by_the_client() {
        assert_eq!(fee_limit(1_000_000, None), 20_000);
        assert_eq!(fee_limit(1_000_000, Some(500)), 500);
        assert_eq!(fee_limit(1_000_000, Some(30_000)), 20_000);
        assert_eq!(fee_limit(u64::MAX, Some(0)), 0);
    }
}
