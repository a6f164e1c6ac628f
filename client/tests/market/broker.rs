//! An aggregator that does all work itself, in an instant, and misbehaves on demand. Of a text it says "re: " and the
//! last message; of texts to embed, their lengths.

mod blobs;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use infernet_blobs::Blobs;
use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link};
use infernet_payments::rail::{
    Ask as Bill, Direction, Hold, Order as Pay, OrderKey, PaymentRail, State,
};
use infernet_payments::test_rail::Wallet;
use infernet_payments::{Invoice, Preimage};
use infernet_protocol::batch::{
    Answer, Ask, BlobKey, Charge, Delivery as Delivered, Done, Group, GroupStanding, LineOutcome,
    Lines, Phase, Progress, Question, Reply, Standing, Wanted, invoice_description,
};
use infernet_protocol::event::{
    Aggregator, Body, Order, Quote, SettledGroup, Settlement, Signed, Talk, V1,
};
use infernet_protocol::inference::{EndReason, Prompt, Task};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::payload::{Generated, Payload, Vector, Work};
use infernet_protocol::seal::{Conversation, blob, overhear, whisper};
use infernet_protocol::verification::Secret;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey, RelayUrl};

pub use blobs::BlobServer;

/// Fee and most for checking, in millionths.
const FEE_PPM: u32 = 10_000;

/// How an aggregator behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    Honest,
    /// Makes no quotes.
    Refuses,
    /// Quotes for one line fewer.
    QuotesForLess,
    /// Asks for more to be held than it quoted.
    AsksTooMuch,
    /// Asks to be paid once more for what is held.
    AsksTwice,
    /// Charges more than it quoted.
    Overcharges,
    /// Does nothing of this group.
    Cancels(u32),
    /// Delivers groups from the last to the first of so many.
    Backwards(u32),
    /// Claims as soon as it has delivered, and is never heard again about it.
    ClaimsAndFallsSilent,
    /// Says that nothing is left of what it took.
    KeepsTheRest,
    /// Delivers what does not open.
    DeliversRubbish,
    /// Answers nothing until it is told to.
    Deaf,
}

/// What it has seen, and how its groups stand.
#[derive(Default)]
pub struct Books {
    pub questions: Vec<&'static str>,
    pub orders: Vec<EventId>,
    pub groups: BTreeMap<u32, Held>,
    /// The inputs that were given for each group: one, if all is well.
    pub given: HashMap<u32, Vec<Group>>,
    pub stopped: bool,
    pub refunded: Msat,
    credit: Msat,
    pub is_deaf: bool,
    /// Groups that may be given at once.
    pub at_once: u32,
}

/// A group as it holds it.
#[derive(Clone)]
pub struct Held {
    pub preimage: Preimage,
    pub invoice: Option<Invoice>,
    pub delivery: Option<Delivered>,
    pub is_settled: bool,
    lines: u64,
}

/// A running aggregator.
#[derive(Clone)]
pub struct Broker {
    pub keys: Keys,
    pub manner: Manner,
    /// What it asks; nothing where it has no wallet.
    pub price: Price,
    pub wallet: Option<Wallet>,
    link: Link,
    blobs: Blobs,
    books: Arc<Mutex<Books>>,
    secret: Secret,
}

