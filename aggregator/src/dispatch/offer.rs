//! What is needed, and what is on sale.

use infernet_client::Provider;
use infernet_protocol::event::{Accepts, AnnouncedModel, Checkers, Limits, Status};
use infernet_protocol::inference::Task;
use infernet_protocol::money::{PaymentKind, Price};
use nostr::PublicKey;

/// What a shard needs of a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// The kind of work.
    pub task: Task,
    /// The models that will do.
    pub accepts: Vec<Accepts>,
    /// The highest price.
    pub max_price: Price,
    /// Whether work may cost something: it is paid out of escrow then.
    pub is_paid: bool,
    /// Who may check it: what none of them could is not bought.
    pub checkers: Checkers,
    /// The size of it.
    pub limits: Limits,
}

/// A model that a provider sells, as it was announced last.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Who.
    pub provider: PublicKey,
    /// What it is called.
    pub name: String,
    /// What it sells.
    pub model: AnnouncedModel,
    /// Attempts that it runs side by side.
    pub slots: u32,
    /// Attempts that may wait at it.
    pub queue: u32,
    /// Attempts that run or wait at it for anybody.
    pub load: u32,
    /// Whether it takes work now.
    pub is_open: bool,
    /// Whether it works for nothing.
    pub is_free: bool,
    /// Whether it can be paid out of escrow.
    pub takes_escrow: bool,
    /// Its score from 0 to 1.
    pub score: f64,
}

impl Offer {
    /// All that a provider sells to whoever awards directly.
    pub fn all(provider: &Provider) -> impl Iterator<Item = Self> {
        let announcement = &provider.announcement;
        let terms = |kind| announcement.terms.iter().any(|terms| terms.kind() == kind);
        let (takes_free, takes_escrow) = (terms(PaymentKind::Free), terms(PaymentKind::Escrow));
        let models = announcement.models.iter().filter(|_| announcement.direct);
        models.map(move |model| Self {
            provider: announcement.author(),
            name: announcement.name.clone(),
            model: model.clone(),
            slots: announcement.capacity.slots.max(1),
            queue: announcement.capacity.queue,
            load: announcement
                .load
                .running
                .saturating_add(announcement.load.queued),
            is_open: announcement.status == Status::Online,
            is_free: takes_free && model.price.is_free(),
            takes_escrow,
            score: provider.standing.score,
        })
    }

    /// Whether it sells what is needed, at whatever place is free.
    pub fn meets(&self, need: &Need) -> bool {
        let model = &self.model;
        let is_payable = self.is_free || (need.is_paid && self.takes_escrow);
        model.task == need.task
            && need.accepts.iter().any(|accepted| accepted.includes(model))
            && model.price.is_within(&need.max_price)
            && is_payable
    }
}

#[cfg(test)]
pub mod tests {
    use infernet_protocol::event::Promise;
    use infernet_protocol::inference::{Dtype, ModelId};
    use nostr::Keys;

    use super::*;

    /// What [`need`] pays at most.
    pub const DEAREST: u64 = 1_000_000_000;

    pub fn need() -> Need {
        Need {
            task: Task::TextGeneration,
            accepts: vec![Accepts::Name("m".into())],
            max_price: Price {
                input_msat: DEAREST,
                output_msat: DEAREST,
            },
            is_paid: true,
            checkers: Checkers::Nobody,
            limits: Limits {
                input_tokens: 100,
                output_tokens: 100,
            },
        }
    }

    pub fn offer(name: &str, price: u64, tokens_per_s: f32) -> Offer {
        let price = Price {
            input_msat: price,
            output_msat: price,
        };
        Offer {
            provider: Keys::generate().public_key(),
            name: name.into(),
            model: AnnouncedModel {
                model: ModelId::from_bytes([1; 32]),
                name: "m".into(),
                aliases: vec![],
                task: Task::TextGeneration,
                dtype: Dtype::Scripted,
                context: 2_048,
                price,
                promise: Promise {
                    first_token_ms: 50,
                    tokens_per_s,
                },
                continues: true,
                interface: None,
            },
            slots: 1,
            queue: 1,
            load: 0,
            is_open: true,
            is_free: price.is_free(),
            takes_escrow: true,
            score: 0.5,
        }
    }

    #[test]
    fn an_offer_meets_a_need_or_does_not() {
        let good = offer("ada", 50, 10.0);
        assert!(good.meets(&need()));
        let dear = offer("ada", DEAREST + 1, 10.0);
        assert!(!dear.meets(&need()), "too dear");
        let free = Need {
            is_paid: false,
            ..need()
        };
        assert!(!good.meets(&free) && offer("ada", 0, 10.0).meets(&free));
        let other = Need {
            accepts: vec![Accepts::Name("n".into())],
            ..need()
        };
        assert!(!good.meets(&other));
        let no_escrow = Offer {
            takes_escrow: false,
            ..good
        };
        assert!(!no_escrow.meets(&need()));
    }
}
