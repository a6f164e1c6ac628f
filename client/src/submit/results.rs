//! Whether what came is what the provider of the current attempt owes.

use infernet_protocol::event::{Award, JobResult, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::payload::{Output, Payload, Product, Progress, Vector, Work};
use infernet_protocol::seal::{Conversation, Domain, overhear, salted_hash};
use nostr::{Keys, PublicKey};

/// What a result turned out to be.
#[derive(Debug)]
pub(super) enum Checked {
    /// Not by the provider of this award, or about another one: none of this attempt's business.
    Foreign,
    /// By the provider, but not what it owes; for this reason.
    Bad(&'static str),
    /// What it says it is.
    Good(Product),
}

/// Checks a result against the award that it is about.
pub(super) fn check(
    result: &Signed<JobResult>,
    award: &Signed<Award>,
    work: &Work,
    keys: &Keys,
) -> Checked {
    if result.author() != award.provider || result.award != award.id() {
        return Checked::Foreign;
    }
    match product(result, award, work, keys) {
        Ok(product) => Checked::Good(product),
        Err(flaw) => Checked::Bad(flaw),
    }
}

fn product(
    result: &Signed<JobResult>,
    award: &Signed<Award>,
    work: &Work,
    keys: &Keys,
) -> Result<Product, &'static str> {
    let same_job = result.job == award.job_id() && result.attempt == award.attempt;
    if !same_job || result.buyer != award.author() {
        return Err("it names another job, attempt or buyer");
    }
    if result.model != award.model {
        return Err("another model ran");
    }
    let due = award.price.cost(
        result
            .usage
            .input_tokens
            .saturating_add(result.usage.prefix_tokens),
        result.usage.output_tokens,
    );
    if due.is_none_or(|due| result.due_msat > due) {
        return Err("it asks for more than the price");
    }
    let bytes = result
        .output
        .open(keys.secret_key(), &award.provider)
        .map_err(|_| "the output cannot be opened")?;
    let output = Output::from_bytes(&bytes).map_err(|_| "the output is malformed")?;
    let hash = salted_hash(
        Domain::Output,
        &output.salt,
        &award.id(),
        &award.provider,
        &bytes,
    );
    if hash != result.output_hash {
        return Err("the output's hash is wrong");
    }
    fits(&output.product, work, result.ended)?;
    Ok(output.product)
}

/// Whether a product is an answer to this work. What a failure leaves is not looked at.
fn fits(product: &Product, work: &Work, ended: EndReason) -> Result<(), &'static str> {
    match (product, work) {
        (Product::TextGeneration { .. }, Work::TextGeneration(_)) => Ok(()),
        (Product::Embedding { .. }, Work::Embedding { .. }) if ended == EndReason::Failed => Ok(()),
        (Product::Embedding { vectors }, Work::Embedding { texts }) => {
            match vectors.len() == texts.len() && are_vectors(vectors) {
                true => Ok(()),
                false => Err("the vectors are not as many as the texts, or are none"),
            }
        }
        (Product::TextGeneration { .. }, Work::Embedding { .. })
        | (Product::Embedding { .. }, Work::TextGeneration(_)) => Err("it is another kind of work"),
    }
}

/// Vectors of one length, with no infinities in them.
fn are_vectors(vectors: &[Vector]) -> bool {
    let length = vectors.first().map_or(0, |first| first.0.len());
    let whole = |v: &Vector| v.0.len() == length && v.0.iter().all(|x| x.is_finite());
    length > 0 && vectors.iter().all(whole)
}

/// A message by this attempt's provider about this attempt.
pub(super) fn progress(
    author: &PublicKey,
    content: &str,
    award: &Signed<Award>,
    conversation: &Conversation,
) -> Option<Progress> {
    if *author != award.provider {
        return None;
    }
    let bytes = overhear(conversation, content).ok()?;
    let progress = Progress::from_bytes(&bytes).ok()?;
    (progress.award == award.id()).then_some(progress)
}
