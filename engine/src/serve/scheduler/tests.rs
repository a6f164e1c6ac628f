//! The scheduler in virtual time, over a network whose next token is a hash of all
//! tokens before it, which it reads back from the blocks: one wrong block and the
//! answer is another.
#![allow(clippy::unwrap_used)]

mod reading;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock};

use half::bf16;
use infernet_protocol::inference::{EndReason, ModelId, Prompt, Sampling, TokenId};
use infernet_protocol::payload::Proof;
use proptest::prelude::*;

use super::*;
use crate::models::decoder::{Prediction, Row};
use crate::port::{Generate, Generation, MAX_AHEAD, Standing, Step};
use crate::proof::Prover;
use crate::tokenizer::Tokenizer;

const VOCABULARY: u64 = 320;
/// The width of its states.
const STATE: u32 = 4;
/// Tokens that end an answer.
const END: TokenId = 2;
/// A batch with this token in it panics.
const POISON: TokenId = 300;
/// What follows this token is no number.
const MADNESS: TokenId = 301;

/// What the network was asked to do in one batch.
#[derive(Debug, Clone, Default)]
struct Batch {
    rows: usize,
    tokens: usize,
    answers: usize,
}

struct Fake {
    /// The token that each place of each block holds.
    store: Vec<[TokenId; BLOCK_TOKENS]>,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Network for Fake {
    fn has(&self, token: TokenId) -> bool {
        u64::from(token) < VOCABULARY
    }

    fn forward(&mut self, rows: &[Row<'_>]) -> Result<Vec<Prediction>, Error> {
        assert!(!rows.iter().any(|row| row.tokens.contains(&POISON)));
        self.batches.lock().unwrap().push(Batch {
            rows: rows.len(),
            tokens: rows.iter().map(|row| row.tokens.len()).sum(),
            answers: rows
                .iter()
                .filter(|r| r.draws && r.tokens.len() == 1)
                .count(),
        });
        for row in rows {
            self.keep(row);
        }
        let drawing = rows.iter().filter(|row| row.draws);
        Ok(drawing.map(|row| self.said(row, &self.held(row))).collect())
    }

    fn score(&mut self, row: Row<'_>, next: &[TokenId]) -> Result<Vec<f32>, Error> {
        assert_eq!(row.tokens.len(), next.len());
        assert!(!row.draws && !row.tokens.contains(&POISON));
        self.keep(&row);
        let held = self.held(&row);
        let before = |at: usize| &held[..=row.start + at];
        let scores = next.iter().enumerate();
        Ok(scores
            .map(|(at, &next)| likeness(before(at), next))
            .collect())
    }

    fn inspect(
        &mut self,
        row: Row<'_>,
        first: usize,
        see: &mut dyn FnMut(Vec<Prediction>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        assert!(!row.draws && !row.tokens.contains(&POISON));
        self.keep(&row);
        let held = self.held(&row);
        for at in row.start + first..held.len() {
            see(vec![self.said(&row, &held[..=at])])?;
        }
        Ok(())
    }
}

impl Fake {
    fn keep(&mut self, row: &Row<'_>) {
        for (at, &token) in row.tokens.iter().enumerate() {
            let at = row.start + at;
            let block = row.blocks[at / BLOCK_TOKENS] as usize;
            self.store[block][at % BLOCK_TOKENS] = token;
        }
    }

    /// The sequence's tokens, as its blocks hold them.
    fn held(&self, row: &Row<'_>) -> Vec<TokenId> {
        let held =
            |at: usize| self.store[row.blocks[at / BLOCK_TOKENS] as usize][at % BLOCK_TOKENS];
        (0..row.start + row.tokens.len()).map(held).collect()
    }

    /// What is said after these tokens.
    fn said(&self, row: &Row<'_>, tokens: &[TokenId]) -> Prediction {
        let mut logits = vec![0.0; VOCABULARY as usize];
        logits[next(tokens) as usize] = match tokens.last() {
            Some(&MADNESS) => f32::NAN,
            _ => 1.0,
        };
        let state = row.proves.then(|| state(tokens));
        Prediction { logits, state }
    }
}

/// What follows these tokens; none of the troublesome ones.
fn next(tokens: &[TokenId]) -> TokenId {
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    (hasher.finish() % 290) as TokenId + 1
}

/// The state after these tokens: all of them have a part in it.
fn state(tokens: &[TokenId]) -> Vec<bf16> {
    let number = |place| f32::from(next(&[tokens, &[place]].concat()) as u16);
    (0..STATE)
        .map(|place| bf16::from_f32(number(place)))
        .collect()
}

/// How a token is scored after these tokens.
fn likeness(tokens: &[TokenId], token: TokenId) -> f32 {
    -((next(tokens) ^ token) as f32)
}

/// The answer to a prompt, computed alone.
fn alone(prompt: &[TokenId], most: usize) -> Vec<TokenId> {
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + most {
        tokens.push(next(&tokens));
        if tokens.last() == Some(&END) {
            break;
        }
    }
    tokens.split_off(prompt.len())
}

/// How an answer is proven that is computed alone.
fn proven_alone(prompt: &[TokenId], answer: &[TokenId]) -> Proof {
    let text = [prompt, answer].concat();
    let mut prover = Prover::default();
    for end in prompt.len()..text.len() {
        prover.push(&state(&text[..end]));
    }
    prover.finish()
}

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let load = || {
        let json = include_bytes!("../../../tests/reference/tiny-llama/tokenizer.json");
        let tokenizer = Tokenizer::new(json).and_then(|t| t.for_answers(None, vec![END]));
        Arc::new(tokenizer.unwrap())
    };
    Arc::clone(TOKENIZER.get_or_init(load))
}

/// A scheduler and those who read its answers.
struct Bench {
    scheduler: Scheduler<Fake>,
    batches: Arc<Mutex<Vec<Batch>>>,
    readers: Vec<Reader>,
}

struct Reader {
    prompt: Vec<TokenId>,
    most: usize,
    generation: Option<Generation>,
    got: Vec<TokenId>,
    has_started: bool,
    end: Option<Result<EndReason, Error>>,
    proof: Option<Proof>,
}

impl Reader {
    fn read(&mut self, steps: usize) {
        for _ in 0..steps {
            let Some(step) = self.generation.as_mut().and_then(Generation::try_next) else {
                return;
            };
            assert!(self.end.is_none(), "a step after the end");
            match step {
                Step::Started { input_tokens } => {
                    assert_eq!(input_tokens as usize, self.prompt.len());
                    assert!(!std::mem::replace(&mut self.has_started, true));
                }
                Step::Token { id, .. } => {
                    assert!(self.has_started);
                    self.got.push(id);
                }
                Step::Ended { reason, proof, .. } => {
                    self.end = Some(Ok(reason));
                    self.proof = proof;
                }
                Step::Failed(error) => self.end = Some(Err(error)),
            }
        }
    }
}

fn limits(slots: usize, blocks: u32) -> Limits {
    Limits {
        slots,
        blocks,
        prompt_alone: 128,
        prompt_beside: 64,
        threads: 2,
        shares_prefixes: false,
    }
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let batches = Arc::<Mutex<Vec<Batch>>>::default();
        let fake = Fake {
            store: vec![[TokenId::MAX; BLOCK_TOKENS]; limits.blocks as usize],
            batches: Arc::clone(&batches),
        };
        let text = Text {
            tokenizer: tokenizer(),
            context: limits.blocks as usize * BLOCK_TOKENS,
        };
        Self {
            scheduler: Scheduler::new(fake, text, limits),
            batches,
            readers: Vec::new(),
        }
    }

    /// Brings a request; answers which reader reads it.
    fn ask(&mut self, standing: Standing, prompt: &[TokenId], most: usize) -> usize {
        let (steps, generation) = Generation::channel();
        let request = Generate {
            model: ModelId::from_bytes([0; 32]),
            prompt: Prompt::Text(String::new()),
            sampling: Sampling::default(),
            max_tokens: most as u32,
            stop: vec![],
            prefix: vec![],
            prove: true,
            standing,
        };
        let text = self.scheduler.text().clone();
        let room = text.context - prompt.len();
        let sequence = Sequence::new(&text, |_| true, request, prompt.to_vec(), steps);
        self.scheduler
            .take(sequence.map_err(|(_, error)| error).unwrap());
        self.readers.push(Reader {
            prompt: prompt.to_vec(),
            most: most.min(room),
            generation: Some(generation),
            got: vec![],
            has_started: false,
            end: None,
            proof: None,
        });
        self.readers.len() - 1
    }

    /// A round after which everybody reads all there is.
    fn round(&mut self) -> Round {
        let round = self.scheduler.round();
        for reader in &mut self.readers {
            reader.read(usize::MAX);
        }
        round
    }

    /// Rounds until there is nothing left to do.
    fn finish(&mut self) {
        for _ in 0..20_000 {
            if self.round() == Round::Idle {
                return;
            }
        }
        panic!("it does not come to an end");
    }

    fn computed(&self) -> usize {
        self.batches
            .lock()
            .unwrap()
            .iter()
            .map(|batch| batch.tokens)
            .sum()
    }

    /// Every answer is the one that its request is given alone, and nothing is left.
    fn check(&self) {
        for reader in &self.readers {
            let whole = alone(&reader.prompt, reader.most);
            assert_eq!(reader.got, whole[..reader.got.len()]);
            match &reader.end {
                Some(Ok(EndReason::Cancelled)) => {}
                Some(Ok(reason)) => {
                    let stops = whole.last() == Some(&END);
                    assert_eq!(*reason == EndReason::Stop, stops);
                    assert_eq!(reader.got, whole, "the whole answer");
                    let proof = proven_alone(&reader.prompt, &whole);
                    assert_eq!(reader.proof, Some(proof), "how it was computed");
                }
                Some(Err(error)) => panic!("{error}"),
                None => assert!(reader.generation.is_none(), "it has no end"),
            }
        }
        let scheduler = &self.scheduler;
        assert_eq!(scheduler.blocks.available(), scheduler.blocks.count());
        let limits = &scheduler.limits;
        for batch in self.batches.lock().unwrap().iter() {
            assert!(batch.rows <= limits.slots);
            let beside = limits.prompt_beside + batch.rows;
            assert!(batch.tokens <= limits.prompt_alone.max(beside));
        }
    }
}

fn customer(customer: u64) -> Standing {
    Standing { customer, price: 0 }
}

fn prompt(kind: u32, length: usize) -> Vec<TokenId> {
    (0..length as u32)
        .map(|at| 10 + (kind * 7 + at / 40) % 200)
        .collect()
}

#[test]
fn requests_are_computed_together() {
    let mut bench = Bench::new(limits(4, 64));
    for kind in 0..4 {
        bench.ask(customer(kind.into()), &prompt(kind, 20), 30);
    }
    bench.finish();
    bench.check();
    let together = bench
        .batches
        .lock()
        .unwrap()
        .iter()
        .filter(|b| b.answers == 4)
        .count();
    assert!(together > 10, "{together} rounds with all four");
}

#[test]
fn a_long_prompt_holds_nobody_up() {
    let mut bench = Bench::new(limits(4, 64));
    let quick = bench.ask(customer(1), &prompt(1, 5), 200);
    bench.round();
    bench.ask(customer(2), &prompt(2, 1_000), 5);
    let whole = alone(&prompt(1, 5), 200).len();
    for _ in 0..10 {
        let before = bench.readers[quick].got.len();
        bench.round();
        let after = bench.readers[quick].got.len();
        assert!(after == before + 1 || after == whole);
        let last = bench.batches.lock().unwrap().last().cloned().unwrap();
        assert!(last.tokens <= bench.scheduler.limits.prompt_beside + 1);
    }
    bench.finish();
    bench.check();
}

#[test]
fn who_waits_and_who_is_worked_for_can_be_told() {
    let mut bench = Bench::new(limits(1, 64));
    let long = bench.ask(customer(1), &prompt(1, 1_000), 2);
    let other = bench.ask(customer(2), &prompt(2, 5), 2);
    let mut before = 0;
    for _ in 0..3 {
        bench.round();
        let generation = |at: usize| bench.readers[at].generation.as_ref().unwrap();
        assert!(generation(other).is_waiting() && !generation(long).is_waiting());
        let progress = generation(long).progress();
        assert!(progress > before && bench.readers[long].got.is_empty());
        before = progress;
    }
    bench.finish();
    bench.check();
}

#[test]
fn a_beginning_that_was_computed_is_not_computed_again() {
    let mut bench = Bench::new(limits(2, 64));
    let system = prompt(3, 320);
    let ask = |bench: &mut Bench, who, last| {
        let before = bench.computed();
        let prompt = [system.clone(), vec![last; 5]].concat();
        bench.ask(customer(who), &prompt, 1);
        bench.finish();
        bench.computed() - before
    };
    assert_eq!(ask(&mut bench, 1, 20), 325);
    assert_eq!(
        ask(&mut bench, 1, 21),
        5,
        "what follows the shared beginning"
    );
    assert_eq!(
        ask(&mut bench, 2, 22),
        325,
        "another customer learns nothing"
    );
    bench.check();
    bench.scheduler.limits.shares_prefixes = true;
    ask(&mut bench, 1, 23);
    assert_eq!(ask(&mut bench, 2, 24), 5);
    bench.check();
}

#[test]
fn many_who_come_together_compute_their_beginning_once() {
    let mut bench = Bench::new(limits(8, 128));
    for last in 0..8 {
        let prompt = [prompt(3, 640), vec![50 + last; 3]].concat();
        bench.ask(customer(1), &prompt, 4);
    }
    bench.finish();
    bench.check();
    assert!(bench.computed() < 1_000, "{}", bench.computed());
}

#[test]
fn who_reads_nothing_is_not_computed_for_and_holds_no_place() {
    let mut bench = Bench::new(limits(1, 64));
    let sleeper = bench.ask(customer(1), &prompt(1, 5), 150);
    let whole = alone(&prompt(1, 5), 150);
    assert!(whole.len() > 2 * MAX_AHEAD, "it has to be long");
    while bench.scheduler.round() == Round::Worked {}
    assert_eq!(bench.scheduler.round(), Round::Waits);
    let other = bench.ask(customer(1), &prompt(2, 5), 10);
    while bench.readers[other].end.is_none() {
        assert_eq!(bench.scheduler.round(), Round::Worked);
        bench.readers[other].read(usize::MAX);
    }
    bench.readers[sleeper].read(usize::MAX);
    let ahead = bench.readers[sleeper].got.len();
    assert!(ahead <= MAX_AHEAD, "{ahead}");
    bench.finish();
    bench.check();
}

/// Prompts whose answers do not end early.
fn talkative(most: usize) -> impl Iterator<Item = Vec<TokenId>> {
    let prompts = (0..).map(|kind| prompt(kind, 30));
    prompts.filter(move |prompt| alone(prompt, most).len() == most)
}

#[test]
fn who_takes_much_gives_way_to_who_comes() {
    let mut bench = Bench::new(limits(4, 256));
    for prompt in talkative(300).take(8) {
        bench.ask(customer(1), &prompt, 300);
    }
    for _ in 0..20 {
        bench.round();
    }
    let late = bench.ask(customer(2), &prompt(90, 30), 60);
    for round in 0.. {
        bench.round();
        if bench.readers[late].end.is_some() {
            break;
        }
        assert!(round < 120, "it waits until one of the other's has ended");
    }
    bench.finish();
    bench.check();
}

#[test]
fn who_pays_more_is_given_more_and_nobody_nothing() {
    let mut bench = Bench::new(limits(2, 256));
    let prices = [0, 100, 1_000];
    for (who, price) in (1..).zip(prices) {
        for kind in 0..60 {
            let standing = Standing {
                customer: who,
                price,
            };
            bench.ask(standing, &prompt(kind, 20), 400);
        }
    }
    for _ in 0..2_500 {
        bench.round();
    }
    let given = |at: usize| -> usize {
        let readers = &bench.readers[at * 60..(at + 1) * 60];
        readers.iter().map(|reader| reader.got.len()).sum()
    };
    let [none, some, most] = [given(0), given(1), given(2)];
    assert!(
        none > 0 && none < some && some < most,
        "{none} {some} {most}"
    );
    let ratio = most as f64 / none as f64;
    assert!((5.0..40.0).contains(&ratio), "{most} to {none}");
}

#[test]
fn who_pays_nothing_is_served_however_many_come_who_pay() {
    let mut bench = Bench::new(limits(1, 64));
    let poor = bench.ask(customer(0), &prompt(1, 200), 100);
    let mut newcomer = 0;
    for round in 0.. {
        assert!(round < 10_000, "it starves");
        // Three are always there, each another customer.
        let there = bench.readers.iter().filter(|r| r.end.is_none()).count();
        for _ in there..4 {
            newcomer += 1;
            let standing = Standing {
                customer: newcomer,
                price: 1_000,
            };
            bench.ask(standing, &prompt(newcomer as u32, 100), 10);
        }
        bench.round();
        if bench.readers[poor].end.is_some() {
            break;
        }
    }
    bench.finish();
    bench.check();
}

#[test]
fn one_that_fails_fails_alone() {
    let mut bench = Bench::new(limits(4, 64));
    let good = bench.ask(customer(1), &prompt(1, 40), 20);
    let panics = bench.ask(customer(2), &[20, 21, POISON, 22], 20);
    let mad = bench.ask(customer(3), &[20, 21, MADNESS], 20);
    bench.finish();
    for bad in [panics, mad] {
        let end = bench.readers.remove(bad.min(bench.readers.len() - 1)).end;
        assert!(matches!(end, Some(Err(Error::Computation(_)))), "{end:?}");
    }
    assert!(matches!(bench.readers[good].end, Some(Ok(_))));
    bench.check();
}

#[test]
fn without_room_for_all_the_answers_still_come() {
    // Each may need up to 8 of the 10 blocks.
    let mut bench = Bench::new(limits(4, 10));
    for kind in 0..6 {
        bench.ask(customer(kind.into()), &prompt(kind, 60), 190);
    }
    bench.finish();
    bench.check();
}

#[test]
fn long_prompts_that_do_not_fit_together_are_answered_one_after_the_other() {
    for (slots, length) in [(1, 2_000), (2, 2_500), (2, 3_500)] {
        let mut bench = Bench::new(limits(slots, 128));
        for who in 0..3 {
            bench.ask(customer(who), &distinct(who as u32, length), 60);
        }
        bench.finish();
        bench.check();
        // Each may be read once for each of its three turns.
        assert!(bench.computed() < 10 * length, "{}", bench.computed());
    }
}

/// A prompt of which no two blocks are alike.
fn distinct(kind: u32, length: usize) -> Vec<TokenId> {
    (0..length as u32)
        .map(|at| 10 + (kind * 7 + at * at / 13) % 200)
        .collect()
}

#[test]
fn what_is_cancelled_is_free_at_once() {
    let mut bench = Bench::new(limits(1, 16));
    let first = bench.ask(customer(1), &prompt(1, 300), 50);
    let second = bench.ask(customer(2), &prompt(2, 300), 50);
    bench.round();
    bench.readers[first].generation.as_ref().unwrap().cancel();
    bench.round();
    assert_eq!(bench.readers[first].end, Some(Ok(EndReason::Cancelled)));
    assert!(bench.readers[second].has_started);
    bench.readers[second].generation = None;
    assert_eq!(bench.round(), Round::Idle);
    bench.check();
}

#[test]
fn a_prompt_without_room_is_refused() {
    let bench = Bench::new(limits(1, 2));
    let (steps, _generation) = Generation::channel();
    let request = Generate {
        model: ModelId::from_bytes([0; 32]),
        prompt: Prompt::Text(String::new()),
        sampling: Sampling::default(),
        max_tokens: 1,
        stop: vec![],
        prefix: vec![],
        prove: false,
        standing: Standing::default(),
    };
    let text = bench.scheduler.text();
    let refused = Sequence::new(text, |_| true, request, vec![5; 64], steps);
    let refused = refused.map(drop).map_err(|(_, error)| error);
    let expected = Error::PromptTooLong {
        tokens: 64,
        context: 64,
    };
    assert_eq!(refused, Err(expected));
}

/// What happens to a bench.
#[derive(Debug, Clone)]
enum Deed {
    Ask {
        who: u64,
        price: u64,
        kind: u32,
        length: usize,
        most: usize,
    },
    Read {
        who: usize,
        steps: usize,
    },
    Cancel(usize),
    Drop(usize),
    Rounds(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let ask = (0u64..4, 0u64..3, 0u32..3, 1usize..200, 1usize..120);
    let ask = ask.prop_map(|(who, price, kind, length, most)| Deed::Ask {
        who,
        price,
        kind,
        length,
        most,
    });
    let read = (any::<usize>(), 1usize..80).prop_map(|(who, steps)| Deed::Read { who, steps });
    let deed = prop_oneof![
        3 => ask,
        4 => read,
        1 => any::<usize>().prop_map(Deed::Cancel),
        1 => any::<usize>().prop_map(Deed::Drop),
        6 => (1usize..20).prop_map(Deed::Rounds),
    ];
    prop::collection::vec(deed, 1..80)
}

fn act(bench: &mut Bench, deed: Deed) {
    let count = bench.readers.len();
    match deed {
        Deed::Ask {
            who,
            price,
            kind,
            length,
            most,
        } => {
            let length = length.min(bench.scheduler.text().context - 1);
            let standing = Standing {
                customer: who,
                price,
            };
            bench.ask(standing, &prompt(kind, length), most);
        }
        Deed::Rounds(rounds) => {
            for _ in 0..rounds {
                bench.scheduler.round();
            }
        }
        _ if count == 0 => {}
        Deed::Read { who, steps } => bench.readers[who % count].read(steps),
        Deed::Cancel(who) => {
            if let Some(generation) = &bench.readers[who % count].generation {
                generation.cancel();
            }
        }
        Deed::Drop(who) => bench.readers[who % count].generation = None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whoever comes, reads, stops or goes, and however little room there is: all
    /// answers are those that are given alone, they come to an end, and nothing is
    /// left.
    #[test]
    fn answers_are_those_given_alone(
        slots in 1usize..5,
        blocks in 2u32..24,
        deeds in deeds(),
    ) {
        let mut bench = Bench::new(limits(slots, blocks));
        for deed in deeds {
            act(&mut bench, deed);
        }
        bench.finish();
        bench.check();
    }
}
