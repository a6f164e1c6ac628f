//! A provider that misbehaves on demand. Its model says "w0 w1 w2 …": word and token at a position depend on the
//! position alone, so that whoever goes on behind a prefix says what the first would have said.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link};
use infernet_protocol::event::{
    AnnouncedModel, Announcement, Award, Bid, Body, Cancel, CancelReason, Capacity, DeviceKind,
    Hardware, JobResult, Judgement, Load, Offer, Private, Promise, Signed, Status, Timing, Usage,
    V1, Verdict,
};
use infernet_protocol::inference::{Dtype, EndReason, ModelId, Task};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use infernet_protocol::payload::{
    Chain, Check, Control, Decline, Generate, Generated, Input, News, Output, Payload, Piece,
    Product, Progress, Vector, Wish, Work,
};
use infernet_protocol::seal::{self, Conversation, Domain, Salt, Sealed, salted_hash};
use infernet_protocol::verification::{Figures, TextFigures, Texts, Thresholds};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey, RelayUrl, Timestamp};

/// Tokens of the whole answer, the end token among them.
pub const LENGTH: u32 = 12;

/// The whole answer.
pub fn answer() -> String {
    (0..LENGTH - 1).map(word).collect()
}

fn word(position: u32) -> String {
    format!("w{position} ")
}

/// How a provider behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Conduct {
    Honest,
    /// Declines every award.
    Declines(Decline),
    /// Says nothing at all.
    Mute,
    /// Sends so many pieces and is never heard again.
    Dies(u32),
    /// Sends so many pieces and gives up.
    GivesUp(u32),
    /// Sends so many pieces and a result that says it failed.
    Fails(u32),
    /// Its result commits to another output.
    WrongHash,
    /// Its pieces do not fit their running hash.
    WrongDigest,
    /// Its result names another model.
    AnotherModel,
    /// Sends pieces in the reverse order.
    Shuffled,
    /// Sends every second piece only when it is asked.
    Lossy,
    /// Sends no pieces at all, only the result.
    ResultOnly,
    /// Sends everything twice.
    Stutters,
    /// Somebody else sends pieces and a result for this award first.
    Impersonated,
    /// Waits so long before it bids (in milliseconds), otherwise honest.
    BidsLate(u64),
    /// Is honest, but so slow that a test can act in between.
    Slow,
    /// Judges so, whatever it checks.
    Judges(Judgement),
    /// Has somebody else's key sign its verdicts.
    ForgesVerdicts,
    /// Of a shard, fails the first text and asks for it all the same.
    AsksForFailures,
}

/// What a provider sells, and how it behaves.
#[derive(Debug, Clone)]
pub struct Script {
    pub name: &'static str,
    pub model: AnnouncedModel,
    pub conduct: Conduct,
    pub direct: bool,
    pub keys: Keys,
    /// Seconds that its clock is behind.
    pub behind_s: u64,
    /// Seconds that an announcement stands.
    pub stands_s: u64,
    /// Seconds that a bid stands.
    pub bid_stands_s: u64,
}

impl Script {
    pub fn new(name: &'static str, conduct: Conduct) -> Self {
        Self {
            name,
            model: text_model("tiny", 1),
            conduct,
            direct: true,
            keys: Keys::generate(),
            behind_s: 0,
            stands_s: 90,
            bid_stands_s: 30,
        }
    }

    /// What its clock says.
    fn now(&self) -> Timestamp {
        clock::now() - self.behind_s
    }

    /// The same, promising this speed: more is asked first.
    pub fn speed(mut self, tokens_per_s: f32) -> Self {
        self.model.promise.tokens_per_s = tokens_per_s;
        self
    }
}

pub fn text_model(name: &str, id: u8) -> AnnouncedModel {
    AnnouncedModel {
        model: ModelId::from_bytes([id; 32]),
        name: name.into(),
        aliases: vec![],
        task: Task::TextGeneration,
        dtype: Dtype::Scripted,
        context: 2_048,
        price: Price::FREE,
        promise: Promise {
            first_token_ms: 50,
            tokens_per_s: 100.0,
        },
        continues: true,
        interface: None,
    }
}

