//! Whether there is anybody to check what a provider sells.

use std::collections::HashMap;

use infernet_protocol::event::Checkers;
use infernet_protocol::inference::{ModelId, Task};
use nostr::PublicKey;

use super::choice::Seller;
use super::{Need, Offer};

/// Who can check the work that is needed, by its model. Work that nobody can check is
/// paid and not rated: who sells under a model's name something that nobody else has
/// must not get any.
pub(super) struct Judges<'a>(Option<HashMap<&'a ModelId, Vec<PublicKey>>>);

impl<'a> Judges<'a> {
    pub fn of(offers: &'a [Offer], sellers: &HashMap<PublicKey, Seller>, need: &Need) -> Self {
        if need.checkers == Checkers::Nobody {
            return Self(None);
        }
        let is_allowed = |offer: &&Offer| {
            let seller = sellers.get(&offer.provider);
            let (is_own, is_banned) = seller.map_or((false, false), |s| (s.is_own, s.is_banned));
            !is_banned && (is_own || need.checkers == Checkers::Market)
        };
        let mut judges: HashMap<&ModelId, Vec<PublicKey>> = HashMap::new();
        for offer in offers.iter().filter(|offer| checks(offer, need)) {
            if is_allowed(&offer) {
                judges
                    .entry(&offer.model.model)
                    .or_default()
                    .push(offer.provider);
            }
        }
        Self(Some(judges))
    }

    /// Whether somebody else can check what is offered, or nobody needs to.
    pub fn can_judge(&self, offer: &Offer) -> bool {
        let Some(judges) = &self.0 else { return true };
        let judges = judges.get(&offer.model.model);
        judges.is_some_and(|keys| keys.iter().any(|key| *key != offer.provider))
    }
}

/// Whether this is on sale to check such work: by checking, or by making the same vectors.
fn checks(offer: &Offer, need: &Need) -> bool {
    let is_payable = offer.is_free || (need.is_paid && offer.takes_escrow);
    let is_twin = need.task == Task::Embedding && offer.model.task == Task::Embedding;
    is_payable
        && (is_twin || (offer.model.task == Task::Verify && !offer.model.dtype.is_quantised()))
}

#[cfg(test)]
mod tests {
    use super::super::offer::tests::{need, offer};
    use super::*;

    fn sells(name: &str, task: Task, model: u8) -> Offer {
        let mut offer = offer(name, 10, 10.0);
        offer.model.task = task;
        offer.model.model = ModelId::from_bytes([model; 32]);
        offer
    }

    #[test]
    fn what_no_other_can_check_is_not_bought() {
        let market = Need {
            checkers: Checkers::Market,
            ..need()
        };
        let (sold, made_up) = (
            sells("ada", Task::TextGeneration, 1),
            sells("eve", Task::TextGeneration, 9),
        );
        let judge = sells("judge", Task::Verify, 1);
        let mut own_judge = sells("eve", Task::Verify, 9);
        own_judge.provider = made_up.provider;
        let offers = [sold.clone(), made_up.clone(), judge.clone(), own_judge];
        let nobody = HashMap::new();
        let judges = Judges::of(&offers, &nobody, &market);
        assert!(judges.can_judge(&sold));
        assert!(!judges.can_judge(&made_up), "nobody checks itself");

        let own = Need {
            checkers: Checkers::Aggregator,
            ..need()
        };
        assert!(!Judges::of(&offers, &nobody, &own).can_judge(&sold));
        let ours = Seller {
            is_own: true,
            ..Seller::default()
        };
        let ours = HashMap::from([(judge.provider, ours)]);
        assert!(Judges::of(&offers, &ours, &own).can_judge(&sold));

        let unchecked = Need {
            checkers: Checkers::Nobody,
            ..need()
        };
        assert!(Judges::of(&offers, &nobody, &unchecked).can_judge(&made_up));
    }

    #[test]
    fn vectors_are_compared_with_anothers() {
        let need = Need {
            task: Task::Embedding,
            checkers: Checkers::Market,
            ..need()
        };
        let both =
            [("ada", 1), ("bob", 1)].map(|(name, model)| sells(name, Task::Embedding, model));
        let nobody = HashMap::new();
        assert!(Judges::of(&both, &nobody, &need).can_judge(&both[0]));
        assert!(!Judges::of(&both[..1], &nobody, &need).can_judge(&both[0]));
    }
}
