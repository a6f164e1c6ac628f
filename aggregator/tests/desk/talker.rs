//! A buyer who says what it is told to.

use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link, Subscription};
use infernet_protocol::batch::{Answer, Ask, Question, Reply, Size, Wanted};
use infernet_protocol::event::{
    Accepts, Body, Checkers, Checking, Order, Quote, Settlement, Signed, Talk, V1,
};
use infernet_protocol::inference::Task;
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::{Conversation, Digest, overhear, whisper};
use infernet_protocol::verification::Secret;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(90);

/// A buyer.
pub struct Talker {
    keys: Keys,
    aggregator: PublicKey,
    key: Conversation,
    link: Link,
    ear: Subscription,
    asked: u64,
}

/// A body as an event of now.
pub fn sign(keys: &Keys, body: &impl Body) -> Event {
    let unsigned = body.to_unsigned(keys.public_key(), clock::now());
    unsigned.sign_with_keys(keys).unwrap()
}

impl Talker {
    pub async fn connect(relay: &RelayUrl, aggregator: PublicKey) -> Self {
        let keys = Keys::generate();
        let link = Link::connect(link::Options::new(vec![relay.clone()], keys.clone()));
        let link = link.await.unwrap();
        let filter = Filter::new()
            .kind(Kind::from(kinds::TALK))
            .pubkey(keys.public_key())
            .since(clock::now() - 5);
        let ear = link.subscribe(vec![filter]).unwrap();
        Self {
            key: Conversation::between(keys.secret_key(), &aggregator).unwrap(),
            keys,
            aggregator,
            link,
            ear,
            asked: 0,
        }
    }

    pub fn public_key(&self) -> PublicKey {
        self.keys.public_key()
    }

    /// Asks, and waits for the answer to that.
    pub async fn ask(&mut self, order: Option<EventId>, ask: Ask) -> Reply {
        let number = self.say(order, ask).await;
        timeout(SOON, self.answered(number)).await.unwrap()
    }

    /// Asks so much at once; answers in the order in which they come.
    pub async fn ask_all(&mut self, order: Option<EventId>, asks: Vec<Ask>) -> Vec<Reply> {
        let mut open = std::collections::HashSet::new();
        for ask in asks {
            open.insert(self.say(order, ask).await);
        }
        let mut replies = vec![];
        while !open.is_empty() {
            let answer = timeout(SOON, self.heard()).await.unwrap();
            if answer.number.is_some_and(|number| open.remove(&number)) {
                replies.push(answer.reply);
            }
        }
        replies
    }

    async fn say(&mut self, order: Option<EventId>, ask: Ask) -> u64 {
        self.asked += 1;
        let number = self.asked;
        let question = Question { number, order, ask };
        let talk = Talk {
            reader: self.aggregator,
            content: whisper(&self.key, &question.to_bytes(), &mut OsRng).unwrap(),
        };
        let unsigned = talk.to_unsigned(self.public_key(), clock::now());
        let event = unsigned.sign_with_keys(&self.keys).unwrap();
        self.link.publish(&event).await.unwrap();
        number
    }

    async fn answered(&mut self, number: u64) -> Reply {
        loop {
            let answer = self.heard().await;
            if answer.number == Some(number) {
                return answer.reply;
            }
        }
    }

    async fn heard(&mut self) -> Answer {
        loop {
            let Some(Delivery::Event(event)) = self.ear.next().await else {
                continue;
            };
            let talk = Talk::parse(&event).unwrap();
            let bytes = overhear(&self.key, &talk.content).unwrap();
            return Answer::from_bytes(&bytes).unwrap();
        }
    }

    pub async fn signed_quote(&mut self, wanted: Wanted) -> Event {
        match self.ask(None, Ask::Quote(wanted)).await {
            Reply::Quoted { event } => *event,
            other => panic!("no quote: {other:?}"),
        }
    }

    pub async fn quote(&mut self, wanted: Wanted) -> Quote {
        let event = self.signed_quote(wanted).await;
        let quote = Signed::<Quote>::verify(event).unwrap();
        assert_eq!(quote.author(), self.aggregator);
        (*quote).clone()
    }

    /// An order on this quote.
    pub fn order(&self, quote: &Event) -> Event {
        sign(&self.keys, &self.taking(quote))
    }

    /// Another one, dated some seconds later.
    pub fn order_after(&self, quote: &Event, seconds: u64) -> Event {
        let at = Timestamp::from_secs(clock::now().as_secs() + seconds);
        let unsigned = self.taking(quote).to_unsigned(self.public_key(), at);
        unsigned.sign_with_keys(&self.keys).unwrap()
    }

    fn taking(&self, quote: &Event) -> Order {
        Order {
            v: V1,
            aggregator: self.aggregator,
            quote: Box::new(quote.clone()),
            relays: vec![],
        }
    }

    /// A quote that we have signed ourselves, for somebody.
    pub fn invented_quote(&self, buyer: PublicKey) -> Event {
        let later = |s| Timestamp::from_secs(clock::now().as_secs() + s);
        let quote = Quote {
            v: V1,
            nonce: 1,
            buyer,
            task: Task::TextGeneration,
            accepts: vec![Accepts::Name("free".into())],
            size: Size {
                lines: 1,
                ..Size::default()
            },
            price: Price::FREE,
            fee_ppm: 0,
            checking_ppm: 0,
            most_msat: Msat::ZERO,
            terms: PaymentKind::Free,
            checkers: Checkers::Nobody,
            checking: Checking::None,
            commitment: Digest::from_bytes([1; 32]),
            seconds: 1,
            valid_until: later(60),
            deadline: later(600),
            relays: vec![],
        };
        sign(&self.keys, &quote)
    }

    /// The secret that the settlement reveals which closes this order.
    pub async fn secret(&self, order: EventId) -> Secret {
        let filter = Filter::new()
            .kind(Kind::from(kinds::SETTLEMENT))
            .author(self.aggregator)
            .event(order);
        let mut told = self.link.subscribe(vec![filter]).unwrap();
        let settlement = async {
            loop {
                if let Some(Delivery::Event(event)) = told.next().await {
                    return Signed::<Settlement>::verify(*event).unwrap();
                }
            }
        };
        let settlement = timeout(SOON, settlement).await.unwrap();
        settlement.secret.unwrap()
    }
}
