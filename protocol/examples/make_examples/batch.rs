//! The life of a batch. The buyer of `life` orders two lines from an aggregator, which
//! buys them as one shard from provider A, has them checked, and settles. Models,
//! tokens, proofs and invoices are made up.

use infernet_protocol::batch::{
    Answer, Ask, Blob, BlobKey, Charge, Delivery, Done, Group, GroupStanding, LineOutcome, Lines,
    Phase, Progress, Question, Reply, Standing,
};
use infernet_protocol::event::{
    Attestation, Award, Basis, BatchShare, CheckedResult, Checkers, Experience, JobResult,
    Judgement, Limits, Measured, Order, SettledGroup, Settlement, Talk, Timing, Usage, V1, Verdict,
};
use infernet_protocol::inference::{Dtype, EndReason, Task};
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{
    Check, Control, Generated, Input, News, Output, Payload, PayloadKey, Payout, Product, Proof,
    Wish, Work,
};
use infernet_protocol::seal::blob::encrypt;
use infernet_protocol::seal::{Conversation, Domain, Salt, salted_hash, whisper};
use infernet_protocol::verification::Secret;
use nostr::secp256k1::rand::RngCore as _;
use nostr::{Event, Keys};
use sha2::Digest as _;

use super::life::Life;
use super::ordering::*;
use super::words::*;

/// What the buyer's wallet learns when the group is claimed.
const PREIMAGE: [u8; 32] = [0x77; 32];

/// What chooses the results that are checked.
const SECRET: [u8; 32] = [0x88; 32];

impl Life {
    /// From the aggregator's announcement to the secret.
    pub fn batch(&mut self) {
        let aggregator = self.cast.aggregator.clone();
        let checker = self.cast.checker.public_key();
        self.publish("aggregator.json", &announcement(checker), &aggregator, 0);
        self.publish("thresholds.json", &model_thresholds(), &aggregator, 0);
        let order = self.order();
        let group = self.group(&order);
        let (award, result) = self.shard();
        let verdict = self.verdict(&award, &result);
        self.rate(&order, &award, &result, &verdict);
        self.deliver(&order, &group);
        self.settle(&order, &result, &verdict);
        self.pay(&award);
    }

    /// A question or an answer, as the event that carries it and its payload.
    fn talk<P: Payload>(
        &mut self,
        (event, payload): (&'static str, &'static str),
        message: &P,
        (author, reader): (&Keys, &Keys),
        seconds: u64,
    ) {
        let reader = reader.public_key();
        let key = Conversation::between(author.secret_key(), &reader).expect("two keys");
        let content = whisper(&key, &message.to_bytes(), &mut self.draws).expect("it is short");
        let talk = Talk { reader, content };
        let signed = self.sign(talk.to_unsigned(author.public_key(), at(seconds)), author);
        self.keep(event, &signed);
        self.keep_payload(payload, message);
    }

    /// The buyer asks, is quoted, and orders.
    fn order(&mut self) -> Event {
        let (buyer, aggregator) = (self.cast.buyer.clone(), self.cast.aggregator.clone());
        let question = Question {
            number: 1,
            order: None,
            ask: Ask::Quote(wanted()),
        };
        let names = ("talk-question.json", "payload-question.json");
        self.talk(names, &question, (&buyer, &aggregator), 400);
        let commitment = Secret::from_bytes(SECRET).commitment();
        let quote = quote(buyer.public_key(), commitment);
        let quote = self.publish("quote.json", &quote, &aggregator, 401);
        let order = Order {
            v: V1,
            aggregator: aggregator.public_key(),
            quote: Box::new(quote),
            relays: relays(),
        };
        self.publish("order.json", &order, &buyer, 410)
    }

    /// The group's lines go into a blob, and the buyer asks for them to be done.
    fn group(&mut self, order: &Event) -> Group {
        let lines: Lines = requests().into_iter().map(Work::TextGeneration).collect();
        self.keep_payload("payload-lines.json", &lines);
        let key = self.bytes();
        let group = Group {
            number: 0,
            size: wanted().size,
            input: self.blob(&key, &lines),
            key: BlobKey::from_bytes(key),
        };
        let question = Question {
            number: 3,
            order: Some(order.id),
            ask: Ask::Group(group.clone()),
        };
        self.keep_payload("payload-question-group.json", &question);
        group
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.draws.fill_bytes(&mut bytes);
        bytes
    }

    fn blob<P: Payload>(&mut self, key: &[u8; 32], payload: &P) -> Blob {
        let bytes = encrypt(key, &payload.to_bytes(), &mut self.draws).expect("it is short");
        Blob::of(&bytes, vec!["https://relay.example.com".into()])
    }

