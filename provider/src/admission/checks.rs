//! Results of others that are to be checked. All of it is what strangers say: that the
//! pieces belong together is found out here.

use std::fmt;

use infernet_protocol::batch::Blob;
use infernet_protocol::event::{Award, JobResult, Signed};
use infernet_protocol::inference::{EndReason, ModelId};
use infernet_protocol::payload::{
    Check, Generate, Generated, Input, Output, Payload, PayloadKey, Product, Proof, Vector, Work,
};
use infernet_protocol::seal::{Domain, salted_hash};
use infernet_protocol::verification::Fault;
use nostr::PublicKey;

use crate::parcels::Fetched;

/// Why a result is not checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The events are not what they should be.
    #[error("award or result is not valid: {0}")]
    Invalid(String),
    /// The result is another award's, or another provider's.
    #[error("the result is not of that award")]
    NotOfAward,
    /// It is of another model.
    #[error("the result is of another model")]
    Model,
    /// It is our own.
    #[error("nobody checks its own results")]
    Own,
    /// A key opens nothing, or something else than was committed to.
    #[error("{0} cannot be opened, or is not the one that was committed to")]
    Closed(&'static str),
    /// Nothing came of that attempt.
    #[error("there is nothing in the result to check")]
    Nothing,
    /// It is of a task that is not computed again.
    #[error("results of that task are not checked here")]
    Task,
}

/// A result to be checked, opened.
#[derive(Debug)]
pub struct Case {
    /// What was agreed.
    pub award: Signed<Award>,
    /// What came of it.
    pub result: Signed<JobResult>,
    /// What there is to compute again.
    pub claim: Claim,
}

impl Case {
    /// Tokens of context that were agreed on. None never comes of a valid award.
    pub fn context(&self) -> u32 {
        self.award.agreed().map_or(0, |agreed| agreed.context)
    }
}

/// What somebody was asked for and gave.
pub enum Claim {
    /// Texts.
    Texts(Vec<TextClaim>),
    /// Vectors.
    Vectors {
        /// Of what.
        texts: Vec<String>,
        /// As they were given.
        vectors: Vec<Vector>,
    },
    /// There is not one answer for each question.
    Missing,
}

impl fmt::Debug for Claim {
    /// Never shows the texts: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Texts(texts) => write!(f, "Texts({})", texts.len()),
            Self::Vectors { vectors, .. } => write!(f, "Vectors({})", vectors.len()),
            Self::Missing => f.write_str("Missing"),
        }
    }
}

/// One text.
pub struct TextClaim {
    /// What was asked for. Its `max_tokens` are those that it could have had.
    pub asked: Generate,
    /// What was answered.
    pub answer: Generated,
    /// How it was computed; empty if that was asked for and not said.
    pub proof: Option<Proof>,
    /// What is certainly wrong with it, whatever is computed; found in admission.
    pub fault: Option<Fault>,
}

impl fmt::Debug for TextClaim {
    /// Never shows the texts: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextClaim({:?})", self.answer)
    }
}

/// The payloads of results that are in blobs and not fetched yet. Nothing is verified
/// here: what is none is refused when it is opened.
pub fn missing(checks: &[Check], fetched: &Fetched) -> Vec<Blob> {
    let inputs = checks.iter().filter_map(|check| {
        let award: Award = serde_json::from_str(&check.award.content).ok()?;
        Some(award.input)
    });
    let outputs = checks.iter().filter_map(|check| {
        let result: JobResult = serde_json::from_str(&check.result.content).ok()?;
        Some(result.output)
    });
    let all: Vec<_> = inputs.chain(outputs).collect();
    let mut missing = fetched.missing(&all);
    missing.retain(|blob| blob.validate().is_ok());
    missing
}

/// Opens a result that `us` is to check with this model.
///
/// # Errors
/// What does not belong together.
pub fn open(
    check: &Check,
    fetched: &Fetched,
    model: &ModelId,
    us: &PublicKey,
) -> Result<Case, Unfit> {
    let invalid = |refusal: infernet_protocol::event::Refusal| Unfit::Invalid(refusal.to_string());
    let award = Signed::<Award>::verify((*check.award).clone()).map_err(invalid)?;
    let result = Signed::<JobResult>::verify((*check.result).clone()).map_err(invalid)?;
    if !belongs(&award, &result) {
        return Err(Unfit::NotOfAward);
    }
    if result.author() == *us {
        return Err(Unfit::Own);
    }
    if result.model != *model || award.model != *model {
        return Err(Unfit::Model);
    }
    if result.ended == EndReason::Failed {
        return Err(Unfit::Nothing);
    }
    let input = open_input(&award, &check.input_key, fetched)?;
    let output = open_output(&award, &result, &check.output_key, fetched)?;
    let claim = claim(&result, input, output)?;
    Ok(Case {
        award,
        result,
        claim,
    })
}

