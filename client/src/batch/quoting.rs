//! Asking for a quote, and taking it.

use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::Link;
use infernet_protocol::batch::{Ask, Reply, Wanted};
use infernet_protocol::bounds::{MAX_RELAY_URL_BYTES, MAX_RELAYS};
use infernet_protocol::event::{Accepts, Aggregator, Body, Order, Quote, Signed, V1};
use infernet_protocol::money::{Msat, PaymentKind, Price};
use nostr::RelayUrl;
use tokio::time::Instant;

use super::journal::{Begun, Journal};
use super::talk::Talk;
use super::{Batch, Error};

/// How long an aggregator has to make a quote.
const QUOTE_PATIENCE: Duration = Duration::from_secs(20);

/// How long relays may take to take the order.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(15);

/// The longest that a batch takes unless it is said.
const USUAL_DEADLINE: Duration = Duration::from_secs(24 * 3_600);

impl Batch {
    /// Asks for a quote, and checks that it is one for what was asked. Nothing is bought by that.
    ///
    /// # Errors
    /// No aggregator, one that does not answer or refuses; a quote for something else, or over the limits.
    pub async fn quote(&mut self) -> Result<Signed<Quote>, Error> {
        let announced = self
            .client
            .aggregator(self.plan.aggregator.as_deref())
            .await?;
        let wanted = self.wanted(&announced)?;
        let shared = self.client.shared();
        let talk = Talk::with(announced.author(), shared.keys(), &shared.link)?;
        let asked = talk.ask_within(QUOTE_PATIENCE, None, Ask::Quote(wanted.clone()));
        let quote = match asked.await? {
            Reply::Quoted { event } => {
                Signed::<Quote>::verify(*event).map_err(|_| Error::Quote("it is not valid"))?
            }
            Reply::Refused { reason } if self.client.shared().purse.is_none() => {
                let hint = "you have no wallet, so only free work was asked for (INFERNET_WALLET)";
                return Err(Error::Refused(format!("{reason}; {hint}")));
            }
            Reply::Refused { reason } => return Err(Error::Refused(reason)),
            _ => return Err(Error::Quote("it is none")),
        };
        self.check(&quote, &wanted, &announced)?;
        self.aggregator = Some(announced);
        self.talk = Some(talk);
        Ok(quote)
    }

    fn wanted(&self, announced: &Aggregator) -> Result<Wanted, Error> {
        let Some(task) = self.scan.task else {
            return Err(Error::Invalid("no line of the input can be done".into()));
        };
        if !announced.tasks.contains(&task) {
            let message = format!("{} takes no batches of {task}", announced.name);
            return Err(Error::Invalid(message));
        }
        let held = Duration::from_secs(announced.hold_s);
        let usual = match held.is_zero() {
            true => USUAL_DEADLINE,
            false => USUAL_DEADLINE.min(held),
        };
        let can_pay = self.client.shared().purse.is_some();
        Ok(Wanted {
            task,
            accepts: vec![accepts(&self.scan.model)],
            size: self.scan.size,
            max_price: match can_pay {
                true => self.plan.max_price,
                false => Some(Price::FREE),
            },
            checkers: self.plan.checkers,
            checking: self.plan.checking,
            deadline: clock::now() + self.plan.deadline.unwrap_or(usual),
        })
    }

