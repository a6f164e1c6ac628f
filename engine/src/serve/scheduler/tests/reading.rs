//! Texts that are scored beside answers that are given.

use tokio::sync::oneshot;

use super::*;
use crate::port::Score;

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
