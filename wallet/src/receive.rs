//! Invoices whose payment is ours at once, and what every invoice has in common.

use std::sync::Arc;

use ldk_node::bitcoin::hashes::{Hash, sha256};
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description, Sha256};
use serde_json::{Value, json};

use crate::nip47::params::{hash, metadata};
use crate::nip47::{Code, MakeInvoice, Refusal, Transaction};
use crate::record::{Connection, NewInvoice};
use crate::wallet::{Wallet, blocking, now};

/// How long an invoice lives unless the client says otherwise (as BOLT 11 has it), and at most.
const DEFAULT_EXPIRY_S: u64 = 3_600;
const MAX_EXPIRY_S: u64 = 7 * 86_400;

/// How many unpaid invoices a connection may have: LDK keeps each in memory.
const MAX_OPEN_INVOICES: u64 = 1_000;

/// What BOLT 11 has room for.
const MAX_DESCRIPTION: usize = 639;

/// What is asked for, checked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// In msat.
    pub amount_msat: u64,
    /// What it is for.
    pub description: Bolt11InvoiceDescription,
    /// In seconds.
    pub expiry_s: u32,
}

/// Checks what every invoice has in common.
///
/// # Errors
/// What is wrong with it.
pub fn check(wallet: &Wallet, by: &Connection, asked: &MakeInvoice) -> Result<Asked, Refusal> {
    if asked.amount == 0 {
        return Err(Refusal::other("an invoice needs an amount in msat"));
    }
    if wallet.records.open_invoices(by.id, now())? >= MAX_OPEN_INVOICES {
        let message = format!(
            "this connection has {MAX_OPEN_INVOICES} unpaid invoices: wait until some expire"
        );
        return Err(Refusal::new(Code::RateLimited, message));
    }
    let expiry = asked.expiry.unwrap_or(DEFAULT_EXPIRY_S);
    if !(1..=MAX_EXPIRY_S).contains(&expiry) {
        return Err(Refusal::other(format!(
            "an invoice lives 1 to {MAX_EXPIRY_S} seconds"
        )));
    }
    Ok(Asked {
        amount_msat: asked.amount,
        description: description(asked)?,
        expiry_s: u32::try_from(expiry).unwrap_or(u32::MAX),
    })
}

fn description(asked: &MakeInvoice) -> Result<Bolt11InvoiceDescription, Refusal> {
    if let Some(hex) = asked
        .description_hash
        .as_deref()
        .filter(|hex| !hex.is_empty())
    {
        let hash = hash("description_hash", hex)?;
        return Ok(Bolt11InvoiceDescription::Hash(Sha256(
            sha256::Hash::from_byte_array(hash),
        )));
    }
    let text = asked.description.clone().unwrap_or_default();
    if text.len() > MAX_DESCRIPTION {
        return Err(Refusal::other(format!(
            "the description is longer than {MAX_DESCRIPTION} bytes: give its description_hash"
        )));
    }
    Description::new(text)
        .map(Bolt11InvoiceDescription::Direct)
        .map_err(|_| Refusal::other("the description cannot stand in an invoice"))
}

/// Makes an invoice.
///
/// # Errors
/// What is wrong with the request, or LDK's refusal.
pub async fn make(
    wallet: &Arc<Wallet>,
    by: &Connection,
    request: &MakeInvoice,
) -> Result<Value, Refusal> {
    let asked = check(wallet, by, request)?;
    let metadata = metadata(request.metadata.as_ref())?;
    let node = wallet.node.clone();
    let made = blocking(move || {
        node.bolt11_payment()
            .receive(asked.amount_msat, &asked.description, asked.expiry_s)
    });
    let invoice = made.await?.map_err(not_made)?;
    let row = NewInvoice {
        payment_hash: invoice.payment_hash().to_string(),
        connection: Some(by.id),
        hold: false,
        invoice: Some(invoice.to_string()),
        description: request.description.clone().filter(|text| !text.is_empty()),
        description_hash: request
            .description_hash
            .clone()
            .filter(|hex| !hex.is_empty()),
        amount_msat: request.amount,
        created_at: invoice.duration_since_epoch().as_secs(),
        expires_at: invoice.expires_at().map(|at| at.as_secs()),
        metadata,
    };
    wallet.records.add_invoice(&row)?;
    tell(wallet, &row.payment_hash)
}

/// LDK could not make an invoice.
pub fn not_made(error: ldk_node::NodeError) -> Refusal {
    Refusal::new(
        Code::Internal,
        format!("the invoice cannot be made: {error}"),
    )
}

/// An invoice as its client is told.
///
/// # Errors
/// When the records cannot be read.
pub fn tell(wallet: &Wallet, payment_hash: &str) -> Result<Value, Refusal> {
    let row = wallet
        .records
        .invoice(payment_hash)?
        .ok_or_else(Refusal::not_found)?;
    Ok(json!(Transaction::of_invoice(&row, now())))
}
