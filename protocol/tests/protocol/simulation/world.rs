//! Clock, network, relay and buyer of the simulation. What every run must hold
//! is asserted as it goes.

use std::collections::BTreeMap;

use infernet_protocol::event::Experience;
use infernet_protocol::inference::TokenId;
use infernet_protocol::job::Millis;
use infernet_protocol::job::buyer::{Candidate, Effect, End, Input, Job, Patience, Plan};
use infernet_protocol::job::provider;
use nostr::{EventId, PublicKey};

use super::house::{House, Outcome, Play};
use super::scenario::Scenario;

/// More events than any run needs; a run that gets here goes in circles.
const MAX_EVENTS: usize = 500_000;

/// What a whole run came to.
#[derive(Debug, PartialEq)]
pub struct Run {
    pub end: (Millis, End),
    pub shown: String,
    pub tokens: Vec<TokenId>,
    /// Who was given each attempt.
    pub awards: Vec<usize>,
    /// Who was rated, and how.
    pub attested: Vec<(usize, Experience)>,
    /// Whether an attempt went on behind what was shown.
    pub continued: bool,
    /// How much came from superseded attempts, or after the end.
    pub late: usize,
    /// Everything that happened.
    pub trace: Vec<String>,
}

/// Something that is going to happen.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The buyer's driver has news of its own.
    Buyer(Input),
    /// A message arrives at the buyer.
    ToBuyer(Input),
    /// An award arrives at a provider.
    AwardArrives(usize, EventId, Vec<TokenId>),
    /// A message arrives at a provider.
    ToProvider(usize, provider::Input),
    /// A provider's engine goes on.
    Engine(usize, Play),
    /// A relay has stored a result.
    Stored(EventId, Input),
    /// A relay is asked for a result.
    LookedUp(EventId),
}

/// Whose turn it is.
enum Turn {
    Queue,
    Buyer,
    Provider(usize),
}

/// A generator of numbers that a seed decides (splitmix64).
pub struct Rng(u64);

impl Rng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    pub fn percent(&mut self, chance: u8) -> bool {
        self.below(100) < u64::from(chance)
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    now: Millis,
    rng: Rng,
    queue: BTreeMap<(Millis, u64), Happening>,
    queued: u64,
    job: Job,
    houses: Vec<House>,
    stored: BTreeMap<EventId, Input>,
    /// The attempt that the buyer listens to, as seen from outside.
    current: Option<EventId>,
    /// Which provider each award went to.
    awarded: BTreeMap<EventId, usize>,
    /// Who was to be given an attempt, signed or not.
    asked: Vec<usize>,
    end: Option<(Millis, End)>,
    run: Run,
}

impl Run {
    /// Plays a scenario to its very end.
    pub fn of(scenario: &Scenario) -> Self {
        let mut world = World::new(scenario);
        world.play();
        let mut run = world.run;
        run.end = world.end.expect("the job ended");
        run.tokens = world.job.shown().to_vec();
        run
    }
}

/// The id of a provider's announcement or bid.
fn word(provider: usize, is_bid: bool) -> EventId {
    let mut bytes = [provider as u8; 32];
    bytes[0] = u8::from(is_bid);
    EventId::from_byte_array(bytes)
}

fn provider_of(word: &EventId) -> usize {
    usize::from(word.as_bytes()[1])
}

fn award_id(attempt: u32) -> EventId {
    EventId::from_byte_array([0xa0 + attempt as u8; 32])
}

fn candidate(scenario: &Scenario, provider: usize, is_bid: bool) -> Candidate {
    let script = &scenario.providers[provider];
    Candidate {
        word: word(provider, is_bid),
        provider: PublicKey::from_byte_array([provider as u8 + 1; 32]),
        context: 100_000,
        continues: script.continues,
        is_bid,
        rank: script.rank.into(),
        until: Millis(u64::MAX),
        good_enough: script.good_enough,
    }
}

