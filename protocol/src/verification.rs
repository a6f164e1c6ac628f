//! How a result is checked, and what is made of it (`nips/verification.md`).

use std::fmt;

use nostr::EventId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::event::Refusal;
use crate::hex32::hex32;
use crate::seal::Digest;

hex32!(
    /// The secret of an order, which chooses what of it is checked. Its commitment
    /// stands in the quote; it is revealed when the order is closed.
    Secret
);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// sha256("infernet/checking/1" ‖ secret): what the quote says of it.
    pub fn commitment(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"infernet/checking/1");
        hash.update(self.as_bytes());
        Digest::from_bytes(hash.finalize().into())
    }

    /// Whether it chooses this result, where the chance is so many millionths: if
    /// the first eight bytes of sha256("infernet/choice/1" ‖ secret ‖ result id), as
    /// a big-endian number below 2⁶⁴, are less than that share of 2⁶⁴.
    pub fn chooses(&self, result: &EventId, chance_ppm: u32) -> bool {
        let mut hash = Sha256::new();
        hash.update(b"infernet/choice/1");
        hash.update(self.as_bytes());
        hash.update(result.as_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        u128::from(drawn) * 1_000_000 < u128::from(chance_ppm) << 64
    }
}

/// What a checker judges by. Calibrated for a model; see `nips/verification.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// For text drawn at a temperature above 0.
    pub sampled: Margins,
    /// For text drawn at temperature 0.
    pub greedy: Margins,
    /// For the activations of either.
    pub activations: Activations,
    /// For vectors: the least cosine between the provider's and the checker's.
    pub least_cosine: f64,
}

/// Bounds on margins (Token-DiFR, arXiv 2511.20621), in units of logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margins {
    /// What a single token's margin counts at most, and what one outside the
    /// checker's filters counts.
    pub clip: f64,
    /// A mean over an answer up to this is accepted.
    pub accept: f64,
    /// A mean over an answer above this is rejected; between the two nothing is said.
    pub reject: f64,
    /// A window's mean above this is rejected.
    pub window: f64,
    /// A mean pooled over many answers of a provider above this is rejected.
    pub pooled: f64,
}

/// Bounds on the distance of activations (TOPLOC, arXiv 2501.16007).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activations {
    /// Of 128 values, how many may have another exponent, at most.
    pub exponents: f64,
    /// The mean difference of mantissas, at most.
    pub mantissa_mean: f64,
    /// The median difference of mantissas, at most.
    pub mantissa_median: f64,
}

impl Thresholds {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        let margins = [self.sampled, self.greedy];
        let margins = margins
            .iter()
            .flat_map(|m| [m.clip, m.accept, m.reject, m.window, m.pooled]);
        let activations = self.activations;
        let mut all = margins.chain([
            activations.exponents,
            activations.mantissa_mean,
            activations.mantissa_median,
            self.least_cosine,
        ]);
        match all.all(|bound| bound.is_finite() && bound >= 0.0) {
            true => Ok(()),
            false => Err(Refusal::Invalid("a threshold is not a number of 0 or more")),
        }
    }
}
