//! Which awards are taken on. Everything in an award is somebody else's word
//! until it was checked here.

mod checks;

use infernet_engine::Error as EngineError;
use infernet_protocol::event::{Announcement, Award, Basis, Bid, Body, Signed};
use infernet_protocol::inference::{Prompt, TokenId};
use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{Check, Decline, Generate, Input, Payload, Work};
use infernet_protocol::seal::{Conversation, Domain, Salt, salted_hash};
use infernet_protocol::tensor::{self, Tensor, arrange};
use nostr::{Event, Timestamp};

pub use self::checks::{Case, Claim, TextClaim};
use crate::catalogue::Item;
use crate::output;
use crate::shop::{Address, Shop, plain_reason};
use crate::store::Ticket;

/// How old an award may be that a relay had stored. Its buyer has waited a few
/// seconds for an answer; one that was made while we were away is somebody
/// else's by now.
pub const MAX_AGE_S: u64 = 30;

/// How far a buyer's clock may differ from ours, either way: those of machines
/// without NTP drift by minutes. An award's id is remembered at least that long,
/// so that it cannot be replayed.
pub const MAX_SKEW_S: u64 = 15 * 60;

/// A difference of clocks that is worth telling whoever is declined for time.
const TOLD_SKEW_S: u64 = 10;

/// How far away a deadline may be. Award ids are remembered until then.
pub const MAX_DEADLINE_S: u64 = 24 * 3_600;

/// An award that can be taken on.
#[derive(Debug)]
pub struct Admitted {
    /// The award.
    pub award: Signed<Award>,
    /// What is to be done.
    pub work: Work,
    /// Whether to say how texts were computed.
    pub prove: bool,
    /// What it is done with.
    pub item: Item,
    /// Where the buyer hears of it.
    pub address: Address,
    /// Salt of the input.
    pub salt: Salt,
    /// What is to be checked, if that is the work.
    pub cases: Vec<Case>,
    /// Tokens of the prompt; 0 for free embeddings, which are counted when made.
    pub input_tokens: u32,
}

impl Admitted {
    /// Tokens that are still to be drawn at most.
    pub fn to_draw(&self) -> u32 {
        match &self.work {
            Work::TextGeneration(generate) => to_draw(generate),
            Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. } => 0,
        }
    }

    /// The most that it may cost; admission has checked that there is so much.
    pub fn most(&self) -> Msat {
        let drawn = match &self.work {
            Work::Shard { requests } => requests.iter().map(|one| u64::from(to_draw(one))).sum(),
            _ => self.to_draw().into(),
        };
        let read = u64::from(self.input_tokens) + self.prefix_tokens();
        let cost = self.award.price.cost(read, drawn);
        cost.unwrap_or(Msat::MAX)
    }

    /// Tokens of an earlier attempt that it goes on behind.
    pub fn prefix_tokens(&self) -> u64 {
        match &self.work {
            Work::TextGeneration(generate) => generate.prefix.len() as u64,
            Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. } => 0,
        }
    }

    /// What its charge and its receipt are made of.
    pub fn ticket(&self, opened_at: Timestamp) -> Ticket {
        Ticket {
            award: self.award.id(),
            job: self.award.job_id(),
            buyer: self.award.author(),
            number: self.award.attempt,
            model: self.item.model.name.clone(),
            salt: self.salt,
            input_tokens: self.input_tokens.into(),
            prefix_tokens: self.prefix_tokens(),
            is_escrow: self.award.terms == PaymentKind::Escrow,
            opened_at,
        }
    }
}

/// An award that is not taken on.
#[derive(Debug)]
pub struct Declined {
    /// The award, if it is a valid one.
    pub award: Option<Signed<Award>>,
    /// Where the buyer hears of it.
    pub address: Address,
    /// Why.
    pub reason: Decline,
    /// In words.
    pub detail: String,
}

/// What to do with an award.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing: it is not for us, or nobody could be told.
    Ignore(&'static str),
    /// Tell the buyer that it is not taken on.
    Decline(Box<Declined>),
    /// Take it on, if there is room.
    Admit(Box<Admitted>),
}

/// Why an award is not taken on.
#[derive(Debug, PartialEq, Eq)]
struct No(Decline, String);

fn no(reason: Decline, detail: impl Into<String>) -> No {
    No(reason, detail.into())
}

/// Whether an award is too old, or dated too far ahead, to be looked at. What is
/// heard live was made a moment ago, so that its date only tells how far apart
/// the clocks are.
pub fn is_out_of_time(created_at: Timestamp, now: Timestamp, is_live: bool) -> bool {
    let (created_s, now_s) = (created_at.as_secs(), now.as_secs());
    let max_age_s = if is_live { MAX_SKEW_S } else { MAX_AGE_S };
    created_s.saturating_add(max_age_s) < now_s || created_s > now_s.saturating_add(MAX_SKEW_S)
}

/// Until when an award that was taken on is remembered: until its deadline, so
/// that no lower attempt of its job is taken on.
pub fn remember_accepted(award: &Signed<Award>, now: Timestamp) -> Timestamp {
    bounded(replayable_until(award).max(award.deadline), now)
}

