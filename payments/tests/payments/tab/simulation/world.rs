//! The two machines, the network between them, and the books that judge them.

use std::collections::{BTreeMap, BTreeSet};

use infernet_payments::PaymentHash;
use infernet_payments::tab::{Carried, Totals, buyer, provider};
use infernet_protocol::job::Millis;
use infernet_protocol::money::Msat;
use nostr::EventId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{BuyerKind, ProviderKind, Scenario};

/// No honest job takes so long.
const END_MS: u64 = 400_000;

/// How often the driver says again what may be lost.
const AGAIN_MS: u64 = 500;

#[derive(Debug, Clone, Copy)]
enum Message {
    /// Output so far, with the provider's totals.
    Pieces {
        award: EventId,
        counted: u64,
        totals: Totals,
    },
    Acknowledged {
        award: EventId,
        totals: Totals,
    },
    Invoice {
        hash: PaymentHash,
        amount: Msat,
    },
    Result {
        award: EventId,
        totals: Totals,
    },
    /// The buyer pays no more than this at a time.
    Wish {
        most: Msat,
    },
}

#[derive(Debug, Clone, Copy)]
enum Event {
    ToBuyer(Message),
    ToProvider(Message),
    /// The wallets move the money.
    Arrives(PaymentHash),
    ComesBack(PaymentHash),
    BuyerLearns(PaymentHash, bool),
}

/// One job as it really is.
#[derive(Debug, Default)]
pub struct Truth {
    pub is_allowed: bool,
    pub allowed: u64,
    pub drawn: u64,
    pub counted: u64,
    pub is_open_at_buyer: bool,
    pub is_open_at_provider: bool,
    pub finished_at: Option<u64>,
    pub last: Totals,
}

pub struct World {
    pub scenario: Scenario,
    pub random: StdRng,
    pub now: u64,
    pub limits: buyer::Limits,
    pub terms: provider::Terms,
    pub buyer: buyer::Tab,
    pub provider: provider::Tab,
    pub buyer_books: Carried,
    pub provider_books: Carried,
    agenda: BTreeMap<(u64, u64), Event>,
    pub count: u64,
    pub jobs: BTreeMap<EventId, Truth>,
    pub invoices: BTreeMap<PaymentHash, Msat>,
    pub open_invoice: Option<PaymentHash>,
    pub under_way: BTreeMap<PaymentHash, Msat>,
    pub moved: BTreeSet<PaymentHash>,
    pub received: Msat,
    pub payments: usize,
    /// The most that the buyer said it pays, as far as the provider has heard and remembers.
    pub heard: Msat,
}

impl World {
    pub fn new(scenario: Scenario) -> Self {
        let limits = buyer::Limits {
            risk: scenario.risk,
            ..buyer::Limits::default()
        };
        let terms = provider::Terms::default();
        Self {
            random: StdRng::seed_from_u64(scenario.seed),
            now: 0,
            limits,
            terms,
            buyer: buyer::Tab::new(limits, Carried::default(), []),
            provider: provider::Tab::new(terms, Carried::default(), None),
            buyer_books: Carried::default(),
            provider_books: Carried::default(),
            agenda: BTreeMap::new(),
            count: 0,
            jobs: BTreeMap::new(),
            invoices: BTreeMap::new(),
            open_invoice: None,
            under_way: BTreeMap::new(),
            moved: BTreeSet::new(),
            received: Msat::ZERO,
            payments: 0,
            heard: Msat::ZERO,
            scenario,
        }
    }

    pub fn run(mut self) -> Self {
        for number in 0..self.scenario.jobs {
            self.award(number);
        }
        while self.now < END_MS && self.is_going_on() {
            self.now += 1;
            self.deliver();
            self.draw();
            if self.now.is_multiple_of(AGAIN_MS) {
                self.say_again();
            }
            self.crash();
            let ticked = self.provider.step(Millis(self.now), provider::Input::Tick);
            self.obey_provider(ticked.unwrap());
            self.judge();
        }
        self
    }

    fn is_going_on(&self) -> bool {
        let open = |job: &Truth| job.is_open_at_provider || job.is_open_at_buyer;
        self.jobs.values().any(open) || !self.under_way.is_empty()
    }

    fn award(&mut self, number: usize) {
        let award = EventId::from_byte_array([number as u8 + 1; 32]);
        let truth = Truth {
            is_open_at_buyer: true,
            is_open_at_provider: true,
            ..Truth::default()
        };
        self.jobs.insert(award, truth);
        let Scenario {
            price,
            input_tokens,
            output_tokens,
            ..
        } = self.scenario;
        let opened = self.buyer.step(buyer::Input::Opened {
            award,
            price,
            max_input_tokens: input_tokens,
            max_output_tokens: output_tokens,
            budget: price.cost(input_tokens, output_tokens).unwrap(),
        });
        self.obey_buyer(opened.unwrap());
        let opened = provider::Input::Opened {
            award,
            price,
            input_tokens,
            max_output_tokens: output_tokens,
        };
        let opened = self.provider.step(Millis(self.now), opened);
        self.obey_provider(opened.unwrap());
    }

