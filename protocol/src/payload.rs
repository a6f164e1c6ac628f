//! What travels encrypted: the input inside an award, the output inside a
//! result, and the messages that pass while an attempt runs.

use std::fmt;

use base64::Engine as _;
use nostr::{Event, EventId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bounds::{
    MAX_CHECKS, MAX_INVOICE_BYTES, MAX_MESSAGES, MAX_OUTPUT_TOKENS, MAX_PROOF_BYTES,
    MAX_REASON_BYTES, MAX_REJECTED, MAX_REQUESTS, MAX_SAFE_INTEGER, MAX_STOP_BYTES,
    MAX_STOP_STRINGS, MAX_TEXTS, at_most, count, text,
};
use crate::event::Refusal;
use crate::hex32::hex32;
use crate::inference::{EndReason, Prompt, Sampling, Task, TokenId};
use crate::money::Msat;
use crate::seal::{Digest, Error, Salt};
use crate::tab::SignedTotals;
use crate::tensor::{self, Tensor};
use crate::verification::Thresholds;

/// A payload that knows how to check itself after parsing.
pub trait Payload: Serialize + DeserializeOwned {
    /// Refuses values that are out of bounds.
    ///
    /// # Errors
    /// The first bound that is broken.
    fn validate(&self) -> Result<(), Refusal>;

    /// The bytes that are encrypted and hashed.
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The payload in these bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is not one, or breaks a bound.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let payload: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::Malformed(position_of(&e)))?;
        payload
            .validate()
            .map_err(|e| Error::Malformed(e.to_string()))?;
        Ok(payload)
    }
}

/// Where JSON went wrong, without quoting it: it may be a prompt.
fn position_of(error: &serde_json::Error) -> String {
    format!(
        "{:?} error at line {}, column {}",
        error.classify(),
        error.line(),
        error.column()
    )
}

/// What a buyer wants done.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Salt of the award's `input_hash`.
    pub salt: Salt,
    /// The work.
    pub work: Work,
    /// Whether the output is to carry proofs of how it was computed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prove: bool,
}

/// One piece of work.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Work {
    /// Generate text.
    TextGeneration(Generate),
    /// Turn texts into vectors.
    Embedding {
        /// The texts, one vector each.
        texts: Vec<String>,
    },
    /// Run a module.
    Tensors {
        /// What it takes, by name.
        inputs: Vec<Tensor>,
    },
    /// Generate several texts: a shard of a batch. They are not streamed, have no
    /// prefixes, and are paid after the fact or not at all.
    Shard {
        /// The texts to generate.
        requests: Vec<Generate>,
    },
    /// Check others' results.
    Verify {
        /// The results, with what it takes to read them.
        checks: Vec<Check>,
        /// What to judge by.
        thresholds: Thresholds,
    },
}

/// A result to be checked, and what it takes to read it. The checker is given the
/// keys of these two payloads and no other.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The award, signed.
    pub award: Box<Event>,
    /// The result, signed.
    pub result: Box<Event>,
    /// Key of the award's input.
    pub input_key: PayloadKey,
    /// Key of the result's output.
    pub output_key: PayloadKey,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.result.id)
    }
}

hex32!(
    /// A payload's own key ([`crate::seal::Sealed::unwrap_key`]). Whoever has it can
    /// read the payload.
    PayloadKey
);

impl fmt::Debug for PayloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadKey(…)")
    }
}

impl Work {
    /// Which task this work is.
    pub const fn task(&self) -> Task {
        match self {
            Self::TextGeneration(_) | Self::Shard { .. } => Task::TextGeneration,
            Self::Verify { .. } => Task::Verify,
            Self::Embedding { .. } => Task::Embedding,
            Self::Tensors { .. } => Task::Tensors,
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work::{:?}(…)", self.task())
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({:?})", self.work)
    }
}

/// One text generation.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// What to start from.
    pub prompt: Prompt,
    /// How to draw tokens.
    pub sampling: Sampling,
    /// Tokens the whole answer may have, `prefix` counted in.
    pub max_tokens: u32,
    /// Strings that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// The answer's tokens that an earlier attempt has already brought; the
    /// answer goes on behind them, at their positions, with the same seed. A
    /// prefix that is a whole answer already (its result was lost) is allowed:
    /// then only the end, and text that was held back, is still to come.
    pub prefix: Vec<TokenId>,
}

