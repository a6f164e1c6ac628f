//! A job's life for tests: coherent events that each test spoils in its own way.

#![allow(clippy::unwrap_used)]

use infernet_protocol::event::{
    Accepts, Attestation, Award, Basis, Bid, Body, Checkers, Experience, JobResult, Limits, Offer,
    Signed, Timing, Usage, V1,
};
use infernet_protocol::inference::{Dtype, EndReason, Prompt, Sampling, Task, TokenId};
use infernet_protocol::money::{Msat, PaymentKind, PaymentTerms, Price};
use infernet_protocol::payload::{Generate, Input, Output, Payload, Product, Work};
use infernet_protocol::seal::{Domain, Salt, Sealed, salted_hash};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Keys, Timestamp};

use crate::market::tests::{announcement, at, model, signed};

/// A job, its bodies and keys. Change a body, and ask for the events.
pub struct Story {
    pub buyer: Keys,
    pub provider: Keys,
    pub before: Vec<Event>,
    pub award: Award,
    pub result: JobResult,
    pub attestation: Attestation,
}

impl Story {
    /// Offer, bid, award, result, attestation.
    pub fn auction() -> Self {
        let (buyer, provider) = (Keys::generate(), Keys::generate());
        let offer = signed(&offer(), &buyer, at(0));
        let bid = signed(&bid(&offer, &buyer), &provider, at(0));
        let basis = Basis::Auction {
            offer: Box::new(offer.clone()),
            bid: Box::new(bid.clone()),
        };
        let job = Some(offer.id);
        Self::upon(buyer, provider, (vec![offer, bid], basis), job, Price::FREE)
    }

    /// Award, result, attestation.
    pub fn direct() -> Self {
        let (buyer, provider) = (Keys::generate(), Keys::generate());
        let announcement = signed(&announcement("ada", vec![model("m", 1)]), &provider, at(0));
        let basis = Basis::Direct {
            announcement: Box::new(announcement),
        };
        Self::upon(buyer, provider, (vec![], basis), None, Price::FREE)
    }

    /// The same on a tab: a sat for each token, in and out.
    pub fn paid() -> Self {
        let (buyer, provider) = (Keys::generate(), Keys::generate());
        let price = Price {
            input_msat: 1_000_000_000,
            output_msat: 1_000_000_000,
        };
        let mut announced = announcement("ada", vec![model("m", 1)]);
        announced.models[0].price = price;
        announced.terms = vec![PaymentTerms::Tab {
            min_payment_msat: Msat(10_000),
            prepaid_output_tokens: 4,
            payee: None,
        }];
        let basis = Basis::Direct {
            announcement: Box::new(signed(&announced, &provider, at(0))),
        };
        Self::upon(buyer, provider, (vec![], basis), None, price)
    }

    fn upon(
        buyer: Keys,
        provider: Keys,
        (before, basis): (Vec<Event>, Basis),
        job: Option<EventId>,
        price: Price,
    ) -> Self {
        let mut award = award(&buyer, &provider, basis, (job, 1), &[]);
        if !price.is_free() {
            award.price = price;
            award.terms = PaymentKind::Tab;
            award.budget_msat = price.cost(10, 8).unwrap();
        }
        let signed_award = verified::<Award>(&award, &buyer);
        let result = result(&signed_award, &buyer, &provider, &[1, 2, 3]);
        let result_id = signed(&result, &provider, at(2)).id;
        let attestation = attestation(&signed_award, Some(result_id));
        Self {
            buyer,
            provider,
            before,
            award,
            result,
            attestation,
        }
    }

    pub fn at(&self, s: u64) -> Timestamp {
        at(s)
    }

    pub fn signed_award(&self) -> Signed<Award> {
        verified(&self.award, &self.buyer)
    }

    pub fn job(&self) -> EventId {
        self.signed_award().job_id()
    }

    /// The events, with links that follow what was changed.
    pub fn events(&self) -> Vec<Event> {
        let award = self.signed_award();
        let mut result = self.result.clone();
        result.award = award.id();
        result.job = award.job_id();
        let result = signed(&result, &self.provider, at(2));
        let mut attestation = self.attestation.clone();
        attestation.award = award.id();
        attestation.job = award.job_id();
        attestation.result = attestation.result.map(|_| result.id);
        let attestation = signed(&attestation, &self.buyer, at(2));
        let mut events = self.before.clone();
        events.extend([award.into_event(), result, attestation]);
        events
    }

