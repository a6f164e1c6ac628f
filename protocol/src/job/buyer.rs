//! A job as its buyer lives it.

mod stream;
mod talk;

use nostr::{EventId, PublicKey};

pub use stream::Flaw;
use stream::Stream;
pub use talk::{Account, Candidate, Effect, End, Failure, Input, Mode, Patience, Plan};

use super::{Millis, Unexpected};
use crate::bounds::{MAX_ATTEMPTS, MAX_BIDS};
use crate::event::{CancelReason, Experience, Usage};
use crate::inference::{EndReason, TokenId};
use crate::payload::{Decline, Piece, Product};

#[derive(Debug)]
enum State {
    Gathering { until: Millis },
    Placing(Attempt),
    Listening(Attempt, EventId),
    Ended,
}

#[derive(Debug)]
struct Attempt {
    candidate: Candidate,
    placed_at: Millis,
    accepted: bool,
    last_heard: Millis,
    /// Whether the provider and the relays were asked since `last_heard`.
    asked: bool,
    stream: Stream,
}

/// One job.
#[derive(Debug)]
pub struct Job {
    plan: Plan,
    state: State,
    candidates: Vec<Candidate>,
    tried: Vec<PublicKey>,
    attempts: u32,
    last_decline: Option<Decline>,
    any_accepted: bool,
    /// Tokens shown by all attempts together.
    shown: Vec<TokenId>,
}

impl Job {
    /// Begins a job with the announcements at hand: in an auction they stand in
    /// when bidders are used up.
    pub fn begin(now: Millis, plan: Plan, candidates: Vec<Candidate>) -> (Self, Vec<Effect>) {
        let mut job = Self {
            plan,
            state: State::Gathering { until: now },
            candidates,
            tried: vec![],
            attempts: 0,
            last_decline: None,
            any_accepted: false,
            shown: vec![],
        };
        let mut effects = vec![];
        match plan.mode {
            Mode::Direct => job.place_next(now, &mut effects),
            Mode::Auction { window_ms, .. } => {
                let until = now.plus(window_ms).min(plan.deadline);
                job.state = State::Gathering { until };
            }
        }
        (job, effects)
    }

    /// Whether it is over.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The tokens shown so far.
    pub fn shown(&self) -> &[TokenId] {
        &self.shown
    }

    /// The announcements as they stand now, in place of all earlier ones: for the
    /// next failover.
    pub fn restock(&mut self, announcements: impl IntoIterator<Item = Candidate>) {
        self.candidates.retain(|c| c.is_bid);
        let announcements = announcements.into_iter().filter(|c| !c.is_bid);
        self.candidates.extend(announcements.take(MAX_BIDS));
    }

    /// Tells the job what happened; answers what to do. After the end, and for
    /// whatever a superseded attempt sends, that is nothing.
    ///
    /// # Errors
    /// [`Unexpected`] if the driver reports an award that nobody asked for.
    pub fn step(&mut self, now: Millis, input: Input) -> Result<Vec<Effect>, Unexpected> {
        let mut effects = vec![];
        if self.has_ended() {
            return Ok(effects);
        }
        self.take(now, input, &mut effects)?;
        self.keep_time(now, &mut effects);
        Ok(effects)
    }

    /// When to call [`Job::step`] with [`Input::Tick`] at the latest; `None`
    /// after the end.
    pub fn next_deadline(&self) -> Option<Millis> {
        let patience = &self.plan.patience;
        let next = match &self.state {
            State::Ended => return None,
            State::Gathering { until } => *until,
            State::Placing(_) => self.plan.deadline,
            State::Listening(attempt, _) => attempt.next_deadline(patience),
        };
        Some(next.min(self.plan.deadline))
    }