fn validate_generate(generate: &Generate) -> Result<(), Refusal> {
    at_most(
        "max_tokens",
        generate.max_tokens.into(),
        MAX_OUTPUT_TOKENS.into(),
    )?;
    if generate.max_tokens == 0 || generate.prefix.len() > generate.max_tokens as usize {
        return Err(Refusal::Invalid("max_tokens is 0 or less than the prefix"));
    }
    count("stop strings", generate.stop.len(), MAX_STOP_STRINGS)?;
    for stop in &generate.stop {
        count("a stop string", stop.len(), MAX_STOP_BYTES)?;
        if stop.is_empty() {
            return Err(Refusal::Invalid("a stop string is empty"));
        }
    }
    validate_prompt(&generate.prompt)?;
    validate_sampling(&generate.sampling)
}

fn validate_prompt(prompt: &Prompt) -> Result<(), Refusal> {
    match prompt {
        Prompt::Chat(messages) if messages.is_empty() => {
            Err(Refusal::Invalid("the chat has no message"))
        }
        Prompt::Chat(messages) => count("messages", messages.len(), MAX_MESSAGES),
        Prompt::Text(text) if text.is_empty() => Err(Refusal::Invalid("the prompt is empty")),
        Prompt::Text(_) => Ok(()),
    }
}

fn validate_sampling(sampling: &Sampling) -> Result<(), Refusal> {
    if !(0.0..=2.0).contains(&sampling.temperature) {
        return Err(Refusal::Invalid("temperature is not between 0 and 2"));
    }
    if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
        return Err(Refusal::Invalid("top_p is not above 0 and at most 1"));
    }
    at_most("seed", sampling.seed, MAX_SAFE_INTEGER)
}

impl Payload for Input {
    fn validate(&self) -> Result<(), Refusal> {
        self.work.validate()
    }
}

impl Work {
    /// Refuses values that are out of bounds.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn validate(&self) -> Result<(), Refusal> {
        match self {
            Self::TextGeneration(generate) => validate_generate(generate),
            Self::Embedding { texts } => {
                count("texts", texts.len(), MAX_TEXTS)?;
                if texts.is_empty() || texts.iter().any(String::is_empty) {
                    return Err(Refusal::Invalid("there is no text to embed"));
                }
                Ok(())
            }
            Self::Tensors { inputs } if inputs.is_empty() => {
                Err(Refusal::Invalid("there is no tensor"))
            }
            Self::Tensors { inputs } => tensor::validate(inputs),
            Self::Shard { requests } => validate_shard(requests),
            Self::Verify { checks, thresholds } => {
                count("checks", checks.len(), MAX_CHECKS)?;
                thresholds.validate()?;
                match checks.is_empty() {
                    true => Err(Refusal::Invalid("there is nothing to check")),
                    false => Ok(()),
                }
            }
        }
    }
}

fn validate_shard(requests: &[Generate]) -> Result<(), Refusal> {
    count("requests", requests.len(), MAX_REQUESTS)?;
    if requests.is_empty() || requests.iter().any(|request| !request.prefix.is_empty()) {
        return Err(Refusal::Invalid("a shard is empty, or has a prefix"));
    }
    requests.iter().try_for_each(validate_generate)
}

/// What a provider made.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Salt of the result's `output_hash`.
    pub salt: Salt,
    /// The product.
    pub product: Product,
    /// How each text was computed, in their order, where that was asked for
    /// ([`Input::prove`]) and the provider can say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
}

/// How an answer was computed: a commitment to the model's last hidden states, of
/// every 32 tokens 258 bytes (TOPLOC, arXiv 2501.16007; `nips/verification.md`).
#[derive(Clone, PartialEq, Eq)]
pub struct Proof(pub Vec<u8>);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proof({} bytes)", self.0.len())
    }
}

impl Serialize for Proof {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Proof {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

/// The product of one attempt.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Product {
    /// This attempt's own part of an answer, without its prefix.
    TextGeneration {
        /// The text that became showable in this attempt.
        text: String,
        /// The tokens drawn in this attempt, an end token included.
        tokens: Vec<TokenId>,
    },
    /// One vector for each text, in their order.
    Embedding {
        /// The vectors.
        vectors: Vec<Vector>,
    },
    /// What a module gave.
    Tensors {
        /// Its outputs, by name.
        outputs: Vec<Tensor>,
    },
    /// One text for each request of a shard, in their order.
    Shard {
        /// The texts.
        answers: Vec<Generated>,
    },
    /// What a checker found.
    Verify {
        /// Its verdicts (kind 8605), signed by it, in the order of the checks.
        verdicts: Vec<Event>,
    },
}

/// A whole text, generated in one go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// The text.
    pub text: String,
    /// The tokens drawn, an end token included.
    pub tokens: Vec<TokenId>,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Why it ended.
    pub ended: EndReason,
    /// What went wrong, if it failed; nothing is charged for it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl fmt::Debug for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generated({} tokens)", self.tokens.len())
    }
}

