//! What came against what the provider claims: agreeing, and signing that.

use std::time::Duration;

use infernet_node::mortality;
use infernet_payments::tab::Statement;
use infernet_protocol::event::JobResult;
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::buyer::Input;
use infernet_protocol::payload::{Product, Wish};
use infernet_protocol::tab::SignedTotals;
use tokio::time::Instant;

use super::Driver;
use crate::purse::Said;

/// How soon one acknowledgement may follow another: of pieces that come faster, the last one speaks for all.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(30);

impl Driver {
    /// The provider says how the tab stands.
    pub(in crate::submit) fn claimed(&mut self, signed: &SignedTotals) -> Option<Input> {
        let buyer = self.client.public_key();
        let current = self.current.as_mut()?;
        let (award, provider) = (current.award.id(), current.word.provider);
        let bill = current.bill.as_mut()?;
        let statement = Statement {
            buyer,
            provider,
            award,
            totals: signed.totals,
        };
        if statement.verify(&provider, &signed.signature).is_err() {
            return self.overcharged("its totals are not signed");
        }
        let said = bill.lease.claim(award, signed.totals);
        if said.stop.is_none() {
            bill.input = signed.totals.input_tokens;
            bill.lease.keep(statement, provider, signed.signature);
        }
        self.said(said)
    }

    /// A result claims what it cost; what it brings is counted as it is shown.
    pub(in crate::submit) fn claimed_by_result(
        &mut self,
        result: &JobResult,
        product: &Product,
    ) -> Option<Input> {
        let award = result.award;
        let bill = self.bill_of(award)?;
        let usage = &result.usage;
        let input = usage.input_tokens.saturating_add(usage.prefix_tokens);
        let said = bill.lease.claim_usage(award, input, usage.output_tokens);
        if said.stop.is_none() {
            bill.input = input;
        }
        let owes = bill.owes;
        let stopped = self.said(said);
        if stopped.is_none() && result.ended == EndReason::Failed && owes {
            // It has waited for our money in vain.
            self.count_up_to(product.tokens().len() as u64);
            return self.broken_off();
        }
        stopped
    }

    /// So much more output has come.
    pub(in crate::submit) fn count(&mut self, tokens: usize) {
        let Some(current) = &self.current else { return };
        let award = current.award.id();
        let Some(bill) = self.bill_of(award) else {
            return;
        };
        let counted = bill.counted.saturating_add(tokens as u64);
        self.count_up_to(counted);
    }

    pub(super) fn count_up_to(&mut self, counted: u64) {
        let Some(current) = &mut self.current else {
            return;
        };
        let award = current.award.id();
        let Some(bill) = &mut current.bill else {
            return;
        };
        bill.counted = bill.counted.max(counted);
        let said = bill.lease.count(award, bill.counted);
        mortality::point("piece-counted");
        // More output than the award allows is the job's to see.
        self.said(said);
    }

    pub(super) fn said(&mut self, said: Said) -> Option<Input> {
        let bill = self.current.as_mut()?.bill.as_mut()?;
        if let Some(totals) = said.acknowledge {
            bill.agreed = Some(totals);
            self.acknowledge_if_due();
        }
        self.overcharged(&said.stop?.to_string())
    }

    pub(super) fn overcharged(&mut self, why: &str) -> Option<Input> {
        let current = self.current.as_mut()?;
        let award = current.award.id();
        tracing::warn!(%award, provider = %current.word.provider, why, "the provider's totals are not ours");
        current.error = Some(why.to_owned());
        Some(Input::Overcharged { award })
    }

    /// When the next acknowledgement is to be sent.
    pub(in crate::submit) fn acknowledges_at(&self) -> Option<Instant> {
        let bill = self.current.as_ref()?.bill.as_ref()?;
        bill.agreed?;
        let last = bill.acknowledged_at;
        Some(last.map_or_else(Instant::now, |last| last + ACKNOWLEDGE_EVERY))
    }

    pub(in crate::submit) fn acknowledge_if_due(&mut self) {
        if self
            .acknowledges_at()
            .is_some_and(|at| at <= Instant::now())
        {
            self.acknowledge();
        }
    }

    /// Signs what was agreed on last, keeps it, and sends it.
    pub(super) fn acknowledge(&mut self) {
        let keys = self.client.shared().keys().clone();
        let Some(current) = &mut self.current else {
            return;
        };
        let (award, provider) = (current.award.id(), current.word.provider);
        let Some(bill) = &mut current.bill else {
            return;
        };
        let Some(totals) = bill.agreed.take() else {
            return;
        };
        bill.acknowledged_at = Some(Instant::now());
        let buyer = keys.public_key();
        let statement = Statement {
            buyer,
            provider,
            award,
            totals,
        };
        let tab = statement.signed(&keys);
        bill.lease.keep(statement, buyer, tab.signature);
        self.whisper(award, Wish::Acknowledge { tab });
        mortality::point("acknowledged");
    }
}