pub fn embedding_model() -> AnnouncedModel {
    AnnouncedModel {
        task: Task::Embedding,
        ..text_model("vectors", 9)
    }
}

/// The entry of the model `tiny` for checks.
pub fn checking_model() -> AnnouncedModel {
    AnnouncedModel {
        task: Task::Verify,
        ..text_model("tiny", 1)
    }
}

/// What a provider has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub offers: Vec<EventId>,
    pub awards: Vec<Signed<Award>>,
    pub inputs: Vec<Input>,
    pub cancels: Vec<Cancel>,
    pub resends: usize,
    pub bid: bool,
}

/// A running provider.
#[derive(Debug, Clone)]
pub struct Fake {
    pub script: Arc<Script>,
    pub link: Link,
    pub seen: Arc<Mutex<Seen>>,
    pieces: Arc<Mutex<HashMap<EventId, Vec<Event>>>>,
    stopped: Arc<Mutex<HashSet<EventId>>>,
}

impl Fake {
    /// Connects, listens, and announces.
    pub async fn start(relays: &[RelayUrl], script: Script) -> Self {
        let mut options = link::Options::new(relays.to_vec(), script.keys.clone());
        options.retry_first = Duration::from_millis(100);
        options.retry_most = Duration::from_millis(200);
        let link = Link::connect(options).await.unwrap();
        let fake = Self {
            script: Arc::new(script),
            link,
            seen: Arc::default(),
            pieces: Arc::default(),
            stopped: Arc::default(),
        };
        let own = fake.script.keys.public_key();
        let since = Timestamp::from_secs(clock::now().as_secs() - 5);
        let filters = vec![
            Filter::new().kind(Kind::from(kinds::OFFER)).since(since),
            Filter::new()
                .kinds([kinds::AWARD, kinds::CANCEL, kinds::CONTROL].map(Kind::from))
                .pubkey(own)
                .since(since),
        ];
        let mut inbox = fake.link.subscribe(filters).unwrap();
        fake.announce(Status::Online).await;
        let running = fake.clone();
        tokio::spawn(async move {
            while let Some(delivery) = inbox.next().await {
                if let Delivery::Event(event) = delivery {
                    running.hear(*event).await;
                }
            }
        });
        fake
    }

    pub async fn announce(&self, status: Status) {
        self.announce_for(status, self.script.stands_s).await;
    }

    /// Announces for so many seconds.
    pub async fn announce_for(&self, status: Status, stands_s: u64) {
        let now = self.script.now();
        let body = Announcement {
            v: V1,
            id: "infernet".into(),
            name: self.script.name.into(),
            status,
            models: vec![self.script.model.clone()],
            hardware: Hardware {
                device: DeviceKind::Cpu,
                name: "a processor".into(),
                memory_mib: 1,
            },
            capacity: Capacity { slots: 1, queue: 4 },
            load: Load::default(),
            terms: match self.script.model.price.is_free() {
                true => vec![PaymentTerms::Free],
                false => vec![PaymentTerms::Escrow],
            },
            direct: self.script.direct,
            engine: "scripted/1".into(),
            relays: vec![],
            expires_at: now + stands_s,
        };
        self.publish(&body).await;
    }

    fn sign(&self, body: &impl Body) -> Event {
        sign_at(&self.script.keys, body, self.script.now())
    }

    pub fn key(&self) -> PublicKey {
        self.script.keys.public_key()
    }

    async fn publish(&self, body: &impl Body) -> Event {
        let event = self.sign(body);
        self.link.publish(&event).await.unwrap();
        event
    }