impl Generated {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        count("tokens", self.tokens.len(), MAX_OUTPUT_TOKENS as usize)?;
        if let Some(error) = &self.error {
            text("error", error, MAX_REASON_BYTES)?;
        }
        match self.error.is_some() == (self.ended == EndReason::Failed) {
            true => Ok(()),
            false => Err(Refusal::Invalid(
                "an error goes with a failure, and only with one",
            )),
        }
    }
}

impl Product {
    /// The product of this work with nothing in it.
    pub const fn empty(work: &Work) -> Self {
        match work {
            Work::TextGeneration(_) => Self::TextGeneration {
                text: String::new(),
                tokens: vec![],
            },
            Work::Embedding { .. } => Self::Embedding { vectors: vec![] },
            Work::Tensors { .. } => Self::Tensors { outputs: vec![] },
            Work::Shard { .. } => Self::Shard { answers: vec![] },
            Work::Verify { .. } => Self::Verify { verdicts: vec![] },
        }
    }

    /// Tokens drawn in this attempt.
    pub fn tokens(&self) -> &[TokenId] {
        match self {
            Self::TextGeneration { tokens, .. } => tokens,
            Self::Embedding { .. }
            | Self::Tensors { .. }
            | Self::Shard { .. }
            | Self::Verify { .. } => &[],
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({:?})", self.product)
    }
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TextGeneration { tokens, .. } => {
                write!(f, "Product::TextGeneration({} tokens)", tokens.len())
            }
            Self::Embedding { vectors } => {
                write!(f, "Product::Embedding({} vectors)", vectors.len())
            }
            Self::Tensors { outputs } => {
                write!(f, "Product::Tensors({} tensors)", outputs.len())
            }
            Self::Shard { answers } => write!(f, "Product::Shard({} texts)", answers.len()),
            Self::Verify { verdicts } => {
                write!(f, "Product::Verify({} verdicts)", verdicts.len())
            }
        }
    }
}

impl Payload for Output {
    fn validate(&self) -> Result<(), Refusal> {
        count("proofs", self.proofs.len(), MAX_REQUESTS)?;
        for proof in &self.proofs {
            count("a proof's bytes", proof.0.len(), MAX_PROOF_BYTES)?;
        }
        match &self.product {
            Product::TextGeneration { tokens, .. } => {
                count("tokens", tokens.len(), MAX_OUTPUT_TOKENS as usize)
            }
            Product::Embedding { vectors } => count("vectors", vectors.len(), MAX_TEXTS),
            Product::Tensors { outputs } => tensor::validate(outputs),
            Product::Shard { answers } => {
                count("texts", answers.len(), MAX_REQUESTS)?;
                answers.iter().try_for_each(Generated::validate)
            }
            Product::Verify { verdicts } => count("verdicts", verdicts.len(), MAX_CHECKS),
        }
    }
}

/// A vector of 32-bit floats; in JSON the base64 of their little-endian bytes,
/// a third of the size of their decimal digits.
#[derive(Clone, PartialEq)]
pub struct Vector(pub Vec<f32>);

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({})", self.0.len())
    }
}

impl Serialize for Vector {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|x| x.to_le_bytes()).collect();
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(serde::de::Error::custom)?;
        let (floats, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("not a whole number of floats"));
        }
        Ok(Self(
            floats.iter().map(|f| f32::from_le_bytes(*f)).collect(),
        ))
    }
}

/// What a provider tells a buyer while an attempt runs (kind 24600).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The award it is about; what is about a superseded one is dropped.
    pub award: EventId,
    /// How the provider says the tab stands. It stands beside whatever news there is, so that a piece and what it
    /// costs are one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tab: Option<SignedTotals>,
    /// The news.
    #[serde(flatten)]
    pub news: News,
}