impl Broker {
    pub async fn start(
        relay: &RelayUrl,
        server: &BlobServer,
        manner: Manner,
        paid: Option<(Wallet, Price)>,
    ) -> Self {
        let keys = Keys::generate();
        let link = Link::connect(link::Options::new([relay.clone()], keys.clone()))
            .await
            .unwrap();
        let blobs = Blobs::new(vec![server.url.parse().unwrap()], keys.clone());
        let (wallet, price) = paid.unzip();
        let broker = Self {
            keys,
            manner,
            price: price.unwrap_or(Price::FREE),
            wallet,
            link,
            blobs,
            books: Arc::new(Mutex::new(Books {
                is_deaf: manner == Manner::Deaf,
                at_once: 4,
                ..Books::default()
            })),
            secret: Secret::from_bytes([7; 32]),
        };
        let filter = Filter::new()
            .kind(Kind::from(kinds::TALK))
            .pubkey(broker.keys.public_key());
        let mut inbox = broker.link.subscribe(vec![filter]).unwrap();
        broker.announce().await;
        let listening = broker.clone();
        tokio::spawn(async move {
            while let Some(delivery) = inbox.next().await {
                if let Delivery::Event(event) = delivery {
                    tokio::spawn(listening.clone().hear(*event));
                }
            }
        });
        broker
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    async fn publish(&self, body: &impl Body) -> Event {
        let unsigned = body.to_unsigned(self.keys.public_key(), clock::now());
        let event = unsigned.sign_with_keys(&self.keys).unwrap();
        self.link.publish(&event).await.unwrap();
        event
    }

    async fn announce(&self) {
        let body = Aggregator {
            v: V1,
            id: "infernet".into(),
            name: "broker".into(),
            tasks: vec![Task::TextGeneration, Task::Embedding],
            fee_ppm: FEE_PPM,
            max_hold_msat: Msat(1_000_000),
            hold_s: 3_600,
            checkers: vec![],
            ranks: None,
            blobs: vec![],
            relays: vec![],
            software: "broker/1".into(),
            expires_at: clock::now() + 600_u64,
        };
        self.publish(&body).await;
    }

    async fn hear(self, event: Event) {
        let buyer = event.pubkey;
        let conversation = Conversation::between(self.keys.secret_key(), &buyer).unwrap();
        let envelope = Talk::parse(&event).unwrap();
        let bytes = overhear(&conversation, &envelope.content).unwrap();
        let question = Question::from_bytes(&bytes).unwrap();
        if self.books().is_deaf {
            return;
        }
        self.books().questions.push(name(&question.ask));
        let (order, reply) = self.answer(buyer, &question).await;
        let Some(reply) = reply else { return };
        let answer = Answer {
            number: Some(question.number),
            order,
            reply,
        };
        answer.validate().unwrap();
        let content = whisper(&conversation, &answer.to_bytes(), &mut OsRng).unwrap();
        let unsigned = Talk {
            reader: buyer,
            content,
        }
        .to_unsigned(self.keys.public_key(), clock::now());
        self.link
            .send(&unsigned.sign_with_keys(&self.keys).unwrap())
            .unwrap();
    }

    async fn answer(
        &self,
        buyer: PublicKey,
        question: &Question,
    ) -> (Option<EventId>, Option<Reply>) {
        let order = question.order;
        let reply = match &question.ask {
            Ask::Quote(_) if self.manner == Manner::Refuses => Reply::Refused {
                reason: "not today".into(),
            },
            Ask::Quote(wanted) => {
                let unsigned = self
                    .quote(buyer, wanted)
                    .to_unsigned(self.keys.public_key(), clock::now());
                let event = Box::new(unsigned.sign_with_keys(&self.keys).unwrap());
                Reply::Quoted { event }
            }
            Ask::Order { event } => {
                let order = Signed::<Order>::verify((**event).clone()).unwrap();
                let mut books = self.books();
                if !books.orders.contains(&order.id()) {
                    books.orders.push(order.id());
                }
                let standing = standing(&books);
                return (Some(order.id()), Some(Reply::Standing(standing)));
            }
            Ask::Standing if self.manner == Manner::KeepsTheRest => {
                let mut said = standing(&self.books());
                said.credit_msat = Msat::ZERO;
                Reply::Standing(said)
            }
            Ask::Standing => Reply::Standing(standing(&self.books())),
            Ask::Group(group) => return (order, self.group(order.unwrap(), group).await),
            Ask::Fetched { group } => return (order, self.fetched(order.unwrap(), *group).await),
            Ask::Refund { invoice } => {
                self.refund(invoice.parse().unwrap()).await;
                Reply::Refunding
            }
            Ask::Stop => {
                self.books().stopped = true;
                self.close(order.unwrap(), buyer).await;
                Reply::Standing(standing(&self.books()))
            }
        };
        (order, Some(reply))
    }

    fn quote(&self, buyer: PublicKey, wanted: &Wanted) -> Quote {
        let mut size = wanted.size;
        if self.manner == Manner::QuotesForLess {
            size.lines -= 1;
        }
        let mut quote = Quote {
            v: V1,
            nonce: 1,
            buyer,
            task: wanted.task,
            accepts: wanted.accepts.clone(),
            size,
            price: self.price,
            fee_ppm: FEE_PPM,
            checking_ppm: 0,
            most_msat: Msat::ZERO,
            terms: match self.price.is_free() {
                true => PaymentKind::Free,
                false => PaymentKind::Escrow,
            },
            checkers: wanted.checkers,
            checking: wanted.checking,
            commitment: self.secret.commitment(),
            seconds: 60,
            valid_until: clock::now() + 60_u64,
            deadline: wanted.deadline,
            relays: vec![],
        };
        quote.most_msat = quote.most_for(&size).unwrap();
        quote
    }

    async fn group(&self, order: EventId, group: &Group) -> Option<Reply> {
        let number = group.number;
        {
            let mut books = self.books();
            let given = books.given.entry(number).or_default();
            if !given.contains(group) {
                given.push(group.clone());
            }
        }
        let held = self.books().groups.get(&number).cloned();
        let mut held = match held {
            Some(held) => held,
            None => self.hold(order, group).await,
        };
        let is_silent = self.manner == Manner::ClaimsAndFallsSilent;
        if is_silent && held.delivery.is_some() {
            return None;
        }
        if held.delivery.is_none() && !self.is_paid(&held).await {
            let invoice = held.invoice.as_ref().unwrap().as_str().to_owned();
            return Some(standing_of(&held, number, Phase::Unpaid { invoice }));
        }
        if self.manner == Manner::Cancels(number) {
            if let (Some(wallet), Some(invoice)) = (&self.wallet, &held.invoice) {
                wallet.cancel(&invoice.hash()).await.unwrap();
            }
            let reason = "nobody sells it".into();
            return Some(standing_of(&held, number, Phase::Cancelled { reason }));
        }
        if self.manner == Manner::AsksTwice && held.delivery.is_none() {
            let another = self.bill(order, group, Preimage::from_bytes([9; 32])).await;
            self.work(order, group, &mut held).await;
            let invoice = another.as_str().to_owned();
            return Some(standing_of(&held, number, Phase::Unpaid { invoice }));
        }
        if let Manner::Backwards(of) = self.manner
            && (number + 1..of).any(|later| {
                !self
                    .books()
                    .groups
                    .get(&later)
                    .is_some_and(|g| g.is_settled)
            })
        {
            return Some(standing_of(&held, number, Phase::Working));
        }
        if held.delivery.is_none() {
            self.work(order, group, &mut held).await;
        }
        if is_silent {
            self.claim(&held).await;
        }
        Some(self.delivered(number, &held))
    }

    async fn hold(&self, order: EventId, group: &Group) -> Held {
        let preimage = Preimage::from_bytes(rand::random());
        let invoice = match &self.wallet {
            Some(_) => Some(self.bill(order, group, preimage).await),
            None => None,
        };
        let held = Held {
            preimage,
            invoice,
            delivery: None,
            is_settled: false,
            lines: group.size.lines,
        };
        let mut books = self.books();
        books.groups.entry(group.number).or_insert(held).clone()
    }

    async fn bill(&self, order: EventId, group: &Group, preimage: Preimage) -> Invoice {
        let wallet = self.wallet.as_ref().unwrap();
        let work = self
            .price
            .cost(group.size.input_tokens, group.size.output_tokens)
            .unwrap();
        let more = u64::from(self.manner == Manner::AsksTooMuch) * 10_000;
        let amount = Msat(work.0 + (work.0 * u64::from(FEE_PPM)).div_ceil(1_000_000) + more);
        let bill = Bill {
            amount,
            description: invoice_description(&order, group.number),
            expiry: Duration::from_secs(600),
        };
        let hold = Hold {
            hash: preimage.hash(),
            min_cltv_expiry_delta: 144,
        };
        wallet.make_hold_invoice(&bill, &hold).await.unwrap()
    }

    async fn is_paid(&self, held: &Held) -> bool {
        let Some(invoice) = &held.invoice else {
            return true;
        };
        let wallet = self.wallet.as_ref().unwrap();
        let payment = wallet
            .look_up(Direction::Incoming, &invoice.hash())
            .await
            .unwrap();
        payment.is_some_and(|payment| matches!(payment.state, State::Held | State::Settled { .. }))
    }

    async fn work(&self, _order: EventId, group: &Group, held: &mut Held) {
        let sealed = self.blobs.get(&group.input).await.unwrap();
        let lines = blob::decrypt(group.key.as_bytes(), sealed).unwrap();
        let done: Done = Lines::from_bytes(&lines)
            .unwrap()
            .iter()
            .map(outcome)
            .collect();
        let (input, output) = done.iter().fold((0, 0), |sum, outcome| {
            let of = tokens(outcome);
            (sum.0 + of.0, sum.1 + of.1)
        });
        let factor = 1 + u64::from(self.manner == Manner::Overcharges);
        let work = Msat(self.price.cost(input, output).unwrap().0 * factor);
        let charge = Charge {
            work_msat: work,
            checking_msat: Msat::ZERO,
            fee_msat: Msat(work.0 * u64::from(FEE_PPM) / 1_000_000),
        };
        let mut key = *BlobKey::of_delivery(held.preimage.as_bytes()).as_bytes();
        if self.manner == Manner::DeliversRubbish {
            key[0] ^= 1;
        }
        let sealed = blob::encrypt(&key, &done.to_bytes(), &mut OsRng).unwrap();
        let output = self.blobs.put(sealed).await.unwrap();
        held.delivery = Some(Delivered { output, charge });
        self.books().groups.insert(group.number, held.clone());
    }

    fn delivered(&self, number: u32, held: &Held) -> Reply {
        let delivery = held.delivery.clone().unwrap();
        let phase = match held.is_settled {
            true => Phase::Settled {
                delivery,
                preimage: BlobKey::from_bytes(*held.preimage.as_bytes()),
            },
            false => Phase::Delivered(delivery),
        };
        standing_of(held, number, phase)
    }

    async fn fetched(&self, _order: EventId, number: u32) -> Option<Reply> {
        if self.manner == Manner::ClaimsAndFallsSilent {
            return None;
        }
        let held = self.books().groups.get(&number).cloned().unwrap();
        self.claim(&held).await;
        let mut books = self.books();
        let held = books.groups.get_mut(&number).unwrap();
        let was = std::mem::replace(&mut held.is_settled, true);
        let held = held.clone();
        if let (false, Some(invoice)) = (was, &held.invoice) {
            let charged = held.delivery.as_ref().unwrap().charge.total();
            books.credit.0 += invoice.amount().0.saturating_sub(charged.0);
        }
        drop(books);
        Some(self.delivered(number, &held))
    }

    async fn claim(&self, held: &Held) {
        if let Some(wallet) = &self.wallet {
            wallet.settle(&held.preimage).await.unwrap();
        }
    }

    async fn refund(&self, invoice: Invoice) {
        let wallet = self.wallet.clone().unwrap();
        {
            let mut books = self.books();
            assert!(
                invoice.amount() <= books.credit,
                "more is asked back than is left"
            );
            books.credit.0 -= invoice.amount().0;
            books.refunded.0 += invoice.amount().0;
        }
        let pay = Pay {
            key: OrderKey::random(),
            invoice,
            max_fee: Msat(10_000),
        };
        wallet.pay(&pay).await.unwrap();
    }

    /// Says what came of the groups, and reveals the secret.
    async fn close(&self, order: EventId, buyer: PublicKey) {
        let groups = self.books().groups.clone();
        for (number, held) in groups {
            let group = SettledGroup {
                number,
                lines: held.lines as u32,
                accepted: held.lines as u32,
                inconclusive: 0,
                failed: 0,
                charge: held
                    .delivery
                    .map(|delivery| delivery.charge)
                    .unwrap_or_default(),
                taken_msat: held.invoice.map_or(Msat::ZERO, |invoice| invoice.amount()),
                payment: None,
                results: vec![],
            };
            let settled = Settlement {
                v: V1,
                order,
                buyer,
                group: Some(group),
                secret: None,
            };
            self.publish(&settled).await;
        }
        let closing = Settlement {
            v: V1,
            order,
            buyer,
            group: None,
            secret: Some(self.secret),
        };
        self.publish(&closing).await;
    }
}

fn name(ask: &Ask) -> &'static str {
    match ask {
        Ask::Quote(_) => "quote",
        Ask::Order { .. } => "order",
        Ask::Group(_) => "group",
        Ask::Fetched { .. } => "fetched",
        Ask::Standing => "standing",
        Ask::Refund { .. } => "refund",
        Ask::Stop => "stop",
    }
}

