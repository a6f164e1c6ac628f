//! The end of an attempt: its charge, its receipt, and what its buyer says of it.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::link::Link;
use infernet_node::{clock, mortality};
use infernet_payments::ledger::Posting;
use infernet_protocol::event::{Attestation, Body, TabTotals};
use infernet_protocol::money::Msat;
use nostr::{Event, EventId};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::attempts::Moved;
use super::paying::Payments;
use super::receipt::receipt;
use super::tab::Job;
use super::{Attempt, Done, Error, Lease, Purse};
use crate::client::sign;

/// How long payments that are under way are waited for before the receipt is signed without them.
const PAYMENT_PATIENCE: Duration = Duration::from_secs(10);

/// The same when the client goes.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long is tried to publish what is said about an attempt after it, and how long once the client goes; what is
/// not published by then is published when the tab is taken up next.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(30);
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// How often is looked whether payments are done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An attempt that is over.
pub(crate) struct Closing {
    pub award: EventId,
    /// Whether its product has come whole.
    pub is_delivered: bool,
    pub done: Done,
    /// What is to be said of it, with the receipt still missing.
    pub attestation: Option<Attestation>,
}

/// What was signed about an attempt.
pub(super) struct Papers {
    pub papers: Vec<Event>,
    /// Whether a payment that may still be done belongs into a receipt: whoever takes up the tab next looks again.
    pub is_open: bool,
}

impl Lease {
    /// Ends an attempt: charges it now, and signs and publishes the rest in the background. `charged` is called once
    /// the charge is on the disk, with what was paid by then and what is left on the tab.
    pub fn close(
        self,
        closing: Closing,
        charged: impl FnOnce(Moved, i64) + Send + 'static,
    ) -> Msat {
        let award = closing.award;
        let job = self.with(|tab| tab.job(&award).map(Job::attempt));
        let charge = self.end(award, closing.is_delivered);
        let due = self.totals().due;
        let Some(job) = job else { return charge };
        let tasks = self.purse.shared.tasks.clone();
        tasks.spawn(async move {
            let purse = self.purse.clone();
            let ended = purse.end(&self, job, closing, (charge, due), charged);
            if let Err(error) = ended.await {
                tracing::error!(%error, %award, "an attempt is not over in the books; the next start ends it");
            }
        });
        charge
    }
}

impl Purse {
    async fn end(
        &self,
        lease: &Lease,
        job: (Arc<Attempt>, Arc<OnceCell<()>>),
        closing: Closing,
        (charge, tab_due): (Msat, Msat),
        charged: impl FnOnce(Moved, i64) + Send,
    ) -> Result<(), Error> {
        self.is_written(&job).await?;
        let attempt = &job.0;
        // What we have signed last is on the disk before what follows from it.
        self.shared.books.ledger().flush().await?;
        self.post(attempt, charge).await?;
        mortality::point("charged");
        let paid = self.payments(&attempt.award).await?.paid;
        let moved = Moved {
            charged: charge,
            paid,
        };
        charged(moved, lease.left_msat());
        let payments = self.settled_payments(attempt).await?;
        let tab = TabTotals {
            due_msat: tab_due,
            paid_msat: lease.totals().paid,
        };
        let signing = self.sign_off(attempt, closing, charge, &payments, tab);
        self.hand_out(&attempt.award, signing.await?).await
    }

    pub(super) async fn post(&self, attempt: &Attempt, amount: Msat) -> Result<(), Error> {
        let posting = Posting::Spent {
            award: attempt.award,
            provider: attempt.provider,
            amount,
        };
        let ledger = self.shared.books.ledger();
        ledger.post(&posting, clock::now()).await?;
        Ok(())
    }

    /// What was paid during an attempt, once that is clear, or it has taken too long.
    async fn settled_payments(&self, attempt: &Attempt) -> Result<Payments, Error> {
        let until = Instant::now() + PAYMENT_PATIENCE;
        loop {
            let payments = self.payments(&attempt.award).await?;
            if !payments.is_going_on || Instant::now() >= until {
                return Ok(payments);
            }
            let nap = tokio::time::sleep(LOOK_EVERY);
            let farewell = self.shared.closing.cancelled();
            tokio::select! {
                () = nap => {}
                () = farewell => {
                    tokio::time::sleep(FAREWELL).await;
                    return self.payments(&attempt.award).await;
                }
            }
        }
    }

    /// Signs the receipt, if any money is in it, and what is said of the attempt, and writes both down: another
    /// process, or this one later, publishes these and signs no others.
    pub(super) async fn sign_off(
        &self,
        attempt: &Attempt,
        closing: Closing,
        charged: Msat,
        payments: &Payments,
        tab: TabTotals,
    ) -> Result<Papers, Error> {
        let keys = &self.shared.keys;
        let moved = Moved {
            charged,
            paid: payments.paid,
        };
        let mut papers: Vec<Event> = Vec::new();
        let mut receipt_id = None;
        if moved != Moved::default() {
            let buyer = keys.public_key();
            let body = receipt(attempt, &buyer, closing.done, moved, &payments.hashes, tab);
            papers.extend(signed(keys, &body));
            receipt_id = papers.first().map(|receipt| receipt.id);
        }
        if let Some(mut attestation) = closing.attestation {
            attestation.receipt = receipt_id;
            attestation.paid_msat = payments.paid;
            papers.extend(signed(keys, &attestation));
        }
        let is_open = payments.is_going_on && receipt_id.is_none();
        if !is_open {
            let attempts = self.shared.books.attempts();
            attempts.settle(&attempt.award, moved, &papers).await?;
        }
        mortality::point("receipt-signed");
        Ok(Papers { papers, is_open })
    }

    /// Publishes what was signed about an attempt; with that it is over.
    pub(super) async fn hand_out(&self, award: &EventId, signed: Papers) -> Result<(), Error> {
        let is_published = self.publish(&signed.papers).await;
        match is_published && !signed.is_open {
            true => self.shared.books.attempts().close_attempt(award).await,
            false => Ok(()),
        }
    }

    /// Publishes all of it; false if there was no time for that.
    async fn publish(&self, papers: &[Event]) -> bool {
        let farewell = async {
            self.shared.closing.cancelled().await;
            tokio::time::sleep(LAST_PATIENCE).await;
        };
        tokio::select! {
            is_published = publish(&self.shared.link, papers) => is_published,
            () = farewell => false,
        }
    }
}

fn signed(keys: &nostr::Keys, body: &impl Body) -> Option<Event> {
    let event = sign(keys, body);
    if event.is_none() {
        tracing::error!("an event cannot be signed");
    }
    event
}

/// Whether all of it is on some relay.
async fn publish(link: &Link, papers: &[Event]) -> bool {
    let by = Instant::now() + PUBLISH_PATIENCE;
    let mut all = true;
    for paper in papers {
        if let Err(error) = link.publish_until(paper, by).await {
            let kind = paper.kind.as_u16();
            tracing::warn!(event = %paper.id, kind, %error, "not published");
            // What relays refuse for good, they refuse tomorrow.
            all &= !error.is_temporary();
        }
    }
    all
}
