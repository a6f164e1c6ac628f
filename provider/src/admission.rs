//! Which awards are taken on. Everything in an award is somebody else's word
//! until it was checked here.

mod checks;
mod works;

use infernet_protocol::batch::Blob;
use infernet_protocol::event::{Announcement, Award, Basis, Bid, Body, Signed};
use infernet_protocol::job::Millis;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{Decline, Input, Payload, Work};
use infernet_protocol::seal::{Conversation, Domain, Salt, salted_hash};
use nostr::{Event, Timestamp};

pub use self::checks::{Case, Claim, TextClaim};
use self::works::{
    check_cases, check_embedding, check_generate, check_shard, check_tensors, open_checks, to_draw,
};
use crate::catalogue::Item;
use crate::parcels::{Fetched, Wanted};
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
    /// Fetch what it needs, and look again.
    Fetch(Box<Wanted>),
    /// Take it on, if there is room.
    Admit(Box<Admitted>),
}

/// Why an award is not taken on.
#[derive(Debug, PartialEq, Eq)]
struct No(Decline, String);

/// What is in the way of an award.
#[derive(Debug)]
enum Hitch {
    No(No),
    Missing(Vec<Blob>),
}

impl From<No> for Hitch {
    fn from(no: No) -> Self {
        Self::No(no)
    }
}

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
pub fn examine(shop: &Shop, event: Event, fetched: Fetched, now: Millis) -> Verdict {
    let Ok(conversation) = shop.conversations.with(&event.pubkey) else {
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
    match admit(shop, (&award, &address.conversation), &fetched, now) {
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
        Err(Hitch::Missing(blobs)) => Verdict::Fetch(Box::new(Wanted {
            event: award.event().clone(),
            address,
            blobs,
            fetched,
        })),
        Err(Hitch::No(No(reason, detail))) => Verdict::Decline(Box::new(Declined {
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

fn admit(
    shop: &Shop,
    (award, pair): (&Signed<Award>, &Conversation),
    fetched: &Fetched,
    now: Millis,
) -> Result<Fit, Hitch> {
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
    let missing = fetched.missing([&award.input]);
    if !missing.is_empty() {
        return Err(Hitch::Missing(missing));
    }
    let input = open(award, pair, fetched)?;
    let mut cases = vec![];
    let input_tokens = match &input.work {
        Work::TextGeneration(generate) => check_generate(shop, award, item, generate)?,
        Work::Embedding { texts } => check_embedding(shop, award, item, texts)?,
        Work::Tensors { inputs } => check_tensors(award, item, inputs)?,
        Work::Shard { requests } => check_shard(shop, award, item, requests)?,
        Work::Verify { checks, .. } => {
            let missing = checks::missing(checks, fetched);
            if !missing.is_empty() {
                return Err(Hitch::Missing(missing));
            }
            cases = open_checks(shop, item, checks, fetched)?;
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
fn open(award: &Signed<Award>, pair: &Conversation, fetched: &Fetched) -> Result<Input, No> {
    let input = |error: &dyn std::fmt::Display| no(Decline::Input, format!("the input: {error}"));
    let buyer = award.author();
    let bytes = fetched.open(&award.input, pair).map_err(|e| input(&e))?;
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
