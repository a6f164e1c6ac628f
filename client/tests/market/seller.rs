//! A provider that is paid, and misbehaves on demand. It keeps its tabs by the real machine and has a wallet of the
//! test network. Its input counts 10 tokens; its answer is "w0 w1 w2 …", as in `fake.rs`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link};
use infernet_payments::rail::{Ask, Direction, Notice, Order, OrderKey, PaymentRail, State};
use infernet_payments::tab::provider::{Effect, Input as TabInput, Tab, Terms};
use infernet_payments::tab::{Carried, Statement, Totals};
use infernet_payments::test_rail::{Network, Wallet};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::{
    AnnouncedModel, Announcement, Award, Body, Cancel, Capacity, DeviceKind, Hardware, JobResult,
    Load, Private, Receipt, ReceiptSide, Signed, Status, TabTotals, Timing, Usage, V1,
};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::Millis;
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use infernet_protocol::payload::{
    Chain, Control, Decline, Input, News, Output, Payload, Piece, Product, Progress, Vector, Wish,
    Work, invoice_description,
};
use infernet_protocol::seal::{self, Conversation, Domain, Salt, Sealed, salted_hash};
use infernet_protocol::tab::SignedTotals;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::sync::Notify;

use crate::fake::{sign, text_model};

/// Tokens that every input counts.
pub const INPUT: u64 = 10;

/// One sat for a token, in and out.
pub const SAT_A_TOKEN: Price = Price {
    input_msat: 1_000_000_000,
    output_msat: 1_000_000_000,
};

pub fn words(tokens: u32) -> String {
    (0..tokens - 1).map(|at| format!("w{at} ")).collect()
}

/// How a seller behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Honest,
    /// Asks for so much first.
    AsksFor(Msat),
    /// Sends an invoice of another node's.
    AnotherNode,
    /// Sends an invoice that names another award.
    AnotherAward,
    /// Sends an invoice that has run out, first.
    RunOut,
    /// Sends every invoice twice.
    AsksTwice,
    /// Asks for no money, and waits for it.
    NeverAsks,
    /// Claims so many tokens more than it draws, at their price.
    ClaimsMore(u64),
    /// Claims a cost that is not the price.
    ClaimsDear,
    /// Claims another input after the first piece.
    ChangesInput,
    /// Says after its first job that nothing was ever paid.
    ForgetsPayments,
    /// Signs with another key.
    Forges,
    /// Takes the money, and is never heard again.
    TakesAndStops,
    /// Draws so many tokens, and is never heard again.
    StopsAfter(u64),
    /// Draws so many tokens, and says that it failed.
    FailsAfter(u64),
    /// Asks for more when it accepts, whether it needs it or not, and draws once that is read.
    AsksEarly,
    /// Asks for so much once it has been paid, each time.
    GrowsGreedy(Msat),
    /// Draws so many tokens, shows its first invoice again and again, and says that it failed.
    ShowsAgainAndFails(u64),
    /// Is honest, and slow.
    Slow,
    /// Says nothing to the first wish for a refund, however often it comes.
    MissesRefund,
    /// Refuses to pay anything back.
    KeepsAll,
}

/// What is sold, and how.
#[derive(Debug, Clone)]
pub struct Offer {
    pub name: &'static str,
    pub model: AnnouncedModel,
    pub way: Way,
    pub tokens: u32,
    pub terms: Terms,
    pub keys: Keys,
}

impl Offer {
    pub fn new(name: &'static str, way: Way) -> Self {
        let mut model = text_model("tiny", 1);
        model.price = SAT_A_TOKEN;
        Self {
            name,
            model,
            way,
            tokens: 30,
            terms: Terms {
                prepaid_output_tokens: 4,
                stretch_output_tokens: 4,
                patience_ms: 5_000,
                ..Terms::default()
            },
            keys: Keys::generate(),
        }
    }

