//! The lives of two jobs. The first goes by auction: provider A wins it and falls
//! silent after two pieces, provider B goes on behind them. The second goes
//! straight to A on its announcement. Models, tokens and answers are made up.

use std::collections::BTreeMap;

use base64::Engine as _;
use infernet_protocol::event::{
    Attestation, Award, Basis, Bid, Body, Cancel, CancelReason, Checkers, Experience, JobResult,
    Limits, Measured, Private, Receipt, ReceiptSide, TabTotals, Timing, Usage, V1,
};
use infernet_protocol::inference::{Dtype, EndReason, Task, TokenId};
use infernet_protocol::kinds;
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::payload::{
    Chain, Control, Input, News, Output, Payload, Product, Progress, Vector, Wish, Work,
};
use infernet_protocol::seal::blob::encrypt;
use infernet_protocol::seal::{Conversation, Digest, Domain, Salt, Sealed, salted_hash, whisper};
use infernet_protocol::tab::{SignedTotals, Statement, Totals};
use infernet_protocol::tensor::{Element, Tensor};
use nostr::secp256k1::rand::rngs::StdRng;
use nostr::secp256k1::rand::{RngCore as _, SeedableRng as _};
use nostr::secp256k1::{Message, SECP256K1};
use nostr::{Event, EventId, Keys, SecretKey, UnsignedEvent};
use serde_json::{Value, json};
use sha2::Digest as _;

use super::draws::Draws;
use super::words::*;

/// Key of the blob that is shown.
const BLOB_KEY: [u8; 32] = [0x55; 32];

/// What its nonce is drawn from; apart from all other draws.
const BLOB_SEED: u64 = 5;

/// Who takes part.
pub struct Cast {
    pub buyer: Keys,
    pub a: Keys,
    pub b: Keys,
    pub checker: Keys,
    pub aggregator: Keys,
}

/// What has happened so far.
pub struct Life {
    pub cast: Cast,
    pub draws: Draws,
    pub files: BTreeMap<&'static str, String>,
}

/// Every example by its file's name.
pub fn files() -> BTreeMap<&'static str, String> {
    let keys = |n: u8| Keys::new(SecretKey::from_slice(&[n; 32]).expect("a scalar"));
    let cast = Cast {
        buyer: keys(0x11),
        a: keys(0x22),
        b: keys(0x33),
        checker: keys(0x44),
        aggregator: keys(0x66),
    };
    let mut life = Life {
        cast,
        draws: Draws::default(),
        files: BTreeMap::new(),
    };
    life.introduce();
    life.auction();
    life.direct();
    life.tensors();
    life.batch();
    life.files
}

impl Life {
    pub fn sign(&mut self, unsigned: UnsignedEvent, author: &Keys) -> Event {
        let signed = unsigned.sign_with_ctx(SECP256K1, &mut self.draws, author);
        signed.expect("it is its author's")
    }

    pub fn keep(&mut self, name: &'static str, event: &Event) {
        let text = serde_json::to_string_pretty(event).expect("an event is JSON");
        self.files.insert(name, text + "\n");
    }

    pub fn publish<B: Body>(
        &mut self,
        name: &'static str,
        body: &B,
        author: &Keys,
        seconds: u64,
    ) -> Event {
        let event = self.sign(body.to_unsigned(author.public_key(), at(seconds)), author);
        self.keep(name, &event);
        event
    }

    /// A payload's file holds exactly the bytes that are hashed and encrypted.
    pub fn keep_payload<P: Payload>(&mut self, name: &'static str, payload: &P) {
        let text = String::from_utf8(payload.to_bytes()).expect("JSON is UTF-8");
        self.files.insert(name, text);
    }

    pub fn salt(&mut self) -> Salt {
        let mut bytes = [0; 32];
        self.draws.fill_bytes(&mut bytes);
        Salt::from_bytes(bytes)
    }

    pub fn seal<P: Payload>(&mut self, payload: &P, author: &Keys, reader: &Keys) -> Sealed {
        let reader = reader.public_key();
        let bytes = payload.to_bytes();
        Sealed::close(&bytes, author.secret_key(), &reader, &mut self.draws).expect("it is short")
    }