    fn take(
        &mut self,
        now: Millis,
        input: Input,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Unexpected> {
        match input {
            Input::Candidate(candidate) => self.consider(now, candidate, effects),
            Input::Awarded { award } => return self.awarded(now, award),
            Input::AwardFailed => return self.award_failed(now, effects),
            Input::Alive { award, accepted } => self.alive(now, award, accepted),
            Input::Declined { award, reason } => self.declined(now, award, reason, effects),
            Input::Piece { award, piece } => self.piece(now, award, piece, effects),
            Input::Result {
                award,
                result,
                ended,
                usage,
                product,
            } => self.result(now, award, result, (ended, usage, product), effects),
            Input::BadResult { award } | Input::Overcharged { award } => {
                if self.is_current(award) {
                    self.give_up(now, Experience::Invalid, None, effects);
                }
            }
            Input::GivenUp { award } => {
                if self.is_current(award) {
                    self.give_up(now, Experience::Failed, None, effects);
                }
            }
            Input::Stop => self.over(End::Stopped, CancelReason::Stopped, effects),
            Input::Tick => {}
        }
        Ok(())
    }

    fn is_current(&self, award: EventId) -> bool {
        matches!(&self.state, State::Listening(_, current) if *current == award)
    }

    /// The attempt that an award belongs to, unless it is superseded.
    fn current(&mut self, award: EventId) -> Option<&mut Attempt> {
        match &mut self.state {
            State::Listening(attempt, current) if *current == award => Some(attempt),
            State::Listening(..) | State::Gathering { .. } | State::Placing(_) | State::Ended => {
                None
            }
        }
    }

    /// Bids count until the award; announcements are kept for a failover.
    fn consider(&mut self, now: Millis, candidate: Candidate, effects: &mut Vec<Effect>) {
        let gathering = matches!(self.state, State::Gathering { .. });
        if candidate.is_bid && !gathering {
            return;
        }
        let same = |c: &Candidate| c.provider == candidate.provider && c.is_bid == candidate.is_bid;
        self.candidates.retain(|c| !same(c));
        // Each sort has its own room: any number of announcements must not keep
        // the bids out.
        let of_its_sort = |c: &&Candidate| c.is_bid == candidate.is_bid;
        if self.candidates.iter().filter(of_its_sort).count() >= MAX_BIDS {
            return;
        }
        self.candidates.push(candidate);
        let bids = self.candidates.iter().filter(|c| c.is_bid).count();
        let enough = match self.plan.mode {
            Mode::Direct => false,
            Mode::Auction { enough_bids, .. } => bids >= enough_bids,
        };
        if gathering && candidate.is_bid && (candidate.good_enough || enough) {
            self.place_next(now, effects);
        }
    }

    /// Awards the next attempt to the best who is left, or ends the job.
    fn place_next(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if now >= self.plan.deadline {
            return self.end(End::Failed(Failure::Deadline), effects);
        }
        if self.attempts >= self.plan.max_attempts.min(MAX_ATTEMPTS) {
            return self.end(End::Failed(Failure::TooManyAttempts), effects);
        }
        let Some(candidate) = self.best(now) else {
            return self.end(End::Failed(self.nobody_left()), effects);
        };
        self.tried.push(candidate.provider);
        self.attempts += 1;
        effects.push(Effect::Award {
            attempt: self.attempts,
            word: candidate.word,
            prefix: self.shown.clone(),
        });
        self.state = State::Placing(Attempt {
            candidate,
            placed_at: now,
            accepted: false,
            last_heard: now,
            asked: false,
            stream: Stream::default(),
        });
    }

    /// The best candidate who was not tried and can go on where we are: bidders
    /// first, then announcements.
    fn best(&self, now: Millis) -> Option<Candidate> {
        self.candidates
            .iter()
            .filter(|c| c.until > now)
            .filter(|c| !self.tried.contains(&c.provider))
            .filter(|c| self.shown.is_empty() || c.continues)
            .max_by(|a, b| {
                (a.is_bid, a.rank)
                    .partial_cmp(&(b.is_bid, b.rank))
                    .unwrap_or(std::cmp::Ordering::Equal)
            })
            .copied()
    }

    const fn nobody_left(&self) -> Failure {
        match (self.last_decline, self.any_accepted) {
            _ if self.tried.is_empty() => Failure::NoProvider,
            (Some(reason), false) => Failure::Declined(reason),
            (None, false) | (_, true) => Failure::NobodyLeft,
        }
    }

    fn awarded(&mut self, now: Millis, award: EventId) -> Result<(), Unexpected> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Placing(mut attempt) => {
                attempt.last_heard = now;
                attempt.stream = Stream::of(&award);
                self.state = State::Listening(attempt, award);
                Ok(())
            }
            other @ (State::Gathering { .. } | State::Listening(..) | State::Ended) => {
                let state = other.name();
                self.state = other;
                Err(Unexpected {
                    input: "an award",
                    state,
                })
            }
        }
    }

    fn award_failed(&mut self, now: Millis, effects: &mut Vec<Effect>) -> Result<(), Unexpected> {
        match &self.state {
            // An award that nobody signed was no attempt, and its number is free.
            State::Placing(_) => {
                self.attempts -= 1;
                self.place_next(now, effects);
                Ok(())
            }
            // It was published after all: its provider has spoken.
            State::Listening(attempt, _) if attempt.accepted => Ok(()),
            // Nobody is to blame who never heard of it.
            State::Listening(..) => {
                self.place_next(now, effects);
                Ok(())
            }
            other @ (State::Gathering { .. } | State::Ended) => Err(Unexpected {
                input: "a failed award",
                state: other.name(),
            }),
        }
    }

    fn alive(&mut self, now: Millis, award: EventId, accepted: bool) {
        let Some(attempt) = self.current(award) else {
            return;
        };
        attempt.heard(now);
        attempt.accepted |= accepted;
        self.any_accepted |= accepted;
    }

    fn declined(
        &mut self,
        now: Millis,
        award: EventId,
        reason: Decline,
        effects: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.current(award) else {
            return;
        };
        // Who has taken the work on and then drops it has failed, whatever the
        // word for it.
        if attempt.accepted {
            return self.give_up(now, Experience::Failed, None, effects);
        }
        self.last_decline = Some(reason);
        self.place_next(now, effects);
    }

    fn piece(&mut self, now: Millis, award: EventId, piece: Piece, effects: &mut Vec<Effect>) {
        let room = self.plan.max_tokens as usize - self.shown.len();
        let Some(attempt) = self.current(award) else {
            return;
        };
        attempt.heard(now);
        attempt.accepted = true;
        let shown = attempt.stream.piece(now, piece, room);
        self.any_accepted = true;
        match shown {
            Ok(part) => self.show(part, effects),
            Err(Flaw) => self.give_up(now, Experience::Invalid, None, effects),
        }
    }

    fn show(&mut self, part: stream::Part, effects: &mut Vec<Effect>) {
        let tokens = part.tokens.len();
        self.shown.extend(part.tokens);
        if tokens > 0 || !part.text.is_empty() {
            effects.push(Effect::Show {
                text: part.text,
                tokens,
            });
        }
    }

    fn result(
        &mut self,
        now: Millis,
        award: EventId,
        result: EventId,
        (ended, usage, product): (EndReason, Usage, Product),
        effects: &mut Vec<Effect>,
    ) {
        let (max_tokens, shown) = (self.plan.max_tokens, self.shown.len());
        let Some(attempt) = self.current(award) else {
            return;
        };
        attempt.heard(now);
        let claim = stream::Claim {
            ended,
            usage,
            product,
            context: attempt.candidate.context,
            max_tokens,
            shown_before: shown - attempt.stream.tokens(),
        };
        let part = attempt.stream.complete(now, claim);
        self.any_accepted = true;
        match part {
            Ok(part) => self.show(part, effects),
            Err(Flaw) => return self.give_up(now, Experience::Invalid, Some(result), effects),
        }
        match ended {
            EndReason::Stop | EndReason::Length => {
                self.attest(Experience::Completed, Some(result), effects);
                let end = End::Done {
                    award,
                    result,
                    ended,
                };
                self.end(end, effects);
            }
            // Nobody asked this attempt to stop: it is current.
            EndReason::Cancelled | EndReason::Failed => {
                self.attest(Experience::Failed, Some(result), effects);
                self.place_next(now, effects);
            }
        }
    }

    /// Ends the current attempt for a fault of its provider's, and goes on with
    /// the next.
    fn give_up(
        &mut self,
        now: Millis,
        experience: Experience,
        result: Option<EventId>,
        effects: &mut Vec<Effect>,
    ) {
        self.attest(experience, result, effects);
        let reason = match experience {
            Experience::Silent => Some(CancelReason::Silent),
            Experience::Invalid => Some(CancelReason::Invalid),
            // What is rejected was taken as completed first.
            Experience::Completed | Experience::Failed | Experience::Rejected => None,
        };
        if let Some(reason) = reason {
            self.cancel(reason, effects);
        }
        self.place_next(now, effects);
    }

    fn attest(&self, experience: Experience, result: Option<EventId>, effects: &mut Vec<Effect>) {
        if let State::Listening(attempt, award) = &self.state {
            effects.push(Effect::Attest(Account {
                award: *award,
                word: attempt.candidate.word,
                experience,
                result,
                measured: attempt.stream.measured(attempt.placed_at),
            }));
        }
    }

    /// Who was given time, and only ever said that it is alive, is not spared by
    /// the deadline.
    fn attest_fruitless(&self, now: Millis, effects: &mut Vec<Effect>) {
        let had_time = |attempt: &Attempt| {
            now.since(attempt.placed_at) >= self.plan.patience.silence_ms
                && attempt.stream.is_empty()
        };
        if matches!(&self.state, State::Listening(attempt, _) if had_time(attempt)) {
            self.attest(Experience::Silent, None, effects);
        }
    }

    fn cancel(&self, reason: CancelReason, effects: &mut Vec<Effect>) {
        if let State::Listening(attempt, award) = &self.state {
            effects.push(Effect::Cancel {
                award: *award,
                provider: attempt.candidate.provider,
                reason,
            });
        }
    }

    fn over(&mut self, end: End, reason: CancelReason, effects: &mut Vec<Effect>) {
        self.cancel(reason, effects);
        self.end(end, effects);
    }

    fn end(&mut self, end: End, effects: &mut Vec<Effect>) {
        self.state = State::Ended;
        effects.push(Effect::End(end));
    }

    fn keep_time(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if self.has_ended() {
            return;
        }
        if now >= self.plan.deadline {
            self.attest_fruitless(now, effects);
            let end = End::Failed(Failure::Deadline);
            return self.over(end, CancelReason::Deadline, effects);
        }
        let patience = self.plan.patience;
        match &mut self.state {
            State::Gathering { until } if now >= *until => self.place_next(now, effects),
            State::Listening(attempt, _) if attempt.is_lost(now, &patience) => {
                self.give_up(now, Experience::Silent, None, effects);
            }
            State::Listening(attempt, award) => {
                let award = *award;
                attempt.ask(now, award, &patience, effects);
            }
            State::Gathering { .. } | State::Placing(_) | State::Ended => {}
        }
    }
}