/// Until when one that was not is remembered: no longer than a replay of it could
/// be taken for new. They come for nothing, and must not fill the disk.
pub fn remember_refused(award: &Signed<Award>, now: Timestamp) -> Timestamp {
    bounded(replayable_until(award), now)
}

fn replayable_until(award: &Signed<Award>) -> Timestamp {
    Timestamp::from_secs(award.created_at().as_secs().saturating_add(MAX_SKEW_S + 1))
}

fn bounded(until: Timestamp, now: Timestamp) -> Timestamp {
    until.min(Timestamp::from_secs(now.as_secs() + MAX_DEADLINE_S))
}

/// Checks an award whose signature was checked. Costs three signatures, a
/// decryption and a tokenization, so it runs beside the loop.
pub fn examine(shop: &Shop, event: Event, now: Millis) -> Verdict {
    let Ok(conversation) = Conversation::between(shop.keys().secret_key(), &event.pubkey) else {
        return Verdict::Ignore("its author's key is none");
    };
    let mut address = Address {
        job: event.tags.event_ids().next().copied().unwrap_or(event.id),
        award: event.id,
        buyer: event.pubkey,
        conversation,
    };
    let award = match Signed::<Award>::from_verified(event) {
        Ok(award) => award,
        Err(refusal) => {
            return Verdict::Decline(Box::new(Declined {
                award: None,
                address,
                reason: Decline::Input,
                detail: plain_reason(&format!("the award is not valid: {refusal}")),
            }));
        }
    };
    if award.provider != shop.public_key() {
        return Verdict::Ignore("it is for another provider");
    }
    address.job = award.job_id();
    match admit(shop, &award, now) {
        Ok(fit) => Verdict::Admit(Box::new(Admitted {
            award,
            work: fit.input.work,
            prove: fit.input.prove,
            item: fit.item,
            address,
            salt: fit.input.salt,
            cases: fit.cases,
            input_tokens: fit.input_tokens,
        })),
        Err(No(reason, detail)) => Verdict::Decline(Box::new(Declined {
            award: Some(award),
            address,
            reason,
            detail: plain_reason(&detail),
        })),
    }
}

/// What was found to be in order.
struct Fit {
    item: Item,
    input: Input,
    cases: Vec<Case>,
    input_tokens: u32,
}

fn admit(shop: &Shop, award: &Signed<Award>, now: Millis) -> Result<Fit, No> {
    let item = shop
        .catalogue
        .item(&award.model, award.task)
        .ok_or_else(|| {
            no(
                Decline::Model,
                "that model is not served here for that task",
            )
        })?;
    check_terms(shop, award, item)?;
    check_times(shop, award, now)?;
    let input = open(shop, award)?;
    let mut cases = vec![];
    let input_tokens = match &input.work {
        Work::TextGeneration(generate) => check_generate(shop, award, item, generate)?,
        Work::Embedding { texts } => check_embedding(shop, award, item, texts)?,
        Work::Tensors { inputs } => check_tensors(award, item, inputs)?,
        Work::Shard { requests } => check_shard(shop, award, item, requests)?,
        Work::Verify { checks, .. } => {
            cases = open_checks(shop, item, checks)?;
            check_cases(shop, award, item, &mut cases)?
        }
    };
    Ok(Fit {
        item: item.clone(),
        input,
        cases,
        input_tokens,
    })
}

/// Model, price and terms are those of the bid or announcement: the protocol has
/// checked that. Here they must also be what we serve now.
fn check_terms(shop: &Shop, award: &Award, item: &Item) -> Result<(), No> {
    if matches!(award.basis, Basis::Direct { .. }) {
        if !shop.options.direct {
            return Err(no(Decline::Terms, "awards need a bid here"));
        }
        if award.price != item.price {
            return Err(no(Decline::Terms, "the price is not what it was"));
        }
    }
    match award.terms {
        // The protocol has checked that the price is 0.
        PaymentKind::Free => Ok(()),
        PaymentKind::Tab if shop.till.is_some() => Ok(()),
        PaymentKind::Tab => Err(no(Decline::Terms, "this provider only takes free work")),
        // Whom it is given to, and how much, the till looks at when it is taken on.
        PaymentKind::Escrow if shop.till.is_some() => Ok(()),
        PaymentKind::Escrow => Err(no(Decline::Terms, "this provider takes no escrow")),
    }
}

/// A refusal for time, which may be due to clocks that differ.
fn late(award: &Signed<Award>, now_s: u64, why: &str) -> No {
    let apart = award.created_at().as_secs().abs_diff(now_s);
    let clocks = match apart > TOLD_SKEW_S {
        true => format!(" (your clock and ours are {apart} s apart)"),
        false => String::new(),
    };
    no(Decline::Late, format!("{why}{clocks}"))
}

