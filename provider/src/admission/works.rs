//! Whether the work in an award is what the model can do, and what the award pays for.

use infernet_engine::Error as EngineError;
use infernet_protocol::event::Award;
use infernet_protocol::inference::{Prompt, TokenId};
use infernet_protocol::money::PaymentKind;
use infernet_protocol::payload::{Check, Decline, Generate};
use infernet_protocol::tensor::{self, Tensor, arrange};
use infernet_protocol::verification::Fault;

use super::checks::{self, Case, Claim, TextClaim};
use super::{No, no};
use crate::catalogue::Item;
use crate::output;
use crate::parcels::Fetched;
use crate::shop::Shop;

pub(super) fn check_generate(
    shop: &Shop,
    award: &Award,
    item: &Item,
    generate: &Generate,
) -> Result<u32, No> {
    // The protocol has checked that the prefix is no longer than max_tokens.
    let prefix = generate.prefix.len();
    let to_draw = to_draw(generate);
    if to_draw > award.limits.output_tokens {
        return Err(no(
            Decline::Input,
            "the input asks for more tokens than the award",
        ));
    }
    if prefix > 0 && !item.continues() {
        return Err(no(
            Decline::Continuation,
            "this model cannot go on behind a prefix",
        ));
    }
    if output::surely_too_long(to_draw, shop.max_output_bytes()) {
        return Err(no(
            Decline::TooLong,
            "so long an answer does not fit in a result",
        ));
    }
    let input_tokens = read(shop, item, generate)?;
    let read = input_tokens.saturating_add(tokens(&generate.prefix));
    check_cost(award, read, to_draw)?;
    Ok(input_tokens)
}

/// How many tokens a prompt has, if it and its prefix leave room for an answer.
fn read(shop: &Shop, item: &Item, generate: &Generate) -> Result<u32, No> {
    let counted = shop.engine.count_tokens(&item.model.id, &generate.prompt);
    let input_tokens = counted.map_err(refusal)?;
    let read = input_tokens.saturating_add(tokens(&generate.prefix));
    let context = item.model.context;
    match read < context {
        true => Ok(input_tokens),
        false => Err(no(
            Decline::TooLong,
            format!("the prompt has {read} tokens, and the model's context holds {context}"),
        )),
    }
}

/// Some texts of a shard may be none that the model can answer: these fail alone.
pub(super) fn check_shard(
    shop: &Shop,
    award: &Award,
    item: &Item,
    requests: &[Generate],
) -> Result<u32, No> {
    if award.terms == PaymentKind::Tab {
        return Err(no(
            Decline::Terms,
            "a shard is not streamed: it is free, or paid in escrow",
        ));
    }
    let to_draw = requests.iter().map(to_draw).fold(0, u32::saturating_add);
    if to_draw > award.limits.output_tokens {
        return Err(no(
            Decline::Input,
            "the input asks for more tokens than the award",
        ));
    }
    let counted: Vec<_> = requests.iter().map(|one| read(shop, item, one)).collect();
    let can = counted.iter().flatten();
    let input_tokens = can.copied().fold(0, u32::saturating_add);
    if counted.iter().all(Result::is_err) {
        let mut reasons = counted.into_iter().filter_map(Result::err);
        let first = reasons.next();
        return Err(first.unwrap_or_else(|| no(Decline::Input, "it is empty")));
    }
    check_cost(award, input_tokens, to_draw)?;
    Ok(input_tokens)
}

pub(super) fn to_draw(generate: &Generate) -> u32 {
    generate.max_tokens.saturating_sub(tokens(&generate.prefix))
}

/// What is read is no more than a paying buyer agrees to, and all of it is
/// within the budget.
fn check_cost(award: &Award, read: u32, to_draw: u32) -> Result<(), No> {
    let most = award.limits.input_tokens;
    if award.terms != PaymentKind::Free && read > most {
        let told = format!("the input has {read} tokens, and the award pays for {most}");
        return Err(no(Decline::Terms, told));
    }
    let cost = award.price.cost(read.into(), to_draw.into());
    match cost.is_some_and(|cost| cost <= award.budget_msat) {
        true => Ok(()),
        false => Err(no(Decline::Terms, "the budget does not cover the work")),
    }
}

fn tokens(prefix: &[TokenId]) -> u32 {
    u32::try_from(prefix.len()).unwrap_or(u32::MAX)
}

pub(super) fn check_embedding(
    shop: &Shop,
    award: &Award,
    item: &Item,
    texts: &[String],
) -> Result<u32, No> {
    let width = item.model.embedding_width.unwrap_or(0);
    if !output::vectors_fit(texts.len(), width, shop.max_output_bytes()) {
        return Err(no(
            Decline::TooLong,
            format!("{} vectors do not fit in a result", texts.len()),
        ));
    }
    if award.terms == PaymentKind::Free {
        return Ok(0);
    }
    let read = read_texts(shop, item, texts)?;
    check_cost(award, read, 0)?;
    Ok(read)
}