    fn private<P: Payload>(
        &mut self,
        (event, payload): (&'static str, &'static str),
        kind: u16,
        job: EventId,
        message: &P,
        (author, reader): (&Keys, &Keys),
        seconds: u64,
    ) {
        let reader = reader.public_key();
        let key = Conversation::between(author.secret_key(), &reader).expect("two keys");
        let content = whisper(&key, &message.to_bytes(), &mut self.draws).expect("it is short");
        let private = Private {
            kind,
            job,
            reader,
            content,
        };
        let unsigned = private.to_unsigned(author.public_key(), at(seconds));
        let signed = self.sign(unsigned, author);
        self.keep(event, &signed);
        self.keep_payload(payload, message);
    }

    fn introduce(&mut self) {
        let keys = |keys: &Keys| {
            json!({
                "secret": keys.secret_key().to_secret_hex(),
                "public": keys.public_key().to_hex(),
            })
        };
        let all = json!({
            "buyer": keys(&self.cast.buyer),
            "provider_a": keys(&self.cast.a),
            "provider_b": keys(&self.cast.b),
            "checker": keys(&self.cast.checker),
            "aggregator": keys(&self.cast.aggregator),
        });
        self.keep_json("keys.json", &all);
    }

    fn keep_json(&mut self, name: &'static str, value: &Value) {
        let text = serde_json::to_string_pretty(value).expect("a value is JSON");
        self.files.insert(name, text + "\n");
    }

    fn auction(&mut self) {
        let Cast {
            buyer,
            a,
            b,
            checker,
            ..
        } = self.cast.copy();
        self.publish("announcement.json", &announcement_a(), &a, 0);
        let offer = self.publish("offer.json", &offer(), &buyer, 60);
        let bid_a = bid(&offer, PRICE_A, PaymentTerms::Escrow);
        let bid_a = self.publish("bid.json", &bid_a, &a, 61);
        let tab = PaymentTerms::Tab {
            min_payment_msat: Msat(10_000),
            prepaid_output_tokens: 64,
            payee: Some(node()),
        };
        let bid_b = self.publish("bid-b.json", &bid(&offer, PRICE_B, tab), &b, 61);

        let first = self.input(vec![]);
        self.keep_payload("payload-input.json", &first);
        let award = self.award(&first, &offer, &bid_a, &a, 1);
        let award = self.publish("award.json", &award, &buyer, 63);
        let shown = self.stream(&award, offer.id);
        self.fall_silent(&award, offer.id);

        let second = self.input(shown);
        self.keep_payload("payload-input-second.json", &second);
        let award = self.award(&second, &offer, &bid_b, &b, 2);
        let award = self.publish("award-second.json", &award, &buyer, 70);
        let output = self.output_b();
        self.keep_payload("payload-output.json", &output);
        let result = self.result_b(&award, offer.id, &output);
        let result = self.publish("result.json", &result, &b, 72);
        self.totals(&award, &result);

        let receipt = self.receipt(&second.salt, &award, offer.id, &result);
        let receipt = self.publish("receipt.json", &receipt, &buyer, 73);
        let verdict = verdict(&award, offer.id, &result);
        self.publish("verdict.json", &verdict, &checker, 90);
        let completed = Attestation {
            result: Some(result.id),
            receipt: Some(receipt.id),
            measured: Some(Measured {
                first_token_ms: 910,
                tokens_per_s: 23.75,
                output_tokens: 4,
            }),
            paid_msat: TOP_UP,
            ..attestation(&award, offer.id, Experience::Completed)
        };
        self.publish("attestation.json", &completed, &buyer, 74);
        self.worked_example();
    }

    fn input(&mut self, prefix: Vec<TokenId>) -> Input {
        Input {
            salt: self.salt(),
            work: work(prefix),
            prove: false,
        }
    }

