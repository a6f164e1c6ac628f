//! Drawing a token from logits: filters in a fixed order, then noise from a
//! counter-based generator, so that a checker can repeat the draw
//! (`nips/sampling.md`).

use std::cmp::Ordering;
use std::sync::OnceLock;

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
    let kept = keep(logits, sampling, logits[best as usize]);
    let mut noise = Noise::new(sampling.seed, position);
    let (_, drawn) = noise.greatest(logits, sampling, best, &kept);
    Ok(drawn)
}

/// How far logits of honest machines are apart where the filters cut, in logits: a token
/// that is so near to the cut may be on either side of it.
pub const FILTER_SLACK: f32 = 0.5;

/// How far a token is from the one that [`draw`] gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margin {
    /// Whether the filters leave it, or nearly do.
    pub kept: bool,
    /// By how much it is below the greatest of those that the filters leave with some
    /// slack, noise counted in, in logits. Below 0 if it is above.
    pub logits: f64,
}

impl Margin {
    /// What it counts where no token counts more than `clip` (Token-DiFR, arXiv
    /// 2511.20621).
    pub fn clipped(self, clip: f64) -> f64 {
        match self.kept {
            true => self.logits.clamp(0.0, clip),
            false => clip,
        }
    }
}

/// How far a token at `position` is from the one that [`draw`] gives
/// (`nips/verification.md`). One that there is not is infinitely far.
///
/// # Errors
/// As [`draw`].
pub fn margin(
    logits: &[f32],
    sampling: &Sampling,
    position: u32,
    token: TokenId,
) -> Result<Margin, Error> {
    let best = argmax(logits)?;
    let Some(&logit) = logits.get(token as usize) else {
        return Ok(Margin {
            kept: false,
            logits: f64::INFINITY,
        });
    };
    if sampling.temperature == 0.0 {
        return Ok(Margin {
            kept: true,
            logits: f64::from(logits[best as usize]) - f64::from(logit),
        });
    }
    let mut rivals = keep(logits, sampling, logits[best as usize]);
    let (mut kept, mut alone) = (true, false);
    if rivals.len() < logits.len() {
        let cut = rivals.iter().map(|&token| logits[token as usize]);
        let cut = cut.fold(f32::INFINITY, f32::min);
        kept = logit >= cut - FILTER_SLACK;
        rivals.retain(|&token| logits[token as usize] >= cut + FILTER_SLACK);
        alone = kept && rivals.is_empty();
    }
    let temperature = f64::from(sampling.temperature);
    let mut noise = Noise::new(sampling.seed, position);
    let score = f64::from(logit) / temperature + noise.gumbel(token);
    // What is asked for is mostly what is drawn: to begin with it saves most others.
    let first = match rivals.binary_search(&token) {
        Ok(_) => token,
        Err(_) => best,
    };
    let (greatest, _) = noise.greatest(logits, sampling, first, &rivals);
    let noisy = (greatest - score) * temperature;
    // Elsewhere the filters may have left this token alone: then no noise spoke.
    let plain = f64::from(logits[best as usize]) - f64::from(logit);
    Ok(Margin {
        kept,
        logits: if alone { noisy.min(plain) } else { noisy },
    })
}

/// The lowest token with the greatest logit.
fn argmax(logits: &[f32]) -> Result<TokenId, Error> {
    /// Looked at together, by vector instructions.
    const LANES: usize = 16;
    let (mut greatest, mut sound) = ([f32::NEG_INFINITY; LANES], [true; LANES]);
    let mut look = |lane: usize, logit: f32| {
        if logit > greatest[lane] {
            greatest[lane] = logit;
        }
        sound[lane] &= logit < f32::INFINITY; // which no NaN is
    };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &logit) in chunk.iter().enumerate() {
            look(lane, logit);
        }
    }
    rest.iter().for_each(|&logit| look(0, logit));
    if sound.contains(&false) {
        return Err(Error::Computation("a logit is not finite".into()));
    }
    let greatest = greatest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    match logits.iter().position(|&logit| logit == greatest) {
        Some(token) if greatest.is_finite() => Ok(token as TokenId),
        _ => Err(Error::Computation("no logit is finite".into())),
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
        gumbel_of(self.word(token))
    }

    /// What the noise of a token is not above, found faster.
    fn bound(&mut self, token: TokenId) -> f64 {
        bounds()[(self.word(token) >> BOUND_SHIFT) as usize]
    }

    /// The greatest score, and the token that has it, of tokens that the filters leave
    /// (`kept`, from the lowest on). `first` is one of them, looked at first.
    fn greatest(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        first: TokenId,
        kept: &[TokenId],
    ) -> (f64, TokenId) {
        let temperature = f64::from(sampling.temperature);
        let score = |token: TokenId| f64::from(logits[token as usize]) / temperature;
        let mut drawn = (score(first) + self.gumbel(first), first);
        for &token in kept {
            let plain = score(token);
            // Most tokens are too unlikely for any noise, or for noise like theirs.
            if plain + MOST_NOISE < drawn.0 || plain + self.bound(token) < drawn.0 {
                continue;
            }
            let score = plain + self.gumbel(token);
            // Of equal scores the lowest token wins.
            if score > drawn.0 || (score == drawn.0 && token < drawn.1) {
                drawn = (score, token);
            }
        }
        drawn
    }

    fn word(&mut self, token: TokenId) -> u32 {
        let number = token / 4;
        let words = match self.block {
            Some((cached, words)) if cached == number => words,
            _ => {
                let words = philox::block([number, self.position, 0, 0], self.key);
                self.block = Some((number, words));
                words
            }
        };
        words[(token % 4) as usize]
    }
}

