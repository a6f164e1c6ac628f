//! A provider of shards and checks, in this process, that behaves as it is told.

use std::sync::{Arc, Mutex};

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link};
use infernet_protocol::event::{
    AnnouncedModel, Announcement, Award, Body, Capacity, DeviceKind, Hardware, JobResult, Load,
    Private, Promise, Signed, Status, Timing, Usage, V1, Verdict,
};
use infernet_protocol::inference::{Dtype, EndReason, ModelId, Task};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use infernet_protocol::payload::{
    Check, Generate, Input, News, Output, Payload as _, Product, Progress, Vector, Work,
};
use infernet_protocol::seal::{Conversation, Domain, Salt, Sealed, salted_hash, whisper};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, Filter, Keys, Kind, PublicKey, RelayUrl};

use super::conduct::{Conduct, Eye};
use super::toy::GENUINE;

/// The model that all sell.
pub const MODEL: ModelId = ModelId::from_bytes([1; 32]);

/// The model that makes vectors.
pub const VECTORS: ModelId = ModelId::from_bytes([2; 32]);

/// What somebody sells, and how it behaves.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// Texts.
    Writer(Conduct),
    /// Vectors, turned by this much.
    Embedder(f32),
    /// Checks.
    Checker(Eye),
    /// Texts that nobody could judge, under the model's name: of something that nobody
    /// else has, or in a format that nobody has measured.
    Pretender(ModelId, Dtype),
}

/// A running provider.
#[derive(Debug, Clone)]
pub struct Fake {
    pub keys: Keys,
    pub role: Role,
    pub link: Link,
    /// Awards that it was given.
    pub awards: Arc<Mutex<Vec<Signed<Award>>>>,
}

impl Fake {
    /// Connects, listens and announces.
    pub async fn start(relay: &RelayUrl, role: Role, keys: Keys) -> Self {
        let link = Link::connect(link::Options::new(vec![relay.clone()], keys.clone()));
        let fake = Self {
            link: link.await.unwrap(),
            keys,
            role,
            awards: Arc::default(),
        };
        let since = clock::now() - 5;
        let filter = Filter::new()
            .kind(Kind::from(kinds::AWARD))
            .pubkey(fake.key())
            .since(since);
        let mut inbox = fake.link.subscribe(vec![filter]).unwrap();
        let announcement = fake.sign(&fake.announcement());
        fake.link.publish(&announcement).await.unwrap();
        let running = fake.clone();
        tokio::spawn(async move {
            while let Some(delivery) = inbox.next().await {
                if let Delivery::Event(event) = delivery {
                    let award = Signed::<Award>::from_verified(*event).unwrap();
                    tokio::spawn(running.clone().work(award));
                }
            }
        });
        fake
    }

    pub fn key(&self) -> PublicKey {
        self.keys.public_key()
    }

    /// How often it was hired, or bought from.
    pub fn jobs(&self) -> usize {
        self.awards.lock().unwrap().len()
    }

    fn models(&self) -> Vec<AnnouncedModel> {
        let sold = |model, task| AnnouncedModel {
            model,
            name: "toy".into(),
            aliases: vec![],
            task,
            dtype: Dtype::Scripted,
            context: 4_096,
            price: Price::FREE,
            promise: Promise {
                first_token_ms: 50,
                tokens_per_s: 1_000.0,
            },
            continues: false,
            interface: None,
        };
        match self.role {
            Role::Writer(_) => vec![sold(MODEL, Task::TextGeneration)],
            Role::Embedder(_) => vec![sold(VECTORS, Task::Embedding)],
            Role::Checker(_) => vec![sold(MODEL, Task::Verify)],
            Role::Pretender(model, dtype) => vec![AnnouncedModel {
                dtype,
                ..sold(model, Task::TextGeneration)
            }],
        }
    }

    fn announcement(&self) -> Announcement {
        Announcement {
            v: V1,
            id: "infernet".into(),
            name: self.key().to_hex()[..8].into(),
            status: Status::Online,
            models: self.models(),
            hardware: Hardware {
                device: DeviceKind::Cpu,
                name: "a processor".into(),
                memory_mib: 1,
            },
            capacity: Capacity { slots: 4, queue: 4 },
            load: Load::default(),
            terms: vec![PaymentTerms::Free],
            direct: true,
            engine: "toy 1".into(),
            relays: vec![],
            expires_at: clock::now() + 600,
        }
    }

    fn sign(&self, body: &impl Body) -> Event {
        let unsigned = body.to_unsigned(self.key(), clock::now());
        unsigned.sign_with_keys(&self.keys).unwrap()
    }

