//! A wallet as it is seen from outside.

use std::path::Path;

use anyhow::{Context, Result};
use infernet_payments::nip47;
use infernet_payments::rail::{Direction, Payment, PaymentRail, State};
use infernet_protocol::money::Msat;
use infernet_regtest::Wallet;
use nostr::Timestamp;

use super::{Balance, Purse};

/// A wallet that runs somewhere.
pub struct Account {
    /// What it is called.
    pub name: String,
    /// Its connection, for whoever is to use it.
    pub connection: String,
    rail: nip47::Rail,
    process: Option<Wallet>,
}

impl Account {
    /// Connects to a wallet; `program` is the wallet's.
    ///
    /// # Errors
    /// If its connection string makes no sense.
    pub fn open(purse: &Purse, program: &Path) -> Result<Self> {
        let watch: nip47::Connection = purse.watch.parse()?;
        let process = purse.home.as_deref();
        Ok(Self {
            name: purse.name.clone(),
            connection: purse.connection.clone(),
            rail: nip47::Rail::open(&watch, nip47::Options::default())?,
            process: process.map(|home| Wallet::at(program, home, &purse.name)),
        })
    }

    /// The wallet by NIP-47.
    pub fn rail(&self) -> &nip47::Rail {
        &self.rail
    }

    /// All its payments, to it and from it, unpaid invoices too, the oldest first.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn payments(&self) -> Result<Vec<Payment>> {
        Ok(self.rail.list(Timestamp::from(0)).await?)
    }

    /// What it owns.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn balance(&self) -> Result<Balance> {
        let lightning = self.rail.balance().await?;
        let payments = self.payments().await?;
        let fees = payments.iter().try_fold(Msat::ZERO, |sum, payment| {
            sum.checked_add(routing_fee(payment))
        });
        Ok(Balance {
            name: self.name.clone(),
            lightning_msat: lightning.0,
            onchain_sat: self.onchain_sat()?,
            fees_msat: fees.context("fees beyond all money")?.0,
        })
    }

    fn onchain_sat(&self) -> Result<u64> {
        let Some(process) = &self.process else {
            return Ok(0);
        };
        let sats = &process.status()?["onchain_sats"];
        sats.as_u64().context("it tells what it has on the chain")
    }
}

fn routing_fee(payment: &Payment) -> Msat {
    match (payment.direction, payment.state) {
        (Direction::Outgoing, State::Settled { fee, .. }) => fee,
        _ => Msat::ZERO,
    }
}