    fn award(
        &mut self,
        input: &Input,
        offer: &Event,
        bid: &Event,
        provider: &Keys,
        attempt: u32,
    ) -> Award {
        let buyer = self.cast.buyer.clone();
        let said: Bid = serde_json::from_str(&bid.content).expect("our own bid");
        let author = buyer.public_key();
        Award {
            v: V1,
            job: Some(offer.id),
            attempt,
            provider: provider.public_key(),
            basis: Basis::Auction {
                offer: Box::new(offer.clone()),
                bid: Box::new(bid.clone()),
            },
            task: Task::TextGeneration,
            model: said.model,
            price: said.price,
            budget_msat: Msat(1_000),
            terms: said.terms.kind(),
            limits: JOB_LIMITS,
            checkers: Checkers::Market,
            deadline: at(180),
            relays: relays(),
            input_hash: hash_of(Domain::Input, &input.salt, &bid.id, &author, input),
            input: self.seal(input, &buyer, provider),
        }
    }

    /// A accepts and streams; the examples keep its second piece.
    fn stream(&mut self, award: &Event, job: EventId) -> Vec<TokenId> {
        let (buyer, a) = (self.cast.buyer.clone(), self.cast.a.clone());
        let pieces = pieces(&award.id);
        let progress = Progress {
            award: award.id,
            tab: None,
            news: News::Piece(pieces[1].clone()),
        };
        let names = ("progress.json", "payload-progress.json");
        self.private(names, kinds::PROGRESS, job, &progress, (&a, &buyer), 64);
        pieces.into_iter().flat_map(|piece| piece.tokens).collect()
    }

    /// The buyer asks for more, gives up, and says so.
    fn fall_silent(&mut self, award: &Event, job: EventId) {
        let (buyer, a) = (self.cast.buyer.clone(), self.cast.a.clone());
        let control = Control {
            award: award.id,
            wish: Wish::Resend { from: 2 },
        };
        let names = ("control.json", "payload-control.json");
        self.private(names, kinds::CONTROL, job, &control, (&buyer, &a), 67);
        let cancel = Cancel {
            v: V1,
            job,
            award: Some(award.id),
            counterparty: Some(a.public_key()),
            reason: CancelReason::Silent,
            detail: "nothing for five seconds".into(),
        };
        self.publish("cancel.json", &cancel, &buyer, 69);
        let silent = Attestation {
            measured: Some(Measured {
                first_token_ms: 640,
                tokens_per_s: 30.0,
                output_tokens: 3,
            }),
            ..attestation(award, job, Experience::Silent)
        };
        self.publish("attestation-silent.json", &silent, &buyer, 69);
    }

    fn output_b(&mut self) -> Output {
        Output {
            salt: self.salt(),
            product: Product::TextGeneration {
                text: REST.1.into(),
                tokens: REST.0.to_vec(),
            },
            proofs: vec![],
        }
    }

    fn result_b(&mut self, award: &Event, job: EventId, output: &Output) -> JobResult {
        let (buyer, b) = (self.cast.buyer.clone(), self.cast.b.clone());
        let usage = Usage {
            input_tokens: 31,
            prefix_tokens: 3,
            output_tokens: 4,
        };
        let author = b.public_key();
        JobResult {
            v: V1,
            job,
            award: award.id,
            attempt: 2,
            buyer: buyer.public_key(),
            ended: EndReason::Stop,
            error: None,
            model: chat_model(),
            dtype: Dtype::Bf16,
            engine: "infernet-engine 0.1.0".into(),
            usage,
            timing: Timing {
                queued_ms: 0,
                first_token_ms: 850,
                total_ms: 1_010,
            },
            due_msat: due(&usage),
            output_hash: hash_of(Domain::Output, &output.salt, &award.id, &author, output),
            output: self.seal(output, &b, &buyer),
        }
    }