fn belongs(award: &Signed<Award>, result: &Signed<JobResult>) -> bool {
    result.award == award.id()
        && result.job == award.job_id()
        && result.attempt == award.attempt
        && result.author() == award.provider
        && result.buyer == award.author()
}

fn open_input(award: &Signed<Award>, key: &PayloadKey, fetched: &Fetched) -> Result<Input, Unfit> {
    let closed = || Unfit::Closed("the input");
    let opened = fetched.open_with(&award.input, key.as_bytes());
    let bytes = opened.map_err(|_| closed())?;
    let input = Input::from_bytes(&bytes).map_err(|_| closed())?;
    let (about, buyer) = (award.basis.word().id, award.author());
    let hash = salted_hash(Domain::Input, &input.salt, &about, &buyer, &bytes);
    match hash == award.input_hash {
        true => Ok(input),
        false => Err(closed()),
    }
}

fn open_output(
    award: &Signed<Award>,
    result: &Signed<JobResult>,
    key: &PayloadKey,
    fetched: &Fetched,
) -> Result<Output, Unfit> {
    let closed = || Unfit::Closed("the output");
    let opened = fetched.open_with(&result.output, key.as_bytes());
    let bytes = opened.map_err(|_| closed())?;
    let output = Output::from_bytes(&bytes).map_err(|_| closed())?;
    let provider = result.author();
    let hash = salted_hash(Domain::Output, &output.salt, &award.id(), &provider, &bytes);
    match hash == result.output_hash {
        true => Ok(output),
        false => Err(closed()),
    }
}

fn claim(result: &JobResult, input: Input, output: Output) -> Result<Claim, Unfit> {
    let prove = input.prove;
    match (input.work, output.product) {
        (Work::TextGeneration(asked), Product::TextGeneration { text, tokens }) => {
            let answer = Generated {
                text,
                tokens,
                // A result that says more has more than a model can read.
                input_tokens: u32::try_from(result.usage.input_tokens).unwrap_or(u32::MAX),
                ended: result.ended,
                error: None,
            };
            texts(result, vec![asked], vec![answer], output.proofs, prove)
        }
        (Work::Shard { requests }, Product::Shard { answers }) => {
            texts(result, requests, answers, output.proofs, prove)
        }
        (Work::Embedding { texts }, Product::Embedding { vectors }) => {
            Ok(match texts.len() == vectors.len() {
                true => Claim::Vectors { texts, vectors },
                false => Claim::Missing,
            })
        }
        (Work::Tensors { .. } | Work::Verify { .. }, _) => Err(Unfit::Task),
        (Work::TextGeneration(_) | Work::Shard { .. } | Work::Embedding { .. }, _) => {
            Ok(Claim::Missing)
        }
    }
}

/// Pairs questions and answers; what has failed is left out.
fn texts(
    result: &JobResult,
    asked: Vec<Generate>,
    answers: Vec<Generated>,
    proofs: Vec<Proof>,
    prove: bool,
) -> Result<Claim, Unfit> {
    if asked.len() != answers.len() {
        return Ok(Claim::Missing);
    }
    let mut proofs = proofs.into_iter();
    let pairs = asked.into_iter().zip(answers);
    let claims = pairs.filter_map(|(asked, answer)| {
        let proof = proofs.next().unwrap_or(Proof(vec![]));
        let proof = prove.then_some(proof);
        text_claim(result, asked, answer, proof)
    });
    let claims: Vec<_> = claims.collect();
    match claims.is_empty() {
        true => Err(Unfit::Nothing),
        false => Ok(Claim::Texts(claims)),
    }
}

/// What was cut off by its buyer is looked at as if it had been asked for so far. Where
/// the result itself was not cut off, a text in it that says so is left as it is: its end
/// is a false one.
fn text_claim(
    result: &JobResult,
    mut asked: Generate,
    mut answer: Generated,
    proof: Option<Proof>,
) -> Option<TextClaim> {
    let is_cut_off = result.ended == EndReason::Cancelled;
    match answer.ended {
        EndReason::Failed => return None,
        EndReason::Cancelled if is_cut_off && answer.tokens.is_empty() => return None,
        EndReason::Cancelled if is_cut_off => {
            let tokens = asked.prefix.len().saturating_add(answer.tokens.len());
            asked.max_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            answer.ended = EndReason::Length;
        }
        EndReason::Stop | EndReason::Length | EndReason::Cancelled => {}
    }
    Some(TextClaim {
        asked,
        answer,
        proof,
        fault: None,
    })
}