    /// The aggregator buys both lines as one shard from A.
    fn shard(&mut self) -> (Event, Event) {
        let (aggregator, a) = (self.cast.aggregator.clone(), self.cast.a.clone());
        let announcement: Event =
            serde_json::from_str(&self.files["announcement.json"]).expect("our own event");
        let input = Input {
            salt: self.salt(),
            work: Work::Shard {
                requests: requests(),
            },
            prove: true,
        };
        self.keep_payload("payload-input-shard.json", &input);
        let author = aggregator.public_key();
        let about = announcement.id;
        let award = Award {
            v: V1,
            job: None,
            attempt: 1,
            provider: a.public_key(),
            basis: Basis::Direct {
                announcement: Box::new(announcement),
            },
            task: Task::TextGeneration,
            model: chat_model(),
            price: PRICE_A,
            budget_msat: Msat(1_000),
            terms: PaymentKind::Escrow,
            limits: Limits {
                input_tokens: 64,
                output_tokens: 128,
            },
            checkers: Checkers::Market,
            deadline: at(700),
            relays: relays(),
            input_hash: hash_of(Domain::Input, &input.salt, &about, &author, &input),
            input: self.seal(&input, &aggregator, &a),
        };
        let award = self.publish("award-shard.json", &award, &aggregator, 420);
        let result = self.shard_result(&award);
        (award, result)
    }

    fn shard_result(&mut self, award: &Event) -> Event {
        let (aggregator, a) = (self.cast.aggregator.clone(), self.cast.a.clone());
        let output = Output {
            salt: self.salt(),
            product: Product::Shard { answers: answers() },
            proofs: vec![Proof(vec![1; 258]), Proof(vec![2; 258])],
        };
        self.keep_payload("payload-output-shard.json", &output);
        let author = a.public_key();
        let result = JobResult {
            v: V1,
            job: award.id,
            award: award.id,
            attempt: 1,
            buyer: aggregator.public_key(),
            ended: EndReason::Stop,
            error: None,
            model: chat_model(),
            dtype: Dtype::Bf16,
            engine: "infernet-engine 0.1.0".into(),
            usage: shard_usage(),
            timing: Timing {
                queued_ms: 3,
                first_token_ms: 420,
                total_ms: 700,
            },
            due_msat: WORK,
            output_hash: hash_of(Domain::Output, &output.salt, &award.id, &author, &output),
            output: self.seal(&output, &a, &aggregator),
        };
        self.publish("result-shard.json", &result, &a, 421)
    }

    /// A checker is given the keys of these two payloads, and says what it found.
    fn verdict(&mut self, award: &Event, result: &Event) -> Event {
        let (aggregator, checker) = (self.cast.aggregator.clone(), self.cast.checker.clone());
        let awarded: Award = serde_json::from_str(&award.content).expect("our own award");
        let said: JobResult = serde_json::from_str(&result.content).expect("our own result");
        let own = aggregator.secret_key();
        let input_key = awarded.input.unwrap_key(own, &awarded.provider);
        let output_key = said.output.unwrap_key(own, &result.pubkey);
        let input = Input {
            salt: self.salt(),
            work: Work::Verify {
                checks: vec![Check {
                    award: Box::new(award.clone()),
                    result: Box::new(result.clone()),
                    input_key: PayloadKey::from_bytes(input_key.expect("it sealed it")),
                    output_key: PayloadKey::from_bytes(output_key.expect("it is sealed to it")),
                }],
                thresholds: thresholds(),
            },
            prove: false,
        };
        self.keep_payload("payload-input-verify.json", &input);
        let verdict = Verdict {
            judgement: Judgement::Accepted,
            job: award.id,
            ..verdict(award, award.id, result)
        };
        let verdict = self.publish("verdict-shard.json", &verdict, &checker, 430);
        let output = Output {
            salt: self.salt(),
            product: Product::Verify {
                verdicts: vec![verdict.clone()],
            },
            proofs: vec![],
        };
        self.keep_payload("payload-output-verify.json", &output);
        verdict
    }

    fn rate(&mut self, order: &Event, award: &Event, result: &Event, verdict: &Event) {
        let aggregator = self.cast.aggregator.clone();
        let attestation = Attestation {
            result: Some(result.id),
            measured: Some(Measured {
                first_token_ms: 700,
                tokens_per_s: 0.0,
                output_tokens: shard_usage().output_tokens,
            }),
            verdict: Some(verdict.id),
            batch: Some(BatchShare {
                order: order.id,
                buyer: order.pubkey,
                fee_msat: FEE,
            }),
            ..attestation(award, award.id, Experience::Completed)
        };
        self.publish("attestation-batch.json", &attestation, &aggregator, 431);
    }

