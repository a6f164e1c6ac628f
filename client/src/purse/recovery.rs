//! Ending what an earlier process left: attempts that it paid for, and neither charged nor signed a receipt for.
//!
//! What such an attempt cost is what its result says, if there is one on the relays, and else what we have signed
//! last. Its provider is told to stop first: it may still be working, and nobody reads.
//!
//! While no relay can be asked, or one was away and the provider may still bring a result (`purse::unclear`), the
//! attempt stays open.

use std::time::Duration;

use infernet_blobs::{Blobs, servers_of};
use infernet_node::clock;
use infernet_payments::ledger::Account;
use infernet_protocol::event::{
    Award, Cancel, CancelReason, JobResult, ReceiptSide, Signed, TabTotals, Usage, V1,
};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Input, Payload};
use infernet_protocol::seal::Sealed;
use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};

use super::attempts::Unfinished;
use super::closing::{Closing, Papers};
use super::lease::Patience;
use super::unclear::{LATE, Unclear};
use super::{Attempt, Done, Error, Purse};
use crate::client::sign;
use crate::submit::owed;

/// How long the relays have to say what they have.
const FETCH_PATIENCE: Duration = Duration::from_secs(3);

/// How often a provider that was just told to stop is given time to deliver, and how long each time.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(700);

/// No relay says what it has.
struct Unanswered;

impl Purse {
    /// Ends what was left on all tabs that nobody keeps.
    pub(super) async fn recover(&self) {
        let left = self.shared.books.attempts().unfinished_at().await;
        let left = left.unwrap_or_else(|error| {
            tracing::error!(%error, "what an earlier run left cannot be read");
            Vec::new()
        });
        for provider in left {
            // To take a tab up is to end what is unfinished on it.
            if let Err(error) = self.try_open_tab(provider, Patience::Tries).await {
                tracing::warn!(%error, %provider, "what was left on this tab is not ended yet");
            }
        }
    }

    /// Ends what was left on a tab that is locked. Answers what cannot be ended yet.
    pub(super) async fn end_unfinished(&self, provider: &PublicKey) -> Result<Vec<Unclear>, Error> {
        let mut unclear = Vec::new();
        let cashier = &self.shared.cashier;
        cashier.give_up_planned(provider, clock::now()).await?;
        for Unfinished {
            attempt,
            papers,
            unclear_until,
        } in self.shared.books.attempts().unfinished(provider).await?
        {
            match papers {
                Some(papers) => {
                    let is_open = false;
                    self.hand_out_later(attempt.award, Papers { papers, is_open });
                }
                None => unclear.extend(self.end_one(attempt, unclear_until).await?),
            }
        }
        if !unclear.is_empty() {
            return Ok(unclear);
        }
        let us = self.shared.keys.public_key();
        let ledger = self.shared.books.ledger();
        let charging = ledger.charge_what_was_left(&us, provider, ReceiptSide::Buyer, clock::now());
        charging.await?;
        Ok(unclear)
    }

    async fn end_one(
        &self,
        attempt: Attempt,
        unclear_until: Option<Timestamp>,
    ) -> Result<Option<Unclear>, Error> {
        let known = match (self.charged_before(&attempt).await?, unclear_until) {
            (Some(charge), _) => Some((charge, self.brought(&attempt, charge).await?)),
            (None, Some(until)) => self.cost_by(&attempt, until).await?,
            (None, None) => self.cost(&attempt).await?,
        };
        match (known, unclear_until) {
            (Some((charge, done)), _) => {
                self.charge_late(&attempt, charge, done).await?;
                Ok(None)
            }
            (None, until) => {
                let until = until.unwrap_or_else(|| clock::now() + LATE);
                self.leave_unclear(attempt, until).await.map(Some)
            }
        }
    }

    /// Charges an attempt after it, and signs its receipt.
    pub(super) async fn charge_late(
        &self,
        attempt: &Attempt,
        charge: Msat,
        done: Done,
    ) -> Result<(), Error> {
        let payments = self.payments(&attempt.award).await?;
        self.post(attempt, charge).await?;
        tracing::info!(award = %attempt.award, %charge, "ended what was left");
        let ledger = self.shared.books.ledger();
        let carried = ledger
            .carried(&attempt.provider, ReceiptSide::Buyer)
            .await?;
        let tab = TabTotals {
            due_msat: carried.due,
            paid_msat: carried.paid,
        };
        let closing = Closing {
            award: attempt.award,
            is_delivered: done.result.is_some(),
            done,
            attestation: None,
        };
        let signing = self.sign_off(attempt, closing, charge, &payments, tab);
        self.hand_out_later(attempt.award, signing.await?);
        Ok(())
    }

    /// Publishes in the background.
    fn hand_out_later(&self, award: EventId, papers: Papers) {
        let purse = self.clone();
        self.shared.tasks.spawn(async move {
            if let Err(error) = purse.hand_out(&award, papers).await {
                tracing::error!(%error, %award, "an attempt is not over in the books; the next start ends it");
            }
        });
    }

    /// What was posted for an attempt before the process died.
    pub(super) async fn charged_before(&self, attempt: &Attempt) -> Result<Option<Msat>, Error> {
        let ledger = self.shared.books.ledger();
        let since = attempt.opened_at - Duration::from_secs(60);
        let lines = ledger.lines(&Account::Spending, since).await?;
        let award = attempt.award.to_bytes();
        let line = lines.into_iter().find(|line| line.reference == award);
        Ok(line.map(|line| Msat(line.amount_msat.unsigned_abs())))
    }

