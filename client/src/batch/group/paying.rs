//! Paying for a group, if its invoice is what it should be.

use infernet_node::{clock, mortality};
use infernet_payments::ledger::Standing;
use infernet_protocol::batch::{BlobKey, invoice_description};
use infernet_protocol::money::{Msat, PaymentKind};

use tokio::task::JoinHandle;

use super::{Course, Error, Invoice, News};
use crate::purse::{Hold, Purse};

/// What rounding may add to the price of a group.
const ROUNDING: Msat = Msat(3);

impl Course {
    /// The aggregator wants money to be held. What is not paid now is looked at again with its next word.
    pub(super) async fn pay(&mut self, text: &str) -> Result<(), Error> {
        if self
            .paying
            .as_ref()
            .is_some_and(|paying| !paying.is_finished())
        {
            return Ok(());
        }
        let invoice = match self.checked(text) {
            Ok(invoice) => invoice,
            Err(why) => {
                self.say_once(&why);
                return Ok(());
            }
        };
        let Some(purse) = self.shared.purse.clone() else {
            self.say_once("there is no wallet to pay with");
            return Ok(());
        };
        let is_known = self.kept.invoice.as_deref() == Some(text);
        if !is_known && self.may_be_paid().await? {
            self.say_once("it asks to be paid twice, and is not");
            return Ok(());
        }
        match purse.hold_standing(&invoice.hash()).await? {
            Some(Standing::UnderWay | Standing::Held | Standing::Settled) => return Ok(()),
            Some(Standing::Failed) => {
                self.say_once("the payment did not go through; another invoice is waited for");
                return Ok(());
            }
            // A process before this one was about to pay it.
            Some(Standing::Planned) => {}
            None if self.is_too_much(&purse, invoice.amount()).await? => {
                self.say_once("it asks for more in all than its quote allows");
                return Ok(());
            }
            None => {}
        }
        if let Err(flaw) = purse.is_payable_here(&invoice).await {
            self.say_once(&flaw.to_string());
            return Ok(());
        }
        self.shared.journal.pays(self.kept.number, text).await?;
        self.kept.invoice = Some(text.to_owned());
        mortality::point("hold-noted");
        let (group, amount) = (self.kept.number, invoice.amount());
        // A payment that a limit forbids for now is tried again and again.
        if self.named.replace(text.to_owned()).as_deref() != Some(text) {
            self.shared.tell(News::Paying { group, amount });
        }
        self.paying = Some(self.hold(purse, invoice));
        Ok(())
    }

    /// Whether so much more for an order would be more than was quoted.
    async fn is_too_much(&self, purse: &Purse, more: Msat) -> Result<bool, Error> {
        let held = purse.held_for(&self.shared.order).await?;
        let rounding = ROUNDING.0 * (u64::from(self.kept.number) + 1);
        Ok(held.0 + more.0 > self.shared.quote.most_msat.0 + rounding)
    }

    /// Has it paid, while the group is followed on.
    fn hold(&self, purse: Purse, invoice: Invoice) -> JoinHandle<()> {
        let shared = self.shared.clone();
        let group = self.kept.number;
        tokio::spawn(async move {
            let hold = Hold {
                order: shared.order,
                aggregator: shared.aggregator,
                invoice,
            };
            if let Err(trouble) = purse.hold(hold).await {
                let why = trouble.why;
                shared.tell(News::Unpaid { group, why });
            }
        })
    }

    /// The invoice, if it is for this group and no more than the quote allows for it.
    fn checked(&self, text: &str) -> Result<Invoice, String> {
        let shared = &self.shared;
        if shared.quote.terms != PaymentKind::Escrow {
            return Err("it asks for money, and the quote is free".into());
        }
        let invoice: Invoice = text.parse().map_err(|_| "its invoice cannot be read")?;
        let expected = invoice_description(&shared.order, self.kept.number);
        if invoice.description() != Some(expected) {
            return Err("its invoice does not name the group".into());
        }
        let most = shared.quote.most_for(&self.kept.size);
        if most.is_none_or(|most| invoice.amount() > most) {
            return Err("its invoice asks for more than the quote allows".into());
        }
        match invoice.is_expired(clock::now()) {
            true => Err("its invoice has run out".into()),
            false => Ok(invoice),
        }
    }

    /// Whether money of ours may be held, or was taken, for this group.
    pub(super) async fn may_be_paid(&self) -> Result<bool, Error> {
        let (Some(text), Some(purse)) = (&self.kept.invoice, &self.shared.purse) else {
            return Ok(false);
        };
        let Ok(invoice) = text.parse::<Invoice>() else {
            return Ok(false);
        };
        let standing = purse.hold_standing(&invoice.hash()).await?;
        Ok(matches!(
            standing,
            Some(Standing::UnderWay | Standing::Held | Standing::Settled)
        ))
    }

    /// The wallet may know the preimage before the aggregator says it, or without that it ever does.
    pub(super) async fn open_with_the_wallets_preimage(&mut self) -> Result<(), Error> {
        let (Some(text), Some(purse)) = (&self.kept.invoice, self.shared.purse.clone()) else {
            return Ok(());
        };
        let Ok(invoice) = text.parse::<Invoice>() else {
            return Ok(());
        };
        if self.kept.delivery.is_none() {
            return Ok(());
        }
        let hash = invoice.hash();
        if purse.hold_standing(&hash).await? != Some(Standing::Settled) {
            return Ok(());
        }
        match purse.preimage(&hash).await {
            Some(preimage) => self.open(&BlobKey::of_delivery(preimage.as_bytes())).await,
            None => Ok(()),
        }
    }
}