fn check_times(shop: &Shop, award: &Signed<Award>, now: Millis) -> Result<(), No> {
    let now_s = now.0 / 1_000;
    let word = award.basis.word();
    let stands_until = match &award.basis {
        Basis::Auction { .. } => expiry::<Bid>(word, |bid| bid.expires_at),
        Basis::Direct { .. } => expiry::<Announcement>(word, |word| word.expires_at),
    };
    if stands_until.is_none_or(|until| until.as_secs() <= now_s) {
        return Err(late(award, now_s, "the bid or announcement has run out"));
    }
    let deadline_s = award.deadline.as_secs();
    if deadline_s > now_s + MAX_DEADLINE_S {
        return Err(late(award, now_s, "the deadline is more than a day away"));
    }
    let first_token = now.plus(shop.promises.of(&award.model).first_token_ms);
    match deadline_s.saturating_mul(1_000) > first_token.0 {
        true => Ok(()),
        false => Err(late(award, now_s, "the deadline cannot be met")),
    }
}

/// The expiry that our own word states; it was verified with the award.
fn expiry<B: Body>(word: &Event, of: impl Fn(&B) -> Timestamp) -> Option<Timestamp> {
    serde_json::from_str::<B>(&word.content)
        .ok()
        .map(|b| of(&b))
}

/// Opens the input, and checks that it is the one the award commits to.
fn open(shop: &Shop, award: &Signed<Award>) -> Result<Input, No> {
    let input = |error: &dyn std::fmt::Display| no(Decline::Input, format!("the input: {error}"));
    let buyer = award.author();
    let bytes = award
        .input
        .open(shop.keys().secret_key(), &buyer)
        .map_err(|e| input(&e))?;
    let opened = Input::from_bytes(&bytes).map_err(|e| input(&e))?;
    let about = award.basis.word().id;
    let hash = salted_hash(Domain::Input, &opened.salt, &about, &buyer, &bytes);
    if hash != award.input_hash {
        return Err(no(
            Decline::Input,
            "the input is not the one that the award commits to",
        ));
    }
    match opened.work.task() == award.task {
        true => Ok(opened),
        false => Err(no(Decline::Input, "the input is for another task")),
    }
}

fn check_generate(shop: &Shop, award: &Award, item: &Item, generate: &Generate) -> Result<u32, No> {
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
    if output::surely_too_long(to_draw) {
        return Err(no(
            Decline::TooLong,
            "so long an answer does not fit in an event",
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
fn check_shard(shop: &Shop, award: &Award, item: &Item, requests: &[Generate]) -> Result<u32, No> {
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
        let reasons = counted.into_iter().filter_map(Result::err);
        return Err(reasons
            .last()
            .unwrap_or_else(|| no(Decline::Input, "it is empty")));
    }
    check_cost(award, input_tokens, to_draw)?;
    Ok(input_tokens)
}

fn to_draw(generate: &Generate) -> u32 {
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

fn check_embedding(shop: &Shop, award: &Award, item: &Item, texts: &[String]) -> Result<u32, No> {
    let width = item.model.embedding_width.unwrap_or(0);
    if !output::vectors_fit(texts.len(), width) {
        return Err(no(
            Decline::TooLong,
            format!("{} vectors do not fit in an event", texts.len()),
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

fn open_checks(shop: &Shop, item: &Item, checks: &[Check]) -> Result<Vec<Case>, No> {
    let us = shop.public_key();
    let opened = checks
        .iter()
        .map(|check| checks::open(check, &item.model.id, &us));
    let cases: Result<Vec<_>, _> = opened.collect();
    cases.map_err(|unfit| no(Decline::Input, unfit.to_string()))
}

/// How many tokens there are to read: questions and answers.
fn check_cases(shop: &Shop, award: &Award, item: &Item, cases: &mut [Case]) -> Result<u32, No> {
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
    for TextClaim { asked, answer, .. } in claims {
        let counted = shop.engine.count_tokens(&item.model.id, &asked.prompt);
        let prompt = counted.map_err(refusal)?;
        asked.max_tokens = asked.max_tokens.min(context.saturating_sub(prompt)).max(1);
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

fn check_tensors(award: &Award, item: &Item, inputs: &[Tensor]) -> Result<u32, No> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_awards_and_those_from_the_future_are_out_of_time() {
        let now = Timestamp::from_secs(1_000_000);
        let at = |s: u64| is_out_of_time(Timestamp::from_secs(s), now, false);
        let live = |s: u64| is_out_of_time(Timestamp::from_secs(s), now, true);
        assert!(!live(1_000_000 - MAX_SKEW_S));
        assert!(live(1_000_000 - MAX_SKEW_S - 1));
        assert!(live(1_000_000 + MAX_SKEW_S + 1));
        assert!(!at(1_000_000));
        assert!(!at(1_000_000 - MAX_AGE_S));
        assert!(at(1_000_000 - MAX_AGE_S - 1));
        assert!(!at(1_000_000 + MAX_SKEW_S));
        assert!(at(1_000_000 + MAX_SKEW_S + 1));
        assert!(at(u64::MAX));
    }
}