fn standing(books: &Books) -> Standing {
    Standing {
        progress: Progress::default(),
        credit_msat: books.credit,
        groups_at_once: books.at_once,
        max_hold_msat: Msat(1_000_000),
        closed: books.stopped,
    }
}

fn standing_of(held: &Held, number: u32, phase: Phase) -> Reply {
    let is_done = held.delivery.is_some();
    let progress = Progress {
        lines: held.lines,
        done: if is_done { held.lines } else { 0 },
        verified: if is_done { held.lines } else { 0 },
        ..Progress::default()
    };
    Reply::Group(GroupStanding {
        number,
        phase,
        progress,
    })
}

fn outcome(work: &Work) -> LineOutcome {
    match work {
        Work::TextGeneration(generate) => {
            let said = match &generate.prompt {
                Prompt::Chat(messages) => messages.last().unwrap().content.clone(),
                Prompt::Text(text) => text.clone(),
            };
            if said == "fail" {
                return LineOutcome::Failed {
                    reason: "nobody could".into(),
                };
            }
            LineOutcome::Text(Generated {
                text: format!("re: {said}"),
                tokens: vec![1, 2, 3],
                input_tokens: 4,
                ended: EndReason::Stop,
                error: None,
            })
        }
        Work::Embedding { texts } => LineOutcome::Vectors {
            vectors: texts
                .iter()
                .map(|text| Vector(vec![text.len() as f32]))
                .collect(),
            input_tokens: texts.len() as u64,
        },
        _ => panic!("no line of a batch"),
    }
}

fn tokens(outcome: &LineOutcome) -> (u64, u64) {
    match outcome {
        LineOutcome::Text(text) => (text.input_tokens.into(), text.tokens.len() as u64),
        LineOutcome::Vectors { input_tokens, .. } => (*input_tokens, 0),
        LineOutcome::Failed { .. } => (0, 0),
    }
}
