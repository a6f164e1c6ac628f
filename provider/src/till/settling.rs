//! The end of a paid attempt: it is charged once, and its receipt written.
//!
//! The outcome is in the store before anything here begins, so that a restart
//! does what is still to be done in the same way.

use infernet_node::{clock, mortality};
use infernet_payments::PaymentHash;
use infernet_payments::ledger::{self, Account, Posting, Reason, Standing};
use infernet_protocol::bounds::MAX_PAYMENTS;
use infernet_protocol::event::{Body, Receipt, ReceiptSide, TabTotals, Usage, V1};
use infernet_protocol::money::Msat;
use infernet_protocol::seal::{Digest, Domain, salted_hash};
use nostr::{Event, EventId, PublicKey};

use super::{Error, Loan, Till};
use crate::store::{Kept, Outcome, Ticket};

impl Till {
    /// Charges an attempt whose outcome is in the store, and answers its receipt,
    /// which is in the outbox; none if no money has moved.
    pub async fn settle(&self, award: &EventId, buyer: &PublicKey) -> Option<Event> {
        let settled = self.settle_one(award).await;
        match settled {
            Ok(receipt) => {
                if let Some(account) = self.account(buyer) {
                    self.let_go(&account);
                }
                receipt
            }
            Err(error) => {
                tracing::error!(%award, %error, "an attempt is not charged; the next start does it");
                None
            }
        }
    }

    /// Charges an attempt in escrow whose outcome is in the store. What it might have
    /// cost counts as lent until the ledger has what it did cost.
    pub async fn settle_lent(&self, award: &EventId, loan: Loan) {
        match self.settle_one(award).await {
            Ok(_) => drop(loan),
            Err(error) => {
                tracing::error!(%award, %error, "an attempt is not charged; the next start does it");
                // It stays lent as long as this process knows no better.
                std::mem::forget(loan);
            }
        }
    }

    /// An attempt is over that never began: what was paid for it stays on the
    /// tab, and has a receipt.
    pub async fn leave(&self, award: &EventId) -> Option<Event> {
        let left = async {
            let outcome = Outcome::default();
            self.0.store.conclude(award, &outcome).await?;
            self.settle_one(award).await
        };
        left.await.unwrap_or_else(|error| {
            tracing::error!(%award, %error, "an attempt that was left has no receipt yet");
            None
        })
    }

    /// Makes good for an earlier process that died: charges what it had done and
    /// not charged. What has no result is charged as its buyer acknowledged it.
    ///
    /// # Errors
    /// The store's, the ledger's.
    pub async fn recover(&self) -> Result<(), Error> {
        for Kept { ticket, outcome } in self.0.store.unsettled().await? {
            if outcome.is_none() {
                let outcome = self.as_acknowledged(&ticket).await?;
                self.0.store.conclude(&ticket.award, &outcome).await?;
            }
            tracing::info!(award = %ticket.award, peer = %ticket.buyer, "charges what was cut off");
            self.settle_one(&ticket.award).await?;
        }
        Ok(())
    }

    async fn as_acknowledged(&self, ticket: &Ticket) -> Result<Outcome, Error> {
        let ledger = self.0.cashier.ledger();
        let signed = ledger.signed(&ticket.award, &ticket.buyer).await?;
        let totals = signed.map(|signed| signed.statement.totals);
        // Before the first output nothing is charged.
        let totals = totals.filter(|totals| totals.output_tokens > 0);
        Ok(totals.map_or_else(Outcome::default, |totals| Outcome {
            due: totals.due_msat,
            output_tokens: totals.output_tokens,
            result: None,
        }))
    }

    pub(super) async fn settle_one(&self, award: &EventId) -> Result<Option<Event>, Error> {
        let _alone = self.0.settling.lock().await;
        let kept = self.0.store.ticket(award).await?;
        let Some((ticket, outcome)) = kept.and_then(|kept| Some((kept.ticket, kept.outcome?)))
        else {
            return Ok(None);
        };
        self.charge(&ticket, &outcome).await?;
        mortality::point("charged");
        if ticket.is_escrow {
            self.0.store.settle_unpaid(award, outcome.due).await?;
            return Ok(None);
        }
        let payments = self.paid_during(&ticket).await?;
        if outcome.due == Msat::ZERO && payments.is_empty() {
            self.0.store.forget_ticket(award).await?;
            return Ok(None);
        }
        let receipt = self.receipt(&ticket, &outcome, &payments).await?;
        self.0.store.settle(award, &receipt).await?;
        mortality::point("receipt-signed");
        Ok(Some(receipt))
    }

    async fn charge(&self, ticket: &Ticket, outcome: &Outcome) -> Result<(), ledger::Error> {
        let (award, amount) = (ticket.award, outcome.due);
        let charge = match ticket.is_escrow {
            true => Posting::WorkDone {
                award,
                aggregator: ticket.buyer,
                amount,
            },
            false => Posting::Earned {
                award,
                buyer: ticket.buyer,
                amount,
            },
        };
        let ledger = self.0.cashier.ledger();
        ledger.post(&charge, clock::now()).await.map(drop)
    }

    /// What has come in for an award: the payments and how much they were.
    async fn paid_during(&self, ticket: &Ticket) -> Result<Vec<(PaymentHash, Msat)>, Error> {
        let ledger = self.0.cashier.ledger();
        let mut intents = ledger.intents_about(&ticket.award).await?;
        intents.retain(|intent| {
            (intent.reason, intent.standing) == (Reason::TopUp, Standing::Settled)
        });
        let Some(first) = intents.iter().map(|intent| intent.planned_at).min() else {
            return Ok(vec![]);
        };
        let lines = ledger.lines(&Account::Tab(ticket.buyer), first).await?;
        let payments = intents.iter().filter_map(|intent| {
            let hash = intent.hash()?;
            let of_it = |reference: &[u8; 32]| reference == hash.as_bytes();
            let line = lines.iter().find(|line| of_it(&line.reference))?;
            Some((hash, Msat(line.amount_msat.unsigned_abs())))
        });
        Ok(payments.collect())
    }

    async fn receipt(
        &self,
        ticket: &Ticket,
        outcome: &Outcome,
        payments: &[(PaymentHash, Msat)],
    ) -> Result<Event, Error> {
        let ledger = self.0.cashier.ledger();
        let carried = ledger.carried(&ticket.buyer, ReceiptSide::Provider).await?;
        let paid = payments.iter().map(|(_, amount)| amount.0).sum::<u64>();
        let hashes = payments.iter().take(MAX_PAYMENTS);
        let body = Receipt {
            v: V1,
            job: ticket.job,
            award: ticket.award,
            attempt: ticket.number,
            result: outcome.result,
            side: ReceiptSide::Provider,
            counterparty: ticket.buyer,
            usage: Usage {
                input_tokens: ticket.input_tokens,
                prefix_tokens: ticket.prefix_tokens,
                output_tokens: outcome.output_tokens,
            },
            due_msat: outcome.due,
            paid_msat: Msat(paid),
            payments: hashes.map(|(hash, _)| self.salted(ticket, hash)).collect(),
            tab: Some(TabTotals {
                due_msat: carried.due,
                paid_msat: carried.paid,
            }),
        };
        let keys = &self.0.keys;
        Ok(crate::shop::signed(
            keys,
            body.to_unsigned(keys.public_key, clock::now()),
        ))
    }

    fn salted(&self, ticket: &Ticket, hash: &PaymentHash) -> Digest {
        let us = &self.0.keys.public_key;
        salted_hash(
            Domain::Payment,
            &ticket.salt,
            &ticket.award,
            us,
            hash.as_bytes(),
        )
    }
}