/// Above what the greatest word gives.
const MOST_NOISE: f64 = 23.0;
/// Words that share a bound differ in so many bits.
const BOUND_SHIFT: u32 = 22;

/// Gumbel noise of a word of the generator; the greater the word, the greater it is.
fn gumbel_of(word: u32) -> f64 {
    let uniform = (f64::from(word) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln()
}

/// Bounds of the noise, by a word's first bits.
fn bounds() -> &'static [f64] {
    static BOUNDS: OnceLock<Vec<f64>> = OnceLock::new();
    BOUNDS.get_or_init(|| {
        let firsts = 0..=u32::MAX >> BOUND_SHIFT;
        let greatest = firsts.map(|first| (first << BOUND_SHIFT) | ((1 << BOUND_SHIFT) - 1));
        // More than logarithms are rounded by.
        greatest.map(|word| gumbel_of(word) + 1e-9).collect()
    })
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The same by the definition, without any haste.
    fn drawn_plainly(logits: &[f32], sampling: &Sampling, position: u32) -> TokenId {
        let temperature = f64::from(sampling.temperature);
        let mut drawn = (f64::NEG_INFINITY, 0);
        for token in candidates(logits, sampling).unwrap() {
            let noise = gumbel(sampling.seed, position, token);
            let score = f64::from(logits[token as usize]) / temperature + noise;
            if score > drawn.0 {
                drawn = (score, token);
            }
        }
        drawn.1
    }

    #[test]
    fn haste_changes_no_draw() {
        for position in 0..200 {
            let wide = |token: u32| (gumbel(1, position, token) * 3.0) as f32;
            let logits: Vec<f32> = (0..3_001).map(wide).collect();
            for temperature in [0.1, 0.7, 1.0, 2.0] {
                let sampling = Sampling {
                    temperature,
                    seed: u64::from(position) << 33 | 5,
                    ..Sampling::default()
                };
                let expected = drawn_plainly(&logits, &sampling, position);
                assert_eq!(draw(&logits, &sampling, position).unwrap(), expected);
            }
        }
    }

    #[test]
    fn what_is_drawn_has_no_margin_and_all_else_has() {
        let near = |token: u32| ((token * 37) % 64) as f32 / 8.0;
        let logits: Vec<f32> = (0..64).map(near).collect();
        for (top_k, top_p) in [(0, 1.0), (20, 1.0), (0, 0.9)] {
            for position in 0..100 {
                let sampling = Sampling {
                    temperature: 0.8,
                    top_k,
                    top_p,
                    seed: 5,
                };
                let drawn = draw(&logits, &sampling, position).unwrap();
                let kept = candidates(&logits, &sampling).unwrap();
                let all = top_k == 0 && top_p == 1.0;
                for token in 0..64 {
                    let margin = margin(&logits, &sampling, position, token).unwrap();
                    if token == drawn {
                        assert!(margin.kept && margin.logits <= 0.0);
                    } else if all {
                        assert!(margin.kept && margin.logits > 0.0);
                    }
                    assert!(margin.kept || !kept.contains(&token));
                }
            }
        }
    }

    #[test]
    fn who_is_near_the_cut_may_be_on_either_side_of_it() {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 2,
            ..Sampling::default()
        };
        // The second and third differ by less than the slack.
        let logits = [3.0, 1.0, 0.8, 0.2];
        let mut seen = [false; 3];
        for seed in 0..200 {
            let sampling = Sampling { seed, ..sampling };
            let margin = |token| margin(&logits, &sampling, 0, token).unwrap();
            assert!(margin(2).kept && !margin(3).kept);
            // It is not held against one that the second is above it, only that the
            // first is.
            let of = |token| f64::from(logits[token as usize]) + gumbel(seed, 0, token);
            assert!((margin(2).logits - (of(0) - of(2))).abs() < 1e-9);
            seen[0] |= of(2) > of(0);
            seen[1] |= of(1) > of(2) && of(2) > of(0);
            seen[2] |= of(0) > of(2);
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(margin(&logits, &sampling, 0, 9).unwrap().clipped(2.5), 2.5);
    }

    /// Of two that are almost the same one machine keeps the one, another the other:
    /// what noise they have says nothing.
    #[test]
    fn who_may_have_been_kept_alone_is_not_held_against_noise() {
        let logits = [3.0, 2.99, 0.5];
        for seed in 0..200 {
            let sampling = Sampling {
                temperature: 1.0,
                top_k: 1,
                seed,
                ..Sampling::default()
            };
            let margin = |token| margin(&logits, &sampling, 0, token).unwrap();
            assert!(margin(1).kept && margin(1).logits <= 0.011);
            assert!(margin(0).logits <= 0.0);
            assert!(!margin(2).kept);
        }
    }

    #[test]
    fn no_noise_is_above_its_bound() {
        for word in (0..=u32::MAX).step_by(4_093).chain([u32::MAX]) {
            let noise = gumbel_of(word);
            assert!(noise <= bounds()[(word >> BOUND_SHIFT) as usize]);
            assert!(noise < MOST_NOISE);
        }
    }

    #[test]
    fn the_lowest_of_the_greatest_is_the_best() {
        let mut logits = vec![-1.0; 100];
        (logits[37], logits[90], logits[99]) = (2.0, 2.0, 1.0);
        assert_eq!(argmax(&logits).unwrap(), 37);
        logits[99] = 3.0; // beyond the last whole chunk
        assert_eq!(argmax(&logits).unwrap(), 99);
        for bad in [f32::NAN, f32::INFINITY] {
            for place in [3, 99] {
                let mut logits = logits.clone();
                logits[place] = bad;
                assert!(argmax(&logits).is_err());
            }
        }
        assert!(argmax(&[f32::NEG_INFINITY; 20]).is_err());
        assert!(argmax(&[]).is_err());
    }
}
