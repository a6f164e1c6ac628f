//! What a connection may know: the wallet, its balance, and the connection's own invoices and payments.

use std::str::FromStr;

use ldk_node::lightning_invoice::Bolt11Invoice;
use serde_json::{Value, json};

use crate::nip47::params::{MAX_INVOICE, hash};
use crate::nip47::{
    Direction, GetTransactions, LookupInvoice, Method, NOTIFICATIONS, Refusal, Transaction,
};
use crate::record::Connection;
use crate::wallet::{Wallet, now, sees, sight};

/// The most transactions in one answer: with their invoices they must fit into one event of 64 KB.
const MAX_LISTED: u64 = 50;

/// And the most bytes of them, before encryption makes them longer.
const MAX_LISTED_BYTES: usize = 40_000;

/// How far back one may page; a client that wants more narrows `from` and `until`.
const MAX_OFFSET: u64 = 10_000;

/// `get_info`.
pub fn info(wallet: &Wallet, by: &Connection) -> Value {
    let best = wallet.node.status().current_best_block;
    let methods: Vec<&str> = by.methods.iter().map(|method| method.name()).collect();
    let network = match wallet.network {
        ldk_node::bitcoin::Network::Bitcoin => "mainnet".to_owned(),
        other => other.to_string(),
    };
    json!({
        "alias": wallet.alias,
        "color": "",
        "pubkey": wallet.node.node_id().to_string(),
        "network": network,
        "block_height": best.height,
        "block_hash": best.block_hash.to_string(),
        "methods": methods,
        "notifications": NOTIFICATIONS.into_iter().filter(|kind| hears(by, kind)).collect::<Vec<_>>(),
    })
}

/// Whether a connection is told of that kind of news: what it may cause, it hears of.
pub fn hears(by: &Connection, kind: &str) -> bool {
    let may = |method| by.methods.contains(&method);
    match kind {
        crate::nip47::PAYMENT_SENT => may(Method::PayInvoice),
        crate::nip47::PAYMENT_RECEIVED => may(Method::MakeInvoice) || may(Method::MakeHoldInvoice),
        crate::nip47::HOLD_INVOICE_ACCEPTED => may(Method::MakeHoldInvoice),
        _ => false,
    }
}

/// `get_balance`.
pub fn balance(wallet: &Wallet) -> Value {
    json!({ "balance": wallet.balance_msat() })
}

/// `lookup_invoice`.
///
/// # Errors
/// No hash, or one that this connection does not know.
pub fn lookup(wallet: &Wallet, by: &Connection, asked: &LookupInvoice) -> Result<Value, Refusal> {
    let hash = match (&asked.payment_hash, &asked.invoice) {
        (Some(hex), _) => hex::encode(hash("payment_hash", hex)?),
        (None, Some(text)) if text.len() <= MAX_INVOICE => Bolt11Invoice::from_str(text.trim())
            .map_err(|_| Refusal::other("this is no BOLT 11 invoice"))?
            .payment_hash()
            .to_string(),
        _ => return Err(Refusal::other("say which: payment_hash or invoice")),
    };
    if let Some(row) = wallet.records.invoice(&hash)?
        && sees(by, row.connection)
    {
        return Ok(json!(Transaction::of_invoice(&row, now())));
    }
    let row = wallet.records.payment(&hash)?;
    let row = row.filter(|row| sees(by, Some(row.connection)));
    row.map(|row| json!(Transaction::of_payment(&row)))
        .ok_or_else(Refusal::not_found)
}

/// `list_transactions`.
///
/// # Errors
/// When the records cannot be read.
pub fn list(wallet: &Wallet, by: &Connection, asked: &GetTransactions) -> Result<Value, Refusal> {
    let (from, until) = (asked.from.unwrap_or(0), asked.until.unwrap_or(u64::MAX));
    let limit = asked.limit.unwrap_or(MAX_LISTED).clamp(1, MAX_LISTED);
    let offset = asked.offset.unwrap_or(0).min(MAX_OFFSET);
    let unpaid = asked.unpaid.unwrap_or(false);
    let (most, whose) = (offset + limit, sight(by));
    let mut all: Vec<Transaction> = Vec::new();
    if asked.direction != Some(Direction::Outgoing) {
        let rows = wallet.records.invoices(whose, from, until, unpaid, most)?;
        all.extend(rows.iter().map(|row| Transaction::of_invoice(row, now())));
    }
    if asked.direction != Some(Direction::Incoming) {
        let rows = wallet.records.payments(whose, from, until, unpaid, most)?;
        all.extend(rows.iter().map(Transaction::of_payment));
    }
    all.sort_by(|one, other| {
        let newest_first = other.created_at.cmp(&one.created_at);
        newest_first.then_with(|| one.payment_hash.cmp(&other.payment_hash))
    });
    let page = all
        .into_iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX));
    Ok(json!({ "transactions": fitting(page.take(usize::try_from(limit).unwrap_or(0))) }))
}

/// As many as fit into one answer, and at least one; the reader goes on with `offset`.
fn fitting(page: impl Iterator<Item = Transaction>) -> Vec<Value> {
    let mut bytes = 0;
    let mut fitting = Vec::new();
    for transaction in page.map(|transaction| json!(transaction)) {
        bytes += transaction.to_string().len();
        if bytes > MAX_LISTED_BYTES && !fitting.is_empty() {
            break;
        }
        fitting.push(transaction);
    }
    fitting
}