    /// The engine draws a token of each job that may go on.
    fn draw(&mut self) {
        let takes_no_more =
            self.scenario.provider == ProviderKind::TakesAndStops && self.payments > 1;
        let awards: Vec<EventId> = self.jobs.keys().copied().collect();
        for award in awards {
            let output_tokens = self.scenario.output_tokens;
            let job = self.jobs.get_mut(&award).unwrap();
            if !job.is_open_at_provider || !job.is_allowed || takes_no_more {
                continue;
            }
            if job.drawn < job.allowed {
                job.drawn += 1;
                let drawn = provider::Input::Drawn {
                    award,
                    output_tokens: job.drawn,
                };
                let drawn = self.provider.step(Millis(self.now), drawn);
                self.obey_provider(drawn.unwrap());
                self.send_pieces(award);
            }
            if self.jobs[&award].drawn == output_tokens {
                self.jobs.get_mut(&award).unwrap().finished_at = Some(self.now);
                self.end_at_provider(award);
            }
        }
    }

    fn send_pieces(&mut self, award: EventId) {
        let counted = self.jobs[&award].drawn;
        let Some(totals) = self.totals(award) else {
            return;
        };
        self.send(Event::ToBuyer(Message::Pieces {
            award,
            counted,
            totals,
        }));
    }

    /// What the provider says.
    fn totals(&self, award: EventId) -> Option<Totals> {
        let mut totals = self.provider.totals(&award)?;
        if self.scenario.provider == ProviderKind::Overclaims {
            totals.output_tokens += 100;
            let Scenario {
                price,
                input_tokens,
                ..
            } = self.scenario;
            totals.due_msat = price.cost(input_tokens, totals.output_tokens)?;
        }
        Some(totals)
    }

    fn end_at_provider(&mut self, award: EventId) {
        let totals = self.totals(award).unwrap();
        let job = self.jobs.get_mut(&award).unwrap();
        (job.is_open_at_provider, job.last) = (false, totals);
        let ended = provider::Input::Ended { award };
        let ended = self.provider.step(Millis(self.now), ended);
        self.obey_provider(ended.unwrap());
        self.send(Event::ToBuyer(Message::Result { award, totals }));
    }

    fn end_at_buyer(&mut self, award: EventId, is_delivered: bool) {
        let job = self.jobs.get_mut(&award).unwrap();
        if !std::mem::take(&mut job.is_open_at_buyer) {
            return;
        }
        let ended = buyer::Input::Ended {
            award,
            is_delivered,
        };
        let ended = self.buyer.step(ended);
        self.obey_buyer(ended.unwrap());
    }

    /// What drivers repeat: the state of the stream, the result, the open invoice.
    fn say_again(&mut self) {
        for award in self.jobs.keys().copied().collect::<Vec<_>>() {
            if self.jobs[&award].is_open_at_provider {
                self.send_pieces(award);
            } else if self.jobs[&award].is_open_at_buyer {
                let totals = self.jobs[&award].last;
                self.send(Event::ToBuyer(Message::Result { award, totals }));
            }
        }
        self.wish_for_what_fits();
        if self.scenario.provider == ProviderKind::Begs {
            self.invoice(Msat(10_000));
        }
        if let Some(hash) = self.open_invoice {
            let amount = self.invoices[&hash];
            self.send(Event::ToBuyer(Message::Invoice { hash, amount }));
        }
    }

    /// What waits for room may be all that could make any.
    fn wish_for_what_fits(&mut self) {
        let room = i128::from(self.limits.risk.0) - self.buyer.at_risk_msat();
        let room = Msat(u64::try_from(room).unwrap_or(0));
        if self.buyer.waiting().is_some() && room >= self.terms.min_top_up {
            self.send(Event::ToProvider(Message::Wish { most: room }));
        }
    }

    fn send(&mut self, event: Event) {
        if self.random.random_ratio(self.scenario.lost, 100) {
            return;
        }
        let again = self.random.random_ratio(self.scenario.doubled, 100);
        for _ in 0..=u32::from(again) {
            let delay = self.random.random_range(1..=30);
            self.plan(delay, event);
        }
    }

    fn plan(&mut self, delay: u64, event: Event) {
        self.count += 1;
        self.agenda.insert((self.now + delay, self.count), event);
    }

