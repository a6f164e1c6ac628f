//! Drawing a token from logits: filters in a fixed order, then noise from a
//! counter-based generator, so that a checker can repeat the draw
//! (`nips/sampling.md`).

use std::cmp::Ordering;

use infernet_protocol::inference::{Sampling, TokenId};

use crate::error::Error;
use crate::philox;

/// The highest temperature: above it a model's answers are noise.
pub const MAX_TEMPERATURE: f32 = 2.0;

/// Refuses values out of their ranges.
///
/// # Errors
/// [`Error::InvalidSampling`] says which value and its range.
pub fn validate(sampling: &Sampling) -> Result<(), Error> {
    // Written so that NaN is out of every range.
    if !(0.0..=MAX_TEMPERATURE).contains(&sampling.temperature) {
        return Err(Error::InvalidSampling("temperature must be from 0 to 2"));
    }
    if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
        return Err(Error::InvalidSampling(
            "top_p must be above 0 and at most 1",
        ));
    }
    Ok(())
}

/// Draws the answer's token at `position` (0 for its first) from the logits of
/// the whole vocabulary.
///
/// # Errors
/// [`Error::Computation`] when a logit is not a number or infinitely large, or
/// none is finite.
pub fn draw(logits: &[f32], sampling: &Sampling, position: u32) -> Result<TokenId, Error> {
    let best = argmax(logits)?;
    if sampling.temperature == 0.0 {
        return Ok(best);
    }
    let max = logits[best as usize];
    let kept = keep(logits, sampling, max);
    let temperature = f64::from(sampling.temperature);
    let mut noise = Noise::new(sampling.seed, position);
    let mut drawn = (f64::NEG_INFINITY, best);
    // From the lowest token on: of equal scores the lowest token wins.
    for token in kept {
        let score = f64::from(logits[token as usize]) / temperature + noise.gumbel(token);
        if score > drawn.0 {
            drawn = (score, token);
        }
    }
    Ok(drawn.1)
}

/// The lowest token with the greatest logit.
fn argmax(logits: &[f32]) -> Result<TokenId, Error> {
    let mut best = None::<(f32, usize)>;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(Error::Computation("a logit is not finite".into()));
        }
        if logit > best.map_or(f32::NEG_INFINITY, |(greatest, _)| greatest) {
            best = Some((logit, token));
        }
    }
    match best {
        Some((_, token)) => Ok(token as TokenId),
        None => Err(Error::Computation("no logit is finite".into())),
    }
}

/// The tokens that the filters leave, from the lowest on.
fn keep(logits: &[f32], sampling: &Sampling, max: f32) -> Vec<TokenId> {
    let count = match sampling.top_k as usize {
        0 => logits.len(),
        k => k.min(logits.len()),
    };
    let all = 0..logits.len() as TokenId;
    if count == logits.len() && sampling.top_p >= 1.0 {
        return all.collect();
    }
    let mut tokens: Vec<TokenId> = all.collect();
    let by_rank = |a: &TokenId, b: &TokenId| {
        let (left, right) = (logits[*a as usize], logits[*b as usize]);
        let order = right.partial_cmp(&left).unwrap_or(Ordering::Equal); // never NaN
        order.then(a.cmp(b))
    };
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count - 1, by_rank);
        tokens.truncate(count);
    }
    if sampling.top_p < 1.0 {
        keep_top_p(
            &mut tokens,
            by_rank,
            |token| {
                let distance = f64::from(logits[token as usize]) - f64::from(max);
                (distance / f64::from(sampling.temperature)).exp()
            },
            f64::from(sampling.top_p),
        );
    }
    tokens.sort_unstable();
    tokens
}

/// Shortens `tokens` to the first ones by rank whose weight together reaches
/// `top_p` of the weight of all. Only as much is sorted as is needed.
fn keep_top_p(
    tokens: &mut Vec<TokenId>,
    by_rank: impl Fn(&TokenId, &TokenId) -> Ordering,
    weight: impl Fn(TokenId) -> f64,
    top_p: f64,
) {
    /// What top-p leaves is mostly fewer than this.
    const FIRST_SORTED: usize = 256;
    let enough = top_p * tokens.iter().map(|&token| weight(token)).sum::<f64>();
    let (mut sum, mut kept, mut sorted) = (0.0, 0, 0);
    while kept < tokens.len() {
        if kept == sorted {
            let more = (sorted * 7).max(FIRST_SORTED).min(tokens.len() - sorted);
            let rest = &mut tokens[sorted..];
            if more < rest.len() {
                rest.select_nth_unstable_by(more - 1, &by_rank);
            }
            rest[..more].sort_unstable_by(&by_rank);
            sorted += more;
        }
        sum += weight(tokens[kept]);
        kept += 1;
        if sum >= enough {
            break;
        }
    }
    tokens.truncate(kept);
}

/// The sampling noise of one position of an answer.
struct Noise {
    key: [u32; 2],
    position: u32,
    /// One block of the generator serves four neighbouring tokens.
    block: Option<(u32, [u32; 4])>,
}

impl Noise {
    fn new(seed: u64, position: u32) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            position,
            block: None,
        }
    }

    /// Gumbel noise of a token.
    fn gumbel(&mut self, token: TokenId) -> f64 {
        let number = token / 4;
        let words = match self.block {
            Some((cached, words)) if cached == number => words,
            _ => {
                let words = philox::block([number, self.position, 0, 0], self.key);
                self.block = Some((number, words));
                words
            }
        };
        let uniform = (f64::from(words[(token % 4) as usize]) + 0.5) / 4_294_967_296.0;
        -(-uniform.ln()).ln()
    }
}

/// The Gumbel noise of one token at one position, for checkers.
pub fn gumbel(seed: u64, position: u32, token: TokenId) -> f64 {
    Noise::new(seed, position).gumbel(token)
}

/// The tokens that the filters leave, from the lowest on, for checkers.
///
/// # Errors
/// As [`draw`].
pub fn candidates(logits: &[f32], sampling: &Sampling) -> Result<Vec<TokenId>, Error> {
    let best = argmax(logits)?;
    if sampling.temperature == 0.0 {
        return Ok(vec![best]);
    }
    Ok(keep(logits, sampling, logits[best as usize]))
}