    /// The same, promising this speed: more is asked first.
    pub fn speed(mut self, tokens_per_s: f32) -> Self {
        self.model.promise.tokens_per_s = tokens_per_s;
        self
    }
}

/// What a seller has seen and done.
#[derive(Default)]
pub struct Books {
    pub awards: Vec<Signed<Award>>,
    pub prefixes: Vec<usize>,
    tabs: HashMap<PublicKey, Tab>,
    carried: HashMap<PublicKey, Carried>,
    allowed: HashMap<EventId, u64>,
    stopped: HashSet<EventId>,
    /// The first invoice that was sent.
    first_due: Option<News>,
    /// The first wish for a refund.
    first_refund: Option<String>,
    /// The award that the last invoice is about, while nobody has paid it.
    out: Option<EventId>,
    /// Whose invoices these are.
    asked: HashMap<PaymentHash, (PublicKey, EventId)>,
    sent: HashMap<EventId, Vec<Event>>,
    pub charged: HashMap<EventId, Msat>,
    pub acknowledged: HashMap<EventId, Totals>,
    pub paid: Vec<Msat>,
    pub paid_for: HashMap<EventId, Vec<(PaymentHash, Msat)>>,
    /// The most that a buyer wanted to be asked for, as it said.
    pub wished: Vec<Msat>,
    pub refunds: HashMap<String, bool>,
    /// The award that the last wish for a refund was about.
    pub refunded_about: Option<EventId>,
    pub cancels: Vec<Cancel>,
}

impl Books {
    /// Whether the last invoice was about what is over by now; told once.
    fn lapses(&mut self) -> bool {
        let is_over = self.out.is_some_and(|out| self.charged.contains_key(&out));
        self.out = self.out.filter(|_| !is_over);
        is_over
    }

    /// An invoice that nobody has paid.
    pub fn first_asked(&self) -> Option<&PaymentHash> {
        self.asked.keys().next()
    }
}

/// A running seller.
#[derive(Clone)]
pub struct Seller {
    pub offer: Arc<Offer>,
    pub link: Link,
    pub wallet: Wallet,
    other: Wallet,
    books: Arc<Mutex<Books>>,
    changed: Arc<Notify>,
}

impl Seller {
    pub async fn start(relay: &RelayUrl, network: &Network, offer: Offer) -> Self {
        let options = link::Options::new([relay.clone()], offer.keys.clone());
        let link = Link::connect(options).await.unwrap();
        let seller = Self {
            wallet: network.wallet(offer.name, Msat(1_000_000)),
            other: network.wallet("another", Msat::ZERO),
            offer: Arc::new(offer),
            link,
            books: Arc::default(),
            changed: Arc::default(),
        };
        let filter = Filter::new()
            .kinds([kinds::AWARD, kinds::CANCEL, kinds::CONTROL].map(Kind::from))
            .pubkey(seller.key())
            .since(Timestamp::from_secs(clock::now().as_secs() - 5));
        let mut inbox = seller.link.subscribe(vec![filter]).unwrap();
        seller.announce().await;
        let hearing = seller.clone();
        tokio::spawn(async move {
            while let Some(delivery) = inbox.next().await {
                if let Delivery::Event(event) = delivery {
                    hearing.hear(*event);
                }
            }
        });
        let watching = seller.clone();
        tokio::spawn(async move { watching.watch().await });
        seller
    }

