//! A provider that is paid, and misbehaves on demand. It keeps its tabs by the real machine and has a wallet of the
//! test network. Its input counts 10 tokens; its answer is "w0 w1 w2 …", as in `fake.rs`.

mod attempt;
mod books;
mod money;
mod offer;
mod outcome;

use std::sync::{Arc, Mutex, MutexGuard};

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link};
use infernet_payments::tab::provider::Input as TabInput;
use infernet_payments::tab::{Carried, Statement};
use infernet_payments::test_rail::{Network, Wallet};
use infernet_protocol::event::{
    Announcement, Award, Body, Cancel, Capacity, DeviceKind, Hardware, Load, Private, Signed,
    Status, V1,
};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentTerms};
use infernet_protocol::payload::{Control, Input, News, Payload, Progress, Wish, Work};
use infernet_protocol::seal::{self, Conversation};
use infernet_protocol::tab::SignedTotals;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::sync::Notify;

use self::attempt::Attempt;
pub use self::books::Books;
pub use self::offer::{Offer, SAT_A_TOKEN, Way};
use crate::fake::sign;

/// Tokens that every input counts.
pub const INPUT: u64 = 10;

pub fn words(tokens: u32) -> String {
    (0..tokens - 1).map(|at| format!("w{at} ")).collect()
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
            Wish::Payout(_) => panic!("nobody pays this seller by escrow"),
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

    fn conversation(&self, buyer: &PublicKey) -> Conversation {
        Conversation::between(self.offer.keys.secret_key(), buyer).unwrap()
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
            _ => (0, 0),
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
                _ => 0,
            },
            prefix: prefix as u32,
            until,
            seller: self,
            award,
        };
        work.run().await;
    }
}
