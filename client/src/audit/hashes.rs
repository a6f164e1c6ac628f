//! The checks that need a key: what was sealed is opened, hashed anew, and counted.

use std::collections::HashMap;

use infernet_protocol::event::{Award, JobResult, Signed};
use infernet_protocol::inference::{EndReason, TokenId};
use infernet_protocol::payload::{Input, Output, Payload, Product, Work};
use infernet_protocol::seal::{Digest, Domain, Salt, Sealed, salted_hash};
use infernet_protocol::tensor;
use nostr::{Keys, PublicKey};

use super::attempt::only_result;
use super::{Found, not_proven, proven, wrong};
use crate::record::Record;

/// What is in blobs, by hash.
type Blobs = HashMap<Digest, Vec<u8>>;

/// Why something sealed says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    /// There is nothing.
    Missing,
    /// It is for others' eyes.
    Foreign,
    /// It was in a blob, which cannot be had.
    Gone,
    /// It does not open with the right key, or is not what it should be.
    Broken,
    /// It opens, and is not what its hash says.
    WrongHash,
}

/// What this reader can open of one attempt.
pub(super) struct Opened<'a> {
    award: &'a Signed<Award>,
    keys: Option<&'a Keys>,
    blobs: &'a Blobs,
    input: Result<Input, Shut>,
    output: Result<Output, Shut>,
}

impl<'a> Opened<'a> {
    pub fn of(
        record: &Record,
        award: &'a Signed<Award>,
        keys: Option<&'a Keys>,
        blobs: &'a Blobs,
    ) -> Self {
        Self {
            award,
            keys,
            blobs,
            input: input(award, keys, blobs),
            output: match only_result(record, award) {
                Some(result) => output(award, result, keys, blobs),
                None => Err(Shut::Missing),
            },
        }
    }

    pub fn input_hash(&self) -> Found {
        match self.input {
            Ok(_) => proven("the sealed input is what the award commits to"),
            Err(shut) => said(shut, "input"),
        }
    }

    /// The salt of the input, with which payments are hashed too.
    pub fn salt(&self) -> Option<Salt> {
        self.input.as_ref().ok().map(|input| input.salt)
    }

    pub fn output_hash(&self) -> Found {
        match self.output {
            Ok(_) => proven("the sealed output is what the result commits to"),
            Err(shut) => said(shut, "output"),
        }
    }

    /// The counts that the result claims against what was sealed.
    pub fn usage(&self, result: &JobResult) -> Found {
        let (Ok(input), Ok(output)) = (&self.input, &self.output) else {
            return not_proven("only the buyer and the provider can count the tokens");
        };
        let (prefix, drawn) = (
            prefix(input).len() as u64,
            output.product.tokens().len() as u64,
        );
        let usage = &result.usage;
        if usage.prefix_tokens != prefix || usage.output_tokens != drawn {
            return wrong(format!(
                "the result counts {} + {} tokens of answer, there are {prefix} + {drawn}",
                usage.prefix_tokens, usage.output_tokens
            ));
        }
        if let Some(found) = misfit(input, output, result, prefix + drawn) {
            return found;
        }
        match self.ended_too_early(input, result, prefix + drawn) {
            true => wrong("it ended by length, but neither the answer nor the context is full"),
            false => proven(format!(
                "{drawn} tokens drawn behind {prefix}, as the result says; the input's count is the provider's"
            )),
        }
    }

    fn ended_too_early(&self, input: &Input, result: &JobResult, answer: u64) -> bool {
        let Work::TextGeneration(generate) = &input.work else {
            return false;
        };
        let context_full = self.award.agreed().is_some_and(|word| {
            result.usage.input_tokens.saturating_add(answer) >= u64::from(word.context)
        });
        let full = answer >= u64::from(generate.max_tokens) || context_full;
        result.ended == EndReason::Length && !full
    }

    /// That this attempt goes on behind what earlier ones have brought; none for the first.
    pub fn continuation(&self, record: &Record) -> Option<Found> {
        let before = record
            .awards()
            .filter(|award| award.attempt < self.award.attempt);
        let before = before.max_by_key(|award| award.attempt)?;
        let Ok(input) = &self.input else {
            return Some(not_proven(
                "only the buyer and the provider can see what it goes on behind",
            ));
        };
        let earlier = Opened::of(record, before, self.keys, self.blobs);
        let Ok(earlier_input) = &earlier.input else {
            return Some(not_proven(
                "what the attempt before was given cannot be seen with this key",
            ));
        };
        let (now, then) = (prefix(input), prefix(earlier_input));
        let Some(more) = now.strip_prefix(then) else {
            return Some(wrong(
                "it does not go on behind what the attempt before was given",
            ));
        };
        Some(match (&earlier.output, more) {
            (_, []) => proven(format!(
                "it begins where the attempt before began, behind {} tokens",
                now.len()
            )),
            (Ok(output), more) if output.product.tokens().starts_with(more) => proven(format!(
                "it goes on behind the {} tokens that earlier attempts brought",
                now.len()
            )),
            (Ok(_), _) => wrong("it goes on behind tokens that the attempt before did not bring"),
            (Err(_), _) => not_proven(format!(
                "it goes on behind {} tokens; the provider before left no result to compare them with",
                now.len()
            )),
        })
    }
}

