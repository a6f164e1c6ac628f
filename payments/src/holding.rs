//! Holding a buyer's money, and taking it or giving it back, so that no crash does both or neither.
//!
//! The preimage and what the hold is for are written down before the wallet is asked for its invoice. What is wanted of
//! it is decided once, in the ledger; from then on [`Cashier::pursue`] tells the wallet again and again, until the
//! wallet says that it is so. That a call succeeds says nothing; that a payment is settled, or has failed, does.

use std::time::Duration;

use infernet_node::mortality;
use nostr::Timestamp;

use crate::cashier::{Cashier, Error, REQUEST_LIFE};
use crate::ledger::{self, Caps, Hold, HoldDue, PlannedHold, Standing, Will};
use crate::rail::{self, Ask, Direction, Payment, State};
use crate::{Invoice, PaymentHash, Preimage};

/// What a hold's invoice says, and how long its payment can be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldTerms {
    /// What for, in words that the payer sees.
    pub description: String,
    /// How long it can be paid.
    pub expiry: Duration,
    /// Blocks that the last hop must be given.
    pub min_cltv_expiry_delta: u16,
    /// How many invoices may wait to be paid.
    pub caps: Caps,
}

impl Cashier {
    /// Has money held for a group: the invoice is made, or the one that was. What the buyer's credit covers needs
    /// none. To be called by one at a time: a hold that is only planned was left by a crash, and is given up for a new
    /// one.
    ///
    /// # Errors
    /// [`ledger::Error::TooManyInvoices`]; [`ledger::Error::Conflict`] if it is another buyer's group; what the wallet
    /// refuses.
    pub async fn hold(
        &self,
        due: &HoldDue,
        terms: &HoldTerms,
        now: Timestamp,
    ) -> Result<Hold, Error> {
        if let Some(left) = self.ledger().hold(&due.order, due.group).await?
            && left.standing() == Standing::Planned
            && left.due.buyer == due.buyer
        {
            self.ledger().will_cancel(&left.key, &[], now).await?;
            self.give_up_planned_hold(&left, now).await?;
        }
        let preimage = Preimage::from_bytes(rand::random());
        let planned = self.ledger().plan_hold(due, &preimage, terms.caps, now);
        let hold = match planned.await? {
            PlannedHold::Before(hold) => return Ok(hold),
            PlannedHold::Now(hold) => hold,
        };
        mortality::point("hold-planned");
        if hold.intent.is_some() {
            self.invoice_for(&hold, terms, now).await?;
        }
        let hold = self.ledger().hold_of(&hold.key).await?;
        Ok(hold.ok_or(ledger::Error::Damaged("a hold that is gone"))?)
    }

    async fn invoice_for(
        &self,
        hold: &Hold,
        terms: &HoldTerms,
        now: Timestamp,
    ) -> Result<(), Error> {
        match self.made(hold, terms).await {
            Ok(invoice) => {
                mortality::point("hold-invoiced");
                self.ledger().invoiced(&hold.key, &invoice, now).await?;
                Ok(())
            }
            Err(error) => {
                // It may have been made all the same. Nobody has seen it.
                self.ledger().will_cancel(&hold.key, &[], now).await?;
                if let Err(error) = self.give_up_planned_hold(hold, now).await {
                    tracing::debug!(%error, "an invoice that nobody has seen is not taken back yet");
                }
                Err(error.into())
            }
        }
    }

    async fn made(&self, hold: &Hold, terms: &HoldTerms) -> Result<Invoice, rail::Error> {
        let amount = hold.intent.as_ref().map(|intent| intent.amount);
        let ask = Ask {
            amount: amount.unwrap_or_default(),
            description: terms.description.clone(),
            expiry: terms.expiry,
        };
        let asked = rail::Hold {
            hash: hold.preimage.hash(),
            min_cltv_expiry_delta: terms.min_cltv_expiry_delta,
        };
        let invoice = self.rail().make_hold_invoice(&ask, &asked).await?;
        match invoice.hash() == asked.hash && invoice.amount() == ask.amount {
            true => Ok(invoice),
            false => Err(rail::Error::Nonsense(
                "an invoice for something else".to_owned(),
            )),
        }
    }

