//! Results that a checker is given to see whether it looks. They are by throwaway keys
//! and made of our own samples: sound ones as they were, and bad ones whose answers
//! stand under each other's questions. Text, tokens, ends and proofs of these agree, so
//! that only who computes them again finds out.

use infernet_protocol::event::{
    AnnouncedModel, Announcement, Award, Basis, Body, Capacity, Checkers, DeviceKind, Hardware,
    JobResult, Judgement, Limits, Load, Promise, Signed, Status, Timing, Usage, V1,
};
use infernet_protocol::inference::{EndReason, Task};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::payload::{
    Check, Generated, Input, Output, Payload as _, PayloadKey, Product, Proof, Work,
};
use infernet_protocol::seal::{Domain, Salt, Sealed, salted_hash};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Keys, RelayUrl, Timestamp};

use super::samples::Sample;

/// How long a throwaway announcement stands.
const STANDS_S: u64 = 600;

/// A result that was made to be checked.
pub(super) struct Trap {
    pub check: Check,
    pub result: EventId,
    pub is_sound: bool,
}

impl Trap {
    /// Whether this judgement shows that its author did not look.
    pub fn catches(&self, judgement: Judgement) -> bool {
        matches!(
            (self.is_sound, judgement),
            (false, Judgement::Accepted) | (true, Judgement::Rejected)
        )
    }

    /// Whether this judgement shows that its author did look.
    pub fn is_seen_through(&self, judgement: Judgement) -> bool {
        matches!(
            (self.is_sound, judgement),
            (true, Judgement::Accepted) | (false, Judgement::Rejected)
        )
    }
}

/// What traps are made with.
pub(super) struct Maker<'a> {
    /// Who awards: those who check must see the same buyer as always.
    pub keys: &'a Keys,
    pub relays: &'a [RelayUrl],
    pub now: Timestamp,
}

