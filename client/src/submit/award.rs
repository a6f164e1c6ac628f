//! Making what a buyer signs: offers, awards, and what is said about them later.

use infernet_protocol::bounds::{
    MAX_EVENT_BYTES, MAX_RELAY_URL_BYTES, MAX_RELAYS, MAX_SAFE_INTEGER,
};
use infernet_protocol::event::{
    Attestation, Award, Basis, Body, Cancel, CancelReason, Offer, Signed, V1, encoded_len,
};
use infernet_protocol::inference::TokenId;
use infernet_protocol::job::buyer::Account;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Input, Payload, Work};
use infernet_protocol::seal::blob::Outsized;
use infernet_protocol::seal::{self, Conversation, Domain, Salt, Sealed, salted_hash};
use nostr::secp256k1::rand::RngCore;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{Event, EventId, Keys, PublicKey, RelayUrl, Timestamp};

use crate::market::{Order, Word};

/// Why an award cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Error {
    #[error("the input cannot be sealed: {0}")]
    Seal(#[from] seal::Error),
    #[error("the input is too large for an event, and {0}")]
    Blob(#[from] infernet_blobs::Error),
    #[error(
        "with what it rests on, the award has {0} bytes and an event at most {MAX_EVENT_BYTES}"
    )]
    TooLarge(usize),
    #[error("this price times these tokens is more than there is")]
    Cost,
    #[error("it may cost {budget_msat}, and {left} are left for the job")]
    OverLimit { budget_msat: Msat, left: Msat },
    #[error("the award would not be valid: {0}")]
    Invalid(#[from] infernet_protocol::event::Refusal),
    #[error("it cannot be signed")]
    Unsigned,
}

/// An attempt that is to be awarded.
pub(super) struct Placing<'a> {
    pub order: &'a Order,
    pub work: &'a Work,
    /// Whether the result is to carry proofs.
    pub prove: bool,
    pub word: &'a Word,
    pub offer: Option<&'a Event>,
    pub job: Option<EventId>,
    pub attempt: u32,
    /// Tokens that earlier attempts have brought.
    pub prefix: &'a [TokenId],
    pub deadline: Timestamp,
    pub relays: &'a [RelayUrl],
}

/// An input before it is sealed.
pub(super) struct Plain {
    /// Salt of its hash.
    pub salt: Salt,
    pub bytes: Vec<u8>,
}

impl Plain {
    /// Seals it into the award itself.
    pub fn seal(&self, pair: &Conversation) -> Result<Sealed, Error> {
        Ok(Sealed::close_between(&self.bytes, pair, &mut OsRng)?)
    }

    /// Seals it into a blob, which is to be put on a server first.
    pub fn seal_outsized(&self, keys: &Keys, provider: &PublicKey) -> Result<Outsized, Error> {
        let own = keys.secret_key();
        Ok(Sealed::close_outsized(
            &self.bytes,
            own,
            provider,
            &mut OsRng,
        )?)
    }
}