impl State {
    const fn name(&self) -> &'static str {
        match self {
            Self::Gathering { .. } => "gathering candidates",
            Self::Placing(_) => "placing an award",
            Self::Listening(..) => "listening to a provider",
            Self::Ended => "ended",
        }
    }
}

impl Attempt {
    const fn heard(&mut self, now: Millis) {
        self.last_heard = now;
        self.asked = false;
    }

    const fn patience_ms(&self, patience: &Patience) -> u64 {
        match self.accepted {
            true => patience.silence_ms,
            false => patience.ack_ms,
        }
    }

    const fn is_lost(&self, now: Millis, patience: &Patience) -> bool {
        now.since(self.last_heard) >= self.patience_ms(patience)
    }

    fn next_deadline(&self, patience: &Patience) -> Millis {
        let whole = self.patience_ms(patience);
        let silence = match self.asked {
            true => self.last_heard.plus(whole),
            false => self.last_heard.plus(whole / 2),
        };
        match self.stream.gap_since() {
            Some(since) => silence.min(since.plus(patience.gap_ms)),
            None => silence,
        }
    }

    /// Asks for what is missing: a gap soon, a silent provider at half-time.
    fn ask(&mut self, now: Millis, award: EventId, patience: &Patience, effects: &mut Vec<Effect>) {
        let from = self.stream.next_seq();
        let gap = self.stream.gap_since();
        if gap.is_some_and(|since| now.since(since) >= patience.gap_ms) {
            self.stream.asked_for_gap(now);
            effects.push(Effect::Resend { award, from });
        }
        if !self.asked && now.since(self.last_heard) >= self.patience_ms(patience) / 2 {
            self.asked = true;
            effects.push(Effect::LookUp { award });
            effects.push(Effect::Resend { award, from });
        }
    }
}
