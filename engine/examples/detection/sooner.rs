//! How many answers are caught, and after how many tokens a provider is.

use infernet_protocol::event::Judgement;
use infernet_protocol::verification::{Pool, TextFigures, Texts, Thresholds, judge_text};

/// Ways through the answers that are tried for each cheat.
const WAYS: usize = 400;
/// Who is not caught after so many tokens counts as never.
const NEVER: u64 = 1_000_000;
/// Answers in a shard.
const SHARD: usize = 16;

pub const HEADER: &str = "cheat | answers | caught | alone by margins | by activations | by a fault \
     | tokens to detection, median | in 95 of 100";

/// A row of the table: each answer judged for itself, and providers who give them in
/// any order.
pub fn row(name: &str, figures: &[TextFigures], thresholds: &Thresholds) -> String {
    let share = |caught: usize| caught as f64 * 100.0 / figures.len().max(1) as f64;
    let is_caught = |text: &TextFigures| {
        judge_text(std::slice::from_ref(text), thresholds) == Judgement::Rejected
    };
    let by = |change: fn(&mut TextFigures)| {
        let changed = figures.iter().filter(|text| {
            let mut text = (*text).clone();
            change(&mut text);
            is_caught(&text)
        });
        share(changed.count())
    };
    let margins = by(|text| {
        text.chunks.clear();
        text.fault = None;
    });
    let activations = by(|text| {
        text.margins.fill(0.0);
        text.fault = None;
    });
    let faults = figures.iter().filter(|text| text.fault.is_some());
    let tokens = to_detection(figures, thresholds);
    format!(
        "{name} | {} | {:.1} % | {margins:.1} % | {activations:.1} % | {:.1} % | {} | {}",
        figures.len(),
        share(figures.iter().filter(|text| is_caught(text)).count()),
        share(faults.count()),
        at(&tokens, 50),
        at(&tokens, 95),
    )
}

fn at(sorted: &[u64], percent: usize) -> String {
    match sorted.get(sorted.len() * percent / 100) {
        Some(&NEVER) | None => "never".into(),
        Some(tokens) => tokens.to_string(),
    }
}

/// Tokens that providers sell before they are rejected, by an answer or by the pool of
/// all that went before, in ascending order. Answers are drawn at random, again and
/// again.
fn to_detection(figures: &[TextFigures], thresholds: &Thresholds) -> Vec<u64> {
    let one = |text: &TextFigures| Texts::of(std::slice::from_ref(text), thresholds);
    let texts: Vec<_> = figures.iter().map(one).collect();
    let caught = |text: &TextFigures| {
        judge_text(std::slice::from_ref(text), thresholds) == Judgement::Rejected
    };
    let caught: Vec<_> = figures.iter().map(caught).collect();
    let mut number = 7_u64;
    let mut draw = || {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) as usize % texts.len()
    };
    let mut ways: Vec<u64> = Vec::with_capacity(WAYS);
    while !texts.is_empty() && ways.len() < WAYS {
        let (mut pool, mut tokens) = (Pool::default(), 0);
        while tokens < NEVER {
            let drawn = draw();
            // Faults are found before margins are.
            tokens += (figures[drawn].margins.len() as u64).max(1);
            pool = pool.with(&texts[drawn], thresholds);
            if caught[drawn] || pool.is_rejected() {
                break;
            }
        }
        ways.push(tokens.min(NEVER));
    }
    ways.sort_unstable();
    ways
}

/// What becomes of honest texts in shards, and of their pool.
pub fn shards(figures: &[TextFigures], thresholds: &Thresholds) -> String {
    let shards = figures.chunks(SHARD);
    let judged: Vec<_> = shards.map(|shard| judge_text(shard, thresholds)).collect();
    let count = |wanted| {
        judged
            .iter()
            .filter(|judgement| **judgement == wanted)
            .count()
    };
    let (mut pool, mut most) = (Pool::default(), 0.0_f64);
    for text in figures {
        pool = pool.with(
            &Texts::of(std::slice::from_ref(text), thresholds),
            thresholds,
        );
        most = most.max(pool.evidence);
    }
    format!(
        "{} shards of {SHARD}: {} rejected, {} inconclusive; most evidence of the pool {most:.2}",
        judged.len(),
        count(Judgement::Rejected),
        count(Judgement::Inconclusive),
    )
}
