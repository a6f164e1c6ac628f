//! Texts that are scored, and answers that are checked, beside answers that are given.

use infernet_protocol::payload::Generated;
use infernet_protocol::verification::{ChunkDistance, TextFigures};
use tokio::sync::oneshot;

use super::*;
use crate::port::{CheckText, Score};

impl Bench {
    /// Brings a text to be scored; it has no reader among those of answers.
    fn score(&mut self, who: u64, tokens: &[TokenId]) -> (Generation, oneshot::Receiver<Vec<f32>>) {
        let (steps, generation) = Generation::channel();
        let (sender, scores) = oneshot::channel();
        let request = Score {
            model: ModelId::from_bytes([0; 32]),
            tokens: tokens.to_vec(),
            standing: customer(who),
        };
        let text = self.scheduler.text().clone();
        let sequence = Sequence::to_score(&text, |_| true, request, sender, steps);
        let sequence = sequence.map_err(|(_, error)| error).unwrap();
        self.scheduler.take(sequence);
        (generation, scores)
    }

    /// Brings an answer to be checked.
    fn judge(&mut self, who: u64, prompt: &[TokenId], answer: &Answer) -> Judgement {
        let (steps, generation) = Generation::channel();
        let (sender, figures) = oneshot::channel();
        let request = CheckText {
            model: ModelId::from_bytes([0; 32]),
            prompt: Prompt::Text(String::new()),
            sampling: Sampling::default(),
            max_tokens: 1_000,
            stop: vec![],
            prefix: answer.prefix.clone(),
            answer: Generated {
                text: String::new(),
                tokens: answer.tokens.clone(),
                input_tokens: prompt.len() as u32,
                ended: EndReason::Length,
                error: None,
            },
            proof: Some(answer.proof.clone()),
            clip: 0.5,
            standing: customer(who),
        };
        let text = self.scheduler.text().clone();
        let sequence = Sequence::to_check(&text, |_| true, request, prompt.to_vec(), sender, steps);
        let sequence = sequence.map_err(|(_, error)| error).unwrap();
        self.scheduler.take(sequence);
        (generation, figures)
    }
}

type Judgement = (Generation, oneshot::Receiver<TextFigures>);

/// What somebody answered.
#[derive(Clone)]
struct Answer {
    prefix: Vec<TokenId>,
    tokens: Vec<TokenId>,
    proof: Proof,
}

impl Answer {
    /// An honest one, of which so many tokens are a prefix.
    fn honest(prompt: &[TokenId], prefix: usize) -> Self {
        let prefix = alone(prompt, prefix);
        let before = [prompt, &prefix].concat();
        let tokens = alone(&before, 100);
        let proof = proven_alone(&before, &tokens);
        Self {
            prefix,
            tokens,
            proof,
        }
    }
}

/// A text's scores, computed alone.
fn scored_alone(tokens: &[TokenId]) -> Vec<f32> {
    (1..tokens.len())
        .map(|at| likeness(&tokens[..at], tokens[at]))
        .collect()
}

#[test]
fn texts_are_scored_beside_answers_whatever_the_cache_holds_of_them() {
    // So few blocks that requests take each other's.
    let mut bench = Bench::new(limits(4, 24));
    let texts: Vec<_> = (0..6)
        .map(|kind| prompt(kind, 90 * kind as usize + 2))
        .collect();
    for (kind, text) in texts.iter().enumerate() {
        bench.ask(customer(1), text, 40);
        if kind % 2 == 0 {
            bench.round();
        }
    }
    let asked: Vec<_> = texts.iter().map(|text| bench.score(1, text)).collect();
    bench.finish();
    bench.check();
    for ((_generation, mut scores), text) in asked.into_iter().zip(&texts) {
        assert_eq!(scores.try_recv().unwrap(), scored_alone(text));
    }
}