/// Which award an input is about, if it came from a provider.
const fn award_of(input: &Input) -> Option<EventId> {
    match input {
        Input::Alive { award, .. }
        | Input::Declined { award, .. }
        | Input::Piece { award, .. }
        | Input::Result { award, .. }
        | Input::BadResult { award }
        | Input::Overcharged { award }
        | Input::GivenUp { award } => Some(*award),
        Input::Candidate(_)
        | Input::Awarded { .. }
        | Input::AwardFailed
        | Input::Stop
        | Input::Tick => None,
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let start = scenario.start();
        let plan = Plan {
            mode: scenario.mode,
            deadline: scenario.deadline(),
            max_tokens: scenario.max_tokens,
            max_attempts: scenario.max_attempts,
            patience: Patience::default(),
        };
        let announced = scenario.providers.iter().enumerate();
        let announced = announced.filter(|(_, script)| script.announced);
        let candidates = announced.map(|(i, _)| candidate(scenario, i, false));
        let (job, effects) = Job::begin(start, plan, candidates.collect());
        let houses = scenario.providers.iter();
        let houses = houses.enumerate().map(|(i, script)| House::new(i, script));
        let mut world = Self {
            scenario,
            now: start,
            rng: Rng(scenario.seed),
            queue: BTreeMap::new(),
            queued: 0,
            job,
            houses: houses.collect(),
            stored: BTreeMap::new(),
            current: None,
            awarded: BTreeMap::new(),
            asked: vec![],
            end: None,
            run: Run {
                end: (start, End::Stopped),
                shown: String::new(),
                tokens: vec![],
                awards: vec![],
                attested: vec![],
                continued: false,
                late: 0,
                trace: vec![],
            },
        };
        world.foresee();
        world.obey(effects);
        world
    }

    /// What comes from outside: bids, and a user who has had enough.
    fn foresee(&mut self) {
        for provider in 0..self.scenario.providers.len() {
            if let Some(after) = self.scenario.providers[provider].bids_after_ms {
                let bid = Input::Candidate(candidate(self.scenario, provider, true));
                self.later(after, Happening::Buyer(bid));
            }
        }
        if let Some(after) = self.scenario.stop_after_ms {
            self.later(after, Happening::Buyer(Input::Stop));
        }
    }

    fn play(&mut self) {
        for _ in 0..MAX_EVENTS {
            match self.next_turn() {
                None => return,
                Some(Turn::Queue) => {
                    let (_, happening) = self.queue.pop_first().expect("it is its turn");
                    self.trace(format!("{happening:?}"));
                    self.happen(happening);
                }
                Some(Turn::Buyer) => {
                    self.tell_buyer(Input::Tick);
                    let next = self.job.next_deadline();
                    assert!(next.is_none_or(|at| at > self.now), "the buyer spins");
                }
                Some(Turn::Provider(index)) => {
                    self.tell_provider(index, provider::Input::Tick);
                    let next = self.houses[index].next_deadline();
                    assert!(next.is_none_or(|at| at > self.now), "a provider spins");
                }
            }
        }
        panic!("the run has no end");
    }

    /// Moves the clock to whatever comes next. What comes at the same instant
    /// comes in any order.
    fn next_turn(&mut self) -> Option<Turn> {
        let queue = self.queue.first_key_value().map(|((at, _), _)| *at);
        let mut turns: Vec<_> = queue.map(|at| (at, Turn::Queue)).into_iter().collect();
        turns.extend(self.job.next_deadline().map(|at| (at, Turn::Buyer)));
        for house in &self.houses {
            let next = house.next_deadline();
            turns.extend(next.map(|at| (at, Turn::Provider(house.index))));
        }
        let at = turns.iter().map(|(at, _)| *at).min()?;
        turns.retain(|(due, _)| *due == at);
        self.now = self.now.max(at);
        let chosen = self.rng.below(turns.len() as u64);
        Some(turns.swap_remove(chosen as usize).1)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Buyer(input) | Happening::ToBuyer(input) => self.tell_buyer(input),
            Happening::AwardArrives(index, award, prefix) => {
                let deadline = self.scenario.deadline();
                let outcome = self.houses[index].award(self.now, award, prefix, deadline);
                self.carry_out(index, outcome);
            }
            Happening::ToProvider(index, input) => self.tell_provider(index, input),
            Happening::Engine(index, play) => {
                let (answer, seed) = (&self.scenario.answer, self.scenario.seed);
                let leaks = self.rng.percent(30);
                let outcome = self.houses[index].engine(self.now, play, answer, seed, leaks);
                self.carry_out(index, outcome);
            }
            Happening::Stored(award, result) => drop(self.stored.insert(award, result)),
            Happening::LookedUp(award) => {
                if let Some(result) = self.stored.get(&award).cloned() {
                    self.send(Happening::ToBuyer(result));
                }
            }
        }
    }

    fn tell_provider(&mut self, index: usize, input: provider::Input) {
        let outcome = self.houses[index].step(self.now, input);
        self.carry_out(index, outcome);
    }

    fn carry_out(&mut self, index: usize, outcome: Outcome) {
        let award = self.houses[index].award;
        for input in outcome.sends {
            self.send(Happening::ToBuyer(input));
        }
        if let Some(input) = outcome.stores {
            let after = self.rng.below(self.scenario.network.slowest_ms);
            self.later(after, Happening::Stored(award, input));
        }
        if let Some((after, play)) = outcome.engine {
            self.later(after, Happening::Engine(index, play));
        }
        if let Some((after, input)) = outcome.sends_after {
            self.later(after, Happening::ToBuyer(input));
        }
    }

    /// Tells the buyer's machine. What is about another award than the current
    /// one must leave it exactly as it was.
    fn tell_buyer(&mut self, input: Input) {
        if award_of(&input).is_some_and(|award| Some(award) != self.current) {
            self.run.late += 1;
            self.step_buyer(Input::Tick);
            let before = format!("{:?}", self.job);
            let effects = self
                .job
                .step(self.now, input)
                .expect("late news is no error");
            assert_eq!(effects, [], "a superseded attempt has effects");
            assert_eq!(before, format!("{:?}", self.job), "it changes the job");
            return;
        }
        self.step_buyer(input);
    }

    fn step_buyer(&mut self, input: Input) {
        if let Input::Awarded { award } = input
            && self.end.is_none()
        {
            self.current = Some(award);
        }
        let effects = self.job.step(self.now, input).expect("the driver is right");
        self.obey(effects);
        let room = self.scenario.max_tokens as usize;
        assert!(self.job.shown().len() <= room, "more tokens than asked for");
    }

    fn obey(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.trace(format!("{effect:?}"));
            assert!(self.end.is_none(), "{effect:?} after the end");
            match effect {
                Effect::Award {
                    attempt,
                    word,
                    prefix,
                } => self.place(attempt, word, prefix),
                Effect::Resend { award, from } => {
                    assert_eq!(Some(award), self.current);
                    let to = self.awarded[&award];
                    self.send(Happening::ToProvider(to, provider::Input::Resend { from }));
                }
                Effect::LookUp { award } => {
                    assert_eq!(Some(award), self.current);
                    self.send(Happening::LookedUp(award));
                }
                Effect::Show { text, .. } => self.run.shown.push_str(&text),
                Effect::Cancel { award, .. } => {
                    assert_eq!(Some(award), self.current);
                    let to = self.awarded[&award];
                    self.send(Happening::ToProvider(to, provider::Input::Stop));
                }
                Effect::Attest(account) => {
                    assert_eq!(Some(account.award), self.current);
                    let who = self.awarded[&account.award];
                    let already = self.run.attested.iter().any(|(rated, _)| *rated == who);
                    assert!(!already, "an attempt is rated twice");
                    self.run.attested.push((who, account.experience));
                }
                Effect::End(end) => {
                    self.current = None;
                    self.end = Some((self.now, end));
                }
            }
        }
    }

    /// Signs and publishes an award, or fails to.
    fn place(&mut self, attempt: u32, word: EventId, prefix: Vec<TokenId>) {
        let index = provider_of(&word);
        assert_eq!(attempt as usize, self.run.awards.len() + 1);
        assert!(!self.asked.contains(&index), "somebody is asked twice");
        self.asked.push(index);
        assert_eq!(prefix, self.job.shown(), "the prefix is what was shown");
        assert!(prefix.is_empty() || self.scenario.providers[index].continues);
        assert!(self.now < self.scenario.deadline(), "an award in vain");
        self.current = None;
        let award = award_id(attempt);
        self.awarded.insert(award, index);
        let signed = Happening::Buyer(Input::Awarded { award });
        let failed = Happening::Buyer(Input::AwardFailed);
        let after = match self.scenario.hasty {
            true => self.rng.below(50),
            false => 0,
        };
        let fails = self.rng.percent(self.scenario.award_failures);
        let signs = !fails || self.rng.percent(50);
        if signs {
            self.run.continued |= !prefix.is_empty();
            self.run.awards.push(index);
            self.later(after, signed);
        }
        match fails {
            // Soon enough that the attempt is sure to be current still.
            true => self.later(after, failed),
            false => self.send(Happening::AwardArrives(index, award, prefix)),
        }
    }

    /// Sends over the network: late, twice, or not at all.
    fn send(&mut self, message: Happening) {
        let network = self.scenario.network;
        let times = match (
            self.rng.percent(network.loss),
            self.rng.percent(network.twice),
        ) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        for _ in 0..times {
            let after = self.rng.below(network.slowest_ms);
            self.later(after, message.clone());
        }
    }

    fn later(&mut self, after_ms: u64, happening: Happening) {
        let key = (self.now.plus(after_ms), self.queued);
        self.queued += 1;
        self.queue.insert(key, happening);
    }

    fn trace(&mut self, what: String) {
        let at = self.now.since(self.scenario.start());
        self.run.trace.push(format!("{at} {what}"));
    }
}