    async fn hear(&self, event: Event) {
        match event.kind.as_u16() {
            kinds::OFFER => {
                let offer = Signed::<Offer>::from_verified(event).unwrap();
                self.seen.lock().unwrap().offers.push(offer.id());
                tokio::spawn(self.clone().bid(offer));
            }
            kinds::AWARD => {
                let award = Signed::<Award>::from_verified(event).unwrap();
                tokio::spawn(self.clone().work(award));
            }
            kinds::CANCEL => {
                let cancel = Signed::<Cancel>::from_verified(event).unwrap();
                self.stopped.lock().unwrap().extend(cancel.award);
                self.seen.lock().unwrap().cancels.push((*cancel).clone());
            }
            _ => self.control(&event),
        }
    }

    async fn bid(self, offer: Signed<Offer>) {
        if let Conduct::BidsLate(ms) = self.script.conduct {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let model = &self.script.model;
        if !offer.accepts.iter().any(|accepts| accepts.includes(model)) {
            return;
        }
        let bid = Bid {
            v: V1,
            offer: offer.id(),
            buyer: offer.author(),
            model: model.model,
            name: model.name.clone(),
            dtype: model.dtype,
            context: model.context,
            price: model.price,
            promise: model.promise,
            terms: PaymentTerms::Free,
            continues: model.continues,
            expires_at: self.script.now() + self.script.bid_stands_s,
        };
        self.publish(&bid).await;
        self.seen.lock().unwrap().bid = true;
    }

    fn control(&self, event: &Event) {
        let private = Private::parse(event).unwrap();
        let bytes = seal::overhear(&self.conversation(&event.pubkey), &private.content).unwrap();
        let control = Control::from_bytes(&bytes).unwrap();
        if let Wish::Resend { from } = control.wish {
            self.seen.lock().unwrap().resends += 1;
            if matches!(self.script.conduct, Conduct::Dies(_) | Conduct::Mute) {
                return;
            }
            let pieces = self.pieces.lock().unwrap();
            let sent = pieces.get(&control.award).cloned().unwrap_or_default();
            for piece in sent.iter().skip(from as usize) {
                self.link.send(piece).unwrap();
            }
        }
    }

    fn conversation(&self, buyer: &PublicKey) -> Conversation {
        Conversation::between(self.script.keys.secret_key(), buyer).unwrap()
    }

    async fn work(self, award: Signed<Award>) {
        let input = self.open(&award);
        let mut attempt = Attempt::new(&self, award, &input);
        {
            let mut seen = self.seen.lock().unwrap();
            seen.awards.push(attempt.award.clone());
            seen.inputs.push(input);
        }
        attempt.run().await;
    }

    fn open(&self, award: &Signed<Award>) -> Input {
        let own = self.script.keys.secret_key();
        let bytes = award.input.open(own, &award.author()).unwrap();
        let input = Input::from_bytes(&bytes).unwrap();
        let about = award.basis.word().id;
        let hash = salted_hash(Domain::Input, &input.salt, &about, &award.author(), &bytes);
        assert_eq!(hash, award.input_hash, "the client's input hash is wrong");
        input
    }
}

/// One attempt of a fake provider.
struct Attempt {
    fake: Fake,
    award: Signed<Award>,
    from: u32,
    until: u32,
    /// What it brings of work that is not streamed.
    whole: Option<Product>,
    conversation: Conversation,
}

impl Attempt {
    fn new(fake: &Fake, award: Signed<Award>, input: &Input) -> Self {
        let (from, until, whole) = match &input.work {
            Work::TextGeneration(generate) => {
                let from = generate.prefix.len() as u32;
                assert!(generate.prefix.iter().copied().eq(1_000..1_000 + from));
                (from, LENGTH.min(generate.max_tokens), None)
            }
            Work::Embedding { texts } => {
                let vectors = vec![Vector(vec![0.6, 0.8]); texts.len()];
                (0, 0, Some(Product::Embedding { vectors }))
            }
            Work::Shard { requests } => (0, 0, Some(shard(fake, requests))),
            Work::Verify { checks, thresholds } => {
                (0, 0, Some(verdicts(fake, &award, checks, thresholds)))
            }
            Work::Tensors { .. } => panic!("that is not sold here"),
        };
        Self {
            conversation: fake.conversation(&award.author()),
            fake: fake.clone(),
            award,
            from,
            until,
            whole,
        }
    }