    /// Ends a hold whose invoice nobody has seen, so that nothing can come of it.
    async fn give_up_planned_hold(&self, hold: &Hold, now: Timestamp) -> Result<(), Error> {
        match self.rail().cancel(&hold.preimage.hash()).await {
            Ok(()) => {}
            // Nobody has its invoice: there is nothing that could be taken from the buyer.
            Err(error) if !error.is_temporary() => {}
            Err(error) => return Err(error.into()),
        }
        self.end_hold(hold, now).await
    }

    /// Brings a hold nearer to what is wanted of it, and decides what time has decided: what was not paid before its
    /// invoice ran out, and what was not claimed before its deadline, goes back. To be called again and again.
    ///
    /// # Errors
    /// [`Error::Rail`] if the wallet cannot be asked; [`Error::Ledger`].
    pub async fn pursue(&self, hold: &Hold, now: Timestamp) -> Result<(), Error> {
        if hold.is_over() {
            return Ok(());
        }
        match hold.will {
            None if is_too_late(hold, now) => {
                // Whoever has decided to claim it meanwhile was first.
                match self.ledger().will_cancel(&hold.key, &[], now).await? {
                    true => self.cancel_hold(hold, now).await,
                    false => Ok(()),
                }
            }
            None => Ok(()),
            Some(Will::Cancel) => self.cancel_hold(hold, now).await,
            Some(Will::Claim(_)) => self.claim_hold(hold, now).await,
        }
    }

    async fn claim_hold(&self, hold: &Hold, now: Timestamp) -> Result<(), Error> {
        mortality::point("claim-begun");
        let told = self.rail().settle(&hold.preimage).await;
        mortality::point("claimed");
        if let Err(error) = told {
            tracing::debug!(%error, group = hold.due.group, "a hold is not claimed yet");
        }
        self.look_at_hold(hold, now).await.map(drop)
    }

    async fn cancel_hold(&self, hold: &Hold, now: Timestamp) -> Result<(), Error> {
        if hold.intent.is_none() {
            return Ok(());
        }
        if hold.standing() == Standing::Planned {
            return self.give_up_planned_hold(hold, now).await;
        }
        mortality::point("cancel-begun");
        let told = self.rail().cancel(&hold.preimage.hash()).await;
        mortality::point("cancelled");
        let said = self.look_at_hold(hold, now).await?;
        // A wallet may go on calling an invoice unpaid that it has withdrawn and that has run out.
        let is_withdrawn = told.is_ok() && said.is_some_and(|said| said.state == State::Pending);
        match is_withdrawn && invoice_is_over(hold, now) {
            true => self.end_hold(hold, now).await,
            false => Ok(()),
        }
    }

    /// Books what the wallet says of a hold.
    async fn look_at_hold(&self, hold: &Hold, now: Timestamp) -> Result<Option<Payment>, Error> {
        let hash: PaymentHash = hold.preimage.hash();
        let said = self.rail().look_up(Direction::Incoming, &hash).await?;
        if let Some(said) = &said {
            let notice = rail::Notice::Changed(said.clone());
            self.hear(&notice, now).await?;
        }
        Ok(said)
    }
}

/// Whether nobody can still make something of a hold that is not decided.
fn is_too_late(hold: &Hold, now: Timestamp) -> bool {
    match hold.standing() {
        _ if now >= hold.due.until => true,
        // Whoever has planned it has died: it would have been asked for long ago.
        Standing::Planned => {
            let intent = hold.intent.as_ref();
            intent.is_some_and(|intent| now >= intent.changed_at + REQUEST_LIFE)
        }
        Standing::UnderWay => invoice_is_over(hold, now),
        Standing::Held | Standing::Settled | Standing::Failed => false,
    }
}

/// Whether its invoice has run out, and what was on its way then has come.
fn invoice_is_over(hold: &Hold, now: Timestamp) -> bool {
    let invoice = hold
        .intent
        .as_ref()
        .and_then(|intent| intent.invoice.as_ref());
    invoice.is_some_and(|invoice| invoice.is_expired(now - REQUEST_LIFE))
}