    /// Whether a quote is for what was asked, and within the limits.
    fn check(
        &self,
        quote: &Signed<Quote>,
        wanted: &Wanted,
        announced: &Signed<Aggregator>,
    ) -> Result<(), Error> {
        let is = |fits: bool, how| match fits {
            true => Ok(()),
            false => Err(Error::Quote(how)),
        };
        is(
            quote.author() == announced.author(),
            "it is somebody else's",
        )?;
        is(
            quote.buyer == self.client.public_key(),
            "it is for somebody else",
        )?;
        let same_work = quote.task == wanted.task && quote.accepts == wanted.accepts;
        is(
            same_work && quote.size == wanted.size,
            "it is for other work",
        )?;
        let same_checks = quote.checkers == wanted.checkers && quote.checking == wanted.checking;
        is(same_checks, "it is for other checks")?;
        is(quote.deadline <= wanted.deadline, "it is for later")?;
        is(
            quote.fee_ppm <= announced.fee_ppm,
            "its fee is not the announced one",
        )?;
        let highest = wanted.max_price.unwrap_or(Price {
            input_msat: u64::MAX,
            output_msat: u64::MAX,
        });
        is(quote.price.is_within(&highest), "its price is over yours")?;
        let most = quote.most_for(&quote.size).unwrap_or(Msat::MAX);
        is(
            quote.most_msat >= most,
            "its parts cost more than the whole",
        )?;
        is(quote.valid_until > clock::now(), "it has run out")?;
        if quote.terms == PaymentKind::Escrow && self.client.shared().purse.is_none() {
            return Err(crate::Error::NoWallet.into());
        }
        let daily = self
            .client
            .shared()
            .purse
            .as_ref()
            .map(|purse| purse.limits().daily);
        if let Some(allowed) = daily.filter(|daily| quote.most_msat > *daily) {
            return Err(Error::OverDay {
                most: quote.most_msat,
                allowed,
            });
        }
        match self.plan.max_cost {
            Some(allowed) if quote.most_msat > allowed => Err(Error::OverLimit {
                most: quote.most_msat,
                allowed,
            }),
            _ => Ok(()),
        }
    }

    /// Takes a quote: signs the order, writes it down, and publishes it. From here on the batch goes on by itself
    /// whenever it is run.
    ///
    /// # Errors
    /// A journal that cannot be kept; relays that do not take the order.
    pub async fn order(&mut self, quote: &Signed<Quote>) -> Result<(), Error> {
        let shared = self.client.shared();
        let body = Order {
            v: V1,
            aggregator: quote.author(),
            quote: Box::new(quote.event().clone()),
            relays: nameable(&shared.link),
        };
        let now = clock::now();
        let unsigned = body.to_unsigned(self.client.public_key(), now);
        let unsignable = |_| Error::Invalid("the order cannot be signed".into());
        let event = unsigned.sign_with_keys(shared.keys()).map_err(unsignable)?;
        let order = Signed::<Order>::from_verified(event)
            .map_err(|refusal| Error::Invalid(refusal.to_string()))?;
        let begun = Begun {
            input_sha256: self.scan.sha256,
            model: self.plan.model.clone(),
            aggregator: self.aggregator_name().unwrap_or_default().to_owned(),
            order: order.event().clone(),
            seed: rand::random(),
            ordered_at: now,
            is_taken: false,
            written: 0,
            written_bytes: 0,
            tally: super::journal::Tally::default(),
        };
        let journal = match self.journal.take() {
            Some(journal) => journal,
            None => Journal::open(&self.plan.journal()).await?,
        };
        journal.begin(&begun).await?;
        infernet_node::mortality::point("batch-ordered");
        self.journal = Some(journal);
        self.begun = Some(begun);
        let by = Instant::now() + PUBLISH_PATIENCE;
        let published = shared.link.publish_until(order.event(), by).await;
        published.map_err(crate::Error::from)?;
        Ok(())
    }
}

fn accepts(model: &str) -> Accepts {
    match model.parse() {
        Ok(id) => Accepts::Model(id),
        Err(_) => Accepts::Name(model.to_owned()),
    }
}

/// The relays that an event can name.
fn nameable(link: &Link) -> Vec<RelayUrl> {
    let relays = link.relays().into_iter().map(|relay| relay.url);
    let fits = |relay: &RelayUrl| relay.as_str().len() <= MAX_RELAY_URL_BYTES;
    relays.filter(fits).take(MAX_RELAYS).collect()
}