impl Placing<'_> {
    /// What is to be sealed, under a fresh salt.
    pub fn input(&self) -> Plain {
        let mut salt = [0; 32];
        OsRng.fill_bytes(&mut salt);
        let salt = Salt::from_bytes(salt);
        let input = Input {
            salt,
            work: self.remaining_work(),
            prove: self.prove,
        };
        let bytes = input.to_bytes();
        Plain { salt, bytes }
    }

    /// Signs the award of an input that is sealed.
    pub fn sign(
        &self,
        plain: &Plain,
        sealed: Sealed,
        keys: &Keys,
        now: Timestamp,
    ) -> Result<Signed<Award>, Error> {
        let body = self.award(plain, sealed, keys)?;
        let event = body
            .to_unsigned(keys.public_key(), now)
            .sign_with_keys(keys)
            .map_err(|_| Error::Unsigned)?;
        match encoded_len(&event) {
            bytes if bytes > MAX_EVENT_BYTES => Err(Error::TooLarge(bytes)),
            _ => Ok(Signed::from_verified(event)?),
        }
    }

    fn award(&self, plain: &Plain, sealed: Sealed, keys: &Keys) -> Result<Award, Error> {
        let basis = self.basis();
        let Plain { salt, bytes } = plain;
        let buyer = keys.public_key();
        let limits = self.limits();
        let tokens = (limits.input_tokens.into(), limits.output_tokens.into());
        let budget = self.word.price.cost(tokens.0, tokens.1);
        let budget_msat = budget.ok_or(Error::Cost)?;
        let left = self.order.means.left;
        if let Some(left) = left.filter(|left| budget_msat > *left) {
            return Err(Error::OverLimit { budget_msat, left });
        }
        Ok(Award {
            v: V1,
            job: self.job,
            attempt: self.attempt,
            provider: self.word.provider,
            input_hash: salted_hash(Domain::Input, salt, &basis.word().id, &buyer, bytes),
            input: sealed,
            basis,
            task: self.order.task,
            model: self.word.model,
            price: self.word.price,
            budget_msat,
            terms: self.word.terms.kind(),
            limits,
            checkers: self.order.checkers,
            deadline: self.deadline,
            relays: nameable(self.relays),
        })
    }

    fn basis(&self) -> Basis {
        match self.offer {
            Some(offer) if self.word.is_bid => Basis::Auction {
                offer: Box::new(offer.clone()),
                bid: self.word.event.clone(),
            },
            _ => Basis::Direct {
                announcement: self.word.event.clone(),
            },
        }
    }

    fn remaining_work(&self) -> Work {
        let mut work = self.work.clone();
        if let Work::TextGeneration(generate) = &mut work {
            generate.prefix = self.prefix.to_vec();
        }
        work
    }

    /// What was shown already is input of this attempt, not output.
    fn limits(&self) -> infernet_protocol::event::Limits {
        let mut limits = self.order.limits;
        let prefix = u32::try_from(self.prefix.len()).unwrap_or(u32::MAX);
        limits.input_tokens = limits.input_tokens.saturating_add(prefix);
        limits.output_tokens = limits.output_tokens.saturating_sub(prefix);
        limits
    }
}

/// The relays that an event can name.
fn nameable(relays: &[RelayUrl]) -> Vec<RelayUrl> {
    let fits = |relay: &&RelayUrl| relay.as_str().len() <= MAX_RELAY_URL_BYTES;
    relays
        .iter()
        .filter(fits)
        .take(MAX_RELAYS)
        .cloned()
        .collect()
}

/// What asks for bids; nothing if the highest price times the tokens is more than there is.
pub(super) fn offer(
    order: &Order,
    bids_until: Timestamp,
    deadline: Timestamp,
    relays: &[RelayUrl],
) -> Option<Offer> {
    let limits = order.limits;
    let price = order.max_price;
    let cost = price.cost(limits.input_tokens.into(), limits.output_tokens.into())?;
    let left = order.means.left;
    Some(Offer {
        v: V1,
        nonce: rand::random_range(0..=MAX_SAFE_INTEGER),
        task: order.task,
        accepts: vec![order.accepts.clone()],
        limits,
        max_price: price,
        budget_msat: left.map_or(cost, |left| left.min(cost)),
        terms: order.payable(),
        checkers: order.checkers,
        bids_until,
        deadline,
        relays: nameable(relays),
    })
}

/// How an attempt went.
pub(super) fn attestation(job: EventId, word: &Word, account: &Account) -> Attestation {
    Attestation {
        v: V1,
        job,
        award: account.award,
        result: account.result,
        receipt: None,
        provider: word.provider,
        model: word.model,
        experience: account.experience,
        promised: word.promise,
        measured: account.measured,
        paid_msat: Msat::ZERO,
        verdict: None,
        batch: None,
    }
}

/// That an attempt is over.
pub(super) const fn cancel(
    job: EventId,
    award: Option<EventId>,
    provider: Option<PublicKey>,
    reason: CancelReason,
) -> Cancel {
    Cancel {
        v: V1,
        job,
        award,
        counterparty: provider,
        reason,
        detail: String::new(),
    }
}