    fn receipt(&self, salt: &Salt, award: &Event, job: EventId, result: &Event) -> Receipt {
        let author = self.cast.buyer.public_key();
        let payment_hash = sha2::Sha256::digest("example preimage");
        let said: JobResult = serde_json::from_str(&result.content).expect("our own result");
        let payment = salted_hash(Domain::Payment, salt, &award.id, &author, &payment_hash);
        Receipt {
            v: V1,
            job,
            award: award.id,
            attempt: 2,
            result: Some(result.id),
            side: ReceiptSide::Buyer,
            counterparty: result.pubkey,
            usage: said.usage,
            due_msat: said.due_msat,
            paid_msat: TOP_UP,
            payments: vec![payment],
            tab: Some(TabTotals {
                due_msat: said.due_msat,
                paid_msat: TOP_UP,
            }),
        }
    }

    /// The last totals of the second attempt, as its two sides sign and send them.
    fn totals(&mut self, award: &Event, result: &Event) {
        let (buyer, b) = (self.cast.buyer.clone(), self.cast.b.clone());
        let said: JobResult = serde_json::from_str(&result.content).expect("our own result");
        let statement = Statement {
            buyer: buyer.public_key(),
            provider: b.public_key(),
            award: award.id,
            totals: Totals {
                input_tokens: said.usage.input_tokens + said.usage.prefix_tokens,
                output_tokens: said.usage.output_tokens,
                due_msat: said.due_msat,
                tab_due_msat: said.due_msat,
                tab_paid_msat: TOP_UP,
            },
        };
        let digest = statement.digest();
        let mut signed = |keys: &Keys| SignedTotals {
            totals: statement.totals,
            signature: SECP256K1.sign_schnorr_with_rng(
                &Message::from_digest(digest),
                &keys.secret_key().keypair(SECP256K1),
                &mut self.draws,
            ),
        };
        let (by_provider, by_buyer) = (signed(&b), signed(&buyer));
        let due = Progress {
            award: award.id,
            tab: Some(by_provider),
            news: News::Due { invoice: None },
        };
        let agreed = Control {
            award: award.id,
            wish: Wish::Acknowledge { tab: by_buyer },
        };
        self.keep_payload("payload-due.json", &due);
        self.keep_payload("payload-acknowledge.json", &agreed);
        let all = json!({
            "buyer": statement.buyer,
            "provider": statement.provider,
            "award": statement.award,
            "totals": statement.totals,
            "digest": hex::encode(digest),
            "by_buyer": by_buyer.signature,
            "by_provider": by_provider.signature,
        });
        self.keep_json("tab.json", &all);
    }

    /// A direct job: texts to embed, straight to A on its announcement.
    fn direct(&mut self) {
        let (buyer, a) = (self.cast.buyer.clone(), self.cast.a.clone());
        let announcement: Event =
            serde_json::from_str(&self.files["announcement.json"]).expect("our own event");
        let input = Input {
            salt: self.salt(),
            work: Work::Embedding {
                texts: vec!["red".into(), "green".into()],
            },
            prove: false,
        };
        self.keep_payload("payload-input-direct.json", &input);
        let author = buyer.public_key();
        let award = Award {
            v: V1,
            job: None,
            attempt: 1,
            provider: a.public_key(),
            input_hash: hash_of(
                Domain::Input,
                &input.salt,
                &announcement.id,
                &author,
                &input,
            ),
            basis: Basis::Direct {
                announcement: Box::new(announcement),
            },
            task: Task::Embedding,
            model: embedding_model(),
            price: Price::FREE,
            budget_msat: Msat::ZERO,
            terms: PaymentKind::Free,
            limits: Limits {
                input_tokens: 4,
                output_tokens: 0,
            },
            checkers: Checkers::Nobody,
            deadline: at(300),
            relays: relays(),
            input: self.seal(&input, &buyer, &a),
        };
        let award = self.publish("award-direct.json", &award, &buyer, 240);
        self.direct_result(&award);
    }