    /// What an attempt brought that is charged already, for its receipt: what its result says, if it was charged by
    /// that, and else our own last word.
    async fn brought(&self, attempt: &Attempt, charge: Msat) -> Result<Done, Error> {
        match self.result(attempt).await {
            Ok(Some((due, done))) if due == charge => Ok(done),
            Ok(_) | Err(Unanswered) => Ok(self.last_word(attempt).await?.1),
        }
    }

    /// What an attempt cost that was not charged: by its result, else by our own last word. What was signed in the
    /// last moment may not be on our disk, and the provider has it: so its result is waited for in any case.
    /// Nothing if no relay answers.
    async fn cost(&self, attempt: &Attempt) -> Result<Option<(Msat, Done)>, Error> {
        let mut found = self.result(attempt).await;
        if let Ok(Some(found)) = found {
            return Ok(Some(found));
        }
        self.stop(attempt);
        for _ in 0..TRIES {
            tokio::time::sleep(PAUSE).await;
            found = self.result(attempt).await;
            if let Ok(Some(found)) = found {
                return Ok(Some(found));
            }
        }
        match found {
            Ok(_) => self.last_word(attempt).await.map(Some),
            Err(Unanswered) => Ok(None),
        }
    }

    /// The same of an attempt whose result may come until then.
    pub(super) async fn cost_by(
        &self,
        attempt: &Attempt,
        until: Timestamp,
    ) -> Result<Option<(Msat, Done)>, Error> {
        match self.result(attempt).await {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) if clock::now() >= until => self.last_word(attempt).await.map(Some),
            Ok(None) | Err(Unanswered) => Ok(None),
        }
    }

    /// What we have signed last for an attempt; it costs nothing before its first output.
    pub(super) async fn last_word(&self, attempt: &Attempt) -> Result<(Msat, Done), Error> {
        let us = self.shared.keys.public_key();
        let ledger = self.shared.books.ledger();
        let Some(signed) = ledger.signed(&attempt.award, &us).await? else {
            return Ok((Msat::ZERO, Done::default()));
        };
        let totals = signed.statement.totals;
        let usage = Usage {
            input_tokens: totals.input_tokens.saturating_sub(attempt.prefix_tokens),
            prefix_tokens: attempt.prefix_tokens,
            output_tokens: totals.output_tokens,
        };
        let due = match totals.output_tokens {
            0 => Msat::ZERO,
            _ => totals.due_msat,
        };
        let done = Done {
            usage,
            result: None,
        };
        Ok((due, done))
    }

    /// What the relays have of an attempt's result, and what is owed for it.
    async fn result(&self, attempt: &Attempt) -> Result<Option<(Msat, Done)>, Unanswered> {
        let award = Filter::new().id(attempt.award);
        let result = Filter::new()
            .kind(Kind::from(kinds::RESULT))
            .author(attempt.provider)
            .event(attempt.award);
        let fetching = self.shared.link.fetch(vec![award, result], FETCH_PATIENCE);
        let events = fetching.await.map_err(|_| Unanswered)?;
        Ok(self.owed_by(attempt, &events).await)
    }

    async fn owed_by(&self, attempt: &Attempt, events: &[Event]) -> Option<(Msat, Done)> {
        let find = |id: &EventId| events.iter().find(|event| event.id == *id).cloned();
        let award = Signed::<Award>::verify(find(&attempt.award)?).ok()?;
        let keys = &self.shared.keys;
        let input = self.opened(&award.input, &award.provider).await?;
        let work = Input::from_bytes(&input).ok()?.work;
        let results = events
            .iter()
            .filter(|event| event.kind.as_u16() == kinds::RESULT);
        for event in results {
            let Ok(result) = Signed::<JobResult>::verify(event.clone()) else {
                continue;
            };
            let fetched = self.fetched(&result.output).await;
            if let Some(due) = owed(&result, fetched, &award, &work, keys) {
                let done = Done {
                    usage: result.usage,
                    result: Some(result.id()),
                };
                return Some((due, done));
            }
        }
        None
    }

    /// A payload between us and `other`, wherever it is.
    async fn opened(&self, sealed: &Sealed, other: &PublicKey) -> Option<Vec<u8>> {
        let own = self.shared.keys.secret_key();
        let opened = match self.fetched(sealed).await {
            Some(bytes) => sealed.open_fetched(bytes, own, other),
            None => sealed.open(own, other),
        };
        opened.ok()
    }

    /// What is in a payload's blob, if it has one that can be had.
    async fn fetched(&self, sealed: &Sealed) -> Option<Vec<u8>> {
        let blob = sealed.blob.as_ref()?;
        let relays = self.shared.link.relays();
        let servers = servers_of(relays.iter().map(|relay| &relay.url));
        let blobs = Blobs::new(servers, self.shared.keys.clone());
        blobs.get(blob).await.ok()
    }

    /// Tells a provider that nobody waits any more.
    pub(super) fn stop(&self, attempt: &Attempt) {
        let cancel = Cancel {
            v: V1,
            job: attempt.job,
            award: Some(attempt.award),
            counterparty: Some(attempt.provider),
            reason: CancelReason::Restarted,
            detail: String::new(),
        };
        let Some(event) = sign(&self.shared.keys, &cancel) else {
            return;
        };
        let link = self.shared.link.clone();
        self.shared.tasks.spawn(async move {
            if let Err(error) = link.publish(&event).await {
                tracing::warn!(%error, "a provider was not told that nobody waits");
            }
        });
    }
}
