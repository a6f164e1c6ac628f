//! Who paid whom.

use std::fmt;

use anyhow::Result;
use infernet_payments::PaymentHash;
use infernet_payments::rail::{Direction, Payment, State};
use infernet_protocol::money::Msat;
use nostr::Timestamp;

use super::Account;

/// A payment that was made between two of the wallets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// When the payer had it settled.
    pub at: Timestamp,
    /// Who paid.
    pub from: String,
    /// Who was paid, if it is one of the wallets.
    pub to: Option<String>,
    /// What the payee got.
    pub amount: Msat,
    /// What routing cost the payer.
    pub fee: Msat,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.as_deref().unwrap_or("somebody else");
        let seconds = self.at.as_secs() % 86_400;
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{hour:02}:{minute:02}:{second:02}  {:<8} to {to:<8} {:>12}  routing {}",
            self.from,
            self.amount.to_string(),
            self.fee
        )
    }
}

/// All payments that these wallets have made, in the order in which they were settled.
///
/// # Errors
/// If a wallet does not answer.
pub async fn made(accounts: &[Account]) -> Result<Vec<Made>> {
    let mut seen = Vec::new();
    for account in accounts {
        for payment in account.payments().await? {
            seen.push((account.name.as_str(), payment));
        }
    }
    let mut all: Vec<Made> = seen
        .iter()
        .filter_map(|(from, payment)| outgoing(from, payment, &seen))
        .collect();
    all.sort_by_key(|made| made.at);
    Ok(all)
}

fn outgoing(from: &str, payment: &Payment, seen: &[(&str, Payment)]) -> Option<Made> {
    let (Direction::Outgoing, State::Settled { at, fee, .. }) = (payment.direction, payment.state)
    else {
        return None;
    };
    Some(Made {
        at,
        from: from.to_owned(),
        to: payee(&payment.hash, seen),
        amount: payment.amount,
        fee,
    })
}

fn payee(hash: &PaymentHash, seen: &[(&str, Payment)]) -> Option<String> {
    seen.iter()
        .find(|(_, payment)| payment.direction == Direction::Incoming && payment.hash == *hash)
        .map(|(name, _)| (*name).to_owned())
}