    /// The answers are put into a blob that the payment's preimage opens.
    fn deliver(&mut self, order: &Event, group: &Group) {
        let (buyer, aggregator) = (self.cast.buyer.clone(), self.cast.aggregator.clone());
        let done: Done = answers().into_iter().map(LineOutcome::Text).collect();
        self.keep_payload("payload-done.json", &done);
        let key = BlobKey::of_delivery(&PREIMAGE);
        let output = self.blob(key.as_bytes(), &done);
        let delivery = Delivery {
            output,
            charge: CHARGE,
        };
        let standing = GroupStanding {
            number: group.number,
            phase: Phase::Settled {
                delivery,
                preimage: BlobKey::from_bytes(PREIMAGE),
            },
            progress: progress(),
        };
        let answer = Answer {
            number: Some(9),
            order: Some(order.id),
            reply: Reply::Group(standing),
        };
        let names = ("talk-answer.json", "payload-answer.json");
        self.talk(names, &answer, (&aggregator, &buyer), 440);
        let whole = Answer {
            number: Some(10),
            order: Some(order.id),
            reply: Reply::Standing(Standing {
                progress: progress(),
                credit_msat: Msat(HELD.0 - CHARGE.total().0),
                groups_at_once: 2,
                max_hold_msat: Msat(50_000_000),
                closed: false,
            }),
        };
        self.keep_payload("payload-answer-standing.json", &whole);
    }

    fn settle(&mut self, order: &Event, result: &Event, verdict: &Event) {
        let aggregator = self.cast.aggregator.clone();
        let key = BlobKey::of_delivery(&PREIMAGE);
        let salt = Salt::from_bytes(*key.as_bytes());
        let hash = sha2::Sha256::digest(PREIMAGE);
        let author = aggregator.public_key();
        let group = SettledGroup {
            number: 0,
            lines: 2,
            accepted: 2,
            inconclusive: 0,
            failed: 0,
            charge: CHARGE,
            taken_msat: HELD,
            payment: Some(salted_hash(
                Domain::Payment,
                &salt,
                &order.id,
                &author,
                &hash,
            )),
            results: vec![CheckedResult {
                result: result.id,
                chance_ppm: 1_000_000,
                verdict: Some(verdict.id),
            }],
        };
        let settlement = Settlement {
            v: V1,
            order: order.id,
            buyer: order.pubkey,
            group: Some(group),
            secret: None,
        };
        self.publish("settlement.json", &settlement, &aggregator, 441);
        let last = Settlement {
            group: None,
            secret: Some(Secret::from_bytes(SECRET)),
            ..settlement
        };
        self.publish("settlement-closing.json", &last, &aggregator, 450);
    }

    /// A is told what its work came to, and asks for what is not held back.
    fn pay(&mut self, award: &Event) {
        let bond = Msat(1);
        let payout = Payout {
            rejected: vec![],
            accepted_msat: WORK,
            bond_msat: bond,
            forfeited_msat: Msat::ZERO,
            paid_msat: Msat::ZERO,
            pay_msat: Msat(WORK.0 - bond.0),
        };
        let wish = Control {
            award: award.id,
            wish: Wish::Payout(payout),
        };
        self.keep_payload("payload-payout.json", &wish);
        let news = infernet_protocol::payload::Progress {
            award: award.id,
            tab: None,
            news: News::Payable {
                invoice: "lnbc30n1example".into(),
            },
        };
        self.keep_payload("payload-payable.json", &news);
    }
}

/// What A wrote for the two lines.
fn answers() -> Vec<Generated> {
    let generated = |text: &str, tokens: &[u32], input_tokens| Generated {
        text: text.into(),
        tokens: tokens.to_vec(),
        input_tokens,
        ended: EndReason::Stop,
        error: None,
    };
    vec![
        generated(
            "Red, green and blue.",
            &[4019, 28, 3365, 284, 4461, 30, 2],
            31,
        ),
        generated("Mercury and Venus.", &[40_227, 284, 30_114, 30, 2], 31),
    ]
}

fn shard_usage() -> Usage {
    Usage {
        input_tokens: 62,
        prefix_tokens: 0,
        output_tokens: 12,
    }
}

fn progress() -> Progress {
    Progress {
        lines: 2,
        running: 0,
        done: 2,
        verified: 2,
        failed: 0,
        cost_msat: CHARGE.total(),
        seconds_left: Some(0),
    }
}

/// 62 tokens in and 12 out at A's price, rounded up.
const WORK: Msat = Msat(2);

/// 1 % of the work, rounded up.
const FEE: Msat = Msat(1);

const CHARGE: Charge = Charge {
    work_msat: WORK,
    checking_msat: Msat(1),
    fee_msat: FEE,
};

/// What was held for the group.
const HELD: Msat = Msat(1_000);
