//! A buyer that does the right thing, or the wrong one, as a test wants.

use std::collections::VecDeque;
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link, Subscription};
use infernet_payments::Invoice;
use infernet_protocol::event::{
    Accepts, Announcement, Award, Basis, Bid, Body, Cancel, CancelReason, Checkers, JobResult,
    Limits, Offer, Private, Receipt, Signed, Status, V1,
};
use infernet_protocol::inference::{Prompt, Sampling, Task, TokenId};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentKind, Price};
use infernet_protocol::payload::{
    Chain, Control, Decline, Generate, Input, News, Output, Payload, Piece, Product, Progress,
    Wish, Work,
};
use infernet_protocol::seal::{self, Conversation, Domain, Salt, Sealed, salted_hash};
use infernet_protocol::tab::SignedTotals;
use nostr::secp256k1::rand::RngCore;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use super::house::{PATIENCE, Relay};

/// What a buyer hears.
#[derive(Debug)]
pub enum Heard {
    Announcement(Signed<Announcement>),
    Bid(Signed<Bid>),
    Progress(EventId, News, Option<SignedTotals>),
    Result(Box<Signed<JobResult>>),
    Cancel(Signed<Cancel>),
    Receipt(Signed<Receipt>),
}

pub struct Buyer {
    pub keys: Keys,
    pub link: Link,
    market: Subscription,
    /// What was heard and not asked for yet.
    kept: VecDeque<Heard>,
}

/// An award before it is signed, and what it gives away.
pub struct Draft {
    pub body: Award,
    pub input: Input,
    pub created_at: Timestamp,
}

impl Buyer {
    pub async fn connect(relays: &[&Relay]) -> Self {
        let keys = Keys::generate();
        let urls = relays.iter().map(|relay| relay.url());
        let link = Link::connect(link::Options::new(urls, keys.clone()))
            .await
            .unwrap();
        let own = [
            kinds::BID,
            kinds::RESULT,
            kinds::CANCEL,
            kinds::PROGRESS,
            kinds::RECEIPT,
        ];
        let own = Filter::new()
            .kinds(own.map(Kind::from))
            .pubkey(keys.public_key);
        let all = Filter::new().kind(Kind::from(kinds::ANNOUNCEMENT));
        let market = link.subscribe(vec![own, all]).unwrap();
        Self {
            keys,
            link,
            market,
            kept: VecDeque::new(),
        }
    }

    async fn hear(&mut self) -> Heard {
        loop {
            let delivery = timeout(PATIENCE, self.market.next()).await;
            let delivery = delivery.expect("something is heard in time");
            if let Delivery::Event(event) = delivery.expect("the link is up")
                && let Some(heard) = self.understand(*event)
            {
                return heard;
            }
        }
    }

    fn understand(&self, event: Event) -> Option<Heard> {
        match event.kind.as_u16() {
            kinds::ANNOUNCEMENT => Some(Heard::Announcement(Signed::from_verified(event).unwrap())),
            kinds::BID => Some(Heard::Bid(Signed::from_verified(event).unwrap())),
            kinds::RESULT => Some(Heard::Result(Box::new(
                Signed::from_verified(event).unwrap(),
            ))),
            kinds::CANCEL => Some(Heard::Cancel(Signed::from_verified(event).unwrap())),
            kinds::RECEIPT => Some(Heard::Receipt(Signed::from_verified(event).unwrap())),
            kinds::PROGRESS => {
                let key = Conversation::between(self.keys.secret_key(), &event.pubkey).unwrap();
                let envelope = Private::parse(&event).unwrap();
                assert_eq!(envelope.reader, self.keys.public_key);
                let bytes = seal::overhear(&key, &envelope.content).unwrap();
                let progress = Progress::from_bytes(&bytes).unwrap();
                Some(Heard::Progress(progress.award, progress.news, progress.tab))
            }
            _ => None,
        }
    }