    pub fn key(&self) -> PublicKey {
        self.offer.keys.public_key()
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// What the seller says that a buyer's tab has seen.
    pub fn carried(&self, buyer: &PublicKey) -> Carried {
        self.books().carried.get(buyer).copied().unwrap_or_default()
    }

    async fn announce(&self) {
        let terms = self.offer.terms;
        let body = Announcement {
            v: V1,
            id: "infernet".into(),
            name: self.offer.name.into(),
            status: Status::Online,
            models: vec![self.offer.model.clone()],
            hardware: Hardware {
                device: DeviceKind::Cpu,
                name: "a processor".into(),
                memory_mib: 1,
            },
            capacity: Capacity { slots: 1, queue: 4 },
            load: Load::default(),
            terms: vec![PaymentTerms::Tab {
                min_payment_msat: terms.min_top_up,
                prepaid_output_tokens: terms.prepaid_output_tokens as u32,
                payee: Some(self.wallet.node()),
            }],
            direct: true,
            engine: "scripted/1".into(),
            relays: vec![],
            expires_at: clock::now() + 600_u64,
        };
        self.publish(&body).await;
    }

    async fn publish(&self, body: &impl Body) -> Event {
        let event = sign(&self.offer.keys, body);
        self.link.publish(&event).await.unwrap();
        event
    }

    fn hear(&self, event: Event) {
        match event.kind.as_u16() {
            kinds::AWARD => {
                let award = Signed::<Award>::from_verified(event).unwrap();
                tokio::spawn(self.clone().work(award));
            }
            kinds::CANCEL => {
                let cancel = Signed::<Cancel>::from_verified(event).unwrap();
                self.books().stopped.extend(cancel.award);
                self.books().cancels.push((*cancel).clone());
                self.changed.notify_waiters();
            }
            _ => self.control(&event),
        }
    }

    fn control(&self, event: &Event) {
        let buyer = event.pubkey;
        let private = Private::parse(event).unwrap();
        let bytes = seal::overhear(&self.conversation(&buyer), &private.content).unwrap();
        let control = Control::from_bytes(&bytes).unwrap();
        let award = control.award;
        match control.wish {
            Wish::Acknowledge { tab } => {
                let statement = Statement {
                    buyer,
                    provider: self.key(),
                    award,
                    totals: tab.totals,
                };
                statement.verify(&buyer, &tab.signature).unwrap();
                self.books().acknowledged.insert(award, tab.totals);
                let totals = tab.totals;
                self.step(buyer, TabInput::Acknowledged { award, totals }, award);
            }
            Wish::Invoice { most_msat } => {
                self.books().wished.push(most_msat);
                self.step(buyer, TabInput::Limited { most: most_msat }, award);
                self.step(buyer, TabInput::Lapsed, award);
            }
            Wish::Stop => {
                self.books().stopped.insert(award);
                self.changed.notify_waiters();
            }
            Wish::Refund { invoice } => {
                tokio::spawn(self.clone().refund(buyer, private.job, award, invoice));
            }
            Wish::Resend { from } => {
                let sent = self.books().sent.get(&award).cloned().unwrap_or_default();
                for piece in sent.iter().skip(from as usize) {
                    let _ = self.link.send(piece);
                }
            }
        }
    }

    async fn refund(self, buyer: PublicKey, job: EventId, award: EventId, text: String) {
        let first = self
            .books()
            .first_refund
            .get_or_insert_with(|| text.clone())
            .clone();
        if self.offer.way == Way::MissesRefund && first == text {
            return;
        }
        self.books().refunded_about = Some(award);
        let invoice: Invoice = text.parse().unwrap();
        let known = self.books().refunds.get(&text).copied();
        let pays = known.unwrap_or_else(|| {
            let amount = invoice.amount();
            let effects = self.try_step(buyer, TabInput::RefundAsked { amount });
            let refunds = effects.iter().any(|e| matches!(e, Effect::Refund { .. }));
            refunds && self.offer.way != Way::KeepsAll
        });
        let news = match pays {
            true => News::Refunding,
            false => News::RefundRefused {
                detail: "that is not left".into(),
            },
        };
        self.say(buyer, job, award, news, None);
        if self.books().refunds.insert(text, pays).is_none() && pays {
            let amount = invoice.amount();
            self.books().carried.entry(buyer).or_default().paid.0 -= amount.0;
            let order = Order {
                key: OrderKey::random(),
                invoice,
                max_fee: Msat(1_000),
            };
            self.wallet.pay(&order).await.unwrap();
        }
    }

    fn conversation(&self, buyer: &PublicKey) -> Conversation {
        Conversation::between(self.offer.keys.secret_key(), buyer).unwrap()
    }

    /// Hears what arrives in the wallet.
    async fn watch(self) {
        let mut notices = self.wallet.subscribe();
        while let Some(notice) = notices.next().await {
            let Notice::Changed(payment) = notice else {
                continue;
            };
            let is_settled = matches!(payment.state, State::Settled { .. });
            let asked = self.books().asked.get(&payment.hash).copied();
            let (true, Some((buyer, award))) = (is_settled, asked) else {
                continue;
            };
            if payment.direction != Direction::Incoming {
                continue;
            }
            let amount = payment.amount;
            {
                let mut books = self.books();
                books.asked.remove(&payment.hash);
                books.out = None;
                books.paid.push(amount);
                let paid_for = books.paid_for.entry(award).or_default();
                paid_for.push((payment.hash, amount));
                books.carried.entry(buyer).or_default().paid.0 += amount.0;
            }
            self.step(buyer, TabInput::Paid { amount }, award);
        }
    }

    fn try_step(&self, buyer: PublicKey, input: TabInput) -> Vec<Effect> {
        let mut books = self.books();
        let carried = books.carried.get(&buyer).copied().unwrap_or_default();
        let terms = self.offer.terms;
        let tab = books.tabs.entry(buyer);
        let tab = tab.or_insert_with(|| Tab::new(terms, carried, None));
        // Late words about what is over are nothing to it.
        tab.step(Millis(clock::unix_ms()), input)
            .unwrap_or_default()
    }

    fn step(&self, buyer: PublicKey, input: TabInput, about: EventId) {
        let effects = self.try_step(buyer, input);
        if effects.is_empty() {
            return;
        }
        for effect in effects {
            match effect {
                Effect::Allow {
                    award,
                    output_tokens,
                } => {
                    self.books().allowed.insert(award, output_tokens);
                }
                Effect::Ask { amount } => {
                    let award = self.neediest(about);
                    tokio::spawn(self.clone().ask(buyer, award, amount));
                }
                Effect::Stop { award, .. } => {
                    self.books().stopped.insert(award);
                }
                Effect::Charge { award, amount } => {
                    let mut books = self.books();
                    books.charged.insert(award, amount);
                    books.carried.entry(buyer).or_default().due.0 += amount.0;
                }
                Effect::Refund { .. } | Effect::RefuseRefund => {}
            }
        }
        self.changed.notify_waiters();
    }

    /// This award, or another one if it is over: nobody reads what is about it.
    fn neediest(&self, about: EventId) -> EventId {
        let books = self.books();
        let runs = |award: &&Signed<Award>| !books.charged.contains_key(&award.id());
        let mut running = books.awards.iter().filter(runs).map(Signed::id);
        match books.charged.contains_key(&about) {
            true => running.next().unwrap_or(about),
            false => about,
        }
    }

    async fn ask(self, buyer: PublicKey, award: EventId, amount: Msat) {
        let is_first = {
            let books = self.books();
            books.wished.is_empty() && books.paid.is_empty()
        };
        let way = self.offer.way;
        let ask = Ask {
            amount: match way {
                Way::AsksFor(much) if is_first => much,
                Way::GrowsGreedy(much) if !is_first => much,
                _ => amount,
            },
            description: match way {
                Way::AnotherAward => invoice_description(&EventId::all_zeros()),
                _ => invoice_description(&award),
            },
            expiry: match way {
                Way::RunOut if is_first => Duration::ZERO,
                _ => Duration::from_secs(600),
            },
        };
        let wallet = match way {
            Way::AnotherNode => &self.other,
            _ => &self.wallet,
        };
        if way == Way::NeverAsks {
            return;
        }
        let Ok(invoice) = wallet.make_invoice(&ask).await else {
            return;
        };
        self.books().asked.insert(invoice.hash(), (buyer, award));
        self.books().out = Some(award);
        let job = self.job_of(&award);
        let due = News::Due {
            invoice: Some(invoice.as_str().to_owned()),
        };
        self.books().first_due.get_or_insert_with(|| due.clone());
        self.say(buyer, job, award, due.clone(), None);
        if way == Way::AsksTwice {
            self.say(buyer, job, award, due, None);
        }
    }

    fn job_of(&self, award: &EventId) -> EventId {
        let books = self.books();
        let found = books.awards.iter().find(|one| one.id() == *award);
        found.unwrap().job_id()
    }

    fn say(
        &self,
        buyer: PublicKey,
        job: EventId,
        award: EventId,
        news: News,
        tab: Option<SignedTotals>,
    ) {
        let _ = self.link.send(&self.sealed(buyer, job, award, news, tab));
    }

    fn sealed(
        &self,
        buyer: PublicKey,
        job: EventId,
        award: EventId,
        news: News,
        tab: Option<SignedTotals>,
    ) -> Event {
        let progress = Progress { award, tab, news };
        let conversation = self.conversation(&buyer);
        let private = Private {
            kind: kinds::PROGRESS,
            job,
            reader: buyer,
            content: seal::whisper(&conversation, &progress.to_bytes(), &mut OsRng).unwrap(),
        };
        let unsigned = private.to_unsigned(self.key(), clock::now());
        unsigned.sign_with_keys(&self.offer.keys).unwrap()
    }

    async fn work(self, award: Signed<Award>) {
        let own = self.offer.keys.secret_key();
        let bytes = award.input.open(own, &award.author()).unwrap();
        let input = Input::from_bytes(&bytes).unwrap();
        let (prefix, until) = match &input.work {
            Work::TextGeneration(generate) => (
                generate.prefix.len(),
                self.offer.tokens.min(generate.max_tokens),
            ),
            Work::Embedding { .. } => (0, 0),
        };
        {
            let mut books = self.books();
            books.awards.push(award.clone());
            books.prefixes.push(prefix);
        }
        let work = Attempt {
            buyer: award.author(),
            id: award.id(),
            job: award.job_id(),
            salt: input.salt,
            texts: match &input.work {
                Work::Embedding { texts } => texts.len(),
                Work::TextGeneration(_) => 0,
            },
            prefix: prefix as u32,
            until,
            seller: self,
            award,
        };
        work.run().await;
    }
}

struct Attempt {
    seller: Seller,
    award: Signed<Award>,
    buyer: PublicKey,
    id: EventId,
    job: EventId,
    salt: Salt,
    texts: usize,
    prefix: u32,
    until: u32,
}

impl Attempt {
    async fn run(self) {
        let opened = TabInput::Opened {
            award: self.id,
            price: self.award.price,
            input_tokens: INPUT + u64::from(self.prefix),
            max_output_tokens: self.award.limits.output_tokens.into(),
        };
        self.seller.step(self.buyer, opened, self.id);
        let Some(_) = self.allowance(0).await else {
            let ended = TabInput::Ended { award: self.id };
            self.seller.step(self.buyer, ended, self.id);
            let detail = "not paid in time".into();
            let reason = Decline::Terms;
            return self.say(News::Declined { reason, detail }, None);
        };
        let way = self.seller.offer.way;
        if way == Way::TakesAndStops {
            return;
        }
        if way == Way::AsksEarly {
            let amount = self.seller.offer.terms.min_top_up;
            self.seller.clone().ask(self.buyer, self.id, amount).await;
            // Read and judged before the first piece.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.say(News::Accepted { ahead: 0 }, self.totals());
        let drawn = self.draw().await;
        match way {
            Way::StopsAfter(_) => {}
            Way::FailsAfter(_) => self.deliver(drawn, EndReason::Failed).await,
            Way::ShowsAgainAndFails(_) => {
                let due = self.seller.books().first_due.clone().unwrap();
                // So often that it is read before the result.
                for _ in 0..10 {
                    self.say(due.clone(), None);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                self.deliver(drawn, EndReason::Failed).await;
            }
            _ if self.is_stopped() => self.deliver(drawn, EndReason::Cancelled).await,
            _ if self.texts == 0 && self.until < self.seller.offer.tokens => {
                self.deliver(drawn, EndReason::Length).await;
            }
            _ => self.deliver(drawn, EndReason::Stop).await,
        }
    }

    fn say(&self, news: News, tab: Option<SignedTotals>) {
        self.seller.say(self.buyer, self.job, self.id, news, tab);
    }

    fn is_stopped(&self) -> bool {
        self.seller.books().stopped.contains(&self.id)
    }

    /// Waits until more than `drawn` may be drawn; nothing if it was stopped.
    async fn allowance(&self, drawn: u64) -> Option<u64> {
        loop {
            // Nobody reads an invoice that was for a job which is over.
            let tick = match self.seller.books().lapses() {
                true => TabInput::Lapsed,
                false => TabInput::Tick,
            };
            self.seller.step(self.buyer, tick, self.id);
            let changed = self.seller.changed.notified();
            let allowed = self.seller.books().allowed.get(&self.id).copied();
            let is_all = allowed == Some(self.award.limits.output_tokens.into());
            if self.is_stopped() {
                return None;
            }
            if let Some(allowed) = allowed.filter(|allowed| *allowed > drawn || is_all) {
                return Some(allowed);
            }
            if tokio::time::timeout(Duration::from_millis(200), changed)
                .await
                .is_err()
            {
                self.say(News::Alive { ahead: 0 }, None);
            }
        }
    }

    /// Draws what is allowed; answers how much that was.
    async fn draw(&self) -> u64 {
        let way = self.seller.offer.way;
        let mut chain = Chain::start(&self.id);
        let mut drawn = 0;
        for position in self.prefix..self.until {
            if let Way::StopsAfter(most) | Way::FailsAfter(most) | Way::ShowsAgainAndFails(most) =
                way
                && drawn >= most
            {
                return drawn;
            }
            if self.is_stopped() || self.allowance(drawn).await.is_none() {
                return drawn;
            }
            drawn += 1;
            let step = TabInput::Drawn {
                award: self.id,
                output_tokens: drawn,
            };
            self.seller.step(self.buyer, step, self.id);
            let text = match position + 1 == self.seller.offer.tokens {
                true => String::new(),
                false => format!("w{position} "),
            };
            let (seq, tokens) = (drawn as u32 - 1, vec![1_000 + position]);
            chain = chain.after(seq, &tokens, &text);
            let digest = chain.digest();
            let piece = News::Piece(Piece {
                seq,
                tokens,
                text,
                digest,
            });
            let event = self
                .seller
                .sealed(self.buyer, self.job, self.id, piece, self.totals());
            let _ = self.seller.link.send(&event);
            let sent = |mut books: MutexGuard<'_, Books>| {
                books.sent.entry(self.id).or_default().push(event);
            };
            sent(self.seller.books());
            let pause = match way {
                Way::Slow => 100,
                _ => 3,
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        drawn
    }

    /// The totals, or what the seller says instead.
    fn totals(&self) -> Option<SignedTotals> {
        let mut totals = {
            let books = self.seller.books();
            books.tabs.get(&self.buyer)?.totals(&self.id)?
        };
        let price = self.award.price;
        match self.seller.offer.way {
            Way::ClaimsMore(more) if totals.output_tokens > 0 => {
                totals.output_tokens += more;
                let due = price
                    .cost(totals.input_tokens, totals.output_tokens)
                    .unwrap();
                totals.tab_due_msat.0 += due.0 - totals.due_msat.0;
                totals.due_msat = due;
            }
            Way::ClaimsDear => totals.due_msat.0 += 1,
            Way::ChangesInput if totals.output_tokens > 2 => {
                totals.input_tokens += 1;
                totals.due_msat = price
                    .cost(totals.input_tokens, totals.output_tokens)
                    .unwrap();
            }
            Way::ForgetsPayments if !self.seller.books().charged.is_empty() => {
                totals.tab_paid_msat = Msat::ZERO;
            }
            _ => {}
        }
        let statement = Statement {
            buyer: self.buyer,
            provider: self.seller.key(),
            award: self.id,
            totals,
        };
        match self.seller.offer.way {
            Way::Forges => Some(statement.signed(&Keys::generate())),
            _ => Some(statement.signed(&self.seller.offer.keys)),
        }
    }

    async fn deliver(&self, drawn: u64, ended: EndReason) {
        let award = self.id;
        self.seller
            .step(self.buyer, TabInput::Ended { award }, award);
        let due = self.seller.books().charged[&award];
        let result = self.result(drawn, ended, due);
        let event = self.seller.publish(&result).await;
        self.receipt(result.usage, due, event.id).await;
    }

    fn result(&self, drawn: u64, ended: EndReason, due_msat: Msat) -> JobResult {
        let product = match self.texts {
            0 => Product::TextGeneration {
                text: (self.prefix..self.prefix + drawn as u32)
                    .filter(|at| at + 1 != self.seller.offer.tokens)
                    .map(|at| format!("w{at} "))
                    .collect(),
                tokens: (0..drawn as u32)
                    .map(|at| 1_000 + self.prefix + at)
                    .collect(),
            },
            texts => Product::Embedding {
                vectors: vec![Vector(vec![0.6, 0.8]); texts],
            },
        };
        let output = Output {
            salt: Salt::from_bytes([9; 32]),
            product,
        };
        let bytes = output.to_bytes();
        let own = self.seller.key();
        JobResult {
            v: V1,
            job: self.job,
            award: self.id,
            attempt: self.award.attempt,
            buyer: self.buyer,
            ended,
            error: (ended == EndReason::Failed).then(|| "out of steam".into()),
            model: self.award.model,
            dtype: self.seller.offer.model.dtype,
            engine: "scripted/1".into(),
            usage: Usage {
                input_tokens: INPUT,
                prefix_tokens: self.prefix.into(),
                output_tokens: drawn,
            },
            timing: Timing::default(),
            due_msat,
            output_hash: salted_hash(Domain::Output, &output.salt, &self.id, &own, &bytes),
            output: Sealed::close(
                &bytes,
                self.seller.offer.keys.secret_key(),
                &self.buyer,
                &mut OsRng,
            )
            .unwrap(),
        }
    }

    async fn receipt(&self, usage: Usage, due_msat: Msat, result: EventId) {
        let (payments, carried) = {
            let books = self.seller.books();
            let payments = books.paid_for.get(&self.id).cloned().unwrap_or_default();
            (payments, books.carried[&self.buyer])
        };
        let salted = |(hash, _): &(PaymentHash, Msat)| {
            let (about, author) = (&self.id, &self.seller.key());
            salted_hash(Domain::Payment, &self.salt, about, author, hash.as_bytes())
        };
        let paid = payments.iter().map(|(_, amount)| amount.0).sum();
        let receipt = Receipt {
            v: V1,
            job: self.job,
            award: self.id,
            attempt: self.award.attempt,
            result: Some(result),
            side: ReceiptSide::Provider,
            counterparty: self.buyer,
            usage,
            due_msat,
            paid_msat: Msat(paid),
            payments: payments.iter().map(salted).collect(),
            tab: Some(TabTotals {
                due_msat: carried.due,
                paid_msat: carried.paid,
            }),
        };
        self.seller.publish(&receipt).await;
    }
}