fn read_texts(shop: &Shop, item: &Item, texts: &[String]) -> Result<u32, No> {
    let mut read: u32 = 0;
    for text in texts {
        let prompt = Prompt::Text(text.clone());
        let counted = shop.engine.count_tokens(&item.model.id, &prompt);
        read = read.saturating_add(counted.map_err(refusal)?);
    }
    Ok(read)
}

pub(super) fn open_checks(
    shop: &Shop,
    item: &Item,
    checks: &[Check],
    fetched: &Fetched,
) -> Result<Vec<Case>, No> {
    let us = shop.public_key();
    let opened = checks
        .iter()
        .map(|check| checks::open(check, fetched, &item.model.id, &us));
    let cases: Result<Vec<_>, _> = opened.collect();
    cases.map_err(|unfit| no(Decline::Input, unfit.to_string()))
}

/// How many tokens there are to read: questions and answers.
pub(super) fn check_cases(
    shop: &Shop,
    award: &Award,
    item: &Item,
    cases: &mut [Case],
) -> Result<u32, No> {
    let mut read: u32 = 0;
    for case in cases {
        let context = case.context();
        read = read.saturating_add(match &mut case.claim {
            Claim::Texts(claims) => read_claims(shop, item, context, claims)?,
            Claim::Vectors { texts, .. } => read_texts(shop, item, texts)?,
            Claim::Missing => 0,
        });
    }
    check_cost(award, read, 0)?;
    Ok(read)
}

/// No answer could be longer than the `context` that was agreed on leaves room for.
fn read_claims(
    shop: &Shop,
    item: &Item,
    context: u32,
    claims: &mut [TextClaim],
) -> Result<u32, No> {
    let mut read: u32 = 0;
    for claim in claims {
        let counted = shop
            .engine
            .count_tokens(&item.model.id, &claim.asked.prompt);
        let prompt = match counted {
            Ok(prompt) => prompt,
            // Nobody can have read it either: the answer is made up.
            Err(error) if is_unreadable(&error) => {
                claim.fault = Some(Fault::InputMiscounted);
                continue;
            }
            Err(error) => return Err(refusal(error)),
        };
        let room = context.saturating_sub(prompt);
        if room == 0 {
            claim.fault = Some(Fault::TooLong);
            continue;
        }
        let TextClaim { asked, answer, .. } = claim;
        asked.max_tokens = asked.max_tokens.min(room);
        let answered = asked.prefix.len().saturating_add(answer.tokens.len());
        let answered = u32::try_from(answered).unwrap_or(u32::MAX);
        let whole = prompt.saturating_add(answered.min(asked.max_tokens));
        if whole > item.model.context {
            return Err(no(
                Decline::TooLong,
                format!(
                    "there are {whole} tokens to read at once, and the model's context holds fewer"
                ),
            ));
        }
        read = read.saturating_add(prompt).saturating_add(answered);
    }
    Ok(read)
}

/// Whether a prompt is none to this model, wherever it runs.
const fn is_unreadable(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::EmptyPrompt
            | EngineError::PromptTooLarge { .. }
            | EngineError::NoChatTemplate
            | EngineError::ChatTemplate(_)
    )
}

pub(super) fn check_tensors(award: &Award, item: &Item, inputs: &[Tensor]) -> Result<u32, No> {
    let slots = item.model.interface.as_ref().map(|module| &*module.inputs);
    arrange(slots.unwrap_or_default(), inputs)
        .map_err(|misfit| no(Decline::Input, misfit.to_string()))?;
    // It would cost nothing, and is nothing to compute with.
    if let Some(empty) = inputs.iter().find(|input| input.data.is_empty()) {
        return Err(no(
            Decline::Input,
            format!("{} has no elements", empty.name),
        ));
    }
    let read = u32::try_from(tensor::tokens(inputs)).unwrap_or(u32::MAX);
    check_cost(award, read, 0)?;
    Ok(read)
}

/// What the engine's refusal of a prompt is to a buyer.
fn refusal(error: EngineError) -> No {
    let reason = match &error {
        EngineError::PromptTooLong { .. }
        | EngineError::PromptTooLarge { .. }
        | EngineError::TooManyTexts { .. } => Decline::TooLong,
        EngineError::EmptyPrompt
        | EngineError::NoTokensAllowed
        | EngineError::InvalidSampling(_)
        | EngineError::InvalidStop(_)
        | EngineError::InvalidPrefix(_)
        | EngineError::UnknownToken(_)
        | EngineError::InvalidTensors(_)
        | EngineError::NoChatTemplate
        | EngineError::ChatTemplate(_) => Decline::Input,
        EngineError::UnknownModel(_) | EngineError::WrongTask { .. } => Decline::Model,
        EngineError::Busy => Decline::Busy,
        EngineError::Computation(_) | EngineError::Stopped => Decline::Closing,
    };
    no(reason, output::public_words(&error))
}