    fn deliver(&mut self) {
        while let Some(next) = self.agenda.first_entry() {
            if next.key().0 > self.now {
                return;
            }
            let event = next.remove();
            match event {
                Event::ToBuyer(message) => self.buyer_hears(message),
                Event::ToProvider(message) => self.provider_hears(message),
                Event::Arrives(hash) => self.arrive(hash),
                Event::ComesBack(hash) => {
                    self.under_way.remove(&hash);
                    self.lapse(hash);
                    self.plan(20, Event::BuyerLearns(hash, false));
                }
                Event::BuyerLearns(hash, arrived) => self.learn(hash, arrived),
            }
        }
    }

    fn buyer_hears(&mut self, message: Message) {
        match message {
            Message::Pieces {
                award,
                counted,
                totals,
            } => {
                let job = self.jobs.get_mut(&award).unwrap();
                if !job.is_open_at_buyer {
                    return;
                }
                job.counted = job.counted.max(counted);
                let counted = buyer::Input::Counted {
                    award,
                    output_tokens: job.counted,
                };
                let effects = self.buyer.step(counted).unwrap();
                self.obey_buyer(effects);
                let effects = self.buyer.step(buyer::Input::Claimed { award, totals });
                self.obey_buyer(effects.unwrap());
            }
            Message::Invoice { hash, amount } => {
                let effects = self.buyer.step(buyer::Input::Invoiced { hash, amount });
                self.obey_buyer(effects.unwrap());
            }
            Message::Result { award, totals } => {
                // The result says what the pieces did not.
                let counted = self.jobs[&award].drawn;
                self.buyer_hears(Message::Pieces {
                    award,
                    counted,
                    totals,
                });
                self.end_at_buyer(award, true);
            }
            Message::Acknowledged { .. } | Message::Wish { .. } => {
                unreachable!("only buyers say that")
            }
        }
    }

    fn provider_hears(&mut self, message: Message) {
        let (award, totals) = match message {
            Message::Acknowledged { award, totals } => (award, totals),
            Message::Wish { most } => return self.cut_down(most),
            _ => unreachable!("only providers say that"),
        };
        if self.jobs[&award].is_open_at_provider {
            let input = provider::Input::Acknowledged { award, totals };
            let effects = self.provider.step(Millis(self.now), input);
            self.obey_provider(effects.unwrap());
        }
    }

    /// The wish may be about an invoice that is over, and come twice.
    fn cut_down(&mut self, most: Msat) {
        let open = self.open_invoice.map(|hash| self.invoices[&hash]);
        let is_too_much = open.is_some_and(|amount| amount > most);
        let input = match is_too_much {
            true => provider::Input::Limited { most },
            false => provider::Input::Bounded { most },
        };
        self.heard = self.heard.max(most);
        if is_too_much {
            self.open_invoice = None;
        }
        let effects = self.provider.step(Millis(self.now), input);
        self.obey_provider(effects.unwrap());
    }

    fn obey_provider(&mut self, effects: Vec<provider::Effect>) {
        for effect in effects {
            match effect {
                provider::Effect::Allow {
                    award,
                    output_tokens,
                } => {
                    let job = self.jobs.get_mut(&award).unwrap();
                    job.is_allowed = true;
                    job.allowed = output_tokens;
                }
                provider::Effect::Ask { amount } => {
                    if self.heard > Msat::ZERO {
                        assert!(amount <= self.heard, "{amount} are asked for again");
                    }
                    self.invoice(amount);
                }
                provider::Effect::Stop { award, .. } => {
                    if self.jobs[&award].is_open_at_provider {
                        self.end_at_provider(award);
                    }
                }
                provider::Effect::Charge { amount, .. } => {
                    self.provider_books.due.0 += amount.0;
                }
                provider::Effect::Refund { .. } | provider::Effect::RefuseRefund => {}
            }
        }
    }

