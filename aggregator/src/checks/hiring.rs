//! Who checks, and hiring it: a job of the task `verify`, bought as any other.

use std::collections::HashSet;
use std::time::Duration;

use infernet_client::{Client, Request, Route, Summary};
use infernet_protocol::event::{Checkers, Status};
use infernet_protocol::inference::{Dtype, ModelId, Task};
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use nostr::{EventId, PublicKey};
use rand::seq::IndexedRandom as _;
use sqlx::SqlitePool;

use crate::late::{self, Terms};

/// How many times the middle price a checker may ask and still be drawn. By the cheapest,
/// one who checks for nothing would be drawn always.
const DEARER: u64 = 2;

/// How long a check may take.
const LONGEST: Duration = Duration::from_secs(1_800);

/// A provider that can say whether another's work on a model is honest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checker {
    pub key: PublicKey,
    pub is_own: bool,
    pub price: Price,
    /// What it is asked for: checks; or vectors, to compare with.
    pub task: Task,
}

/// A checker's work, to be paid where it has a price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hire {
    /// Who.
    pub checker: PublicKey,
    /// The award that it was hired by.
    pub award: EventId,
    /// What it answered that with.
    pub result: EventId,
    /// What it asks.
    pub cost: Msat,
}

/// Who may be hired to check.
#[derive(Debug)]
pub(super) struct Market<'a> {
    pub client: &'a Client,
    /// Where it is written down who was hired.
    pub pool: &'a SqlitePool,
    /// The owner's checkers.
    pub own: &'a HashSet<PublicKey>,
}

/// What somebody is sought for.
#[derive(Debug)]
pub(super) struct Sought<'a> {
    /// The task of the work to be checked.
    pub task: Task,
    /// The model that it claims.
    pub model: &'a ModelId,
    /// Who may see it.
    pub allowed: Checkers,
    /// Whether there is money for it.
    pub is_paid: bool,
    /// Who is not asked.
    pub shunned: &'a HashSet<PublicKey>,
}

impl Market<'_> {
    /// Draws who checks: a checker, or for vectors somebody who makes them too.
    pub fn draw(&self, sought: &Sought<'_>) -> Option<Checker> {
        self.draw_for(Task::Verify, sought)
            .or_else(|| match sought.task {
                Task::Embedding => self.draw_for(Task::Embedding, sought),
                _ => None,
            })
    }

    /// The owner's own come first; of others, chance decides among the cheap: who cheats
    /// cannot choose its checker.
    fn draw_for(&self, task: Task, sought: &Sought<'_>) -> Option<Checker> {
        let on_sale = self.client.on_sale();
        let checkers = on_sale.iter().filter_map(|provider| {
            let announcement = &provider.announcement;
            let is_open = announcement.direct && announcement.status == Status::Online;
            let mut models = announcement.models.iter();
            // Thresholds are of checkers that compute in f32 or bf16.
            let fits = |dtype: Dtype| task != Task::Verify || !dtype.is_quantised();
            let sold = models.find(|sold| {
                sold.task == task && sold.model == *sought.model && fits(sold.dtype)
            })?;
            let key = announcement.author();
            let checker = Checker {
                key,
                is_own: self.own.contains(&key),
                price: sold.price,
                task,
            };
            let is_payable = sought.is_paid && announcement.terms.contains(&PaymentTerms::Escrow);
            let is_meant = is_open
                && !sought.shunned.contains(&key)
                && (checker.price.is_free() || is_payable)
                && is_allowed(&checker, sought.allowed);
            is_meant.then_some(checker)
        });
        let (own, others): (Vec<_>, Vec<_>) = checkers.partition(|checker| checker.is_own);
        own.choose(&mut rand::rng())
            .or_else(|| cheap(&others))
            .cloned()
    }

    /// Hires a checker.
    ///
    /// # Errors
    /// Why there are no verdicts, or vectors.
    pub async fn hire(
        &self,
        checker: &Checker,
        request: Request,
        within: Duration,
        most: Msat,
    ) -> Result<Summary, infernet_client::Error> {
        let mut request = request
            .route(Route::To {
                provider: checker.key.to_hex(),
                only: true,
            })
            .max_price(checker.price)
            .deadline(within.min(LONGEST));
        if !checker.price.is_free() {
            request = request.max_cost(most);
        }
        let terms = Terms {
            shard: None,
            is_paid: !checker.price.is_free(),
            within: request.deadline,
        };
        let answer = self.client.submit(request).await?;
        late::finish(self.pool, answer, &terms).await
    }
}

const fn is_allowed(checker: &Checker, allowed: Checkers) -> bool {
    match allowed {
        Checkers::Nobody => false,
        Checkers::Aggregator => checker.is_own,
        Checkers::Market => true,
    }
}

/// One of those that ask little more than most do.
fn cheap(checkers: &[Checker]) -> Option<&Checker> {
    let mut prices: Vec<u64> = checkers
        .iter()
        .map(|checker| checker.price.input_msat)
        .collect();
    prices.sort_unstable();
    let most = prices.get(prices.len() / 2)?.saturating_mul(DEARER);
    let cheap = checkers
        .iter()
        .filter(|checker| checker.price.input_msat <= most);
    cheap.collect::<Vec<_>>().choose(&mut rand::rng()).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use nostr::Keys;

    use super::*;

    fn checker(input_msat: u64) -> Checker {
        Checker {
            key: Keys::generate().public_key(),
            is_own: false,
            price: Price {
                input_msat,
                output_msat: 0,
            },
            task: Task::Verify,
        }
    }

    #[test]
    fn who_checks_for_nothing_is_not_drawn_always() {
        let checkers = [0, 100, 150, 10_000].map(checker);
        let drawn = (0..200).filter_map(|_| cheap(&checkers));
        let prices: BTreeSet<u64> = drawn.map(|checker| checker.price.input_msat).collect();
        assert_eq!(prices, BTreeSet::from([0, 100, 150]));
        assert!(cheap(&[]).is_none());
    }
}