    fn direct_result(&mut self, award: &Event) {
        let (buyer, a) = (self.cast.buyer.clone(), self.cast.a.clone());
        let output = Output {
            salt: self.salt(),
            product: Product::Embedding {
                vectors: vec![
                    Vector(vec![0.5, -0.5, 0.5, 0.5]),
                    Vector(vec![0.5, 0.5, -0.5, 0.5]),
                ],
            },
            proofs: vec![],
        };
        self.keep_payload("payload-output-direct.json", &output);
        let result = JobResult {
            v: V1,
            job: award.id,
            award: award.id,
            attempt: 1,
            buyer: buyer.public_key(),
            ended: EndReason::Stop,
            error: None,
            model: embedding_model(),
            dtype: Dtype::F32,
            engine: "infernet-engine 0.1.0".into(),
            usage: Usage {
                input_tokens: 6,
                prefix_tokens: 0,
                output_tokens: 0,
            },
            timing: Timing {
                queued_ms: 12,
                first_token_ms: 40,
                total_ms: 40,
            },
            due_msat: Msat::ZERO,
            output_hash: hash_of(
                Domain::Output,
                &output.salt,
                &award.id,
                &a.public_key(),
                &output,
            ),
            output: self.seal(&output, &a, &buyer),
        };
        self.publish("result-direct.json", &result, &a, 241);
    }

    /// What goes into A's module and what comes out of it.
    fn tensors(&mut self) {
        let numbers = [3, 1, 4, 1, 5, 9, 2];
        let input = Input {
            salt: self.salt(),
            work: Work::Tensors {
                inputs: vec![Tensor {
                    name: "numbers".into(),
                    dtype: Element::U8,
                    shape: vec![7],
                    data: numbers.to_vec(),
                }],
            },
            prove: false,
        };
        self.keep_payload("payload-input-tensors.json", &input);
        let sum: f32 = numbers.iter().copied().map(f32::from).sum();
        let output = Output {
            salt: self.salt(),
            product: Product::Tensors {
                outputs: vec![Tensor {
                    name: "sum".into(),
                    dtype: Element::F32,
                    shape: vec![],
                    data: sum.to_le_bytes().to_vec(),
                }],
            },
            proofs: vec![],
        };
        self.keep_payload("payload-output-tensors.json", &output);
    }

    /// What `sealing.md` lets others check their code by.
    fn worked_example(&mut self) {
        let award: Event = serde_json::from_str(&self.files["award.json"]).expect("our own event");
        let said: Award = serde_json::from_str(&award.content).expect("our own award");
        let input = Input::from_bytes(self.files["payload-input.json"].as_bytes());
        let input = input.expect("our own input");
        let buyer = self.cast.buyer.public_key();
        let key = said.input.unwrap_key(self.cast.a.secret_key(), &buyer);
        let chain = std::iter::once(json!({
            "before the first piece": Chain::start(&award.id).digest()
        }));
        let pieces = pieces(&award.id).into_iter().map(|piece| json!(piece));
        let payload = self.files["payload-input.json"].as_bytes();
        let mut draws = StdRng::seed_from_u64(BLOB_SEED);
        let blob = encrypt(&BLOB_KEY, payload, &mut draws).expect("it is short");
        let example = json!({
            "input_hash": {
                "domain": "infernet/input/1",
                "salt": input.salt,
                "about": said.basis.word().id,
                "author": buyer,
                "bytes": "payload-input.json",
                "hash": said.input_hash,
            },
            "sealed_input": {
                "event": "award.json",
                "payload_key": hex::encode(key.expect("it is sealed to A")),
                "payload": "payload-input.json",
            },
            "blob": {
                "key": hex::encode(BLOB_KEY),
                "payload": "payload-input.json",
                "bytes": base64::engine::general_purpose::STANDARD.encode(&blob),
                "sha256": Digest::of(&blob),
            },
            "running_hash": {
                "award": award.id,
                "pieces": chain.chain(pieces).collect::<Vec<_>>(),
            },
        });
        self.keep_json("sealing.json", &example);
    }
}

impl Cast {
    fn copy(&self) -> Self {
        Self {
            buyer: self.buyer.clone(),
            a: self.a.clone(),
            b: self.b.clone(),
            checker: self.checker.clone(),
            aggregator: self.aggregator.clone(),
        }
    }
}