#[test]
fn a_scoring_that_nobody_waits_for_is_let_go() {
    let mut bench = Bench::new(limits(1, 64));
    let (generation, mut scores) = bench.score(1, &prompt(1, 1_000));
    bench.round();
    drop(generation);
    bench.finish();
    assert!(scores.try_recv().is_err());
    assert!(bench.computed() <= bench.scheduler.limits.prompt_alone);
    bench.check();
}

#[test]
fn one_that_fails_takes_no_other_down() {
    let mut bench = Bench::new(limits(4, 64));
    bench.ask(customer(1), &prompt(1, 20), 30);
    let (mut poisoned, _) = bench.score(1, &[5, POISON, 7]);
    let (_generation, mut scores) = bench.score(1, &prompt(2, 300));
    bench.finish();
    bench.check();
    let failed =
        std::iter::from_fn(|| poisoned.try_next()).any(|step| matches!(step, Step::Failed(_)));
    assert!(failed);
    assert_eq!(scores.try_recv().unwrap(), scored_alone(&prompt(2, 300)));
}

#[test]
fn honest_answers_are_found_honest_whatever_the_cache_holds_of_them() {
    // So few blocks that requests take each other's.
    let mut bench = Bench::new(limits(4, 24));
    let prompts: Vec<_> = (0..6)
        .map(|kind| prompt(kind, 70 * kind as usize + 2))
        .collect();
    let answers: Vec<_> = prompts
        .iter()
        .zip([0, 0, 5, 0, 20, 1])
        .map(|(prompt, prefix)| Answer::honest(prompt, prefix))
        .collect();
    for (kind, prompt) in prompts.iter().enumerate() {
        bench.ask(customer(1), prompt, 40);
        if kind % 2 == 0 {
            bench.round();
        }
    }
    let asked = prompts.iter().zip(&answers);
    let asked: Vec<_> = asked
        .map(|(prompt, answer)| bench.judge(1, prompt, answer))
        .collect();
    bench.finish();
    bench.check();
    for ((_generation, mut figures), answer) in asked.into_iter().zip(&answers) {
        let figures = figures.try_recv().unwrap();
        assert_eq!(figures.margins, vec![0.0; answer.tokens.len()]);
        let chunks = answer.tokens.len().div_ceil(32);
        assert_eq!(figures.chunks, vec![ChunkDistance::default(); chunks]);
        assert!(figures.greedy && figures.fault.is_none());
    }
}

#[test]
fn a_token_that_is_not_the_models_shows_where_it_stands() {
    let mut bench = Bench::new(limits(2, 64));
    let prompt = prompt(1, 90);
    let honest = Answer::honest(&prompt, 0);
    let mut answer = honest.clone();
    answer.tokens[40] = 7;
    let (_generation, mut figures) = bench.judge(1, &prompt, &answer);
    bench.finish();
    let figures = figures.try_recv().unwrap();
    assert_eq!(figures.margins[..40], [0.0; 40]);
    // What comes after it follows from another text, but for what is the same by chance.
    let others = figures.margins[40..].iter();
    let wrong = others.filter(|margin| **margin == 0.5).count();
    assert!(wrong + 2 >= answer.tokens.len() - 40);
    assert_eq!(figures.chunks[0], ChunkDistance::default());
    assert!(figures.chunks[1].exponents > 20);
}

#[test]
fn a_beginning_that_is_not_judged_is_found_in_the_cache() {
    let mut bench = Bench::new(limits(1, 64));
    let prompt = prompt(1, 32 * 20);
    let answer = Answer::honest(&prompt, 10);
    let mut judge = || {
        let asked = bench.judge(1, &prompt, &answer);
        let mut rounds = 0;
        while bench.round() == Round::Worked {
            rounds += 1;
        }
        (rounds, asked.1.blocking_recv().unwrap())
    };
    let (first, figures) = judge();
    let (second, again) = judge();
    assert_eq!(figures, again);
    assert!(second * 3 < first, "{second} rounds, and {first} before");
}