/// One piece of news from a provider.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum News {
    /// The award is taken on.
    Accepted {
        /// Attempts that run or wait before this one.
        ahead: u32,
    },
    /// The award is not taken on.
    Declined {
        /// Why.
        reason: Decline,
        /// In the provider's words.
        detail: String,
    },
    /// Still there, with nothing new to show.
    Alive {
        /// Attempts that run or wait before this one.
        ahead: u32,
    },
    /// The next part of the answer.
    Piece(Piece),
    /// How the tab stands, which comes in [`Progress::tab`]; with an invoice, a top-up is asked for.
    Due {
        /// A BOLT-11 invoice for the next top-up, whose description names the award ([`invoice_description`]).
        #[serde(skip_serializing_if = "Option::is_none")]
        invoice: Option<String>,
    },
    /// A refund that was wished for is being paid.
    Refunding,
    /// What to pay for accepted work: the answer to [`Wish::Payout`].
    Payable {
        /// A BOLT-11 invoice for exactly that.
        invoice: String,
    },
    /// A refund that was wished for is not paid, or there is no invoice for a payout.
    RefundRefused {
        /// Why, in the provider's words.
        detail: String,
    },
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { ahead } => write!(f, "Accepted({ahead} ahead)"),
            Self::Declined { reason, detail } => write!(f, "Declined({reason}: {detail})"),
            Self::Alive { ahead } => write!(f, "Alive({ahead} ahead)"),
            Self::Piece(piece) => piece.fmt(f),
            // An invoice shows who is paid.
            Self::Due { invoice: Some(_) } => f.write_str("Due(…)"),
            Self::Due { invoice: None } => f.write_str("Due"),
            Self::Refunding => f.write_str("Refunding"),
            // An invoice shows who is paid.
            Self::Payable { .. } => f.write_str("Payable(…)"),
            Self::RefundRefused { detail } => write!(f, "RefundRefused({detail})"),
        }
    }
}

/// What an invoice for a top-up says that it is for.
pub fn invoice_description(award: &EventId) -> String {
    format!("infernet tab, award {award}")
}

/// What an invoice for accepted work in escrow says that it is for.
pub fn payout_description(award: &EventId) -> String {
    format!("infernet payout, award {award}")
}

/// Why a provider does not take an award on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decline {
    /// Its queue is full.
    Busy,
    /// It is going away.
    Closing,
    /// It does not serve that model.
    Model,
    /// The price, the budget or the terms are not what it asks.
    Terms,
    /// The bid has run out, or the deadline cannot be met.
    Late,
    /// The input does not fit in the model's context, or the output in an event.
    TooLong,
    /// It cannot go on behind another provider's tokens.
    Continuation,
    /// The input cannot be opened, or is not valid.
    Input,
}

impl fmt::Display for Decline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::Closing => "closing",
            Self::Model => "does not serve that model",
            Self::Terms => "price or terms",
            Self::Late => "too late",
            Self::TooLong => "too long",
            Self::Continuation => "cannot continue another's answer",
            Self::Input => "input not valid",
        })
    }
}

/// A numbered part of an answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its number in the attempt, from 0.
    pub seq: u32,
    /// The tokens drawn since the last piece.
    pub tokens: Vec<TokenId>,
    /// The text that became showable with them.
    pub text: String,
    /// The running hash up to and including this piece.
    pub digest: Digest,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({}, {} tokens)", self.seq, self.tokens.len())
    }
}

/// The running hash of an attempt's pieces: each covers all before it.
///
/// d₀ = sha256("infernet/pieces/1" ‖ award id);
/// dₙ₊₁ = sha256(dₙ ‖ seq ‖ number of tokens ‖ tokens ‖ text), numbers as
/// big-endian 32-bit integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain(Digest);

impl Chain {
    /// The chain of an award before its first piece.
    pub fn start(award: &EventId) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"infernet/pieces/1");
        hash.update(award.as_bytes());
        Self(Digest::from_bytes(hash.finalize().into()))
    }

    /// The chain after one more piece.
    pub fn after(&self, seq: u32, tokens: &[TokenId], text: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0.as_bytes());
        hash.update(seq.to_be_bytes());
        // A piece is bounded by MAX_PAYLOAD_BYTES, far below 2^32 tokens.
        hash.update((tokens.len() as u32).to_be_bytes());
        for token in tokens {
            hash.update(token.to_be_bytes());
        }
        hash.update(text.as_bytes());
        Self(Digest::from_bytes(hash.finalize().into()))
    }

    /// The hash so far.
    pub const fn digest(&self) -> Digest {
        self.0
    }
}