    /// The first thing, from what was heard or comes, that `wanted` knows; what
    /// else comes meanwhile is kept.
    pub async fn wait<T>(&mut self, wanted: impl Fn(&Heard) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|heard| wanted(heard).is_some()) {
            return wanted(&self.kept.remove(at).unwrap()).unwrap();
        }
        loop {
            let heard = self.hear().await;
            match wanted(&heard) {
                Some(found) => return found,
                None => self.kept.push_back(heard),
            }
        }
    }

    /// Nothing about this award was heard so far.
    pub fn heard_nothing_of(&self, award: EventId) -> bool {
        !self.kept.iter().any(|heard| match heard {
            Heard::Progress(about, ..) => *about == award,
            Heard::Result(result) => result.award == award,
            Heard::Cancel(cancel) => cancel.award == Some(award),
            Heard::Receipt(receipt) => receipt.award == award,
            Heard::Announcement(_) | Heard::Bid(_) => false,
        })
    }

    pub async fn announcement(
        &mut self,
        of: PublicKey,
        fits: impl Fn(&Announcement) -> bool,
    ) -> Signed<Announcement> {
        self.wait(|heard| match heard {
            Heard::Announcement(word) if word.author() == of && fits(word) => Some(word.clone()),
            _ => None,
        })
        .await
    }

    pub async fn online(&mut self, provider: PublicKey) -> Signed<Announcement> {
        self.announcement(provider, |word| word.status == Status::Online)
            .await
    }

    pub async fn accepted(&mut self, award: EventId) -> u32 {
        self.wait(|heard| match heard {
            Heard::Progress(about, News::Accepted { ahead }, _) if *about == award => Some(*ahead),
            Heard::Progress(about, News::Declined { reason, detail }, _) if *about == award => {
                panic!("declined: {reason:?} ({detail})")
            }
            _ => None,
        })
        .await
    }

    pub async fn declined(&mut self, award: EventId) -> Decline {
        self.wait(|heard| match heard {
            Heard::Progress(about, News::Declined { reason, .. }, _) if *about == award => {
                Some(*reason)
            }
            Heard::Progress(about, News::Accepted { .. }, _) if *about == award => {
                panic!("accepted, where it should have been declined")
            }
            _ => None,
        })
        .await
    }

    /// Why it was declined, which it is to be without an invoice or a word before.
    pub async fn said_no(&mut self, award: EventId) -> (Decline, String) {
        self.wait(|heard| match heard {
            Heard::Progress(about, News::Declined { reason, detail }, _) if *about == award => {
                Some((*reason, detail.clone()))
            }
            _ => None,
        })
        .await
    }

    pub async fn why_declined(&mut self, award: EventId) -> String {
        self.said_no(award).await.1
    }

    pub async fn declined_after_all(&mut self, award: EventId) -> Decline {
        self.said_no(award).await.0
    }

    /// Asks for money back, and is refused.
    pub async fn refund_refused(&mut self, award: &Signed<Award>, invoice: &Invoice) -> String {
        let invoice = invoice.as_str().to_owned();
        self.wish(award, Wish::Refund { invoice });
        self.refund_refusal(award.id()).await
    }

    pub async fn refund_refusal(&mut self, award: EventId) -> String {
        self.wait(|heard| match heard {
            Heard::Progress(about, News::RefundRefused { detail }, _) if *about == award => {
                Some(detail.clone())
            }
            _ => None,
        })
        .await
    }

    /// Asks for money back, and is told that it comes.
    pub async fn refunding(&mut self, award: &Signed<Award>, invoice: &Invoice) {
        let invoice = invoice.as_str().to_owned();
        self.wish(award, Wish::Refund { invoice });
        self.wait(|heard| match heard {
            Heard::Progress(about, News::Refunding, _) if *about == award.id() => Some(()),
            Heard::Progress(about, News::RefundRefused { detail }, _) if *about == award.id() => {
                panic!("refused: {detail}")
            }
            _ => None,
        })
        .await;
    }

    pub async fn piece(&mut self, award: EventId, seq: u32) -> Piece {
        self.wait(|heard| match heard {
            Heard::Progress(about, News::Piece(piece), _)
                if *about == award && piece.seq == seq =>
            {
                Some(piece.clone())
            }
            _ => None,
        })
        .await
    }

    pub async fn alive(&mut self, award: EventId, expected: u32) {
        self.wait(|heard| match heard {
            Heard::Progress(about, News::Alive { ahead }, _)
                if *about == award && *ahead == expected =>
            {
                Some(())
            }
            _ => None,
        })
        .await;
    }

    /// The result of an award, opened, its hash checked.
    pub async fn result(&mut self, award: &Signed<Award>) -> (Signed<JobResult>, Product) {
        let (result, output) = self.output(award).await;
        (result, output.product)
    }

    /// The same with its proofs.
    pub async fn output(&mut self, award: &Signed<Award>) -> (Signed<JobResult>, Output) {
        let id = award.id();
        let result = self
            .wait(|heard| match heard {
                Heard::Result(result) if result.award == id => Some((**result).clone()),
                _ => None,
            })
            .await;
        let output = self.open_output(award, &result);
        (result, output)
    }

    pub fn open(&self, award: &Signed<Award>, result: &Signed<JobResult>) -> Product {
        self.open_output(award, result).product
    }

    fn open_output(&self, award: &Signed<Award>, result: &Signed<JobResult>) -> Output {
        let provider = result.author();
        assert_eq!(provider, award.provider);
        assert_eq!(
            (result.job, result.attempt),
            (award.job_id(), award.attempt)
        );
        assert_eq!((result.buyer, result.model), (award.author(), award.model));
        let bytes = result
            .output
            .open(self.keys.secret_key(), &provider)
            .unwrap();
        let output = Output::from_bytes(&bytes).unwrap();
        let hash = salted_hash(Domain::Output, &output.salt, &award.id(), &provider, &bytes);
        assert_eq!(hash, result.output_hash);
        output
    }

    /// So many tokens of an attempt, from the piece of this number on.
    pub async fn stream_from(
        &mut self,
        award: EventId,
        from: u32,
        tokens: usize,
    ) -> (Vec<TokenId>, String) {
        let (mut ids, mut text) = (vec![], String::new());
        for seq in from.. {
            let piece = self.piece(award, seq).await;
            ids.extend(piece.tokens);
            text.push_str(&piece.text);
            if ids.len() >= tokens {
                break;
            }
        }
        (ids, text)
    }

    /// Whether a cancel was heard so far.
    pub fn heard_cancel(&self) -> bool {
        self.kept
            .iter()
            .any(|heard| matches!(heard, Heard::Cancel(_)))
    }

    /// All pieces of an attempt, in order, up to so many tokens, their running
    /// hash checked.
    pub async fn stream(&mut self, award: EventId, tokens: usize) -> (Vec<TokenId>, String) {
        let (mut ids, mut text, mut chain) = (vec![], String::new(), Chain::start(&award));
        for seq in 0.. {
            let piece = self.piece(award, seq).await;
            chain = chain.after(seq, &piece.tokens, &piece.text);
            assert_eq!(chain.digest(), piece.digest);
            ids.extend(piece.tokens);
            text.push_str(&piece.text);
            if ids.len() >= tokens {
                break;
            }
        }
        (ids, text)
    }

    pub fn draft(&self, word: &Signed<Announcement>, work: Work) -> Draft {
        let model = word
            .models
            .iter()
            .find(|model| model.task == work.task())
            .unwrap();
        let body = Award {
            v: V1,
            job: None,
            attempt: 1,
            provider: word.author(),
            basis: Basis::Direct {
                announcement: Box::new(word.event().clone()),
            },
            task: work.task(),
            model: model.model,
            price: model.price,
            budget_msat: Msat::ZERO,
            terms: PaymentKind::Free,
            limits: limits(),
            checkers: Checkers::Nobody,
            deadline: in_seconds(60),
            relays: vec![],
            input_hash: salted_hash(
                Domain::Input,
                &fresh_salt(),
                &word.id(),
                &word.author(),
                b"replaced when it is sealed",
            ),
            input: Sealed {
                key: String::new(),
                body: String::new(),
                blob: None,
            },
        };
        Draft {
            body,
            input: Input {
                salt: fresh_salt(),
                work,
                prove: false,
            },
            created_at: clock::now(),
        }
    }

    /// Signs and publishes an award.
    pub async fn place(&self, draft: Draft) -> Signed<Award> {
        let award = self.sign(draft.sealed(&self.keys));
        self.link.publish(award.event()).await.unwrap();
        award
    }

    pub fn sign(&self, draft: Draft) -> Signed<Award> {
        let unsigned = draft
            .body
            .to_unsigned(self.keys.public_key, draft.created_at);
        Signed::verify(unsigned.sign_with_keys(&self.keys).unwrap()).unwrap()
    }

    /// A direct award of a chat of at most so many tokens.
    pub async fn ask(&self, word: &Signed<Announcement>, max_tokens: u32) -> Signed<Award> {
        self.place(self.draft(word, generate("Count for me", max_tokens)))
            .await
    }

    pub async fn offer(&self, change: impl FnOnce(&mut Offer)) -> Signed<Offer> {
        let mut offer = Offer {
            v: V1,
            nonce: OsRng.next_u32().into(),
            task: Task::TextGeneration,
            accepts: vec![Accepts::Name("scripted".into())],
            limits: limits(),
            max_price: Price::FREE,
            budget_msat: Msat::ZERO,
            terms: vec![PaymentKind::Free],
            checkers: Checkers::Nobody,
            bids_until: in_seconds(5),
            deadline: in_seconds(60),
            relays: vec![],
        };
        change(&mut offer);
        let signed = self.publish(&offer).await;
        Signed::verify(signed).unwrap()
    }

    pub async fn bid(&mut self, offer: EventId) -> Signed<Bid> {
        self.wait(|heard| match heard {
            Heard::Bid(bid) if bid.offer == offer => Some(bid.clone()),
            _ => None,
        })
        .await
    }

    pub async fn publish<B: Body>(&self, body: &B) -> Event {
        let unsigned = body.to_unsigned(self.keys.public_key, clock::now());
        let event = unsigned.sign_with_keys(&self.keys).unwrap();
        self.link.publish(&event).await.unwrap();
        event
    }

    pub async fn cancel(&self, award: &Signed<Award>) {
        let cancel = Cancel {
            v: V1,
            job: award.job_id(),
            award: Some(award.id()),
            counterparty: Some(award.provider),
            reason: CancelReason::Stopped,
            detail: String::new(),
        };
        self.publish(&cancel).await;
    }

    pub fn wish(&self, award: &Signed<Award>, wish: Wish) {
        let key = Conversation::between(self.keys.secret_key(), &award.provider).unwrap();
        let control = Control {
            award: award.id(),
            wish,
        };
        let content = seal::whisper(&key, &control.to_bytes(), &mut OsRng).unwrap();
        let envelope = Private {
            kind: kinds::CONTROL,
            job: award.job_id(),
            reader: award.provider,
            content,
        };
        let unsigned = envelope.to_unsigned(self.keys.public_key, clock::now());
        let event = unsigned.sign_with_keys(&self.keys).unwrap();
        self.link.send(&event).unwrap();
    }

    pub async fn fetch(&self, filter: Filter) -> Vec<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A connection to a relay that was stopped may break only when it is used.
            match self.link.fetch(vec![filter.clone()], PATIENCE).await {
                Ok(events) => return events,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Draft {
    /// Seals the input to the provider, and commits to it.
    pub fn sealed(mut self, keys: &Keys) -> Self {
        let bytes = self.input.to_bytes();
        let about = self.body.basis.word().id;
        let (salt, buyer) = (&self.input.salt, &keys.public_key);
        self.body.input_hash = salted_hash(Domain::Input, salt, &about, buyer, &bytes);
        let provider = &self.body.provider;
        self.body.input = Sealed::close(&bytes, keys.secret_key(), provider, &mut OsRng).unwrap();
        self
    }

    pub fn generate(&mut self) -> &mut Generate {
        match &mut self.input.work {
            Work::TextGeneration(generate) => generate,
            _ => panic!("this draft is for no text"),
        }
    }
}

pub fn generate(prompt: &str, max_tokens: u32) -> Work {
    Work::TextGeneration(Generate {
        prompt: Prompt::Text(prompt.into()),
        sampling: Sampling::default(),
        max_tokens,
        stop: vec![],
        prefix: vec![],
    })
}

fn limits() -> Limits {
    Limits {
        input_tokens: 100,
        output_tokens: 1_000,
    }
}

pub fn in_seconds(seconds: u64) -> Timestamp {
    Timestamp::from_secs(clock::now().as_secs() + seconds)
}

fn fresh_salt() -> Salt {
    let mut salt = [0; 32];
    OsRng.fill_bytes(&mut salt);
    Salt::from_bytes(salt)
}

/// Text and tokens of a text product.
pub fn text_of(product: Product) -> (String, Vec<TokenId>) {
    match product {
        Product::TextGeneration { text, tokens } => (text, tokens),
        _ => panic!("this is no text"),
    }
}
