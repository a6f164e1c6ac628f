//! The end of an attempt: its result, and what it costs.

use std::pin::pin;
use std::time::Duration;

use infernet_node::mortality;
use infernet_protocol::event::Usage;
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::provider::{ALIVE_EVERY_MS, Delivery};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{News, Product, Proof, Work};
use tokio::time::{Instant, interval_at};

use super::{Driver, Report};
use crate::delivery::{self, Goods};
use crate::store::Outcome;
use crate::work::Running;

impl Driver {
    /// Stopped before it began: there is nothing to deliver.
    pub(super) async fn left_the_queue(&mut self) {
        self.running = Running::Nothing;
        let award = self.admitted.award.id();
        if let Err(error) = self.shop.store.end(&award).await {
            tracing::error!(%award, %error, "cannot write that an attempt has ended");
        }
        if self.seat.take().is_some() || self.loan.take().is_some() {
            delivery::leave(&self.shop, award);
        }
        self.halted(None, Usage::default()).await;
    }

    /// The result is kept before it is published, and its publication is on its
    /// way before the slot is free: a loop that waits for free slots to close
    /// misses none.
    pub(super) async fn deliver(&mut self, delivery: Delivery) {
        let award = self.admitted.award.id();
        let usage = self.usage(&delivery);
        let ended = delivery.ended;
        self.learn(ended);
        tracing::info!(
            job = %self.admitted.award.job_id(), %award, attempt = self.admitted.award.attempt,
            peer = %self.admitted.award.author(), ?ended, error = delivery.error,
            input_tokens = usage.input_tokens, output_tokens = usage.output_tokens,
            total_ms = delivery.timing.total_ms, "ended"
        );
        let product = self.product(&delivery);
        let proofs = std::mem::take(&mut self.proofs);
        let goods = self.seal(product, proofs).await;
        let is_paid = self.seat.is_some();
        let due = self.charge(ended, &goods, &usage);
        let event = delivery::result(&self.shop, &self.admitted, &delivery, goods, usage, due);
        let outcome = Outcome {
            due,
            output_tokens: usage.output_tokens,
            result: Some(event.id),
        };
        let kept = self.shop.store.deliver(&award, &event, &outcome).await;
        if let Err(error) = &kept {
            tracing::error!(%award, %error, "cannot keep a result; it is published all the same");
        }
        mortality::point("result-kept");
        delivery::publish(&self.shop, vec![event.clone()]);
        // Without it the account goes on counting what the work has cost; the next
        // start charges it.
        if is_paid && kept.is_ok() {
            delivery::settle(&self.shop, award, self.admitted.award.author());
        }
        if let Some(loan) = self.loan.take() {
            delivery::settle_loan(&self.shop, award, loan);
        }
        self.result = Some(event);
        self.halted(Some(ended), usage).await;
    }

    /// Seals what was made, and says meanwhile that we are alive: a large output takes a
    /// while to its server.
    async fn seal(&mut self, product: Product, proofs: Vec<Proof>) -> Goods {
        // The whole of it cannot be shared between threads.
        let Self { shop, admitted, .. } = self;
        let mut sealing = pin!(delivery::seal(shop, admitted, product, proofs));
        let every = Duration::from_millis(ALIVE_EVERY_MS);
        let mut alive = interval_at(Instant::now() + every, every);
        loop {
            tokio::select! {
                goods = &mut sealing => return goods,
                _ = alive.tick() => shop.tell(&admitted.address, News::Alive { ahead: 0 }, None),
            }
        }
    }

    /// What it costs. On a tab text is paid for as it is drawn, vectors and tensors
    /// when they are made; in escrow, what came to its own end.
    fn charge(&mut self, ended: EndReason, goods: &Goods, usage: &Usage) -> Msat {
        if self.loan.is_some() {
            let is_done = matches!(ended, EndReason::Stop | EndReason::Length);
            let read = usage.input_tokens + usage.prefix_tokens;
            let cost = self.admitted.award.price.cost(read, usage.output_tokens);
            let cost = cost.filter(|_| is_done && goods.are_whole());
            return cost.unwrap_or(Msat::ZERO);
        }
        let Some(seat) = self.seat.take() else {
            return Msat::ZERO;
        };
        let is_done = ended == EndReason::Stop && goods.are_whole();
        let is_text = matches!(self.admitted.work, Work::TextGeneration(_));
        seat.end(is_text || is_done)
    }

    pub(super) fn deliver_again(&self) {
        if let Some(event) = &self.result {
            delivery::publish_again(&self.shop, event.clone());
        }
    }

    async fn halted(&mut self, ended: Option<EndReason>, usage: Usage) {
        let report = Report::Halted {
            award: self.admitted.award.id(),
            ended,
            usage,
        };
        // A loop that is gone needs no reports.
        let _ = self.reports.send(report).await;
    }

    fn usage(&self, delivery: &Delivery) -> Usage {
        Usage {
            input_tokens: self.input_tokens,
            prefix_tokens: self.admitted.prefix_tokens(),
            output_tokens: delivery.tokens.len() as u64 + self.made_tokens,
        }
    }

    fn product(&mut self, delivery: &Delivery) -> Product {
        match &self.admitted.work {
            Work::TextGeneration(_) => Product::TextGeneration {
                text: delivery.text.clone(),
                tokens: delivery.tokens.clone(),
            },
            work @ (Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. }) => {
                let nothing = || Product::empty(work);
                self.made.take().unwrap_or_else(nothing)
            }
        }
    }

    /// A generation that came to its own end says how fast we are.
    fn learn(&self, ended: EndReason) {
        let whole = matches!(ended, EndReason::Stop | EndReason::Length);
        // One that waited for its buyer says how fast the buyer is.
        let counts = whole && !self.pauses.were_any();
        if let (true, Some(pace)) = (counts, self.clockwork.pace()) {
            self.shop.promises.learn(&self.admitted.item.model.id, pace);
        }
    }
}
