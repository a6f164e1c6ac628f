//! Results that nobody computed, before a checker.

use infernet_engine::Script;
use infernet_node::clock;
use infernet_protocol::event::{Announcement, Body as _, JobResult, Judgement, Signed, Timing, V1};
use infernet_protocol::event::{Usage, Verdict};
use infernet_protocol::inference::{Dtype, EndReason};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{
    Check, Generate, Generated, Output, Payload as _, PayloadKey, Product, Work,
};
use infernet_protocol::seal::{Domain, Salt, Sealed, salted_hash};
use infernet_protocol::verification::Fault as Found;
use nostr::Keys;
use nostr::secp256k1::rand::rngs::OsRng;

use super::buyer::Buyer;
use super::checks::THRESHOLDS;
use super::house::{Provider, Relay, quick};
use super::shards::request;

/// Tokens that a prompt and its answer may have.
const CONTEXT: u32 = 100;

/// Somebody who announces what a provider does, and signs what comes to its mind.
struct Liar {
    keys: Keys,
    word: Signed<Announcement>,
}

impl Liar {
    fn like(word: &Signed<Announcement>) -> Self {
        let keys = Keys::generate();
        let body: &Announcement = word;
        let unsigned = body.to_unsigned(keys.public_key(), clock::now());
        let word = Signed::verify(unsigned.sign_with_keys(&keys).unwrap()).unwrap();
        Self { keys, word }
    }

    /// Is asked for these texts, and says these.
    fn shard(&self, buyer: &Buyer, requests: Vec<Generate>, answers: Vec<Generated>) -> Check {
        let draft = buyer.draft(&self.word, Work::Shard { requests });
        let award = buyer.sign(draft.sealed(&buyer.keys));
        let usage = Usage {
            input_tokens: answers.iter().map(|a| u64::from(a.input_tokens)).sum(),
            prefix_tokens: 0,
            output_tokens: answers.iter().map(|a| a.tokens.len() as u64).sum(),
        };
        let output = Output {
            salt: Salt::from_bytes([7; 32]),
            product: Product::Shard { answers },
            proofs: vec![],
        };
        let (bytes, us) = (output.to_bytes(), self.keys.public_key());
        let (own, reader) = (self.keys.secret_key(), buyer.keys.public_key());
        let result = JobResult {
            v: V1,
            job: award.job_id(),
            award: award.id(),
            attempt: 1,
            buyer: buyer.keys.public_key(),
            ended: EndReason::Stop,
            error: None,
            model: award.model,
            dtype: Dtype::Scripted,
            engine: "liar 1".into(),
            usage,
            timing: Timing {
                queued_ms: 0,
                first_token_ms: 1,
                total_ms: 2,
            },
            due_msat: Msat::ZERO,
            output_hash: salted_hash(Domain::Output, &output.salt, &award.id(), &us, &bytes),
            output: Sealed::close(&bytes, own, &reader, &mut OsRng).unwrap(),
        };
        let unsigned = result.to_unsigned(us, clock::now());
        let result = Signed::<JobResult>::verify(unsigned.sign_with_keys(&self.keys).unwrap());
        let result = result.unwrap();
        let key = |sealed: &Sealed| {
            PayloadKey::from_bytes(sealed.unwrap_key(buyer.keys.secret_key(), &us).unwrap())
        };
        Check {
            input_key: key(&award.input),
            output_key: key(&result.output),
            award: Box::new(award.into_event()),
            result: Box::new(result.into_event()),
        }
    }
}

fn says(text: &str, tokens: Vec<u32>, input_tokens: u32, ended: EndReason) -> Generated {
    Generated {
        text: text.into(),
        tokens,
        input_tokens,
        ended,
        error: None,
    }
}

async fn judged(requests: Vec<Generate>, answers: Vec<Generated>) -> Signed<Verdict> {
    let relay = Relay::start().await;
    let script = Script {
        context: CONTEXT,
        ..quick()
    };
    let checker = Provider::start(&[&relay], script, |o| o.verify = true).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(checker.handle.public_key()).await;
    let check = Liar::like(&word).shard(&buyer, requests, answers);
    let model = Signed::<JobResult>::verify((*check.result).clone())
        .unwrap()
        .model;
    let work = Work::Verify {
        checks: vec![check],
        thresholds: THRESHOLDS,
    };
    let mut draft = buyer.draft(&word, work);
    draft.body.model = model;
    let award = buyer.place(draft).await;
    let (_, product) = buyer.result(&award).await;
    let Product::Verify { verdicts } = product else {
        panic!("these are no verdicts");
    };
    Signed::verify(verdicts[0].clone()).unwrap()
}

/// Nobody stopped the shard: a text in it that says so was cut short by its provider.
#[tokio::test]
async fn a_text_that_nobody_stopped_was_not_stopped() {
    let asked = vec![request("Count for me", 20)];
    for tokens in [vec![0, 1], vec![]] {
        let answer = says("", tokens, 3, EndReason::Cancelled);
        let verdict = judged(asked.clone(), vec![answer]).await;
        assert_eq!(verdict.judgement, Judgement::Rejected);
        assert_eq!(verdict.figures[Found::EndsFalsely.figure()], 1.0);
    }
}

/// A prompt that fits nowhere was read by nobody, and keeps nobody from checking the rest.
#[tokio::test]
async fn an_answer_to_what_nobody_can_read_is_made_up() {
    let long = "word ".repeat(CONTEXT as usize);
    let asked = vec![request(&long, 20), request("Count for me", 20)];
    let answers = vec![
        says("", vec![0], CONTEXT, EndReason::Length),
        says("", vec![0, 1], 3, EndReason::Stop),
    ];
    let verdict = judged(asked, answers).await;
    assert_eq!(verdict.judgement, Judgement::Rejected);
    assert_eq!(verdict.figures[Found::TooLong.figure()], 1.0);
    assert_eq!(verdict.figures[Found::EndsFalsely.figure()], 1.0);
}
