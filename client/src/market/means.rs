//! With what a job can be paid, and what is in the way of buying.

use infernet_protocol::event::{AnnouncedModel, Announcement};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};

use super::Order;
use crate::{Error, Request};

/// With what a job may be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Means {
    /// The most that is paid ahead to one provider; none without a wallet.
    pub risk: Option<Msat>,
    /// Whether the client's owner pays later, as an aggregator does.
    pub escrow: bool,
    /// What the job may still cost, if that is limited.
    pub left: Option<Msat>,
}

impl Means {
    /// Whether there is anything to pay with.
    pub const fn can_pay(&self) -> bool {
        self.risk.is_some() || self.escrow
    }
}

impl Order {
    /// The ways in which the job can be paid.
    pub fn payable(&self) -> Vec<PaymentKind> {
        let tab = self.means.risk.map(|_| PaymentKind::Tab);
        let escrow = self.means.escrow.then_some(PaymentKind::Escrow);
        [Some(PaymentKind::Free), tab, escrow]
            .into_iter()
            .flatten()
            .collect()
    }

    /// What the job may cost at a price.
    pub fn cost(&self, price: &Price) -> Msat {
        let limits = &self.limits;
        let cost = price.cost(limits.input_tokens.into(), limits.output_tokens.into());
        cost.unwrap_or(Msat::MAX)
    }

    /// The way to pay at this price and these terms.
    ///
    /// # Errors
    /// What is in the way of it.
    pub(super) fn payment(
        &self,
        price: &Price,
        terms: &[PaymentTerms],
    ) -> Result<PaymentTerms, Hurdle> {
        if price.is_free() && terms.contains(&PaymentTerms::Free) {
            return Ok(PaymentTerms::Free);
        }
        let means = &self.means;
        let of_kind = |kind| terms.iter().find(|terms| terms.kind() == kind);
        let escrow = of_kind(PaymentKind::Escrow).filter(|_| means.escrow);
        let tab = of_kind(PaymentKind::Tab).zip(means.risk);
        if escrow.is_none() && tab.is_none() {
            return Err(Hurdle::Wallet);
        }
        if !price.is_within(&self.max_price) {
            return Err(Hurdle::Price);
        }
        let cost = self.cost(price);
        if let Some(left) = means.left.filter(|left| cost > *left) {
            return Err(Hurdle::Cost { cost, left });
        }
        match (escrow, tab) {
            (Some(escrow), _) => Ok(*escrow),
            (None, Some((tab, risk))) => match self.ahead(price, tab) {
                ahead if ahead <= risk => Ok(*tab),
                ahead => Err(Hurdle::Risk { ahead, risk }),
            },
            (None, None) => Err(Hurdle::Wallet),
        }
    }

    /// What a stranger has to pay ahead.
    fn ahead(&self, price: &Price, terms: &PaymentTerms) -> Msat {
        let PaymentTerms::Tab {
            min_payment_msat,
            prepaid_output_tokens,
            ..
        } = terms
        else {
            return Msat::ZERO;
        };
        let output = self.limits.output_tokens.min(*prepaid_output_tokens);
        let first = price.cost(self.limits.input_tokens.into(), output.into());
        first.unwrap_or(Msat::MAX).max(*min_payment_msat)
    }
}

/// What is in the way of buying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hurdle {
    /// There is no wallet, or no way to pay that we know.
    Wallet,
    /// It costs more than was said.
    Price,
    /// More has to be paid ahead than is risked.
    Risk { ahead: Msat, risk: Msat },
    /// The job may cost more than is left for it.
    Cost { cost: Msat, left: Msat },
}

/// What is in the way of buying any of these, in the words of the one that is nearest to being bought.
pub(super) fn hurdle<'a>(
    sold: impl Iterator<Item = (&'a Announcement, &'a AnnouncedModel)>,
    request: &Request,
    order: &Order,
) -> Option<Error> {
    let hurdles = sold.filter_map(|(announcement, model)| {
        let hurdle = order.payment(&model.price, &announcement.terms).err()?;
        let asked = model
            .price
            .input_msat
            .saturating_add(model.price.output_msat);
        (!model.price.is_free()).then_some((hurdle, std::cmp::Reverse(asked), model.price))
    });
    let (hurdle, _, cheapest) =
        hurdles.max_by_key(|(hurdle, asked, _)| (rank_of(*hurdle), *asked))?;
    let task = || order.task.to_string();
    let model = request.model.clone().unwrap_or_else(task);
    Some(match hurdle {
        Hurdle::Wallet => Error::NotFree { model, cheapest },
        Hurdle::Price => Error::TooDear { model, cheapest },
        Hurdle::Risk { ahead, risk } => Error::OverRisk { model, ahead, risk },
        Hurdle::Cost { cost, left } => Error::OverLimit { model, cost, left },
    })
}

/// The nearer to being overcome, the higher.
const fn rank_of(hurdle: Hurdle) -> u8 {
    match hurdle {
        Hurdle::Wallet => 0,
        Hurdle::Price => 1,
        Hurdle::Risk { .. } => 2,
        Hurdle::Cost { .. } => 3,
    }
}