/// What the product is too much or too little of, for the input.
fn misfit(input: &Input, output: &Output, result: &JobResult, answer: u64) -> Option<Found> {
    match (&input.work, &output.product) {
        (Work::TextGeneration(asked), Product::TextGeneration { .. }) => {
            let most = u64::from(asked.max_tokens);
            (answer > most).then(|| {
                wrong(format!(
                    "{answer} tokens of answer, and {most} were asked for"
                ))
            })
        }
        (Work::Embedding { .. }, Product::Embedding { .. })
        | (Work::Tensors { .. }, Product::Tensors { .. })
        | (Work::Shard { .. }, Product::Shard { .. })
        | (Work::Verify { .. }, Product::Verify { .. })
            if result.ended == EndReason::Failed =>
        {
            None
        }
        (Work::Embedding { texts }, Product::Embedding { vectors }) => {
            let (texts, vectors) = (texts.len(), vectors.len());
            (texts != vectors).then(|| wrong(format!("{vectors} vectors for {texts} texts")))
        }
        (Work::Tensors { inputs }, Product::Tensors { outputs }) => {
            let (said, counted) = (result.usage.input_tokens, tensor::tokens(inputs));
            if said != counted {
                return Some(wrong(format!(
                    "the result counts {said} tokens of input, there are {counted}"
                )));
            }
            let is_empty = outputs.is_empty();
            is_empty.then(|| wrong("there is no tensor in the product"))
        }
        (Work::Shard { requests }, Product::Shard { answers }) => {
            let (requests, answers) = (requests.len(), answers.len());
            (requests != answers).then(|| wrong(format!("{answers} texts for {requests} requests")))
        }
        (Work::Verify { checks, .. }, Product::Verify { verdicts }) => {
            let (checks, verdicts) = (checks.len(), verdicts.len());
            (checks != verdicts).then(|| wrong(format!("{verdicts} verdicts for {checks} checks")))
        }
        (
            Work::TextGeneration(_)
            | Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. },
            Product::TextGeneration { .. }
            | Product::Embedding { .. }
            | Product::Tensors { .. }
            | Product::Shard { .. }
            | Product::Verify { .. },
        ) => Some(wrong("the product is for another kind of work")),
    }
}

fn said(shut: Shut, what: &str) -> Found {
    match shut {
        Shut::Missing => not_proven(format!("there is no {what}")),
        Shut::Foreign => not_proven(format!(
            "the {what} is sealed; only the buyer and the provider can open it"
        )),
        Shut::Gone => not_proven(format!(
            "the {what} was put on a server, and none has it any more"
        )),
        Shut::Broken => wrong(format!("the {what} cannot be opened, or is not valid")),
        Shut::WrongHash => wrong(format!("the {what} is not what its hash says")),
    }
}

/// The other of the two whom an award is between, seen from this key.
fn other(award: &Signed<Award>, keys: Option<&Keys>) -> Option<PublicKey> {
    match keys?.public_key() {
        own if own == award.author() => Some(award.provider),
        own if own == award.provider => Some(award.author()),
        _ => None,
    }
}

fn open<P: Payload>(
    sealed: &Sealed,
    award: &Signed<Award>,
    keys: Option<&Keys>,
    blobs: &Blobs,
) -> Result<(P, Vec<u8>), Shut> {
    let (Some(keys), Some(other)) = (keys, other(award, keys)) else {
        return Err(Shut::Foreign);
    };
    let own = keys.secret_key();
    let opened = match &sealed.blob {
        None => sealed.open(own, &other),
        Some(blob) => {
            let bytes = blobs.get(&blob.sha256).ok_or(Shut::Gone)?;
            sealed.open_fetched(bytes.clone(), own, &other)
        }
    };
    let bytes = opened.map_err(|_| Shut::Broken)?;
    let payload = P::from_bytes(&bytes).map_err(|_| Shut::Broken)?;
    Ok((payload, bytes))
}

fn input(award: &Signed<Award>, keys: Option<&Keys>, blobs: &Blobs) -> Result<Input, Shut> {
    let (input, bytes) = open::<Input>(&award.input, award, keys, blobs)?;
    let about = award.basis.word().id;
    let hash = salted_hash(Domain::Input, &input.salt, &about, &award.author(), &bytes);
    match hash == award.input_hash {
        true => Ok(input),
        false => Err(Shut::WrongHash),
    }
}

fn output(
    award: &Signed<Award>,
    result: &Signed<JobResult>,
    keys: Option<&Keys>,
    blobs: &Blobs,
) -> Result<Output, Shut> {
    let (output, bytes) = open::<Output>(&result.output, award, keys, blobs)?;
    let hash = salted_hash(
        Domain::Output,
        &output.salt,
        &award.id(),
        &award.provider,
        &bytes,
    );
    match hash == result.output_hash {
        true => Ok(output),
        false => Err(Shut::WrongHash),
    }
}

fn prefix(input: &Input) -> &[TokenId] {
    match &input.work {
        Work::TextGeneration(generate) => &generate.prefix,
        Work::Embedding { .. }
        | Work::Tensors { .. }
        | Work::Shard { .. }
        | Work::Verify { .. } => &[],
    }
}