    async fn run(&mut self) {
        let conduct = self.fake.script.conduct;
        match conduct {
            Conduct::Mute => return,
            Conduct::Declines(reason) => {
                let detail = "not today".into();
                return self.say(News::Declined { reason, detail });
            }
            _ => self.say(News::Accepted { ahead: 0 }),
        }
        if conduct == Conduct::Impersonated {
            self.impersonate().await;
        }
        let pieces = self.pieces();
        self.fake
            .pieces
            .lock()
            .unwrap()
            .insert(self.award.id(), pieces.clone());
        let sent = self.stream(pieces).await;
        match conduct {
            Conduct::Dies(_) => {}
            Conduct::GivesUp(_) => self.give_up().await,
            Conduct::Fails(_) => self.deliver(sent, EndReason::Failed).await,
            _ if self.is_stopped() => self.deliver(sent, EndReason::Cancelled).await,
            _ if self.until < LENGTH && self.whole.is_none() => {
                self.deliver(sent, EndReason::Length).await;
            }
            _ => self.deliver(sent, EndReason::Stop).await,
        }
    }

    fn is_stopped(&self) -> bool {
        self.fake.stopped.lock().unwrap().contains(&self.award.id())
    }

    fn say(&self, news: News) {
        let event = self.sealed(news);
        self.fake.link.send(&event).unwrap();
    }

    fn sealed(&self, news: News) -> Event {
        let progress = Progress {
            award: self.award.id(),
            tab: None,
            news,
        };
        self.private(&progress, &self.fake.script.keys, &self.conversation)
    }

    fn private(&self, progress: &Progress, keys: &Keys, conversation: &Conversation) -> Event {
        let private = Private {
            kind: kinds::PROGRESS,
            job: self.award.job_id(),
            reader: self.award.author(),
            content: seal::whisper(conversation, &progress.to_bytes(), &mut OsRng).unwrap(),
        };
        let unsigned = private.to_unsigned(keys.public_key(), self.fake.script.now());
        unsigned.sign_with_keys(keys).unwrap()
    }

    /// A piece for each token.
    fn pieces(&self) -> Vec<Event> {
        let mut chain = Chain::start(&self.award.id());
        let range = self.from..self.until;
        let piece = |(seq, position): (usize, u32)| {
            let (seq, tokens, text) = (seq as u32, vec![1_000 + position], text_at(position));
            chain = chain.after(seq, &tokens, &text);
            let digest = match self.fake.script.conduct {
                Conduct::WrongDigest => seal::Digest::from_bytes([7; 32]),
                _ => chain.digest(),
            };
            self.sealed(News::Piece(Piece {
                seq,
                tokens,
                text,
                digest,
            }))
        };
        range.enumerate().map(piece).collect()
    }

    /// Sends pieces as the conduct has it; answers how many tokens were drawn.
    async fn stream(&self, mut pieces: Vec<Event>) -> u32 {
        let pause = match self.fake.script.conduct {
            Conduct::Slow => Duration::from_millis(150),
            _ => Duration::from_millis(5),
        };
        let whole = pieces.len() as u32;
        let (mut drawn, mut step) = (whole, 1);
        match self.fake.script.conduct {
            Conduct::Dies(n) | Conduct::GivesUp(n) | Conduct::Fails(n) => {
                pieces.truncate(n as usize);
                drawn = n.min(whole);
            }
            Conduct::Shuffled => pieces.reverse(),
            Conduct::Lossy => step = 2,
            Conduct::ResultOnly => pieces.clear(),
            Conduct::Stutters => {
                pieces = pieces.iter().flat_map(|p| [p.clone(), p.clone()]).collect()
            }
            _ => {}
        }
        for (sent, piece) in pieces.iter().step_by(step).enumerate() {
            if self.is_stopped() {
                return sent as u32;
            }
            // A relay that is away loses pieces: they can be asked for again.
            let _ = self.fake.link.send(piece);
            tokio::time::sleep(pause).await;
        }
        if self.fake.script.conduct == Conduct::Lossy {
            self.wait_for_resend().await;
        }
        drawn
    }

