//! Who checks, and hiring it: a job of the task `verify`, bought as any other.

use std::collections::HashSet;
use std::time::Duration;

use infernet_client::{Client, Request, Route, Summary};
use infernet_protocol::event::{Checkers, Status};
use infernet_protocol::inference::{ModelId, Task};
use infernet_protocol::money::{Msat, Price};
use nostr::{EventId, PublicKey};
use rand::seq::IndexedRandom as _;

/// How many times the cheapest price a checker may ask and still be drawn.
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
    /// The owner's checkers.
    pub own: &'a HashSet<PublicKey>,
}

impl Market<'_> {
    /// Draws a checker for work of this model. The owner's own come first; of others,
    /// chance decides among the cheap: who cheats cannot choose its checker.
    pub fn draw(
        &self,
        (model, task): (&ModelId, Task),
        allowed: Checkers,
        shunned: &HashSet<PublicKey>,
    ) -> Option<Checker> {
        let on_sale = self.client.on_sale();
        let open = on_sale.iter().filter(|provider| {
            let announcement = &provider.announcement;
            announcement.direct
                && announcement.status == Status::Online
                && !shunned.contains(&announcement.author())
        });
        let checkers = open.filter_map(|provider| {
            let announcement = &provider.announcement;
            let sold = announcement
                .models
                .iter()
                .find(|sold| sold.task == task && sold.model == *model)?;
            let key = announcement.author();
            let is_own = self.own.contains(&key);
            Some(Checker {
                key,
                is_own,
                price: sold.price,
                task,
            })
        });
        let allowed = checkers.filter(|checker| match allowed {
            Checkers::Nobody => false,
            Checkers::Aggregator => checker.is_own,
            Checkers::Market => true,
        });
        let (own, others): (Vec<_>, Vec<_>) = allowed.partition(|checker| checker.is_own);
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
        if checker.price != Price::FREE {
            request = request.max_cost(most);
        }
        self.client.submit(request).await?.finish().await
    }
}

/// One of those that ask little more than the cheapest.
fn cheap(checkers: &[Checker]) -> Option<&Checker> {
    let least = checkers
        .iter()
        .map(|checker| checker.price.input_msat)
        .min()?;
    let most = least.saturating_mul(DEARER);
    let cheap = checkers
        .iter()
        .filter(|checker| checker.price.input_msat <= most);
    cheap.collect::<Vec<_>>().choose(&mut rand::rng()).copied()
}