    fn invoice(&mut self, amount: Msat) {
        self.count += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.count.to_be_bytes());
        let hash = PaymentHash::from_bytes(hash);
        self.invoices.insert(hash, amount);
        self.open_invoice = Some(hash);
        self.send(Event::ToBuyer(Message::Invoice { hash, amount }));
    }

    fn obey_buyer(&mut self, effects: Vec<buyer::Effect>) {
        for effect in effects {
            match effect {
                buyer::Effect::Acknowledge { award, totals } => {
                    if self.scenario.buyer != BuyerKind::NeverAcknowledges {
                        self.send(Event::ToProvider(Message::Acknowledged { award, totals }));
                    }
                }
                buyer::Effect::Pay { hash } => self.pay(hash),
                buyer::Effect::Refuse {
                    why: buyer::Refusal::TooLarge,
                    ..
                } => {
                    let most = self.limits.risk;
                    self.send(Event::ToProvider(Message::Wish { most }));
                }
                buyer::Effect::Refuse { .. } => {}
                buyer::Effect::Stop { award, .. } => self.end_at_buyer(award, false),
                buyer::Effect::Charge { amount, .. } => self.buyer_books.due.0 += amount.0,
            }
        }
    }

    fn pay(&mut self, hash: PaymentHash) {
        if self.scenario.buyer == BuyerKind::NeverPays {
            return;
        }
        let amount = self.invoices[&hash];
        assert!(self.under_way.insert(hash, amount).is_none(), "paid twice");
        assert!(!self.moved.contains(&hash), "paid twice");
        let fails = self.random.random_ratio(self.scenario.failing, 100);
        let event = match fails {
            true => Event::ComesBack(hash),
            false => Event::Arrives(hash),
        };
        self.plan(self.scenario.payment_ms, event);
    }

    fn arrive(&mut self, hash: PaymentHash) {
        let Some(amount) = self.under_way.remove(&hash) else {
            return;
        };
        assert!(self.moved.insert(hash), "paid twice");
        self.payments += 1;
        self.received.0 += amount.0;
        self.provider_books.paid.0 += amount.0;
        if self.open_invoice == Some(hash) {
            self.open_invoice = None;
        }
        let paid = self
            .provider
            .step(Millis(self.now), provider::Input::Paid { amount });
        self.obey_provider(paid.unwrap());
        self.plan(20, Event::BuyerLearns(hash, true));
    }

    fn lapse(&mut self, hash: PaymentHash) {
        if self.open_invoice == Some(hash) {
            self.open_invoice = None;
            let lapsed = self
                .provider
                .step(Millis(self.now), provider::Input::Lapsed);
            self.obey_provider(lapsed.unwrap());
        }
    }

    fn learn(&mut self, hash: PaymentHash, arrived: bool) {
        let input = match arrived {
            true => buyer::Input::Settled { hash },
            false => buyer::Input::Failed { hash },
        };
        if arrived {
            self.buyer_books.paid.0 += self.invoices[&hash].0;
        }
        let effects = self.buyer.step(input);
        self.obey_buyer(effects.unwrap());
    }

    /// Either side dies and comes back with its ledger alone: its jobs end as far as they got.
    fn crash(&mut self) {
        let odds = self.scenario.crashes;
        if self.random.random_ratio(odds, 100_000) {
            let open: Vec<EventId> = self.open(|job| job.is_open_at_buyer);
            for award in open {
                self.end_at_buyer(award, false);
            }
            // Told by the wallet, and not learned yet.
            let learning = self.agenda.values().filter_map(|event| match event {
                Event::BuyerLearns(hash, _) => Some((*hash, self.invoices[hash])),
                _ => None,
            });
            let under_way = self.under_way.iter().map(|(hash, amount)| (*hash, *amount));
            let under_way: Vec<_> = under_way.chain(learning).collect();
            self.buyer = buyer::Tab::new(self.limits, self.buyer_books, under_way);
        }
        if self.random.random_ratio(odds, 100_000) {
            let open: Vec<EventId> = self.open(|job| job.is_open_at_provider);
            for award in open {
                self.end_at_provider(award);
            }
            let asked = self.open_invoice.map(|hash| self.invoices[&hash]);
            self.heard = Msat::ZERO;
            self.provider = provider::Tab::new(self.terms, self.provider_books, asked);
        }
    }

    fn open(&self, is_open: impl Fn(&Truth) -> bool) -> Vec<EventId> {
        let jobs = self.jobs.iter().filter(|(_, job)| is_open(job));
        jobs.map(|(award, _)| *award).collect()
    }

    /// Whether anybody has lost more than it may.
    fn judge(&self) {
        let Scenario {
            price,
            input_tokens,
            ..
        } = self.scenario;
        let cost = |output| price.cost(input_tokens, output).unwrap().0;
        let had = self.jobs.values().filter(|job| job.counted > 0);
        let had: u64 = had.map(|job| cost(job.counted)).sum();
        let under_way: u64 = self.under_way.values().map(|amount| amount.0).sum();
        let ahead = (self.received.0 + under_way).saturating_sub(had);
        assert!(ahead <= self.limits.risk.0, "the buyer risks {ahead} msat");
        let done = self.jobs.values().filter(|job| job.drawn > 0);
        let done: u64 = done.map(|job| cost(job.drawn)).sum();
        let lent = done.saturating_sub(self.received.0);
        let used = Carried {
            paid: self.received,
            due: Msat(done),
        };
        let credit = self.terms.credit(&used).0;
        assert!(lent <= credit, "the provider lends {lent} of {credit} msat");
    }
}
