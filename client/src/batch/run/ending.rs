//! The end of a batch: having back what is left, and closing the order.

use std::time::Duration;

use infernet_protocol::batch::{Ask, Reply};
use infernet_protocol::money::Msat;

use super::{Error, News, Run, Summary, standing};
use crate::purse::Purse;

/// How long an aggregator has to answer at the end, when all answers are there.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long what is left may take to come back.
const MONEY_PATIENCE: Duration = Duration::from_secs(45);

/// How often is looked whether it is there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The least that is worth a payment, and that every channel carries.
const LEAST: Msat = Msat(1_000);

impl Run {
    /// All answers are written: what else there is does not keep the batch from being done.
    pub(super) async fn end(self) -> Result<Summary, Error> {
        let shared = self.shared.clone();
        let credit = match self.shared.purse.clone() {
            Some(purse) => {
                self.refund(&purse).await;
                // By our books: the aggregator may say less.
                purse.credit_with(shared.aggregator).await?
            }
            None => Msat::ZERO,
        };
        let stopping = shared
            .talk
            .ask_within(PATIENCE, Some(shared.order), Ask::Stop);
        if let Err(error) = stopping.await {
            tracing::info!(%error, "the order is left to run out");
        }
        Ok(Summary {
            order: Some(shared.order),
            totals: self.totals(),
            credit_msat: credit,
            broken: shared.breaches(),
        })
    }

    /// Asks for what was held and not charged, as far as the aggregator says that it is there.
    async fn refund(&self, purse: &Purse) {
        let shared = &self.shared;
        let asked = tokio::time::timeout(PATIENCE, standing(&shared.talk, shared.order)).await;
        let Ok(Ok(standing)) = asked else { return };
        let left = standing.credit_msat;
        if left < LEAST {
            return;
        }
        match self.ask_back(purse, left).await {
            Ok(true) => shared.tell(News::Refunded { amount: left }),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "what is left was not asked for"),
        }
    }

    /// Whether it came.
    async fn ask_back(&self, purse: &Purse, left: Msat) -> Result<bool, Error> {
        let shared = &self.shared;
        let invoice = purse
            .credit_back(&shared.order, shared.aggregator, left)
            .await?;
        shared.tell(News::Refunding { amount: left });
        let ask = Ask::Refund {
            invoice: invoice.as_str().to_owned(),
        };
        let asked = shared.talk.ask_within(PATIENCE, Some(shared.order), ask);
        if !matches!(asked.await?, Reply::Refunding) {
            return Ok(false);
        }
        let come = async {
            while !purse.has_come(&invoice).await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        Ok(tokio::time::timeout(MONEY_PATIENCE, come).await.is_ok())
    }
}