impl Maker<'_> {
    /// A trap; none if nothing can be made of this sample.
    pub fn make(&self, sample: &Sample, is_sound: bool) -> Option<Trap> {
        let (answers, proofs) = match is_sound {
            true => (sample.answers.clone(), sample.proofs.clone()),
            false => shifted(sample)?,
        };
        let provider = Keys::generate();
        let announcement = self.announcement(sample, &provider)?;
        let input = Input {
            salt: salt(),
            work: Work::Shard {
                requests: sample.requests.clone(),
            },
            prove: !proofs.is_empty(),
        };
        let award = self.award(sample, &provider, announcement, &input)?;
        let output = Output {
            salt: salt(),
            product: Product::Shard { answers },
            proofs,
        };
        let result = self.result(sample, &provider, &award, &output)?;
        let (own, other) = (self.keys.secret_key(), provider.public_key());
        let input_key = award.input.unwrap_key(own, &other).ok()?;
        let output_key = result.output.unwrap_key(own, &other).ok()?;
        Some(Trap {
            result: result.id(),
            is_sound,
            check: Check {
                award: Box::new(award.into_event()),
                result: Box::new(result.into_event()),
                input_key: PayloadKey::from_bytes(input_key),
                output_key: PayloadKey::from_bytes(output_key),
            },
        })
    }

    fn announcement(&self, sample: &Sample, provider: &Keys) -> Option<Event> {
        let model = AnnouncedModel {
            model: sample.model,
            name: sample.model_name.clone(),
            aliases: vec![],
            task: Task::TextGeneration,
            dtype: sample.dtype,
            context: 8_192,
            price: Price::FREE,
            promise: promise(),
            continues: true,
            interface: None,
        };
        let body = Announcement {
            v: V1,
            id: "infernet".into(),
            name: provider.public_key().to_hex()[..12].into(),
            status: Status::Online,
            models: vec![model],
            hardware: Hardware {
                device: DeviceKind::Cpu,
                name: "CPU".into(),
                memory_mib: 16_384,
            },
            capacity: Capacity {
                slots: 4,
                queue: 16,
            },
            load: Load::default(),
            terms: vec![PaymentTerms::Free],
            direct: true,
            engine: sample.engine.clone(),
            relays: self.relays.to_vec(),
            expires_at: self.now + STANDS_S,
        };
        sign(&body, provider, self.now)
    }

    fn award(
        &self,
        sample: &Sample,
        provider: &Keys,
        announcement: Event,
        input: &Input,
    ) -> Option<Signed<Award>> {
        let (buyer, seller) = (self.keys.public_key(), provider.public_key());
        let drawn = sample.requests.iter().map(|request| request.max_tokens);
        let bytes = input.to_bytes();
        let body = Award {
            v: V1,
            job: None,
            attempt: 1,
            provider: seller,
            task: Task::TextGeneration,
            model: sample.model,
            price: Price::FREE,
            budget_msat: Msat::ZERO,
            terms: PaymentKind::Free,
            limits: Limits {
                input_tokens: sample
                    .answers
                    .iter()
                    .map(|answer| answer.input_tokens)
                    .sum(),
                output_tokens: drawn.sum(),
            },
            checkers: Checkers::Market,
            deadline: self.now + STANDS_S,
            relays: self.relays.to_vec(),
            input_hash: salted_hash(Domain::Input, &input.salt, &announcement.id, &buyer, &bytes),
            input: seal(&bytes, self.keys, provider)?,
            basis: Basis::Direct {
                announcement: Box::new(announcement),
            },
        };
        Signed::from_verified(sign(&body, self.keys, self.now)?).ok()
    }

    fn result(
        &self,
        sample: &Sample,
        provider: &Keys,
        award: &Signed<Award>,
        output: &Output,
    ) -> Option<Signed<JobResult>> {
        let seller = provider.public_key();
        let bytes = output.to_bytes();
        let drawn = sample
            .answers
            .iter()
            .map(|answer| answer.tokens.len() as u64);
        let read = sample
            .answers
            .iter()
            .map(|answer| u64::from(answer.input_tokens));
        let body = JobResult {
            v: V1,
            job: award.job_id(),
            award: award.id(),
            attempt: 1,
            buyer: self.keys.public_key(),
            ended: EndReason::Stop,
            error: None,
            model: sample.model,
            dtype: sample.dtype,
            engine: sample.engine.clone(),
            usage: Usage {
                input_tokens: read.sum(),
                prefix_tokens: 0,
                output_tokens: drawn.sum(),
            },
            timing: Timing {
                queued_ms: 2,
                first_token_ms: 350,
                total_ms: 5_200,
            },
            due_msat: Msat::ZERO,
            output_hash: salted_hash(Domain::Output, &output.salt, &award.id(), &seller, &bytes),
            output: seal(&bytes, provider, self.keys)?,
        };
        Signed::from_verified(sign(&body, provider, self.now)?).ok()
    }
}

/// Each answer under the next question; none if that is the same answer, or if it is not
/// proven: without proofs a few tokens may pass under another question.
fn shifted(sample: &Sample) -> Option<(Vec<Generated>, Vec<Proof>)> {
    if sample.proofs.len() != sample.answers.len() {
        return None;
    }
    let mut answers = sample.answers.clone();
    answers.rotate_left(1);
    for (answer, own) in answers.iter_mut().zip(&sample.answers) {
        answer.input_tokens = own.input_tokens;
    }
    let mut proofs = sample.proofs.clone();
    proofs.rotate_left(1);
    let differ = answers
        .iter()
        .zip(&sample.answers)
        .all(|(a, b)| a.tokens != b.tokens);
    (answers.len() > 1 && differ).then_some((answers, proofs))
}

const fn promise() -> Promise {
    Promise {
        first_token_ms: 500,
        tokens_per_s: 20.0,
    }
}

fn salt() -> Salt {
    Salt::from_bytes(rand::random())
}

fn seal(bytes: &[u8], author: &Keys, reader: &Keys) -> Option<Sealed> {
    Sealed::close(bytes, author.secret_key(), &reader.public_key(), &mut OsRng).ok()
}

fn sign<B: Body>(body: &B, keys: &Keys, now: Timestamp) -> Option<Event> {
    let unsigned = body.to_unsigned(keys.public_key(), now);
    unsigned.sign_with_keys(keys).ok()
}