    async fn wait_for_resend(&self) {
        while self.fake.seen.lock().unwrap().resends == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn give_up(&self) {
        let cancel = Cancel {
            v: V1,
            job: self.award.job_id(),
            award: Some(self.award.id()),
            counterparty: Some(self.award.author()),
            reason: CancelReason::Restarted,
            detail: String::new(),
        };
        self.fake.publish(&cancel).await;
    }

    async fn deliver(&self, drawn: u32, ended: EndReason) {
        let result = self.result(drawn, ended, &self.fake.script.keys);
        let event = self.fake.sign(&result);
        let by = tokio::time::Instant::now() + Duration::from_secs(20);
        self.fake.link.publish_until(&event, by).await.unwrap();
        if self.fake.script.conduct == Conduct::Stutters {
            self.fake.link.publish(&event).await.unwrap();
        }
    }

    fn result(&self, drawn: u32, ended: EndReason, keys: &Keys) -> JobResult {
        let positions = self.from..self.from + drawn;
        let output = Output {
            salt: Salt::from_bytes([3; 32]),
            product: match &self.whole {
                Some(whole) => whole.clone(),
                None => Product::TextGeneration {
                    text: positions.clone().map(text_at).collect(),
                    tokens: positions.map(|p| 1_000 + p).collect(),
                },
            },
            proofs: vec![],
        };
        let bytes = output.to_bytes();
        let about = self.award.id();
        let mut hash = salted_hash(
            Domain::Output,
            &output.salt,
            &about,
            &keys.public_key(),
            &bytes,
        );
        let mut model = self.award.model;
        match self.fake.script.conduct {
            Conduct::WrongHash => hash = seal::Digest::from_bytes([9; 32]),
            Conduct::AnotherModel => model = ModelId::from_bytes([8; 32]),
            _ => {}
        }
        JobResult {
            v: V1,
            job: self.award.job_id(),
            award: about,
            attempt: self.award.attempt,
            buyer: self.award.author(),
            ended,
            error: (ended == EndReason::Failed).then(|| "out of memory".into()),
            model,
            dtype: Dtype::Scripted,
            engine: "scripted/1".into(),
            usage: self.usage(drawn),
            timing: Timing::default(),
            due_msat: self.due(drawn),
            output_hash: hash,
            output: Sealed::close(&bytes, keys.secret_key(), &self.award.author(), &mut OsRng)
                .unwrap(),
        }
    }

    fn usage(&self, drawn: u32) -> Usage {
        let (input_tokens, output_tokens) = match &self.whole {
            Some(Product::Shard { answers }) => (
                answers.iter().map(|a| u64::from(a.input_tokens)).sum(),
                answers.iter().map(|a| a.tokens.len() as u64).sum(),
            ),
            _ => (7, drawn.into()),
        };
        Usage {
            input_tokens,
            prefix_tokens: self.from.into(),
            output_tokens,
        }
    }

    fn due(&self, drawn: u32) -> Msat {
        let usage = self.usage(drawn);
        let cost = self
            .award
            .price
            .cost(usage.input_tokens, usage.output_tokens);
        cost.unwrap()
    }

    /// What somebody who has seen the award could try.
    async fn impersonate(&self) {
        let mallory = Keys::generate();
        let conversation =
            Conversation::between(mallory.secret_key(), &self.award.author()).unwrap();
        let text = "not by the provider".to_owned();
        let chain = Chain::start(&self.award.id()).after(0, &[1], &text);
        let progress = Progress {
            award: self.award.id(),
            tab: None,
            news: News::Piece(Piece {
                seq: 0,
                tokens: vec![1],
                text,
                digest: chain.digest(),
            }),
        };
        let piece = self.private(&progress, &mallory, &conversation);
        self.fake.link.publish(&piece).await.unwrap();
        let result = sign(&mallory, &self.result(3, EndReason::Stop, &mallory));
        self.fake.link.publish(&result).await.unwrap();
        let cancel = Cancel {
            v: V1,
            job: self.award.job_id(),
            award: Some(self.award.id()),
            counterparty: Some(self.award.author()),
            reason: CancelReason::Restarted,
            detail: String::new(),
        };
        self.fake
            .link
            .publish(&sign(&mallory, &cancel))
            .await
            .unwrap();
    }
}

/// Each text says the number of its request.
fn shard(fake: &Fake, requests: &[Generate]) -> Product {
    let fails = fake.script.conduct == Conduct::AsksForFailures;
    let answer = |n: usize| {
        let is_failed = fails && n == 0;
        Generated {
            text: format!("text {n}"),
            tokens: vec![1, 2],
            input_tokens: 3,
            ended: if is_failed {
                EndReason::Failed
            } else {
                EndReason::Stop
            },
            error: is_failed.then(|| "out of memory".into()),
        }
    };
    Product::Shard {
        answers: (0..requests.len()).map(answer).collect(),
    }
}

fn verdicts(
    fake: &Fake,
    award: &Signed<Award>,
    checks: &[Check],
    thresholds: &Thresholds,
) -> Product {
    let judgement = match fake.script.conduct {
        Conduct::Judges(judgement) => judgement,
        _ => Judgement::Accepted,
    };
    let figures = figures(judgement, thresholds);
    let verdict = |check: &Check| {
        let about = Signed::<JobResult>::verify((*check.result).clone()).unwrap();
        about.output.open_with(check.output_key.as_bytes()).unwrap();
        let of = Signed::<Award>::verify((*check.award).clone()).unwrap();
        of.input.open_with(check.input_key.as_bytes()).unwrap();
        let body = Verdict {
            v: V1,
            job: about.job,
            award: about.award,
            result: about.id(),
            provider: about.author(),
            model: award.model,
            judgement,
            method: figures.method().into(),
            figures: figures.to_map(),
            dtype: Dtype::Scripted,
            engine: "scripted/1".into(),
        };
        match fake.script.conduct {
            Conduct::ForgesVerdicts => sign(&Keys::generate(), &body),
            _ => sign(&fake.script.keys, &body),
        }
    };
    Product::Verify {
        verdicts: checks.iter().map(verdict).collect(),
    }
}

/// Figures of the whole answer from which a judgement follows.
fn figures(judgement: Judgement, thresholds: &Thresholds) -> Figures {
    let clip = thresholds.greedy.clip as f32;
    let inexact = match judgement {
        Judgement::Accepted => vec![0.6],
        Judgement::Inconclusive => vec![clip],
        Judgement::Rejected => vec![clip; 6],
    };
    let mut margins = vec![0.0; LENGTH as usize - inexact.len()];
    margins.extend(inexact);
    let text = TextFigures {
        margins,
        greedy: true,
        ..TextFigures::default()
    };
    let figures = Figures::Texts(Texts::of(&[text], thresholds));
    assert_eq!(figures.judge(thresholds), judgement);
    figures
}

/// The text at a position; the end token has none.
fn text_at(position: u32) -> String {
    match position {
        p if p + 1 == LENGTH => String::new(),
        p => word(p),
    }
}

pub fn sign(keys: &Keys, body: &impl Body) -> Event {
    sign_at(keys, body, clock::now())
}

fn sign_at(keys: &Keys, body: &impl Body, at: Timestamp) -> Event {
    let unsigned = body.to_unsigned(keys.public_key(), at);
    unsigned.sign_with_keys(keys).unwrap()
}