    async fn work(self, award: Signed<Award>) {
        let input = award.input.open(self.keys.secret_key(), &award.author());
        let input = Input::from_bytes(&input.unwrap()).unwrap();
        self.awards.lock().unwrap().push(award.clone());
        self.accept(&award);
        let output = self.output(&input.work);
        let result = self.sign(&self.result(&award, &output));
        self.link.publish(&result).await.unwrap();
    }

    fn accept(&self, award: &Signed<Award>) {
        let progress = Progress {
            award: award.id(),
            tab: None,
            news: News::Accepted { ahead: 0 },
        };
        let between = Conversation::between(self.keys.secret_key(), &award.author()).unwrap();
        let private = Private {
            kind: kinds::PROGRESS,
            job: award.job_id(),
            reader: award.author(),
            content: whisper(&between, &progress.to_bytes(), &mut OsRng).unwrap(),
        };
        let unsigned = private.to_unsigned(self.key(), clock::now());
        let event = unsigned.sign_with_keys(&self.keys).unwrap();
        self.link.send(&event).unwrap();
    }

    fn output(&self, work: &Work) -> Output {
        let salt = Salt::from_bytes(rand::random());
        let (product, proofs) = match (self.role, work) {
            (Role::Writer(conduct), Work::Shard { requests }) => {
                let (answers, proofs): (Vec<_>, Vec<_>) =
                    requests.iter().map(|asked| conduct.answer(asked)).unzip();
                let proofs = proofs.into_iter().flatten().collect();
                (Product::Shard { answers }, proofs)
            }
            (Role::Embedder(turned), Work::Embedding { texts }) => {
                let vector = |text: &String| Vector(vec![1.0, turned, text.len() as f32]);
                let vectors = texts.iter().map(vector).collect();
                (Product::Embedding { vectors }, vec![])
            }
            (Role::Checker(eye), Work::Verify { checks, .. }) => {
                let verdicts = checks.iter().map(|check| self.check(eye, check)).collect();
                (Product::Verify { verdicts }, vec![])
            }
            _ => panic!("that is not sold here"),
        };
        Output {
            salt,
            product,
            proofs,
        }
    }

    fn check(&self, eye: Eye, check: &Check) -> Event {
        let award = Signed::<Award>::verify((*check.award).clone()).unwrap();
        let result = Signed::<JobResult>::verify((*check.result).clone()).unwrap();
        let input = award.input.open_with(check.input_key.as_bytes()).unwrap();
        let output = result
            .output
            .open_with(check.output_key.as_bytes())
            .unwrap();
        let input = Input::from_bytes(&input).unwrap();
        let output = Output::from_bytes(&output).unwrap();
        let (Work::Shard { requests }, Product::Shard { answers }) = (input.work, output.product)
        else {
            panic!("only shards are checked here")
        };
        let measured = |(at, request): (usize, &Generate)| {
            GENUINE.check(request, &answers[at], output.proofs.get(at))
        };
        let measured: Vec<_> = requests.iter().enumerate().map(measured).collect();
        let (figures, judgement) = eye.look(award.provider, &measured);
        self.sign(&Verdict {
            v: V1,
            job: award.job_id(),
            award: award.id(),
            result: result.id(),
            provider: award.provider,
            model: award.model,
            judgement,
            method: figures.method().into(),
            figures: figures.to_map(),
            dtype: Dtype::Scripted,
            engine: "toy 1".into(),
        })
    }

    /// Who cannot be caught by one result hides behind ever new versions.
    fn engine(&self, award: &Signed<Award>) -> String {
        match self.role {
            Role::Writer(Conduct::ProvenGenuinely(_)) => format!("toy {}", award.id()),
            _ => "toy 1".into(),
        }
    }

    fn result(&self, award: &Signed<Award>, output: &Output) -> JobResult {
        let bytes = output.to_bytes();
        let usage = match &output.product {
            Product::Shard { answers } => Usage {
                input_tokens: answers.iter().map(|a| u64::from(a.input_tokens)).sum(),
                prefix_tokens: 0,
                output_tokens: answers.iter().map(|a| a.tokens.len() as u64).sum(),
            },
            _ => Usage {
                input_tokens: 10,
                ..Usage::default()
            },
        };
        JobResult {
            v: V1,
            job: award.job_id(),
            award: award.id(),
            attempt: award.attempt,
            buyer: award.author(),
            ended: EndReason::Stop,
            error: None,
            model: award.model,
            dtype: Dtype::Scripted,
            engine: self.engine(award),
            usage,
            timing: Timing::default(),
            due_msat: Msat::ZERO,
            output_hash: salted_hash(
                Domain::Output,
                &output.salt,
                &award.id(),
                &self.key(),
                &bytes,
            ),
            output: Sealed::close(&bytes, self.keys.secret_key(), &award.author(), &mut OsRng)
                .unwrap(),
        }
    }
}