impl Payload for Progress {
    fn validate(&self) -> Result<(), Refusal> {
        if let Some(tab) = &self.tab {
            tab.totals.validate()?;
        }
        match &self.news {
            News::Declined { detail, .. } | News::RefundRefused { detail } => {
                text("detail", detail, MAX_REASON_BYTES)
            }
            News::Piece(piece) => count("tokens", piece.tokens.len(), MAX_OUTPUT_TOKENS as usize),
            News::Due { invoice } => match invoice {
                Some(invoice) => text("invoice", invoice, MAX_INVOICE_BYTES),
                None => Ok(()),
            },
            News::Payable { invoice } => text("invoice", invoice, MAX_INVOICE_BYTES),
            News::Accepted { .. } | News::Alive { .. } | News::Refunding => Ok(()),
        }
    }
}

/// What a buyer tells a provider while an attempt runs (kind 24601).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The award it is about.
    pub award: EventId,
    /// The wish.
    #[serde(flatten)]
    pub wish: Wish,
}

/// One wish of a buyer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Wish {
    /// Send the pieces from this number on again, or the result if there is one.
    Resend {
        /// The first piece that is missing.
        from: u32,
    },
    /// Agrees: these totals are the buyer's too.
    Acknowledge {
        /// The totals, signed by the buyer.
        tab: SignedTotals,
    },
    /// Make the last invoice anew: it cannot be paid any more, or asked for too much at once.
    Invoice {
        /// The most that one may ask for.
        most_msat: Msat,
    },
    /// Pay back what is left on the tab. The award is the last one on it, and nothing runs.
    Refund {
        /// A BOLT-11 invoice of the buyer's for what is to be paid back.
        invoice: String,
    },
    /// An aggregator says what it makes of work in escrow, and asks for an invoice for
    /// what it pays now. The award is the latest of these.
    Payout(Payout),
    /// Stop working.
    Stop,
}

/// What an aggregator makes of a provider's work in escrow. All amounts are running
/// totals between the two, so that one said twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payout {
    /// Work that was rejected since the last time that an amount was paid: its awards.
    pub rejected: Vec<EventId>,
    /// What all accepted work has come to.
    pub accepted_msat: Msat,
    /// What is held back of that as the provider's bond.
    pub bond_msat: Msat,
    /// What was forfeited of the bond.
    pub forfeited_msat: Msat,
    /// What was paid before.
    pub paid_msat: Msat,
    /// What is to be paid now: accepted, less bond, forfeited and paid.
    pub pay_msat: Msat,
}

impl Payout {
    fn validate(&self) -> Result<(), Refusal> {
        count("rejected", self.rejected.len(), MAX_REJECTED)?;
        for (what, amount) in [
            ("accepted_msat", self.accepted_msat),
            ("bond_msat", self.bond_msat),
            ("forfeited_msat", self.forfeited_msat),
            ("paid_msat", self.paid_msat),
            ("pay_msat", self.pay_msat),
        ] {
            at_most(what, amount.0, Msat::MAX.0)?;
        }
        // Four amounts of at most Msat::MAX are less than 2^63.
        let spoken_for =
            self.bond_msat.0 + self.forfeited_msat.0 + self.paid_msat.0 + self.pay_msat.0;
        match spoken_for == self.accepted_msat.0 {
            true => Ok(()),
            false => Err(Refusal::Invalid("the payout does not add up")),
        }
    }
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resend { from } => write!(f, "Resend(from {from})"),
            Self::Acknowledge { tab } => write!(f, "Acknowledge({:?})", tab.totals),
            Self::Invoice { most_msat } => write!(f, "Invoice(at most {most_msat})"),
            // An invoice shows who is paid.
            Self::Refund { .. } => f.write_str("Refund(…)"),
            Self::Payout(payout) => payout.fmt(f),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

impl Payload for Control {
    fn validate(&self) -> Result<(), Refusal> {
        match &self.wish {
            Wish::Acknowledge { tab } => tab.totals.validate(),
            Wish::Invoice { most_msat } => at_most("most_msat", most_msat.0, Msat::MAX.0),
            Wish::Refund { invoice } => text("invoice", invoice, MAX_INVOICE_BYTES),
            Wish::Payout(payout) => payout.validate(),
            Wish::Resend { .. } | Wish::Stop => Ok(()),
        }
    }
}