    /// A second attempt by another provider, behind `prefix`.
    pub fn second(&self, prefix: &[TokenId]) -> (Keys, Signed<Award>) {
        let other = Keys::generate();
        let announcement = signed(&announcement("bob", vec![model("m", 1)]), &other, at(0));
        let basis = Basis::Direct {
            announcement: Box::new(announcement),
        };
        let award = award(&self.buyer, &other, basis, (Some(self.job()), 2), prefix);
        (other, verified(&award, &self.buyer))
    }
}

fn verified<B: Body>(body: &B, keys: &Keys) -> Signed<B> {
    Signed::verify(signed(body, keys, at(1))).unwrap()
}

fn offer() -> Offer {
    Offer {
        v: V1,
        nonce: 1,
        task: Task::TextGeneration,
        accepts: vec![Accepts::Name("m".into())],
        limits: LIMITS,
        max_price: Price::FREE,
        budget_msat: Msat::ZERO,
        terms: vec![PaymentKind::Free],
        checkers: Checkers::Nobody,
        bids_until: at(2),
        deadline: at(120),
        relays: vec![],
    }
}

fn bid(offer: &Event, buyer: &Keys) -> Bid {
    let model = model("m", 1);
    Bid {
        v: V1,
        offer: offer.id,
        buyer: buyer.public_key(),
        model: model.model,
        name: model.name,
        dtype: model.dtype,
        context: model.context,
        price: model.price,
        promise: model.promise,
        terms: PaymentTerms::Free,
        continues: true,
        expires_at: at(30),
    }
}

const LIMITS: Limits = Limits {
    input_tokens: 10,
    output_tokens: 8,
};

fn award(
    buyer: &Keys,
    provider: &Keys,
    basis: Basis,
    (job, attempt): (Option<EventId>, u32),
    prefix: &[TokenId],
) -> Award {
    let input = Input {
        salt: Salt::from_bytes([attempt as u8; 32]),
        work: Work::TextGeneration(Generate {
            prompt: Prompt::Text("Hello".into()),
            sampling: Sampling::default(),
            max_tokens: 8,
            stop: vec![],
            prefix: prefix.to_vec(),
        }),
        prove: false,
    };
    let bytes = input.to_bytes();
    let about = basis.word().id;
    Award {
        v: V1,
        job,
        attempt,
        provider: provider.public_key(),
        input_hash: salted_hash(
            Domain::Input,
            &input.salt,
            &about,
            &buyer.public_key(),
            &bytes,
        ),
        input: Sealed::close(
            &bytes,
            buyer.secret_key(),
            &provider.public_key(),
            &mut OsRng,
        )
        .unwrap(),
        basis,
        task: Task::TextGeneration,
        model: model("m", 1).model,
        price: Price::FREE,
        budget_msat: Msat::ZERO,
        terms: PaymentKind::Free,
        limits: LIMITS,
        checkers: Checkers::Nobody,
        deadline: at(120),
        relays: vec![],
    }
}

/// A result that brings these tokens.
pub fn result(
    award: &Signed<Award>,
    buyer: &Keys,
    provider: &Keys,
    tokens: &[TokenId],
) -> JobResult {
    let output = Output {
        salt: Salt::from_bytes([9; 32]),
        product: Product::TextGeneration {
            text: "words".into(),
            tokens: tokens.to_vec(),
        },
        proofs: vec![],
    };
    let bytes = output.to_bytes();
    let own = provider.public_key();
    JobResult {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        attempt: award.attempt,
        buyer: buyer.public_key(),
        ended: EndReason::Stop,
        error: None,
        model: award.model,
        dtype: Dtype::Scripted,
        engine: "scripted/1".into(),
        usage: Usage {
            input_tokens: 10,
            prefix_tokens: 0,
            output_tokens: tokens.len() as u64,
        },
        timing: Timing::default(),
        due_msat: award.price.cost(10, tokens.len() as u64).unwrap(),
        output_hash: salted_hash(Domain::Output, &output.salt, &award.id(), &own, &bytes),
        output: Sealed::close(
            &bytes,
            provider.secret_key(),
            &buyer.public_key(),
            &mut OsRng,
        )
        .unwrap(),
    }
}

fn attestation(award: &Signed<Award>, result: Option<EventId>) -> Attestation {
    Attestation {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        result,
        receipt: None,
        provider: award.provider,
        model: award.model,
        experience: Experience::Completed,
        promised: model("m", 1).promise,
        measured: None,
        paid_msat: Msat::ZERO,
        verdict: None,
        batch: None,
    }
}
